# The words people and CI use. Each makes its own virtual environment from requirements.lock.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: serve test check bench docs lock clean

serve: .venv/ready
	$(BIN)/kvasir serve

test: .venv/ready
	$(BIN)/pytest -n 2 --dist loadfile

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/ready
	$(BIN)/python -m bench

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Needs uv; run it after a change to the dependencies in pyproject.toml.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --group dev pyproject.toml tools/build.in --output-file requirements.lock

clean:
	rm -rf .venv
