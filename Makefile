# Each target sets up .venv from requirements.lock first, if it is missing or stale. Python 3.11 or newer is all it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3,$(shell command -v $(name))))
BIN := .venv/bin
READY := .venv/ready
MODEL ?= mnist
ARGS ?=
FUZZ_MINUTES ?= 5
FUZZ := tests/test_fuzz_bodies.py tests/test_fuzz_routes.py
MINUTES ?= 10
PARALLEL ?= -n auto --maxprocesses 4 --dist worksteal

.PHONY: help serve test test-fast check train bench fuzz soak checkpoints lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Torchloop needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

serve: export TORCHLOOP_WEB_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() or 1))')
serve: $(READY)  ## start the service on http://127.0.0.1:8000, with a web process for each core, at most 4
	@exec $(BIN)/python -m service

test: $(READY)  ## run the whole test suite, in a process per core
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

test-fast: $(READY)  ## run the tests that start no service and train for no seconds: for the inner loop
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" $(ARGS)

check: $(READY)  ## lint, format check, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

train: $(READY)  ## train a model offline: make train MODEL=mnist ARGS="--epochs 1"
	@$(BIN)/python -m training $(MODEL) $(ARGS)

bench: $(READY)  ## measure speed, as ratios within one run
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(READY)  ## try ever new requests and bodies on the application, for FUZZ_MINUTES (5)
	@end=$$((SECONDS + 60 * $(FUZZ_MINUTES))); until ((SECONDS >= end)); do \
	  $(BIN)/python -m pytest --hypothesis-profile=fuzz $(FUZZ) $(ARGS) || exit 1; done

soak: $(READY)  ## load, change, train and kill a service for MINUTES (10); fails where anything is lost
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(ARGS)

checkpoints: $(READY)  ## make the shipped checkpoints in models/pretrained, and their cards, again
	$(BIN)/python -m training regressor --output models/pretrained/regressor.pt
	$(BIN)/python -m training classifier --output models/pretrained/classifier.pt
	$(BIN)/python -m training mnist --preset champion --output models/pretrained/mnist.pt
	$(BIN)/python -c "from PIL import Image; from models.mnist import drawn_seven; \
	  Image.fromarray(drawn_seven()).save('models/pretrained/seven.png', optimize=True)"
	$(BIN)/python -m training.card

lock: $(READY)  ## write requirements.lock from pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --extra dev --strip-extras --no-header --no-annotate --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --output-file requirements.lock pyproject.toml
	@sed -i -e 's/^\(torch==[0-9.]*\)+.*/\1/' -e '/^#/d' requirements.lock

clean:  ## remove what the targets above made, but no store and no data
	rm -rf .venv .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis
