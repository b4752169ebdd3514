"""`tollway serve`: the gateway and, unless others are configured, its own Valkey, database and upstream.

The order makes the start short: the embedded Valkey loads its data while Python imports the gateway. Whatever stands
in the way ends in one line on standard error and status 1.
"""

import argparse
import gc
import importlib
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from gateway.cli.bad_input import BadInput
from gateway.cli.listening import lock_data_dir
from gateway.cli.redis_url import check_redis_url
from gateway.cli.verbs import add_file
from gateway.quota.embedded import EmbeddedValkey, EmbeddedValkeyError
from gateway.settings.deployment import DeploymentError, deployment_of, valkey_socket
from gateway.settings.load import load
from gateway.settings.mistakes import SettingsError
from gateway.settings.model import Settings
from gateway.telemetry.log import configure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that override the file."""
    add_file(parser)
    parser.add_argument("--workers", type=int, help="worker processes; overrides listen.workers")
    parser.add_argument("--host", help="address to bind; overrides listen.host")
    parser.add_argument("--port", type=int, help="port to bind, 0 for any that is free; overrides listen.port")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit status. Raises BadInput and, where the ledger is not to be had, Fault."""
    try:
        return _serve(partial(_settings, args), args.file)
    except SettingsError as error:
        raise BadInput(str(error)) from error
    except (DeploymentError, EmbeddedValkeyError) as error:
        print(f"tollway: {error}", file=sys.stderr)
        return 1


def _settings(args: argparse.Namespace) -> Settings:
    settings = load(args.file, os.environ)
    given = {name: getattr(args, name) for name in ("workers", "host", "port")}
    changes = {name: value for name, value in given.items() if value is not None}
    if changes.get("workers", 1) < 1 or not 0 <= changes.get("port", 0) <= 65_535:
        raise BadInput("--workers must be at least 1, --port from 0 to 65535")
    return msgspec.structs.replace(settings, listen=msgspec.structs.replace(settings.listen, **changes))


def _serve(read: Callable[[], Settings], file: Path) -> int:
    settings = read()
    configure(settings.log.format, settings.log.level)
    _open_many_files()
    deployment = deployment_of(settings)
    check_redis_url(deployment.redis_url)
    lock = lock_data_dir(deployment.data_dir)
    valkey = None
    if not settings.redis.url:
        valkey = EmbeddedValkey(deployment.data_dir / "valkey", valkey_socket(deployment.data_dir))
        valkey.start()
    try:
        # The one import outside the head: it takes 0.4 s, in which Valkey loads its data. What it makes stays, so
        # looking for garbage meanwhile would cost a tenth more and find nothing.
        gc.disable()
        fleet = importlib.import_module("gateway.cli.fleet")
        return int(fleet.run_fleet(read, settings, deployment, valkey, lock, file))
    finally:
        if valkey is not None:
            valkey.stop()


def _open_many_files() -> None:
    """Two connections a request need more than the 1024 files that most systems start with."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
