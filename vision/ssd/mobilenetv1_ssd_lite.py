"""Compatibility module: mb1-ssd-lite under upstream's names."""

from vision.ssd.legacy import create_mobilenetv1_ssd_lite, create_mobilenetv1_ssd_lite_predictor

__all__ = ["create_mobilenetv1_ssd_lite", "create_mobilenetv1_ssd_lite_predictor"]
