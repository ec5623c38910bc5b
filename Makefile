# make demo    set everything up and run the main job: a sentence about a photograph
# make test    everything that CI runs
# make quick   the tests without those that export, run real models or make environments
# make format  format the code, and mend what the linter can mend
# make bench   the project's own tables, in under 25 minutes on 2 quiet cores, into benchmarks/results/
# make wheel   build the wheel into dist/
# They need Python 3.11 or newer with venv and pip, and nothing else.

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# A cat, photographed by S. van der Walt (public domain): it ships with scikit-image.
HASH := \#
PHOTO ?= pypi:scikit-image==0.26.0/skimage/data/chelsea.png$(HASH)sha256=596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb

# Threads that wait without spinning: several processes share few cores in tests and on CI.
export OMP_WAIT_POLICY ?= PASSIVE

# Tests run in as many processes as there are cores, a file in one of them, each with one thread to compute with.
WORKERS ?= -n auto --dist loadfile
export OMP_NUM_THREADS ?= 1

.PHONY: demo test quick format bench wheel lint types layers tests clean

demo: $(VENV)/.demo
	$(BIN)/modelgraft run describe --input "image=$(PHOTO)"
	$(BIN)/modelgraft show describe --format svg --out describe.svg
	$(BIN)/modelgraft show describe --format html --out describe.html

test: lint types layers tests

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	$(BIN)/pytest $(WORKERS)

quick: $(VENV)/.dev
	$(BIN)/pytest $(WORKERS) -m "not slow"

format: $(VENV)/.dev
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# The first time it makes the environments of the engines that are measured beside ours; a run that was stopped goes on.
bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.bench

wheel: $(VENV)/.dev
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

# The stamps hold what was installed: a change of the packaging installs again.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modelgraft needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) dist build describe.svg describe.html
