"""Fixtures that every test may ask for by name, and the event loop that production runs on."""

import asyncio
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
]

# No test asserts on time: what takes long on a busy machine is not wrong.
settings.register_profile("tollway", deadline=None)
settings.load_profile("tollway")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test runs on uvloop."""
    return {"uvloop": uvloop.new_event_loop}
