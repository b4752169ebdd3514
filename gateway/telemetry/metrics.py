"""Counts in this process: plain dictionaries on the hot path, read once a second and at a scrape.

Owns `Metrics` (what is counted) and `Telemetry` (the end of a request: one log line and its counts). Used from the
event loop's thread alone. Counts outlive their worker: its successor in the slot takes them over (`take_over`), so
that no total moves back while the gateway runs.
"""

import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from gateway.domain.limits import OWNER
from gateway.telemetry import catalogue, log, snapshot
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.snapshot import Key, Snapshot

_AT_ONCE = 64
_MODELS = 200
_MODEL_CHARS = 100

_Slots = dict[Key, list[float]]


class Metrics:
    """One worker's counts. Levels that others know (`watch`) are asked for when a snapshot is made."""

    def __init__(self, worker: int = 0) -> None:
        self.worker = worker
        self._counters: dict[str, dict[Key, float]] = {family.name: {} for family in catalogue.COUNTERS}
        self._histograms: dict[str, _Slots] = {family.name: {} for family in catalogue.HISTOGRAMS}
        self._watched_counters: dict[str, Callable[[], float]] = {}
        self._watched_gauges: dict[str, Callable[[], float]] = {}
        self._models: set[str] = set()
        self.catch_up: Callable[[], None] = _nothing
        """Called before the counts are read: whoever owes some counts them."""
        self._bind()

    def watch(self, family: catalogue.Gauge | catalogue.Counter, read: Callable[[], float]) -> None:
        """Take a gauge, or a counter without labels, from its owner whenever a snapshot is made.

        A counter's `read` tells what this process counted since its start.
        """
        watched = self._watched_gauges if isinstance(family, catalogue.Gauge) else self._watched_counters
        watched[family.name] = read

    def count_flushed(self, events: int, took_s: float) -> None:
        """Tell of events that the ledger now has, and how long it took to write them."""
        _add(self._counters[catalogue.EVENTS_FLUSHED.name], (), events)
        _place(self._histograms[catalogue.FLUSH.name], (), catalogue.FLUSH.bounds, took_s)

    def count_attempt(self, upstream: str, target: str, end: str) -> None:
        """Tell of a request that was sent to one of several targets: `ok`, `limited` or `failed`."""
        _add(self._counters[catalogue.UPSTREAM_ATTEMPTS.name], (upstream, target, end), 1)

    def count_admin_refused(self) -> None:
        """Tell of a request to the admin API that was refused."""
        _add(self._counters[catalogue.ADMIN_REFUSED.name], (), 1)

    def count_stripe(self, result: str) -> None:
        """Tell of a webhook of Stripe that ended so."""
        _add(self._counters[catalogue.STRIPE_EVENTS.name], (result,), 1)

    def observe(self, record: RequestRecord) -> None:
        """Count one request that ended. Gives it the outcome that the rest of its record implies, where it has none."""
        record.outcome = record.outcome or ("refused" if record.limit else "fault" if record.fault else "ok")
        _add(self._requests, (record.route, record.status, record.outcome), 1)
        if record.tier:
            _add(self._tier_requests, (record.tier,), 1)
        if record.limit:
            _add(self._refusals, (record.tier, _limit_label(record.limit)), 1)
        if record.counted_by:
            self._observe_tokens(record)
        start_s = record.started_s
        if record.reserved_s:
            _place(self._admission, (), catalogue.ADMISSION.bounds, record.reserved_s - start_s)
        if record.first_byte_s:
            _place(self._first_byte, (record.route,), catalogue.FIRST_BYTE.bounds, record.first_byte_s - start_s)
        if record.ended_s:
            _place(self._duration, (record.route,), catalogue.DURATION.bounds, record.ended_s - start_s)

    def snapshot(self) -> Snapshot:
        """All counts as they stand. Shares nothing that later counting changes."""
        self.catch_up()
        counters = {name: dict(slots) for name, slots in self._counters.items()}
        for name, read in self._watched_counters.items():
            _add(counters[name], (), read())
        return Snapshot(
            worker=self.worker,
            taken_s=time.time(),
            counters=counters,
            histograms={
                name: {key: slot.copy() for key, slot in slots.items()} for name, slots in self._histograms.items()
            },
            # Whoever decodes the file takes a bool for no number, and the whole file for damaged.
            gauges={name: float(read()) for name, read in self._watched_gauges.items()},
        )

    def write_snapshot(self, path: Path) -> None:
        """Write the counts to this worker's file, about once a second. Takes well under a millisecond."""
        snapshot.write(path, self.snapshot())

    def take_over(self, path: Path) -> None:
        """Go on from the counts that this slot's last worker left. Call once, before anything is counted."""
        left = snapshot.read(path)
        for counter in catalogue.COUNTERS:
            counts = left.counters.get(counter.name, {})
            self._counters[counter.name] = {key: count for key, count in counts.items() if counter.fits(key)}
        for histogram in catalogue.HISTOGRAMS:
            slots = left.histograms.get(histogram.name, {})
            self._histograms[histogram.name] = {key: slot for key, slot in slots.items() if histogram.fits(key, slot)}
        self._models = {str(key[0]) for key in self._counters[catalogue.TOKENS.name]} - {"other"}
        self._bind()

    def _bind(self) -> None:
        """Bind the slots of the hot path to names of their own."""
        self._requests = self._counters[catalogue.REQUESTS.name]
        self._refusals = self._counters[catalogue.REFUSALS.name]
        self._tier_requests = self._counters[catalogue.TIER_REQUESTS.name]
        self._tokens = self._counters[catalogue.TOKENS.name]
        self._duration = self._histograms[catalogue.DURATION.name]
        self._admission = self._histograms[catalogue.ADMISSION.name]
        self._first_byte = self._histograms[catalogue.FIRST_BYTE.name]

    def _observe_tokens(self, record: RequestRecord) -> None:
        tokens, by = self._tokens, record.counted_by
        model = record.model if record.model in self._models else self._new_model(record.model)
        if record.input_tokens:
            _add(tokens, (model, "input", by), record.input_tokens)
        if record.output_tokens:
            _add(tokens, (model, "output", by), record.output_tokens)
        if record.cached_tokens:
            _add(tokens, (model, "cached", by), record.cached_tokens)
        if record.reasoning_tokens:
            _add(tokens, (model, "reasoning", by), record.reasoning_tokens)

    def _new_model(self, model: str) -> str:
        """The label of a model not seen before: callers choose names, so only the first ones get their own."""
        if len(self._models) >= _MODELS or len(model) > _MODEL_CHARS or not model.isprintable():
            return "other"
        self._models.add(model)
        return model


