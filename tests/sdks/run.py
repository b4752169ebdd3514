"""`make sdks`: the official SDKs for Node against a real gateway, a scripted upstream behind it.

Needs node and npm, which a machine of the project need not have: without them it says so and exits with 2. It installs
the versions of package.json into a temporary folder. A script that fails shows why, and the exit code is 1.
"""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.journey.test_sdk_errors import EVERY_ROUTE
from tests.support.openai_wire import http
from tests.support.scripted_upstream import Streamed, scripted_upstream
from tests.support.sdk_upstream import called, said, sdk_upstream
from tests.support.stand import Stand, stand
from tests.support.valkey import ValkeyServer
from tests.support.wire_recordings import events, whole

HERE = Path(__file__).parent
SCRIPTS = ("openai", "anthropic", "ai")
TIERS = """
  free: {limits: {requests: {hour: 100}}, concurrency: 1}
  spent: {limits: {requests: {month: 0}}}
"""
WORDS = ("one", " two", " three")
TEXT = "anthropic/anthropic-text"


@contextlib.asynccontextmanager
async def upstream_of(script: str) -> AsyncIterator[int]:
    """The port of an upstream that answers what the script asks, in its order: a whole answer, a stream, a call of a
    tool, a stream that does not end, and whole answers from then on.
    """  # noqa: D205
    if script == "anthropic":
        tool, held = http(whole("anthropic/anthropic-json-tool.1")), Streamed(events(TEXT), paced=True)
        async with scripted_upstream(
            http(whole(TEXT)), Streamed(events(TEXT)), tool, held, http(whole(TEXT))
        ) as scripted:
            yield scripted.port
        return
    tool_call = called(("weather", ('{"city":', '"Oslo"}')))
    async with sdk_upstream(said(*WORDS), said(*WORDS), tool_call, said(*WORDS, stops=2), said(*WORDS)) as upstream:
        yield upstream.port


async def talk(script: str, folder: Path, here: Stand) -> bool:
    """Run one script; whether all that it asserts held."""
    keys = {"TOLLWAY_KEY": await here.account(), "SPENT_KEY": await here.account("other", "spent")}
    environment = os.environ | {"TOLLWAY_URL": here.url} | keys
    process = await asyncio.create_subprocess_exec("node", str(folder / f"{script}.mjs"), env=environment)
    try:
        async with asyncio.timeout(60):
            return await process.wait() == 0
    except TimeoutError:
        process.kill()
        await process.wait()
        return False


async def run(folder: Path) -> list[str]:
    """Every script against a gateway of its own; the names of those that failed."""
    failed = []
    for script in SCRIPTS:
        directory = Path(tempfile.mkdtemp(dir=folder))
        with ValkeyServer(directory) as valkey:
            async with (
                upstream_of(script) as port,
                stand(directory, valkey, port, settings=EVERY_ROUTE, tiers=TIERS) as here,
            ):
                held = await talk(script, folder, here)
        sys.stdout.write(f"{script}: {'passed' if held else 'FAILED'}\n")
        failed += [] if held else [script]
    return failed


def main() -> int:
    """Install and run."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        sys.stderr.write(f"The SDKs for Node were not tried: no {' and no '.join(missing)} on this machine.\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="tollway-sdks-") as name:
        folder = Path(name)
        for path in (HERE / "package.json", *HERE.glob("*.mjs")):
            shutil.copy(path, folder)
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--silent"]
        if subprocess.run(install, cwd=folder, check=False).returncode:
            sys.stderr.write("The SDKs for Node were not tried: npm could not install them.\n")
            return 2
        return 1 if asyncio.run(run(folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
