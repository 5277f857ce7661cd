# Everything is set up by uv from uv.lock; uv itself comes from PATH or goes into .tools/.
SHELL := /bin/bash
PYTHON ?= python3
UV := $(or $(shell command -v uv),.tools/uv/bin/uv)
RUN := $(UV) run --no-sync
CITY ?= demo

export DAGSTER_HOME := $(CURDIR)
# As pipelines/__init__.py has it for runs, for tests and benchmarks too. One thread a process: small
# networks gain nothing from a second one, and long stages share their fits among processes instead
# (CITYLOOM_WORKERS, by default one a core).
export OMP_NUM_THREADS ?= 1
# and on a busy machine they would wait for each other by spinning, several times slower
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-fast run test lint format ui explain sizes clean experiments results tables lock

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.tools/uv/bin/uv: # in a local folder, never in the system's Python
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet 'uv>=0.9'

.venv/.synced: pyproject.toml uv.lock | $(filter .tools/%,$(UV))
	$(UV) sync --locked --inexact --extra dev
	@touch $@

# The tests run real models of every backend, on small random weights.
.venv/.synced-for-tests: .venv/.synced
	$(UV) sync --locked --inexact --extra dev --extra sdxl --extra mmseg --extra text
	@touch $@

setup: .venv/.synced ## install everything that is needed into .venv

demo: setup ## build the embedded city, and say where its report is
	@$(MAKE) --no-print-directory run CITY=demo

demo-fast: setup ## a small city and one small method, in about a minute
	@$(MAKE) --no-print-directory run CITY=demo_fast

run: setup ## build one city: make run CITY=manhattan
	@$(RUN) cityloom run $(CITY)

# In their own order: the files that build cities come first, so that no core waits for a long one.
test: .venv/.synced-for-tests ## all tests with branch coverage, one process a core
	$(RUN) pytest -n auto --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered \
	  $(PYTEST_ARGS)

lint: setup ## ruff (check and format) and mypy
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: setup ## let ruff put the code in order
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

ui: setup ## the Dagster UI on http://127.0.0.1:3000
	$(RUN) python -W ignore -m dagster dev -w workspace.yaml -h 127.0.0.1 -p $(or $(PORT),3000)

explain: setup ## what a run would compute, and why: make explain CITY=demo
	@$(RUN) cityloom explain $(CITY)

sizes: setup ## what the lake holds, by city
	@$(RUN) cityloom sizes

clean: setup ## delete a city from the lake: make clean CITY=demo
	@$(RUN) cityloom clean $(CITY)

experiments: setup ## build the cities of docs/results and write it (hours; SYSTEM=urbanvlp: what concerns one system)
ifdef SYSTEM
	$(RUN) python -m benchmarks.system $(SYSTEM)
else
	@$(MAKE) --no-print-directory results CITY=demo_large
	$(RUN) python benchmarks/calibration.py
	$(RUN) python benchmarks/towers.py demo_large
	$(RUN) python benchmarks/captions.py
	$(RUN) python benchmarks/transfer.py
	@$(MAKE) --no-print-directory results CITY=demo_500m
	@if [ -d "$${CITYLOOM_DATA:-data}/nyc" ]; then \
	  $(MAKE) --no-print-directory results CITY=manhattan && \
	  $(MAKE) --no-print-directory results CITY=manhattan_zones; \
	else echo "Manhattan is left out: its files are not in $${CITYLOOM_DATA:-data}/nyc"; fi
endif

results: setup ## build one city and write its page of docs/results: make results CITY=manhattan
	@$(MAKE) --no-print-directory run CITY=$(CITY)
	$(RUN) python benchmarks/experiments.py $(CITY)

tables: setup ## docs/tables.md from the contracts, docs/methods/settings.md from the methods' configs
	$(RUN) cityloom tables > docs/tables.md
	$(RUN) cityloom settings > docs/methods/settings.md

lock: ## resolve the dependencies anew
	$(UV) lock
