# Every target makes .venv and installs what it needs; a second run only checks the stamps.
# Another interpreter: `make test PYTHON=python3.12`. A subset of the tests: `make test TESTS="tests/unit/poai_spec -x"`.
# Another testnet: `make testnet TESTNET="--nodes 5 --blocks 20"`. A shorter soak: `make soak SOAK=10`, or a minute for
# each decoder: `make soak TESTS=tests/fuzz SOAK_S=60`.

PYTHON ?= python3
TESTS ?=
TORCH ?= torch
TESTNET ?=
SOAK ?= 200
SOAK_S ?= inf
NEWS ?= --draft
ETHEREUM_TESTS := 4c87ebb
SAMPLE ?=
# A file stays with one worker: what its fixtures make, a model's weights or a wheel, is made once. In the order of
# names: else files of few tests, which are the slowest, would come last, and one worker would wait for the other.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
REQUIRES := pyproject.toml constraints.txt
VERSION = $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' pyproject.toml)

# fastecdsa, which libp2p imports and PoAI never calls, is the one package of a node that comes as source. Without a
# compiler, Python's headers or GMP's, a stand-in takes its place.
STAND_IN := ./tools/fastecdsa
HAS_GMP = printf '\043include <Python.h>\n\043include <gmp.h>\n' | \
  cc -E -I"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')" - >/dev/null 2>&1

# llama-cpp-python comes as source. The multimodal library, and the helper library that only llama.cpp's own programs
# use, are two thirds of the build; tools/llama.cmake says how the second is left out.
LLAMA_CMAKE := -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE='$(CURDIR)/tools/llama.cmake'

.DEFAULT_GOAL := help
.PHONY: help venv test test-all soak testnet upgrade check vectors mutants spec model docs pictures container gpu constraints changelog release ethereum-tests \
        ethereum-tests-fetch clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.dev ## .venv with the project (editable) and its development tools

test: $(VENV)/.dev model ## the tests a change needs, all but the slow ones; a part, slow ones too: TESTS="tests/e2e -x"
	$(BIN)/python -m pytest $(or $(TESTS),$(TWO_WORKERS) -m "not slow")

test-all: $(VENV)/.llama model ## all tests; builds llama-cpp-python the first time
	$(BIN)/python -m pytest $(or $(TESTS),$(TWO_WORKERS) --durations=30)

soak: $(VENV)/.dev ## the fuzzers and crash tests in their long form: days; make soak TESTS=tests/fuzz SOAK_S=60
	POAI_SOAK=$(SOAK) POAI_SOAK_S=$(SOAK_S) $(BIN)/python -m pytest $(or $(TESTS),tests/fuzz tests/soak)

testnet: $(VENV)/.run model ## three nodes on this machine mine ten blocks with SmolLM2 and agree: a minute or two
	$(BIN)/poaid testnet $(TESTNET)

upgrade: $(VENV)/.run model ## five nodes change from poai-mini to SmolLM2 at block 6 and back at block 10, while they mine
	$(BIN)/poaid testnet --nodes 5 --blocks 13 --model mini --upgrade 6:smollm2 --upgrade 10:mini

check: $(VENV)/.dev ## lint, format, types, and poai_spec/ against specs/
	$(BIN)/ruff check tools node tests
	$(BIN)/ruff format --check tools node tests
	$(BIN)/mypy poai_spec tools/poai_tools tools/poai_bench tools/poai_build node/poai_engine node/poaid tests
	$(BIN)/python -m poai_tools.spec.cli compile --check

vectors: $(VENV)/.dev model ## the committed vectors: equal to the generated ones, and passed by the specification
	$(BIN)/poai vectors generate --check
	$(BIN)/poai vectors check

mutants: $(VENV)/.dev ## break the specification in 200 places; how many the vectors notice (minutes, not part of CI)
	$(BIN)/python -m poai_build.mutants

spec: $(VENV)/.dev ## write poai_spec/ from the pages in specs/, and the tables of documents
	$(BIN)/python -m poai_tools.spec.cli compile
	$(BIN)/python -m poai_build.code_table specs docs/rejection-codes.md
	$(BIN)/python -m poai_build.api_tables docs
	$(BIN)/python -m poai_build.document_outputs

model: $(VENV)/.run ## fetch SmolLM2-135M-Instruct (92 MB, once) into the user's model folder
	$(BIN)/poai model fetch smollm2

docs: $(VENV)/.dev ## the site of the documents and the specification, every link checked: build/docs/index.html
	@rm -rf build/docs
	$(BIN)/python -m sphinx -c docs -j auto --nitpicky --fail-on-warning --keep-going --quiet . build/docs
	@echo "the site: build/docs/index.html"

