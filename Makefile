# Needs only Python 3.11 or newer, make and git: everything else is set up in .venv on first use.
# Each target is a command that can be run by hand.

PYTHON ?= python3
ARGS ?=
# How many processes run the tests, each with servers of its own.
WORKERS ?= 3
BIN := .venv/bin

UV_VERSION := 0.13.9
UV_BOOTSTRAP := .cache/uv-bootstrap
UV := $(or $(shell command -v uv 2>/dev/null),$(UV_BOOTSTRAP)/bin/uv)
# A machine whose Java is missing or too old for Kafka gets one in a wheel; it runs the real Kafka of the tests.
JAVA_VERSION_MIN := 17
EXTRAS = $(shell for java in $(if $(JAVA_HOME),"$(JAVA_HOME)/bin/java") java; do \
	version=$$("$$java" -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p'); \
	test "$${version:-0}" -ge $(JAVA_VERSION_MIN) && exit; done; echo --extra java)

# The compiled wheel, and a tree without the package's source, which would stand before the wheel on the path.
COMPILED := .cache/compiled

# Hundreds of Python processes are started here: each would compile again all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check bench compiled prove format lock clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.complete ## Run hundreds of orders through five services and audit the books. ARGS="--kafka --kill 20"
	$(BIN)/sagakit demo $(ARGS)

test: .venv/.complete ## Run the tests, on a real Kafka and registry too. ARGS="-k name"
	-@$(BIN)/python -m sagakit.testing.jars
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

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

bench: $(COMPILED)/.complete ## Measure the compiled engine against the floor. ARGS="--help"; BUILD=pure measures the plain source.
	cd $(if $(filter pure,$(BUILD)),.,$(COMPILED)/tree) && $(abspath $(if $(filter pure,$(BUILD)),.venv,$(COMPILED)/venv))/bin/python -m tests.bench $(ARGS)

compiled: $(COMPILED)/.complete ## Build the compiled wheel, with an environment of its own to run it in.

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

$(COMPILED)/.complete: .venv/.complete hatch_build.py $(shell find sagakit schemas/sagakit -name '*.py' -o -name '*.avsc')
	rm -rf $(COMPILED)
	SAGAKIT_COMPILE=1 $(UV) build --quiet --wheel --python $(BIN)/python --out-dir $(COMPILED)/dist
	UV_PROJECT_ENVIRONMENT=$(COMPILED)/venv $(UV) sync --quiet --frozen --python $(BIN)/python --no-install-project $(EXTRAS)
	$(UV) pip install --quiet --python $(COMPILED)/venv/bin/python --no-deps $(COMPILED)/dist/*.whl
	mkdir $(COMPILED)/tree
	ln -s $(foreach name,tests services schemas docs README.md pyproject.toml,$(abspath $(name))) $(COMPILED)/tree/
	@touch $@

$(UV_BOOTSTRAP)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sagakit needs Python 3.11 or newer; name it: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(UV_BOOTSTRAP)
	$(UV_BOOTSTRAP)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
