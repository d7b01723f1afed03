# `make demo` and `make test` work on a fresh machine: they make .venv and install what they need.
.PHONY: help demo test servers faults litellm vendors browser test-all check format bench clean
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml scripts/setup
	scripts/setup $(VENV) dev
	@touch $@

$(VENV)/.demo: pyproject.toml scripts/setup
	scripts/setup $(VENV) demo
	@touch $@

$(VENV)-litellm/.installed: pyproject.toml scripts/setup
	scripts/setup $(VENV)-litellm litellm
	@touch $@

$(VENV)-vendors/.installed: pyproject.toml scripts/setup
	scripts/setup $(VENV)-vendors vendors
	@touch $@

$(VENV)/.browser: $(VENV)/.installed scripts/setup
	scripts/setup $(VENV) browser
	@touch $@

demo: $(VENV)/.demo ## two workers and a small real model; one worker is killed in mid-answer
	@$(BIN)/glidemq demo $(ARGS)

test: $(VENV)/.installed ## the quick tests, against real servers on loopback
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test $(ARGS)

servers: $(VENV)/.installed ## the integration tests on the embedded server and on a cluster of three primaries
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test servers $(ARGS)

faults: $(VENV)/.installed $(VENV)/.demo ## tests that kill, freeze and cut; the demo
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test faults $(ARGS)

litellm: $(VENV)-litellm/.installed ## tests of the provider parts with litellm and the openai client it holds to
	@PATH="$(CURDIR)/$(VENV)-litellm/bin:$$PATH" scripts/test litellm $(ARGS)

vendors: $(VENV)-vendors/.installed ## recipes per vendor; agent frameworks; mock providers of others
	@PATH="$(CURDIR)/$(VENV)-vendors/bin:$$PATH" scripts/test vendors $(ARGS)

browser: $(VENV)/.browser ## a recipe's page in a real browser
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test browser $(ARGS)

test-all: $(VENV)/.installed $(VENV)/.demo $(VENV)/.browser ## everything
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/test all $(ARGS)

check: $(VENV)/.installed ## format, lint, types, layers, Lua, sizes
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

format: $(VENV)/.installed ## format the Python code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix --quiet .

bench: $(VENV)/.installed ## figures beside those of other queues, from one run on this machine
	@$(BIN)/python bench/run.py $(ARGS)

clean: ## remove the environment and what the tools left
	rm -rf $(VENV) $(VENV)-litellm $(VENV)-vendors .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
