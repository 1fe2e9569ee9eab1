# Each target sets up $(VENV) by itself, once, and again when requirements.txt or pyproject.toml change.

PYTHON ?= python3
VENV ?= .venv
SITE_VENV ?= build/site-venv
ARGS ?=
# processes of the tests, and threads of each
JOBS ?= 2
THREADS ?= 1

BIN := $(VENV)/bin
STAMP := $(VENV)/.norface-installed

define CHECK_PYTHON
import sys
version = ".".join(map(str, sys.version_info[:3]))
if sys.version_info < (3, 11):
    sys.exit("norface needs Python 3.11 or newer, but " + sys.executable + " is " + version + ": make PYTHON=/path/to/a/newer/python3 ...")
endef
export CHECK_PYTHON

.PHONY: help reproduce test mutants faults lab site lint format clean
.DEFAULT_GOAL := help

help:  ## this list
	@echo "make TARGET [ARGS='more arguments'] [PYTHON=python3.12] [VENV=.venv]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

reproduce: $(STAMP)  ## run all notebooks with the quick profile; ARGS="--profile smoke" for another
	$(BIN)/python -m norface_lib reproduce --profile quick $(ARGS)

# The first use of the renderer compiles: once, before several processes need it.
test: lint  ## ruff, then all tests, two files at a time (JOBS=2); ARGS="-m 'not slow'" for a part of them
	$(BIN)/python -c "from norface_lib.faces.studio import Studio; Studio(112).neutral()"
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

mutants: $(STAMP)  ## plant known faults, one at a time, and report which tests notice; ARGS="loop crop" for some
	$(BIN)/python tests/mutants.py $(ARGS)

faults: $(STAMP)  ## kill commands, fill disks, damage inputs; write docs/faults.md; ARGS="kill zips" for some
	PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

lab: $(STAMP)  ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab --notebook-dir=notebooks $(ARGS)

site: build/.site-installed  ## README, docs and notebooks as a web site in build/site; a dead link is an error
	$(SITE_VENV)/bin/python -m sphinx -q -W --keep-going -n -c docs -b html -d build/site-trees . build/site $(ARGS)
	@echo "open build/site/index.html"

lint: $(STAMP)  ## check code and notebooks, change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## format code and notebooks, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and builds; runs/ and the environment stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find norface_lib notebooks tests -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# The stamp is written last, so an install that failed is tried again by the next call.
$(STAMP): requirements.txt pyproject.toml
	@rm -f $@
	@if [ ! -e $(VENV) ]; then \
		command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: make PYTHON=/path/to/python3 ..." >&2; exit 1; }; \
		$(PYTHON) -c "$$CHECK_PYTHON" || exit 1; \
		echo "$(PYTHON) -m venv $(VENV)"; \
		$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	elif ! { $(BIN)/python -c "$$CHECK_PYTHON" && $(BIN)/python -m pip --version >/dev/null; }; then \
		echo "$(VENV) is no working environment: delete it, or name another with VENV=..." >&2; exit 1; \
	fi
	@$(BIN)/python .ci/torch_build.py
	$(BIN)/python -m pip install -r requirements.txt
	$(BIN)/python -m pip install --no-deps -e .
	@touch $@

# The site has an environment of its own: its tools are no part of the library's.
build/.site-installed: docs/requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/python -m pip install -q -r $<
	@mkdir -p $(@D) && touch $@
