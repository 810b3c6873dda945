# Two commands matter: `make dev` and `make test`. Both prepare the virtual environment they need.
# The first Python on the path that is new enough; `make PYTHON=/path/to/python test` chooses another.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
# Of the rooms in gateway/compiled.py.
COMPILED_TESTS := tests/actors tests/credentials tests/edge tests/listen tests/policy tests/upstream tests/test_the_way.py

.PHONY: dev test test-edge check bench nightly compiled clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer on the path; install one, or run: make PYTHON=/path/to/python $(MAKECMDGOALS)"; exit 1; }
	@echo "make: installing into $(VENV) (once; again only when pyproject.toml changes)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { echo "make: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	@touch $@

# The request's way in machine code, again when its sources changed; without a C compiler the sources run.
compiled: $(STAMP)
	@$(BIN)/python hatch_build.py

dev: compiled
	@exec $(BIN)/gateway dev $(ARGS)

# All of it as it is installed, then what is compiled once more as sources.
test: compiled
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile tests $(ARGS)
	@ACTORGATE_COMPILED=0 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(COMPILED_TESTS) $(ARGS)

# Real browsers, proxies and clients; installs what is missing through apt-get when root.
test-edge: compiled
	@tests/programs/install
	@$(BIN)/python -m pytest tests/programs $(ARGS)

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

$(BENCH_STAMP): $(STAMP)
	@echo "make: installing the proxies of the benchmark into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

# Beside other proxies, in one run; `make bench ARGS="--help"` tells what can be left out.
bench: $(BENCH_STAMP) compiled
	@benchmarks/install
	@$(BIN)/python -m benchmarks $(ARGS)

# Long runs, then every property test over many times as many examples.
nightly: compiled
	@$(BIN)/python -m pytest tests/nightly $(ARGS)
	@HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m hypothesis tests $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis build dist gateway/compiled.json
	find gateway -name '*.so' -delete
