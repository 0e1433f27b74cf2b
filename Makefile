# The environment is installed from requirements.txt, and again when that file changes.
#   make demo   the whole benchmark on a small suite      make test   the tests
#   make paper  the paper's suite                         make lint   formatting and static checks
#   make docs   the documentation as a site, in build/docs
#   make gpu    an hour on a GPU: speeds, quality, gradients, memory, the tests of the GPU, shared results (docs/gpu.md)
#   make mutants   small changes of the code, which the tests must notice (CONTRIBUTING.md)
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import ensurepip' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.made-from-requirements
# Container images often set it. Each of the many processes would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: environment demo paper gpu test lint docs mutants lock schema
environment: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11, 3.12 or 3.13 with venv found (on Debian: apt install python3-venv)"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is " + sys.version.split()[0] + "; run: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements.txt
	$(BIN)/pip install --disable-pip-version-check --quiet --no-build-isolation --no-deps --no-index -e .
	@touch $@

demo: $(STAMP)
	$(BIN)/snakemake --cores all --config suite=demo
	@$(BIN)/msgunet show demo

paper: $(STAMP)
	$(BIN)/snakemake --cores all
	@$(BIN)/msgunet show paper

gpu: $(STAMP)
	$(BIN)/msgunet hour

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint --config suite=tiny

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "$(CURDIR)/build/docs/index.html"

# MODULE='claims losses' chooses modules, SAMPLE=0 all of their mutants. The tools have an environment of their own.
mutants: $(STAMP) .venv-mutants/.made-from-makefile
	$(BIN)/python tests/mutants.py $(MODULE) $(if $(SAMPLE),--sample $(SAMPLE))

.venv-mutants/.made-from-makefile: Makefile $(STAMP)
	$(BIN)/python -m venv --clear .venv-mutants
	.venv-mutants/bin/pip install --disable-pip-version-check --quiet cosmic-ray==8.7.0 coverage==7.17.5
	@touch $@

# Needs uv. Locks the dependencies of pyproject.toml in requirements.txt, with the same versions in environment.yml.
# Versions that still fit are kept; UPGRADE=--upgrade upgrades all, UPGRADE='--upgrade-package NAME' one package.
lock:
	cp requirements.txt .requirements.new
	uv pip compile pyproject.toml --all-extras --constraints constraints.txt --output-file .requirements.new $(UPGRADE) --quiet \
		--universal --fork-strategy fewest --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header
	(echo "# Written by 'make lock' for Linux and macOS, Python 3.11 to 3.13. Do not edit."; cat .requirements.new) > requirements.txt
	rm .requirements.new
	(sed -n '1,/- pip:/p' environment.yml; sed -n 's/^\([a-zA-Z0-9].*[^ ]\) *\\$$/      - \1/p' requirements.txt) > .environment.new
	mv .environment.new environment.yml

schema: $(STAMP)
	$(BIN)/python -c 'import json; from msgunet.suite.models import Suite; print(json.dumps(Suite.model_json_schema(), indent=2))' > config/suite.schema.json
