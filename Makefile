# Needs only Python 3.11 or newer, make and git: everything else is set up in .venv on first use.
# Each target is a command that can be run by hand.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

UV_VERSION := 0.13.9
UV_BOOTSTRAP := .cache/uv-bootstrap
UV := $(or $(shell command -v uv 2>/dev/null),$(UV_BOOTSTRAP)/bin/uv)
# A machine without Java gets one in a wheel; it runs the real Kafka of the tests.
EXTRAS := $(if $(or $(JAVA_HOME),$(shell command -v java 2>/dev/null)),,--extra java)

.DEFAULT_GOAL := help
.PHONY: help demo test check bench prove format lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.complete ## Run hundreds of orders through four services and audit the books. ARGS="--kafka --kill 20"
	$(BIN)/sagakit demo $(ARGS)

test: .venv/.complete ## Run the tests, on a real Kafka and registry too. ARGS="-k name"
	-@$(BIN)/python -m sagakit.testing.jars
	$(BIN)/pytest $(ARGS)

check: .venv/.complete ## Check format, lint, types, layers, YAML, the lock file, and that generated code is current.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy sagakit services tests
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	bash -n .ci/run
	$(UV) lock --check
	$(BIN)/python -m sagakit.contracts.generate --check
	$(BIN)/sagakit definitions lint services

bench: .venv/.complete ## Measure against the floor. ARGS="--help"
	$(BIN)/python -m tests.bench $(ARGS)

prove: .venv/.complete ## Run the long proofs, or one of them. PART=name
	$(BIN)/python -m tests.prove $(PART) $(ARGS)

format: .venv/.complete ## Format the code and fix what can be fixed.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(UV) ## Write uv.lock anew after a change of dependencies.
	$(UV) lock

clean: ## Remove everything that these targets made here (the servers' jars, in the user's cache, stay).
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench-results dist build

# Made once, and again when a dependency changed; without either nothing here reaches for the network.
.venv/.complete: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --python $(PYTHON) $(EXTRAS)
	@touch $@

$(UV_BOOTSTRAP)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sagakit needs Python 3.11 or newer; name it: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(UV_BOOTSTRAP)
	$(UV_BOOTSTRAP)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
