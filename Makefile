# `make` lists the targets. Each target first installs what it needs.

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
N ?= 200

# Let Python store compiled modules even if the shell forbids it: a start then takes a third of the time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup up doctor unit test test-under-load kubernetes test-control-plane test-pod test-cluster chaos contract fuzz coverage check format docs imports bench lock images

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28

setup: ## install missing Debian packages, and a Python environment in .venv
	@.ci/setup

up: setup ## start the whole platform on this machine; Ctrl-C stops it
	@exec setpriv --pdeathsig TERM .venv/bin/moorage up

doctor: setup ## say what this machine lacks, and which command installs it
	@.venv/bin/moorage doctor

unit: setup ## run the tests that start no server, in half a minute
	$(PYTEST) -q -n 2 --unit $(ARGS)

test: setup ## run the suite, or ARGS=tests/…, against real servers
	$(PYTEST) -n 2 --dist loadfile $(ARGS)

test-under-load: setup ## run the suite while ten other processes keep the processors busy
	PYTHONPATH=tests .ci/with-toolchains $(PYTHON) -m support.load --processes 10 -- \
		$(PYTHON) -m pytest -n 2 --dist loadfile $(ARGS)

kubernetes: setup ## build Kubernetes for the tests now (only once, ten minutes)
	-@PYTHONPATH=tests $(PYTHON) -m support.kube.prepare kubernetes

test-control-plane: setup ## test the operator and the API's cluster side on a real control plane
	$(PYTEST) tests/crds tests/operator tests/api/sandboxes $(ARGS)

test-pod: setup ## run gate, box and vnc as a pod on a real one-node Kubernetes
	$(PYTEST) -m node $(ARGS)

test-cluster: setup ## install the chart on a real one-node Kubernetes and chat through a proxy
	$(PYTEST) -m cluster $(ARGS)

chaos: setup ## kill processes at random moments of a run, N=200 times
	CHAOS_ROUNDS=$(N) $(PYTEST) -m chaos --timeout 0 $(ARGS)

contract: setup ## prove the HTTP contract against a running server, URL=http://…
	CONTRACT_URL=$(URL) $(PYTHON) -m pytest -c tests/contract/pytest.ini tests/contract $(ARGS)

fuzz: setup ## send generated requests, N=200 examples for each operation
	FUZZ_EXAMPLES=$(N) FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(PYTHON) -m pytest tests/end_to_end/test_fuzz.py $(ARGS)

coverage: setup ## run the suite, or ARGS=tests/…, and print the least tested modules
	.ci/coverage $(ARGS)

check: setup imports ## check lint, formatting, types, imports, names and places, and that models, lock files and documentation are current
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/local/test_schema.py tests/test_dependencies.py tests/test_docs.py tests/test_layout.py \
		tests/test_names.py tests/test_shared_names.py tests/test_sql_places.py

format: setup ## format the code
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: setup ## write the generated pages of docs/ again: settings, chart values, authorization
	for page in settings chart_values authorization; do $(PYTHON) docs/$$page.py; done

imports: setup ## prove that imports go one way
	.venv/bin/lint-imports

bench: ## measure and print a table
	@.ci/setup wrk
	PYTHONPATH=tests .ci/with-toolchains $(PYTHON) -m benchmarks $(ARGS)

lock: setup ## write the lock files again from pyproject.toml
	.ci/lock

images: ## build the six images with docker, or with ENGINE=podman or buildah
	@.ci/images
