# `make` lists the commands. Everything runs in .venv, which `make run` or `make test` creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help run test test-deep test-oldest mutants check bench accuracy fit-mtia fit-gpu docs conformance fuzz fuzz-files clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-11s %s\n", $$1, $$2}'

$(VENV)/python:
	$(PYTHON) -c 'import sys; sys.exit("mtia-emu needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run: $(VENV)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[check]'
	@touch $@

$(VENV)/dev: $(VENV)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

run: $(VENV)/run  ## compile and run the main job: a decoder and a recommender executed and checked, Llama-3-8B timed
	$(BIN)/python examples/main_job.py

test: $(VENV)/dev  ## install what tests need and run them, but for the long ones
	$(BIN)/python -m pytest

test-deep: $(VENV)/dev  ## run the tests that take long and look far
	$(BIN)/python -m pytest -m deep

test-oldest:  ## run the tests with the oldest dependencies that are allowed, in an environment of their own
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --editable '.[test]' --constraint tests/data/oldest.txt
	$(VENV)-oldest/bin/python -m pytest -W error::DeprecationWarning -W error::UserWarning

mutants: $(VENV)/dev  ## plant faults in timing, energy, estimates and placement, one at a time, and say which tests notice
	PYTHONPATH=tests $(BIN)/python -m mutants

check: $(VENV)/dev  ## lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check mtia_emu compiler kernels tests examples
	rm -rf build && $(BIN)/python -m pip install --quiet --no-deps --target build/typed .
	cd build/typed && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p mtia_emu

bench: $(VENV)/dev  ## measure the tool itself: docs/performance.md (PART=questions: one part; RESUME=1: go on)
	$(BIN)/python tests/bench.py $(PART) $(if $(RESUME),--resume)

$(VENV)/accuracy: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --editable '.[accuracy]'
	@touch $@

accuracy: $(VENV)/accuracy  ## compare with published results and measured kernels again: docs/accuracy*.md and their pictures
	$(BIN)/python docs/accuracy/mtia.py picture
	$(BIN)/python docs/accuracy
	$(BIN)/python docs/generate.py docs/accuracy.md docs/accuracy-energy.md

fit-mtia: $(VENV)/dev  ## fit the parameters of MTIA 1 that only published results tell, and print them
	$(BIN)/python docs/accuracy/mtia_fit.py

fit-gpu: $(VENV)/accuracy  ## fit the constants of the GPU files again on half of the measured kernels
	$(BIN)/python docs/accuracy/gpu_fit.py

docs: $(VENV)/dev  ## regenerate every figure and generated table in docs/
	$(BIN)/python docs/generate.py

conformance: $(VENV)/dev  ## run ONNX's operator tests and the exported models; rewrite docs/operators.md
	$(BIN)/python docs/generate.py docs/operators.md

COUNT ?= 2000
SEED ?= 0
fuzz: $(VENV)/dev  ## try the compiler on COUNT random graphs of SEED on all cores; goes on where it was stopped
	nice -n 19 $(BIN)/mtia-emu fuzz --count $(COUNT) --seed $(SEED) -o fuzzed

FILES ?= 100000
fuzz-files: $(VENV)/dev  ## read FILES mutated files of every kind within bounds, on one core; goes on where it was stopped
	PYTHONPATH=tests nice -n 19 $(BIN)/python -m fuzz_files --count $(FILES) --seed $(SEED) -o fuzzed-files

clean:  ## remove the environment and build products
	rm -rf $(VENV) $(VENV)-oldest build *.egg-info
