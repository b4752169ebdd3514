"""Relay: the upstream's answer to the client, counted in passing.

Promises: a stream's bytes go on as they arrive, each event as soon as it is whole; an answer that the upstream cuts is
never passed off as whole; the upstream's answer is closed on every way out. Memory: a whole answer up to
`buffered_bytes`, one event of a stream, one read of anything else.
"""

import asyncio
import time

import msgspec

from gateway.dialects.dialect import StreamReader
from gateway.domain.faults import UPSTREAM_BROKEN, UPSTREAM_DENIED, Fault
from gateway.domain.usage import CountedBy, Outcome, Usage
from gateway.edge.departure import Departures
from gateway.edge.event_reads import EventReads
from gateway.edge.exchange import Exchange
from gateway.edge.extending import Extending
from gateway.edge.headers import returned
from gateway.edge.reply import OF_THE_UPSTREAM, send_whole, state_headers
from gateway.edge.settling import Settling, has_left
from gateway.snapshot import Route
from gateway.upstream.transport import Answer, RawHeaders

NOT_THE_CALLERS = frozenset({401, 402, 403, 407, 408, 429})
"""Client errors that are between the upstream and the gateway: the caller's request is given back."""

OPAQUE = (b"audio/", b"video/", b"image/", b"application/octet-stream")
"""Content types whose answers tell no usage and have no text: they go on as they come, whatever their dialect."""

BODILESS = frozenset({204, 304})
"""Have no body, whatever length they tell (RFC 9110 §15.3.5, §15.4.5). The server would wait for one as long as told,
so the length isn't passed on; both may lack it.
"""


