"""The `tollway` command: finds the command asked for and imports it alone, so that each starts as fast as it can.

Exit status: 0 done, 1 failed, 2 wrong input. What went wrong is one line on standard error.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from gateway.cli.bad_input import BadInput
from gateway.domain.faults import Fault
from gateway.settings.data_files import data_file

COMMANDS = {
    "serve": "run the gateway",
    "check": "check a settings file and report every mistake in it",
    "accounts": "create, list, show, explain, move, suspend and resume accounts",
    "keys": "create, list, show and revoke API keys",
    "tiers": "list the tiers as they are in force",
    "subscriptions": "list, show, put and end subscriptions",
    "overrides": "show, set and clear what is set for one account by hand",
    "addons": "list and add add-ons",
    "audit": "show who did what to which account",
    "stats": "show subscriptions and requests by tier, churn, refusals, top accounts",
    "import": "import accounts from another system's CSV or JSON",
    "usage": "show what an account used of its limits",
    "stripe": "compare with Stripe, list what is wrong, link customers",
    "db": "upgrade the ledger, show its schema, verify and repair its counts",
    "tokenizer": "install the tokenizer's vocabulary",
}
FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BadInput as error:
        return _failed(str(error), WRONG_INPUT)
    except Fault as fault:
        return _failed(fault.internal or fault.public, FAILED if fault.kind.status >= 500 else WRONG_INPUT)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output left, as `head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _run(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.version:
        print(f"tollway {version('tollway')}")
        return 0
    if asked.command is None:
        parser.print_help(sys.stderr)
        return WRONG_INPUT
    command = importlib.import_module(f"gateway.cli.{asked.command}")
    own = argparse.ArgumentParser(prog=f"tollway {asked.command}", description=(command.__doc__ or "").strip())
    command.add_arguments(own)
    own.set_defaults(file=asked.file or _usual_file())
    return int(command.run(own.parse_args(asked.arguments)))


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<15}{text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="tollway",
        description="A reverse-proxy gateway that admits, meters and limits requests to any LLM or internal API.",
        epilog=f"commands:\n{lines}\n\n`tollway COMMAND --help` tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument(
        "--file", type=Path, help="the settings; else $TOLLWAY_FILE, ./gateway.yaml, or the default that is shipped"
    )
    parser.add_argument("command", nargs="?", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="what the command takes")
    return parser


def _usual_file() -> Path:
    named, here = os.environ.get("TOLLWAY_FILE"), Path("gateway.yaml")
    if named:
        return Path(named)
    return here if here.exists() else data_file("config", "gateway.yaml")


def _failed(text: str, status: int) -> int:
    print(f"tollway: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
