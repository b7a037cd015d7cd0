# Two commands set up everything on a fresh machine with Python (3.11 or later) and pip.
PYTHON ?= python3
SHELL := bash
.SHELLFLAGS := -o pipefail -ec
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: help demo test test-all test-slow combinations test-lowest test-newest lint types format dist check-dist release clean

help:
	@echo "make demo   learn a pattern with BPTT and e-prop 1, end with a table and a picture ($(DEMO)/comparison.png)"
	@echo "make test   run the tests of the core: traces, rules, networks, training, program"
	@echo "make test-all   run all tests: figures, e-prop 2 and 3, speech, benchmark too"
	@echo "make combinations   draw 100 whole experiments and 10 runs of the program (make test: 10 and 1)"
	@echo "make test-slow   run the slow tests alone, all or every Nth (EVERY=4)"
	@echo "make test-lowest   a part of the tests with the lowest declared versions, on Python 3.11"
	@echo "make test-newest   a part of the tests with the newest jax, on the newest Python found (3.12 or 3.13)"
	@echo "make lint   ruff and pyright; mypy and pyright, both strict, on a user's file (tests/typed_user.py)"
	@echo "make types   the types of what is public are complete (pyright --verifytypes); lint holds it too"
	@echo "make dist   wheel and source package, in dist/"
	@echo "make check-dist   build both, check them, and use them from empty environments (FULL=1: all Pythons and extras)"
	@echo "make release VERSION=X.Y.Z   see RELEASING.md"
	@echo "make clean  remove environments, what tests compiled, dist/ and $(DEMO)"

$(BIN)/python:
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)

# What is installed depends on pyproject.toml alone: the stamp says for which one it was done.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	@echo "installing eprop and what it needs into $(VENV): some minutes and 2 GB, once; the packages as pip gets them:"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e '.[train,examples,test,dev,speech,exchange]' \
	| sed -un -e 's/^ *\(Downloading\|Using cached\) \(.*\.whl\) (/  \2 (/p' -e 's/^Installing collected.*/installing them/p'
	@echo "$(VENV) is complete"
	@touch $@

demo: $(VENV)/installed
	@if [ -f $(DEMO)/config.json ]; then $(BIN)/eprop resume $(DEMO); else \
	$(BIN)/eprop compare pattern-generation --preset tutorial --seeds 2 --iterations 1000 --out $(DEMO); fi
	@echo "picture: $(DEMO)/comparison.png"

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q -m 'not slow'

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q

# EVERY=4: every fourth of them.
test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q -m slow --every $(or $(EVERY),1)

combinations: $(VENV)/installed
	EPROP_DRAWS=100 EPROP_RUNS=10 $(BIN)/python -m pytest -n 2 -q tests/test_combinations.py

test-lowest test-newest: test-%:
	@$(PYTHON) scripts/lane.py $*

lint: types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright
	$(BIN)/mypy --strict tests/typed_user.py

# Below 100 % this fails: what is not annotated stands above the figures.
types: $(VENV)/installed
	@cd $(VENV) && VIRTUAL_ENV=$(abspath $(VENV)) PATH=$(abspath $(BIN)):$$PATH pyright --verifytypes eprop --ignoreexternal

format: $(VENV)/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

dist: $(VENV)/installed
	@rm -rf dist
	$(BIN)/python -m build --outdir dist .

check-dist: dist
	@$(BIN)/python scripts/check_dist.py $(if $(FULL),--full)

release: $(VENV)/installed
	@$(BIN)/python scripts/release.py $(VERSION)

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest .compiled dist $(DEMO)
