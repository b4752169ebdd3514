"""Wrong credentials, slowed by the address that they come from.

An address may be wrong `failures` times in `window_s`, and then once every `window_s / failures` seconds. A credential
that this process knows already is never asked about here. Bounded: of `MOST` addresses, the one that was wrong longest
ago is forgotten. An IPv6 address counts with all of its /64, which one customer has whole.
"""

import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from gateway.domain.accounts import Caller
from gateway.domain.faults import INVALID_KEY, INVALID_TOKEN, TOO_MANY_GUESSES, Fault
from gateway.identity.directory import Directory
from gateway.telemetry.log import log

MOST = 16_384
_WRONG = (INVALID_KEY, INVALID_TOKEN)


class Guesses:
    """Of one process, in front of its directory. `failures` 0 slows nobody. `clock` is monotonic seconds."""

    def __init__(
        self, directory: Directory, failures: int, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.wrong = 0
        """Wrong credentials so far."""
        self.slowed = 0
        """Requests that were not looked at so far."""
        self._directory = directory
        self._failures = failures
        self._window_s = window_s
        self._clock = clock
        self._clear_s: dict[str, float] = {}

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._clear_s)

    async def identify(self, token: bytes, client: tuple[str, int] | None) -> Caller:
        """`Directory.identify`, for a client that may be guessing. Raises Fault(TOO_MANY_GUESSES) beside its faults."""
        address = _place(client[0]) if client else ""
        if address in self._clear_s and not self._directory.recalls(token):
            self._refuse_guess(address)
        try:
            return await self._directory.identify(token)
        except Fault as fault:
            if fault.kind in _WRONG:
                self._note(address)
            raise

    def _refuse_guess(self, address: str) -> None:
        wait_s = self._clear_s[address] - self._clock() - (self._window_s - self._step_s)
        if wait_s > 0:
            self.slowed += 1
            raise Fault(TOO_MANY_GUESSES, f"wrong credentials from {address}", retry_after_s=int(wait_s) + 1)

    def _note(self, address: str) -> None:
        self.wrong += 1
        if not self._failures or not address:
            return
        now_s = self._clock()
        before_s = max(self._clear_s.pop(address, now_s), now_s)
        if len(self._clear_s) >= MOST:
            del self._clear_s[next(iter(self._clear_s))]
        self._clear_s[address] = before_s + self._step_s
        if before_s - now_s <= self._window_s - self._step_s < before_s + self._step_s - now_s:
            log.warning("guesses_slowed", address=address)

    @property
    def _step_s(self) -> float:
        return self._window_s / self._failures


def _place(address: str) -> str:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped) if found.ipv4_mapped else f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return address
