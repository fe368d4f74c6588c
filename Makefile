# make demo: from a fresh clone to synthetic scans with masks and reports, on the embedded phantom.
# make test: lint and all tests that need no programs of their own.
# make slurm-test: the jobs of docs/hpc.md on a Slurm that the tests start (as root, with slurm-wlm and munge).
# make container-test: the images, built and run (docs/containers.md).
# make image, make sif: the image for Docker or podman, for Apptainer; BUILD="--build-arg NAME=VALUE ..." for the rest.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
TEMPLATE := $(DEMO)/data/derivatives/templateflow/tpl-RatPhantom
APP := $(BIN)/bids-alphagan $(DEMO)/data $(DEMO)/out
OPTIONS := --preset demo --template $(TEMPLATE)

ENGINE ?= docker
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' bids_alphagan/__init__.py)
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null || echo unknown)
LABELS = --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION)

.PHONY: demo pictures test lint unit slurm-test container-test image sif lock descriptor clean

demo: .venv/app
	test -f $(DEMO)/data/dataset_description.json || $(BIN)/bids-alphagan-phantom $(DEMO)/data --n-subjects 12 --shape 32 32 20 --zooms 0.75 0.75 1
	$(APP) participant $(OPTIONS)
	$(APP) group $(OPTIONS)
	@echo
	@echo "Open these:"
	@echo "  $(CURDIR)/$(DEMO)/out/group.html                  the report: real beside synthetic"
	@echo "  $(CURDIR)/$(DEMO)/out/sub-01.html                 one animal's preparation and masks"
	@echo "  $(CURDIR)/$(DEMO)/out/derivatives/sigmarat2       the synthetic cohort, a BIDS data set"

# The README's pictures, from the demo's reports.
pictures: demo
	$(BIN)/python docs/pictures.py $(DEMO)/out

test: .venv/dev lint unit

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

slurm-test: .venv/dev
	$(BIN)/python -m pytest -m slurm --durations 0 tests/slurm/test_slurm.py

container-test: .venv/dev .venv/tools
	$(BIN)/python -m pytest -m container -s tests/containers

image:
	$(ENGINE) build $(LABELS) $(BUILD) -t bids-alphagan:$(VERSION) .

sif:
	apptainer build $(LABELS) $(BUILD) bids-alphagan.sif Singularity.def

# The images' lock files and the Boutiques descriptor, after a change of dependencies or options.
lock: .venv/app .venv/tools
	$(BIN)/python container/lock.py .venv/tools/bin/uv

descriptor: .venv/app
	$(BIN)/python boutiques/describe.py > boutiques/bids-alphagan.json

.venv/app: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/dev: .venv/app
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/tools: .venv/app container/tools.txt
	$(PYTHON) -m venv .venv/tools
	.venv/tools/bin/python -m pip install --quiet --requirement container/tools.txt
	touch $@

clean:
	rm -rf .venv $(DEMO)
