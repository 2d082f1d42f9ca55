"""SSD object detection: nets, data, training, evaluation and deployment."""

__version__ = "0.16.1"
