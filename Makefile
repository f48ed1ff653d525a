# Few targets; `make help` lists them. Everything lands in this folder: two virtual environments and nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH := 2.13.0
LABEL_STUDIO := 1.23.2
BIN := .venv/bin
READY := .venv/.ready
LABEL_STUDIO_READY := .venv-label-studio/.ready-$(LABEL_STUDIO)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) $(LABEL_STUDIO_READY) ## both virtual environments; does nothing when they are up to date

demo: setup ## the whole loop on one machine: make demo [DATA=folder] [ARGS="..."]
	@$(BIN)/mad demo $(if $(DATA),--data $(DATA)) $(ARGS)

# Two processes: the tests that ask Label Studio are one half of the time, all others the other.
test: setup ## all tests: make test [ARGS="tests/core -k tie"]
	@$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup ## speed beside peers, one JSON object a figure
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## removes environments, caches and build outputs; runs/ is left alone
	@rm -rf .venv .venv-label-studio .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

# torch comes by pip, which obeys the machine's pip.conf (a CPU wheel, a mirror); uv does not read it.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "No python3 found: install Python 3.11, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { \
		echo "Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); say make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || { echo "setup 1/4: virtual environment .venv"; $(PYTHON) -m venv .venv; }
	@echo "setup 2/4: torch $(TORCH) (the largest download, minutes)"
	@$(BIN)/pip install -qq --disable-pip-version-check torch==$(TORCH) uv
	@echo "setup 3/4: this package with all extras (a minute)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[all,dev]'
	@touch $@

# An environment of its own: Label Studio pins Django and numpy versions that this package cannot share.
$(LABEL_STUDIO_READY): | $(READY)
	@echo "setup 4/4: Label Studio $(LABEL_STUDIO) (a minute)"
	@test -x .venv-label-studio/bin/python || $(BIN)/python -m venv .venv-label-studio
	@$(BIN)/uv pip install --quiet --python .venv-label-studio/bin/python label-studio==$(LABEL_STUDIO)
	@touch $@
