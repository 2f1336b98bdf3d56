# Each target sets up what it needs in .venv, from Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
PRESET ?= digits
JOBS ?= 2
STORE ?= runs
# Of `make faults`: how many. Of `make fuzz`: for how long, or how many ROUNDS, from which seed, and examples of each property.
COUNT ?= 3000
SECONDS ?= 600
ROUNDS ?=
SEED ?= 0
EXAMPLES ?= 1000
# For example RESULTS_OPTIONS="--workers 2 --data-dir DIR --lpips-weights FILE".
RESULTS_OPTIONS ?=
# FIGURES_OPTIONS="--store runs" makes images and curves anew, which are otherwise read from the committed data of their figures.
FIGURES_OPTIONS ?=
COMPAT_OPTIONS ?=

.PHONY: demo quick notebooks figures results test test-slow faults fuzz bench compat audit lint format clean

demo: $(VENV)/.installed
	$(BIN)/consistency-lab demo --out $(OUT)

# Models that ship with the package, compared: no training.
quick: $(VENV)/.installed
	$(BIN)/consistency-lab demo --quick --out $(OUT)-quick

# The notebooks from their sources, run, with the outputs that readers online see.
notebooks: $(VENV)/.installed-dev
	$(BIN)/python docs/make_notebooks.py

# Every figure of a preset from what is committed in figures/PRESET; those whose rows are missing are skipped with a line.
figures: $(VENV)/.installed
	$(BIN)/python analyses/make_all.py --preset $(PRESET) $(FIGURES_OPTIONS)

# The rows themselves, races included. Says beforehand what it would take; finished
# rows are kept. RESULTS_OPTIONS=--dry-run stops after that.
results: $(VENV)/.installed
	$(BIN)/python analyses/make_results.py --preset $(PRESET) --store $(STORE) $(RESULTS_OPTIONS)

test: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile

test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

# Faults put into files of a store, and the table of docs/reliability.md.
faults: $(VENV)/.installed-dev
	$(BIN)/python tests/helpers/faults.py --count $(COUNT) --train 60

# Every reader with damaged and arbitrary bytes, and every property with random examples.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/helpers/fuzz.py --seed $(SEED) $(if $(ROUNDS),--count $(ROUNDS),--seconds $(SECONDS))
	CONSISTENCY_LAB_EXAMPLES=$(EXAMPLES) $(BIN)/pytest -n $(JOBS) --dist loadfile tests/*/test_properties.py

# Both sides of every row in turn, on this machine: benchmarks/RESULTS.md. ROW="lpips_pairs path_noise" measures some alone.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/run.py $(ROW)

# The lowest and the newest supported version of every dependency, each in an environment of its own; downloads several GB. Say by
# COMPAT_OPTIONS="--of lowest" which.
compat: $(VENV)/.installed
	$(BIN)/python tests/compat.py $(COMPAT_OPTIONS)

# Known security holes of what is installed; asks the network for them.
audit: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --skip-editable

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

# A checkout that is called as the package must not hide it from a script beside it, as it does where a finder of modules comes after the path.
EDITABLE := --config-settings editable_mode=compat --editable

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	@echo "installing consistency_lab and torch into $(VENV): minutes, 6 GB"
	$(BIN)/python -m pip install --quiet $(EDITABLE) .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml
	@echo "installing consistency_lab, torch and what its tests need into $(VENV): minutes"
	$(BIN)/python -m pip install --quiet $(EDITABLE) '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
