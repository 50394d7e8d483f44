# `make help` lists what there is. Everything runs in .venv, which is made when it is needed.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
RUN := $(VENV)/bin/python -m
READY := $(VENV)/.ready
export OMP_WAIT_POLICY := passive
export GOMP_SPINCOUNT := 0

.DEFAULT_GOAL := help
.PHONY: help setup serve build test mutants bench bench-gpu bench-build bench-search bench-pages lint check confirm new-topic pins zip clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv from the pinned requirements

$(READY): requirements.txt package-lock.json pyproject.toml scripts/set_up.py
	@$(PYTHON) scripts/set_up.py $(VENV)
	@touch $@

serve: $(READY)  ## Serve both languages on 127.0.0.1:PORT with live reload (PORT=8000)
	@$(RUN) scripts.pipeline serve --port $(PORT)

build: $(READY)  ## Make everything and publish it whole to site/
	@$(RUN) scripts.pipeline build

test: $(READY) lint  ## Every test: snippets with evidence, experiments, build, site in a browser
	@$(RUN) scripts.pipeline update evidence --always --keep-going
	@$(RUN) scripts.pipeline build
	@$(RUN) pytest --ignore=tests/snippets --numprocesses 3 --dist loadfile --no-loadscope-reorder

mutants: $(READY)  ## Plant bugs in changed snippets; each must be caught or explained (minutes)
	@$(RUN) scripts.pipeline mutants

bench: $(READY)  ## Race snippets against their references, on a quiet machine (RACES=topics or snippets)
	@$(RUN) scripts.pipeline bench $(RACES)

bench-gpu: $(READY)  ## Absolute times of the races on a CUDA device, in float32 and bfloat16
	@$(RUN) scripts.pipeline bench-gpu $(RACES)

bench-build: $(READY)  ## Time builds beside a plain one, and tell what each redoes (half an hour)
	@$(RUN) scripts.pipeline bench-build

bench-search: $(READY)  ## Measure search against Material's defaults and Pagefind (minutes)
	@$(RUN) scripts.pipeline bench-search

bench-pages: $(READY)  ## Lighthouse's performance of the built site, on a quiet machine (minutes)
	@$(RUN) scripts.pipeline bench-pages

lint: $(READY)  ## Style and types
	@$(RUN) ruff check
	@$(RUN) mypy snippets scripts

check: $(READY)  ## Faults in pages and translations, in a second
	@$(RUN) scripts.pipeline check

confirm: $(READY)  ## Record SECTION=page#id as in step though only one language changed
	@$(RUN) scripts.pipeline confirm $(SECTION)

new-topic: $(READY)  ## Every file of a new topic NAME=snake_case (CATEGORY=computer-vision)
	@$(RUN) scripts.pipeline new-topic $(NAME) $(if $(CATEGORY),--category $(CATEGORY))

pins:  ## Resolve requirements.in afresh into requirements.txt
	@$(PYTHON) -m venv .build/pins && .build/pins/bin/pip install --quiet --requirement requirements.in setuptools
	@{ head -n 1 requirements.txt; .build/pins/bin/pip freeze --all | sed -E 's/\+cpu//; /^pip==/d'; } > .build/pins.txt
	@mv .build/pins.txt requirements.txt && rm -rf .build/pins

zip: build  ## Pack site/ as proven-dl.zip, which opens from a folder, without a server
	@$(RUN) scripts.pipeline zip

clean:  ## Remove everything generated, .venv excepted
	@rm -rf .build site
