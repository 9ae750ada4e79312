# First call: makes .venv and installs what is needed, Debian packages included.
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv/.installed-bench

.PHONY: demo test check bench setup-system clean help

help:
	@echo "make demo [SEED=n]   an agent repairs a freshly generated repository on the bundled model"
	@echo "make test            the tests"
	@echo "make check           ruff, pyright (strict), codespell"
	@echo "make bench           measured speed, beside Hugging Face transformers in the same run"
	@echo "make setup-system    Debian packages only (bubblewrap, chromium, git, ripgrep, python3-venv)"

demo: $(STAMP)
	@$(BIN)/python -m examples.demo $(if $(SEED),--seed $(SEED))

test: setup-system $(STAMP)
	$(BIN)/python -m pytest -q

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright

bench: $(BENCH_STAMP)
	$(BIN)/python -m dsv4agent.engine.bench --model dsv4agent/assets/mini
	$(BIN)/python -m dsv4agent.tools.bench

setup-system:
	@sh .ci/setup-system --browser

$(STAMP): pyproject.toml .ci/setup-system
	@sh .ci/setup-system
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,bench]"
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
