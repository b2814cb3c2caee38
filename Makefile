# Sampan's commands. On a fresh Debian 12 with root, git, python3 and make, each target first sets up
# what it needs (Debian packages, virtual environment) and says so; the second time that costs nothing.
#
#   make demo      a container from the `host` image: what is isolated, how long the start took
#   make test      formatter, linter, strict types, import contract, all tests
#   make test-vm   the tests marked `vm`, on a stock Debian kernel: cgroup v2, AppArmor
#   make bench     Sampan beside dockerd and Podman: medians and ratios, as a Markdown table
#   make format    let the formatter and the linter mend what they can
#   make venv      the virtual environment with everything for development
#   make wheel     build the wheel into dist/
#   make clean     remove what the targets above made

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# Debian's own interpreter where it is new enough: it is the one that the figures are measured with.
PYTHON ?= $(shell scripts/find-python)
VENV := .venv
BIN := $(VENV)/bin
VM_RUN ?= ../shared/vm/run
# Options for pytest, the VM's run and the benchmark: make test ARGS="tests/runtime -x"
ARGS ?=
# Processes that share the tests, a file each at a time; 0 for one process and its debugger.
WORKERS ?= 2

RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help demo test check test-vm bench format venv wheel clean packages-run packages-test

help:
	@sed -n 's/^#   //p' Makefile

packages-run:
	@scripts/debian-packages run

packages-test:
	@scripts/debian-packages test

# A virtual environment of another interpreter (or a broken one) is made again.
$(RUN_STAMP): pyproject.toml | packages-run
	@scripts/virtual-environment $(VENV) "$(PYTHON)" .
	@touch $@

$(DEV_STAMP): pyproject.toml | packages-test
	@scripts/virtual-environment $(VENV) "$(PYTHON)" ".[dev]"
	@touch $(RUN_STAMP) $@

venv: $(DEV_STAMP)

demo: packages-run $(RUN_STAMP)
	@$(BIN)/python scripts/demo.py

check: packages-test $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=src:tests $(BIN)/mypy --strict --explicit-package-bases benchmarks tests/support scripts/demo.py
	$(BIN)/lint-imports --no-cache

test: check
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

test-vm: packages-test $(DEV_STAMP)
	@test -x $(VM_RUN) || { echo "make test-vm: no $(VM_RUN); name the program that boots the machine: make test-vm VM_RUN=…" >&2; exit 2; }
	$(VM_RUN) --memory 2048 --timeout 3000 -- $(abspath $(BIN))/python -m pytest -m vm --newest-docker -p no:cacheprovider -o timeout=900 $(ARGS)

bench: packages-test $(DEV_STAMP)
	@$(BIN)/python -m benchmarks $(ARGS)

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(DEV_STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
