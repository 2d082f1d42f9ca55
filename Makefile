# make demo   a detector from nothing: data, training, evaluation, export, pictures with boxes
# make test   every check there is
# Both make the virtual environment when it is missing or its requirements changed.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

DEMO := demo
DEMO_TRAINING := --resolution=160 --batch-size=16 --epochs=20 --lr=0.02 --base-net-lr=0.02 --pretrained-ssd=none --seed=1

.PHONY: demo test clean

$(VENV)/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(RUN) -m vision.datasets.synthetic $(DEMO)/data
	$(RUN) train_ssd.py --dataset-type=voc --data=$(DEMO)/data --model-dir=$(DEMO)/model $(DEMO_TRAINING)
	$(RUN) eval_ssd.py --model=$(DEMO)/model --data=$(DEMO)/data --eval-dir=$(DEMO)/eval_results
	$(RUN) onnx_export.py --model-dir=$(DEMO)/model
	$(RUN) detect.py --model=$(DEMO)/model/ssd-mobilenet.onnx --input="$(DEMO)/data/JPEGImages/test*.jpg" --output=$(DEMO)/detections
	@echo
	@echo "The pictures with boxes, which the net had never seen, are in $(DEMO)/detections,"
	@echo "the model, its labels and its ONNX file in $(DEMO)/model."

test: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pytest

clean:
	rm -rf $(VENV) $(DEMO)
