"""A WebSocket under way: two connections joined, bytes as they come, each held back by the slower end of the other.

Promises: what passes isn't changed, and nothing of our own is put but a Close at the end of a frame; a client's
half-close is passed on; no task and no timer a message. Ends when both connections have: `ended` then tells how.
"""

import asyncio
import math
from collections.abc import Callable

from gateway.dialects.websocket_frames import FrameReader, close_frame
from gateway.domain.usage import Outcome
from gateway.edge.bandwidth import Bucket
from gateway.telemetry.record import RequestRecord
from gateway.upstream.coarse_clock import CoarseClock

GOING_AWAY, POLICY, BROKEN = 1001, 1008, 1011
"""RFC 6455 §7.4.1."""

CLOSE_S = 5.0
"""For both ends to close, once one was told to or has."""

_CHOKED, _PACED = 1, 2


class _End(asyncio.Protocol):
    """One of the two connections. Reading is held while a reason stands in `held`; `silent` has said it all."""

    __slots__ = ("held", "lost", "other", "silent", "transport", "tunnel")

    other: "_End"
    transport: asyncio.Transport

    def __init__(self, tunnel: "Tunnel") -> None:
        self.tunnel = tunnel
        self.held = 0
        self.lost = self.silent = False

    def hold(self, reason: int) -> None:
        """Read no more until it is released."""
        if not self.held and not self.lost:
            self.transport.pause_reading()
        self.held |= reason

    def release(self, reason: int) -> None:
        """Read on, where nothing else speaks against it."""
        self.held &= ~reason
        if not self.held and not self.lost and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.other.hold(_CHOKED)

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.other.release(_CHOKED)

    def eof_received(self) -> bool:
        """Called by the loop. The other direction goes on."""
        self.silent = True
        other = self.other
        if other.lost or other.silent or not other.transport.can_write_eof():
            return False
        other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once."""
        self.lost = True
        self.tunnel.lost(self, exc)


class ClientEnd(_End):
    """Takes the place of the HTTP connection at the server: it has a `deadline` to be swept, and can be shut down."""

    __slots__ = ("_leave", "deadline")

    def __init__(self, tunnel: "Tunnel") -> None:
        super().__init__(tunnel)
        self.deadline = math.inf

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.tunnel.heard()
        self.tunnel.record.request_bytes += len(data)
        if not self.other.lost:
            self.other.transport.write(data)

    def joined(self, transport: asyncio.Transport, clock: CoarseClock, leave: Callable[["ClientEnd"], None]) -> None:
        """Called by the server, in place of `connection_made`."""
        self.transport, self._leave = transport, leave
        self.tunnel.clock, self.tunnel.joined = clock, True
        self.tunnel.heard()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop, once."""
        self._leave(self)
        super().connection_lost(exc)

    def expire(self) -> None:
        """Called by the server: nothing came for too long."""
        self.tunnel.expire()

    def shutdown(self) -> None:
        """Called by the server when it stops."""
        self.tunnel.close(GOING_AWAY, "the gateway is going away")


class UpstreamEnd(_End):
    """Whose frames are looked at in passing."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.tunnel.pass_down(data)


class Tunnel:
    """Joins `client` and `upstream`. `hear` is given each text message of the upstream; None where none is read.

    `bucket` paces what goes to the client; `joined` once the server has let go of the client. The closing words are
    sent at the next end of a frame.
    """

    clock: CoarseClock

    def __init__(
        self,
        record: RequestRecord,
        idle_s: float,
        bucket: Bucket | None,
        hear: Callable[[bytes], None] | None,
        most_bytes: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.joined = False
        self.record = record
        self.ended: asyncio.Future[Outcome] = self._loop.create_future()
        self.client, self.upstream = ClientEnd(self), UpstreamEnd(self)
        self.client.other, self.upstream.other = self.upstream, self.client
        self._idle_s = idle_s or math.inf
        self._bucket = bucket
        self._hear = hear
        self._frames = FrameReader(most_bytes if hear else 0)
        self._closing, self._told = b"", False
        self._outcome: Outcome | None = None

    def heard(self) -> None:
        """Something came, from either end."""
        if self._outcome is None and not self._closing:
            self.client.deadline = self.clock.ahead + self._idle_s

    def pass_down(self, data: bytes) -> None:
        """Send what the upstream said to the client."""
        self.heard()
        if self._told or self.client.lost:
            return
        if self._closing:
            data = data[: self._frames.to_boundary(data)]
            texts: list[bytes] = []
        else:
            try:
                texts = self._frames.feed(data)
            except ValueError as error:
                self._break(str(error))
                return
        self.record.response_bytes += len(data)
        self.client.transport.write(data)
        if self._closing and not self._frames.mid_frame:
            self._tell()
        if self._hear is not None:
            for text in texts:
                self._hear(text)
        if self._bucket is not None:
            self._pace(self._bucket, len(data))

    def close(self, code: int, reason: str, outcome: Outcome | None = None) -> None:
        """Tell the client to close, whose answer to that then closes the upstream. Once."""
        if self._closing or self._outcome is not None:
            return
        self._closing = close_frame(code, reason)
        self._outcome = outcome
        self.client.deadline = self.clock.ahead + CLOSE_S
        if not self._frames.mid_frame:
            self._tell()

    def expire(self) -> None:
        """Nothing came for too long: say so first, and cut after that."""
        if self._closing or self._outcome is not None:
            self.cut()
        else:
            self.close(GOING_AWAY, "idle for too long")

    def cut(self) -> None:
        """Close both ends at once."""
        for end in (self.client, self.upstream):
            if not end.lost:
                end.transport.abort()

    def lost(self, end: _End, exc: Exception | None) -> None:
        """One end is gone: let the other have what was sent to it, and close it too."""
        if self._outcome is None:
            self._outcome = self._outcome_of(end, exc)
        if not end.other.lost:
            self.client.deadline = self.clock.ahead + CLOSE_S
            end.other.held = 0
            end.other.transport.close()
        elif not self.ended.done():
            self.ended.set_result(self._outcome)

    def _outcome_of(self, end: _End, exc: Exception | None) -> Outcome:
        if end is self.client:
            return Outcome.OK if exc is None else Outcome.CLIENT_GONE
        return Outcome.UPSTREAM_CUT if exc is not None or self._frames.mid_frame else Outcome.OK

    def _tell(self) -> None:
        self._told = True
        if not (self.client.lost or self.upstream.silent):
            self.client.transport.write(self._closing)

    def _break(self, detail: str) -> None:
        """What the upstream says can't be read, so it can't be charged."""
        self.record.detail, self._outcome = detail, Outcome.UPSTREAM_CUT
        self._told = True
        self.client.transport.write(close_frame(BROKEN, "the upstream's answer can't be read"))
        self.client.deadline = self.clock.ahead + CLOSE_S
        self.upstream.transport.abort()

    def _pace(self, bucket: Bucket, size: int) -> None:
        wait_s = bucket.take(size, self._loop.time())
        if wait_s:
            self.upstream.hold(_PACED)
            self._loop.call_later(wait_s, self.upstream.release, _PACED)
