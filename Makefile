# Everything a contributor or a newcomer runs. Bare `make` lists the targets.

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage lint docs clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
TESTS ?=
PYTEST_ARGS ?=
# Unit tests compute: one per core. Tests that start fleets of processes mostly wait for them.
WAITING := tests/integration tests/browser
COMPUTING := tests/unit tests/contract
DEMO_ARGS ?=

help: ## List the targets.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-16s%s\n", $$1, $$2}'

install: $(STAMP) ## Build .venv with everything needed to develop and to run the demo.

# The environment is as old as its stamp: a changed requirement installs again, on top.
$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: $(PYTHON) was not found."; \
	  echo "Hint: install Python 3.11 or newer, or name one: make install PYTHON=python3.12"; exit 1; } >&2
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$("$(PYTHON)" --version) is too old; edge-sdk needs Python 3.11 or newer."; \
	  echo "Hint: name a newer one: make install PYTHON=python3.12"; exit 1; } >&2
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: this Python cannot create virtual environments."; \
	  echo "Hint: on Debian or Ubuntu: apt-get install python3-venv"; exit 1; } >&2
	"$(PYTHON)" -m venv $(VENV)
	# torch first and alone: it is by far the largest, and a failure here says so at once.
	$(PIP) install -c constraints.txt torch==2.13.0
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## The main job end to end: convert, roll out, run, roll back, adapt.
	@$(BIN)/edge demo $(DEMO_ARGS)

test: install ## Run all tests; what this machine lacks is skipped with a reason.
ifdef TESTS
	$(BIN)/python -m pytest $(TESTS) $(PYTEST_ARGS)
else
	$(BIN)/python -m pytest $(COMPUTING) -n auto --dist worksteal $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(WAITING) -n 3 --dist worksteal $(PYTEST_ARGS)
endif

# Apart from `test`: tracing every line doubles the time of tests that compute in Python.
coverage: install ## Run all tests and list the lines that none of them reaches.
	$(BIN)/python -m pytest $(COMPUTING) -n auto --dist worksteal --cov --cov-report= $(PYTEST_ARGS)
	$(BIN)/python -m pytest $(WAITING) -n 3 --dist worksteal --cov --cov-append --cov-report=term:skip-covered $(PYTEST_ARGS)

lint: install ## Style, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## Write the JSON Schemas of all contracts to docs/reference/.
	$(BIN)/python -m edge_sdk.contracts.export docs/reference

clean: ## Remove .venv, build outputs and caches.
	rm -rf $(VENV) build dist out htmlcov .coverage .coverage.* \
	  .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
