# Packmule needs Python 3.11 or newer with pip, and make. `make` alone lists what can be made.

# The environment that is made here has no pip: if it is active, the python3 behind it is meant.
PYTHON ?= $(shell PATH="$(subst $(CURDIR)/.venv/bin:,,$(PATH))" && command -v python3)
VENV := .venv
RUN := $(VENV)/bin
UV_VERSION := 0.13.9

# The pip of $(PYTHON) installs into the environment, so that neither ensurepip nor activation is needed.
PIP := $(PYTHON) -m pip --python $(RUN)/python --disable-pip-version-check --no-input
LOCK := build/uv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-config --custom-compile-command "make lock" --quiet $(FLAGS)

# Some peers need Python 3.13: one beside $(PYTHON), unless that is new enough.
IS_NEWER := -c 'import sys; sys.exit(sys.version_info < (3, 13))' 2>/dev/null
NEWER = $(shell $(PYTHON) $(IS_NEWER) || \
	for each in python3.13 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13*/bin/python; do \
	"$$each" $(IS_NEWER) && echo "$$each" && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo drill test check lint rq-suite docs bench bench-peers lock clean
.NOTPARALLEL:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.runtime ## install, then run an e-mail, an image and a file job on shipped samples
	@$(RUN)/packmule demo

drill: $(VENV)/.dev ## install, then kill workers, schedulers, Redis and lock nodes under load; ARGS="--kills 1000" LIMITS=200 BATCHES=200 DURABLE=500 MAILS=500 TICKS=500 LOCKS=1000 MODEL=2000 say how often
	@$(RUN)/packmule drill $(ARGS)
	@$(RUN)/python tests/worker/limit_faults.py $(or $(LIMITS),50)
	@$(RUN)/python tests/worker/batch_faults.py $(or $(BATCHES),50)
	@$(RUN)/python tests/worker/durable_faults.py $(or $(DURABLE),50)
	@$(RUN)/python tests/worker/mail_faults.py $(or $(MAILS),50) 2000
	@$(RUN)/python tests/scheduler/tick_faults.py $(or $(TICKS),50)
	@$(RUN)/python tests/coordination/lock_faults.py $(LOCKS)
	@MODEL_EXAMPLES=$(or $(MODEL),500) $(RUN)/python -m pytest tests/model

test: $(VENV)/.dev ## run the tests, in parallel; ARGS="tests/worker -k drain" runs some, one by one
	@PYTHONDONTWRITEBYTECODE= $(RUN)/python -m pytest $(or $(ARGS),-n auto --dist worksteal)

check: lint test ## formatting, lint, types and tests

lint: $(VENV)/.dev ## formatting, lint and types
	@$(RUN)/ruff format --check --quiet --output-format concise .
	@$(RUN)/ruff check --quiet --output-format concise .
	@$(RUN)/mypy --no-error-summary

rq-suite: $(VENV)/.dev ## run RQ's own tests with our worker in the place of RQ's; ARGS="-k retry" narrows them
	@$(RUN)/python tests/rq_suite/run.py --pip $(PYTHON) $(ARGS)

docs: $(VENV)/.dev ## build the site of documentation in build/site; a broken link fails
	@$(RUN)/mkdocs build --quiet

bench: $(VENV)/.dev ## run the benchmarks
	@for each in benchmarks/*.py; do $(RUN)/python "$$each" || exit; done

bench-peers: ## measure other job systems beside ours; ARGS="--only noop --peers packmule,rq" narrows it
	@$(MAKE) --silent --no-print-directory VENV=build/peers build/peers/.peers
	@newer="$(NEWER)"; test -z "$$newer" || $(MAKE) --silent --no-print-directory \
		PYTHON="$$newer" VENV=build/peers-3.13 build/peers-3.13/.peers || true
	@! command -v npm >/dev/null || $(MAKE) --silent --no-print-directory build/node/node_modules || true
	@PYTHONPATH=benchmarks build/peers/bin/python -m peers $(ARGS)

lock: build/uv/bin/uv ## write the lock files again, keeping versions that still fit; FLAGS=--upgrade takes the newest
	@$(LOCK) --extra all --extra build --extra arrow --extra crypto --extra dev --extra fast --extra heic --extra mcp --extra otel --extra s3 \
		--output-file requirements-dev.lock
	@$(LOCK) --extra all --extra build --constraint requirements-dev.lock --output-file requirements.lock
	@$(LOCK) --extra all --extra build --extra crypto --extra fast --extra http --extra mcp --extra otel --extra s3 \
		--constraint requirements-dev.lock --output-file requirements-image.lock
	@$(LOCK) --extra all --extra build --extra fast --extra peers --constraint requirements.lock --output-file requirements-peers.lock

clean: ## delete what make made, but no data
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# One line, where pip would have printed a page.
define check_python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Packmule needs Python 3.11 or newer, \
	not %d.%d: name one with make PYTHON=python3.12" % sys.version_info[:2])'
endef

# An interrupted pip can leave half a package that looks installed, so an unfinished environment is not kept.
define install
	$(check_python)
	@if test -e $(VENV)/.unfinished; then rm -rf $(VENV); fi
	@test -x $(RUN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	@touch $(VENV)/.unfinished
	@echo "Installing $< into $(VENV)"
	@$(PIP) install -qq --require-hashes --requirement $<
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@mkdir -p $(VENV)/types && ln -sfn ../.. $(VENV)/types/packmule  # where mypy finds the package
	@touch $@
	@rm $(VENV)/.unfinished
endef

$(VENV)/.runtime: requirements.lock pyproject.toml
	$(install)

$(VENV)/.dev: requirements-dev.lock pyproject.toml
	$(install)

$(VENV)/.peers: requirements-peers.lock pyproject.toml
	$(install)

build/node/node_modules: benchmarks/peers/node/package.json
	@mkdir -p build/node
	@cp $< build/node
	@echo "Installing $< into build/node"
	@cd build/node && npm install --silent --no-audit --no-fund --no-package-lock --ignore-scripts
	@touch $@

build/uv/bin/uv: Makefile
	$(check_python)
	@$(PYTHON) -m venv --clear --without-pip build/uv
	@$(PYTHON) -m pip --python build/uv/bin/python --disable-pip-version-check --no-input install -qq uv==$(UV_VERSION)
	@touch $@
