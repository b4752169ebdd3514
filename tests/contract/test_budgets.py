"""What a whole answer may cost, counted: no clock, so that it holds on any machine.

Speed is kept by these counts between two runs of the bench. Who adds a round trip, a task, a future or a write to the
path of a request learns it here. The numbers may fall; one that must rise needs its reason beside it.
"""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from gateway.quota.redis_survey import RedisSurvey
from tests.support.budgets import CountingLoop, Meter
from tests.support.budgets_course import WIDE, Course, Run, run_course
from tests.support.budgets_drive import is_whole
from tests.support.valkey import ValkeyServer

LONE = 20
ROUNDS = 5

SCRIPT_RUNS = 2
"""Reserve before the upstream is asked, settle once it has answered."""

FUTURES_A_REQUEST = 3
"""The wait for the limiter's decision, the wait for the upstream's answer, and the settlement's confirmation."""

FUTURES_A_SCRIPT_RUN = 1

SWEEPS = {
    "gateway.edge.departure.Departures._sweep",
    "gateway.edge.http_service.HttpService._sweep",
    "gateway.quota.resp._Wire._enqueue",
    "gateway.quota.resp._Wire._sweep",
    "gateway.telemetry.line_writer.LineWriter._arm",
    "gateway.upstream.pool.Pool._sweep",
    "gateway.upstream.pool.Pool._sweep_from_now_on",
}
"""Who may make a timer: what looks after all requests at once."""

SHORTEST_SWEEP_S = 0.1


