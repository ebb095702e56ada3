# Each target installs what it needs; only Python 3.11 or newer and make must be there.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart
export MPLBACKEND := Agg
# uv has certificates of its own, and would refuse those of a company's proxy; pip takes both.
export UV_SYSTEM_CERTS := 1
# uv leaves bytecode compilation to the first import. If that import may not write bytecode, every
# command takes 20 s longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help quickstart demo-detection demo-segmentation demo-pose test test-all test-lowest lint \
	format docs docs-keys notebooks bench model-table clean

help:
	@echo "make quickstart  train on 2,624 solar cells, and write a page about it, in ten minutes"
	@echo "make demo-detection  Mask R-CNN from scratch on generated shapes"
	@echo "make demo-segmentation  Semantic FPN from scratch on generated shapes"
	@echo "make demo-pose   Keypoint R-CNN from scratch on generated figures"
	@echo "make test        run the tests       make test-all  run the slow tests too"
	@echo "make test-lowest run the tests with the lowest supported versions of dependencies"
	@echo "make lint        ruff, mypy, imports make format    reformat the sources"
	@echo "make docs        build the site into docs/_build"
	@echo "make notebooks   execute the notebooks, and store their outputs"
	@echo "make docs-keys   write docs/recipe-keys.md and the words for shell completion"
	@echo "make bench       time on a CPU; replaces files in benchmarks/results/"
	@echo "make model-table  count parameters and operations of every model again"
	@echo "make clean       remove the environment and dist/; runs/ stays"

# uv installs torch in seconds where pip takes minutes; pip is the fallback.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "spanets needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[$(1)]' \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(1)]'
	@touch $@
endef

$(VENV)/.quickstart: pyproject.toml
	$(call install,quickstart)

$(VENV)/.dev: pyproject.toml
	$(call install,dev)
	@touch $(VENV)/.quickstart

quickstart: $(VENV)/.quickstart
	@PYTHON=$(BIN)/python sh examples/quickstart.sh $(RUN)

$(VENV)/.demo: pyproject.toml
	$(call install,demo)

demo-detection: $(VENV)/.demo
	@PYTHON=$(BIN)/python sh examples/demo_shapes.sh shapes_mask_rcnn runs/demo-detection

demo-segmentation: $(VENV)/.demo
	@PYTHON=$(BIN)/python sh examples/demo_shapes.sh shapes_semantic_fpn runs/demo-segmentation

demo-pose: $(VENV)/.demo
	@PYTHON=$(BIN)/python sh examples/demo_shapes.sh figures_keypoint_rcnn runs/demo-pose figures

# Two processes of one thread each are faster than one process of two on models this small.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 10

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or not slow"

# Tests pyproject.toml's lower bounds in a new environment with the lowest allowed version of each
# dependency. uv can resolve these; pip cannot.
LOWEST := $(VENV)-lowest

test-lowest:
	@rm -rf $(LOWEST) && $(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python \
		--resolution lowest-direct -e '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.docs: pyproject.toml
	$(call install,docs)

# Strict: a warning is an error, and each name and internal link must resolve. No network is used.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

notebooks: $(VENV)/.docs
	$(BIN)/python docs/notebooks/execute.py

docs-keys: $(VENV)/.dev
	$(BIN)/python -m spanets.recipe.documentation > docs/recipe-keys.md
	$(BIN)/python -m spanets.recipe.documentation --json > src/spanets_cli/recipe_keys.json

bench: $(VENV)/.dev
	for script in cpu_speed onnx_speed compiled sizes spectral_pool spectral_rescale \
		analysis_speed; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; \
	done
	$(BIN)/python benchmarks/cpu_speed.py spanetv2

# Run this after adding or changing a model.
model-table: $(VENV)/.dev
	$(BIN)/python -m spanets.bench.recount

clean:
	rm -rf $(VENV) $(VENV)-lowest dist docs/_build
