# make setup   a virtual environment in .venv with everything pinned and hashed
# make demo    the whole flywheel on this machine
# make test    lint, types, import contracts, tests

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint format lock lock-legacy clean

find_python = for name in python3.11 python3 python; do \
	if $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then echo $$name; break; fi; done
PYTHON ?= $(shell $(find_python))
BIN := .venv/bin
READY := .venv/.ready
# More than two cores: many tests wait for a process they started.
WORKERS ?= 4
ARGS ?=

# uv does not read pip's configuration; a mirror configured there is used all the same.
UV := UV_DEFAULT_INDEX=$${UV_DEFAULT_INDEX:-$$($(BIN)/pip config get global.index-url 2>/dev/null || true)} $(BIN)/uv
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
	--python-version 3.11 --custom-compile-command "make lock"

help:
	@sed -n 's/^# make /  make /p' Makefile

setup: $(READY)

.venv/bin/uv: requirements/bootstrap.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "share4video needs Python 3.11 and found none: install it, or name it with make PYTHON=/path/to/python3.11." >&2; \
		exit 2; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make virtual environments: install its venv package (on Debian and Ubuntu, apt install python3.11-venv)." >&2; \
		exit 2; fi
	@echo "Making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(READY): $(BIN)/uv requirements/dev.txt requirements/build.txt pyproject.toml
	@echo "Installing the pinned requirements (about 7 GB with PyTorch)"
	@$(UV) pip sync --python $(BIN)/python --quiet --compile-bytecode --require-hashes --build-constraints requirements/build.txt requirements/dev.txt
	@$(UV) pip install --python $(BIN)/python --quiet --no-deps --build-constraints requirements/build.txt -e .
	@touch $@

demo: setup
	@$(BIN)/share4video demo $(ARGS)

# Files in the order tests/conftest.py gives them: by default those of one long test each come last, on one core.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Adds what pyproject.toml asks for and keeps the other pins; make lock ARGS=--upgrade moves them.
lock: $(BIN)/uv
	$(COMPILE) $(ARGS) --all-extras pyproject.toml -o requirements/dev.txt
	$(COMPILE) $(ARGS) requirements/build.in -o requirements/build.txt
	$(COMPILE) $(ARGS) requirements/bootstrap.in -o requirements/bootstrap.txt

# The released captioner's own libraries, as they were then; nothing else is ever installed beside them.
LEGACY := serving/legacy_captioner/requirements
lock-legacy: $(BIN)/uv
	$(UV) pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --python-version 3.10 \
		--python-platform x86_64-manylinux_2_28 --exclude-newer 2024-07-01 \
		--custom-compile-command "make lock-legacy" $(ARGS) $(LEGACY).in -o $(LEGACY).txt

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
