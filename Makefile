# make demo    blur a photo's film, restore it, measure; results in out/demo
# make test    all tests
# make check   lint and types
#
# Each sets up what it needs in .venv and uses it again the next time.
# PYTHON chooses the interpreter of a new .venv, 3.10 to 3.13.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check clean
.DELETE_ON_ERROR:

# A .venv whose interpreter is gone (moved folder, upgraded system) is made anew.
ifneq ($(shell $(BIN)/python -m pip --version > /dev/null 2>&1 && echo works),works)
$(shell rm -f $(VENV)/.installed-*)
endif

demo: $(VENV)/.installed-base
	$(BIN)/edge-restore demo --out out/demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not gpu"

check: $(VENV)/.installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build out *.egg-info .mypy_cache .pytest_cache .ruff_cache

EXTRAS_base :=
EXTRAS_check := [dev]
EXTRAS_test := [train,export,dev]

$(VENV)/.installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "$(PYTHON) is not Python 3.10 to 3.13: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { echo "creating $(VENV)"; \
	  $(PYTHON) -m venv --clear $(VENV) || { echo "no venv: apt-get install python3-venv"; exit 1; }; }
	@echo "installing edge-restore$(EXTRAS_$*) into $(VENV)"
	@$(PIP) -e '.$(EXTRAS_$*)'
	@touch $@
