"""From images to what the net sees: with augmentation, without, and without annotation.

Pixels stay uint8 until the very end, so that our own training can ship them small and normalize on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from vision.boxes.priors import Size, as_width_height
from vision.ssd.choices import AUGMENTATIONS
from vision.transforms.base import generator_or_global
from vision.transforms.color import PhotometricDistort
from vision.transforms.geometry import Expand, RandomMirror, RandomSampleCrop
from vision.transforms.windows import Window
from vision.utils.pixels import Mean, normalized, resized_and_normalized

#: Times as many pixels along a side as the network sees that an image must keep when it is decoded at a fraction: so
#: resizing still picks among pixels, as at evaluation and on devices; their averages look smoother.
_LEAST_KEPT = 2


def normalize(image: np.ndarray, mean: Mean, std: Mean) -> Tensor:
    """Turn an RGB array (H, W, 3) into a (3, H, W) float32 tensor, (pixel - mean) / std."""
    return torch.from_numpy(normalized(image, mean, std))


def _to_relative(boxes: np.ndarray, labels: np.ndarray, width: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Turn pixel boxes (N, 4) into relative ones, cut to [0, 1]; drops those that rounding leaves without area."""
    relative = (
        (boxes / np.array([width, height, width, height], np.float32)).astype(np.float32).reshape(-1, 4).clip(0, 1)
    )
    solid = (relative[:, 2:] > relative[:, :2]).all(axis=1)
    return relative[solid], labels[solid]


class Preprocess(torch.nn.Module):
    """The same for a batch on its device: (B, 3, H, W) uint8 to float32.

    Args:
        mean: per channel or one number, for pixels in 0 ... 255.
        std: divides after that, per channel or one number.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Mean, std: Mean) -> None:
        super().__init__()
        self.register_buffer(
            "mean", torch.tensor(np.broadcast_to(np.asarray(mean, np.float32), 3).copy()).view(1, 3, 1, 1)
        )
        self.register_buffer(
            "std", torch.tensor(np.broadcast_to(np.asarray(std, np.float32), 3).copy()).view(1, 3, 1, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Normalize the batch."""
        return (images.float() - self.mean) / self.std


class Renormalize(torch.nn.Module):
    """From images (B, 3, H, W) normalized one way to the same normalized another way, by one product and one sum.

    Args:
        mean: that was subtracted, per channel or one number, for pixels in 0 ... 255.
        std: by which was divided after that, per channel or one number.
        new_mean: to be subtracted instead.
        new_std: to be divided by instead.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Mean, std: Mean, new_mean: Mean, new_std: Mean) -> None:
        super().__init__()
        # In double, and rounded once at the end.
        old = [np.broadcast_to(np.asarray(of, np.float64), 3) for of in (mean, std)]
        new = [np.broadcast_to(np.asarray(of, np.float64), 3) for of in (new_mean, new_std)]
        scale, shift = old[1] / new[1], (old[0] - new[0]) / new[1]
        self.register_buffer("scale", torch.from_numpy(scale).float().view(1, 3, 1, 1))
        self.register_buffer("shift", torch.from_numpy(shift).float().view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Convert the batch to the new normalization."""
        return images * self.scale + self.shift


class SamplePlan(NamedTuple):
    """How an image is going to be looked at, decided before it is decoded.

    Attributes:
        window: of the image's plane, in pixels.
        boxes: relative corner form (N, 4), within the window.
        labels: (N,); negative for objects that the loss ignores, which decide nothing about the window.
        reduction: what the image's sides may be divided by when it is decoded; the window lies on multiples of it.
        colors: what the augmentation's photometry has drawn; None for no change.
    """

    window: Window
    boxes: np.ndarray
    labels: np.ndarray
    reduction: int = 1
    colors: Any = None

    @property
    def decoded_window(self) -> Window:
        """The window, in pixels of the image as it is decoded."""
        return self.window.divided(self.reduction)


