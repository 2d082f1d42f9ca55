"""Compatibility module: the squeezenet config at the size last chosen under upstream's names."""

from vision.ssd.legacy import config_module

__getattr__, set_image_size = config_module("squeezenet")
