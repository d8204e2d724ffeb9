# Each target sets up all it needs from a bare python3 >= 3.11; the second call starts at once.
PYTHON ?= python3
RUN := .venv/bin

.PHONY: setup demo test slow check bench docs snippets coverage requirements

setup:            ## the environment alone
	@$(PYTHON) tools/setup.py

demo: setup       ## four domains: a network each, and one distilled from them; runs/demo/report.html
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
	$(RUN)/python benchmarks/infer.py
	$(RUN)/python benchmarks/train.py
	$(RUN)/python benchmarks/distill.py
	$(RUN)/python benchmarks/grow.py
	$(RUN)/python benchmarks/growth.py

docs: setup       ## the documentation site in build/docs; warnings and dead links are errors
	$(RUN)/python -m sphinx -b html -W --keep-going -q docs build/docs
	$(RUN)/python -m pytest -q tests/docs/test_links.py

snippets: setup   ## run every code block of README.md and docs/
	$(RUN)/python -m pytest -q -n 2 -m "slow or not slow" tests/docs/test_snippets.py

coverage: setup   ## which lines of src/onetrunk the tests run
	$(RUN)/python -m pytest -q -n 2 --cov --cov-report=term

requirements:     ## pin again what pyproject.toml asks for; versions already pinned are kept
	uv pip compile --universal --python-version 3.11 --extra dev --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links pyproject.toml -o requirements.txt
