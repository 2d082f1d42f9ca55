"""Door to vgg16-ssd, for scripts that import these names."""

from vision.ssd.legacy import create_vgg_ssd, create_vgg_ssd_predictor

__all__ = ["create_vgg_ssd", "create_vgg_ssd_predictor"]
