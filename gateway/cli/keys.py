"""Create, list, show and revoke API keys.

A key's text is printed once, when it is made; the ledger keeps a digest of it.
"""

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime

from gateway.cli.bad_input import BadInput
from gateway.cli.connections import Connections, connected
from gateway.cli.operator import operator
from gateway.cli.table import table
from gateway.cli.verbs import add_verb, seconds_of
from gateway.domain.accounts import ApiKey
from gateway.identity.keys import key_id_of, new_key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs."""
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = add_verb(verbs, "create", "make a key and print it, once")
    create.add_argument("account", metavar="ACCOUNT")
    create.add_argument("--name", default="", help="for people")
    create.add_argument("--expires", metavar="DURATION", help="how long it works, like 30d; for ever, unless given")
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
        else:
            key = await connections.ledger.revoke_key(_id(args.key), _now_ms(), operator())
            await connections.tell_gateways()
            print(_listed([key]))


async def _create(connections: Connections, args: argparse.Namespace) -> None:
    now_ms = _now_ms()
    expires_ms = None if args.expires is None else now_ms + seconds_of(args.expires) * 1000
    key_id, text, digest = new_key(connections.deployment.digest_key)
    key = ApiKey(key_id, args.account, digest, args.name, now_ms, expires_ms)
    await connections.ledger.create_key(key, operator())
    await connections.tell_gateways()
    print(text)
    print(f"Key {key_id} of account {args.account}. It is shown this once: keep it well.", file=sys.stderr)


def _listed(keys: list[ApiKey]) -> str:
    rows = [
        (key.id, key.account_id, _state(key), _date(key.created_ms), _date(key.expires_ms), key.name) for key in keys
    ]
    return table(("KEY", "ACCOUNT", "STATE", "CREATED", "EXPIRES", "NAME"), rows)


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
