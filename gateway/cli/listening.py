"""The addresses `tollway serve` listens on, and the lock that keeps a data directory to one of it.

Every worker listens on a socket of its own with SO_REUSEPORT, and the kernel deals connections out by hash: over 4
workers, 256 connections at once fell 60 to 72 on each, where one shared socket gave 2 to 202. The supervisor makes and
keeps these sockets, so that a queue outlives its worker, and one more that never listens and keeps the port.
Fails with DeploymentError, which names the port or the process in the way.
"""

import fcntl
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.settings.deployment import DeploymentError

TAKEN_RETRY_S = 1.0
"""Workers of a supervisor that was killed let go of the port within about 0.2 s."""


@dataclass(frozen=True, slots=True)
class Address:
    """A resolved, bound address; `reserved` holds it."""

    family: int
    sockaddr: Any
    reserved: socket.socket

    @property
    def port(self) -> int:
        """The port, also where 0 was asked for."""
        return int(self.sockaddr[1])


def reserve(host: str, port: int) -> Address:
    """Bind the address; once without sharing, so that another program's socket on it is noticed."""
    deadline = time.monotonic() + TAKEN_RETRY_S
    while True:
        try:
            family, _, _, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with _bound(family, sockaddr, shared=False) as probe:
                sockaddr = probe.getsockname()
            reserved = _bound(family, sockaddr, shared=True)
        except OSError as error:
            if time.monotonic() < deadline and error.errno is not None and not isinstance(error, socket.gaierror):
                time.sleep(0.05)
                continue
            raise DeploymentError(
                f"can't listen on {host} port {port}: {error.strerror or error}. Set another with --port or listen.port"
            ) from error
        return Address(family, sockaddr, reserved)


def listener(address: Address, backlog: int) -> socket.socket:
    """The listening socket of one worker, and of whoever follows it."""
    listening = _bound(address.family, address.sockaddr, shared=True)
    listening.listen(backlog)
    return listening


def loopback() -> socket.socket:
    """A listening socket on a free loopback port."""
    listening = _bound(socket.AF_INET, ("127.0.0.1", 0), shared=False)
    listening.listen(1024)
    return listening


def _bound(family: int, sockaddr: Any, *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(sockaddr)
    except OSError:
        bound.close()
        raise
    bound.setblocking(False)
    return bound


def lock_data_dir(data_dir: Path) -> int:
    """Hold the directory for this process's life, by the returned descriptor."""
    try:
        lock = os.open(data_dir / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DeploymentError(f"the data directory {data_dir} can't be used: {error.strerror or error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
    except BlockingIOError as error:
        holder = os.read(lock, 20).decode(errors="replace")
        os.close(lock)
        raise DeploymentError(
            f"the data directory {data_dir} is served already, by process {holder}; stop it, or set another data_dir"
        ) from error
    except OSError as error:
        os.close(lock)
        raise DeploymentError(f"the data directory {data_dir} can't be written: {error.strerror or error}") from error
    return lock
