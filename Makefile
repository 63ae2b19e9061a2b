# Everything runs in .venv, which is made at the first need. Wanted: Python 3.11 or newer, make, git.

PYTHON ?= python3
ARGS ?=
SOAK_SECONDS ?= 300

PY := .venv/bin/python
READY := .venv/.ok

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak faults clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' Makefile

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu it is in the package python3-venv" >&2; exit 1; }
	@echo "Installing into .venv; the first time takes about a minute"
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY) ## place an order, orchestrated and choreographed, and show both
	@$(PY) examples/order/demo.py $(ARGS)

test: $(READY) ## run the tests (ARGS="-k name" for some)
	@$(PY) -m pytest -q -n auto --maxprocesses 4 --dist worksteal $(ARGS)

check: $(READY) ## check format, lint and types
	@$(PY) -m ruff format --check
	@$(PY) -m ruff check
	@$(PY) -m mypy

bench: $(READY) ## measure both modes
	@$(PY) benchmarks/bench.py $(ARGS)

soak: $(READY) ## search for failures at random for SOAK_SECONDS (300)
	@$(PY) -m segue.testing.soak --seconds $(SOAK_SECONDS) --keep tests/property/seeds.txt $(ARGS)

faults: $(READY) ## kill processes, brokers and databases during runs (docs/reliability.md)
	@$(PY) -m pytest -q -s tests/faults/fault_*.py $(ARGS)

clean: ## remove .venv, caches and the state of the demo
	@rm -rf .venv .segue .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
