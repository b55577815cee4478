# Everything here works on a new machine that has only Python 3.11 or newer, with venv.
# Override on the command line: make test PYTHON=python3.12 VENV=/tmp/env WORKERS=8

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
N ?= 10000
SEED ?= 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# worksteal gives each worker a run of tests, so that most fixtures of a module are built once, and balances the end.
PYTEST := $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help test slow fuzz kills lint format options docs wheels demo clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*##/\1\t/p' Makefile | expand -t 10

test: lint  ## lint, then run all tests except the slow ones
	$(PYTEST)

slow: $(VENV)/.installed  ## run the slow tests
	$(PYTEST) -m slow

fuzz: $(VENV)/.installed  ## give every command N broken inputs (SEED=1); findings go to the folder findings
	$(BIN)/python benchmarks/fuzz.py $(N) --seed $(SEED) --findings findings

kills: $(VENV)/.installed  ## end commands N times at random moments (SEED=1), and look at what is left
	$(BIN)/python benchmarks/kills.py $(N) --seed $(SEED)

lint: $(VENV)/.installed  ## ruff and mypy --strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed  ## change files to the form that lint checks
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

options: $(VENV)/.installed  ## write docs/options.md from the options that are declared
	$(BIN)/python -m onnxprune.cli.reference > docs/options.md

docs: $(VENV)/.installed  ## build the pages as a site in build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Each platform has a folder of its own: setuptools packs whatever lies in it.
wheels: $(VENV)/.installed  ## build a wheel for each platform in dist, with its sparse kernels, by cross-compiling
	$(PIP) setuptools ziglang
	for tag in $$($(BIN)/python -c 'from onnxprune.kernels.build import TARGETS; print(*TARGETS)'); do \
		mkdir -p build/$$tag && $(BIN)/python setup.py --quiet egg_info --egg-base build/$$tag build --build-base build/$$tag \
			bdist_wheel --plat-name $$tag --bdist-dir build/$$tag/wheel --dist-dir dist || exit 1; \
	done

demo: $(VENV)/.installed-demo  ## prune a small digit classifier with its samples, and time it; installs no torch
	$(BIN)/python models/demo.py

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "onnxprune needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, so that no other package can choose another version of it.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) --editable ".[test]"
	@touch $(VENV)/.installed-demo $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable ".[demo]"
	@touch $@
