# make demo | test | test-slow | lint | bench | docs: each sets up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Processes of the tests; a file of tests stays in one.
WORKERS ?= 2
TESTED := -n $(WORKERS) --dist loadfile

.PHONY: setup demo test test-slow lint bench docs clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "likelify needs Python 3.11 or later; try make PYTHON=python3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

demo: $(READY)
	$(BIN)/likelify fit digits --max-time 85s

test: $(READY)
	$(BIN)/python -m pytest $(TESTED) -m "not slow"

test-slow: $(READY)
	$(BIN)/python -m pytest $(TESTED) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

bench: $(READY)
	@for name in imports house laws torch_transforms exponential exponential_steps exp_tol axis pyramid_variants certificates honesty inverse_checks autocast importance terms graph_truth layers vae_posteriors digits digits_rivals mixing_photos exponentials_pay graph_kernels graph_scale particles series flowification tutorial_outliers tutorial_autoencoder tutorial_table tutorial_mixed tutorial_photographs tutorial_points table_layers tables conditional outliers pictures reports kills scoring processes small_exponentials gallery device; do \
		echo "== benchmarks.$$name --quick"; $(BIN)/python -m benchmarks.$$name --quick || exit 1; done

docs: $(READY)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site build
