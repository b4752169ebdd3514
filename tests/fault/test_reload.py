"""A change of gateway.yaml under a running `tollway serve`, as a real tree of processes."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.support.serving import Serving, until
from tests.support.steady_callers import SteadyCallers

FREE = "tokens: { day: 100000 }"


class Reloaded(Serving):
    """A gateway whose settings a test changes."""

    def change(self, *pairs: tuple[str, str]) -> None:
        """Put other text into the file, as an editor does: a new file in the place of the old."""
        text = self._file.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        draft = self._file.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(self._file)

    def hang_up(self) -> None:
        """Ask for a reload."""
        self.process.send_signal(signal.SIGHUP)

    def events(self, name: str) -> list[dict[str, object]]:
        """Lines of the log that tell of this."""
        told = [line for line in self.log if line.startswith("{") and f'"event":"{name}"' in line.replace(" ", "")]
        return [msgspec.json.decode(line) for line in told]

    def await_event(self, name: str, count: int = 1) -> dict[str, object]:
        """The newest of them, once there are so many."""
        until(lambda: len(self.events(name)) >= count, within_s=45)
        return self.events(name)[-1]

    def link(self) -> HTTPConnection:
        """A connection of its own."""
        address = urlsplit(self.url)
        return HTTPConnection(str(address.hostname), address.port, timeout=20)

    def limit(self) -> str:
        """What a request is told of its tokens of the day."""
        link = self.link()
        link.request("GET", "/v1/models", headers={"authorization": f"Bearer {self.key}"})
        told = str(link.getresponse().getheader("ratelimit-policy"))
        link.close()
        return told.partition(";q=")[2].partition(";")[0]

    def metric(self, name: str) -> float:
        """Its value, now; -1 where it isn't told."""
        link = self.link()
        link.request("GET", "/_tollway/metrics")
        lines = link.getresponse().read().decode().splitlines()
        link.close()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), -1.0)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Reloaded]:
    """A gateway of two workers that is ready."""
    with Reloaded(tmp_path, "--workers", "2") as served:
        yield served


@pytest.mark.timeout(240)
def test_twenty_reloads_under_load_fail_nobody(serving: Reloaded) -> None:
    """Ops change plans at noon: no request pays for it, and the new limit is told by every worker at once."""
    with SteadyCallers(serving.url, serving.key, fresh=1, kept=2) as callers:
        for turn in range(20):
            serving.change((f"day: {100_000 + turn}", f"day: {100_001 + turn}"))
            serving.hang_up()
            taken = serving.await_event("settings_taken", turn + 1)
            assert (taken["version"], taken["workers"]) == (turn + 2, 2)
            callers.await_more(20)

    assert callers.failures == []
    assert callers.answered >= 400
    assert {serving.limit() for _ in range(12)} == {"100020"}
    assert "process_died" not in "".join(serving.log)


def test_a_file_that_changes_is_taken_without_a_signal(serving: Reloaded) -> None:
    """A plan that is edited in place, or mounted anew by an orchestrator, counts within seconds; the log says what
    changed and how many accounts it concerns, and the metrics that every worker has it.
    """  # noqa: D205
    serving.change((FREE, "tokens: { day: 90000 }, requests: { hour: 7 }"))

    until(lambda: serving.limit() == "90000")

    told = serving.await_event("settings_reloaded")
    assert told["changes"] == [
        "~ tiers.free.limits.tokens.day: 100000 -> 90000",
        "+ tiers.free.limits.requests.hour: 7",
    ]
    assert serving.await_event("tiers_changed")["accounts"] == {"free": 1}
    until(lambda: serving.metric("tollway_settings_version") == 2)
    until(lambda: serving.metric("tollway_settings_version_newest") == 2)


def test_a_bad_file_is_refused_whole_and_told_in_full(serving: Reloaded) -> None:
    """A mistake in the evening costs nothing: every mistake is in the log, an alarm can see it, the old plans hold, and
    the mended file is taken.
    """  # noqa: D205
    serving.change((FREE, "tokens: { dya: 5 }, tokns: { day: 5 }"))
    serving.hang_up()

    problems = serving.await_event("settings_refused")["problems"]
    assert isinstance(problems, list)
    assert ["dya" in problems[0], "tokns" in problems[1]] == [True, True]
    assert serving.limit() == "100000"
    until(lambda: serving.metric("tollway_settings_refused") == 1)

    serving.change(("tokens: { dya: 5 }, tokns: { day: 5 }", "tokens: { day: 6000 }"))
    serving.hang_up()
    serving.await_event("settings_taken")
    assert serving.limit() == "6000"
    until(lambda: serving.metric("tollway_settings_refused") == 0)


def test_what_needs_a_restart_is_named_and_nothing_else_is_taken(serving: Reloaded) -> None:
    """What runs is always one version of the file: half of a change is never in force."""
    serving.change((FREE, "tokens: { day: 5 }"), ("log: { requests: false }", "log: { requests: true, level: debug }"))
    serving.hang_up()

    assert serving.await_event("settings_refused")["problems"] == [
        "log.level: needs a restart",
        "log.requests: once the workers are restarted (SIGUSR2)",
    ]
    assert serving.limit() == "100000"


def test_a_worker_that_starts_later_has_the_last_good_settings(serving: Reloaded) -> None:
    """A crash after a reload doesn't bring the old plans back, nor a file that was refused meanwhile."""
    serving.change((FREE, "tokens: { day: 7000 }"))
    serving.hang_up()
    serving.await_event("settings_taken")
    serving.change(("tokens: { day: 7000 }", "tokens: { day: none }"))
    serving.hang_up()
    serving.await_event("settings_refused")
    before = serving.processes()

    workers = {before["worker 0"], before["worker 1"]}
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not workers & set(serving.processes().values()))

    assert {serving.limit() for _ in range(12)} == {"7000"}


def test_a_terminal_that_closes_stops_it(tmp_path: Path) -> None:
    """SIGHUP still means what it always meant to who closes the window of a `tollway serve`: nothing is left behind."""
    Serving(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "gateway", "serve", "--file", str(tmp_path / "gateway.yaml")])
    said = b""
    while b"built-in sandbox answers" not in said:
        said += os.read(terminal, 65536)

    os.close(terminal)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    found = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.stdout == ""
