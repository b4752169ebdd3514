# Each verb sets up what it needs: only python3 (3.11+) and make are taken for granted.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help run test check format bench flush scale chaos sdks alerts lock
help:  ## list the verbs
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(BIN)/tollway: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tollway needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(BIN)/pytest: $(BIN)/tollway requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: $(BIN)/tollway  ## install and start a gateway with everything embedded; prints a key and a curl line
	$(BIN)/tollway serve

test: $(BIN)/pytest  ## every test, on real servers
	$(BIN)/pytest -n 2 $(ARGS)

check: $(BIN)/pytest  ## lint, types, contracts, sizes, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/hadolint Dockerfile
	$(BIN)/pytest -q tests/house

format: $(BIN)/pytest  ## rewrite to the house style
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(BIN)/pytest  ## CPU per request and per chunk: direct, bare proxy, full duty
	$(BIN)/python tests/bench/run.py $(ARGS)

flush: $(BIN)/pytest  ## how long usage takes to the ledger, and how much a flusher carries
	$(BIN)/python -m tests.bench.flush $(ARGS)

scale: $(BIN)/pytest  ## import, sync with Stripe and explain at 100,000 accounts: time and memory
	$(BIN)/python -m tests.bench.scale $(ARGS)

chaos: $(BIN)/pytest  ## random faults from printed seeds: what is over, lost or doubled?
	$(BIN)/python -m tests.chaos.run $(ARGS)

sdks: $(BIN)/pytest  ## the SDKs for Node against a real gateway (needs node and npm)
	$(BIN)/python -m tests.sdks.run

alerts:  ## what the alert rules make of bad days and of good ones (needs promtool, of Prometheus)
	promtool test rules tests/data/alerts/minutes.yaml tests/data/alerts/week.yaml

LOCK := uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --universal --python-version 3.11

lock:  ## compile the hashed lock files anew (needs uv)
	$(LOCK) pyproject.toml --group build -o requirements.lock
	$(LOCK) -c requirements.lock pyproject.toml --group dev -o requirements-dev.lock
