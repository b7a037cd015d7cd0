# Two commands set up everything on a fresh machine with Python (3.11 or later) and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo

.PHONY: help demo test test-all lint format clean

help:
	@echo "make demo   learn a pattern with BPTT and e-prop 1, end with a table and a picture ($(DEMO)/comparison.png)"
	@echo "make test   run the tests of the core: traces, rules, networks, training, program"
	@echo "make test-all   run all tests: figures, e-prop 2 and 3, speech, benchmark too"
	@echo "make lint   ruff and pyright"
	@echo "make clean  remove .venv and $(DEMO)"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What is installed depends on pyproject.toml alone: the stamp says for which one it was done.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[train,examples,test,speech]'
	@touch $@

demo: $(VENV)/installed
	@if [ -f $(DEMO)/config.json ]; then $(BIN)/eprop resume $(DEMO); else \
	$(BIN)/eprop compare pattern-generation --preset tutorial --seeds 2 --iterations 1000 --out $(DEMO); fi
	@echo "picture: $(DEMO)/comparison.png"

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q -m 'not slow'

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright

format: $(VENV)/installed
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(DEMO)
