"""Compatibility module: helpers under upstream's names."""

from vision.cli import str2bool
from vision.datasets.labels import store_labels
from vision.engine.optim import freeze_net_layers
from vision.utils.timer import Timer

__all__ = ["Timer", "freeze_net_layers", "store_labels", "str2bool"]