class TestTransform:
    """Resizes and normalizes an image with its objects.

    Args:
        size: the network's input, one number or (width, height).
        mean: per channel or one number, for RGB pixels in 0 ... 255.
        std: divides after that.
    """

    __test__ = False  # a name that scripts import, not a test

    def __init__(self, size: Size, mean: Mean = 0.0, std: Mean = 1.0) -> None:
        self.size = as_width_height(size)
        self.mean = mean
        self.std = std

    def plan(
        self,
        size: tuple[int, int],
        boxes: np.ndarray,
        labels: np.ndarray,
        rng: np.random.Generator,
        reductions: Sequence[int] = (1,),
    ) -> SamplePlan:
        """Decide how to look at an image.

        Args:
            size: (width, height) of the image in pixels.
            boxes: (N, 4) corner form in pixels.
            labels: (N,).
            rng: not used here, see `TrainAugmentation`.
            reductions: what the decoder can divide the image's sides by; not used here, as figures of validation are
                to be those of evaluation.
        """
        return SamplePlan(Window(0, 0, *size), *_to_relative(boxes, labels, *size))

    def render(self, image: np.ndarray, sample_plan: SamplePlan) -> np.ndarray:
        """Look at an image.

        Args:
            image: (H, W, 3) uint8 RGB, its sides divided by the sample_plan's reduction.
            sample_plan: from `plan`.

        Returns:
            (height, width, 3) uint8 at the network's size.
        """
        return cv2.resize(image, self.size, interpolation=cv2.INTER_LINEAR)

    def resample(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bring an image to the network's size, and its boxes to relative form.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) corner form in pixels.
            labels: (N,).
            rng: makes what is random repeatable.

        Returns:
            the image, uint8 at the network's size; relative boxes (N, 4); labels (N,).
        """
        sample_plan = self.plan((image.shape[1], image.shape[0]), boxes, labels, generator_or_global(rng))
        return self.render(image, sample_plan), sample_plan.boxes, sample_plan.labels

    def __call__(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray
    ) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Resample, and normalize to a (3, H, W) float32 tensor; boxes become relative."""
        image, boxes, labels = self.resample(image, boxes, labels)
        return normalize(image, self.mean, self.std), boxes, labels


class TrainAugmentation(TestTransform):
    """The augmentation of the SSD paper: expand, IoU crop, mirror, photometric distortion.

    Geometry is decided on boxes first and carried out by one resampling; colors are changed before or after it, on
    uint8, where the image has fewest pixels. Images are decoded at a fraction of their size where the window keeps at
    least twice as many pixels along a side as the network sees.

    Args:
        size: the network's input, one number or (width, height).
        mean: per channel or one number, for RGB pixels in 0 ... 255; also fills the canvas around expanded images.
        std: divides after the mean is subtracted.
        kind: "ssd" for all of it; "light" for crop and mirror, which suits small nets and short runs; "none".
    """

    def __init__(self, size: Size, mean: Mean = 0.0, std: Mean = 1.0, kind: str = "ssd") -> None:
        super().__init__(size, mean, std)
        if kind not in AUGMENTATIONS:
            raise ValueError(f"unknown augmentation {kind!r}, expected one of {', '.join(AUGMENTATIONS)}")
        self.fill = np.rint(np.broadcast_to(np.asarray(mean, np.float32), 3))
        light = () if kind == "none" else (RandomSampleCrop(), RandomMirror())
        self.geometry = (Expand(mean), *light) if kind == "ssd" else light
        self.photometry = PhotometricDistort() if kind == "ssd" else None

    def plan(
        self,
        size: tuple[int, int],
        boxes: np.ndarray,
        labels: np.ndarray,
        rng: np.random.Generator,
        reductions: Sequence[int] = (1,),
    ) -> SamplePlan:
        """Do as the parent does, at random."""
        window = Window(0, 0, *size)
        for transform in self.geometry:
            step = transform.plan(window.size, boxes[labels >= 0], rng)
            if step != Window(0, 0, *window.size):  # half of them change nothing
                boxes, labels = step.map_boxes(boxes, labels)
                window = window.then(step)
        shrinks = min(np.divide(window.size, self.size))
        reduction = max(number for number in reductions if number == 1 or _LEAST_KEPT * number <= shrinks)
        if reduction > 1:
            step = window.within_grid(reduction)
            boxes, labels = step.map_boxes(boxes, labels)
            window = window.then(step)
        colors = None if self.photometry is None else self.photometry.draw(rng)
        return SamplePlan(window, *_to_relative(boxes, labels, *window.size), reduction, colors)

    def render(self, image: np.ndarray, sample_plan: SamplePlan) -> np.ndarray:
        """Do as the parent does, and change colors."""
        photometry, colors = self.photometry, sample_plan.colors
        recolor = None if photometry is None or colors is None else lambda part: photometry.change(part, colors)
        return sample_plan.decoded_window.render(image, self.size, self.fill, recolor)


class PredictionTransform:
    """Resizes (bilinearly, on uint8) and normalizes an image to a (3, H, W) float32 tensor.

    Args:
        size: the network's input, one number or (width, height).
        mean: per channel or one number, for pixels in 0 ... 255.
        std: divides after that.
    """

    def __init__(self, size: Size, mean: Mean = 0.0, std: Mean = 1.0) -> None:
        self.size = as_width_height(size)
        self.mean = mean
        self.std = std

    def __call__(self, image: np.ndarray) -> Tensor:
        """Prepare an RGB image (H, W, 3) uint8."""
        return torch.from_numpy(resized_and_normalized(image, self.size, self.mean, self.std))
