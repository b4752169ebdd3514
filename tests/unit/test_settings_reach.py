"""Whatever changes in gateway.yaml is applied, or is told with what it takes: each key, those of tomorrow too.

Walks the types of the model themselves, so that a section that somebody adds is tried the day it is there.
"""

import enum
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import structlog

from gateway.billing.tariff import tariff_of
from gateway.cli.reloading import Reloading
from gateway.domain.subscriptions import Access, Status
from gateway.settings.callers import Jwt
from gateway.settings.changes import AT_START, FIXED, LIVE, Change, Reach, changes
from gateway.settings.model import Route, Settings
from gateway.settings.plans import BillingInterval, LimitSettings, Price, ScheduleSettings, TierSettings
from gateway.settings.tiers import rules_of, tiers_of
from gateway.settings.upstreams import HealthSettings, ModelSettings, TargetSettings, Upstream

SECRET = "sk-of-nobody-else"
SECRETS = {"api_key", "api_keys", "secret", "webhook_secrets", "proxy"}
WHOLE = Settings(
    upstreams={
        "one": Upstream(url="https://one.test", health=HealthSettings(path="/up")),
        "pool": Upstream(targets=(TargetSettings(url="https://a.test"), TargetSettings(url="https://b.test"))),
    },
    routes=(Route(path="/v1/*", upstream="one", dialect="openai", models=ModelSettings(allow=("m",))),),
    tiers={
        "free": TierSettings(
            limits={"tokens": {"day": LimitSettings(maximum=5)}},  # type: ignore[dict-item]  # as JSON has them
            schedules={"nightly": ScheduleSettings(at=("00:00",))},
            prices={BillingInterval.MONTH: Price(cents=5)},
        ),
    },
    default_tier="free",
    jwt=(Jwt(issuer="https://who.test", audience="tollway", jwks_url="https://who.test/keys"),),
)
"""At least one entry in each section that holds some."""

FITTING = {"time_zone": "Europe/Berlin", "at": ("06:00",), "statuses": {Status.UNPAID: Access.FULL}}
"""Where the type alone doesn't say what has an effect."""


def leaves(value: Any, kind: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """The way to each value of the model, the value, and its type."""
    if isinstance(value, msgspec.Struct):
        hints = typing.get_type_hints(type(value))
        for name in value.__struct_fields__:
            yield from leaves(getattr(value, name), hints[name], (*path, name))
    elif isinstance(value, dict) and value and isinstance(next(iter(value.values())), msgspec.Struct | dict):
        for name, entry in value.items():
            yield from leaves(entry, typing.get_args(kind)[1], (*path, name))
    elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
        for place, entry in enumerate(value):
            yield from leaves(entry, typing.get_args(kind)[0], (*path, place))
    else:
        yield path, value, kind


def another(value: Any, kind: Any) -> Any:
    """Another value of a type. Whether the file's checks would take it is not the question here."""
    choices = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        return another(value, next(one for one in choices if one is not type(None)))
    if origin is Literal:
        return next(one for one in choices if one != value)
    if origin is tuple:
        return (*value, another("", choices[0]))
    if origin is dict:
        return {**value, another("", choices[0]): another(None, choices[1])}
    return _another_of(kind, value)


def _another_of(kind: type[Any], value: Any) -> Any:
    if issubclass(kind, enum.Enum):
        return next(one for one in reversed(kind) if one is not value)
    if issubclass(kind, msgspec.Struct):
        hints, fields = typing.get_type_hints(kind), msgspec.structs.fields(kind)
        said = [one.name for one in fields if one.required] or [fields[0].name]
        return kind(**{name: another((), hints[name]) for name in said})
    if kind is bool:
        return not value
    return SECRET if kind is str else (value or 0) + 1


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The model with another value in one place."""
    if not path:
        return new
    step, rest = path[0], path[1:]
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **{step: replaced(getattr(value, step), rest, new)})
    if isinstance(value, tuple):
        return tuple(replaced(one, rest, new) if place == step else one for place, one in enumerate(value))
    return {**value, step: replaced(value[step], rest, new)}


def changed(path: tuple[Any, ...], value: Any, kind: Any) -> Settings:
    """The model with something else there."""
    made: Settings = replaced(WHOLE, path, FITTING[path[-1]] if path[-1] in FITTING else another(value, kind))
    return made


LEAVES = list(leaves(WHOLE, Settings))


def test_each_section_says_when_a_change_of_it_counts() -> None:
    """Whoever adds a section has to decide; one that nobody decided on is told to need a restart."""
    sections = {one.name for one in msgspec.structs.fields(Settings)}
    paths = {".".join(map(str, path)) for path, _, _ in LEAVES}

    assert {path[0] for path, _, _ in LEAVES} == sections
    assert not LIVE & AT_START
    assert sections - LIVE - AT_START == {"data_dir", "keys"}
    assert paths.issuperset(FIXED)
    assert Change("a_section_of_tomorrow.key", "1", "2").reach is Reach.RESTART


@pytest.mark.parametrize(("path", "value", "kind"), LEAVES, ids=[".".join(map(str, path)) for path, _, _ in LEAVES])
def test_a_change_is_taken_or_told(tmp_path: Path, path: tuple[Any, ...], value: Any, kind: Any) -> None:
    """No key can be changed without effect and without a word: it counts, or the log names it with what it takes."""
    asked = changed(path, value, kind)
    found = changes(WHOLE, asked)
    reaches = {change.reach for change in found}
    reloading = Reloading(lambda: asked, tmp_path / "gateway.yaml", WHOLE, tmp_path)

    with structlog.testing.capture_logs() as lines:
        taken = reloading.take()

    problems: list[str] = lines[-1].get("problems", [])
    assert len(reaches) == 1, found
    assert taken == (reloading.settings is asked) == (not problems)
    assert reaches == {Reach.LIVE} or not taken
    for change in found:
        named = [problem for problem in problems if change.path.startswith(problem.partition(": ")[0])]
        assert taken or named, change
        assert change.reach is Reach.LIVE or f"{change.path}: {change.reach}" in named
    assert SECRET not in str(lines) or path[-1] not in SECRETS


@pytest.mark.parametrize("section", ["tiers", "subscriptions"])
def test_what_counts_at_once_is_what_requests_are_decided_by(section: str) -> None:
    """Each key of a plan is in what the gateway decides by, and is nowhere kept from before."""
    for path, value, kind in LEAVES:
        if path[0] != section or path[-1] in {"cents", "currency"}:  # told to people alone
            continue
        assert decided_by(changed(path, value, kind)) != decided_by(WHOLE), path


def decided_by(settings: Settings) -> object:
    """Tiers, rules and prices as a worker has them after a reload."""
    return tiers_of(settings), rules_of(settings), tariff_of(settings)
