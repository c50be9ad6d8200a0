# Two commands set up everything on a fresh machine with Python 3.11 and make:
#
#     make demo     three nodes, one joint credit score, one receipt
#     make test     every test but the long ones
#
# `make help` lists the rest. Nothing here needs to be run as root; run as root it also installs the few system
# packages that may be missing, otherwise it says which.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PROTOC := $(BIN)/python -m grpc_tools.protoc -I proto
PROTOS := $(wildcard proto/sandbox/v1/*.proto)
NATIVE := setup.py $(wildcard sandbox/crypto/*/*.[ch] sandbox/psi/*/*.[ch])

.PHONY: help venv demo test test-all check format-check lint types layers buf house bench figures proto clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

venv: $(VENV)/.dev  ## .venv with everything that demo, tests and checks need

demo: $(VENV)/.run  ## run the main job: three nodes on this machine, one joint credit score
	@$(BIN)/python -m sandbox demo

test: $(VENV)/.dev  ## every test but those marked `long`
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -m "not long"

test-all: $(VENV)/.dev  ## every test, with branch coverage also of the nodes
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

check: format-check lint types layers buf house  ## formatting, lint, types, import directions, wire, documents

format-check: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy --strict

layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

buf: $(VENV)/.dev
	$(BIN)/buf lint

# Also that the committed sandbox/v1 is what proto/ gives; `make proto` makes it so.
house: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m "not slow and not long" tests/house

bench: $(VENV)/.bench  ## measure every figure of the README again, peers beside ours
	$(BIN)/python -m bench.all
	$(BIN)/python docs/figures.py

figures: $(VENV)/.run  ## put the figures of bench/results.json into the READMEs
	$(BIN)/python docs/figures.py

proto: $(VENV)/.dev  ## generate sandbox/v1 from proto/
	$(PROTOC) --python_out=. --pyi_out=. --grpc_python_out=. $(PROTOS)

clean:  ## remove .venv and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up -------------------------------------------------------------------------------------------------------

# What has to be on the machine: Python 3.11 with venv, OpenSSL 3 as a library (SM2) and as a program (verification by
# hand, tests). Debian's package names. A C compiler is welcome and not needed: see setup.py. So is bubblewrap: without it
# a node answers no queries and runs no models at the stronger levels, and says so.
$(VENV)/.python:
	@missing=""; \
	  if ! command -v $(PYTHON) >/dev/null; then missing="$$missing python3.11"; fi; \
	  if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then missing="$$missing python3.11-venv"; fi; \
	  if ! ldconfig -p 2>/dev/null | grep -q 'libcrypto\.so\.3' \
	    && ! $(PYTHON) -c 'import ctypes; ctypes.CDLL("libcrypto.so.3")' 2>/dev/null; then missing="$$missing libssl3"; fi; \
	  if ! command -v openssl >/dev/null; then missing="$$missing openssl"; fi; \
	  if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing system packages:$$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  elif [ -n "$$missing" ]; then \
	    echo "Missing on this machine:$$missing"; \
	    echo "On Debian 12 or Ubuntu: sudo apt-get install$$missing"; \
	    echo "With another Python 3.11: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; \
	  fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
	  || { echo "$(PYTHON) is not Python 3.11; give one with make PYTHON=... $(MAKECMDGOALS)"; exit 1; }
	@header="$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"; \
	  if command -v cc >/dev/null && [ -e "$$header" ]; then exit 0; fi; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing a C compiler: gcc libc6-dev python3.11-dev"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      gcc libc6-dev python3.11-dev && exit 0; \
	  fi; \
	  echo "no C compiler: SM2 intersections and Paillier will be slower; sandbox doctor says so too"; \
	  echo "to have one: sudo apt-get install gcc libc6-dev python3.11-dev, then make clean and make again"
	@if command -v bwrap >/dev/null; then exit 0; fi; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing bubblewrap"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      bubblewrap && exit 0; \
	  fi; \
	  echo "no bubblewrap: merchants' statements and models are confined at level narrowed at best (sandbox tee doctor)"; \
	  echo "to have it: sudo apt-get install bubblewrap"
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python pyproject.toml constraints.txt $(NATIVE)
	@echo "installing what the sandbox needs, versions as in constraints.txt (a few minutes the first time)"
	@$(PIP) install -c constraints.txt setuptools
	@$(PIP) install -c constraints.txt --use-pep517 --no-build-isolation -e '.[fast,models]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; then exit 0; fi; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing postgresql, which tests read rows from"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      postgresql && exit 0; \
	  fi; \
	  echo "no PostgreSQL server: the tests that read rows from one are skipped; to have it: sudo apt-get install postgresql"
	@echo "installing what tests and checks need"
	@$(PIP) install -c constraints.txt --use-pep517 --no-build-isolation -e '.[fast,models,dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) install -c constraints.txt --use-pep517 --no-build-isolation -e '.[fast,models,dev,bench]'
	@touch $@
