# Each target sets up .venv first, if it is missing or stale (environment.py). Python 3.11 or newer is all it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
SET_UP = $(PYTHON) environment.py
# The first of these that runs, is new enough and can create environments; .venv's own, if it is there, so that it stays.
PYTHON ?= $(or $(shell for name in $(BIN)/python python3.11 python3.12 python3.13 python3.14 python3; do \
  "$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; \
  done),$(error Torchloop needs Python 3.11 or newer with its venv module, and finds none: install it (Debian, Ubuntu: \
  apt install python3 python3-venv; macOS: brew install python) or name one: make PYTHON=/path/to/python3.12 ...))
unexport PYTHONSAFEPATH  # the packages are imported from this folder
unexport PYTHONDONTWRITEBYTECODE  # environment.py installs without compiling: each process would compile what it imports
unexport TORCHLOOP_TORCH  # for the set-up only; the service refuses settings that it does not know
MODEL ?= mnist
ARGS ?=
FUZZ_MINUTES ?= 5
FUZZ := tests/test_fuzz_bodies.py tests/test_fuzz_routes.py
MINUTES ?= 10
CORES = $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
PARALLEL ?= -n $(shell echo $$(($(CORES) < 3 ? $(CORES) + 1 : 4))) --dist worksteal
PARALLEL_FAST ?= -n $(shell echo $$(($(CORES) < 4 ? $(CORES) : 4))) --dist worksteal

.PHONY: help serving development serve test test-fast check train bench fuzz soak checkpoints picture lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

serving:
	@TORCHLOOP_TORCH=$(TORCHLOOP_TORCH) $(SET_UP)

development:
	@TORCHLOOP_TORCH=$(TORCHLOOP_TORCH) $(SET_UP) --dev

serve: serving  ## start the service on http://127.0.0.1:8000, with a web process for each core, at most 4
	@cores=$$(getconf _NPROCESSORS_ONLN || echo 1); \
	  export TORCHLOOP_WEB_PROCESSES=$${TORCHLOOP_WEB_PROCESSES:-$$((cores < 4 ? cores : 4))}; exec $(BIN)/python -m service

test: development  ## run the whole test suite, in a process per core and one more: many tests wait
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: development  ## run the tests that start no service and take no half second: for the inner loop
	$(BIN)/python -m pytest $(PARALLEL_FAST) -p no:schemathesis -m "not slow" $(ARGS)

check: development  ## lint, format check, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: serving  ## train a model offline: make train MODEL=mnist ARGS="--epochs 1"
	@$(BIN)/python -m training $(MODEL) $(ARGS)

bench: development  ## measure speed, as ratios within one run
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: development  ## try ever new requests and bodies on the application, for FUZZ_MINUTES (5)
	@end=$$((SECONDS + 60 * $(FUZZ_MINUTES))); until ((SECONDS >= end)); do \
	  $(BIN)/python -m pytest --hypothesis-profile=fuzz $(FUZZ) $(ARGS) || exit 1; done

soak: development  ## load, change, train and kill a service for MINUTES (10); fails where anything is lost
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(ARGS)

checkpoints: serving  ## make the shipped checkpoints in models/pretrained, and their cards, again
	$(BIN)/python -m training regressor --output models/pretrained/regressor.pt
	$(BIN)/python -m training classifier --output models/pretrained/classifier.pt
	$(BIN)/python -m training mnist --preset champion --output models/pretrained/mnist.pt
	$(BIN)/python -m training.plainness
	$(BIN)/python -c "from PIL import Image; from models.mnist import drawn_seven; \
	  Image.fromarray(drawn_seven()).save('models/pretrained/seven.png', optimize=True)"
	$(BIN)/python -m training.exports
	$(BIN)/python -m training.card

picture:  ## draw docs/architecture.svg from the imports
	@$(PYTHON) docs/draw_architecture.py

COMPILE := $(BIN)/pip-compile --quiet --upgrade --strip-extras --no-header --no-annotate --no-emit-index-url \
  --no-emit-find-links --no-emit-trusted-host --unsafe-package pip
lock: development  ## write requirements.lock (serving, training) and requirements-dev.lock (the rest) from pyproject.toml
	$(COMPILE) --extra dev --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	@sed -i.old -e 's/^\([a-z]*==[0-9.]*\)+[a-z0-9]*/\1/' -e '/^#/d' -e '/^$$/d' requirements.lock requirements-dev.lock
	@grep -vxFf requirements.lock requirements-dev.lock > requirements-dev.lock.old
	@mv requirements-dev.lock.old requirements-dev.lock && rm requirements.lock.old

clean:  ## remove what the targets above made, but no store and no data
	rm -rf .venv .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis
