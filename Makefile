# `make demo` and `make test` do all the set-up on a machine with git, make and Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint scatter help-pages clean

demo: $(VENV)/installed
	$(BIN)/pyg-lth prune --model mf --dataset synthetic --rounds 8 --amount 0.2 --lr 0.005 --patience 10 --tolerance 0.02
	$(BIN)/pyg-lth prune --model lightgcn --dataset synthetic --rounds 8 --amount 0.2 --lr 0.005 --patience 10 --tolerance 0.02

test: $(VENV)/developing
	$(BIN)/pytest

lint: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(INSTALL) --no-deps --no-build-isolation --target build/lint .
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p pyg_lth

# torch-scatter comes as source and must see the torch it is built against.
scatter: $(VENV)/developing
	$(INSTALL) setuptools wheel ninja
	$(INSTALL) --no-build-isolation torch-scatter

help-pages: $(VENV)/installed
	for command in "" prune train report datasets "datasets list" "datasets info" \
		"datasets prepare" doctor; do \
		$(BIN)/pyg-lth $$command --help >/dev/null || exit 1; \
	done

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable .
	touch $@

$(VENV)/developing: $(VENV)/installed
	$(INSTALL) --editable ".[dev,plots]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
