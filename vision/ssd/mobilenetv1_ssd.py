"""Compatibility module: mb1-ssd under upstream's names."""

from vision.ssd.legacy import create_mobilenetv1_ssd, create_mobilenetv1_ssd_predictor

__all__ = ["create_mobilenetv1_ssd", "create_mobilenetv1_ssd_predictor"]
