"""Compatibility module: the transforms under upstream's names."""

from vision.transforms.color import (
    ConvertColor,
    PhotometricDistort,
    RandomBrightness,
    RandomContrast,
    RandomHue,
    RandomLightingNoise,
    RandomSaturation,
    SwapChannels,
)
from vision.transforms.conversions import (
    Compose,
    ConvertFromInts,
    Lambda,
    Resize,
    SubtractMeans,
    ToAbsoluteCoords,
    ToCV2Image,
    ToPercentCoords,
    ToTensor,
)
from vision.transforms.geometry import Expand, RandomMirror, RandomSampleCrop, intersect, jaccard_numpy

__all__ = [
    "Compose",
    "ConvertColor",
    "ConvertFromInts",
    "Expand",
    "Lambda",
    "PhotometricDistort",
    "RandomBrightness",
    "RandomContrast",
    "RandomHue",
    "RandomLightingNoise",
    "RandomMirror",
    "RandomSampleCrop",
    "RandomSaturation",
    "Resize",
    "SubtractMeans",
    "SwapChannels",
    "ToAbsoluteCoords",
    "ToCV2Image",
    "ToPercentCoords",
    "ToTensor",
    "intersect",
    "jaccard_numpy",
]
