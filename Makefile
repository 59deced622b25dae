# Needs Python 3.11 to 3.13 with pip, and make. Everything is installed into .venv, from the hash-pinned locks.
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench lock clean
.DELETE_ON_ERROR:
.SUFFIXES:
SHELL := /bin/sh

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && { echo $$p; break; }; done)
endif

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
# More workers do not help on small machines: compilation already uses more than one thread. A file stays with one
# worker, so that its fixtures and what it traces are made once.
JOBS ?= 2

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: $(VENV)/.run  ## margin a synthetic book and write its report under build/demo
	rm -rf build/demo
	mkdir -p build/demo
	$(VENV)/bin/pmvar demo --out build/demo/book
	$(VENV)/bin/pmvar run build/demo/book --out build/demo/run --paths 32768

test: lint  ## lint, then run the test suite (PYTEST_ARGS="-k name" narrows it)
	$(PY) -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## style, layers, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/lint-imports --no-cache --no-logo
	$(VENV)/bin/pyright --pythonpath $(PY)

bench: $(VENV)/.dev  ## run every benchmark at its quick size; figures as JSON under build/bench
	@mkdir -p build/bench
	@set -e; for b in benchmarks/*.py; do \
		name=$$(basename $$b .py); case $$name in _*|common) continue;; esac; \
		echo "== $$name"; $(PY) $$b --quick --json build/bench/$$name.json; done

# --fork-strategy fewest: one version of each package on every Python, so that the locked set is the tested set.
COMPILE = $(VENV)/bin/uv pip compile pyproject.toml --group build --universal --python-version 3.11 --quiet --upgrade \
	--fork-strategy fewest --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links
lock: $(VENV)/.dev  ## resolve the locks anew; the run lock is a subset of the dev lock
	$(COMPILE) --extra dev -o requirements/dev.lock
	$(COMPILE) --extra fast -c requirements/dev.lock -o requirements/run.lock

clean:  ## remove .venv, build results and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The files .venv/.run and .venv/.dev are stamps: what is installed is as new as its lock.
NEEDS := pmvar needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/python
NO_VENV := cannot make virtual environments: install its venv package (python3-venv on Debian) or set PYTHON=/path/to/python
$(PY):
	@[ -n "$(PYTHON)" ] || { echo "$(NEEDS): found none" >&2; exit 1; }
	@"$(PYTHON)" -c '$(SUPPORTED)' || { echo "$(NEEDS): $(PYTHON) does not do" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' || { echo "$(PYTHON) $(NO_VENV)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.run: requirements/run.lock pyproject.toml | $(PY)
	$(PIP) install --require-hashes -r requirements/run.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	$(PIP) install --require-hashes -r requirements/dev.lock
	@touch $@
