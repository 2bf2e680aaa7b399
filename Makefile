# make demo    train a ResNet on the bundled digits and print how well the ansatz holds in every layer
# make test    run the tests of a change, and print which branches of nfa/ they enter
# make test-all      all of them, the long ones too: attacks, kills, fresh environments
# make test-oldest   run those of a change with the lowest versions that pyproject.toml allows, in .venv-oldest
# make lint    check style and types, and that the documentation builds
# make bench   measure the claims of benchmarks/

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
OLDEST := .venv-oldest
export NO_MKDOCS_2_WARNING := 1  # of the theme, which MkDocs 2 will not take

.PHONY: demo test test-all test-oldest lint bench clean

demo: $(READY)
	$(RUN) train.py model=resnet

test: $(READY)
	$(RUN) -m pytest -n 2 -m "not long" --cov --cov-report=term

test-all: $(READY)
	$(RUN) -m pytest -n 2

test-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest -n 2 -m "not long"

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m mkdocs build --strict --quiet

bench: $(READY)
	$(RUN) benchmarks/agop.py
	$(RUN) benchmarks/audit.py
	$(RUN) -m pip install --quiet --disable-pip-version-check xrfm
	$(RUN) benchmarks/rfm.py
	$(RUN) benchmarks/ridges.py
	$(RUN) benchmarks/conv_rfm.py
	$(RUN) benchmarks/monitor.py

# torch and torchvision are resolved together: a build of one does not go with any build of the other
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[lab,dev]"
	touch $@

$(OLDEST)/.ready: pyproject.toml $(READY)
	$(RUN) -m uv venv --quiet --clear --python $(RUN) $(OLDEST)
	$(RUN) -m uv pip install --quiet --python $(OLDEST) --resolution lowest-direct \
		--editable ".[lab,zoo,scale,tables,sklearn,plots,dashboard,docs,test]"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage*
