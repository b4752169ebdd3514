"""Who a key or token speaks for: read from the ledger, kept for a minute, forgotten when the account changes.

`known` is the hot path and answers only what is plainly fine; every other case goes to `identify`, which asks the
ledger, once per key at a time, and says exactly what is wrong. A change of an account reaches every gateway through
the limiter (it answers Stale), upon which the edge calls `identify_anew`. Entitlements that change by the clock
are worked out anew at that second, from what was read. While the ledger is down, what was read in the last ten minutes
goes on to serve. A key's state is told only to who holds its secret.
"""

import asyncio
import hmac
import os
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Protocol

import msgspec

from gateway.domain.accounts import Account, ApiKey, Caller
from gateway.domain.entitlements import Credential, Entitled, Standing
from gateway.domain.faults import (
    EXPIRED_KEY,
    EXPIRED_TOKEN,
    INVALID_KEY,
    LEDGER_UNAVAILABLE,
    REVOKED_KEY,
    SUSPENDED_ACCOUNT,
    Fault,
    FaultKind,
)
from gateway.identity.keys import digest, key_id_of
from gateway.identity.token_callers import TokenCallers
from gateway.identity.tokens import looks_like_token

_MOST_KEYS = 65_536
_MOST_UNKNOWN = 16_384
_UNKNOWN_S = 5.0
_REFUSED_S = 1.0
_RETRY_S = 1.0
_SERVES_S = 600.0
_NEVER = float("inf")


class Credentials(Protocol):
    """Where keys are read from: the ledger."""

    async def credential(self, key_id: str) -> Credential | None:
        """The key and its account's standing; None for an id that no key has. Raises Fault(LEDGER_UNAVAILABLE)."""
        ...


Entitle = Callable[[Standing, int, ApiKey], Entitled]
"""What an account may do at a Unix second, by one of its keys."""


def own_tier(standing: Standing, _now_s: int, _key: ApiKey) -> Entitled:
    """The account's own tier, whatever it has bought."""
    return Entitled(standing.account.tier)


class _Known(msgspec.Struct):
    """A key as it was read. The moments are seconds of the directory's clock.

    Until `fresh_until_s` all of it holds, until `read_again_s` what was read; in between entitlements are worked out.
    """

    digest: bytes
    found: Credential
    caller: Caller
    refusal: FaultKind | None
    read_s: float
    fresh_until_s: float
    read_again_s: float
    expires_s: float
    seen: bytes = b""
    """The token that was found to be the key's, as `Directory._quick` has it; empty until there was one."""