@pytest.fixture
def run(tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a scenario against a warm gateway."""
    return partial(run_course, tmp_path, valkey, monkeypatch)


def assert_no_timer_of_its_own(meter: Meter) -> None:
    """The number of timers goes by time, whatever the load."""
    timers = meter.of("timer")
    assert timers.keys() <= SWEEPS
    assert max(timers.values(), default=0) <= meter.elapsed_s / SHORTEST_SWEEP_S + 1, timers


def test_a_lone_request_costs_one_task_and_two_round_trips(run: Run) -> None:
    """A request alone: the server's own task, one script run before the upstream and one after, one write to each.

    Every caller pays for what is added here, at the gateway's slowest: when nothing can be shared with others.
    """

    async def scenario(course: Course) -> None:
        course.meter.start()
        for _ in range(LONE):
            await course.serve(course.request())
        meter = course.meter
        assert meter.of("command") == {"EVALSHA": SCRIPT_RUNS * LONE}
        assert meter.of("write") == {"client": LONE, "upstream": LONE, "redis": SCRIPT_RUNS * LONE}
        assert meter.total("task") == LONE, meter.of("task")
        assert meter.total("future") <= (FUTURES_A_REQUEST + SCRIPT_RUNS * FUTURES_A_SCRIPT_RUN) * LONE, meter.of(
            "future"
        )
        assert_no_timer_of_its_own(meter)
        assert meter.total("decode") == 2 * LONE, "the request's fields, and the usage"

    run(scenario)


def test_one_script_run_stands_before_the_first_upstream_byte(run: Run) -> None:
    """A1: admission is one atomic step, so it is one round trip; a second one would be felt in every first byte."""

    async def scenario(course: Course) -> None:
        course.meter.start()
        course.drive.ask(course.request())
        await course.drive.asked()
        assert course.meter.of("command") == {"EVALSHA": 1}
        assert course.meter.of("write") == {"redis": 1, "upstream": 1}
        await course.finish()

    run(scenario)


def test_the_last_bytes_follow_the_settlement(run: Run) -> None:
    """A8: a worker that is killed just then has charged whatever its caller has whole; and nobody waits for Redis."""

    async def scenario(course: Course) -> None:
        course.meter.start()
        await course.serve(course.request())
        assert course.meter.writes == ["redis", "upstream", "redis", "client"]

    run(scenario)


def test_requests_of_one_turn_share_their_round_trips(run: Run) -> None:
    """Requests that arrive together are reserved by one script run and settled by one: under load the limiter costs
    little more than a lone request's share. Without it, Valkey's core is full long before the gateway's.
    """  # noqa: D205

    async def scenario(course: Course) -> None:
        course.meter.start()
        for _ in range(ROUNDS):
            await course.serve(course.request(), WIDE)
        meter, requests = course.meter, ROUNDS * WIDE
        assert meter.of("command") == {"EVALSHA": SCRIPT_RUNS * ROUNDS}
        assert meter.of("write") == {"client": requests, "upstream": requests, "redis": SCRIPT_RUNS * ROUNDS}
        assert meter.total("task") == requests, meter.of("task")
        futures = FUTURES_A_REQUEST * requests + FUTURES_A_SCRIPT_RUN * SCRIPT_RUNS * ROUNDS
        assert meter.total("future") <= futures, meter.of("future")
        assert_no_timer_of_its_own(meter)

    run(scenario)


def test_a_refusal_costs_half_a_request(run: Run) -> None:
    """A7: a refused request is one script run, one write and nothing upstream: a storm of them must stay cheap."""

    async def scenario(course: Course) -> None:
        request = course.request(key=await course.here.account("spent", tier="spent"))
        await course.serve(request)
        course.meter.start()
        for _ in range(LONE):
            course.drive.ask(request)
            (answer,) = await course.drive.answers(is_whole)
            assert answer.startswith(b"HTTP/1.1 429 ")
        meter = course.meter
        assert meter.of("command") == {"EVALSHA": LONE}
        assert meter.of("write") == {"client": LONE, "redis": LONE}
        assert meter.total("task") == LONE, meter.of("task")
        assert meter.total("future") <= (1 + FUTURES_A_SCRIPT_RUN) * LONE, meter.of("future")
        assert meter.total("decode") == LONE, "the request's fields"
        assert_no_timer_of_its_own(meter)

    run(scenario)


def test_a_long_prompt_is_written_as_two_pieces(run: Run) -> None:
    """A prompt of 100 KB goes upstream as head and body: joined, every long prompt would be copied once more."""

    async def scenario(course: Course) -> None:
        request = course.request(messages=[{"role": "user", "content": "word " * 20_000}])
        course.meter.start()
        await course.serve(request)
        assert course.meter.of("write") == {"client": 1, "upstream": 2, "redis": SCRIPT_RUNS}
        assert course.meter.total("task") == 1, course.meter.of("task")
        assert course.meter.total("decode") == 2, course.meter.of("decode")

    run(scenario)


def test_a_script_that_runs_in_the_background_is_nobodys(run: Run) -> None:
    """The look for drift runs a script now and then, at any time: a budget that counted it would fail by chance."""

    async def scenario(course: Course) -> None:
        gateway = course.here.gateway
        course.meter.start()
        await RedisSurvey(gateway._link, gateway._keyspace).of("acme")
        await course.serve(course.request())
        assert course.meter.of("command") == {"EVALSHA": SCRIPT_RUNS}
        assert course.meter.of("write")["redis"] == SCRIPT_RUNS

    run(scenario)


def test_the_meter_sees_what_is_made() -> None:
    """Budgets that count nothing pass for ever: each kind is seen, and what descends from the first task is not."""

    async def make() -> None:
        loop.create_future()
        loop.call_at(loop.time(), lambda: None)
        await loop.create_task(asyncio.sleep(0))

    async def scenario() -> None:
        await make()
        assert [loop.meter.total(kind) for kind in ("future", "timer", "task")] == [0, 0, 0]
        made: asyncio.Future[None] = loop.create_future()
        loop.call_soon(lambda: loop.create_task(make()).add_done_callback(lambda _: made.set_result(None)))
        await made
        assert [loop.meter.total(kind) for kind in ("future", "timer", "task")] == [1, 1, 2]
        assert loop.meter.of("future") == {f"{make.__module__}.{make.__qualname__}": 1}

    loop = CountingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario())
