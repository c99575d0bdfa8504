# `make demo` and `make test` do all the set-up on a machine with git, make and Python.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

DIST ?= dist

.PHONY: demo test wheel torture lint scatter browser help-pages docs pictures bench clean

demo: $(VENV)/installed
	$(BIN)/pyg-lth prune --model mf --dataset synthetic --rounds 8 --amount 0.2 --lr 0.005 --patience 10 --tolerance 0.02
	$(BIN)/pyg-lth prune --model lightgcn --dataset synthetic --rounds 8 --amount 0.2 --lr 0.005 --patience 10 --tolerance 0.02

# A process for each core; files stay whole, since their tests share what they have trained.
test: $(VENV)/developing
	$(BIN)/pytest -n logical --dist loadfile

torture: $(VENV)/developing
	$(BIN)/pytest -m torture

# One wheel for this platform and all versions of Python: the kernels are called by ctypes, so nothing
# in them is of Python, nor is their name to be. OpenMP stays torch's own.
wheel: $(VENV)/developing
	rm -rf build $(DIST)/wheel
	$(BIN)/python -m build --wheel --no-isolation --outdir $(DIST)/wheel
	$(BIN)/python -m wheel unpack --dest $(DIST)/wheel $(DIST)/wheel/*.whl
	rm $(DIST)/wheel/*.whl
	mv $(DIST)/wheel/*/pyg_lth/kernels/compiled.*.so $$(echo $(DIST)/wheel/*/pyg_lth/kernels)/compiled.abi3.so
	$(BIN)/python -m wheel pack --dest-dir $(DIST)/wheel $(DIST)/wheel/pyg_lth-*/
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --exclude libgomp.so.1 --wheel-dir $(DIST)/wheel/repaired $(DIST)/wheel/*.whl
	$(BIN)/python -m wheel tags --remove --python-tag py3 --abi-tag none $(DIST)/wheel/repaired/*.whl
	mv $(DIST)/wheel/repaired/*.whl $(DIST)
	rm -rf $(DIST)/wheel build

lint: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive pyg_lth cli datasets
	rm -rf build
	$(INSTALL) --no-deps --no-build-isolation --target build/lint .
	cd build/lint && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p pyg_lth

# torch-scatter comes as source and must see the torch it is built against.
scatter: $(VENV)/developing
	$(INSTALL) setuptools wheel ninja
	$(INSTALL) --no-build-isolation torch-scatter

# The tests of the page that pyg-lth report --html writes look at it in a browser.
browser:
	if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; \
	fi

help-pages: $(VENV)/installed
	for command in "" prune train tune sweep report compare plot export inspect recommend serve \
		runs "runs list" "runs check" "runs clean" datasets "datasets list" "datasets info" \
		"datasets prepare" "datasets convert" doctor; do \
		$(BIN)/pyg-lth $$command --help >/dev/null || exit 1; \
	done

# The tutorial runs in the build, and a step of it that fails fails the build.
docs: $(VENV)/documenting
	$(BIN)/sphinx-build --quiet -W --keep-going docs build/docs

# What README and the documentation's first page show.
pictures: $(VENV)/developing browser
	$(BIN)/python docs/make_pictures.py

# A peer that cannot be installed is reported as not measured, with the reason in .bench/PEER.log.
bench: $(VENV)/developing
	-$(MAKE) --keep-going .bench/recbole/installed .bench/implicit/installed
	for raw in ../shared/data/gowalla/raw ../shared/data/tiktok-mmssl/raw; do \
		if [ -d "$$raw" ]; then \
			linked=.bench/root/$${raw#../shared/data/}; \
			mkdir -p "$$linked" && ln -sf "$$PWD/$$raw"/* "$$linked" || exit 1; \
		fi; \
	done
	$(BIN)/python -m benchmarks --root .bench/root

.bench/%/installed: benchmarks/peers/%.txt
	rm -rf .bench/$*
	mkdir -p .bench
	$(PYTHON) -m venv .bench/$* >.bench/$*.log 2>&1
	.bench/$*/bin/python -m pip install --no-deps -r $< >>.bench/$*.log 2>&1
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt $(wildcard pyg_lth/kernels/*.[ch])
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable .
	touch $@

$(VENV)/developing: $(VENV)/installed
	$(INSTALL) --editable ".[dev,plots]"
	touch $@

$(VENV)/documenting: $(VENV)/installed
	$(INSTALL) --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .bench build docs/generated dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
