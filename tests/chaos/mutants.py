"""Copies of the gateway with one defect each, on purpose: a chaos run that can't tell them is worth nothing."""

import shutil
from dataclasses import dataclass
from pathlib import Path

COPIED = ("gateway", "lua", "config")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect: in `file`, `sound` becomes `broken`."""

    file: str
    sound: str
    broken: str


MUTANTS = {
    "ack_before_commit": Mutant(
        "gateway/metering/flusher.py",
        "        events, unreadable = _sorted(self._held)\n",
        "        events, unreadable = _sorted(self._held)\n        await self._stream.done(self._held)\n",
    ),
    "settle_not_idempotent": Mutant(
        "lua/late.lua",
        "  if state[1] and again == 0 then\n",
        "  if state[1] then\n",
    ),
    "no_window_guard": Mutant(
        "lua/settle.lua",
        "    if tonumber(state[at]) == line[1] then\n",
        "    if state[at] then\n",
    ),
    "no_reaper": Mutant(
        "gateway/app.py",
        "        self._start(self._reaper.run())\n",
        "",
    ),
}


def broken_copy(name: str, directory: Path) -> Path:
    """Copy the program below `directory` and break it; where it lies. Fails where the sound text isn't there once."""
    mutant = MUTANTS[name]
    for folder in COPIED:
        shutil.copytree(folder, directory / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("gateway.yaml", directory)
    file = directory / mutant.file
    text = file.read_text()
    if text.count(mutant.sound) != 1:
        raise SystemExit(f"{name}: {mutant.file} has not once the text to be broken: {mutant.sound!r}")
    file.write_text(text.replace(mutant.sound, mutant.broken))
    return directory
