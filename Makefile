# The commands of a person in a checkout. Versions come from requirements/*.txt (see `make lock`).

VENV ?= .venv
PYTHON ?=
# Most tests wait for processes: two at a time take little more than half as long.
TEST_PROCESSES ?= 2
BIN := $(VENV)/bin
MODEL := examples/diabetes/model.joblib
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check --quiet install
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

LOWEST_TOOLS := build deepdiff editables h2 hatchling hypothesis 'onnx==1.15.*' 'skl2onnx==1.17.*' pip 'psutil>=6' pytest \
	pytest-asyncio pytest-timeout pytest-xdist schemathesis websockets

.PHONY: help serve test lowest lint bench lock clean

help:
	@echo 'make serve   install, and serve the example model on http://127.0.0.1:8080'
	@echo 'make test    install, check style and types, and run all tests'
	@echo 'make lowest  run the tests with the lowest versions that are supported'
	@echo 'make lint    the checks of make test, without the tests'
	@echo 'make bench   compare with the servers under their own masters'
	@echo 'make lock    resolve the versions in requirements/ again (upgrade: make lock UPGRADE=--upgrade)'
	@echo 'make clean   remove what the others made'

serve: $(VENV)/.serve $(MODEL)
	@echo 'Serving examples/diabetes (its README.md has a question to ask); end with Ctrl-C.'
	@echo 'In another terminal: $(BIN)/drumctl status'
	@exec $(BIN)/drumd serve app_fastapi:app --app-dir examples/diabetes --workers 2 --bind 127.0.0.1:8080

test: lint $(MODEL)
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_FLAGS)

lint: $(VENV)/.dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: $(VENV)/.dev $(MODEL)
	@$(BIN)/python -m bench

# `python -m venv` on Debian and Ubuntu needs a package of its own; say which, before a traceback does.
$(BIN)/python:
	@for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  version=$$($$candidate -c 'import sys; assert sys.version_info >= (3, 11); print("3.%d" % sys.version_info[1])' 2>/dev/null) || continue; \
	  if ! $$candidate -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "cannot make a virtual environment: $$candidate comes without venv; run: sudo apt-get install python$$version-venv" >&2; \
	    exit 1; \
	  fi; \
	  echo "Installing into $(VENV) with $$candidate ($$version)"; \
	  exec $$candidate -m venv $(VENV); \
	done; \
	echo "cannot find Python 3.11 or later; run: sudo apt-get install python3 python3-venv" >&2; \
	exit 1

# The stamps are what makes the next run quick: they are older only when a version changed.
$(VENV)/.serve: $(BIN)/python requirements/serve.txt pyproject.toml
	@$(PIP_INSTALL) --require-hashes -r requirements/serve.txt
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements/dev.txt
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(MODEL): examples/diabetes/train.py | $(VENV)/.serve
	@$(BIN)/python $<

# dev first: serve then takes the versions that the tests ran with.
lock: $(BIN)/python
	@$(PIP_INSTALL) uv
	@$(COMPILE) $(UPGRADE) pyproject.toml --all-extras --group dev -o requirements/dev.txt
	@$(COMPILE) pyproject.toml --extra example --extra reload --group build -c requirements/dev.txt -o requirements/serve.txt

# What pyproject.toml says is enough, is: the lowest version of each package, in an environment of its
# own. The tools of the tests are the locked ones; ONNX models are made as old as their runtime. The
# examples' models are of the locked scikit-learn.
lowest: $(VENV)/.dev
	@$(PIP_INSTALL) uv
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-lowest
	@$(BIN)/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct --all-extras -r pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(VENV)-lowest $(LOWEST_TOOLS)
	@$(BIN)/uv pip install --quiet --python $(VENV)-lowest --no-deps --editable .
	@$(VENV)-lowest/bin/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --ignore tests/e2e/test_example.py $(PYTEST_FLAGS)

clean:
	@rm -rf $(VENV) $(VENV)-lowest $(MODEL) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
