"""Fixtures that every test may ask for by name, and the event loop that production runs on."""

import asyncio
import time
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import settings

pytest_plugins = [
    "tests.support.valkey",
    "tests.support.clusters",
    "tests.support.limiters",
    "tests.support.postgres",
    "tests.support.ledgers",
    "tests.support.command_line",
    "tests.support.examples",
]

# No test asserts on time: what takes long on a busy machine is not wrong.
settings.register_profile("tollway", deadline=None)
settings.load_profile("tollway")

HOUR_S, MOST_TESTS_S = 3600, 20


@pytest.fixture(autouse=True)
def inside_one_hour() -> None:
    """Begin no test seconds before an hour ends, with it perhaps a day, a month or a year: what is counted by the clock
    would begin anew under it. Then this waits for the next hour; a test of minutes sets its own clock.
    """  # noqa: D205
    left_s = HOUR_S - time.time() % HOUR_S
    if left_s < MOST_TESTS_S:
        time.sleep(left_s)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
