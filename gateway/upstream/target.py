"""What requests are sent to: a target is one address of an upstream, with the credential that it is sent."""

from dataclasses import dataclass

from gateway.upstream.transport import Transport
from gateway.upstream.tunnel import Tunnels

NO_CREDENTIAL = frozenset({401, 407})


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream as requests see it: its name, its transport, and the header that carries the gateway's credential.

    `address` is its URL without a slash at the end, as it may stand before a path in its redirects; empty is unknown.
    `tunnels` open WebSockets; None where they can't be had.
    """

    name: str
    transport: Transport
    credential: tuple[bytes, bytes] | None
    address: bytes = b""
    tunnels: Tunnels | None = None

    def denies(self, status: int) -> bool:
        """Whether an answer of this status says that the gateway's own credential is no good."""
        return status in NO_CREDENTIAL and self.credential is not None