pictures: $(VENV)/.dev model ## draw the documents' pictures again, the README's of a new testnet; needs Chromium
	$(BIN)/poai bench plots docs/img
	$(BIN)/python -m poai_build.rooms docs/img/rooms.svg
	$(BIN)/python -m poai_build.pictures docs/img

container: ## take the Dockerfile's steps in clean Debian roots and start a node there; needs root and mmdebstrap
	$(PYTHON) tools/debian_root.py

gpu: $(VENV)/.dev ## torch, for --gpu-layers; another build: make gpu TORCH='torch==2.13.0+cpu'
	@echo "installing $(TORCH)"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[gpu]' '$(TORCH)'

constraints: $(VENV)/.dev ## resolve the newest versions of all dependencies into constraints.txt
	@mkdir -p build
	$(PIP) install -qq --dry-run --ignore-installed --report build/resolved.json -e '.[dev,docs,llama]'
	$(BIN)/python -m poai_build.constraints build/resolved.json constraints.txt

changelog: $(VENV)/.dev ## print what newsfragments/ would add to CHANGELOG.md; write it: make changelog NEWS=--yes
	$(BIN)/towncrier build $(NEWS)

release: $(VENV)/.dev ## wheel, source distribution, archive of the vectors and SHA256SUMS of this commit: build/release
	@test -z "$$(git status --porcelain)" || { echo "git status shows changes: commit them, or clone anew" >&2; exit 1; }
	rm -rf build/release
	umask 022; SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir build/release
	$(BIN)/poai vectors pack build/release/poai-vectors-$(VERSION).zip
	cd build/release && sha256sum -- * > SHA256SUMS

ethereum-tests: $(VENV)/.dev ## Ethereum's own state tests on the pages; a spread: make ethereum-tests SAMPLE=600
	$(BIN)/python -m tests.ethereum.run $(if $(SAMPLE),--sample $(SAMPLE))

ethereum-tests-fetch: ## get github ethereum/tests at the pinned commit into build/ethereum-tests (needs GitHub)
	rm -rf build/ethereum-tests
	git clone --quiet --filter=blob:none --no-checkout https://github.com/ethereum/tests build/ethereum-tests
	git -C build/ethereum-tests sparse-checkout set GeneralStateTests TransactionTests TrieTests RLPTests
	git -C build/ethereum-tests checkout --quiet $(ETHEREUM_TESTS)

clean: ## remove .venv, caches and build products; models and chains stay
	rm -rf $(VENV) build dist poai.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find poai_spec node tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) not found: install Python 3.11 or later, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$$($(PYTHON) -V) is too old: PoAI needs 3.11 or later; name another: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.python $(REQUIRES)
	@echo "installing PoAI into $(VENV)"
	@instead=; $(HAS_GMP) || { instead=$(STAND_IN); echo "no C compiler with the headers of Python and GMP: a stand-in" \
	  "takes the place of fastecdsa, which PoAI does not call (Debian, Ubuntu: apt install gcc python3-dev libgmp-dev;" \
	  "Fedora: dnf install gcc python3-devel gmp-devel; macOS: xcode-select --install and brew install gmp)"; }; \
	  $(PIP) install --quiet --constraint constraints.txt $$instead --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing PoAI's development tools into $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

# pip -v prints 15,000 lines for this build and pip alone none for minutes, so ninja's counter is picked out of the log.
# pip keeps the wheel in its cache: another checkout on the same machine installs it in seconds.
$(VENV)/.llama: $(VENV)/.dev tools/llama.cmake
	@$(BIN)/python -c 'import llama_cpp' 2>/dev/null || command -v c++ >/dev/null || \
	  { echo "no C++ compiler (c++): llama-cpp-python is built from source; install g++ or clang" >&2; exit 1; }
	@echo "installing llama-cpp-python; the first time on a machine it is compiled, which takes minutes"
	@rm -f $@
	@{ CMAKE_ARGS="$(LLAMA_CMAKE)" $(PIP) install --verbose -c constraints.txt -e '.[llama]' 2>&1 && touch $@; } \
	  | tee $(VENV)/llama.log | grep --line-buffered -oE '^ *\[[0-9]*0/[0-9]+\]'; \
	  test -e $@ || { grep -iE '^ *(.*[: ])?error:?' $(VENV)/llama.log | tail -n 12 >&2; \
	  echo "llama-cpp-python was not built; the whole log is $(VENV)/llama.log" >&2; exit 1; }
