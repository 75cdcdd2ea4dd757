# `make help` lists what there is. Everything runs in a virtual environment of its own, .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: help demo test check format docs bench clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

# torch first and pinned, so that no other package brings a newer or larger build
$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH) -c constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[all,test]'
	touch $@

demo: $(VENV)/.ready ## Set up, train on handwritten digits, and write a report to look at
	$(BIN)/diabolo demo

test: $(VENV)/.ready ## Set up and run the tests
	$(BIN)/python -m pytest --cov --cov-report=term

check: $(VENV)/.ready ## Lint, format check and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.ready ## Check that the examples in the documentation run
	$(BIN)/python -m pytest --no-header -q tests/test_docs.py tests/test_examples.py src/diabolo

bench: $(VENV)/.ready ## Run the benchmarks (hours); results go to benchmarks/results
	$(BIN)/python benchmarks/foundation.py
	$(BIN)/python benchmarks/zoo.py
	$(BIN)/python benchmarks/collapse.py
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/filling.py
	$(BIN)/python benchmarks/layerwise.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/streaming.py
	$(BIN)/python benchmarks/imputation.py
	$(BIN)/python benchmarks/counts.py
	$(BIN)/python benchmarks/anomaly_tables.py
	$(BIN)/python benchmarks/anomaly_intrusion.py
	$(BIN)/python benchmarks/anomaly_speed.py
	$(BIN)/python benchmarks/anomaly_series.py
	$(BIN)/python benchmarks/denoise.py
	$(BIN)/python benchmarks/denoise.py --mnist --levels
	$(BIN)/python benchmarks/restore.py
	$(BIN)/python benchmarks/transfer.py
	$(BIN)/python benchmarks/tuning.py
	$(BIN)/python benchmarks/compression.py
	$(BIN)/python benchmarks/compression_rows.py
	$(BIN)/python benchmarks/recommendation.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/sequences.py levels chorales molecules text --render
	$(BIN)/python benchmarks/synthetic_tables.py
	$(BIN)/python benchmarks/disentanglement.py

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
