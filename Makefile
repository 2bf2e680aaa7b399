# make demo    train a ResNet on the bundled digits and print how well the ansatz holds in every layer
# make test    run the tests of a change    make test-all    and the long ones: attacks, kills, fresh environments
# make lint    check style, and that the documentation builds
# make bench   measure the claims of benchmarks/

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
export NO_MKDOCS_2_WARNING := 1  # of the theme, which MkDocs 2 will not take

.PHONY: demo test test-all lint bench clean

demo: $(READY)
	$(RUN) train.py model=resnet

test: $(READY)
	$(RUN) -m pytest -n 2 -m "not long"

test-all: $(READY)
	$(RUN) -m pytest -n 2

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mkdocs build --strict --quiet

bench: $(READY)
	$(RUN) benchmarks/agop.py
	$(RUN) benchmarks/audit.py
	$(RUN) -m pip install --quiet --disable-pip-version-check xrfm
	$(RUN) benchmarks/rfm.py
	$(RUN) benchmarks/ridges.py
	$(RUN) benchmarks/conv_rfm.py

# torch and torchvision are resolved together: a build of one does not go with any build of the other
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[lab,dev]"
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
