# Every task of the project; `make help` lists them.
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

$(VENV)/.installed: requirements-dev.lock pyproject.toml
	@python3 -c 'import ensurepip' 2>/dev/null || { echo "python3 has no venv module; installing it" >&2; apt-get update -qq; apt-get install -y -qq python3-venv >/dev/null; }
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: help run test fuzz check audit-dependencies format bench bench-audit bench-verify bench-admin bench-sign-in \
	bench-imports docs lock clean

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-19s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## Start Rota with an embedded PostgreSQL (data in .rota/)
	@exec $(BIN)/rota dev

test: $(VENV)/.installed ## Run all tests
	@$(BIN)/pytest -n 2 --dist loadgroup -m "not alone"
	@$(BIN)/pytest -m alone

CASES ?= 2000
fuzz: $(VENV)/.installed ## Ask a server all that its OpenAPI document allows and forbids (CASES=2000 SEED=...)
	@$(BIN)/python -m tests.fuzz $(CASES) $(if $(SEED),--seed $(SEED))

check: $(VENV)/.installed ## Lint, types, import contracts, the migrations' SQL
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/squawk migrations/sql/*.sql

audit-dependencies: $(VENV)/.installed ## Ask for known vulnerabilities of what is locked
	@$(BIN)/python .ci/audit-dependencies.py

format: $(VENV)/.installed ## Format the code and mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.installed ## Measure refreshes (OPTIONS="--quick --json out.json")
	@$(BIN)/python -m benchmarks.refresh $(OPTIONS)

bench-audit: $(VENV)/.installed ## Measure sealing, verification and queries (OPTIONS as above)
	@$(BIN)/python -m benchmarks.audit $(OPTIONS)

bench-admin: $(VENV)/.installed ## Measure finding, exporting and ending sessions, ten million of them (OPTIONS as above, --rows N)
	@$(BIN)/python -m benchmarks.admin $(OPTIONS)

bench-verify: $(VENV)/.installed ## Measure verification, and how soon an end is known everywhere (OPTIONS as above)
	@$(BIN)/python -m benchmarks.verify $(OPTIONS)

bench-sign-in: $(VENV)/.installed ## Measure sign-ins, and a storm of them beside refreshes (OPTIONS as above)
	@$(BIN)/python -m benchmarks.sign_in $(OPTIONS)

bench-imports: $(VENV)/.installed ## Measure importing users, a million of them (OPTIONS as above, --rows N)
	@$(BIN)/python -m benchmarks.imports $(OPTIONS)

docs: $(VENV)/.installed ## Write what is made from code: the pages of events, metrics and checks, the migrations' SQL
	@$(BIN)/python -m docs.generate_events
	@$(BIN)/python -m docs.generate_metrics
	@$(BIN)/python -m docs.generate_sql
	@$(BIN)/python -m docs.generate_doctor

lock: $(VENV)/.installed ## Compile the lock files anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml --extra embedded --group dev -o requirements-dev.lock

clean: ## Remove the virtual environment and all development data
	@rm -rf $(VENV) .rota .mypy_cache .ruff_cache .pytest_cache .hypothesis
