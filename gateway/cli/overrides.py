"""Show, set and clear what takes the place of the tier's own for one account.

`set` replaces all that was set before.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.cli.bad_input import BadInput
from gateway.cli.desk import as_json, typed, work_at_desk
from gateway.cli.operator import operator
from gateway.cli.verbs import add_verb
from gateway.console import admin_plans
from gateway.console.admin_bodies import Body, Overrides
from gateway.console.admin_desk import Desk

_NONE = "none"


class _Said(Body, frozen=True):
    """As a field of its own, terms may hold a null that stands for unbounded."""

    terms: Overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_verb(verbs, "show", "show them, as JSON").add_argument("account", metavar="ACCOUNT")
    change = add_verb(verbs, "set", "let these be the account's overrides, in place of all before")
    change.add_argument("account", metavar="ACCOUNT")
    add_terms(change)
    add_verb(verbs, "clear", "take all of them away").add_argument("account", metavar="ACCOUNT")


def add_terms(parser: argparse.ArgumentParser) -> None:
    """What stands in place of a tier's own."""
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=MAXIMUM", help="tokens/month=50000; none is unbounded"
    )
    parser.add_argument("--concurrency", metavar="N", help="requests at once; none is unbounded")
    parser.add_argument("--number", action="append", default=[], metavar="NAME=NUMBER", help="max_banks=3")
    parser.add_argument("--feature", action="append", default=[], metavar="NAME=yes|no", help="exports=yes")


def terms(args: argparse.Namespace) -> Mapping[str, Any]:
    """What was said of them, as the admin API takes it. Raises BadInput."""
    said: dict[str, Any] = {
        "limits": dict(_pairs(args.limit, _count)),
        "numbers": dict(_pairs(args.number, _number)),
        "features": dict(_pairs(args.feature, _yes)),
    }
    return said if args.concurrency is None else said | {"concurrency": _count(args.concurrency)}


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    return work_at_desk(args, _do)


async def _do(desk: Desk, args: argparse.Namespace) -> None:
    if args.verb == "show":
        told = await admin_plans.get_overrides(desk, args.account)
    else:
        asked = typed(_Said, terms=terms(args)).terms if args.verb == "set" else Overrides()
        told = await admin_plans.set_overrides(desk, args.account, asked, operator())
    print(as_json(told))


def _pairs(texts: Iterable[str], read: Callable[[str], Any]) -> Iterable[tuple[str, Any]]:
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadInput(f"{text!r} needs a name, = and a value")
        yield name, read(value)


def _count(text: str) -> int | None:
    if text == _NONE:
        return None
    plain = text.replace("_", "").replace(",", "")
    if not (plain.isascii() and plain.isdigit()):
        raise BadInput(f"{text!r} is no maximum: write a whole number from 0, or none for unbounded")
    return int(plain)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise BadInput(f"{text!r} is no number") from error


def _yes(text: str) -> bool:
    if text not in {"yes", "no"}:
        raise BadInput(f"{text!r} is neither yes nor no")
    return text == "yes"
