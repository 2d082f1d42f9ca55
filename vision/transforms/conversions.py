"""Conversions of an image with its boxes, and pipelines of them: for scripts that put their own together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch

from vision.boxes.priors import Size, as_width_height
from vision.transforms.base import Triple


class Compose:
    """Applies transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable]) -> None:
        self.transforms = transforms

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Pass the triple on from transform to transform."""
        for transform in self.transforms:
            image, boxes, labels = transform(image, boxes, labels)
        return image, boxes, labels


class Lambda:
    """Wraps a function of (image, boxes, labels)."""

    def __init__(self, function: Callable[..., Triple]) -> None:
        self.function = function

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Call the function."""
        return self.function(image, boxes, labels)


class ConvertFromInts:
    """Makes the image float32."""

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Convert the image."""
        return image.astype(np.float32), boxes, labels


class SubtractMeans:
    """Subtracts a mean per channel; the image becomes float32."""

    def __init__(self, mean: float | Sequence[float]) -> None:
        self.mean = np.asarray(mean, dtype=np.float32)

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Subtract the mean."""
        return image.astype(np.float32) - self.mean, boxes, labels


def _sides(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return np.array([width, height, width, height], np.float32)


class ToAbsoluteCoords:
    """Turns relative boxes into pixels."""

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Multiply the boxes by the image's sides."""
        return image, None if boxes is None else boxes * _sides(image), labels


class ToPercentCoords:
    """Turns pixel boxes into relative ones, in 0 ... 1."""

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Divide the boxes by the image's sides."""
        return image, None if boxes is None else boxes / _sides(image), labels


class Resize:
    """Resizes the image bilinearly to one number or (width, height); boxes stay as they are (relative)."""

    def __init__(self, size: Size = 300) -> None:
        self.size = as_width_height(size)

    def __call__(self, image, boxes=None, labels=None) -> Triple:
        """Resize the image."""
        return cv2.resize(image, self.size, interpolation=cv2.INTER_LINEAR), boxes, labels


class ToCV2Image:
    """Turns a (3, H, W) tensor into an (H, W, 3) float32 array."""

    def __call__(self, tensor, boxes=None, labels=None) -> Triple:
        """Convert the image."""
        return tensor.cpu().numpy().astype(np.float32).transpose(1, 2, 0), boxes, labels


class ToTensor:
    """Turns an (H, W, 3) array into a (3, H, W) float32 tensor."""

    def __call__(self, image, boxes=None, labels=None) -> tuple:
        """Convert the image."""
        return torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1).copy()), boxes, labels
