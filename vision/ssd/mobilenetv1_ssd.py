"""Door to mb1-ssd, for scripts that import these names."""

from vision.ssd.legacy import create_mobilenetv1_ssd, create_mobilenetv1_ssd_predictor

__all__ = ["create_mobilenetv1_ssd", "create_mobilenetv1_ssd_predictor"]
