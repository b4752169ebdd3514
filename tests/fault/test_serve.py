"""What `tollway serve` survives, and what it refuses, as a real tree of processes."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import Serving, alive, until


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A gateway of two workers that is ready."""
    with Serving(tmp_path, "--workers", "2") as served:
        yield served


def test_a_killed_worker_is_replaced_and_the_others_are_unharmed(serving: Serving) -> None:
    """A crash costs the requests of one worker, not the service."""
    before = serving.processes()

    os.kill(before["worker 0"], signal.SIGKILL)
    until(lambda: serving.processes().get("worker 0") != before["worker 0"])
    assert serving.get("/v1/models", serving.key) == 200
    until(lambda: serving.processes().get("worker 0", before["worker 0"]) != before["worker 0"])

    after = serving.processes()
    assert {name: pid for name, pid in after.items() if name != "worker 0"} == {
        name: pid for name, pid in before.items() if name != "worker 0"
    }


def test_a_killed_sandbox_comes_back_on_its_address(serving: Serving) -> None:
    """The workers know the sandbox by one address, for as long as they live."""
    before = serving.processes()["sandbox"]

    os.kill(before, signal.SIGKILL)
    until(lambda: serving.processes().get("sandbox", before) != before)

    until(lambda: serving.get("/v1/models", serving.key) == 200)


def test_a_killed_valkey_is_started_again(serving: Serving) -> None:
    """The counters' server dies, the gateway goes on as soon as a new one has read the file."""
    before = serving.processes()

    os.kill(before["valkey-server"], signal.SIGKILL)
    until(lambda: serving.processes().get("valkey-server", before["valkey-server"]) != before["valkey-server"])
    until(lambda: serving.get("/v1/models", serving.key) == 200)

    assert serving.processes()["worker 0"] == before["worker 0"]
    assert serving.stop() == 0
    assert serving.orphans() == []


def test_a_valkey_that_can_t_start_again_is_told_and_tried_until_it_does(serving: Serving) -> None:
    """A disk that fails under a running gateway shows in the log with its cause; mended, the service comes back."""
    before = serving.processes()["valkey-server"]
    file = next((serving.data_dir / "valkey/appendonlydir").glob("*.incr.aof"))
    whole = file.read_bytes()

    file.write_bytes(b"garbage\r\n" * 4)
    os.kill(before, signal.SIGKILL)
    until(lambda: any("valkey_restart_failed" in line and "Bad file format" in line for line in serving.log))
    file.write_bytes(whole)

    until(lambda: any("valkey_runs_again" in line for line in serving.log))
    until(lambda: serving.get("/v1/models", serving.key) == 200)


def test_a_gateway_that_can_t_start_ends_the_command(tmp_path: Path) -> None:
    """A mistake that only shows in a worker is not tried forever: status 1, and nothing left running."""
    served = Serving(tmp_path, "--workers", "2")
    settings = tmp_path / "gateway.yaml"
    bad = "upstreams:\n  other: { url: https://example.test, ca_file: gateway.yaml }"
    settings.write_text(settings.read_text().replace("upstreams:", bad))

    refused = served.launch()
    _, error = refused.communicate(timeout=45)

    assert refused.returncode == 1
    assert error
    assert not (tmp_path / "data/valkey/valkey.pid").exists()


def test_serve_after_a_killed_supervisor_takes_valkey_over(tmp_path: Path) -> None:
    """A crash of the supervisor costs nothing: old workers leave, the same Valkey goes on, on the same port."""
    with Serving(tmp_path) as first:
        old, key, port = first.processes(), first.key, first.url.rpartition(":")[2]
        first.process.kill()
        first.process.wait()

        with Serving(tmp_path, "--port", port) as second:
            assert second.get("/v1/models", key) == 200
            assert second.url == first.url
            until(lambda: not alive(old["worker 0"]) and not alive(old["sandbox"]))
            assert alive(old["valkey-server"])
            assert (second.data_dir / "valkey/valkey.pid").read_text().strip() == str(old["valkey-server"])

            assert second.stop() == 0
            until(lambda: not alive(old["valkey-server"]))


