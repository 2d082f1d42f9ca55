"""Door to the vgg config at the size last chosen, for scripts that import it."""

from vision.ssd.legacy import config_module

__getattr__, set_image_size = config_module("vgg")
