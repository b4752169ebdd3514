"""The transport port over TLS, on both implementations: the right peer is spoken to, and nobody else."""

import asyncio
import datetime as dt
import ssl
from collections.abc import Awaitable

import pytest
import trustme

from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_REFUSED, UPSTREAM_TIMEOUT, Fault
from gateway.upstream.tls import verifying_context
from gateway.upstream.transport import Timeouts
from tests.support.odd_peer import Visit, always, answers, odd_peer
from tests.support.transports import KINDS, Kind, body_of, get, transport_to

pytestmark = pytest.mark.parametrize("kind", KINDS)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
EXPIRED = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of the tests' own."""
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """The peer's side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """The transport's side, knowing the tests' authority."""
    context = verifying_context()
    authority.configure_trust(context)
    return context


async def test_a_verified_peer_is_spoken_to_over_one_connection(kind: Kind, authority: trustme.CA) -> None:
    """F1: TLS upstreams, with keep-alive, large bodies both ways and HTTP/1.1 agreed by ALPN."""
    peer_tls = server_context(authority.issue_cert("127.0.0.1"))
    peer_tls.set_alpn_protocols(["http/1.1"])
    agreed = []

    async def script(visit: Visit) -> None:
        agreed.append(visit.writer.get_extra_info("ssl_object").selected_alpn_protocol())
        while True:
            body = (await visit.request()).body
            await visit.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async with (
        odd_peer(script, tls=peer_tls) as peer,
        transport_to(kind, peer.port, tls=trusting(authority)) as transport,
    ):
        for size in (1, 1_000_000):
            assert await body_of(await transport.send(b"POST", b"/", [], b"x" * size)) == b"x" * size

    assert agreed == ["http/1.1"]


async def test_names_are_verified_too(kind: Kind, authority: trustme.CA) -> None:
    """A host name is checked as a name, an address as an address."""
    tls = server_context(authority.issue_cert("localhost"))
    async with odd_peer(always(OK), tls=tls) as peer:
        async with transport_to(kind, peer.port, tls=trusting(authority), host="localhost") as transport:
            assert await body_of(await get(transport)) == b"ok"
        async with transport_to(kind, peer.port, tls=trusting(authority)) as transport:
            await _assert_refused(get(transport))


async def test_an_expired_certificate_is_refused(kind: Kind, authority: trustme.CA) -> None:
    """A key must not be sent to a peer whose certificate has run out."""
    tls = server_context(authority.issue_cert("127.0.0.1", not_after=EXPIRED))
    async with (
        odd_peer(always(OK), tls=tls) as peer,
        transport_to(kind, peer.port, tls=trusting(authority)) as transport,
    ):
        await _assert_refused(get(transport))


async def test_an_unknown_authority_is_refused(kind: Kind, authority: trustme.CA) -> None:
    """A key must not be sent to whoever sits in the middle."""
    tls = server_context(authority.issue_cert("127.0.0.1"))
    async with (
        odd_peer(always(OK), tls=tls) as peer,
        transport_to(kind, peer.port, tls=verifying_context()) as transport,
    ):
        await _assert_refused(get(transport))


async def test_a_plain_peer_behind_an_https_url_is_refused(kind: Kind, authority: trustme.CA) -> None:
    """A wrong scheme in gateway.yaml is a 502 that says so, never a request in clear text."""

    async def script(visit: Visit) -> None:
        seen.append(await visit.reader.read(16))
        await visit.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    seen: list[bytes] = []
    async with odd_peer(script) as peer, transport_to(kind, peer.port, tls=trusting(authority)) as transport:
        await _assert_refused(get(transport))

    assert seen[0][:2] == b"\x16\x03"  # a TLS handshake record


async def test_a_tls_peer_behind_an_http_url_is_a_fault(kind: Kind, authority: trustme.CA) -> None:
    """The mirror image of the same typing error."""
    tls = server_context(authority.issue_cert("127.0.0.1"))
    async with odd_peer(always(OK), tls=tls) as peer, transport_to(kind, peer.port) as transport:
        with pytest.raises(Fault) as caught:
            await get(transport)

    assert caught.value.kind is UPSTREAM_BROKEN


async def test_a_handshake_that_stalls_times_out_as_connect(kind: Kind, authority: trustme.CA) -> None:
    """F5: a load balancer with nobody behind it accepts and stays silent."""

    async def script(visit: Visit) -> None:
        await visit.client_gone()

    short = Timeouts(connect_s=0.3)
    async with (
        odd_peer(script) as peer,
        transport_to(kind, peer.port, timeouts=short, tls=trusting(authority)) as transport,
    ):
        async with asyncio.timeout(20):
            with pytest.raises(Fault) as caught:
                await get(transport)

    assert caught.value.kind is UPSTREAM_TIMEOUT
    assert caught.value.internal.startswith("connect")


async def test_a_body_cut_over_tls_is_a_fault(kind: Kind, authority: trustme.CA) -> None:
    """A cut answer must not be taken for a whole one."""
    tls = server_context(authority.issue_cert("127.0.0.1"))
    cut = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
    async with (
        odd_peer(answers(cut), tls=tls) as peer,
        transport_to(kind, peer.port, tls=trusting(authority)) as transport,
    ):
        with pytest.raises(Fault) as caught:
            await body_of(await get(transport))

    assert caught.value.kind is UPSTREAM_BROKEN


async def _assert_refused(exchange: Awaitable[object]) -> None:
    with pytest.raises(Fault) as caught:
        await exchange
    assert caught.value.kind is UPSTREAM_REFUSED
