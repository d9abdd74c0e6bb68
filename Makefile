# Every command sets up what it needs in .venv, from a bare checkout with Python 3.11, pip and make.
#
# PYTHON     interpreter that makes the environment                    (python3.11)
# VENV       where the environment stands                              (.venv)
# PIP_FLAGS  more options for pip, for example on a machine without a graphics card:
#            make test PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV ?= .venv
PIP_FLAGS ?=
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)

# Two test processes with many threads each would compete for the cores. Benchmarks set their own.
test test-all doctest notebooks: export OMP_NUM_THREADS := 1
test test-all doctest notebooks: export OPENBLAS_NUM_THREADS := 1

DEV := $(VENV)/.ready-dev
# An environment for development can also run the demo.
DEMO := $(if $(wildcard $(DEV)),$(DEV),$(VENV)/.ready-demo)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format doctest notebooks bench bench-peers bench-updates bench-devices bench-privacy bench-network bench-client test-flower docs wheel constraints clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Anabranch needs Python 3.11 or newer; found: $$($(PYTHON) --version). Try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) for the demo ..."
	$(INSTALL) -e ".[cli,coordinator,report]"
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up $(VENV) with everything (a few minutes the first time) ..."
	$(INSTALL) -e ".[all,dev]"
	@touch $@

demo: $(DEMO) ## Four hospitals train a model together: table, intervals, HTML report
	$(BIN)/anabranch demo

test: $(DEV) ## The fast tests, on two processes
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: $(DEV) ## Every test, also the slow ones, and the doctests
	ANABRANCH_EXPLORE=1 $(BIN)/python -m pytest -n 2
	$(BIN)/python -m pytest --doctest-modules src/anabranch $(WITHOUT_FLOWER)

FLOWER := .venvs/flower-test
WITHOUT_FLOWER := --ignore=src/anabranch/runtimes/flower --ignore=src/anabranch/api/flower_app.py
$(FLOWER)/.ready: pyproject.toml tests/flower/constraints.txt | $(BIN)/python
	@echo "Setting up $(FLOWER) (Flower has upper bounds of its own) ..."
	$(PYTHON) -m venv $(FLOWER)
	$(FLOWER)/bin/python -m pip install --quiet --disable-pip-version-check -c tests/flower/constraints.txt $(PIP_FLAGS) -e ".[flower-simulation]" pytest hypothesis psutil
	@touch $@

test-flower: $(FLOWER)/.ready ## Our coordinator and clients on a real Flower fleet and in its simulation (15 to 30 minutes)
	cd tests/flower && ../../$(FLOWER)/bin/python -m pytest -p no:cacheprovider -rs

doctest: $(DEV) ## The examples in the docstrings
	$(BIN)/python -m pytest --doctest-modules src/anabranch $(WITHOUT_FLOWER)

notebooks: $(DEV) ## Execute the notebooks
	$(BIN)/python notebooks/execute.py

lint: $(DEV) ## ruff, mypy strict, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## Let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV) ## The simulator beside plain PyTorch: ratios per machine and per core
	$(BIN)/python -m benchmarks.simulation

bench-peers: $(DEV) ## The same work in other simulators, each in an environment of its own
	$(BIN)/python -m benchmarks.peers

bench-updates: $(DEV) ## Codecs for updates: ratio, error and speed on one core
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.updates

bench-privacy: $(DEV) ## Masks and sums of secure aggregation, beside Flower's functions
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.secure_aggregation
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.privacy

bench-devices: $(DEV) ## 100,000 simulated devices over 100 rounds, without training
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.devices

bench-network: $(DEV) ## Rounds, transfers and memory over HTTP and HTTPS
	ulimit -n 8192 && OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.network

bench-client: $(DEV) ## What a site installs, by package (a minute)
	$(BIN)/python -m benchmarks.client_size

docs: $(DEV) ## Build the documentation into site/ (strict)
	@# Not --quiet: it would also silence the count of warnings that strict mode looks at.
	$(BIN)/mkdocs build --strict
	@echo "site/index.html"

wheel: $(DEV) ## Build the wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build --wheel
	@ls dist

constraints: $(DEV) ## Write constraints.txt from what is installed in .venv
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' > constraints.new
	sed -n '/^#/p' constraints.txt | cat - constraints.new > constraints.all
	mv constraints.all constraints.txt
	rm constraints.new

clean: ## Remove what was built; .venv and runs stay
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
