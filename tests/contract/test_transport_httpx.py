"""What the httpx transport is there for: HTTP/2 upstreams and forward proxies."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import h2.config
import h2.connection
import h2.events
import pytest
import trustme

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_REFUSED, Fault
from gateway.upstream.httpx_transport import HttpxTransport
from gateway.upstream.origin import origin_of
from gateway.upstream.tls import verifying_context
from tests.support.odd_peer import Peer, Received, Visit, always, odd_peer
from tests.support.transports import PATIENT, body_of

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of the tests' own."""
    return trustme.CA()


def h2_context(authority: trustme.CA) -> ssl.SSLContext:
    """A server that speaks nothing but HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2"])
    return context


def transport_over_h2(peer: Peer, authority: trustme.CA) -> HttpxTransport:
    """A transport that offers HTTP/2."""
    trusting = verifying_context()
    authority.configure_trust(trusting)
    return HttpxTransport(origin_of(f"https://127.0.0.1:{peer.port}/base"), PATIENT, http2=True, ssl_context=trusting)


class H2Echo:
    """A script: HTTP/2, each request answered by its own body, in two pieces."""

    def __init__(self, *, then_reset: bool = False) -> None:
        self.heads: list[list[tuple[bytes, bytes]]] = []
        self._then_reset = then_reset

    async def __call__(self, visit: Visit) -> None:
        """Play one connection."""
        h2_side = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        h2_side.initiate_connection()
        await visit.say(h2_side.data_to_send())
        bodies: dict[int, bytes] = {}
        while data := await visit.reader.read(65536):
            for event in h2_side.receive_data(data):
                self._take(h2_side, event, bodies)
            await visit.say(h2_side.data_to_send())

    def _take(self, h2_side: h2.connection.H2Connection, event: h2.events.Event, bodies: dict[int, bytes]) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self.heads.append([(bytes(name), bytes(value)) for name, value in event.headers])
            bodies[event.stream_id] = b""
        elif isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] += event.data
            h2_side.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream, body = event.stream_id, bodies.pop(event.stream_id)
            h2_side.send_headers(stream, [(b":status", b"200"), (b"x-many", b"1"), (b"x-many", b"2")])
            h2_side.send_data(stream, body[:3])
            if self._then_reset:
                h2_side.reset_stream(stream)
            else:
                h2_side.send_data(stream, body[3:], end_stream=True)


async def in_pieces() -> AsyncIterator[bytes]:
    """A body that streams."""
    yield b"str"
    yield b"eamed"


async def test_many_requests_share_one_http2_connection(authority: trustme.CA) -> None:
    """F1: upstreams that want HTTP/2 get it, with path and fields as they were given and nothing invented."""
    async with odd_peer(script := H2Echo(), tls=h2_context(authority)) as peer:
        transport = transport_over_h2(peer, authority)
        await body_of(await transport.send(b"POST", b"/warm", [], b"warm"))
        answers = await asyncio.gather(
            *(transport.send(b"POST", b"/v1?n=%d" % n, [(b"x-n", b"%d" % n)], b"body %d" % n) for n in range(5))
        )
        assert [await body_of(answer) for answer in answers] == [b"body %d" % n for n in range(5)]
        assert answers[0].headers == [(b"x-many", b"1"), (b"x-many", b"2")]
        assert await body_of(await transport.send(b"POST", b"/", [], in_pieces())) == b"streamed"
        await transport.aclose()

    assert peer.connections == 1
    assert sorted(script.heads[1]) == sorted([
        (b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/base/v1?n=0"),
        (b":authority", b"127.0.0.1:%d" % peer.port), (b"x-n", b"0"), (b"content-length", b"6"),
    ])  # fmt: skip


async def test_a_reset_http2_stream_is_a_fault(authority: trustme.CA) -> None:
    """A cut answer must not be taken for a whole one, whatever the protocol calls it."""
    async with odd_peer(H2Echo(then_reset=True), tls=h2_context(authority)) as peer:
        transport = transport_over_h2(peer, authority)
        answer = await transport.send(b"POST", b"/", [], b"some body")
        with pytest.raises(Fault) as caught:
            await body_of(answer)
        await transport.aclose()

    assert caught.value.kind is UPSTREAM_BROKEN


async def test_a_forward_proxy_gets_the_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks without a way out but a proxy; the environment's own proxy settings have no say in it."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    seen: list[Received] = []

    async def proxy(visit: Visit) -> None:
        seen.append(await visit.request())
        await visit.say(OK)

    async with odd_peer(proxy) as peer:
        through = f"http://127.0.0.1:{peer.port}"
        transport = HttpxTransport(origin_of("http://upstream.invalid/base"), PATIENT, proxy=through)
        assert await body_of(await transport.send(b"POST", b"/v1", [], b"x")) == b"ok"
        await transport.aclose()

    assert seen[0].line == b"POST http://upstream.invalid/base/v1 HTTP/1.1"
    assert seen[0].values(b"host") == [b"upstream.invalid"]


async def test_a_tunnel_leads_to_the_upstream_and_is_verified(authority: trustme.CA) -> None:
    """A proxy must see neither key nor prompt of an https upstream, and the path must stay as it was given."""
    upstream_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("upstream.invalid").configure_cert(upstream_tls)
    seen: list[bytes] = []

    async def proxy(visit: Visit) -> None:
        seen.append((await visit.head()).line)
        await visit.say(b"HTTP/1.1 200 Connected\r\n\r\n")
        await visit.writer.start_tls(upstream_tls)
        seen.append((await visit.request()).line)
        await visit.say(OK)

    trusting = verifying_context()
    authority.configure_trust(trusting)
    async with odd_peer(proxy) as peer:
        through = f"http://127.0.0.1:{peer.port}"
        transport = HttpxTransport(origin_of("https://upstream.invalid"), PATIENT, proxy=through, ssl_context=trusting)
        assert await body_of(await transport.send(b"GET", b"/a/../b%2F", [], b"")) == b"ok"
        await transport.aclose()

    assert seen == [b"CONNECT upstream.invalid:443 HTTP/1.1", b"GET /a/../b%2F HTTP/1.1"]


async def test_a_proxy_that_refuses_the_tunnel_is_a_fault(authority: trustme.CA) -> None:
    """The caller must see that the upstream could not be reached, not the proxy's own answer."""
    async with odd_peer(always(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")) as peer:
        through = f"http://127.0.0.1:{peer.port}"
        transport = HttpxTransport(origin_of("https://upstream.invalid"), PATIENT, proxy=through)
        with pytest.raises(Fault) as caught:
            await transport.send(b"GET", b"/", [], b"")
        await transport.aclose()

    assert caught.value.kind is UPSTREAM_REFUSED
