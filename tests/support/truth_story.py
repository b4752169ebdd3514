"""The stories of a run: what each request asks, how its upstream will answer, when its caller leaves, and what became
of it on both sides. Drawn from a seed, so that a run that fails can be told again.

The upstream counts a token for every 4 bytes, in the prompt and in the answer: a prompt's true count is then never
above the gateway's estimate, whatever it has learned, and the bound on a window can be proved to the token.
"""  # noqa: D205

import json
import random
from dataclasses import dataclass
from enum import StrEnum

TOKEN_BYTES = 4
TEXT = "abc "
"""One token of an answer."""


class Ending(StrEnum):
    """How the upstream ends its answer."""

    WHOLE = "whole"
    CUT = "cut"
    ERROR_EVENT = "error event"
    REFUSED = "400"
    DENIED = "401"
    BUSY = "429"
    BROKEN = "500"
    SHUT = "shut before the head"


STATUSES = {Ending.REFUSED: 400, Ending.DENIED: 401, Ending.BUSY: 429, Ending.BROKEN: 500}


@dataclass(slots=True)
class Story:
    """One request.

    `tokens` are what the answer shows, `hidden` its reasoning; `breaks_at` is the token at which a broken stream
    breaks; `leaves_at` the token at which the caller leaves: 0 before the head, -1 never. The second half is filled in
    by upstream and caller, on one clock; `whole` says that the caller has read an answer to its end.
    """

    name: str
    account: str
    body: bytes
    prompt_tokens: int
    tokens: int
    hidden: int
    cached: int
    streamed: bool
    wants_usage: bool
    reports_usage: bool
    ending: Ending
    breaks_at: int
    leaves_at: int
    seed: int

    arrivals: int = 0
    arrived_s: float = 0.0
    ended_s: float = 0.0
    sent: int = 0
    told: bool = False
    request_id: str = ""
    status: int = 0
    code: str = ""
    seen: int = 0
    left_s: float = 0.0
    over: bool = False
    whole: bool = False

    @property
    def unanswered(self) -> bool:
        """Whether the upstream failed before anything of its answer came: there is nothing to pay for."""
        if self.ending in STATUSES or self.ending is Ending.SHUT:
            return True
        return self.ending is not Ending.WHOLE and (not self.streamed or self.sent == 0)

    @property
    def true_tokens(self) -> int:
        """What the answer cost by the upstream's own count."""
        if self.unanswered:
            return 0
        return self.prompt_tokens + (self.tokens + self.hidden if self.told else self.sent)

    @property
    def until_s(self) -> float:
        """When the request no longer ran: its upstream had ended, or its caller had left."""
        return min(self.ended_s, self.left_s) if self.left_s else self.ended_s


def draw(rng: random.Random, account: str, name: str) -> Story:
    """A request of `account`, and its fate."""
    streamed = rng.random() < 0.75
    tokens, hidden = rng.randint(2, 20), 0
    ending = _ending(rng, streamed=streamed)
    leaves_at = -1
    if ending is Ending.WHOLE and rng.random() < 0.2:
        leaves_at = rng.randint(0, tokens - 1) if streamed else 0
    elif ending is Ending.WHOLE and rng.random() < 0.2:
        hidden = rng.randint(1, 10)
    wants_usage = streamed and rng.random() < 0.3
    body = _body(rng, name, streamed=streamed, wants_usage=wants_usage, max_tokens=tokens + hidden + rng.randint(0, 20))
    return Story(
        name=name,
        account=account,
        body=body,
        prompt_tokens=len(body) // TOKEN_BYTES,
        tokens=tokens,
        hidden=hidden,
        cached=rng.choice((0, 0, 7)),
        streamed=streamed,
        wants_usage=wants_usage,
        reports_usage=hidden > 0 or rng.random() < 0.9,
        ending=ending,
        breaks_at=rng.randint(0, tokens - 1),
        leaves_at=leaves_at,
        seed=rng.getrandbits(32),
    )


def _ending(rng: random.Random, *, streamed: bool) -> Ending:
    if rng.random() < 0.8:
        return Ending.WHOLE
    broken = [Ending.CUT, Ending.REFUSED, Ending.DENIED, Ending.BUSY, Ending.BROKEN, Ending.SHUT]
    return rng.choice([*broken, Ending.ERROR_EVENT, Ending.CUT] if streamed else broken)


def _body(rng: random.Random, name: str, *, streamed: bool, wants_usage: bool, max_tokens: int) -> bytes:
    """A request whose length is a whole number of tokens."""
    fields = {
        "model": f"m-{rng.randint(0, 3)}",
        "messages": [{"role": "user", "content": name + " " * rng.randint(0, 400)}],
        "max_tokens": max_tokens,
        "stream": streamed,
    }
    if wants_usage:
        fields["stream_options"] = {"include_usage": True}
    body = json.dumps(fields).encode()
    return body + b" " * (-len(body) % TOKEN_BYTES)