def test_serve_after_everything_was_killed_starts_clean(tmp_path: Path) -> None:
    """A stale socket, pid file and lock of a machine that went down are in nobody's way."""
    with Serving(tmp_path) as first:
        children = first.processes()  # asked for first: those of a dead parent are nobody's children
        first.process.kill()
        for pid in children.values():
            os.kill(pid, signal.SIGKILL)
        key = first.key
        until(lambda: first.orphans() == [])
        assert (first.data_dir / "valkey.sock").exists()

        with Serving(tmp_path) as second:
            assert second.get("/v1/models", key) == 200
            assert "valkey-server" in second.processes()


def test_a_second_serve_on_the_same_data_is_refused(serving: Serving) -> None:
    """Two supervisors would fight over one Valkey; the second says who is in the way."""
    refused = serving.launch()
    _, error = refused.communicate(timeout=45)

    assert refused.returncode == 1
    assert f"is served already, by process {serving.process.pid}" in error
    assert "Traceback" not in error
    assert serving.get("/v1/models", serving.key) == 200


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The operator reads which port, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = Serving(tmp_path).launch("--port", str(port))
        _, error = refused.communicate(timeout=45)

    assert refused.returncode == 1
    assert f"can't listen on 127.0.0.1 port {port}: Address already in use" in error
    assert not (tmp_path / "data/valkey/valkey.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_with_status_0(serving: Serving, number: signal.Signals) -> None:
    """An orchestrator sees a clean stop, soon, and no process is left behind."""
    started = time.monotonic()

    assert serving.stop(number) == 0

    assert time.monotonic() - started < 15  # and doesn't use up its grace of 20 s
    assert serving.orphans() == []


def test_ctrl_c_on_a_terminal_lets_valkey_outlive_the_workers(serving: Serving) -> None:
    """The terminal signals the whole group; usage settled while stopping still finds Valkey."""
    serving.processes()
    os.killpg(serving.process.pid, signal.SIGINT)

    assert serving.process.wait(45) == 0
    log = (serving.data_dir / "valkey/valkey.log").read_text()
    assert "User requested shutdown" in log
    assert "Received SIGINT" not in log
    assert serving.orphans() == []


def test_a_second_signal_is_prompt(serving: Serving) -> None:
    """Someone who presses Ctrl-C twice does not wait for a client that never ends its request."""
    address = ("127.0.0.1", int(serving.url.rpartition(":")[2]))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {serving.key}\r\n"
    with socket.create_connection(address) as stuck:
        stuck.sendall(f"{head}content-length: 1000\r\n\r\n{{".encode())
        until(lambda: serving.has_read(stuck.getsockname()[1]))
        serving.process.send_signal(signal.SIGTERM)
        stuck.settimeout(1.0)
        with pytest.raises(TimeoutError):
            stuck.recv(1)
        assert serving.process.poll() is None

        started = time.monotonic()
        assert serving.stop() == 0
        assert time.monotonic() - started < 15
    assert serving.orphans() == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The operator reads what can't be written, not a traceback; nothing is left running."""
    served = Serving(tmp_path)
    # A file size limit of 0 is the nearest to a full disk that needs no mount.
    served.limit_file_size()
    refused = served.launch()
    _, error = refused.communicate(timeout=45)

    assert refused.returncode == 1
    assert f"the data directory {served.data_dir} can't be used: File too large" in error
    assert not (tmp_path / "data/keys.secret").exists()


def test_a_damaged_append_only_file_is_told(tmp_path: Path) -> None:
    """Counters that can't be read are never silently started from nothing."""
    with Serving(tmp_path) as served:
        assert served.stop() == 0
    file = next((tmp_path / "data/valkey/appendonlydir").glob("*.incr.aof"))
    file.write_bytes(b"garbage\r\n" * 4)

    refused = Serving(tmp_path).launch()
    _, error = refused.communicate(timeout=45)

    assert refused.returncode == 1
    assert "embedded Valkey did not start" in error
    assert "Bad file format reading the append only file" in error


def test_a_torn_append_only_file_is_cut_and_said(tmp_path: Path) -> None:
    """After a loss of power the gateway starts by itself, and the log says that the last second may be missing."""
    with Serving(tmp_path) as served:
        assert served.stop() == 0
    file = next((tmp_path / "data/valkey/appendonlydir").glob("*.incr.aof"))
    file.write_bytes(file.read_bytes() + b"*3\r\n$3\r\nSET\r\n$1")

    with Serving(tmp_path) as served:
        assert "valkey_file_cut_short" in served.welcome
        assert served.stop() == 0
