# Two commands: `make render` and `make test`. Each sets up all it needs from a bare Python 3.11 with pip.
PYTHON ?= python3.11
PRESET ?= hello
OUT ?= out/$(PRESET)
ARGS ?=
CAPTURE ?= demo
DATA ?= out/hello
RUN ?= out/robokeygen
BIN := .venv/bin
# uv does not read pip's settings; where a folder of wheels is named for pip, name it for uv too (a CPU build of torch, say)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_LINK_MODE ?= copy

.DEFAULT_GOAL := help
.PHONY: help setup render test test-all lint format types contracts annotate train retrain eval overfit ablations bench-render bench-store bench-annotate lock clean system-packages

help:  ## what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/uv:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11 with venv (Blender's module needs exactly 3.11), or name one with PYTHON=…" >&2; exit 2; }
	@$(PYTHON) -m venv .venv && $(BIN)/python -m pip install -q --disable-pip-version-check uv

.venv/.render: .venv/bin/uv pyproject.toml requirements.lock
	@echo "setting up .venv for rendering (Blender 4.5 and friends, about 1.5 GB installed) …"
	@$(BIN)/uv pip install -q --python $(BIN)/python -c requirements.lock -e ".[render]"
	@touch $@

.venv/.all: .venv/.render
	@echo "adding the training, test and development extras …"
	@$(BIN)/uv pip install -q --python $(BIN)/python -c requirements.lock -e ".[render,convert,cloud,annotate,view,rerun,train,test,dev]"
	@touch $@

setup: .venv/.render  ## create .venv with all that rendering needs

render: .venv/.render  ## render PRESET (default hello) to OUT with a report; resumes where it stopped
	@$(BIN)/dataengine render $(PRESET) --out $(OUT) $(ARGS)

# The demo renders a capture with exact truth and clicks it by itself; the packages stay apart, so they are chained here
out/captures/demo/capture.yaml: | .venv/.all
	@$(BIN)/dataengine render render_configs/captures/moving_robot_still.yaml --out out/captures/render --set videos=1 --no-report
	@$(BIN)/dataengine export out/captures/render capture --out out/captures/demo
	@$(BIN)/python benchmarks/annotate/simulated.py out/captures/demo/capture.yaml

ifeq ($(CAPTURE),demo)
annotate: out/captures/demo/capture.yaml  ## label a capture: CAPTURE=file.yaml, or a demo that is rendered first; UI=1 opens the app
	@$(BIN)/dataengine annotate out/captures/demo/capture.yaml --out out/annotated/demo --clicks out/captures/demo/clicks.json $(if $(UI),--ui) $(ARGS)
else
annotate: .venv/.all
	@$(BIN)/dataengine annotate $(CAPTURE) --out out/annotated/$(basename $(notdir $(CAPTURE))) $(if $(UI),--ui) $(ARGS)
endif

out/hello/manifest.json: | .venv/.render
	@$(BIN)/dataengine render hello --out out/hello --no-report

train: .venv/.all $(if $(filter out/hello,$(DATA)),out/hello/manifest.json)  ## train the small RoboKeyGen pipeline on DATA (default out/hello) to RUN, at most 20 minutes on 2 cores
	@$(BIN)/dataengine train robokeygen-small --out $(RUN) --data $(DATA) $(ARGS)

retrain: .venv/.all  ## go on training from FROM with DATA, which may have grown, to RUN
	@$(BIN)/dataengine train robokeygen-small --out $(RUN) --from $(FROM) --data $(DATA) $(ARGS)

eval: .venv/.all  ## judge RUN on DATA: report.json and report.html
	@$(BIN)/dataengine evaluate $(RUN) $(DATA) $(ARGS)

overfit: .venv/.all out/hello/manifest.json  ## learn 12 frames by heart and draw the prediction over the truth, 2 minutes
	@$(BIN)/dataengine overfit out/hello $(ARGS)

ablations: .venv/.all  ## every ablation, a row each, into docs/benchmarks/robokeygen.md
	@$(BIN)/python benchmarks/robokeygen_bench.py $(ARGS)

# Debian packages that tests use: chromium opens the HTML report, the font gives it letters
system-packages:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing Debian's chromium and fonts-dejavu-core for the browser tests …"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else echo "the browser tests want Debian's packages chromium and fonts-dejavu-core: apt-get install chromium fonts-dejavu-core" >&2; fi

test: .venv/.all system-packages  ## set up every extra and run the unit tests (under 5 minutes on 2 cores)
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: .venv/.all system-packages  ## the slow tests too
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

lint: .venv/.all  ## ruff and the import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports

format: .venv/.all  ## let ruff format and fix
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

types: .venv/.all  ## pyright
	@$(BIN)/pyright

bench-store: .venv/.all  ## measure everything docs/benchmarks/store.md shows
	@$(BIN)/python benchmarks/store_bench.py $(ARGS)

bench-render: .venv/.all  ## measure everything docs/benchmarks/render.md shows (about 40 minutes on 2 cores)
	@$(BIN)/python benchmarks/render_bench.py $(ARGS)

bench-annotate: .venv/.all  ## measure everything docs/benchmarks/annotate.md shows
	@$(BIN)/python benchmarks/annotate_bench.py $(ARGS)

lock: .venv/bin/uv  ## renew requirements.lock (names and versions only)
	@$(BIN)/uv pip compile -q --no-emit-index-url --no-annotate --no-header --python-version 3.11 --all-extras pyproject.toml -o requirements.lock
	@sed -i 's/+cpu$$//' requirements.lock

clean:  ## remove .venv, caches and out/
	@rm -rf .venv out build *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
