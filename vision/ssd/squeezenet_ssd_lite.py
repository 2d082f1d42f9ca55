"""Compatibility module: sq-ssd-lite under upstream's names."""

from vision.ssd.legacy import create_squeezenet_ssd_lite, create_squeezenet_ssd_lite_predictor

__all__ = ["create_squeezenet_ssd_lite", "create_squeezenet_ssd_lite_predictor"]
