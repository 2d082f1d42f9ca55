"""Door to sq-ssd-lite, for scripts that import these names."""

from vision.ssd.legacy import create_squeezenet_ssd_lite, create_squeezenet_ssd_lite_predictor

__all__ = ["create_squeezenet_ssd_lite", "create_squeezenet_ssd_lite_predictor"]
