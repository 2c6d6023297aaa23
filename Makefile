.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# torchmetrics imports transformers wherever it is installed, for seconds: it stays out of the way.
MODELS := $(VENV)/models
MODELS_READY := $(MODELS)/.ready
INTEROP := $(VENV)/interop
INTEROP_READY := $(INTEROP)/.ready
INTEROP_REQUIREMENTS := tests/interop/peers/requirements.txt
# The least that make gpu may find.
GPU_VENV := .venv-gpu
GPU_READY := $(GPU_VENV)/.ready
GPU_PYTHON ?= python3.12
GPU_REQUIREMENTS := benchmarks/phases/requirements.txt

.PHONY: help demo test lint chromium bench resources resources-changed gpu rehearse-gpu clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[all,dev]'
	@touch $@

# Makes the environment of a target, which sees the packages of $(VENV) behind its own.
define behind_main
	$(PYTHON) -m venv $(@D)
	$(BIN)/python -c "import sysconfig; print('import site; site.addsitedir(%r)' % sysconfig.get_path('purelib'))" \
		> "$$($(@D)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main.pth"
endef

$(MODELS_READY): $(READY)
	$(behind_main)
	$(MODELS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[models]'
	@touch $@

$(INTEROP_READY): $(READY) $(INTEROP_REQUIREMENTS)
	$(behind_main)
	$(BIN)/python -c "import importlib.metadata as m; print('torch==' + m.version('torch'))" > $(INTEROP)/constraints.txt
	$(INTEROP)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(INTEROP)/constraints.txt -r $(INTEROP_REQUIREMENTS)
	@touch $@

demo: $(READY) ## digits: extract, sweep over baseline and both regularizers, test, report (a few minutes on two cores)
	$(BIN)/python -m lightsae demo --run_dir runs/demo

test: $(READY) $(MODELS_READY) $(INTEROP_READY) ## the whole suite with coverage
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 20 --cov --cov-report=
	$(MODELS)/bin/python -m pytest tests/activations/extraction/models tests/interventions/transformers_models tests/dictionaries/transformers_models --cov --cov-append --cov-report=
	$(INTEROP)/bin/python -m pytest tests/interop/peers --cov --cov-append --cov-report=term

lint: $(READY) ## ruff, mypy strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=kernels:. $(BIN)/lint-imports

chromium: ## install the browser that drives the page of `lightsae report` in the tests, if there is none
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } || \
		echo "chromium could not be installed: its tests are skipped"

bench: $(READY) ## training step and shard reading on this machine
	$(BIN)/python benchmarks/steps/train_step.py
	$(BIN)/python benchmarks/data/shards.py

resources: $(READY) ## compile every kernel for sm_80, sm_90 and sm_100 ahead of time; no GPU needed
	PYTHONPATH=kernels $(BIN)/python benchmarks/resources.py

resources-changed: $(READY) ## the same, unless these kernels were compiled with this triton before
	PYTHONPATH=kernels $(BIN)/python benchmarks/resources.py --unless_known benchmarks/results/resources.txt

gpu: ## on a GPU: tests, times of kernels, times of steps, eight minutes each; nothing is installed
	$(PYTHON) benchmarks/gpu.py

$(GPU_READY): $(GPU_REQUIREMENTS)
	$(GPU_PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

rehearse-gpu: $(GPU_READY) ## make gpu without a GPU: tiny sizes, interpreted, offline, the oldest torch and triton
	offline=$$(unshare -rn true 2>/dev/null && echo unshare -rn); \
	$$offline $(GPU_VENV)/bin/python benchmarks/gpu.py --rehearse --out runs/rehearse-gpu && \
	PYTHONPATH=.:kernels $$offline $(GPU_VENV)/bin/python -m pytest -q -n 2 -m "not gpu" -o addopts= \
		--disable-warnings -o filterwarnings=default -p no:cacheprovider tests/kernels

clean: ## remove the environment and what runs left behind
	rm -rf $(VENV) .venv-peers $(GPU_VENV) runs .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
