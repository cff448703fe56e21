# make demo    blur a photo's film, restore it, measure; results in out/demo
# make test    all tests
# make check   lint and types
# make format  lay out the source
# make help    this text
#
# Each sets up what it needs in .venv and uses it again the next time.
# PYTHON chooses the interpreter of a new .venv, 3.10 to 3.13; WORKERS how many processes share the
# tests (as many as there are cores, at most 4); DEMO are further options of the demo.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
DEMO ?=
BIN := $(VENV)/bin

# TensorRT's real Python bindings, which share one import name: tests/contract checks our names
# against each. Without them those tests are skipped.
BINDINGS := build/tensorrt-bindings
BINDINGS_VERSIONS := cu12-bindings==10.3.0 cu12-bindings==10.9.0.34 cu13-bindings==10.16.1.11 \
  cu13-bindings==11.4.0.106

# TensorRT-RTX's oldest and newest parser: tests/contract lets each read the shipped graphs.
RTX := build/tensorrt-rtx
RTX_VERSIONS := 1.4.0.76 1.7.1.116

.PHONY: demo test check format help clean
.DELETE_ON_ERROR:

# A .venv whose interpreter is gone (moved folder, upgraded system) is made anew.
ifneq ($(shell $(BIN)/python -m pip --version > /dev/null 2>&1 && echo works),works)
$(shell rm -f $(VENV)/.installed-*)
endif

demo: $(VENV)/.installed-base
	$(BIN)/edge-restore demo --out out/demo $(DEMO)

test: $(VENV)/.installed-test $(BINDINGS)/.installed $(RTX)/.installed
	EDGE_RESTORE_TRT_BINDINGS=$$(printf '%s:' "$$PWD/$(BINDINGS)"/*/) \
	  EDGE_RESTORE_RTX_VERSIONS=$$(printf '%s:' "$$PWD/$(RTX)"/*/) \
	  $(BIN)/python -m pytest -m "not gpu" -n $(WORKERS) --maxprocesses 4 --dist loadfile

check: $(VENV)/.installed-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

help:
	@sed -n 's/^# \?//p; /^$$/q' Makefile

clean:
	rm -rf $(VENV) build out *.egg-info .mypy_cache .pytest_cache .ruff_cache

$(BINDINGS)/.installed: $(VENV)/.installed-test
	@mkdir -p $(BINDINGS); all=yes; for wheel in $(BINDINGS_VERSIONS); do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	    --target "$(BINDINGS)/$${wheel##*==}" "tensorrt-$$wheel" || \
	    { all=no; echo "no tensorrt-$$wheel for this Python: it is not tested against"; }; \
	done; [ $$all = no ] || touch $@

$(RTX)/.installed: $(VENV)/.installed-test
	@mkdir -p $(RTX); all=yes; for version in $(RTX_VERSIONS); do \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
	    --target "$(RTX)/$$version" $$(printf "%s==$$version " tensorrt-rtx tensorrt-rtx-cu13 \
	      tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs) || \
	    { all=no; echo "no TensorRT-RTX $$version for this Python: it is not tested against"; }; \
	done; [ $$all = no ] || touch $@

EXTRAS_base :=
EXTRAS_check := train,export,openvino,dev
EXTRAS_test := train,tensorboard,export,rtx,openvino,dev

$(VENV)/.installed-%: pyproject.toml constraints.txt .ci/install.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "$(PYTHON) is not Python 3.10 to 3.13: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { echo "creating $(VENV)"; \
	  $(PYTHON) -m venv --clear $(VENV) || { echo "no venv: apt-get install python3-venv"; exit 1; }; }
	@echo "installing edge-restore$(EXTRAS_$*:%=[%]) into $(VENV)"
	@$(BIN)/python .ci/install.py $(EXTRAS_$*)
	@touch $@
