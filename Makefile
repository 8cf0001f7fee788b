# The course: `make course` runs it, `make test` tests it. Both make their own environment first.
#
#   PROFILE=smoke make course     a smaller run (smoke, quick or paper)
#   PYTHON=python3.12 make test   another Python (3.11 to 3.13) for the environment
#   ARGS="--only 05" make course  more options for `cxr run`, or for pytest
#
# Kept to GNU Make 3.81, which macOS has.

VENV ?= .venv
PROFILE ?= quick
EXTRAS = course,tensorflow,dicom,test
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
export PYTHON

# An environment that is broken, or that belongs to another checkout, is made again.
CHECK = import cxrlib, os, sys; sys.exit(not os.path.samefile(os.path.dirname(cxrlib.__file__), "cxrlib"))
ifneq ($(wildcard $(STAMP)),)
IGNORED := $(shell $(BIN)/python -P -c '$(CHECK)' 2>/dev/null || rm -f $(STAMP))
endif

.PHONY: help course test lint clean
.DEFAULT_GOAL := help

help:
	@echo "make course   run the notebooks and write runs/$(PROFILE)/report.html (PROFILE=smoke|quick|paper)"
	@echo "make test     run the tests"
	@echo "make lint     check the style of modules and notebooks"
	@echo "make clean    remove the environment and caches; runs/ stays"

course: $(STAMP)
	@$(BIN)/cxr run --profile $(PROFILE) $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last: without it, an interrupted installation starts afresh.
$(STAMP): pyproject.toml
	@set -e; \
	if [ ! -f $(STAMP) ]; then \
	  python=`sh .ci/find-python`; \
	  echo "Making the environment $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV); \
	fi; \
	echo "Installing the course and what it needs (about 2 GB, some minutes)"; \
	$(BIN)/python -m pip install --disable-pip-version-check --editable ".[$(EXTRAS)]"
	@touch $(STAMP)
