"""A Stripe of any size that answers listings at once: page after page of subscriptions that it makes as it is asked.

Subscription `sub_N` is the account `account-N`'s, by its metadata. Of one product, by one price; none is ever gone.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.support.odd_peer import Visit, odd_peer
from tests.support.stripe_objects import subscription

PAGE = 100
PERIOD_S = (1_790_000_000, 4_000_000_000)
_NUMBER, _ACCOUNT = "@number@", "@account@"

Trouble = Callable[[Visit], Awaitable[None]]
"""What is sent in place of an answer; the connection closes after it."""


def account_of(number: int) -> str:
    """Whose subscription it is."""
    return f"account-{number:06}"


@dataclass
class PagedStripe:
    """One that runs. `troubles`: by the number of a request for subscriptions, from 1 on, what becomes of it."""

    count: int
    troubles: dict[int, Trouble] = field(default_factory=dict)
    url: str = ""
    cursors: list[str] = field(default_factory=list)
    """After which subscription each request for a page wanted to begin."""
    look_ups: list[bytes] = field(default_factory=list)
    """What is answered to the next look-ups of one subscription; then, that there is none."""

    def __post_init__(self) -> None:
        one = subscription(
            f"sub_{_NUMBER}", customer=f"cus_{_NUMBER}", metadata={"account_id": _ACCOUNT}, period=PERIOD_S
        )
        self._text = json.dumps(one)

    async def visit(self, visit: Visit) -> None:
        """Answer the requests of one connection."""
        while True:
            target = urlsplit((await visit.head()).line.split(b" ")[1].decode())
            if target.path.startswith("/v1/subscriptions/"):
                await visit.say(self.look_ups.pop(0) if self.look_ups else answer(404, b'{"error": {}}'))
                continue
            if target.path != "/v1/subscriptions":
                await visit.say(answer(200, b'{"object": "list", "data": [], "has_more": false}'))
                continue
            after = parse_qs(target.query).get("starting_after", [""])[0]
            self.cursors.append(after)
            if trouble := self.troubles.get(len(self.cursors)):
                await trouble(visit)
                return
            await visit.say(answer(200, self._page(after)))

    def _page(self, after: str) -> bytes:
        first = int(after.removeprefix("sub_")) + 1 if after else 0
        last = min(self.count, first + PAGE)
        page = [self._text.replace(_NUMBER, str(one)).replace(_ACCOUNT, account_of(one)) for one in range(first, last)]
        more = json.dumps(last < self.count)
        return f'{{"object": "list", "data": [{",".join(page)}], "has_more": {more}}}'.encode()


def answer(status: int, body: bytes, *fields: str) -> bytes:
    """A whole answer as it goes over the wire."""
    head = [f"HTTP/1.1 {status} -", "Content-Type: application/json", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


@asynccontextmanager
async def paged_stripe(count: int, troubles: dict[int, Trouble] | None = None) -> AsyncIterator[PagedStripe]:
    """One with so many subscriptions."""
    stripe = PagedStripe(count, troubles or {})
    async with odd_peer(stripe.visit) as peer:
        stripe.url = f"http://127.0.0.1:{peer.port}"
        yield stripe
