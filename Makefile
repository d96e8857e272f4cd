# Two commands matter: `make lab` and `make test`. Both install what they need, once.

# `make lab PINS=` installs the newest versions that fit instead of the pinned ones.
PYTHON ?= python3
PINS ?= constraints.txt
WORKERS ?= 2

VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
ALLOW_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
LESSON00 := $(firstword $(wildcard notebooks/00_*.ipynb))

# No display: Linux without X11 or Wayland. A Mac always has one.
ifneq ($(shell uname),Darwin)
ifeq ($(DISPLAY)$(WAYLAND_DISPLAY),)
HEADLESS ?= 1
endif
endif
BROWSER_FLAGS := $(if $(filter-out 0,$(HEADLESS)),--no-browser --ip=127.0.0.1)

.PHONY: help lab run test test-full test-mps exercises notebooks purifiers playground readme links bench growth measure site \
  assignments deck handouts quiz sealed test-browser lint size clean

help: ## this list
	@grep -E '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

lab: $(VENV)/.lab ## install, then open JupyterLab on lesson 00 (HEADLESS=1: no browser)
	@$(if $(BROWSER_FLAGS),echo "JupyterLab starts without a browser; open the address below.")
	@$(PY) -m jupyterlab $(BROWSER_FLAGS) $(ALLOW_ROOT) --log-level=WARN \
	  --LabApp.default_url=/lab/tree/$(LESSON00)

run: $(VENV)/.lab ## execute every lesson on its own data set, into build/
	OMP_NUM_THREADS=1 $(PY) tools/execute.py run

test: lint ## lint, unit tests, then nbval over every notebook
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) tests
	OMP_NUM_THREADS=1 $(PY) tools/nbval.py

test-full: test $(VENV)/.docs ## the same, the slow tests, and every lesson under MNIST
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow tests
	OMP_NUM_THREADS=1 $(PY) tools/execute.py run --dataset mnist

exercises: $(VENV)/.lab ## write exercises/ and the solutions from notebooks/
	$(PY) tools/exercises.py

notebooks: $(VENV)/.lab ## run the lessons and save their outputs in notebooks/
	OMP_NUM_THREADS=1 $(PY) tools/execute.py refresh

readme: ## write the tables of lessons: of the README, of the teacher's guide
	$(PYTHON) tools/readme.py
	$(PYTHON) tools/guide.py

links: ## write every badge and bootstrap: make links REPO=owner/name TAG=v1.2
	$(PYTHON) tools/links.py $(if $(REPO),--repo $(REPO)) $(if $(TAG),--tag $(TAG))

playground: $(VENV)/.lab ## train the networks of docs/playground and write their weights
	$(PY) -m experiments.playground $(ARGS)

results-%: $(VENV)/.lab ## run an experiment into data/results/ (DATASET=cifar10: that one)
	$(PY) -m experiments.$(subst -,_,$*) $(if $(DATASET),--datasets $(DATASET)) $(ARGS)

results-audit: $(VENV)/.bench # its peers

purifiers: $(VENV)/.lab ## train the purifiers of lessons 12 and 13 (ARGS=--again: anew)
	$(PY) -m experiments.purifiers $(ARGS)

bench: $(VENV)/.test $(VENV)/.bench ## this package beside its peers, into data/results/bench.csv
	@for name in attacks detection poisons certify threads house; do \
	  OMP_NUM_THREADS=1 $(PY) benchmarks/$$name.py || exit 1; done

growth: $(VENV)/.test $(VENV)/.neighbours ## how the cost of each score grows with the samples
	OMP_NUM_THREADS=1 $(PY) benchmarks/growth.py

site: $(VENV)/.docs ## the readers' site, into build/site-html; checks every link
	OMP_NUM_THREADS=1 $(PY) tools/website.py

deck: $(VENV)/.docs ## slides of each lesson from its own figures, into build/kit
	$(PY) tools/deck.py

handouts: $(VENV)/.docs $(VENV)/.browser ## one printed page for each lesson, into build/kit (chromium)
	$(PY) tools/handouts.py

quiz: $(VENV)/.docs ## the predictions of each lesson as a quiz, into build/kit
	$(PY) tools/quiz.py

assignments: $(VENV)/.grade ## a course folder for nbgrader, into build/assignments
	$(PY) tools/assignments.py

sealed: $(VENV)/.grade ## student copies, their answers encrypted: FOLDER=new LESSONS="02 mine.ipynb"
	$(PY) tools/sealed.py seal $(FOLDER) $(LESSONS)

test-browser: $(VENV)/.browser $(VENV)/.docs ## lessons and the site in a real browser (LESSONS=all: all lessons)
	OMP_NUM_THREADS=1 LESSONS="$(LESSONS)" $(PY) -m pytest -m "" tests/browser

lint: $(VENV)/.test ## ruff over code and notebooks, mypy over the package
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

measure: $(VENV)/.test $(VENV)/.bench ## the house on an idle machine: lines, minutes, `make test`, `make bench`
	$(PY) benchmarks/house.py test bench

size: ## code lines of the package, by storey
	$(PYTHON) tools/size.py

clean: ## remove the environments and what was built
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache .mypy_cache

# The oldest supported torch and the newest each read their own list of MPS kernels.
OLDEST := .venv-mps-oldest
test-mps: $(VENV)/.test $(OLDEST)/.done ## no operator and no float64 that MPS lacks (no Mac needed)
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest tests/mps
	OMP_NUM_THREADS=1 $(PY) -m pytest tests/mps

$(OLDEST)/.done: pyproject.toml $(UV)
	$(UV) venv -q --clear --python $(PY) $(OLDEST)
	$(UV) pip install -q --python $(OLDEST) "torch==2.11.0" "torchvision==0.26.0" \
	  -e . pytest nbformat ipython pyyaml
	@touch $@

# The environment. A stamp per extra: nothing is asked of the network while it is up to date.
EXTRAS := $(addprefix $(VENV)/.,lab test bench docs grade browser neighbours)
$(EXTRAS): $(VENV)/.%: pyproject.toml $(wildcard constraints.txt) $(UV)
	@echo "installing the packages ($*); the first time takes a minute or two"
	@# Compiled once here, as pip does it, and not by every kernel that starts.
	@$(UV) pip install --compile-bytecode --python $(PY) $(if $(PINS),-c $(PINS)) -e ".[lab,$*]"
	@# torchattacks asks for a requests that is too old for JupyterLab, and works with a new one.
	@[ $* != test ] || $(UV) pip install -q --python $(PY) --no-deps torchattacks==3.5.1
	@# nbgrader serves teachers at the command line; its buttons stay out of the students' JupyterLab.
	@[ ! -e $(VENV)/bin/nbgrader ] || \
	  $(PY) -m jupyter labextension disable --level=sys_prefix @jupyter/nbgrader >/dev/null 2>&1
	@touch $@

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; ok = (3, 11) <= v <= (3, 14); ok or \
	  print("$(PYTHON) is Python %d.%d; this course needs 3.11, 3.12 or 3.13." % v, \
	  "Name another one: make PYTHON=python3.12 ..."); sys.exit(not ok)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)."; \
	  exit 1; }
	@$(PY) -m pip install -q --disable-pip-version-check uv
