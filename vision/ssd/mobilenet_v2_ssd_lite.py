"""Compatibility module: mb2-ssd-lite under upstream's names."""

from vision.ssd.legacy import create_mobilenetv2_ssd_lite, create_mobilenetv2_ssd_lite_predictor

__all__ = ["create_mobilenetv2_ssd_lite", "create_mobilenetv2_ssd_lite_predictor"]
