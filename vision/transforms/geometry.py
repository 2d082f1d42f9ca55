"""Random changes of geometry, after the SSD paper (arXiv 1512.02325, section 2.2): expansion, crop, mirror.

Each decides on a `Window` of the image's plane without touching pixels (`plan`). Calling one applies it alone; a
pipeline composes the windows of several and resamples the image once (`Window.render`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from vision.transforms.base import Triple, generator_or_global, happens
from vision.transforms.windows import Window, whole_image

#: Ranges of SSD's Caffe code, `ssd_pascal.py`.
MAX_EXPANSION = 4.0
CROP_TRIALS = 50
CROP_SIDES = (0.3, 1.0)
CROP_RATIOS = (0.5, 2.0)
#: "whole" keeps the image; a number is the overlap that at least one object must have with the crop.
CROP_MODES: tuple[str | float, ...] = ("whole", 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)


def intersect(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Areas (N,) shared by corner-form boxes (N, 4) with one box (4,), or (..., N) with boxes (..., 1, 4)."""
    # Side by side: NumPy is slow along an axis of two.
    width = np.minimum(boxes[..., 2], box[..., 2]) - np.maximum(boxes[..., 0], box[..., 0])
    height = np.minimum(boxes[..., 3], box[..., 3]) - np.maximum(boxes[..., 1], box[..., 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def _areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (...,) of corner-form boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def jaccard_numpy(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """IoU of corner-form boxes with a box; shapes as in `intersect`; 0 where both are empty."""
    shared = intersect(boxes, box)
    union = _areas(boxes) + _areas(box) - shared
    return np.divide(shared, union, out=np.zeros_like(union, dtype=float), where=union > 0)


class _Geometric(ABC):
    """A transform that looks at another window of the image's plane."""

    fill: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0)

    @abstractmethod
    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide for an image of (width, height) with pixel boxes (N, 4); no pixel is touched."""

    def __call__(self, image, boxes=None, labels=None, rng=None) -> Triple:
        """Draw, and apply this transform alone."""
        window = self.plan((image.shape[1], image.shape[0]), boxes, generator_or_global(rng))
        if window == whole_image(image):
            return image, boxes, labels
        return window.render(image, None, self.fill), *window.map_boxes(boxes, labels)


class Expand(_Geometric):
    """Puts the image somewhere on a canvas of up to four times its sides, in half of the cases."""

    def __init__(self, mean: float | Sequence[float]) -> None:
        self.fill = np.broadcast_to(np.asarray(mean, dtype=np.float32), 3)

    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide on the canvas."""
        width, height = size
        if not happens(rng):
            return Window(0, 0, width, height)
        ratio = rng.uniform(1.0, MAX_EXPANSION)
        left = -int(rng.uniform(0, width * ratio - width))
        top = -int(rng.uniform(0, height * ratio - height))
        return Window(left, top, left + int(width * ratio), top + int(height * ratio))


class RandomSampleCrop(_Geometric):
    """Cuts out a part that at least one object overlaps as much as a random mode asks (Caffe's rule).

    Objects stay whose center is inside; at least one must. An image without objects is cropped freely. When no trial
    succeeds, the image stays whole.
    """

    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide on the part."""
        width, height = size
        whole = Window(0, 0, width, height)
        mode = CROP_MODES[rng.integers(len(CROP_MODES))]
        if mode == "whole":
            return whole
        sides = rng.uniform(*CROP_SIDES, (CROP_TRIALS, 2)) * (width, height)
        corners = rng.uniform(0, 1, (CROP_TRIALS, 2)) * ((width, height) - sides)
        low = corners.astype(int)
        high = low + np.maximum(sides.astype(int), 1)
        shape = sides[:, 1] / sides[:, 0]
        good = (shape >= CROP_RATIOS[0]) & (shape <= CROP_RATIOS[1])
        if boxes is not None and len(boxes):
            centers = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = (centers > low[:, None]) & (centers < high[:, None])
            ious = jaccard_numpy(boxes[None], np.concatenate([low, high], axis=1)[:, None])
            good &= (inside[..., 0] & inside[..., 1]).any(axis=1) & (ious.max(axis=1) >= mode)
        if not good.any():
            return whole
        first = int(good.argmax())
        return Window(*low[first].tolist(), *high[first].tolist())


class RandomMirror(_Geometric):
    """Swaps left and right, in half of the cases."""

    def plan(self, size: tuple[int, int], boxes: np.ndarray | None, rng: np.random.Generator) -> Window:
        """Decide whether to."""
        return Window(0, 0, *size, mirrored=happens(rng))
