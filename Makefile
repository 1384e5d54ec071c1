# One environment, one check, one demonstration.
# `make demo` and `make test` set up what they need on a machine that has Python 3.11.

PYTHON ?= python3
BIN := .venv/bin
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: help setup test lint deployment demo benchmark clean

help:
	@echo "make demo        two synthetic hospitals: federated, pooled and single-site, with a report"
	@echo "make test        formatting, types and tests: what must pass before a change is kept"
	@echo "make deployment  a real deployment on this machine, and who is refused (part of make test)"
	@echo "make setup       the environment alone (.venv, about 6 GB: PyTorch with CUDA)"
	@echo "make benchmark   speed of training and cost of a federated round on this machine"
	@echo "make clean       remove the environment and the caches of the tools (never runs/)"

setup: $(BIN)/.installed

$(BIN)/.installed: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the locked environment into .venv (about 6 GB, a minute or two) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		"$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
		--require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers 2

# One thread for each process: the tests' tensors are tiny, and a second would wait for the first.
test: export OMP_NUM_THREADS := 1
test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

deployment: export OMP_NUM_THREADS := 1
deployment: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/simulations/deployment

demo: setup
	$(BIN)/xsite demo

benchmark: setup
	$(BIN)/python -m simulations.evidence training
	$(BIN)/python -m simulations.evidence round

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
