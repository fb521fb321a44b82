# Everything sets itself up: Python and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# More than there are cores: tests of processes and threads mostly wait.
CORES := $(shell $(PYTHON) -c "import os; print(min(os.cpu_count() or 1, 7))")
XDIST := -n $(shell expr $(CORES) + 1)

# Without --no-compile, pip compiles ten thousand files, of which the tests import one in ten.
PIP := --quiet --disable-pip-version-check --no-compile

# Runs pytest, and once more what failed, alone; writes a report under that name.
TRIED = $(BIN)/python tests/support/again.py build/$@.xml

# Hundreds of interpreters are started: where none may keep bytecode, each compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

# Tests that have targets of their own.
ELSEWHERE := scenarios or e2e or reliability or services or companions or browser

.DEFAULT_GOAL := help
.PHONY: help setup test check unit unwatched scenarios e2e reliability services companions known browser pictures field soak latency parts datadog matrix coverage demo bench deskbench dashboards schemas lock fuzz clean pins-0 pins-1 project

help: ## Say what there is
	@grep -E '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /  make \1\t/' | expand -t 16

setup: $(VENV)/.ready ## Make the virtual environment, with pinned versions

$(VENV)/.ready: pyproject.toml tests/requirements.txt
	$(PYTHON) -m venv --clear $(VENV)
	@$(MAKE) --no-print-directory -j3 pins-0 pins-1 project
	@touch $@

# Each pip has one core, and most of its time goes into reading the index. The pins are whole,
# so there is nothing to resolve.
pins-0 pins-1:
	awk 'NR % 2 == $(@:pins-%=%)' tests/requirements.txt > $(VENV)/$@.txt
	$(BIN)/python -m pip install $(PIP) --no-deps -r $(VENV)/$@.txt

project:
	$(BIN)/python -m pip install $(PIP) --no-deps -e .

# Two at a time: mypy has one core, and many tests wait.
test: $(VENV)/.ready ## Lint, types and the tests that need nothing but Python
	@$(MAKE) --no-print-directory -j2 check unit unwatched

check: $(VENV)/.ready ## Lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(VENV)/.ready ## The tests that need nothing but Python
	$(TRIED) -n $$(($(CORES) + 2)) --leaks -m "not ($(ELSEWHERE) or unwatched)"

unwatched: $(VENV)/.ready ## Of these, the tests of what --leaks works with
	$(TRIED) -m unwatched

scenarios: $(VENV)/.ready ## Small programs that leak or are clean, of each kind, and simulated days of load
	$(TRIED) $(XDIST) --leaks -m scenarios

# One at a time: two of them take three minutes each, and would be given to one process.
e2e: $(VENV)/.ready ## The tests with a real OpenTelemetry Collector (built with Go, once) and Prometheus
	$(TRIED) $(XDIST) --maxschedchunk 1 -m e2e -o faulthandler_timeout=600

reliability: $(VENV)/.ready ## Real servers, forks and outages, with otel-leaks and without (SHORT=1: what CI runs)
	PYTHONPATH=tests $(BIN)/python -m reliability.environment
	$(TRIED) $(XDIST) tests/reliability -m "reliability$(if $(SHORT), and short)"
	PYTHONPATH=tests $(BIN)/python -m reliability.results

# Each service runs beside its users and keeps a core busy in parts: two at once.
services: $(VENV)/.ready ## Healthy and leaking services of many stacks, for minutes (SHORT=1: what CI runs)
	PYTHONPATH=tests $(BIN)/python -m reliability.environment services
	$(if $(SHORT),SERVICES_SECONDS=30) $(TRIED) -n 2 -o faulthandler_timeout=300 tests/services -m "services$(if $(SHORT), and short)"
	PYTHONPATH=tests $(BIN)/python -m services.results

fuzz: $(VENV)/.ready ## Try options, ignores, baselines, reports and bodies that nobody would write, for long
	$(BIN)/python -m pytest $(XDIST) tests/fuzz --hypothesis-profile=long

companions: $(VENV)/.ready ## The pytest plugin beside old and new pytest, pytest-asyncio, anyio and other plugins
	PYTHONPATH=tests $(BIN)/python -m companions.environments
	$(TRIED) $(XDIST) tests/companions -m companions -o faulthandler_timeout=600

