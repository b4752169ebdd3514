"""A hold as Redis keeps it: the packed reserve call, and the event to be written should it be reaped.

Owns the format that `lua/*.lua` share with Python, and what a reap charges. Raises msgspec.MsgspecError for bytes that
are no hold, as of a version that is newer.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.domain.decisions import Extension, Line, Renewal, Reservation, Settlement
from gateway.domain.limits import SLOTS, Unit
from gateway.domain.usage import Usage, UsageEvent, amount, correction

_pack = msgspec.msgpack.Encoder().encode
_event = msgspec.msgpack.Decoder(UsageEvent).decode

Charge = tuple[str, int, int]
"""A limit's name, the start of the window it counts in (Unix seconds), and the amount."""

FIRST, WIDTH = 5, 5
"""Where the lines begin in a call, and how many fields each has."""


class Hold(msgspec.Struct, frozen=True, array_like=True):
    """What was asked, flat as the scripts read it, and the event of a reap."""

    call: list[Any]
    about: UsageEvent | None = None

    @property
    def request_id(self) -> str:
        """Whose hold it is."""
        return str(self.call[0])

    @property
    def account_id(self) -> str:
        """Whose request."""
        return str(self.call[1])

    @property
    def lines(self) -> list[Charge]:
        """What is held of each limit."""
        call = self.call
        return [(call[at], call[at + 1], call[at + 4]) for at in range(FIRST, len(call), WIDTH)]

    @property
    def asked(self) -> tuple[Line, ...]:
        """The lines as they were asked, save what helps who is refused by them."""
        call = self.call
        return tuple([Line(*call[at : at + WIDTH]) for at in range(FIRST, len(call), WIDTH)])


def pack_hold(asked: Reservation) -> bytes:
    """A reservation as `reserve.lua` takes and keeps it."""
    call: list[str | int] = [asked.request_id, asked.account_id, asked.version, asked.concurrency, asked.lease_ms]
    for line in asked.lines:
        call += (line.name, line.start_s, line.end_s, line.maximum, line.amount)
    return _pack((call,) if asked.about is None else (call, asked.about))


def pack_extension(extension: Extension) -> bytes:
    """An extension as `extend.lua` takes it."""
    call: list[str | int] = [extension.request_id]
    for line in extension.lines:
        call += (line.name, line.maximum, line.amount)
    return _pack(call)


def pack_renewal(renewal: Renewal) -> bytes:
    """A renewal as `renew.lua` takes it."""
    return _pack(((renewal.request_id, renewal.lease_ms), renewal.about))


read_hold = msgspec.msgpack.Decoder(Hold).decode
"""The hold that these bytes are."""


def charges(lines: Iterable[Charge], about: UsageEvent | None) -> list[Charge]:
    """What a reap charges in place of the lines held: what its event counts; without one, all stays as held."""
    if about is None:
        return list(lines)
    usage = Usage(about.input_tokens, about.output_tokens)
    return [(name, start_s, _charge(name, about.requests, usage)) for name, start_s, _ in lines]


def _charge(name: str, requests: int, usage: Usage) -> int:
    return 0 if name.startswith(SLOTS) else amount(Unit(name.partition("/")[0]), requests, usage)


def differences(
    settlement: Settlement, charged: Iterable[Charge], about: UsageEvent | None
) -> tuple[list[Charge], bytes]:
    """What a settlement after the reap still has to charge, and its event; `charged` is what the reap did."""
    true = {name: amount for name, _, amount in settlement.amounts}
    lines = [(name, start_s, true[name] - already) for name, start_s, already in charged if name in true]
    if about is None:
        return lines, settlement.event
    return lines, _pack(correction(about, _event(settlement.event) if settlement.event else None))
