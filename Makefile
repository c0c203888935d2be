# make demo    set up, distil the legal recipe, export it to GGUF, bench it, ask it one question
# make test    set up, run the tests
# make lint    ruff and mypy        make clean    remove what make made (not the runs)
#
# All of it happens in .venv; nothing is installed outside. On a Linux machine without a GPU, the CPU build of torch saves
# gigabytes:  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
QUESTION := Maria is from Ohio. John is from Texas. Maria sues John for negligence for $$90,000. \
Is there diversity jurisdiction?

# llama-cpp-python is compiled on first use (pip keeps the wheel). Left out: pictures and sound, and the library behind
# llama.cpp's own tools, which together are almost half of the work.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/.ci/llama.cmake
export CMAKE_BUILD_PARALLEL_LEVEL ?= $(CORES)
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: demo test lint install clean
.DELETE_ON_ERROR:

demo: install
	$(BIN)/bridge-edge distill recipe=legal
	$(BIN)/bridge-edge export --format gguf
	$(BIN)/bridge-edge bench
	$(BIN)/bridge-edge run "$(subst $$,\$$,$(QUESTION))"

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHON=$(abspath $(BIN)/python) .ci/types

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, this is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12"; exit 2; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || \
	  { echo "a C and C++ compiler is needed to build llama-cpp-python, e.g. the package build-essential"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch
	@echo "installing; llama-cpp-python is compiled the first time, which takes minutes"
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
