"""Compatibility module: vgg16-ssd under upstream's names."""

from vision.ssd.legacy import create_vgg_ssd, create_vgg_ssd_predictor

__all__ = ["create_vgg_ssd", "create_vgg_ssd_predictor"]
