# Each target sets up all it needs from a bare python3 >= 3.11; the second call starts at once.
PYTHON ?= python3
RUN := .venv/bin

.PHONY: setup demo test slow check bench docs pocket wheel

setup:            ## the environment alone
	@$(PYTHON) tools/setup.py

demo: setup       ## four domains: a network each, then one for all; runs/demo/report.html
	@$(RUN)/onetrunk demo

test: setup       ## everything that takes seconds
	$(RUN)/python -m pytest -q -n 2

slow: setup       ## what takes longer
	$(RUN)/python -m pytest -q -m slow -n 2

check: setup      ## format, lint, types, layers
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/python -m pytest -q tests/layers

bench: setup      ## what is timed beside what it is compared to; writes nothing but the table
	$(RUN)/python benchmarks/data.py
	$(RUN)/python benchmarks/model.py
	$(RUN)/python benchmarks/train.py
	$(RUN)/python benchmarks/distill.py
	$(RUN)/python benchmarks/grow.py
	$(RUN)/python benchmarks/growth.py

docs: setup       ## run every snippet of README and docs/
	$(RUN)/python -m pytest -q tests/docs
