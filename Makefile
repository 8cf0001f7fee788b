# The course: `make course` runs it, `make test` tests it. Both make their own environment first.
#
#   PROFILE=smoke make course     a smaller run (smoke, quick or paper)
#   JOBS=4 make course            so many notebooks at once (2; in the profile paper 1)
#   PYTHON=python3.12 make test   another Python (3.11 to 3.13) for the environment
#   LOCKED=1 make course          exactly the versions in constraints/, checked by their hashes
#   ARGS="--only 05" make course  more options for `cxr run`, or for pytest
#
# Kept to GNU Make 3.81, which macOS has.

VENV ?= .venv
PROFILE ?= quick
# Two cores are at work and not one; the sizes of the profile paper take a machine's memory alone.
JOBS ?= $(if $(filter paper,$(PROFILE)),1,2)
BIN = $(VENV)/bin
# A locked environment and a loose one are not mixed: each begins afresh.
STAMP = $(VENV)/.installed$(if $(LOCKED),-locked)
# Reading and running the course needs less than testing, grading and publishing it.
COURSE = course,tensorflow,dicom
EVERYTHING = $(COURSE),teach,site,test
EVERY_STAMP = $(VENV)/.installed-everything$(if $(LOCKED),-locked)
PIP = $(BIN)/python -m pip install --disable-pip-version-check
# $(call install,EXTRAS,NAME): loose with the extras, or as constraints/NAME.txt says.
install = $(if $(LOCKED),$(PIP) --require-hashes -r constraints/build.txt -r constraints/$(2).txt && \
	$(PIP) --no-deps --no-build-isolation --editable .,$(PIP) --editable ".[$(1)]")
export PYTHON

# An environment that is broken, or that belongs to another checkout, is made again.
CHECK = import cxrlib, os, sys; sys.exit(not os.path.samefile(os.path.dirname(cxrlib.__file__), "cxrlib"))
ifneq ($(wildcard $(STAMP)),)
IGNORED := $(shell $(BIN)/python -P -c '$(CHECK)' 2>/dev/null || rm -f $(STAMP) $(EVERY_STAMP))
endif

.PHONY: help course app site slides student quizzes badges test test-all bench lint clean
.DEFAULT_GOAL := help

help:
	@echo "make course   run the notebooks and write runs/$(PROFILE)/report.html (PROFILE=smoke|quick|paper)"
	@echo "make app      open the predictor and the phantom explorer in the browser"
	@echo "make site     build the site from executed notebooks into site/"
	@echo "make slides   write a deck a lesson, with speaker notes and a PDF, into build/slides/"
	@echo "make student  write the students' exercises from their masters (SEED=WORD CLASS=FILE: and"
	@echo "              questions with numbers of their own, into build/private/)"
	@echo "make quizzes  write the quizzes for Moodle and Canvas into build/quizzes/"
	@echo "make badges   write REPOSITORY=OWNER/NAME [BRANCH=NAME] into badges and set-up cells"
	@echo "make test     run the tests; make test-all also the long sweeps"
	@echo "make bench    measure the speed, ours and others', and write docs/performance.md"
	@echo "make lint     check the style of modules and notebooks, and the order of imports"
	@echo "make clean    remove the environment and caches; runs/ stays"

course: $(STAMP)
	@$(BIN)/cxr run --profile $(PROFILE) --jobs $(JOBS) $(ARGS)

app: $(STAMP)
	@cd notebooks/apps && JUPYTER_PATH=share:$$JUPYTER_PATH \
		"$(abspath $(BIN))/voila" . $(ARGS)

site: $(EVERY_STAMP)
	@$(BIN)/python docs/build.py --profile $(PROFILE) $(ARGS)

slides: $(EVERY_STAMP)
	@$(BIN)/python docs/slides.py --profile $(PROFILE) $(ARGS)

student: $(EVERY_STAMP)
	@$(BIN)/python notebooks/exercises/make_release.py $(ARGS)
	@if [ -n "$(SEED)" ]; then $(BIN)/python notebooks/exercises/make_private.py --seed "$(SEED)"; fi
	@if [ -n "$(CLASS)" ]; then \
		$(BIN)/python notebooks/exercises/make_private.py --seed "$(SEED)" --class "$(CLASS)"; fi

quizzes: $(EVERY_STAMP)
	@$(BIN)/python notebooks/quizzes/make_exports.py $(ARGS)

# Once, after a copy of the course is put on GitHub; needs Python, nothing else.
badges:
	@`sh .ci/find-python` .ci/badges.py "$(REPOSITORY)" "$(BRANCH)"

test: $(EVERY_STAMP)
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 -m "not sweep" $(ARGS)

test-all: $(EVERY_STAMP)
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --hypothesis-profile many $(ARGS)

bench: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$(COURSE),bench]"
	@$(BIN)/python benchmarks/all.py $(ARGS)

lint: $(EVERY_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/_site/architecture.py --check

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp comes last: without it, an interrupted installation starts afresh.
$(STAMP): pyproject.toml $(if $(LOCKED),$(wildcard constraints/*.txt))
	@set -e; \
	if [ ! -f $(STAMP) ]; then \
	  python=`sh .ci/find-python`; \
	  echo "Making the environment $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV); \
	fi; \
	echo "Installing the course and what it needs (about 2 GB, some minutes)"; \
	$(call install,$(COURSE),course)
	@$(BIN)/python binder/open_start_page.py >/dev/null
	@rm -f $(EVERY_STAMP)
	@touch $(STAMP)

$(EVERY_STAMP): $(STAMP)
	@$(call install,$(EVERYTHING),everything)
	@touch $(EVERY_STAMP)
