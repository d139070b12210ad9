# Every target does all the set-up it needs; what is done already is not done again.
.DEFAULT_GOAL := help
.PHONY: help setup servers demo check test bench faults chaos outage seeded requirements format layers lint types fast-tests broker
.SHELLFLAGS := -euo pipefail -c
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
# A file's tests stay together because they share costly servers. Two workers, for two cores, or one more where much is waited for.
PYTEST := $(BIN)/pytest -q --dist loadfile

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed  ## make .venv from the pinned, hashed requirements

.venv/requirements: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

.venv/installed: .venv/requirements pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q edge_agent gateway simulators  # a killed agent is back in half the time
	@touch $@

servers:  ## get mosquitto, InfluxDB, PostgreSQL, Chromium (once per machine, some minutes)
	$(PYTHON) -m deploy.servers

broker:
	$(PYTHON) -m deploy.servers mosquitto

demo: setup broker  ## a stand-in plant, broker, agent, gateway and board on this machine
	$(BIN)/guardwatch-demo

check: setup  ## format, lint, types, layers and the fast tests (90 s at most)
	@$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target fast-tests types layers lint format

format:
	$(BIN)/ruff format --check

lint:
	$(BIN)/ruff check

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports

fast-tests:
	$(PYTEST) -n 2 --hypothesis-profile=fast -m "not integration and not browser and not thorough"

test: setup servers  ## all checks and all tests, real servers and browser included; a skipped test fails it
	@$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target types layers lint format
	GUARDWATCH_NO_SKIPS=1 GUARDWATCH_SEEDS=20 $(PYTEST) -n 3

bench: setup servers  ## the benchmarks
	$(BIN)/python -m tests.bench

faults: setup  ## count wrong values in a million Modbus replies under every fault (some minutes)
	$(BIN)/python -m tests.faults --replies 1000000 --seed 1

chaos: setup servers  ## a thousand kills and every fault that this machine can have, on whole plants (20 min at most; as root all of it)
	$(BIN)/python -m tests.chaos

outage: setup broker  ## a day without a network at ten times the design rate: in virtual time (5 min), then really at 100 times the speed (17 min)
	$(BIN)/python -m tests.outage virtual
	$(BIN)/python -m tests.outage real

seeded: setup  ## plant ten known bugs, one after the other, and see the suite turn red (a minute)
	$(BIN)/python -m tests.seeded

requirements: setup  ## pin the requirements anew from pyproject.toml
	UV_CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/uv pip compile $(COMPILE) --extra all -o requirements.txt
	UV_CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/uv pip compile $(COMPILE) --extra all --extra dev \
	  -c requirements.txt -o requirements-dev.txt
# Hashes, but no addresses: each site's own index or mirror serves the same bytes.
COMPILE := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade pyproject.toml
