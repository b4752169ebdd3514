"""What the metrics count, how far their labels go, and how the counts of several workers become one scrape."""

import re
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import catalogue, snapshot
from gateway.telemetry.exposition import render
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.record import RequestRecord
from gateway.telemetry.snapshot import Snapshot, worker_file

OK = RequestRecord(
    route="/v1/*",
    tier="free",
    model="gpt-tiny",
    status=200,
    outcome="ok",
    counted_by="upstream",
    input_tokens=10,
    output_tokens=20,
    cached_tokens=3,
    reasoning_tokens=4,
    started_s=100.0,
    reserved_s=100.002,
    first_byte_s=100.2,
    ended_s=101.0,
)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _scrape(directory: Path, own: Metrics, workers: int = 1) -> Samples:
    text = render(directory, own, workers=workers).decode()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_a_request_is_counted_with_its_tokens_and_times(tmp_path: Path) -> None:
    """F8: dashboards and alerts stand on these; each is counted once, under the labels it belongs to."""
    metrics = Metrics()
    metrics.observe(OK)
    metrics.observe(OK)
    got = _scrape(tmp_path, metrics)

    assert _value(got, "tollway_requests_total", route="/v1/*", status="200", outcome="ok") == 2
    for kind, tokens in {"input": 20, "output": 40, "cached": 6, "reasoning": 8}.items():
        assert _value(got, "tollway_tokens_total", model="gpt-tiny", kind=kind, counted_by="upstream") == tokens
    assert _value(got, "tollway_admission_seconds_bucket", le="0.001") == 0
    assert _value(got, "tollway_admission_seconds_bucket", le="0.0025") == 2
    assert _value(got, "tollway_first_byte_seconds_sum", route="/v1/*") == pytest.approx(0.4)
    assert _value(got, "tollway_request_duration_seconds_count", route="/v1/*") == 2
    assert _value(got, "tollway_request_duration_seconds_bucket", route="/v1/*", le="1.0") == 2
    assert _value(got, "tollway_request_duration_seconds_bucket", route="/v1/*", le="0.5") == 0


def test_a_refusal_is_counted_by_tier_and_limit(tmp_path: Path) -> None:
    """D4: refusals per tier and limit tell which plan is too tight."""
    metrics = Metrics()
    metrics.observe(RequestRecord(tier="free", limit="tokens/day", status=429, started_s=1.0, ended_s=1.1))
    got = _scrape(tmp_path, metrics)

    assert _value(got, "tollway_refusals_total", tier="free", limit="tokens/day") == 1
    assert _value(got, "tollway_requests_total", route="", status="429", outcome="refused") == 1


def test_what_never_came_is_not_measured(tmp_path: Path) -> None:
    """F8: a request that failed before its admission must not pull the latency to zero, or below."""
    metrics = Metrics()
    metrics.observe(RequestRecord(fault="invalid_api_key", status=401, started_s=1.0, ended_s=1.1))
    counted = metrics.snapshot().histograms

    assert not counted["tollway_admission_seconds"]
    assert not counted["tollway_first_byte_seconds"]
    assert counted["tollway_request_duration_seconds"]


def test_models_beyond_the_first_200_are_one(tmp_path: Path) -> None:
    """F8: callers choose model names; a metric per name would let any of them fill the monitoring's memory."""
    metrics = Metrics()
    for number in range(500):
        metrics.observe(msgspec.structs.replace(OK, model=f"m{number}"))
    metrics.observe(msgspec.structs.replace(OK, model="x" * 1_000))
    metrics.observe(msgspec.structs.replace(OK, model="m0"))
    tokens = metrics.snapshot().counters["tollway_tokens_total"]

    assert len({key[0] for key in tokens}) == 201
    assert tokens["m0", "input", "upstream"] == 20
    assert tokens["other", "input", "upstream"] == 301 * 10


def test_nothing_that_names_an_account_is_a_label() -> None:
    """F8: metrics are read by many; accounts, keys and requests are for the log and the ledger."""
    labels = {label for family in (*catalogue.COUNTERS, *catalogue.HISTOGRAMS) for label in family.labels}

    told = {"route", "status", "outcome", "tier", "limit", "model", "kind", "counted_by"}
    assert labels == told | {"upstream", "target", "end", "result"}


