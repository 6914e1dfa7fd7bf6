# Each target is a command or two; what they do is in the command's own --help.
PYTHON ?= python3
VENV ?= .venv
DATASET ?= xd_violence
BIN := $(VENV)/bin
export DATASET  # read by the shell, so that its spaces and quotes stay

.PHONY: install extract train demo test check check-gpu format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# make extract DATASET=xd_violence ARGS='--crops 5 --flow tvl1'
extract: install
	$(BIN)/pipeline extract "$$DATASET" $(ARGS)

train: install
	$(BIN)/pipeline train "$$DATASET" $(ARGS)

# The main job on videos that it makes itself; nothing is downloaded but packages.
demo: install
	$(BIN)/pipeline datasets make microworld
	$(BIN)/pipeline extract microworld --flow dis --crops 1 --weights random:0 --precision float32
	$(BIN)/pipeline train microworld --runs demo/runs
	$(BIN)/pipeline score data/microworld/footpath_11.mp4 --runs demo/runs --out demo/scores.csv --labels microworld --plot demo/scores.png --report demo/report.html
	$(BIN)/pipeline evaluate --runs demo/runs --controls

test: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

# Tests and measurements on a GPU; ARGS='--device cpu' rehearses every part at a small size.
check-gpu: install
	$(BIN)/python -m pipeline.experiments.gpu.check $(ARGS)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
