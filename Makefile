# For people who work on Kuulo. `make help` lists what there is.
#
# Python packages go into VENV, and which are there already is told by a stamp with the digest of the files that name
# them: what has not changed is not installed again. Nothing here but the installing uses the network.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

VENV ?= .venv
# The first of these that is 3.11 or newer.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
# What takes long to make and serves several environments is kept here.
KEEP ?= .cache
# Extra arguments: make test PYTEST='-k formats', make bench BENCH='--quick startup'
PYTEST ?=
BENCH ?=
# A folder of engines' environments, for `make test`: tests/test_traces.py traces those that are not beside Kuulo there.
ENVIRONMENTS ?=

bin := $(VENV)/bin
pip := $(bin)/python -m pip --quiet --disable-pip-version-check install

digest = $(shell cat $(1) | sha256sum | cut -c1-16)
dev_files := requirements-dev.txt requirements-dev-bare.txt
# Wheels for the tests of environments, and ELAN's schema in pympi's sources, fetched beforehand: tests have no network.
wheel_files := src/kuulo/environments/whisper-cpp/any.lock src/kuulo/deploy/kuulo/any.lock \
	tests/environments/sherpa-onnx.lock
base_stamp := $(VENV)/.kuulo-base-$(call digest,pyproject.toml)
dev_stamp := $(VENV)/.kuulo-dev-$(call digest,pyproject.toml $(dev_files) $(wheel_files))
# An environment that outlives a clone must be pointed to the next one.
link_stamp := $(VENV)/.kuulo-link-$(shell pwd | sha256sum | cut -c1-16)

# llama.cpp, built from source: in minutes, and once for each state of its lock.
llama_files := src/kuulo/environments/llama-cpp/cpu.lock src/kuulo/environments/llama-cpp/environment.toml
llama := llama-cpp-$(call digest,$(llama_files))

# For tests: a synthesiser, a tracer, what openai-whisper reads recordings with, a Slurm of the tests' own, with accounts,
# Lmod, what makes and starts container images, what runs and checks the portal's app, what builds llama.cpp, and a
# reader of times in texts.
system_packages := espeak-ng strace ffmpeg slurmctld slurmd slurm-client munge slurmdbd mariadb-server-core \
	mariadb-client-core lmod charliecloud squashfs-tools squashfuse fuse3 siftool mmdebstrap ruby ruby-redcarpet shellcheck lua5.3 \
	acl g++ gcc cmake patch libparlatype5

.PHONY: help demo test lint docs bench clean base dev

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: base ## install Kuulo, transcribe the recording in examples/, say which files were written
	@$(bin)/kuulo transcribe examples/jfk.flac -o demo-output --existing overwrite --print
	@echo; echo "Written to demo-output/:"; cd demo-output && find . -type f -name 'jfk*' | sed 's,^\./,  ,' | sort

test: dev ## install what the tests need, then run them without a network
	@tools/system_packages.sh $(system_packages) || echo "Going on: tests that need them are skipped." >&2
	@[ -d $(VENV)/environment-modules ] || tools/environment_modules.sh $(VENV)/environment-modules \
		|| echo "Going on: tests that need Environment Modules are skipped." >&2
	@tools/rootfs.sh $(VENV)/rootfs.tar || echo "Going on: tests that need a Debian for images are skipped." >&2
	@[ -e $(VENV)/.kuulo-$(llama) ] || { $(call built_llama) && touch $(VENV)/.kuulo-$(llama); } \
		|| echo "Going on: tests that need llama.cpp are skipped." >&2
	@[ ! -d $(KEEP)/$(llama) ] || ln -sfn $(abspath $(KEEP)/$(llama)) $(VENV)/llama-bundle
	@KUULO_TEST_ENVIRONMENTS='$(ENVIRONMENTS)' $(bin)/python tools/no_network.py $(bin)/python -m pytest -n 2 \
		--dist loadfile $(PYTEST)

lint: dev ## ruff and mypy
	@$(bin)/ruff check .
	@$(bin)/ruff format --check src tests tools bench
	@$(bin)/mypy

docs: dev ## write the generated pages of docs/reference/ anew
	@$(bin)/python tools/reference.py

bench: dev ## measure speed and memory against others, side by side; prints ratios
	@$(bin)/python bench/run.py $(BENCH)
	@[ -n "$(BENCH)" ] || { $(bin)/python bench/speakers.py --quick; $(bin)/python bench/jobs.py --quick; \
		$(bin)/python bench/serve.py --quick; }

built_llama = { [ -d $(KEEP)/$(llama) ] || { echo "Building llama.cpp into $(KEEP) (some minutes)." >&2; \
	rm -rf $(KEEP)/$(llama).partial; mkdir -p $(KEEP); \
	$(bin)/kuulo engines bundle llama-cpp --variant cpu -o $(KEEP)/$(llama).partial && \
	mv $(KEEP)/$(llama).partial $(KEEP)/$(llama); }; } && \
	KUULO_ENVIRONMENTS=$(VENV)/environments $(bin)/kuulo engines install llama-cpp --from $(KEEP)/$(llama) --quiet

clean: ## remove what was installed, built and cached here
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist demo-output bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

base: $(base_stamp)
	@[ -e $(link_stamp) ] || { $(pip) --no-deps -e . && $(call linked); }

dev: $(dev_stamp)
	@[ -e $(link_stamp) ] || { $(pip) --no-deps -e . && $(call linked); }

linked = rm -f $(VENV)/.kuulo-link-* && touch $(link_stamp)

$(bin)/python:
	@[ -n "$(PYTHON)" ] || { echo "Kuulo needs Python 3.11 or newer: sudo apt-get install python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/system_packages.sh python3-venv
	@$(PYTHON) -m venv $(VENV)

# One call for all that depends on torch, so that one choice of torch serves all of it.
$(dev_stamp): | $(bin)/python
	@echo "Installing Kuulo, its engines and the tests' packages into $(VENV) (some minutes)." >&2
	@$(pip) -r requirements-dev.txt -e .
	@$(pip) --no-deps -r requirements-dev-bare.txt
	@rm -rf $(VENV)/bundle && $(bin)/kuulo image bundle whisper-cpp -o $(VENV)/bundle >/dev/null
	@$(bin)/python -m pip --quiet --disable-pip-version-check download --no-deps -d $(VENV)/bundle/wheels \
		-r tests/environments/sherpa-onnx.lock
	@$(bin)/python -m pip --quiet --disable-pip-version-check download --no-deps --no-binary :all: \
		-d $(VENV)/schemas pympi-ling==1.71
	@rm -f $(VENV)/.kuulo-dev-* && touch $@ $(base_stamp) && $(call linked)

$(base_stamp): | $(bin)/python
	@echo "Installing Kuulo into $(VENV) (about a minute)." >&2
	@$(pip) -e .
	@rm -f $(VENV)/.kuulo-base-* && touch $@ && $(call linked)
