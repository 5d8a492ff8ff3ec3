# The book, from a clone to a finished site. `make help` lists the targets.
#
# Each step is done again only if something that it is made from has changed. Every file is written to a temporary name
# and then renamed, and every folder has a file that is written last, so that a step may be interrupted anywhere.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Two makes at once would spoil each other's files. So every goal but help and lab is made by a second make, which holds a
# lock on this folder for as long as it, or a recipe of it, lives.
ifneq ($(if $(BUILD_LOCKED),,$(filter-out help lab,$(MAKECMDGOALS))),)
ifneq ($(shell mkdir -p _build; flock --nonblock _build/lock true || [ $$? != 1 ] || echo busy),)
$(error Another make is at work in this folder: wait for its end, or end it)
endif
.PHONY: locked $(MAKECMDGOALS)
$(sort $(MAKECMDGOALS)): locked ; @:
locked: ; @flock --nonblock _build/lock $(MAKE) --no-print-directory BUILD_LOCKED=yes $(MAKECMDGOALS)
else

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help book lab test check store html clean FORCE

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# The environment's own kernel, whatever kernels the user has installed elsewhere.
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PLATFORM_DIRS := 1
# MindSpore reports errors only.
export GLOG_v ?= 3

INSTALLED := .venv/installed
PACKAGE := $(shell find unet3d_tutorial -name '*.py' -o -name 'viewer.*')
package = $(wildcard $(addprefix unet3d_tutorial/,$(1)))
DATA_CODE := $(call package,volume.py labels.py phantom/*.py files/*.py luna16/conversion.py luna16/layout.py luna16/anatomy.py)
TRAIN_CODE := $(DATA_CODE) $(call package,config.py transforms/*.py augment.py cache.py dataset.py model.py schedule.py \
	losses.py sliding_window.py inference.py postprocessing.py metrics.py training.py training_step.py cpu/*.py \
	runs/checkpoints.py runs/device.py runs/folder.py runs/history.py runs/networks.py runs/processes.py runs/record.py runs/workers.py)
EVALUATE_CODE := $(TRAIN_CODE) $(call package,sample_ct.py evaluation.py baseline.py view/scores.py view/style.py predict/evaluate.py)
SCRIPTS := $(wildcard notebooks/[0-9]*.py)
EXECUTED := $(patsubst notebooks/%.py,_build/chapters/%.ipynb,$(SCRIPTS))
PROSE := _config.yml _toc.yml LICENSE-text.md CONTRIBUTING.md CHANGELOG.md $(shell find book -type f 2>/dev/null)

help:
	@echo "make book    everything: environment, data, training, chapters, site in _build/html"
	@echo "make lab     JupyterLab on the chapters (options: make lab LAB_ARGS=--no-browser)"
	@echo "make test    every check of the project; .ci/run calls it"
	@echo "make check   the checks that need neither data nor training"
	@echo "make store   for authors: execute the chapters that changed and store them in notebooks/"
	@echo "make clean   remove _build, data/phantom* and runs/quick"

# ------------------------------------------------------------------------------------------------------- for the reader
book: html
	@echo "The book is ready: open _build/html/index.html"

lab: $(INSTALLED)
	jupyter lab --notebook-dir=. $(LAB_ARGS) notebooks

clean:
	rm -rf _build data/phantom data/phantom-luna16 runs/quick
	@echo "Kept: .venv, everything else in data and runs, and the sample CT in the user's cache."

# ---------------------------------------------------------------------------------------------- environment, data, training
$(INSTALLED): pyproject.toml constraints.txt tools/install.sh
	@echo "== Installing Python packages into .venv (a few minutes, once)"
	@$(if $(BUILD_LOCKED),tools/install.sh,$(MAKE) --no-print-directory $@)

# Complete but older than its code: begin afresh. Incomplete: go on where it stopped.
data/phantom/done: $(DATA_CODE) | $(INSTALLED)
	@echo "== Making synthetic chest CTs (minutes)"
	@if [ -e $@ ]; then rm -rf data/phantom data/phantom-luna16; fi
	unet3d data phantom --preset quick
	@touch $@

# The real CT comes from the network, once. Without it the book goes on; when it comes later, what used it is redone.
_build/sample: FORCE | $(INSTALLED)
	@mkdir -p _build
	@if unet3d data sample > _build/sample.log 2>&1; then found=yes; else found=no; fi; \
	if [ $$found = no ]; then echo "== No sample CT; the book goes on without it:"; tail -n 5 _build/sample.log; fi; \
	if [ "$$(cat $@ 2>/dev/null)" != $$found ]; then echo $$found > $@; fi

runs/quick/unet3d.ckpt: data/phantom/done $(TRAIN_CODE) | $(INSTALLED)
	@echo "== Training on the synthetic CTs (minutes)"
	@stale=; if [ -e $@ ]; then stale="a finished run"; fi; \
	for made_from in $^; do \
		if [ -e runs/quick/config.yaml ] && [ $$made_from -nt runs/quick/config.yaml ]; then stale=$${stale:-"half a run"}; fi; \
	done; \
	if [ -n "$$stale" ]; then echo "   runs/quick holds $$stale of older code or data: beginning afresh"; rm -rf runs/quick; fi
	unet3d train --preset quick
	@touch $@

runs/quick/evaluation.json: runs/quick/unet3d.ckpt _build/sample $(EVALUATE_CODE) | $(INSTALLED)
	@echo "== Evaluating the trained network (minutes)"
	unet3d evaluate --preset quick
	@touch $@

# ------------------------------------------------------------------------------------------------------ chapters and site
_build/chapters/%.ipynb: notebooks/%.py $(PACKAGE) tools/execute.py tools/notebooks.py \
		data/phantom/done runs/quick/unet3d.ckpt runs/quick/evaluation.json _build/sample | $(INSTALLED)
	@echo "== Executing $<"
	@python tools/execute.py $< --to _build/chapters

html: _build/html/done

_build/html/done: $(EXECUTED) $(PROSE) $(PACKAGE) tools/site.sh | $(INSTALLED)
	@echo "== Building the site (under a minute)"
	@tools/site.sh _build/chapters _build/html

store: $(EXECUTED)
	@for made in $(EXECUTED); do \
		stored=notebooks/$${made##*/}; \
		cmp -s $$made $$stored || { cp $$made $$stored.part; mv $$stored.part $$stored; echo "stored $$stored"; }; \
	done
	@python tools/results.py
	@python tools/speed.py
	@python tools/run_times.py
	@python tools/check_pairs.py

# ------------------------------------------------------------------------------------------------------------------ checks
# One pytest run: lint, pairs in step, unit tests, the site from the stored notebooks, and every notebook by nbval, in copies
# that also try the solutions of the exercises.
# Without the sample CT the notebooks must still run, but their outputs are not compared.
test: runs/quick/unet3d.ckpt runs/quick/evaluation.json _build/sample | $(INSTALLED)
	@python tools/exercises.py --to _build/check
	@nbval=--nbval; if [ "$$(cat _build/sample)" = no ]; then nbval=--nbval-lax; fi; \
	python -m pytest tests _build/check $$nbval --durations=15 --durations-min=5

check: $(INSTALLED)
	@python tools/compass.py
	@python -m pytest tests --ignore=tests/test_site.py

endif
