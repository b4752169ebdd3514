"""The address of the client behind proxies that are trusted to tell it.

Promises: what an untrusted peer says of itself counts for nothing; of a chain, the address nearest to us that is no
trusted proxy is the client's, as everything before it was written by whoever that is. Whatever the bytes, an answer.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from gateway.edge.exchange import Scope

MOST_HOPS = 32

_Address = IPv4Address | IPv6Address


class ClientAddress:
    """`trusted` are networks in CIDR form; `field` the one header that these proxies write, in small letters."""

    def __init__(self, trusted: Sequence[str], field: str) -> None:
        self._trusted = [ip_network(one, strict=False) for one in trusted]
        self._field = field.encode()
        self._part = _for if field == "forwarded" else _plain

    def client(self, scope: Scope) -> tuple[str, int] | None:
        """In the place of the scope's `client`; its port is 0 where the client isn't the peer."""
        peer: tuple[str, int] | None = scope["client"]
        nearest = _read(peer[0]) if peer else None
        if nearest is None or not self._trusts(nearest):
            return peer
        told = b",".join([value for name, value in scope["headers"] if name == self._field]).split(b",")
        for part in reversed(told[-MOST_HOPS:]):
            address = _read(self._part(part.decode("latin-1")))
            if address is None:
                break
            nearest = address
            if not self._trusts(address):
                break
        return str(nearest), 0

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


def _plain(part: str) -> str:
    return part


def _for(part: str) -> str:
    """The node of one element (RFC 7239 §4): `for=192.0.2.1;proto=https`."""
    for pair in part.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "for":
            return value
    return ""


def _read(text: str) -> _Address | None:
    """The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`, or that in quotes."""
    node = text.strip().strip('"')
    if node.startswith("["):
        node = node[1:].partition("]")[0]
    elif node.count(":") == 1:
        node = node.partition(":")[0]
    try:
        address = ip_address(node.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
