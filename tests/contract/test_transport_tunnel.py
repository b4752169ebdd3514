"""WebSocket connections to an upstream, as far as no gateway is needed to see it."""

import asyncio

from gateway.upstream.origin import origin_of
from gateway.upstream.transport import Timeouts
from gateway.upstream.tunnel import SWITCHING, Opened, Tunnels
from tests.support.odd_peer import Visit, both_at_once, odd_peer
from tests.support.until import until

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"


async def test_who_vanishes_as_his_tunnel_opens_leaves_none_behind() -> None:
    """F1: nobody would ever read or close it: a session that the upstream bills, and a file, until the worker ends.

    Both answers come in one turn of the loop, so that the one who is let go has his tunnel already.
    """

    async def ask(other: int) -> Opened:
        opened = await tunnels.open(b"/", [])
        asking[other].cancel()
        return opened

    async with odd_peer(both_at_once(SWITCHED, Visit.client_gone)) as peer:
        tunnels = Tunnels(origin_of(f"http://127.0.0.1:{peer.port}"), Timeouts(), "")
        asking = [asyncio.create_task(ask(other)) for other in (1, 0)]
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        [opened] = [outcome for outcome in outcomes if isinstance(outcome, Opened)]
        assert opened.status == SWITCHING

        async def one_has_gone() -> bool:
            return peer.gone == 1

        await until(one_has_gone)
        opened.close()
