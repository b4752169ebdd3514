"""The settings in force, the file that they come from, and what becomes of a change of it: all of it counts, or none.

A file that has mistakes, that asks for what needs a restart, or whose upstreams can't be set up, is refused: the log
says all that is in the way, `tollway_settings_refused` is 1, and what was read before stays in force. Raises nothing.
"""

import time
from collections.abc import Callable
from pathlib import Path

from gateway.settings.changes import Change, Reach, changes, touched_tiers
from gateway.settings.handout import Handout
from gateway.settings.mistakes import SettingsError
from gateway.settings.model import Settings
from gateway.telemetry import catalogue, snapshot
from gateway.telemetry.log import log
from gateway.upstream.tls import verifying_context

SUPERVISOR = -1
"""Its slot among the workers' metrics."""

_Stamp = tuple[int, int, int] | None


class Reloading:
    """`read` gives the settings as the file says now; `settings` are those in force, the `version`-th."""

    def __init__(self, read: Callable[[], Settings], file: Path, settings: Settings, metrics_dir: Path) -> None:
        self.settings = settings
        self.version = 1
        self.touched: tuple[str, ...] = ()
        self._read = read
        self._file = file
        self._taken = self._last = self._stamp()
        self._metrics_file = snapshot.worker_file(metrics_dir, SUPERVISOR)
        self._results: dict[snapshot.Key, float] = {}
        self.refused = False
        self._before = settings
        self._sandboxed = _asks_sandbox(settings)

    def has_changed(self) -> bool:
        """Whether the file is another than the one that was read last, and is no longer being written."""
        last, self._last = self._last, self._stamp()
        return self.settings.reload.watch and self._last == last != self._taken

    def take(self, reach: Reach = Reach.LIVE) -> bool:
        """Read the file; whether there are new settings in force. `reach` is how far its changes may go."""
        self._taken = self._last = self._stamp()
        try:
            asked = self._read()
        except SettingsError as error:
            return self._refuse([str(mistake) for mistake in error.mistakes])
        found = changes(self.settings, asked)
        if not found:
            self.refused = False
            log.info("settings_unchanged", file=str(self._file))
            return False
        if problems := [*_beyond(found, reach), *_unusable(asked, self._sandboxed)]:
            return self._refuse(problems)
        self._before, self.settings = self.settings, asked
        self.version += 1
        self.touched = touched_tiers(found)
        self.refused = False
        self._count("applied")
        log.info("settings_reloaded", file=str(self._file), version=self.version, changes=[str(one) for one in found])
        return True

    def revert(self) -> None:
        """Go back to what was in force before: no process could start by what is now."""
        self.settings, self.refused = self._before, True
        self.version += 1

    def handout(self, teller: int) -> Handout:
        """The settings in force, for the workers."""
        return Handout(self.version, self.settings, self.touched, teller)

    def write_metrics(self, died: int) -> None:
        """Tell the worker that is scraped; once a second, as a workers' gauges are believed while they are fresh.

        `died` is how many processes died so far.
        """
        gauges: dict[str, float] = {
            catalogue.SETTINGS_NEWEST.name: self.version,
            catalogue.SETTINGS_REFUSED.name: float(self.refused),
        }
        counters: dict[str, dict[snapshot.Key, float]] = {
            catalogue.RELOADS.name: self._results,
            catalogue.PROCESSES_DIED.name: {(): float(died)},
        }
        try:
            snapshot.write(self._metrics_file, snapshot.Snapshot(SUPERVISOR, time.time(), counters, {}, gauges))
        except OSError as error:
            log.warning("metrics_not_written", file=str(self._metrics_file), detail=str(error))

    def _refuse(self, problems: list[str]) -> bool:
        self.refused = True
        self._count("refused")
        log.error("settings_refused", file=str(self._file), problems=problems, in_force=self.version)
        return False

    def _count(self, result: str) -> None:
        self._results[result,] = self._results.get((result,), 0) + 1

    def _stamp(self) -> _Stamp:
        """What tells one state of the file from another; None while it isn't there."""
        try:
            seen = self._file.stat()
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _beyond(found: tuple[Change, ...], reach: Reach) -> list[str]:
    allowed = {Reach.LIVE} if reach is Reach.LIVE else {Reach.LIVE, Reach.WORKERS}
    return [f"{change.path}: {change.reach}" for change in found if change.reach not in allowed]


def _asks_sandbox(settings: Settings) -> bool:
    return any(upstream.uses_sandbox for upstream in settings.upstreams.values())


def _unusable(new: Settings, sandboxed: bool) -> list[str]:
    """What a worker would stumble over, looked at once for them all."""
    problems = []
    for name, upstream in new.upstreams.items():
        if upstream.uses_sandbox and not sandboxed:
            problems.append(f"upstreams.{name}: the built-in sandbox does not run yet; {Reach.RESTART}")
        if upstream.ca_file:
            try:
                verifying_context(upstream.ca_file)
            except OSError as error:
                problems.append(f"upstreams.{name}.ca_file: {error.strerror or error}")
    return problems
