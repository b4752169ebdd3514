"""A master, its replica, and a sentinel that watches them: real processes of the one Valkey binary, with passwords.

Promises: the sentinel knows the replica when the context begins; all are ended by pid.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.clusters import Node, free_ports
from tests.support.valkey import START_TIMEOUT_S, server_binary

PASSWORD, SENTINEL_PASSWORD = "p@ss/word", "sent:inel"  # of servers that live for one test
URL = "redis+sentinel://:p%40ss%2Fword@127.0.0.1:{dead},127.0.0.1:{port}/main/2?sentinel_password=sent:inel"


class Watched:
    """`servers` as they began: the master first. `sentinel_port` is the sentinel's, `dead_port` nobody's."""

    def __init__(self, servers: list[Node], sentinel_port: int, dead_port: int) -> None:
        self.servers = servers
        self._port = sentinel_port
        self.url = URL.format(dead=dead_port, port=sentinel_port)

    async def fails_over(self) -> bool:
        """Have the sentinel swap master and replica, both alive; whether it begins to, as it may find none fit yet."""
        return _told_by_sentinel(self._port, b"SENTINEL FAILOVER main") == b"+OK\r\n"


class Secret(Node):
    """A server that asks for `PASSWORD`, at its socket too."""

    def call(self, line: bytes) -> bytes:
        """See `ValkeyServer.call`; logs in first."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(self.url.removeprefix("unix://"))
            return _after(link, f"AUTH {PASSWORD}", line)


@contextmanager
def watched(silent_ms: int) -> Iterator[Watched]:
    """A master with a replica, and a sentinel that calls a failover after so much silence."""
    with tempfile.TemporaryDirectory(prefix="tws") as folder, ExitStack() as stack:
        options = "--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"
        master, replica = (Secret(Path(folder) / name, *options) for name in ("master", "replica"))
        for server in (master, replica):
            stack.enter_context(server)
        replica.ask("REPLICAOF", "127.0.0.1", master.port)
        sentinel_port, dead_port = free_ports(2)
        process = subprocess.Popen(
            [server_binary(), _configuration(Path(folder), sentinel_port, master.port, silent_ms), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while "master_link_status:up" not in replica.ask("INFO", "replication") or not _knows(sentinel_port):
                assert time.monotonic() < deadline, (Path(folder) / "sentinel.log").read_text()
                time.sleep(0.01)
            # By itself it makes the old master a replica eight seconds after a planned failover.
            _told_by_sentinel(sentinel_port, b"SENTINEL DEBUG info-period 200 publish-period 200")
            yield Watched([master, replica], sentinel_port, dead_port)
        finally:
            process.kill()
            process.wait()


def _configuration(folder: Path, port: int, master_port: int, silent_ms: int) -> Path:
    """The sentinel's file, which it writes on."""
    file = folder / "sentinel.conf"
    file.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {folder}\nlogfile {folder / 'sentinel.log'}\n"
        f"requirepass {SENTINEL_PASSWORD}\n"
        f"sentinel monitor main 127.0.0.1 {master_port} 1\n"
        f"sentinel auth-pass main {PASSWORD}\n"
        f"sentinel down-after-milliseconds main {silent_ms}\nsentinel failover-timeout main 3000\n"
    )
    return file


def _knows(port: int) -> bool:
    """Whether the sentinel would promote the replica."""
    try:
        return b"master-link-status\r\n$2\r\nok" in _told_by_sentinel(port, b"SENTINEL REPLICAS main")
    except ConnectionRefusedError:
        return False


def _told_by_sentinel(port: int, line: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        return _after(link, f"AUTH {SENTINEL_PASSWORD}", line)


def _after(link: socket.socket, login: str, line: bytes) -> bytes:
    """The first bytes of the reply to a line that is sent once the login is answered."""
    link.sendall(login.encode() + b"\r\n")
    link.recv(65536)
    link.sendall(line + b"\r\n")
    return link.recv(65536)
