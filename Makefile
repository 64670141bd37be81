# Every target sets up what it needs, in .venv; nothing is assumed but make, bash, git and a Python with venv.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
# The newest torch with a torchaudio wheel of its minor version; both work with and without a GPU.
TORCH ?= 2.11.0
# Every extra of setup.py but cpu, which needs a C compiler and no package.
EXTRAS ?= synthetic,spikes,plots,ssl,export,peers,dev
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
STAMP := $(VENV)/.installed
DEMO := demo
# Two pools of spinning threads on the same cores are slower than one thread in each process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help install demo test test-full lint doctor clean

help:
	@echo "make install | demo | test | test-full | lint | doctor | clean"

install: $(STAMP)

$(STAMP): setup.py Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		found="$$($(PYTHON) -V 2>/dev/null || echo not there)"; \
		echo "spikebrain needs Python 3.10 or newer, '$(PYTHON)' is $$found: make install PYTHON=python3.11"; exit 1; }
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
		echo "'$(PYTHON) -m venv' failed: apt-get install python3-venv, or name a Python that has it: make install PYTHON=..."; exit 1; }
	$(PIP) install -q --no-compile torch==$(TORCH) torchaudio==$(TORCH) "setuptools>=77,<82"
	PYTHONWARNINGS=ignore $(PIP) install -q --no-compile --no-build-isolation -e ".[$(EXTRAS)]"
	@touch $@

demo: install
	$(BIN)/python recipes/LibriSpeech/train.py hparams/iml_spikeformer_mini.yaml \
		--data_folder=synthetic --synthetic_folder=$(DEMO)/LibriSpeech --output_folder=$(DEMO)/run \
		--token_type=bpe --output_neurons=130 --number_of_epochs=16
	@$(BIN)/python tools/summary.py $(DEMO)/run

test: install
	$(PYTEST)

test-full: install
	$(PYTEST) -m ""

lint: install
	$(BIN)/ruff check .

doctor: install
	@$(BIN)/python -m spikebrain.doctor

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info
