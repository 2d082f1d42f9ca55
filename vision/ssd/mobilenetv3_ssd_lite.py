"""Compatibility module: mb3-large-ssd-lite and mb3-small-ssd-lite under upstream's names."""

from vision.ssd.legacy import (
    create_mobilenetv3_large_ssd_lite,
    create_mobilenetv3_small_ssd_lite,
    create_mobilenetv3_ssd_lite_predictor,
)

__all__ = [
    "create_mobilenetv3_large_ssd_lite",
    "create_mobilenetv3_small_ssd_lite",
    "create_mobilenetv3_ssd_lite_predictor",
]
