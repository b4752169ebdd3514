"""What `tollway serve` prints when it is ready: where it listens, and how to send and see a first metered request.

On the first start, while the ledger holds no account and the sandbox answers, it makes the account `demo` and shows
its key, this once. Where all upstreams are real, it tells how to make an account: a key nobody asked for costs money.
Raises Fault when the ledger can't be used.
"""

import os
import shlex
import shutil
import sys
import time
from pathlib import Path

from gateway.domain.accounts import ApiKey
from gateway.domain.faults import ALREADY_EXISTS, Fault
from gateway.identity.keys import new_key
from gateway.ledger.ledger import Ledger
from gateway.settings.data_files import data_file
from gateway.settings.deployment import Deployment
from gateway.settings.model import Settings

DEMO = "demo"
FIRST = "acme"
ANY = "ACCOUNT"
CHAT_PATH = "/v1/chat/completions"


async def welcome(settings: Settings, deployment: Deployment, port: int, file: Path) -> None:
    """Print it, to standard output. `file` holds the settings."""
    ledger = Ledger.open(deployment.database_url, settings.database)
    try:
        found = [one.id for one in await ledger.list_accounts(limit=2)]
        trial = not found and any(upstream.uses_sandbox for upstream in settings.upstreams.values())
        key = await _demo_key(ledger, settings.default_tier, deployment.digest_key) if trial else ""
    finally:
        await ledger.close()
    # Whose turn it is nobody knows where there are several.
    account = DEMO if trial else ANY if len(found) > 1 else "".join(found)
    print("\n".join(_lines(settings, port, account, key, _command(file))), flush=True)


async def _demo_key(ledger: Ledger, tier: str, digest_key: bytes) -> str:
    """The text of a fresh key; empty where another gateway on the same ledger was first."""
    now_ms = time.time_ns() // 1_000_000
    key_id, text, digest = new_key(digest_key)
    try:
        await ledger.create_account(DEMO, tier, "Demo", now_ms)
    except Fault as fault:
        if fault.kind is ALREADY_EXISTS:
            return ""
        raise
    await ledger.create_key(ApiKey(id=key_id, account_id=DEMO, digest=digest, name="first", created_ms=now_ms))
    return text


def _lines(settings: Settings, port: int, account: str, key: str, command: str) -> list[str]:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.listen.host, settings.listen.host)  # noqa: S104  # compared, not bound
    lines = ["", f"Tollway is ready on http://{host}:{port}", ""]
    if key:
        lines += [f"Account {DEMO} was made on tier {settings.default_tier}. Its key, shown this once:", f"  {key}"]
    elif account:
        listed = ["See whose keys there can be:", f"  {command} accounts list"] if account == ANY else []
        lines += [*listed, "Make a key:", f"  {command} keys create {account}"]
    else:
        lines += ["Make the first account, and its key:", f"  {command} accounts create {FIRST}"]
        lines += [f"  {command} keys create {FIRST}"]
    if any(route.path in {CHAT_PATH, "/v1/*", "/*"} and route.dialect == "openai" for route in settings.routes):
        lines += ["Stream a metered answer:", *_curl(f"http://{host}:{port}", key or "$TOLLWAY_KEY")]
    lines += ["See what it used:", f"  {command} usage {account or FIRST}"]
    sandboxed = [name for name, upstream in settings.upstreams.items() if upstream.uses_sandbox]
    if sandboxed:
        lines += ["", f"Upstream {', '.join(sandboxed)} has no key: the built-in sandbox answers for it."]
    return [*lines, ""]


def _curl(url: str, key: str) -> list[str]:
    body = '{"model": "gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "Hello, toll road!"}]}'
    return [
        f"  curl -N {url}{CHAT_PATH} \\",
        f'    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\',
        f"    -d '{body}'",
    ]


def _command(file: Path) -> str:
    """How this program was started, as one would type it here; with the file, unless it would be found anyway."""
    started = Path(sys.argv[0]).absolute()
    found = shutil.which(started.name)
    if started.name == "__main__.py":
        command = f"{_typed(Path(sys.executable))} -m gateway"
    else:
        command = started.name if found and Path(found).absolute() == started else _typed(started)
    usual = {Path("gateway.yaml"), data_file("config", "gateway.yaml"), Path(os.environ.get("TOLLWAY_FILE", ""))}
    return command if file in usual else f"{command} --file {shlex.quote(str(file))}"


def _typed(path: Path) -> str:
    shorter = os.path.relpath(path)
    return str(path) if shorter.startswith("..") else shorter
