# Needs Python 3.11 or newer, make and gcc. Everything is installed into .venv, at the versions of
# constraints.txt, on first use; a later call starts at once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz soak lint bench docs clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1  \t/p' $(MAKEFILE_LIST)

demo: $(VENV)/installed  ## stream batches from synthetic slides and show what happens
	$(BIN)/chunkdl demo

# The tests start thousands of processes; each would compile all that it imports, and wait for its
# next product of matrices with as many busy threads as there are cores. A process of tests that
# ended is not replaced: what it had left would not be given to others, and the run would not end.
test: export PYTHONDONTWRITEBYTECODE :=
test: export OMP_NUM_THREADS := 1
test: $(VENV)/installed-frameworks $(VENV)/installed-torchvision $(VENV)/installed-torchstain  ## run all tests
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder \
		--max-worker-restart 0

fuzz: $(VENV)/installed  ## look for new counterexamples to the properties, and for slides that break a reader
	$(BIN)/python -m pytest --hypothesis-profile=searching tests/annotations tests/dataset tests/engine tests/sampling \
		tests/service/client tests/service/decisions tests/slides/tissue tests/transport \
		tests/processes/test_drawn_resolutions.py
	$(BIN)/python -m benchmarks.fuzz_slides --seed $$(date +%s)

soak: $(VENV)/installed  ## ten minutes of a service whose consumers and engines come, go, freeze and die
	$(BIN)/python -m benchmarks.service_soak --minutes 10

lint: $(VENV)/installed  ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --num-workers 2

bench: $(VENV)/installed-bench  ## measure throughput beside other loaders
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.hooks
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.formats

docs: $(VENV)/installed-docs  ## build the pages into site/
	$(BIN)/mkdocs build --strict

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The dev group brings the build backend, so that the library itself is built with the pinned one.
# --clear: a half-made or outdated environment is made anew, never mended.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "chunkdl needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) --group dev
	$(INSTALL) --no-build-isolation --editable '.[torch]'
	touch $@

# Beside torch's CPU build, torchvision imports only with help (tests/frameworks/torchvision_here.py),
# and what merely finds it fails with it; so it has a folder of its own.
$(VENV)/installed-torchvision: $(VENV)/installed
	$(INSTALL) --no-deps --upgrade --target $(VENV)/torchvision torchvision
	touch $@

# Its wheel has a package named tests, which would hide ours.
$(VENV)/installed-torchstain: $(VENV)/installed
	$(INSTALL) --no-deps --upgrade --target $(VENV)/torchstain torchstain
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(INSTALL) --group $*
	touch $@
