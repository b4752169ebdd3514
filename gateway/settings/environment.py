"""`${NAME}` and `${NAME:-default}` in the text of a settings file. `$${` stands for a plain `${`.

As in a shell, the default of `:-` takes the place of a variable that is unset or empty. It is not expanded again.
"""

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(
    r"\$\$\{"  # the escape
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}"
    r"|\$\{"  # anything else that begins like a placeholder
)


class ExpansionError(ValueError):
    """A placeholder that can't be filled; its text says why and names the variable, never a value."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Text with its placeholders filled from `environ`. Raises ExpansionError."""
    return _PLACEHOLDER.sub(lambda found: _value(found, environ), text) if "${" in text else text


def variables(text: str) -> list[str]:
    """The names of the variables that `text` asks for, in order."""
    return [found["name"] for found in _PLACEHOLDER.finditer(text) if found["name"]]


def _value(found: re.Match[str], environ: Mapping[str, str]) -> str:
    if found[0] == "$${":
        return "${"
    name, default = found["name"], found["default"]
    if name is None:
        raise ExpansionError("has a broken placeholder; write ${NAME} or ${NAME:-default}, or $${ for a plain ${")
    if default is not None:
        return environ.get(name) or default
    if name not in environ:
        raise ExpansionError(
            f"the environment variable {name} is not set; set it, or give a default: ${{{name}:-default}}"
        )
    return environ[name]
