# make install   a .venv with everything, from requirements.lock
# make serve     the sample clinic on http://127.0.0.1:8080/fhir
# make test      the whole test suite
# make lint      formatting, lint, types
# make bench     durable commits a second beside their baselines, growth, searches, the whole server
# make bench-quick   the whole server in small, a minute or two: fails where an answer is wrong, not where it is slow
# make lock      requirements.lock anew from pyproject.toml (needs uv)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLINIC ?= .clinic.git
HOST ?= 127.0.0.1
PORT ?= 8080

.PHONY: install serve test lint format bench bench-quick lock clean

install: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("git-fhir needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

serve: install
	$(BIN)/python -m sample_repo.build --into $(CLINIC)
	$(BIN)/python -m sample_repo.build --tour --host $(HOST) --port $(PORT) --into $(CLINIC)
	exec $(BIN)/git-fhir -C $(CLINIC) serve --allow-anonymous --host $(HOST) --port $(PORT)

# The tests start hundreds of processes: each would compile again what is not kept, and pytest rewrite every test. They wait
# for these and for the disk, so three at a time keep two cores busy.
test: install
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -q -n 3 --dist worksteal

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.server

bench-quick: install
	$(BIN)/python -m benchmarks.server --quick

lock:
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --quiet --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) $(CLINIC) .mypy_cache .pytest_cache .ruff_cache .hypothesis
