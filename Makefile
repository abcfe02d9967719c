# Everything is kept in .venv; nothing else on this machine is touched.
PYTHON ?= python3
BIN := .venv/bin
PACKAGES := crds operator runtime cli devcluster
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes

.PHONY: help demo demo-async test mutants snapshots lint types bench bench-peers bench-start bench-operator bench-async test-clients axe screenshots test-cluster generate docs sbom lock format clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/.paths ## run an API on a local development cluster (KEEP=1 keeps it running)
	@$(BIN)/python -m cortex_devcluster.demo

demo-async: .venv/.paths ## run an AsyncAPI on a local development cluster
	@$(BIN)/python -m cortex_devcluster.demo words

test: .venv/.dev lint ## run all checks: style, types, layers, generated files, tests
	@$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: .venv/.dev ## check style, types, layers and generated files
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-cache > .venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log; exit 1; }
	@$(BIN)/python -m cortex_api --check --docs docs crds charts/cortex/files/crds
	@$(BIN)/python charts/reference.py --check
	@$(BIN)/python charts/version.py --check

mutants: .venv/.dev ## run mutation tests (ten minutes; OF=render or a file for a part of the code)
	@$(BIN)/python -m tests.mutants $(OF)

snapshots: .venv/.dev ## update the rendered objects and statuses of tests/operator/test_snapshots.py
	@$(BIN)/python -m tests.operator.test_snapshots

test-clients: .venv/.dev ## run the clients of Triton and KServe against the runtime, installed in build/clients
	@$(BIN)/python -m tests.clients.run

axe: .venv/.dev ## check the accessibility of the page with axe-core, installed in build/axe
	@command -v npm >/dev/null || { echo "npm not found; axe-core is a package of npm" >&2; exit 1; }
	@[ -d build/axe/node_modules/axe-core ] || npm install --silent --no-audit --no-fund --prefix build/axe 'axe-core@^4'
	@$(BIN)/python -m pytest -q tests/cli/ui/test_browser.py -k accessible

screenshots: .venv/.dev ## take the pictures of docs/ui.md in a headless Chromium
	@$(BIN)/python -m tests.cli.ui.screenshots

test-cluster: .venv/.dev ## run tests/cluster on the cluster of KUBECONFIG
	@[ -n "$(KUBECONFIG)" ] || { echo "KUBECONFIG is not set; for example: make test-cluster KUBECONFIG=~/.kube/config" >&2; exit 1; }
	@CORTEX_TEST_KUBECONFIG=$(KUBECONFIG) $(BIN)/python -m pytest -q tests/cluster

bench: .venv/.dev ## compare throughput with handwritten servers
	@$(BIN)/python benchmarks/bench_runtime.py

bench-peers: .venv/.dev ## compare the runtime with other model servers, installed in build/peers (half an hour)
	@$(BIN)/python benchmarks/bench_peers.py

bench-start: .venv/.dev ## measure start, memory of each worker, restart of a killed worker and reload
	@$(BIN)/python benchmarks/bench_start.py

bench-operator: .venv/.dev ## compare reconciling 1,000 APIs with writing the objects directly (on KUBECONFIG, or a dev cluster)
	@$(BIN)/python benchmarks/bench_operator.py

bench-async: .venv/.dev ## compare throughput and latency of AsyncAPIs with direct use of the queue
	@$(BIN)/python benchmarks/bench_async.py

generate: .venv/.dev ## generate the CustomResourceDefinitions and docs pages from the models and the chart's values
	@$(BIN)/python -m cortex_api --docs docs crds charts/cortex/files/crds
	@$(BIN)/python charts/reference.py
	@$(BIN)/python charts/version.py

docs: build/docs-venv/.ready ## build the documentation as a site, in build/docs/index.html
	@build/docs-venv/bin/zensical build --clean --strict

build/docs-venv/.ready: requirements/docs.txt | .venv/.ready
	@$(PYTHON) -m venv --clear build/docs-venv
	@build/docs-venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

sbom: .venv/.ready ## write bills of materials of the images (CycloneDX) to build/sbom
	@$(BIN)/python requirements/sbom.py build/sbom

format: .venv/.dev ## format the code with ruff
	@$(BIN)/ruff check -q --fix . ; $(BIN)/ruff format -q .

lock: .venv/.ready ## update requirements/*.txt from setup.cfg
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'uv >=0.9'
	@set -e; for set in dev local operator runtime runtime-tensorflow; do \
	  case $$set in dev) extras="operator runtime tracing cli devcluster tensorflow test"; within=;; local) extras="operator runtime tracing cli devcluster"; within="-c requirements/dev.txt";; \
	    runtime-tensorflow) extras="runtime tracing tensorflow"; within="-c requirements/dev.txt";; \
	    runtime) extras="runtime tracing"; within="-c requirements/dev.txt";; *) extras=$$set; within="-c requirements/dev.txt";; esac; \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    $$(printf -- '--extra %s ' $$extras) $$within --output-file requirements/$$set.txt setup.cfg; \
	done
	@echo 'zensical >=0.0.73, <0.1' | $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --output-file requirements/docs.txt -

clean: ## remove .venv, build and caches
	@rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache

.venv/.ready: requirements/local.txt setup.cfg
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or newer, or run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is required; $(PYTHON) is $$($(PYTHON) -V). Run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot create virtual environments; install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Installing into .venv (only once, about a minute) ..."
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) -r requirements/local.txt
	@printf '#!%s\nimport sys\nfrom cortex_cli.__main__ import main\nsys.exit(main())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/cortex && chmod +x $(BIN)/cortex
	@printf '#!%s\nimport sys\nfrom cortex_cli.__main__ import plugin\nsys.exit(plugin())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/kubectl-cortex && chmod +x $(BIN)/kubectl-cortex
	@touch $@

# Updated when PACKAGES changes, without a new installation.
.venv/.paths: Makefile .venv/.ready
	@printf '%s\n' $(addprefix $(CURDIR)/,$(PACKAGES)) > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/cortex.pth
	@touch $@

.venv/.dev: .venv/.ready requirements/dev.txt | .venv/.paths
	@echo "Installing the test dependencies, including TensorFlow (only once, one or two minutes) ..."
	@$(PIP) -r requirements/dev.txt
	@touch $@