class Relay:
    """Sends answers on and settles their requests."""

    def __init__(self, settling: Settling, extending: Extending, departures: Departures, buffered_bytes: int) -> None:
        self._settling = settling
        self._extending = extending
        self._departures = departures
        self._buffered_bytes = buffered_bytes

    async def relay(self, exchange: Exchange, route: Route, answer: Answer) -> None:
        """Send `answer` to its end. Raises Fault while nothing was sent yet."""
        exchange.record.upstream_status = exchange.record.status = answer.status
        try:
            target = exchange.target or route.target
            if target.denies(answer.status):
                raise Fault(UPSTREAM_DENIED, f"upstream {target.name} answered {answer.status}")
            headers = returned(answer.headers, target)
            if answer.status == 429:
                headers.append((OF_THE_UPSTREAM, target.name.encode()))
            kind, coding, length = _body_of(answer.headers)
            if route.reads_body and not coding and _is_stream(exchange, answer.status, kind):
                await self._stream(exchange, answer, headers)
            elif self._is_read_whole(route, kind, length):
                await self._whole(exchange, answer, headers, length, readable=route.reads_body and not coding)
            else:
                await self._pass(exchange, answer, headers, length)
        finally:
            answer.close()

    def _is_read_whole(self, route: Route, kind: bytes, length: int | None) -> bool:
        if route.reads_body:
            return not kind.startswith(OPAQUE)
        return length is not None and length <= self._buffered_bytes

    async def _whole(
        self, exchange: Exchange, answer: Answer, headers: RawHeaders, length: int | None, *, readable: bool
    ) -> None:
        if exchange.record.method == "HEAD" or answer.status in BODILESS:
            return await self._pass(exchange, answer, headers, length)
        body = await answer.read_all(self._buffered_bytes)
        if body is None:
            return await self._pass(exchange, answer, headers, length)
        await self._settle_whole(exchange, answer.status, body, readable=readable)
        headers += state_headers(exchange)
        if exchange.record.counted_by:
            headers.append(_usage_header(exchange))
        return await send_whole(exchange, answer.status, headers, body)

    async def _settle_whole(self, exchange: Exchange, status: int, body: bytes, *, readable: bool) -> None:
        exchange.record.response_bytes = len(body)
        usage = exchange.dialect.read_usage(body) if readable else None
        counted_by = CountedBy.UPSTREAM
        if usage is None and status >= 400:
            usage, counted_by = Usage(), CountedBy.ESTIMATE
        elif usage is None and readable:
            usage, counted_by = await self._settling.count(exchange, exchange.dialect.answer_text(body))
        elif usage is None:
            usage, counted_by = exchange.estimate, CountedBy.ESTIMATE
        outcome, requests = outcome_of(status)
        self._settling.settle(exchange, usage, counted_by, outcome, requests)
        await has_left()

    async def _stream(self, exchange: Exchange, answer: Answer, headers: RawHeaders) -> None:
        """A stream of events whose usage the dialect reads."""
        record, send = exchange.record, exchange.send
        reader = exchange.reader = exchange.dialect.stream_reader(
            strip_usage=exchange.ask is not None and exchange.ask.strip_usage
        )
        allowance = self._extending.begin(exchange)
        array = exchange.ask is not None and exchange.ask.array_stream
        read = EventReads(answer, allowance.piece_bytes, array=array).read if allowance.piece_bytes else answer.read
        record.streamed = True
        await self._send_head(exchange, answer.status, headers)
        fault = None
        try:
            while data := await read():
                if record.response_bytes >= allowance.look_bytes and await self._extending.is_over(exchange):
                    return await self._stop(exchange, answer, reader)
                if data := reader.feed(data):
                    record.chunks += 1
                    record.response_bytes += len(data)
                    if reader.finished and exchange.holding:
                        # A caller may leave, or ask again, as soon as it has read the terminator.
                        await self._settle_ended(exchange, reader, _outcome_of_stream(answer.status, reader))
                        await has_left()
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except Fault as error:
            fault = error
        tail = reader.end()
        outcome = _outcome_of_stream(answer.status, reader)
        if fault is None and reader.broken_off:
            fault = Fault(UPSTREAM_BROKEN, "the stream ended before its own end")
        if fault is not None and not reader.finished:
            record.fault, record.detail = fault.kind.code, fault.internal
            # In place of what the reader held back: the half of an event is of no use to a client.
            tail = _told_in_stream(exchange, reader, fault)
            outcome = Outcome.UPSTREAM_CUT
        if exchange.holding:
            await self._settle_ended(exchange, reader, outcome)
            await has_left()
        elif reader.usage is not None:
            self._settling.settle_rest(exchange, reader.usage)
        record.response_bytes += len(tail)
        exchange.over = True
        return await send({"type": "http.response.body", "body": tail})

    async def _stop(self, exchange: Exchange, answer: Answer, reader: StreamReader) -> None:
        """End the stream here: what was sent is all that is charged, and the upstream is let go."""
        answer.close()
        usage = await self.settle_stream(exchange, Outcome.STOPPED, outcome_of(answer.status)[1])
        await has_left()
        tail = reader.stop(usage)
        exchange.record.response_bytes += len(tail)
        exchange.over = True
        await exchange.send({"type": "http.response.body", "body": tail})

    async def _settle_ended(self, exchange: Exchange, reader: StreamReader, outcome: Outcome) -> None:
        """Settle a stream that its upstream ended, one way or another: one that failed before it answered is free."""
        status = exchange.record.upstream_status
        failed = outcome in {Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_CUT}
        if reader.usage is None and status >= 400:
            self._settling.settle(exchange, Usage(), CountedBy.ESTIMATE, outcome, outcome_of(status)[1])
        elif failed and _is_unanswered(exchange, reader):
            self._settling.give_back(exchange, outcome)
        else:
            await self.settle_stream(exchange, outcome, outcome_of(status)[1])

    async def settle_stream(self, exchange: Exchange, outcome: Outcome, requests: int) -> Usage:
        """Settle by what the reader saw: the usage that the upstream reported, else the text. What was charged."""
        reader = exchange.reader
        if reader is not None and reader.usage is not None:
            usage, counted_by = reader.usage, CountedBy.UPSTREAM
        else:
            usage, counted_by = await self._settling.count(exchange, reader.text() if reader is not None else "")
        self._settling.settle(exchange, usage, counted_by, outcome, requests)
        return usage

    async def settle_left(self, exchange: Exchange) -> None:
        """Settle a request whose client has left, or whose server stops: by what was seen.

        Who leaves at an upstream's error, as SDKs do, leaves an answer that failed.
        """
        reader, outcome = exchange.reader, Outcome.CLIENT_GONE
        try:
            if reader is not None and reader.error_seen:
                outcome = Outcome.UPSTREAM_ERROR
                await self._settle_ended(exchange, reader, outcome)
            else:
                await self.settle_stream(exchange, outcome, 1)
        except asyncio.CancelledError:  # no time is left to have the text counted
            usage = self._settling.estimated(exchange, reader.text() if reader is not None else "")
            self._settling.settle(exchange, usage, CountedBy.ESTIMATE, outcome, 1)
            raise

    async def _pass(self, exchange: Exchange, answer: Answer, headers: RawHeaders, length: int | None) -> None:
        """A body that isn't looked into. Where it is cut, so is the client's connection."""
        record = exchange.record
        if length is not None and answer.status not in BODILESS:
            headers.append((b"content-length", b"%d" % length))
        await self._send_head(exchange, answer.status, headers)
        outcome, requests = outcome_of(answer.status)
        usage = exchange.estimate if answer.status < 400 else Usage()
        try:
            while data := await answer.read():
                record.chunks += 1
                record.response_bytes += len(data)
                await exchange.send({"type": "http.response.body", "body": data, "more_body": True})
        except Fault as fault:
            record.fault, record.detail = fault.kind.code, fault.internal
            if record.response_bytes == 0:
                self._settling.give_back(exchange, Outcome.UPSTREAM_CUT)
            else:
                self._settling.settle(exchange, usage, CountedBy.ESTIMATE, Outcome.UPSTREAM_CUT, requests)
            return
        self._settling.settle(exchange, usage, CountedBy.ESTIMATE, outcome, requests)
        exchange.over = True
        await exchange.send({"type": "http.response.body", "body": b""})

    async def _send_head(self, exchange: Exchange, status: int, headers: RawHeaders) -> None:
        headers += state_headers(exchange)
        exchange.head_sent = True
        exchange.record.first_byte_s = time.perf_counter()
        await exchange.send({"type": "http.response.start", "status": status, "headers": headers})
        self._departures.watch(exchange)