@pytest.mark.parametrize(
    "family", [*catalogue.COUNTERS, *catalogue.HISTOGRAMS, *catalogue.GAUGES], ids=lambda f: f.name
)
def test_names_follow_prometheus(family: catalogue.Counter | catalogue.Histogram | catalogue.Gauge) -> None:
    """F8: prefix, base units, `_total` on counters alone: what every dashboard and linter expects."""
    assert re.fullmatch(r"tollway_[a-z_]+", family.name)
    assert family.name.endswith("_total") == isinstance(family, catalogue.Counter)
    if isinstance(family, catalogue.Histogram):
        assert family.name.endswith("_seconds")
        assert list(family.bounds) == sorted(set(family.bounds))


def test_gauges_and_counters_of_other_parts_are_read_at_the_scrape(tmp_path: Path) -> None:
    """F8: what the limiter or the pool counts shows as it is, not as it was at start."""
    metrics, calls = Metrics(), [5]
    metrics.watch(catalogue.LIMITER_CALLS, lambda: calls[0])
    metrics.watch(catalogue.CLOCK_OFFSET, lambda: -0.25)
    metrics.watch(catalogue.REQUESTS_RUNNING, lambda: 3)
    metrics.watch(catalogue.STREAMS_OPEN, lambda: 1)
    metrics.count_flushed(40, 0.2)
    metrics.count_flushed(2, 0.1)
    calls[0] = 9
    got = _scrape(tmp_path, metrics)

    assert _value(got, "tollway_limiter_calls_total") == 9
    assert _value(got, "tollway_clock_offset_seconds") == -0.25
    assert _value(got, "tollway_requests_running") == 3
    assert _value(got, "tollway_streams_open") == 1
    assert _value(got, "tollway_events_flushed_total") == 42
    assert ("tollway_usage_backlog_events", frozenset[tuple[str, str]]()) not in got


def test_a_scrape_sums_all_workers(tmp_path: Path) -> None:
    """F8: a scrape meets any worker and must tell of all; levels of the whole gateway are told once, not summed."""
    own, other = Metrics(0), Metrics(1)
    for metrics, backlog, offset in ((own, 7, 0.1), (other, 6, -0.3)):
        metrics.watch(catalogue.USAGE_BACKLOG, partial(float, backlog))
        metrics.watch(catalogue.CLOCK_OFFSET, partial(float, offset))
        metrics.watch(catalogue.REQUESTS_RUNNING, lambda: 2)
        metrics.watch(catalogue.BREAKER_OPEN, lambda: True)
        metrics.watch(catalogue.SETTINGS_VERSION, partial(float, backlog))
        metrics.observe(OK)
        metrics.write_snapshot(worker_file(tmp_path, metrics.worker))
    own.observe(OK)
    got = _scrape(tmp_path, own, workers=2)

    assert _value(got, "tollway_requests_total", route="/v1/*", status="200", outcome="ok") == 3
    assert _value(got, "tollway_request_duration_seconds_count", route="/v1/*") == 3
    assert _value(got, "tollway_requests_running") == 4
    assert _value(got, "tollway_usage_backlog_events") == 7
    assert _value(got, "tollway_clock_offset_seconds") == -0.3
    assert _value(got, "tollway_limiter_breaker_open") == 2
    assert _value(got, "tollway_settings_version") == 6


def test_a_successor_goes_on_where_its_worker_ended(tmp_path: Path) -> None:
    """F8: a total that falls reads as a reset and loses what was counted; levels of the dead are gone with them."""
    path = worker_file(tmp_path, 0)
    dead = Metrics(0)
    dead.watch(catalogue.LIMITER_CALLS, lambda: 5)
    dead.observe(OK)
    dead.watch(catalogue.REQUESTS_RUNNING, lambda: 9)
    dead.write_snapshot(path)

    reborn = Metrics(0)
    reborn.take_over(path)
    reborn.watch(catalogue.LIMITER_CALLS, lambda: 2)
    reborn.watch(catalogue.REQUESTS_RUNNING, lambda: 0)
    reborn.observe(OK)
    reborn.write_snapshot(path)
    got = _scrape(tmp_path, reborn)

    assert _value(got, "tollway_requests_total", route="/v1/*", status="200", outcome="ok") == 2
    assert _value(got, "tollway_admission_seconds_count") == 2
    assert _value(got, "tollway_limiter_calls_total") == 7
    assert _value(got, "tollway_requests_running") == 0