class Directory:
    """Keys of this process. Bounded: the key that was read longest ago makes room."""

    def __init__(
        self,
        ledger: Credentials,
        digest_key: bytes,
        *,
        entitle: Entitle = own_tier,
        tokens: TokenCallers | None = None,
        fresh_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._digest_key = digest_key
        self._entitle = entitle
        self._tokens = tokens
        self._fresh_s = fresh_s
        self._quick_key = os.urandom(32)
        self._clock = clock
        self._wall_clock = wall_clock
        self._keys: dict[bytes, _Known] = {}
        self._of_account: defaultdict[str, set[bytes]] = defaultdict(set)
        self._unknown: dict[str, float] = {}
        self._loading: dict[bytes, asyncio.Task[_Known | None]] = {}

    def known(self, token: bytes) -> Caller | None:
        """The caller, where the key was read lately and is plainly fine; None says to ask `identify`."""
        entry = self._keys.get(token[3:15])
        if entry is None and self._tokens is not None:
            entry = self._keys.get(self._quick(token))
        if (
            entry is None
            or self._clock() >= entry.fresh_until_s
            or entry.refusal is not None
            or not hmac.compare_digest(self._quick(token), entry.seen)
        ):
            return None
        return entry.caller

    def recalls(self, token: bytes) -> bool:
        """Whether this very key or token was good when it was last read, however long ago."""
        quick = self._quick(token)
        entry = self._keys.get(token[3:15]) or self._keys.get(quick)
        return entry is not None and hmac.compare_digest(quick, entry.seen)

    async def identify(self, token: bytes) -> Caller:
        """The caller.

        Raises Fault: INVALID_KEY, REVOKED_KEY, EXPIRED_KEY, SUSPENDED_ACCOUNT, LEDGER_UNAVAILABLE, and for tokens what
        `TokenCallers.credential` does.
        """
        tokens = self._tokens
        if tokens is not None and looks_like_token(token):
            entry = await self._current(self._quick(token), lambda: tokens.credential(token))
            expired = EXPIRED_TOKEN
        else:
            entry, expired = await self._of_key(token), EXPIRED_KEY
        if entry is None:
            raise Fault(INVALID_KEY)
        if entry.refusal is not None:
            raise Fault(expired if entry.refusal is EXPIRED_KEY else entry.refusal)
        if self._clock() >= entry.expires_s:
            raise Fault(expired)
        entry.seen = self._quick(token)
        return entry.caller

    async def identify_anew(self, caller: Caller, token: bytes) -> Caller:
        """The caller as of now, whose account changed since it was read. Raises as `identify`."""
        self.forget(caller.account_id)
        return await self.identify(token)

    async def _of_key(self, token: bytes) -> _Known | None:
        """What is known of the API key; None where there is none of that text."""
        key_id = key_id_of(token)
        if key_id is None or self._unknown.get(key_id, 0.0) > self._clock():
            return None
        entry = await self._current(key_id.encode(), lambda: self._ledger.credential(key_id))
        if entry is None or not hmac.compare_digest(digest(self._digest_key, token), entry.digest):
            return None
        return entry

    async def _current(self, name: bytes, find: Callable[[], Awaitable[Credential | None]]) -> _Known | None:
        """What is known under the name, as it is by now."""
        entry = self._keys.get(name)
        if entry is None or self._clock() >= entry.read_again_s:
            return await self._read(name, find)
        if self._clock() >= entry.fresh_until_s:
            self._entitle_anew(entry)
        return entry

    def forget(self, account_id: str) -> None:
        """The account changed: drop what is kept of it. What is being read right now may be old: it is not kept."""
        for name in self._of_account.pop(account_id, ()):
            del self._keys[name]
        self._loading.clear()

    def entitle_by(self, entitle: Entitle) -> None:
        """Tiers have changed: from now on go by `entitle`, for those who are known too. Asks the ledger nothing."""
        self._entitle = entitle
        for entry in self._keys.values():
            entry.fresh_until_s = 0.0

    def _quick(self, token: bytes) -> bytes:
        """A keyed hash for this process alone: OpenSSL's HMAC, by which keys are stored, takes four times as long."""
        return blake2b(token, key=self._quick_key, digest_size=32).digest()

    async def _read(self, name: bytes, find: Callable[[], Awaitable[Credential | None]]) -> _Known | None:
        task = self._loading.get(name)
        if task is None:
            task = asyncio.create_task(self._load(name, find))
            self._loading[name] = task
            task.add_done_callback(lambda done: self._loaded(name, done))
        # Shielded, as a caller who leaves must not take the answer from the others who wait for it.
        return await asyncio.shield(task)

    def _loaded(self, name: bytes, task: asyncio.Task[_Known | None]) -> None:
        if self._loading.get(name) is task:
            del self._loading[name]
        if not task.cancelled():
            task.exception()  # marks it as seen, where every caller has left

    async def _load(self, name: bytes, find: Callable[[], Awaitable[Credential | None]]) -> _Known | None:
        this = asyncio.current_task()
        try:
            found = await find()
        except Fault as fault:
            return self._stand_in(name, fault)
        entry = None if found is None else self._entry(found)
        if self._loading.get(name) is this:
            self._keep(name, entry)
        return entry

    def _stand_in(self, name: bytes, fault: Fault) -> _Known:
        """What was read before the ledger fell silent, for ten minutes; raises the fault where there is nothing."""
        entry = self._keys.get(name)
        now_s = self._clock()
        if entry is None or fault.kind is not LEDGER_UNAVAILABLE or now_s >= entry.read_s + _SERVES_S:
            raise fault
        entry.read_again_s = min(now_s + _RETRY_S, entry.expires_s)
        self._entitle_anew(entry)
        return entry

    def _entry(self, found: Credential) -> _Known:
        key, now_s = found.key, self._clock()
        left_s = _NEVER if key.expires_ms is None else key.expires_ms / 1000 - self._wall_clock()
        refusal = _refusal(key, found.standing.account, left_s)
        entry = _Known(
            digest=key.digest,
            found=found,
            caller=Caller(key.account_id, key.id, "", 0),
            refusal=refusal,
            read_s=now_s,
            fresh_until_s=now_s,
            read_again_s=now_s + (_REFUSED_S if refusal else min(self._fresh_s, left_s)),
            expires_s=now_s + left_s,
        )
        self._entitle_anew(entry)
        return entry

    def _entitle_anew(self, entry: _Known) -> None:
        """Work out what the account may do now, and until when that holds."""
        now_s, wall_s, found = self._clock(), self._wall_clock(), entry.found
        account, terms = found.standing.account, found.key.terms
        entitled = self._entitle(found.standing, int(wall_s), found.key)
        scope = terms if terms.is_scoped else None
        entry.caller = Caller(account.id, found.key.id, entitled.tier, account.version, entitled.plan, scope)
        until_s = _NEVER if entitled.until_s is None else now_s + entitled.until_s - wall_s
        entry.fresh_until_s = min(entry.read_again_s, until_s)

    def _keep(self, name: bytes, entry: _Known | None) -> None:
        self._drop(name)
        if entry is None:
            if len(self._unknown) >= _MOST_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            key_id = name.decode()
            self._unknown.pop(key_id, None)
            self._unknown[key_id] = self._clock() + _UNKNOWN_S
            return
        if len(self._keys) >= _MOST_KEYS:
            self._drop(next(iter(self._keys)))
        self._keys[name] = entry
        self._of_account[entry.caller.account_id].add(name)

    def _drop(self, name: bytes) -> None:
        entry = self._keys.pop(name, None)
        if entry is None:
            return
        siblings = self._of_account[entry.caller.account_id]
        siblings.discard(name)
        if not siblings:
            del self._of_account[entry.caller.account_id]


def _refusal(key: ApiKey, account: Account, left_s: float) -> FaultKind | None:
    if key.revoked_ms is not None:
        return REVOKED_KEY
    if left_s <= 0:
        return EXPIRED_KEY
    return SUSPENDED_ACCOUNT if account.suspended else None
