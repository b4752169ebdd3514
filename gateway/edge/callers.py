"""Who calls: from the key or token that a request presents to its account.

Promises: a caller that was read in the last minute costs one look-up; who guesses keys is slowed. Fails with Fault: no
key, or none that is good; the ledger away.
"""

from dataclasses import dataclass

from gateway.domain.accounts import Caller
from gateway.domain.faults import MISSING_KEY, Fault
from gateway.edge.exchange import Exchange
from gateway.edge.headers import token_of
from gateway.edge.query_key import key_in
from gateway.edge.subprotocols import offered_key
from gateway.identity.directory import Directory
from gateway.identity.guesses import Guesses


@dataclass(frozen=True, slots=True)
class Callers:
    """Of this worker."""

    directory: Directory
    guesses: Guesses

    async def identify(self, exchange: Exchange) -> tuple[bytes, Caller]:
        """What was presented, in whichever place clients put it, and whose it is; told to the record."""
        scope = exchange.scope
        token = token_of(scope["headers"]) or (key_in(scope["query_string"]) if scope["query_string"] else None)
        if token is None:
            token = offered_key(scope["headers"]) if "websocket" in scope else None
            if token is None:
                raise Fault(MISSING_KEY)
        caller = self.directory.known(token) or await self.guesses.identify(token, scope["client"])
        exchange.record.account_id, exchange.record.key_id = caller.account_id, caller.key_id
        return token, caller
