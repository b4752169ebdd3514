"""Copies of the gateway with one defect each, on purpose: a chaos run that can't tell them is worth nothing."""

import shutil
from dataclasses import dataclass
from pathlib import Path

COPIED = ("gateway", "lua", "config")


@dataclass(frozen=True, slots=True)
class Edit:
    """In `file`, `sound` becomes `broken`."""

    file: str
    sound: str
    broken: str


MUTANTS = {
    "ack_before_commit": (
        Edit(
            "gateway/metering/flusher.py",
            "        events, unreadable = _sorted(self._held)\n",
            "        events, unreadable = _sorted(self._held)\n        await self._stream.done(self._held)\n",
        ),
    ),
    # A settlement that is sent again, as its answer was lost, charges again.
    "settle_not_idempotent": (
        Edit("lua/late.lua", "  if state[1] and again == 0 then\n", "  if state[1] then\n"),
        Edit("lua/replay.lua", "  elseif call[2] == REPEATED then\n", "  elseif false then\n"),
    ),
    # A settlement lands in whatever window runs by then.
    "no_window_guard": (
        Edit("lua/settle.lua", "    if tonumber(state[at]) == line[1] then\n", "    if state[at] then\n"),
    ),
    "no_reaper": (Edit("gateway/app.py", "        self._start(self._reaper.run())\n", ""),),
}


def broken_copy(name: str, directory: Path) -> Path:
    """Copy the program below `directory` and break it; where it lies. Fails where a sound text isn't there once."""
    for folder in COPIED:
        shutil.copytree(folder, directory / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("gateway.yaml", directory)
    for edit in MUTANTS[name]:
        file = directory / edit.file
        text = file.read_text()
        if text.count(edit.sound) != 1:
            raise SystemExit(f"{name}: {edit.file} has not once the text to be broken: {edit.sound!r}")
        file.write_text(text.replace(edit.sound, edit.broken))
    return directory
