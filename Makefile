# Everything is kept in .venv; nothing else on this machine is touched.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := crds operator runtime cli devcluster
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes

.PHONY: help demo demo-async test mutants snapshots lint types bench bench-peers bench-operator bench-async test-cluster generate sbom lock format clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.paths ## from `kubectl apply` to a prediction, on this machine (KEEP=1 leaves it running)
	@$(BIN)/python -m cortex_devcluster.demo

demo-async: .venv/.paths ## from `kubectl apply` to the result of a job, on this machine
	@$(BIN)/python -m cortex_devcluster.demo words

test: .venv/.dev lint ## everything that is checked: style, types, layers, tests
	@$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: .venv/.dev ## style, types, layers, generated files
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > .venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log; exit 1; }
	@$(BIN)/python -m cortex_api --check --docs docs crds charts/cortex/files/crds
	@$(BIN)/python charts/reference.py --check

mutants: .venv/.dev ## which small changes of the code does no test notice? (an hour; OF=render, or a file, for a part of it)
	@$(BIN)/python -m tests.mutants $(OF)

snapshots: .venv/.dev ## the rendered objects that tests/operator/test_snapshots.py compares with
	@$(BIN)/python -m tests.operator.test_snapshots

test-cluster: .venv/.dev ## tests/cluster on the cluster of KUBECONFIG
	@[ -n "$(KUBECONFIG)" ] || { echo "KUBECONFIG is not set: it names the cluster, for example make test-cluster KUBECONFIG=~/.kube/config" >&2; exit 1; }
	@CORTEX_TEST_KUBECONFIG=$(KUBECONFIG) $(BIN)/python -m pytest -q tests/cluster

bench: .venv/.dev ## requests/s as ratios to limits written by hand, in one run
	@$(BIN)/python benchmarks/run.py

bench-peers: .venv/.dev ## the runtime beside other model servers, each in an environment of its own in build/peers (half an hour)
	@$(BIN)/python benchmarks/peers_.py

bench-operator: .venv/.dev ## 1,000 APIs through the operator against writing the same objects raw (on KUBECONFIG, or a dev cluster)
	@$(BIN)/python benchmarks/operator_.py

bench-async: .venv/.dev ## jobs/s and latency of AsyncAPIs as ratios to the raw queue, in one run
	@$(BIN)/python benchmarks/async_.py

generate: .venv/.dev ## the CustomResourceDefinitions and pages of the docs, from the models and the chart's values
	@$(BIN)/python -m cortex_api --docs docs crds charts/cortex/files/crds
	@$(BIN)/python charts/reference.py

sbom: .venv/.ready ## bills of materials of the images (CycloneDX), in build/sbom
	@$(BIN)/python requirements/sbom.py build/sbom

format: .venv/.dev ## the code, as ruff wants it
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .

lock: .venv/.ready ## requirements/*.txt, from setup.cfg: dev first, and the others as parts of it
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'uv >=0.9'
	@set -e; for set in dev local operator runtime runtime-tensorflow; do \
	  case $$set in dev) extras="operator runtime cli devcluster tensorflow test"; within=;; local) extras="operator runtime cli devcluster"; within="-c requirements/dev.txt";; \
	    runtime-tensorflow) extras="runtime tensorflow"; within="-c requirements/dev.txt";; \
	    *) extras=$$set; within="-c requirements/dev.txt";; esac; \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    $$(printf -- '--extra %s ' $$extras) $$within --output-file requirements/$$set.txt setup.cfg; \
	done

clean: ## removes what was made here
	@rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache

.venv/.ready: requirements/local.txt setup.cfg
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed, and no $(PYTHON) was found: install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V). Name a newer one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) can make no virtual environment: install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Installing into .venv (once; about a minute) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) -r requirements/local.txt
	@printf '#!%s\nimport sys\nfrom cortex_cli.__main__ import main\nsys.exit(main())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/cortex && chmod +x $(BIN)/cortex
	@printf '#!%s\nimport sys\nfrom cortex_cli.__main__ import plugin\nsys.exit(plugin())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/kubectl-cortex && chmod +x $(BIN)/kubectl-cortex
	@touch $@

# Written anew whenever PACKAGES changes, without installing anything.
.venv/.paths: Makefile .venv/.ready
	@printf '%s\n' $(addprefix $(CURDIR)/,$(PACKAGES)) > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/cortex.pth
	@touch $@

.venv/.dev: .venv/.ready requirements/dev.txt | .venv/.paths
	@echo "Installing what the tests need (once; TensorFlow among it: a minute or two) ..."
	@$(PIP) -r requirements/dev.txt
	@touch $@