def outcome_of(status: int) -> tuple[Outcome, int]:
    """What an upstream's status means for the caller, and whether the request counts."""
    if status < 400:
        return Outcome.OK, 1
    if status >= 500 or status in NOT_THE_CALLERS:
        return Outcome.UPSTREAM_ERROR, 0
    return Outcome.CLIENT_ERROR, 1


def _outcome_of_stream(status: int, reader: StreamReader) -> Outcome:
    return Outcome.UPSTREAM_ERROR if reader.error_seen and status < 400 else outcome_of(status)[0]


def _is_unanswered(exchange: Exchange, reader: StreamReader) -> bool:
    """Whether the upstream failed before anything of its answer came. What is written out of sight may still be."""
    out_of_sight = exchange.ask is not None and exchange.ask.estimate_stands
    if out_of_sight and exchange.record.chunks and not reader.error_seen:
        return False
    return not reader.answered


def _is_stream(exchange: Exchange, status: int, kind: bytes) -> bool:
    """Whether this is an answer that the dialect reads in passing: events, or the array that was asked for."""
    ask = exchange.ask
    array = ask is not None and ask.array_stream
    if kind.startswith(b"text/event-stream"):
        if array and ask is not None:
            exchange.ask = msgspec.structs.replace(ask, array_stream=False)
        return True
    return array and status < 400


def _told_in_stream(exchange: Exchange, reader: StreamReader, fault: Fault) -> bytes:
    """The fault as events, or as an array's last element; inside another nothing: no parser takes it for whole."""
    if exchange.ask is not None and exchange.ask.array_stream:
        return reader.close_array(exchange.dialect.fault_body(fault, exchange.request_id))
    return exchange.dialect.stream_fault(fault, exchange.request_id)


def _body_of(headers: RawHeaders) -> tuple[bytes, bytes, int | None]:
    """Content type (lower case), content coding ("" for none) and length (None for unknown)."""
    kind, coding, length = b"", b"", None
    for name, value in headers:
        if name == b"content-type":
            kind = value.lower()
        elif name == b"content-length":
            length = int(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            coding = value
    return kind, coding, length


def _usage_header(exchange: Exchange) -> tuple[bytes, bytes]:
    record = exchange.record
    text = (
        f"input_tokens={record.input_tokens}, output_tokens={record.output_tokens}, "
        f"cached_tokens={record.cached_tokens}, reasoning_tokens={record.reasoning_tokens}, "
        f"counted_by={record.counted_by}"
    )
    return b"x-tollway-usage", text.encode()
