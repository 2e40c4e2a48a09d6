# Two commands: `make mini` sets up and runs the whole method on the mini world, `make test` sets up and tests it.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
RUN ?= mini-seed0
PIP = $(BIN)/python -m pip install --quiet --no-compile   # few of them are ever imported
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal
SHIPPED = goae/assets/mini/runs/mini_long-seed0

unexport PYTHONDONTWRITEBYTECODE   # modules are compiled when first imported, once for all processes

.PHONY: mini test rehearsal coverage lint clean

mini: $(VENV)/.installed
	$(BIN)/python scripts/fetch_weights.py alex
	$(BIN)/python scripts/make_mini_data.py --out data/mini --train 4000 --val 200 --splits train val test
	$(BIN)/python scripts/train.py experiment=mini run=$(RUN)
	$(BIN)/python scripts/evaluate.py run=$(RUN) shipped=$(SHIPPED)
	$(BIN)/python scripts/report.py run=$(RUN) shipped=$(SHIPPED)

test: $(VENV)/.installed-dev
	$(PYTEST) $(TESTS)

rehearsal: $(VENV)/.installed-dev   # docs/full-world.md from its first command to its last, on a miniature of its files
	OMP_NUM_THREADS=1 $(BIN)/pytest -m rehearsal tests/rehearsal

coverage: $(VENV)/.installed-dev   # the same tests, a quarter slower
	$(PYTEST) --cov --cov-report=term --cov-fail-under=85 $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs data
