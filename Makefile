# `make demo` and `make test` need nothing but Python 3.11 or newer, make and a package index.
PYTHON ?= python3
# Processes that the whole suite is spread over, each with a Postgres of its own.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-16 check conformance bench lock clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED)  ## Set up .venv with the command at .venv/bin/dramatis.

# pip byte-compiles what it installs; our own modules are compiled here. Without that a
# start of the server takes twice as long. The pins are complete, so pip resolves nothing: older
# ones refuse `coverage[toml]`, pinned without its extra, once a newer coverage is out.
$(INSTALLED): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Dramatis needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --compile -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q server db
	@touch $@

demo: $(INSTALLED)  ## Register personas through a real MCP client, on a fresh embedded Postgres.
	$(BIN)/python -m tests.demo

test: $(INSTALLED)  ## Run the whole suite.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-16: $(INSTALLED)  ## Run what touches the database on PostgreSQL 16, as an external server.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -q --postgres=16 tests/isolation tests/jobs tests/personas tests/standards tests/surfaces tests/test_migrations.py tests/test_opening.py

check: $(INSTALLED)  ## Lint, types, import contracts, migrations.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/test_migrations.py -k agree

conformance: $(INSTALLED)  ## Other people's MCP clients and the official suite (Node comes with the tools).
	$(BIN)/python -m tests.conformance

bench: $(INSTALLED)  ## Print ratios against raw baselines measured in the same run.
	$(BIN)/python -m tests.benchmarks

lock:  ## Compile requirements/*.txt from pyproject.toml (needs uv).
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml -o requirements/core.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml --extra worker --extra telemetry -o requirements/worker.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml --all-extras --group dev -o requirements/dev.txt

clean:  ## Remove what the targets above made.
	rm -rf $(VENV) .demo dist build
