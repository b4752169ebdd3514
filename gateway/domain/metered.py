"""Requests that an app runs by itself and reports: their ids and their events. Pure.

An app names its requests as it likes. Here the name goes with its account, so that no account can reach another's.
"""

import hashlib

import msgspec

from gateway.domain.usage import CountedBy, Outcome, Usage, UsageEvent

ROUTE = "metering"
"""The route, and the endpoint, of such a request in events, metrics and the log."""

MOST_CHARS = 128
OWN_ID = rf"^[A-Za-z0-9._:-]{{1,{MOST_CHARS}}}\Z"
"""What an app may call a request. Without a slash: a correction's id ends in one and a word."""

_SCOPE_DIGITS = 16


def scoped(account_id: str, own_id: str) -> str:
    """The id under which the account's request `own_id` is known here: 64 bits of the account's digest before it."""
    return f"{hashlib.sha256(account_id.encode()).hexdigest()[:_SCOPE_DIGITS]}:{own_id}"


def own_id_of(request_id: str) -> str:
    """The app's own name of a request."""
    return request_id[_SCOPE_DIGITS + 1 :]


def reported(about: UsageEvent, usage: Usage, outcome: Outcome, settled_ms: int, model: str = "") -> UsageEvent:
    """The event of a request that ended so, as its app tells; `about` is what was known when it began.

    As in the proxy, a failure of the upstream gives the request back, and what it used is charged all the same.
    """
    return msgspec.structs.replace(
        about,
        model=model or about.model,
        settled_ms=settled_ms,
        status=200,
        outcome=outcome,
        counted_by=CountedBy.APP,
        requests=0 if outcome in _GIVEN_BACK else 1,
        **msgspec.structs.asdict(usage),
    )


_GIVEN_BACK = (Outcome.UPSTREAM_ERROR, Outcome.RELEASED)
