"""Workers that are replaced one by one under a running `tollway serve`, as a real tree of processes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.fault.test_reload import FREE, Reloaded
from tests.support.serving import stopped, until
from tests.support.steady_callers import SteadyCallers


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Reloaded]:
    """A gateway of two workers that is ready."""
    with Reloaded(tmp_path, "--workers", "2") as served:
        yield served


def replace_workers(serving: Reloaded, turn: int = 1) -> None:
    """Replace every worker; this is the `turn`-th time."""
    serving.process.send_signal(signal.SIGUSR2)
    serving.await_event("workers_restarted", turn)


@pytest.mark.timeout(240)
def test_six_replaced_workers_under_two_thousand_requests_fail_nobody(serving: Reloaded) -> None:
    """A rolling restart drops nothing: neither who connects while a worker leaves, nor who asks again over a connection
    to it, nor a stream that it is in the middle of.
    """  # noqa: D205
    before = serving.processes()
    with SteadyCallers(serving.url, serving.key, fresh=4, kept=2) as callers:
        for turn in range(3):
            replace_workers(serving, turn + 1)
            assert {name for name in serving.processes() if name.startswith("worker")} == (
                {"worker 0", "worker 1"} if turn % 2 else {"worker 2", "worker 3"}
            )
        until(lambda: callers.answered >= 2000, within_s=120)

    assert callers.failures == []
    after = serving.processes()
    assert after["valkey-server"] == before["valkey-server"]
    assert not set(before.values()) & {pid for name, pid in after.items() if name.startswith("worker")}
    assert serving.stop() == 0
    assert serving.orphans() == []


def test_settings_of_workers_come_with_their_replacement(serving: Reloaded) -> None:
    """What a worker reads at its start is changed without a restart; counts go on where the old workers left them."""
    assert serving.get("/v1/models", serving.key) == 200
    requests = 'tollway_requests_total{outcome="ok",route="/v1/*",status="200"}'
    until(lambda: serving.metric(requests) == 1)
    serving.change((FREE, "tokens: { day: 8000 }"), ("log: { requests: false }", "log: { requests: true }"))

    replace_workers(serving)

    assert serving.limit() == "8000"
    until(lambda: any('"event":"request"' in line for line in serving.log))
    until(lambda: serving.metric(requests) == 2)
    until(lambda: serving.metric("tollway_settings_version") == 2)


def test_a_successor_that_can_t_start_leaves_the_old_workers_at_work(tmp_path: Path) -> None:
    """A certificate that is gone, which only a start shows, costs nothing: no worker is replaced by a dead one."""
    authority = tmp_path / "authority.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    serving = Reloaded(tmp_path, "--workers", "2")
    serving.change(("upstreams:", f"upstreams:\n  other: {{ url: https://example.test, ca_file: {authority} }}"))
    with serving:
        before = serving.processes()
        authority.unlink()
        serving.process.send_signal(signal.SIGUSR2)

        assert serving.await_event("restart_failed")["replaced"] == 0
        assert serving.get("/v1/models", serving.key) == 200
        assert serving.processes() == before
        assert serving.events("workers_restarted") == []


def test_who_waits_in_a_killed_workers_queue_is_served_by_the_next(tmp_path: Path) -> None:
    """A crash costs the requests of one worker that were running, not those that it had not taken yet."""
    with Reloaded(tmp_path) as serving:
        worker = serving.processes()["worker 0"]
        os.kill(worker, signal.SIGSTOP)
        until(lambda: stopped(worker))
        links = [serving.link() for _ in range(5)]
        for link in links:
            link.request("GET", "/v1/models", headers={"authorization": f"Bearer {serving.key}"})

        os.kill(worker, signal.SIGKILL)

        assert [link.getresponse().status for link in links] == [200] * 5
        for link in links:
            link.close()
