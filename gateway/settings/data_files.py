"""Finds the data files of `config/` and `lua/`, which sit beside the package in a checkout and inside it in a wheel."""

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent


def data_file(kind: Literal["config", "lua"], name: str) -> Path:
    """The path of a data file, or of the folder itself where `name` is "".

    `data_file("config", "gateway.yaml")` is the shipped default, which a checkout keeps at its root. Raises
    FileNotFoundError.
    """
    places = [_PACKAGE / kind / name, _CHECKOUT / kind / name]
    if (kind, name) == ("config", "gateway.yaml"):
        places.append(_CHECKOUT / name)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(f"no {kind}/{name} in this installation of Tollway")