known: $(VENV)/.ready ## Run the known leaks of libraries in the versions that leak, and in those that do not (LEAKS="mcp": some)
	$(BIN)/python tests/known/verify.py --index $(LEAKS)
	nice $(BIN)/python tests/known/verify.py $(LEAKS)

browser: $(VENV)/.ready ## The live page in a real browser (Chromium), and programs under otel-leaks run
	$(BIN)/python -m pip install $(PIP) -r tests/browser/requirements.txt
	$(TRIED) $(XDIST) -m browser -o faulthandler_timeout=300

pictures: $(VENV)/.ready ## Take the pictures of the live page in docs/images anew; look at them
	$(BIN)/python -m pip install $(PIP) -r tests/browser/requirements.txt
	PYTHONPATH=tests $(BIN)/python -m browser.pictures

field: $(VENV)/.ready ## Run the suites of others with --leaks and without (SUITES="httpx asgiref": some; hours)
	PYTHONPATH=tests nice $(BIN)/python -m field $(SUITES)

soak: $(VENV)/.ready ## Run a service for MINUTES=15 with leaks, outages and forks; draw up a balance
	PYTHONPATH=tests $(BIN)/python -m reliability.soak --minutes $(or $(MINUTES),15) $(if $(SEED),--seed $(SEED))

deskbench: $(VENV)/.ready ## Measure the live page: memory under load, and how soon it answers
	$(BIN)/python benchmarks/desk.py

latency: $(VENV)/.ready ## Measure what the users of a service notice of otel-leaks (15 minutes)
	PYTHONPATH=tests $(BIN)/python benchmarks/latency.py

parts: ## Get what make e2e needs beside Python: a collector and a Prometheus, built with Go once
	PYTHONPATH=tests $(PYTHON) -m support.collector
	PYTHONPATH=tests $(PYTHON) -m support.prometheus promtool
	PYTHONPATH=tests $(PYTHON) -m support.prometheus otlp

datadog: ## Check the example of Datadog's exporter by the exporter's own settings (Go; some minutes)
	cd tests/support/datadog && go run . ../../../examples/collector-datadog-exporter.yaml

matrix: $(VENV)/.ready ## The tests on every other Python that can be had
	$(BIN)/python tests/support/matrix.py

coverage: $(VENV)/.ready ## The branch coverage of src, measured by the tests on Python 3.14
	$(BIN)/python tests/support/matrix.py 3.14

demo: $(VENV)/.ready ## Watch a small leaking service being caught
	$(BIN)/otel-leaks demo

bench: $(VENV)/.ready ## Measure what it costs
	$(BIN)/python benchmarks/census.py
	$(BIN)/python benchmarks/loop_lag.py
	$(BIN)/python benchmarks/creations.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/holders.py
	$(BIN)/python benchmarks/refusals.py

dashboards: $(VENV)/.ready ## Write the dashboards and alerts of examples/ anew
	PYTHONPATH=tests $(BIN)/python -m support.dashboards

schemas: $(VENV)/.ready ## Write the JSON Schemas of docs/schemas anew
	PYTHONPATH=tests $(BIN)/python -m support.schemas

lock: $(VENV)/.ready ## Pin the development versions anew
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
		pyproject.toml --extra view tests/requirements.in --output-file tests/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
		--constraint tests/requirements.txt tests/reliability/requirements.in \
		--output-file tests/reliability/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
		--constraint tests/requirements.txt --constraint tests/reliability/requirements.txt \
		tests/reliability/neighbors.in --output-file tests/reliability/neighbors.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
		--constraint tests/requirements.txt --constraint tests/reliability/requirements.txt \
		tests/services/requirements.in --output-file tests/services/requirements.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
		--constraint tests/requirements.txt tests/browser/requirements.in \
		--output-file tests/browser/requirements.txt
	for list in tests/companions/*.in; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-annotate --no-header \
			$$list --output-file $${list%.in}.txt || exit 1; done
	for list in tests/field/lists/*.in; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
			$$list --output-file $${list%.in}.txt || exit 1; done

clean: ## Remove what setup made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist
