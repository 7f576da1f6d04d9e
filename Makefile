# Corral's commands; `make` alone lists them. Each sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=HOME,CORRAL_CACHE,XDG_CACHE_HOME,KUBEBUILDER_ASSETS,PATH)
CODE := operator drivers tests

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2} /^##$$/ {print ""}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what the lab and the tests need; says first what that is
	@scripts/setup

##
.PHONY: demo
demo: setup ## Bring up a whole cloud on this machine, and show what it does
	@$(AS_ROOT) $(BIN)/corral lab demo

.PHONY: demo-down
demo-down: ## Take the demo down; nothing of it is left but the cache
	@[ ! -x $(BIN)/corral ] || $(AS_ROOT) $(BIN)/corral lab down

.PHONY: test
test: setup ## Run every test: checks, units, contracts, API and lab
	@$(MAKE) --no-print-directory lint
	@$(AS_ROOT) $(BIN)/corral lab prepare
	@$(AS_ROOT) scripts/test

.PHONY: test-lab
test-lab: setup ## Run the lab's tests that match K=… on a lab left running in .lab-test
	@$(AS_ROOT) $(BIN)/corral lab up --dir .lab-test --management 100.89.0.0/24 --guests 10.78.0.0/24 --loopbacks 100.86.0.0/24
	@$(AS_ROOT) $(BIN)/corral lab restart --dir .lab-test
	@$(AS_ROOT) env CORRAL_TEST_LAB=.lab-test $(BIN)/pytest tests/lab -k '$(or $(K),test)'

.PHONY: soak
soak: setup ## Random verbs and faults on real guests for MINUTES=… (5); SEED=… does the same again
	@$(AS_ROOT) $(BIN)/corral lab prepare
	@$(AS_ROOT) env CORRAL_SOAK_MINUTES=$(or $(MINUTES),5) CORRAL_SOAK_SEED=$(SEED) CORRAL_SOAK_FAULTS='$(FAULTS)' $(BIN)/pytest --capture=no tests/lab/test_soak.py

##
.PHONY: check
check: lint ## Format, lint, types, import contracts, generated files, unit tests: before every commit
	@$(BIN)/pytest -q tests/unit

.PHONY: lint
lint: ## Format, lint, types, import contracts, generated files
	@$(BIN)/ruff format --check --quiet $(CODE) || { echo 'Next: make format'; exit 1; }
	@$(BIN)/ruff check --quiet $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/corral generate crds --check
	@$(BIN)/corral generate reasons --check

.PHONY: format
format: ## Format the code
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix-only --quiet $(CODE)

.PHONY: crds
crds: ## Generate crds/ from the models of the API
	@$(BIN)/corral generate crds

.PHONY: docs
docs: ## Generate the reference pages from the code
	@$(BIN)/corral generate reasons

.PHONY: bench
bench: ## Run the benchmarks: our figure, the floor, the ratio
	@$(AS_ROOT) $(BIN)/corral lab prepare
	@$(AS_ROOT) $(BIN)/python tests/bench/bench_l3.py
	@$(AS_ROOT) $(BIN)/python tests/bench/bench_firewall.py
	@$(AS_ROOT) $(BIN)/pytest --quiet --capture=no tests/bench/bench_control.py
	@$(AS_ROOT) $(BIN)/python tests/bench/bench_thread.py

.PHONY: lock
lock: ## Resolve the dependencies anew into requirements.txt, by hash
	@$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --extra lab --extra dev \
		--no-emit-index-url --no-emit-find-links --output-file requirements.txt pyproject.toml

.PHONY: clean-cache
clean-cache: ## Remove the cache: the control plane's programs and the guest images
	@$(AS_ROOT) rm -r -f -- "$${CORRAL_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/corral}"
