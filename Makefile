# Two commands do all the set-up: `make demo` and `make test`. Everything lands in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types format speed clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pdesurrogate needs Python 3.11 or newer; choose one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)  ## simulate, train, roll out, measure and draw in runs/demo (about 5 minutes on two cores)
	$(BIN)/pdesurrogate demo

test: $(READY)  ## the fast tests, one process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: $(READY)  ## all tests
	$(BIN)/python -m pytest

lint: $(READY)  ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)  ## strict types of the package
	$(BIN)/mypy

format: $(READY)  ## put code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

speed: $(READY)  ## ratios against peers, side by side
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[speed]'
	$(BIN)/python benchmarks/speed/run.py

clean:  ## remove .venv and caches, keep runs/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
