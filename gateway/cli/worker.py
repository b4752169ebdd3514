"""One worker: the gateway behind uvicorn's server, on the listening socket of its place, from fork to exit.

Promises: ready is told once the gateway has started and the socket listens. At SIGTERM, or when the supervisor is gone,
it stops accepting, lets answers end within the grace, cuts what is left so that it settles at what was seen, and
flushes. A second SIGTERM cuts at once.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
import uvloop

from gateway.app import Gateway
from gateway.cli.child import REFUSED, TAKEN, Lifeline
from gateway.edge.http_protocol import HttpProtocol
from gateway.edge.pace_table import PaceTable
from gateway.settings.deployment import Deployment
from gateway.settings.handout import Handout, unpack
from gateway.settings.model import Listen, Settings
from gateway.telemetry.log import log

CUT_S = 2.0
"""For a cut request to settle."""

FLUSH_S = 12.0
"""For `Gateway.stop`, after which the rest of the usage waits in Redis for the next flusher."""

FORCED_FLUSH_S = 1.0


def serve_gateway(settings: Settings, version: int, deployment: Deployment, paces: PaceTable, line: Lifeline) -> None:
    """A worker's whole life. `settings` are the `version`-th reading of gateway.yaml, `paces` all workers' own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_gateway(settings, version, deployment, paces, line))


async def _serve_gateway(
    settings: Settings, version: int, deployment: Deployment, paces: PaceTable, line: Lifeline
) -> None:
    gateway = Gateway(settings, deployment, version, paces)
    await gateway.start()
    tellings: set[asyncio.Task[None]] = set()

    def take(handout: Handout) -> None:
        gateway.reload(handout.settings, handout.version)
        if handout.touched and handout.teller == deployment.worker:
            tellings.add(telling := asyncio.create_task(gateway.tell_touched(handout.touched)))
            telling.add_done_callback(tellings.discard)

    asyncio.get_running_loop().add_reader(line.link, _on_handout, line, take)
    server = Server(server_config(gateway, settings.listen), line)
    if line.listening is None:
        raise AssertionError("a worker is given a socket")
    await server.serve_until_stopped(line.listening)
    try:
        await asyncio.wait_for(gateway.stop(), FORCED_FLUSH_S if server.forced.is_set() else FLUSH_S)
    except TimeoutError:
        log.warning("flush_left_for_later", worker=deployment.worker)


def _on_handout(line: Lifeline, take: Callable[[Handout], None]) -> None:
    """The supervisor hands settings down; where they can't be taken, which it looked for before, the old ones hold."""
    packed = line.handed()
    if packed is None:
        asyncio.get_running_loop().remove_reader(line.link)
        return
    try:
        take(unpack(packed))
    except (ValueError, OSError) as error:  # msgspec's own are ValueErrors
        log.error("settings_not_taken", error=str(error))
        line.say(REFUSED)
    else:
        line.say(TAKEN)


def server_config(app: Callable[..., object], listen: Listen) -> uvicorn.Config:
    """Configuration of uvicorn for a bare ASGI app that brings its own headers, log and signals."""
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=listen.backlog,
        limit_concurrency=listen.max_connections or None,
        timeout_keep_alive=listen.keep_alive_s,
        timeout_graceful_shutdown=listen.shutdown_grace_s,
    )


class Server(uvicorn.Server):
    """uvicorn's server, whose signals and start belong to the supervisor."""

    def __init__(self, config: uvicorn.Config, line: Lifeline) -> None:
        super().__init__(config)
        self.forced = asyncio.Event()
        self._line = line

    async def serve_until_stopped(self, listening: socket.socket) -> None:
        """Serve until told to stop and every answer has ended, or was cut and has settled."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_reader(self._line.alive_fd, self._orphaned)
        serving = asyncio.ensure_future(self.serve([listening]))
        forced = asyncio.ensure_future(self.forced.wait())
        await asyncio.wait((serving, forced), return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CUT_S)
        if serving.done():
            serving.result()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then tell the supervisor."""
        await super().startup(sockets)
        self._line.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting; connections that were accepted by then are served as any other."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(0)
        await super().shutdown(sockets)

    def _stop(self) -> None:
        if self.should_exit:
            self.forced.set()
        self.should_exit = True

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._line.alive_fd)
        log.error("supervisor_gone")
        self.should_exit = True
