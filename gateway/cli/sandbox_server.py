"""The sandbox upstream's process. A process of its own, so that a worker neither pays for it nor dies with it."""

import asyncio
import socket

import uvloop

from gateway.cli.child import Lifeline
from gateway.cli.worker import Server, server_config
from gateway.settings.model import Listen
from gateway.upstream.sandbox import sandbox_app


def serve_sandbox(listening: socket.socket, line: Lifeline) -> None:
    """The process's whole life, on a socket that the supervisor keeps."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(listening, line))


async def _serve(listening: socket.socket, line: Lifeline) -> None:
    await Server(server_config(sandbox_app, Listen()), line).serve_until_stopped(listening)