class Telemetry:
    """What is told of requests at their end, a few at a time.

    Told one by one, between the steps of other requests, they cost twice as much: by then the processor has forgotten
    how. So a request is counted before the counts are next read, and its line written within 100 ms.
    """

    def __init__(self, metrics: Metrics, log_requests: bool) -> None:
        """`log_requests` False leaves out the lines of all requests but those that ended in 5xx.

        Make it after `log.configure`: what it writes by is bound once.
        """
        self.metrics = metrics
        self._tell_fault = log.request_writer("warning")
        self._tell = log.request_writer("info") if log_requests else None
        self._ended: list[RequestRecord] = []
        metrics.catch_up = self._catch_up
        metrics.watch(catalogue.LOG_LINES_DROPPED, lambda: log.writer.dropped)

    def finish(self, record: RequestRecord) -> None:
        """Count the request and log its line, soon: `warning` where it ended in 5xx, else `info`. Spends the record."""
        self._ended.append(record)
        if len(self._ended) == 1:
            log.writer.expect(self._catch_up)
        elif len(self._ended) == _AT_ONCE:
            self._catch_up()

    def _catch_up(self) -> None:
        ended, self._ended = self._ended, []
        clock_s, offset_s = time.perf_counter(), time.time() - time.perf_counter()
        for record in ended:
            self.metrics.observe(record)
            tell = self._tell_fault if record.status >= 500 else self._tell
            if tell is not None:
                tell(record, int(1000 * (offset_s + (record.ended_s or clock_s))))


def _limit_label(limit: str) -> str:
    """A key's own limit without the key, as keys are no labels."""
    name, owner, _ = limit.partition(OWNER)
    return f"{name}{owner}key" if owner else name


def _nothing() -> None:
    pass


def _add(slots: dict[Key, float], key: Key, amount: float) -> None:
    slots[key] = slots.get(key, 0) + amount


def _place(slots: _Slots, key: Key, bounds: tuple[float, ...], value: float) -> None:
    """Put an observation into its bucket; the slot's last number is the sum."""
    slot = slots.get(key)
    if slot is None:
        slot = slots[key] = [0] * (len(bounds) + 2)
    slot[bisect_left(bounds, value)] += 1
    slot[-1] += value
