# Two commands do everything: `make demo` and `make test`. Both make .venv at the root first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test generate validation bench proofs docs clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "deltabias needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "cannot make $(VENV); on Debian: apt-get install python3-venv"; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: $(READY)
	$(BIN)/deltabias demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config pyproject.toml
	$(BIN)/deltabias generate --check
	$(BIN)/python -m pytest -n 2 -q

generate: $(READY)
	$(BIN)/deltabias generate

proofs:
	@command -v coqc >/dev/null || sh proofs/install-coq.sh
	$(PYTHON) proofs/check.py

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html -d build/docs/doctrees docs build/docs/html
	@echo "open build/docs/html/index.html"

validation: $(READY)
	$(BIN)/python -m validation

bench: $(READY)
	$(BIN)/python -m validation.benchmarks

clean:
	rm -rf $(VENV) build dist
