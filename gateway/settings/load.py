"""gateway.yaml and the environment into typed settings, or into the list of every mistake in them.

Raises SettingsError and nothing else, whatever the file holds. No text of it tells a value that may be secret.
"""

from collections.abc import Mapping
from pathlib import Path

from msgspec import inspect

from gateway.settings import document, relations
from gateway.settings.convert import Conversion, Place
from gateway.settings.mistakes import Mistake, SettingsError
from gateway.settings.model import Settings

__all__ = ["Mistake", "SettingsError", "load"]


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings that the file at `path` makes with the variables of `environ`. Raises SettingsError."""
    file = str(path)
    root = document.compose(document.read(path), file)
    conversion = Conversion(file, environ)
    settings: Settings = conversion.value(root, inspect.type_info(Settings), Place("", 1))
    for at, problem in relations.problems(settings):
        conversion.report(Place(at, conversion.lines.get(at, 1)), problem)
    if conversion.mistakes:
        raise SettingsError(tuple(sorted(conversion.mistakes, key=lambda mistake: mistake.line)))
    return settings
