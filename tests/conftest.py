"""Fixtures that every test may ask for by name."""

pytest_plugins = ["tests.support.valkey", "tests.support.limiters", "tests.support.ledgers"]
