"""The metrics of all workers as Prometheus text (format 0.0.4), rendered by whichever worker is asked.

Counters and histograms of every worker that ever wrote a file are summed, so that no total falls when a worker dies or
the gateway is started with fewer. Gauges are believed only of workers in `workers` slots that wrote within 10 s.
"""

import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.telemetry import catalogue, snapshot
from gateway.telemetry.catalogue import Merge
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.snapshot import Key, Snapshot

_FRESH_S = 10.0


def render(directory: Path, own: Metrics, *, workers: int = 1) -> bytes:
    """The text of a scrape: this worker's counts as they are, the others' as they last wrote them."""
    others = [other for other in snapshot.read_all(directory) if other.worker != own.worker]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Workers([own.snapshot(), *others], workers))
    return generate_latest(registry)


class _Workers(Collector):
    """Hands the sum of all workers' counts to prometheus_client."""

    def __init__(self, snapshots: list[Snapshot], workers: int) -> None:
        self._snapshots = snapshots
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Every family, whether or not anything was counted in it yet."""
        for counter in catalogue.COUNTERS:
            yield _counter(counter, (s.counters.get(counter.name, {}) for s in self._snapshots))
        for histogram in catalogue.HISTOGRAMS:
            yield _histogram(histogram, (s.histograms.get(histogram.name, {}) for s in self._snapshots))
        oldest_s = time.time() - _FRESH_S
        fresh = [s.gauges for s in self._snapshots if s.worker < self._workers and s.taken_s >= oldest_s]
        for gauge in catalogue.GAUGES:
            values = [gauges[gauge.name] for gauges in fresh if gauge.name in gauges]
            if values:
                yield GaugeMetricFamily(gauge.name, gauge.text, value=_merged(gauge.merge, values))


def _counter(family: catalogue.Counter, parts: Iterable[dict[Key, float]]) -> Metric:
    total: dict[Key, float] = {} if family.labels else {(): 0}
    for part in parts:
        for key, amount in part.items():
            if family.fits(key):
                total[key] = total.get(key, 0) + amount
    metric = CounterMetricFamily(family.name, family.text, labels=family.labels)
    for key, amount in sorted(total.items(), key=_by_labels):
        metric.add_metric([str(label) for label in key], amount)
    return metric


def _histogram(family: catalogue.Histogram, parts: Iterable[dict[Key, list[float]]]) -> Metric:
    total: dict[Key, list[float]] = {}
    for part in parts:
        for key, slot in part.items():
            if family.fits(key, slot):
                held = total.get(key, [0] * family.width)
                total[key] = [a + b for a, b in zip(held, slot, strict=True)]
    metric = HistogramMetricFamily(family.name, family.text, labels=family.labels)
    ends = [*(repr(bound) for bound in family.bounds), "+Inf"]
    for key, slot in sorted(total.items(), key=_by_labels):
        buckets = list(zip(ends, accumulate(slot[:-1]), strict=True))
        metric.add_metric([str(label) for label in key], buckets, slot[-1])
    return metric


def _by_labels(item: tuple[Key, object]) -> list[str]:
    return [str(label) for label in item[0]]


def _merged(merge: Merge, values: list[float]) -> float:
    match merge:
        case Merge.SUM:
            return sum(values)
        case Merge.LARGEST:
            return max(values)
        case Merge.SMALLEST:
            return min(values)
        case Merge.FARTHEST:
            return max(values, key=abs)
