# make            the targets
PYTHON ?= python3
BIN := .venv/bin
RUN ?= outputs/latest
# A smaller build of torch, for machines without a GPU: make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-fleet wheelhouse demo run test check lab verify serve bench fleet-demo faults fuzz chaos engines engines-smoke format schema pins clean image gate stop verdict publish deploy rollback

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.ready: requirements.txt requirements-nodeps.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Gatebook needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' requirements.txt))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-nodeps.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(BIN)/.ready-dev: $(BIN)/.ready requirements-dev.txt requirements-fleet.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -r requirements-fleet.txt
	@touch $@

setup: $(BIN)/.ready  ## the environment in .venv, from the pinned lists (TORCH_INDEX=... for a torch without CUDA)

setup-dev: $(BIN)/.ready-dev  ## the same with what tests, checks and measures it (requirements-dev.txt, requirements-fleet.txt)

$(BIN)/.ready-fleet: $(BIN)/.ready requirements-fleet.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-fleet.txt
	@touch $@

setup-fleet: $(BIN)/.ready-fleet  ## set-up with what `gatebook fleet` needs (requirements-fleet.txt)

fleet-demo: setup-dev  ## four deployments of the embedded model in one verdict, one of them degraded: exit 1 and a page in outputs/fleet/
	$(BIN)/python -m benchmarks.fleet_demo

wheelhouse: setup  ## wheelhouse/: Gatebook and all it needs, for machines without a network (docs/own-repository.md); TORCH_INDEX as above
	rm -rf wheelhouse build
	$(if $(TORCH_INDEX),$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir wheelhouse --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' requirements.txt))
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir wheelhouse --find-links wheelhouse -r requirements.txt
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --wheel-dir wheelhouse --no-deps -r requirements-nodeps.txt .
	@du -sh wheelhouse

demo: setup  ## set-up, then gate the embedded model: a verdict here and a page in outputs/latest/; make demo SUITE=full asks all
	$(BIN)/gatebook run --profile params/smollm2.yaml $(if $(SUITE),--suite $(SUITE))

run: setup  ## gate a server: make run PROFILE=params/qwen3-4b.yaml URL=http://gpu-box:8000/v1
	$(BIN)/gatebook run --profile $(PROFILE) $(if $(URL),--base-url $(URL))

verify: setup  ## check a run without any server: make verify RUN=outputs/...
	$(BIN)/gatebook verify $(RUN)

# byte code is kept, whatever the environment says: hundreds of commands import the same modules
test: export PYTHONDONTWRITEBYTECODE =
# four workers on two cores: much of the suite waits for deadlines and for servers that are slow on purpose
test: setup-dev  ## set-up and the whole suite; installs PostgreSQL, Chromium, the pipeline's emulator and vLLM for its tests where it may
	.ci/packages
	.ci/emulator
	.ci/engines
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder --durations=25 -m "not vllm"
	test ! -e tests/integration/test_vllm.py || $(BIN)/python -m pytest --durations=5 tests/integration/test_vllm.py

check: setup-dev  ## lint, format, types (of notebooks too), the walls between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbqa mypy notebooks
	$(BIN)/lint-imports
	@find lib -name '*.py' | xargs cat | wc -l | xargs echo "lines of Python in lib/:"

image:  ## in CI (docs/ci.md): build and push the served image once, its digest into image.env
	deploy/image

gate: setup  ## in CI: serve the image under test, gate SUITE, take it away
	deploy/gate

stop:  ## in CI: take away the server that a gate left
	deploy/gate stop

verdict: setup  ## in CI: judge the bundles of TIERS again; the one that decides into outputs/latest/
	deploy/verdict

publish: setup  ## in CI: the history and the site of kept runs
	deploy/publish

deploy: setup  ## in CI: the judged digest to staging, undone when it is not green there
	deploy/staging deploy

rollback: setup  ## in CI: staging back to what ran before
	deploy/staging rollback

lab: setup  ## JupyterLab on the notebooks, with the embedded model unless GATEBOOK_PROFILE says otherwise
	$(BIN)/gatebook lab

serve: setup  ## the embedded model on loopback until Ctrl-C
	$(BIN)/gatebook serve

engines: setup-dev  ## a real vLLM on the CPU in .engines/, for tests and the fault lab (docs/engines.md); TORCH_INDEX names a smaller torch
	$(BIN)/python -m tests.engines prepare vllm

engines-smoke: setup-dev  ## init, run, accept, run on every other engine and gateway that installs in minutes; thoughts, adapters, golden answers on vLLM (docs/engines.md)
	$(BIN)/python -m tests.engines smoke
	$(BIN)/python -m pytest --durations=5 tests/integration/test_vllm_*.py

faults: setup-dev  ## the fault lab: what the gate catches and when it keeps quiet (docs/fault-score.md); goes on where it stopped
	$(BIN)/python -m tests.faults --all

fuzz: setup-dev  ## 10,000 hostile bundles, profiles and case files: no traceback, no hang, no wrong yes (docs/security.md)
	$(BIN)/python -m tests.fuzz --inputs 10000

chaos: setup-dev  ## signals and kills at 100 random moments of each command (docs/security.md); CHAOS=10 for fewer, CHAOS_SEED for others
	CHAOS=$${CHAOS:-100} $(BIN)/python -m pytest -q -s tests/integration/test_interrupts.py

bench: setup-dev  ## the harness against the bare server, as ratios (docs/benchmarks.md)
	$(BIN)/python -m benchmarks accuracy && $(BIN)/python -m benchmarks overhead && $(BIN)/python -m benchmarks demo

format: setup-dev  ## format and fix what can be fixed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

schema: setup-dev  ## write docs/schema/*.json and the table of checks in docs/cases.md from the code
	$(BIN)/python -m gatebook.schemas

COMPILE = $(BIN)/python -m piptools compile --quiet --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-header $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --output-file

pins: setup-dev  ## write the pinned lists anew from requirements*.in, no local version (+cpu) in them: plain PyPI has none
	$(COMPILE) requirements.txt requirements.in
	sed -i 's/^\([^#]*==[^+ ]*\)+[^ ]*/\1/' requirements.txt
	$(COMPILE) requirements-fleet.txt requirements-fleet.in
	$(COMPILE) requirements-dev.txt requirements-dev.in

clean:  ## the environment and caches; recorded runs stay
	rm -rf .venv .engines .pytest_cache .mypy_cache .ruff_cache .hypothesis wheelhouse build lib/*.egg-info
