"""Create, list, show, rotate and revoke API keys.

A key's text is printed once, when it is made; the ledger keeps a digest of it.
"""

import argparse
import asyncio
import re
import sys
import time
from datetime import UTC, datetime

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import Connections, connected
from gateway.cli.operator import operator
from gateway.cli.table import table
from gateway.cli.verbs import add_verb, seconds_of
from gateway.domain.accounts import ApiKey
from gateway.domain.key_terms import KeyTerms, unfit_key_terms
from gateway.identity.keys import key_id_of, new_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = add_verb(verbs, "create", "make a key and print it, once")
    create.add_argument("account", metavar="ACCOUNT")
    create.add_argument("--name", default="", help="for people")
    create.add_argument("--expires", metavar="DURATION", help="how long it works, like 30d; for ever, unless given")
    create.add_argument(
        "--route", action="append", default=[], metavar="GLOB", help="only paths like /v1/chat/*; again for more"
    )
    create.add_argument(
        "--model", action="append", default=[], metavar="GLOB", help="only models like gpt-4o*; again for more"
    )
    create.add_argument("--limit", action="append", default=[], metavar="NAME=MAXIMUM", help="like tokens/day=5000")
    create.add_argument("--concurrency", type=int, metavar="N", help="its own running requests at most")
    rotate = add_verb(verbs, "rotate", "make a key that takes another's place, and print it, once")
    rotate.add_argument("key", metavar="KEY", help="the old one's id, or the key itself")
    rotate.add_argument(
        "--overlap", metavar="DURATION", default="24h", help="how long the old one still works: 24h, unless given"
    )
    add_verb(verbs, "list", "list an account's keys").add_argument("account", metavar="ACCOUNT")
    add_verb(verbs, "show", "show one key").add_argument("key", metavar="KEY", help="its id, or the key itself")
    add_verb(verbs, "revoke", "refuse a key from now on").add_argument("key", metavar="KEY", help="as for show")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    asyncio.run(_run(args))
    return 0


async def _run(args: argparse.Namespace) -> None:
    async with connected(args.file) as connections:
        if args.verb == "create":
            await _create(connections, args)
        elif args.verb == "list":
            print(_listed(await connections.ledger.list_keys(args.account)))
        elif args.verb == "show":
            found = await connections.ledger.credential(_id(args.key))
            if found is None:
                raise BadInput(f"there is no key `{_id(args.key)}`")
            print(_listed([found.key]))
        elif args.verb == "rotate":
            await _rotate(connections, args)
        else:
            key = await connections.ledger.revoke_key(_id(args.key), _now_ms(), operator())
            await connections.tell_gateways()
            print(_listed([key]))


async def _create(connections: Connections, args: argparse.Namespace) -> None:
    now_ms = _now_ms()
    expires_ms = None if args.expires is None else now_ms + seconds_of(args.expires) * 1000
    key_id, text, digest = new_key(connections.deployment.digest_key)
    key = ApiKey(key_id, args.account, digest, args.name, now_ms, expires_ms, terms=_terms(args))
    await connections.ledger.create_key(key, operator())
    await connections.tell_gateways()
    print(text)
    print(f"Key {key_id} of account {args.account}. It is shown this once: keep it well.", file=sys.stderr)


async def _rotate(connections: Connections, args: argparse.Namespace) -> None:
    overlap_ms = seconds_of(args.overlap) * 1000
    key_id, text, digest = new_key(connections.deployment.digest_key)
    old, new = await connections.ledger.rotate_key(
        _id(args.key), (key_id, digest), overlap_ms=overlap_ms, now_ms=_now_ms(), by=operator()
    )
    await connections.tell_gateways()
    print(text)
    told = f"Key {new.id} of account {new.account_id} takes the place of {old.id}, which works until"
    print(f"{told} {_date(old.expires_ms)}. It is shown this once: keep it well.", file=sys.stderr)


def _terms(args: argparse.Namespace) -> KeyTerms:
    """What the options say that the key may do. Raises BadInput."""
    limits = dict(_limit(text) for text in args.limit)
    terms = KeyTerms(tuple(args.route), tuple(args.model), limits, args.concurrency)
    wrong = unfit_key_terms(terms)
    if wrong:
        raise BadInput(" ".join(wrong))
    return terms


def _limit(text: str) -> tuple[str, int]:
    name, _, maximum = text.partition("=")
    if not re.fullmatch(r"[0-9]{1,16}", maximum):
        raise BadInput(f"{text!r} is no limit: write its name and a whole number, like tokens/day=5000")
    return name, int(maximum)


def _listed(keys: list[ApiKey]) -> str:
    rows = [
        (key.id, key.account_id, _state(key), _date(key.created_ms), _date(key.expires_ms), key.name, _for(key))
        for key in keys
    ]
    return table(("KEY", "ACCOUNT", "STATE", "CREATED", "EXPIRES", "NAME", "FOR"), rows)


def _for(key: ApiKey) -> str:
    """What the key may do."""
    terms = key.terms
    limits = [f"{name}={maximum}" for name, maximum in terms.limits.items()]
    if terms.concurrency is not None:
        limits.append(f"concurrency={terms.concurrency}")
    return ", ".join((*terms.routes, *terms.models, *limits)) or "all"


def _state(key: ApiKey) -> str:
    if key.revoked_ms is not None:
        return f"revoked {_date(key.revoked_ms)}"
    return "expired" if key.expires_ms is not None and key.expires_ms <= _now_ms() else "active"


def _id(text: str) -> str:
    """The id in a whole key, which is what people have at hand; else the text itself."""
    return key_id_of(text.encode()) or text


def _date(moment_ms: int | None) -> str:
    if moment_ms is None:
        return "never"
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
