# The household: setup, board, demo, test, lint, bench, clean. Every recipe works from a fresh clone and calls setup.
PYTHON ?= python3
APT ?= yes
PYTEST_ARGS ?=

VENV := .venv
RUN := $(VENV)/bin/python
DEMO := build/demo
export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 0

.PHONY: help setup board demo test test-board lint format bench clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

setup: $(VENV)/.ready $(VENV)/.tools ## .venv with everything the tests need (APT=no leaves Debian packages alone)

# tf-keras asks for the tensorflow package, which would install a second, larger copy over tensorflow-cpu.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "edgeq needs Python 3.11 or newer; name one: make setup PYTHON=python3.11" >&2; exit 1; }
	@echo "Creating $(VENV) (about 2 GB with TensorFlow, which only the tests and benchmarks need)"
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "no venv module: apt-get install python3-venv" >&2; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps tf-keras
	@$(RUN) -m compileall -q edgeq
	@touch $@

# sshd for the SSH tests, Chromium for the report tests, QEMU and cross compiler for the emulated boards.
# Their absence fails nothing: those tests skip and say so.
$(VENV)/.tools: $(VENV)/.ready
	@missing="$$($(RUN) -c 'from edgeq.board.host import missing; print("", *missing(building=True))')"; \
	PATH="$$PATH:/usr/sbin"; \
	command -v sshd >/dev/null || missing="$$missing openssh-server"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	if [ "$$(id -u)" = 0 ]; then sudo=""; else sudo="sudo -n"; fi; \
	if [ -n "$$missing" ] && [ "$(APT)" = yes ] && command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
		echo "Installing$$missing"; \
		$$sudo apt-get update -qq; \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing \
			>/dev/null && missing=""; \
	fi; \
	if [ -z "$$missing" ]; then touch $@; \
	else echo "Tests that need$$missing will skip. To run them: apt-get install$$missing"; fi

board: setup ## what emulated ARM boards need: Debian packages (as root), and their image, built once
	$(VENV)/bin/edgeq board setup

demo: setup ## obtain MobileNetV2, then convert, deploy and profile it on this machine
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" sh examples/mobilenet/demo.sh $(DEMO)

# A board keeps two cores busy by itself: its tests come after all others, one at a time.
# PYTEST_ARGS may choose tests of one part alone: pytest ends with 5 where it chose none.
test: setup ## every test, two at a time; then those on emulated boards, one at a time
	@first=0; second=0; \
	$(RUN) -m pytest -n 2 --ignore=tests/board $(PYTEST_ARGS) || first=$$?; \
	$(RUN) -m pytest tests/board $(PYTEST_ARGS) || second=$$?; \
	case $$first$$second in 00|05|50) ;; *) exit 1 ;; esac

test-board: setup ## the tests on emulated boards alone
	$(RUN) -m pytest tests/board $(PYTEST_ARGS)

lint: setup ## ruff and mypy
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

format: setup ## put the code into ruff's form
	$(RUN) -m ruff format
	$(RUN) -m ruff check --fix

bench: setup ## conversion cost, latency and accuracy against the peers
	$(RUN) -m benchmarks.convert
	$(RUN) -m benchmarks.latency
	$(RUN) -m benchmarks.accuracy

clean: ## everything that make made, .venv included
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
