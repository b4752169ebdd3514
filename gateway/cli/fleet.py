"""What `tollway serve` runs once Valkey is on its way: the schema, the processes, the welcome, and the end.

Importing this imports the whole gateway, so that the workers are forked with it in memory they share. Nothing here
starts a thread that lives past a call: forking would lose it.
"""

import asyncio
import gc
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from gateway.cli.child import Child, Lifeline
from gateway.cli.listening import Address, listener, loopback, reserve
from gateway.cli.reloading import Reloading
from gateway.cli.sandbox_server import serve_sandbox
from gateway.cli.supervisor import Supervisor
from gateway.cli.welcome import welcome
from gateway.cli.worker import CUT_S, FLUSH_S, serve_gateway
from gateway.domain.faults import Fault
from gateway.edge.pace_table import PaceTable
from gateway.ledger.schema import ensure_schema
from gateway.quota.embedded import EmbeddedValkey
from gateway.settings.deployment import Deployment
from gateway.settings.model import Settings
from gateway.telemetry.log import log

SLACK_S = 3.0


def run_fleet(
    read: Callable[[], Settings],
    settings: Settings,
    deployment: Deployment,
    valkey: EmbeddedValkey | None,
    lock: int,
    file: Path,
) -> int:
    """Serve until told to stop; returns the exit status. Faults and DeploymentErrors of the start pass through.

    `settings` are what `read` gave at the start; it gives what `file` says later.
    """
    reloading = Reloading(read, file, settings, deployment.metrics_dir)
    address = reserve(settings.listen.host, settings.listen.port)
    asyncio.run(ensure_schema(deployment.database_url, settings.database))
    below, deployment = _sandbox(settings, deployment)
    if valkey is not None:
        valkey.wait_ready()
        if valkey.cut_short:
            log.warning("valkey_file_cut_short", log=str(valkey.log), meaning="a loss of power cost the last second")
    _clear(deployment)
    paces = PaceTable()
    # The workers share what is in memory now: as long as no collection touches it, it stays shared.
    gc.freeze()
    gc.enable()
    supervisor = Supervisor(
        [_worker(number, reloading, deployment, paces, address) for number in range(settings.listen.workers)],
        below,
        valkey,
        reloading,
        let_go=partial(os.close, lock),
        on_ready=partial(_greet, settings, deployment, address.port, file),
        stop_within_s=settings.listen.shutdown_grace_s + CUT_S + FLUSH_S + SLACK_S,
    )
    return supervisor.run()


def _worker(number: int, reloading: Reloading, deployment: Deployment, paces: PaceTable, address: Address) -> Child:
    """A worker; each time it is started it goes by the settings in force then."""
    place = replace(deployment, worker=number)

    def body(line: Lifeline) -> None:
        serve_gateway(reloading.settings, reloading.version, place, paces, line)

    def listen() -> socket.socket:
        return listener(address, reloading.settings.listen.backlog)

    def follow() -> Child:
        """On the same socket, under another number, as both run for a while."""
        workers = reloading.settings.listen.workers
        new = _worker((number + workers) % (2 * workers), reloading, deployment, paces, address)
        new.listening = worker.listening
        return new

    worker = Child(f"worker {number}", body, listen, follow, number)
    return worker


def _sandbox(settings: Settings, deployment: Deployment) -> tuple[Sequence[Child], Deployment]:
    """The sandbox's process, where an upstream needs it. The socket outlives the process, so its address is stable."""
    if not any(upstream.uses_sandbox for upstream in settings.upstreams.values()):
        return [], deployment
    listening = loopback()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    return [Child("sandbox", partial(serve_sandbox, listening))], replace(deployment, sandbox_url=url)


def _clear(deployment: Deployment) -> None:
    """Metrics of workers past; a worker that starts again finds its own."""
    for file in deployment.metrics_dir.iterdir():
        if file.is_file():
            file.unlink(missing_ok=True)


def _greet(settings: Settings, deployment: Deployment, port: int, file: Path) -> None:
    try:
        asyncio.run(welcome(settings, deployment, port, file))
    except (Fault, OSError) as error:
        # No reason to stop serving: the ledger may come back, and standard output may be closed.
        log.error("welcome_failed", error=str(error))
