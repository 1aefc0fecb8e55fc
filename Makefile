# `make demo` and `make test` build the environment in .venv themselves; Python 3.11 or 3.12 and make are all they need.
# Certificates, proxies and package indices come from the user's own PIP_* and UV_* settings.

VENV := .venv
BIN := $(VENV)/bin
ENVIRONMENT := $(VENV)/.requirements
PACKAGE := $(VENV)/.package
# The interpreter to build with: make PYTHON=/path/to/python3.12 test
PYTHON :=

.PHONY: demo test test-browser lint clean

demo: $(PACKAGE)
	$(BIN)/python recipes/demo.py

test: lint
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --ignore tests/browser

# Pages in a real browser: Debian's Chromium, which root gets here. Where none can be had, the tests say that they are
# skipped.
test-browser: $(PACKAGE)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	    apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
	  echo "no Chromium here, and none can be installed; the tests are skipped" >&2
	-$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r tests/browser/requirements.txt
	$(BIN)/python -m pytest -q -rs tests/browser

lint: $(PACKAGE)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Each stamp is written last: an interrupted build starts again from nothing (--clear). BasicSR's build asks for torch
# without using it; building it in this very environment saves a second torch. pip brings only what that takes.
$(ENVIRONMENT): requirements.txt
	@for python in $(PYTHON) python3.12 python3.11 python3; do \
	  $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	    >/dev/null 2>&1 || continue; \
	  echo "building $(VENV) with $$($$python --version)"; \
	  exec $$python -m venv --clear $(VENV); \
	done; \
	echo "error: no Python 3.11 or 3.12 with its venv module found;" \
	  "install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	exit 2
	$(BIN)/python -m pip install -q --no-deps $$(grep -E '^(uv|setuptools|wheel)==' requirements.txt)
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation-package basicsr -r requirements.txt
	touch $@

$(PACKAGE): pyproject.toml $(ENVIRONMENT)
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@
