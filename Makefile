# make demo   a detector from nothing: data, training, evaluation, export, images with boxes
# make test   every check there is
# make test-fast   the tests that are not marked slow, in under two minutes on two cores
# make lint   ruff and mypy
# make test-oldest PYTHON=python3.11   the tests with the oldest versions allowed, which install on Python 3.10 and 3.11
# make options-page   writes the table of options in docs/options.md
# Each makes its virtual environment when it is missing or its requirements changed.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
OLDEST := .venv-oldest
PYTEST := -m pytest -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

DEMO := demo
# Chosen for a few minutes on two cores, from scratch; with images and hours of your own, leave these at their defaults.
DEMO_TRAINING := --pretrained-ssd=none --base-net-lr=0.05 --augmentation=none --epochs=2 --seed=1

.PHONY: demo lint test test-fast test-oldest options-page clean

$(VENV)/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	touch $@

# The bounds themselves are the pins, so the two cannot differ.
$(OLDEST)/installed: requirements.txt requirements-dev.txt requirements-oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	sed -n 's/>=/==/p' requirements.txt requirements-dev.txt > $(OLDEST)/bounds.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt \
		-r requirements-dev.txt -c $(OLDEST)/bounds.txt -c requirements-oldest.txt
	touch $@

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(RUN) -m vision.datasets.synthetic $(DEMO)/data
	$(RUN) train_ssd.py --dataset-type=voc --data=$(DEMO)/data --model-dir=$(DEMO)/model $(DEMO_TRAINING)
	$(RUN) eval_ssd.py --model=$(DEMO)/model --data=$(DEMO)/data --eval-dir=$(DEMO)/eval_results >$(DEMO)/evaluation.txt
	cat $(DEMO)/evaluation.txt
	$(RUN) onnx_export.py --model-dir=$(DEMO)/model
	$(RUN) detect.py --model=$(DEMO)/model/ssd-mobilenet.onnx --input="$(DEMO)/data/JPEGImages/test*.jpg" \
		--output=$(DEMO)/detections --sheet
	@echo
	@echo "On held-out images:"
	@sed -n '/^class /,$$p' $(DEMO)/evaluation.txt
	@echo
	@echo "Worth a look:"
	@echo "  $(DEMO)/detections/sheet.png          16 of these images, with boxes, class names and scores"
	@echo "  $(DEMO)/model/results.csv             losses and mAP of each epoch"
	@echo "  $(DEMO)/model/ssd-mobilenet.onnx      the net for detectnet, with labels.txt beside it"

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

test: lint
	OMP_NUM_THREADS=1 $(RUN) $(PYTEST)

options-page: $(VENV)/installed
	$(RUN) -m vision.options.page

test-fast: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) $(PYTEST) -m "not slow"

test-oldest: $(OLDEST)/installed
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python $(PYTEST)

clean:
	rm -rf $(VENV) $(OLDEST) $(DEMO) build dist *.egg-info
