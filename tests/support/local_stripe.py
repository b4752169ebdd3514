"""localstripe, a stateful Stripe that others wrote, in a process of its own on loopback.

Its events are told about a second after each. It has no clock: `renew` moves a subscription's period, and `fail` tells
of a payment that was tried and failed, which it does for no invoice that is paid by hand.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import stripe

from tests.support.until import until

KEY = "sk_test_12345"

_PROGRAM = """
import socket
import sys
from aiohttp import web
from localstripe import webhooks
from localstripe.resources import Invoice, Subscription, store
from localstripe.server import app
type(store).dump_to_disk = lambda store: None
send, untold = webhooks._send_webhook, set()

def tell(event):
    untold.add(event)
    return told(event)

async def told(event):
    try:
        await send(event)
    finally:
        untold.discard(event)

webhooks._send_webhook = tell

async def count_untold(request):
    return web.json_response(len(untold))

async def renew(request):
    data = await request.json()
    Subscription._api_retrieve(data["id"]).start_date = data["start"]
    return web.Response()

async def fail(request):
    Invoice._api_retrieve((await request.json())["id"])._on_payment_failure_now()
    return web.Response()

app.router.add_post("/_config/renew", renew)
app.router.add_post("/_config/fail", fail)
app.router.add_get("/_config/untold", count_untold)
web.run_app(app, sock=socket.socket(fileno=int(sys.argv[1])), print=None)
"""


@dataclass
class LocalStripe:
    """A running one. `client` is Stripe's own library."""

    url: str
    client: stripe.StripeClient
    http: httpx.AsyncClient

    async def tell(self, webhook_url: str, secret: str) -> None:
        """Send its events there from now on."""
        (await self.http.post("/_config/webhooks/one", json={"url": webhook_url, "secret": secret})).raise_for_status()

    async def has_told(self) -> None:
        """Wait until each event so far has been sent and answered."""

        async def all_told() -> bool:
            return bool((await self.http.get("/_config/untold")).json() == 0)

        await until(all_told, 30)

    async def renew(self, subscription_id: str, start_s: int) -> None:
        """Let the subscription's period begin then."""
        (await self.http.post("/_config/renew", json={"id": subscription_id, "start": start_s})).raise_for_status()

    async def fail(self, invoice_id: str) -> None:
        """Let the payment of an open invoice fail."""
        (await self.http.post("/_config/fail", json={"id": invoice_id})).raise_for_status()


@contextlib.asynccontextmanager
async def local_stripe() -> AsyncIterator[LocalStripe]:
    """Start one; stop it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        number = listening.fileno()
        words = (sys.executable, "-c", _PROGRAM, str(number))
        process = await asyncio.create_subprocess_exec(*words, pass_fds=[number])
    library = stripe.HTTPXClient()
    try:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:

            async def answers() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await http.get("/js.stripe.com/v3/")).status_code == 200
                return False

            await until(answers, 30)
            yield LocalStripe(url, stripe.StripeClient(KEY, base_addresses={"api": url}, http_client=library), http)
    finally:
        await library.close_async()  # type: ignore[no-untyped-call]  # the library left it without types
        process.terminate()
        await process.wait()
