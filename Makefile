# make demo   a detector from nothing: data, training, evaluation, export, images with boxes
# make test   every check there is
# Both make the virtual environment when it is missing or its requirements changed.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

DEMO := demo
# Chosen for a few minutes on two cores; with images and hours of your own, leave these at their defaults.
DEMO_TRAINING := --resolution=144 --augmentation=none --batch-size=8 --epochs=3 --lr=0.01 --base-net-lr=0.05 \
	--pretrained-ssd=none --seed=1

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
	$(RUN) detect.py --model=$(DEMO)/model/ssd-mobilenet.onnx --input="$(DEMO)/data/JPEGImages/test*.jpg" --output=$(DEMO)/detections \
		--threshold=0.3
	@echo
	@echo "The images with boxes, which the net had never seen, are in $(DEMO)/detections,"
	@echo "the model, its labels and its ONNX file in $(DEMO)/model."

test: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses=4 --dist=loadfile

clean:
	rm -rf $(VENV) $(DEMO)
