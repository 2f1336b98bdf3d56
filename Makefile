# Each target sets up what it needs in .venv, from Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
PRESET ?= digits
STORE ?= runs
STUDIES ?= likeness parametrisation streams origins sizes emergence why
# For example RESULTS_OPTIONS="--workers 2 --data-dir DIR", FIGURES_OPTIONS="--store runs" (adds the grid of images).
RESULTS_OPTIONS ?=
FIGURES_OPTIONS ?=

.PHONY: demo figures results test test-slow lint format clean

demo: $(VENV)/.installed
	$(BIN)/consistency-lab demo --out $(OUT)

# Every figure of a preset from the rows in figures/PRESET; those whose rows are missing are skipped with a line.
figures: $(VENV)/.installed
	$(BIN)/python analyses/make_all.py --preset $(PRESET) $(FIGURES_OPTIONS)

# The rows themselves; finished ones are kept. `consistency-lab study WHAT --preset PRESET --dry-run` says what each would take.
results: $(VENV)/.installed
	@for study in $(STUDIES); do \
		$(BIN)/consistency-lab study $$study --preset $(PRESET) --store $(STORE) $(RESULTS_OPTIONS) || exit 1; \
	done

test: $(VENV)/.installed-dev
	$(BIN)/pytest

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "consistency_lab needs Python 3.11 or newer; set PYTHON=..." && exit 1)
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
