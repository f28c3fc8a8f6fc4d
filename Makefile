# Every target does its own set-up from a fresh clone: it creates the virtual environment it needs and leaves a stamp
# file in it, so that the next run starts at once.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

DEV := .venv
LIGHT := .venv-demo
DEV_READY := $(DEV)/.installed
# compiled when qe-edge is installed (docs/kernels.md)
KERNELS := $(wildcard qe_edge/scoring/kernels/source/*)
LIGHT_READY := $(LIGHT)/.installed
PYTHON := $(DEV)/bin/python

# The direct-assessment files of MLQE-PE (github.com/sheffieldnlp/mlqe-pe): make bundle DATA=FOLDER
DATA ?= data/mlqe-pe
# A folder with mlqe-pe/, ntrex/ (github.com/MicrosoftTranslator/NTREX) and monolingual/: make methods SETS=FOLDER
SETS ?= data
# Inputs that each target of `make fuzz` tries
RUNS ?= 20000
BASE := .cache/smollm2-135m-instruct
GEMMA := .cache/gemma-3-270m
RUN := runs/embedded

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint style test-slow test-gpu fuzz format wheel bench peers base gemma bundle card methods clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

demo: $(LIGHT_READY)  ## score example sentences with the embedded bundle (light install: no torch)
	@$(LIGHT)/bin/qe-edge score examples/mlqe-pe-sample.tsv | $(LIGHT)/bin/python examples/show.py

test: style  ## static checks and all quick tests, on two cores; one of them asks for types
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile

lint: style  ## the static checks alone
	$(DEV)/bin/mypy

style: $(DEV_READY)
	$(DEV)/bin/ruff check
	$(DEV)/bin/ruff format --check
	$(DEV)/bin/lint-imports

test-slow: $(DEV_READY)  ## the tests that take minutes
	$(PYTHON) -m pytest -m slow

fuzz: $(DEV_READY)  ## look for tables, texts and graphs that break a promise: make fuzz RUNS=1000000 (Linux on x86-64)
	$(PYTHON) -m tests.fuzz.fuzz reader -runs=$(RUNS)
	$(PYTHON) -m tests.fuzz.fuzz prompts -runs=$(RUNS)
	$(PYTHON) -m tests.fuzz.fuzz graphs -runs=$$(($(RUNS) / 20))

test-gpu: $(DEV_READY)  ## the tests that need a CUDA device
	$(PYTHON) -m pytest -m gpu

format: $(DEV_READY)  ## rewrite the code in the project's style
	$(DEV)/bin/ruff check --fix
	$(DEV)/bin/ruff format

wheel: $(DEV_READY)  ## build wheel and sdist into dist/
	$(PYTHON) -m build --no-isolation

bench: base  ## the figures of docs/performance.md, on an idle machine: make bench DATA=FOLDER
	bash benchmarks/performance.sh $(DATA) docs/performance

peers: base  ## what `make bench` compares with: environments and models of peers (9 GB; compiles llama.cpp)
	bash benchmarks/peers/prepare.sh $(DATA)

base: $(DEV_READY)  ## fetch the weights of SmolLM2-135M-Instruct
	$(PYTHON) recipes/fetch_base.py smollm2 $(BASE)

gemma: $(DEV_READY)  ## fetch the weights of Gemma-3-270m (Gemma Terms of Use), which docs/methods.md measures
	$(PYTHON) recipes/fetch_base.py gemma3 $(GEMMA)

bundle: base  ## train and export the embedded bundle again (one to two hours on two cores; continues if interrupted)
	test -f $(RUN)/run.json || $(DEV)/bin/qe-edge train recipes/embedded.toml -o $(RUN) --data $(DATA)
	$(DEV)/bin/qe-edge export $(RUN) -o qe_edge/bundles/smollm2-135m-mlqe --data $(DATA) --precision w8a8 --force

card: base  ## test figures of the trained model and of the bundle, for the model card
	$(PYTHON) benchmarks/model_card.py --run $(RUN) --data $(DATA) -o docs/model-card-figures

methods: base gemma  ## the experiments of docs/methods.md (hours; continues if interrupted): make methods SETS=FOLDER
	bash recipes/methods/run.sh $(SETS) runs

clean:  ## remove environments, builds and tool caches (weights in .cache and runs stay)
	rm -rf $(DEV) $(LIGHT) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find qe_edge train export tests benchmarks examples recipes -name __pycache__ -prune -exec rm -rf {} +

$(DEV_READY): pyproject.toml constraints.txt $(KERNELS)
	python3 -m venv $(DEV)
	$(PYTHON) -m pip install --quiet -c constraints.txt --editable '.[dev]'
	touch $@

$(LIGHT_READY): pyproject.toml constraints.txt $(KERNELS)
	python3 -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install --quiet -c constraints.txt --editable '.[cpu]'
	touch $@
