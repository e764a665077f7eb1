# Each target sets up what it needs first: Debian packages when missing (as root), then .venv from the lock file.
# Nothing that apt installs is started or left enabled (scripts/system-packages).
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: help demo test test-all check format bench attack fuzz lock setup setup-run setup-test setup-bench setup-attack setup-fuzz

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

demo: setup-run ## watch a policy hold on a running devbox (DEMO_HOST=some.name: against the real network)
	$(BIN)/outgate demo

test: setup-test check ## every test but the slow ones, as root; under 20 minutes on two cores
	$(PYTEST) -n 2 -m 'not kernel and not slow'
	$(PYTEST) -n 2 --dist loadfile -m 'kernel and not slow'

test-all: setup-test check ## every test
	$(PYTEST) -n 2 -m 'not kernel'
	$(PYTEST) -m 'kernel'

check: setup-run ## style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-run ## put every file into the one format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup-bench ## measure, as ratios in one run; prints a table, writes build/bench/
	$(BIN)/python -m bench

attack: setup-attack ## the attack corpus: what got through (ATTACK_SYSTEMS="open squid dnsmasq outgate": a comparison)
	PYTHONPATH=tests $(BIN)/python -m attack

fuzz: setup-fuzz ## look for inputs that break a parser, each for FUZZ_SECONDS (60); FUZZ_TARGETS="dns_query …": some
	PYTHONPATH=tests $(BIN)/python -m fuzz $(FUZZ_TARGETS)

lock: ## renew requirements/*.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		pyproject.toml --output-file requirements/runtime.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
		pyproject.toml --group test --group bench --output-file requirements/dev.lock
	uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --only-binary :all: \
		--group pyproject.toml:fuzz --output-file requirements/fuzz.lock

setup-bench: setup-test
	@scripts/system-packages bench

setup-attack: setup-test
	@scripts/system-packages attack

setup-fuzz: setup-test
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/fuzz.lock

setup: setup-test ## only set up

setup-run:
	@scripts/system-packages run
	@scripts/venv

setup-test:
	@scripts/system-packages test
	@scripts/venv
	@scripts/node-modules
