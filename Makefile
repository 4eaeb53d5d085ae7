# `make` lists the targets. Two of them do everything from nothing: `make repro` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
REMOTE ?= minio
BASE ?= HEAD
COMPOSE ?= docker compose
FILES ?= -f deploy/compose.yaml
PROFILES ?= core
WATCHED = $(if $(filter observability,$(PROFILES)),-f deploy/compose.observability.yaml)
PROFILED = $(COMPOSE) $(FILES) $(WATCHED) $(patsubst %,--profile %,$(PROFILES))

.DEFAULT_GOAL := help
.PHONY: help setup repro test test-all lint docs audit secret-scan export diff storage push pull mlflow ui serve bench secrets images up down pin-images clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One line a try, so that a broken download is tried again and a half-made environment is never taken for a whole one.
.venv/ready: pyproject.toml constraints.txt
	@echo "installing into .venv (2 GB, a few minutes the first time) …"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"error: Python {v[0]}.{v[1]} is too old, 3.11 or later is needed; try make PYTHON=python3.11 setup")'
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $@

setup: .venv/ready ## make .venv with pinned packages and fetch the embedded backbone
	@$(BIN)/finsight backbone

repro: setup ## run the whole pipeline and say what came of it
	@$(BIN)/dvc repro
	@$(BIN)/finsight summary

export: setup ## run the pipeline up to the exported, checked bundle
	@$(BIN)/dvc repro export

test: setup ## the tests, under 20 minutes on two cores
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not long'

test-all: setup ## the tests and the long ones
	@$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready ## ruff, mypy, import contracts, and actionlint where it is installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@! command -v actionlint > /dev/null || actionlint

docs: .venv/ready ## the documentation as a site, in build/docs; a warning is an error
	@$(BIN)/python docs/generate.py
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo build/docs/index.html

audit: .venv/ready ## ask the advisory database about every pin; .ci/audit.toml has what is accepted
	@$(BIN)/python .ci/audit.py

secret-scan: .venv/ready ## look for secrets in what git knows; .secrets.baseline has what was looked at
	@$(BIN)/python .ci/secret_scan.py

diff: setup ## is the model in reports/ better? against another revision, version or champion: make diff BASE=main
	@$(BIN)/finsight compare --base $(BASE)

storage: setup ## a development S3 server on 127.0.0.1:9000
	@$(BIN)/finsight storage

push: setup ## send data and models to a DVC remote: make push REMOTE=minio
	@$(BIN)/finsight push -r $(REMOTE)

pull: setup ## fetch data and models from a DVC remote: make pull REMOTE=minio
	@$(BIN)/finsight pull -r $(REMOTE)

mlflow: setup ## a development MLflow server on 127.0.0.1:5000, artifacts on the S3 server of make storage
	@$(BIN)/finsight mlflow --server

ui: setup ## this clone's runs and model versions in the browser
	@$(BIN)/finsight mlflow

serve: setup ## answer predictions over REST from the exported bundle
	@$(BIN)/finsight serve

bench: setup ## side-by-side benchmarks, one table each
	@for file in bench/*.py; do $(BIN)/python $$file || exit 1; done

secrets: .venv/ready ## write the secrets of deploy/compose.yaml that are not there yet, into deploy/secrets/
	@$(BIN)/python deploy/make_secrets.py

images: ## build the images of deploy/compose.yaml
	@sh deploy/ready.sh engine $(COMPOSE)
	@$(PROFILED) build

up: ## start the service and what it works with on this machine (docs/deploy.md); all: make up PROFILES="core observability"
	@sh deploy/ready.sh all $(COMPOSE)
	@$(MAKE) --no-print-directory secrets
	@$(PROFILED) up --detach --build

down: ## stop them; what they keep stays in volumes
	@sh deploy/ready.sh engine $(COMPOSE)
	@$(COMPOSE) $(FILES) --profile core --profile observability down

pin-images: .venv/ready ## write the digests behind the images' tags, as the registries answer them now
	@$(BIN)/python deploy/pin_images.py

clean: ## remove the pipeline's outputs; the environment, DVC's cache and MLflow's database stay
	@rm -rf data/raw data/prepared models/checkpoint models/bundle models/provenance reports/data_docs reports/predictions.parquet reports/mistakes.csv reports/failures.csv reports/registration.json
