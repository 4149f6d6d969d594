# `make help` lists what there is. Everything runs in .venv, which `make setup` creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done
BUILT := $(VENV)/.build-done
SOURCES := setup.py pyproject.toml fastinterp/_version.py $(shell find csrc -type f -not -name '*.md')

.PHONY: help setup demo test fuzz check-device sanitize accuracy tutorials lint bench bench-report docs wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make setup   create .venv, install what is needed, build the kernels"
	@echo "make demo    train Normal and Int on built-in digits and compare them (runs/demo)"
	@echo "make test    run the tests"
	@echo "make fuzz    try thousands of hostile inputs, 20 minutes (docs/reliability.md)"
	@echo "make check-device  run the GPU's code on this CPU, watched for races and bounds"
	@echo "make sanitize  run the CPU kernels under the address sanitizer"
	@echo "make accuracy  hold the discrepancy's error to the rule on many draws"
	@echo "make tutorials  run the notebooks again and store what they print and draw"
	@echo "make lint    ruff, mypy and clang-format"
	@echo "make bench   time kernels, training and attacks on this CPU (benchmarks/results)"
	@echo "make bench-report  write docs/benchmarks.md from benchmarks/results"
	@echo "make docs    build the documentation (site)"
	@echo "make wheel   build dist/*.whl for this Python and the installed torch"
	@echo "make clean   remove .venv and everything that was built"

setup: $(BUILT)
	@echo "Set-up is done; '$(BIN)/fastinterp doctor' shows what works here."

$(SETUP): requirements.txt
	@$(PYTHON) -c "import sys; sys.exit('Python 3.10 or newer is needed; choose one by make PYTHON=...' if sys.version_info < (3, 10) else 0)"
	@echo "1/4  Creating the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2/4  Installing the packages of requirements.txt (torch is large: this takes minutes)"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

# An editable install: Python changes need no build, and kernels are built again when they change.
# Of pip's long output sed shows what set-up says itself, and ninja's "[3/17]" with the file's name.
SHOWN := -e 's/^ *\(fastinterp: .*\)/     \1/p' -e 's/^ *\(\[[0-9]*\/[0-9]*\]\) .* -c [^ ]*\/\(csrc\/[^ ]*\).*/     \1 \2/p'
LOG := build/setup.log

$(BUILT): SHELL := /bin/bash -o pipefail
$(BUILT): $(SETUP) $(SOURCES)
	@echo "3/4  Compiling the kernels (a few minutes; all output is in $(LOG))"
	@mkdir -p build
	@$(BIN)/python -m pip install -v --no-build-isolation --no-deps -e . 2>&1 | tee $(LOG) | sed -nu $(SHOWN) \
	    || { grep -iE 'error|^ *fastinterp' $(LOG) | grep -vE ' -c |^ *File ' | cut -c 1-300 | head -n 30; exit 1; }
	@echo "4/4  Checking that the kernels run"
	@$(BIN)/fastinterp doctor > build/doctor.log || { cat build/doctor.log; exit 1; }
	@touch $@

demo: setup
	$(BIN)/fastinterp demo

# Every test runs on one thread (tests/conftest.py), so some run side by side.
TESTS := -m pytest -n auto --maxprocesses 4 --dist worksteal

test: setup
	$(BIN)/python $(TESTS)

# SHARE=0.1 is for trying things out.
fuzz: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --page docs/reliability.md --share $(or $(SHARE),1)

# compute-sanitizer's checks without a GPU, in half an hour: csrc/README.md says what they show.
ASAN := $$(g++ -print-file-name=libasan.so)
LIBRARY := $$(g++ -print-file-name=libstdc++.so)# for exceptions under the sanitizer
DEVICE_TESTS := $(TESTS) -q tests/device_code tests/ops/test_emulation.py tests/ops/test_climb.py

check-device: setup
	$(BIN)/python tests/device_code/build.py races
	FASTINTERP_DEVICE_CODE=races $(BIN)/python $(DEVICE_TESTS)
	$(BIN)/python tests/device_code/build.py bounds
	FASTINTERP_DEVICE_CODE=bounds LD_PRELOAD="$(ASAN) $(LIBRARY)" ASAN_OPTIONS=detect_leaks=0 $(BIN)/python $(DEVICE_TESTS)

# The CPU kernels under the address and undefined-behaviour sanitizers, at each vector width.
WIDTHS := default avx2 avx512
SANITIZED := LD_PRELOAD="$(ASAN) $$(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0

sanitize: setup
	FASTINTERP_SANITIZE=1 FASTINTERP_CUDA=0 $(BIN)/python setup.py -q build --build-lib build/sanitize
	for width in $(WIDTHS); do echo "== $$width"; ATEN_CPU_CAPABILITY=$$width $(SANITIZED) \
	  $(BIN)/python $(TESTS) -q -o pythonpath="build/sanitize . tests/ops" tests/ops || exit 1; done

# The error rule of the discrepancy on fifty draws a case, at each vector width.
accuracy: setup
	for width in $(WIDTHS); do echo "== $$width"; ATEN_CPU_CAPABILITY=$$width FASTINTERP_SEEDS=50 \
	  $(BIN)/python $(TESTS) -q tests/ops/test_error_rule.py tests/ops/test_climb.py || exit 1; done

tutorials: setup
	$(BIN)/python tutorials/run.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tests/device_code -name '*.h' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.cu' -o -name '*.inc')

# Under ten minutes on two quiet cores. ROUNDS=2 RESULTS=/tmp/quick is for trying things out;
# NETWORKS and DATA_DIR name folders with the released networks and MNIST for the attacks.
RESULTS ?= benchmarks/results
BENCH := --rounds $(or $(ROUNDS),11) --results $(RESULTS)
BENCH += $(if $(NETWORKS),--networks $(NETWORKS)) $(if $(DATA_DIR),--data-dir $(DATA_DIR))

bench: setup
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds $(BENCH)

bench-report: setup
	$(BIN)/python -m benchmarks.report --results $(RESULTS)

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "Read it with '$(BIN)/python -m http.server -d site' at http://localhost:8000 (search needs a server)."

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps -w dist .
	@ls dist/*.whl

clean:
	rm -rf $(VENV) build dist site *.egg-info fastinterp/_C*.so .pytest_cache .mypy_cache .ruff_cache