def test_workers_that_are_no_more_count_but_have_no_level(tmp_path: Path) -> None:
    """F8: started with fewer workers, or with one that hangs, totals stand and no ghost connections are shown."""
    own, beyond, stale = Metrics(0), Metrics(5), Metrics(1)
    own.watch(catalogue.REQUESTS_RUNNING, lambda: 0)
    for metrics in (beyond, stale):
        metrics.observe(OK)
        metrics.watch(catalogue.REQUESTS_RUNNING, lambda: 100)
    beyond.write_snapshot(worker_file(tmp_path, 5))
    old = msgspec.structs.replace(stale.snapshot(), taken_s=time.time() - 60)
    snapshot.write(worker_file(tmp_path, 1), old)
    got = _scrape(tmp_path, own, workers=2)

    assert _value(got, "tollway_requests_total", route="/v1/*", status="200", outcome="ok") == 2
    assert _value(got, "tollway_requests_running") == 0


@pytest.mark.parametrize("damage", [b"", b"\xc1", b"not msgpack", msgspec.msgpack.encode({"counters": 3})])
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: bytes) -> None:
    """F8: a half-written disk or another version's file must fail neither a start nor a scrape."""
    worker_file(tmp_path, 0).write_bytes(damage)
    worker_file(tmp_path, 1).write_bytes(damage)
    metrics = Metrics(0)
    metrics.take_over(worker_file(tmp_path, 0))
    metrics.observe(OK)

    assert _value(_scrape(tmp_path, metrics, 2), "tollway_admission_seconds_count") == 1


def test_counts_of_another_shape_are_left_behind(tmp_path: Path) -> None:
    """F8: after an update with other labels or buckets, old files must not break counting or the scrape."""
    odd = Snapshot(
        worker=1,
        counters={"tollway_requests_total": {("only-route",): 5.0}, "tollway_gone_total": {(): 1.0}},
        histograms={"tollway_admission_seconds": {(): [1.0, 2.0]}},
    )
    snapshot.write(worker_file(tmp_path, 1), odd)
    metrics = Metrics(1)
    metrics.take_over(worker_file(tmp_path, 1))
    metrics.observe(OK)

    for own in (metrics, Metrics(0)):
        assert b"only-route" not in render(tmp_path, own, workers=2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 400), st.text(max_size=6)), max_size=30))
def test_any_requests_over_any_workers_add_up(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[int, float, str]]
) -> None:
    """F8: every request is in exactly one bucket of exactly one series, whatever its route is called."""
    directory = tmp_path_factory.mktemp("metrics")
    workers = [Metrics(number) for number in range(3)]
    for worker, duration_s, route in requests:
        workers[worker].observe(RequestRecord(route=route, status=200, started_s=1.0, ended_s=1.0 + duration_s))
    for metrics in workers:
        metrics.write_snapshot(worker_file(directory, metrics.worker))
    got = _scrape(directory, workers[0], workers=3)

    for name in ("tollway_requests_total", "tollway_request_duration_seconds_count"):
        assert sum(value for key, value in got.items() if key[0] == name) == len(requests)
    total_s = sum(value for key, value in got.items() if key[0] == "tollway_request_duration_seconds_sum")
    assert total_s == pytest.approx(sum(duration_s for _, duration_s, _ in requests), abs=1e-6)


def test_a_snapshot_is_replaced_whole(tmp_path: Path) -> None:
    """F8: a reader never meets half a file, and no stray files gather."""
    path = worker_file(tmp_path / "made", 0)
    metrics = Metrics()
    for _ in range(3):
        metrics.write_snapshot(path)

    assert [file.name for file in path.parent.iterdir()] == ["0.metrics"]
