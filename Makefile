# Each command does all its own set-up: it needs make and a Python 3.11 or newer that can make virtual environments.
# PYTHON=python3.12 chooses which. Paths are relative, so that a folder with spaces in its name works.

python := .venv/bin/python
export PYTHON

.PHONY: help demo test bench reliability lint clean

help:
	@echo "make demo    ask a question twice, and see the second answer come from the cache"
	@echo "make test    run the tests        (make test ARGS='-k stream -x')"
	@echo "make bench   print what it costs  (make bench ARGS=--quick)"
	@echo "make reliability   run it through trouble, for a quarter of an hour  (make reliability ARGS='--only kills')"
	@echo "make lint    ruff and mypy"
	@echo "make clean   remove what the others made"

demo:
	@scripts/set-up
	@$(python) -m rejoinder demo $(ARGS)

test:
	@scripts/set-up test
	@$(python) -m pytest $(ARGS)

bench:
	@scripts/set-up test
	@$(python) -m tests.benchmarks $(ARGS)

reliability:
	@scripts/set-up test
	@$(python) -m tests.reliability --full $(ARGS)

lint:
	@scripts/set-up test dev
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy

clean:
	rm -rf .venv build dist src/rejoinder.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
