"""The values that flow between packages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    # Only named in annotations: what reads and writes files can do without torch's half gigabyte.
    import torch

#: Suffixes of images that are looked for, in lower case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


#: Labels of what is neither an object to learn nor background: one object, and a box around several of them.
IGNORED, CROWD = -1, -2


class DataError(ValueError):
    """Something is wrong with a file of the user's; the message is one line that names it and the way out."""


class LoaderProcessError(RuntimeError):
    """Loader processes cannot be started or reached; the message is one line. The run can do without them."""


class LoaderProcessesSilent(LoaderProcessError):
    """Loader processes give and compute nothing; the message is one line. Others in their place may do better."""


@dataclass(frozen=True)
class Annotation:
    """The objects of one image.

    Attributes:
        boxes: (N, 4) float32, corner form x1 y1 x2 y2 in pixels of the image, x1 <= x2 and y1 <= y2.
        labels: (N,) int64, indices into the class list; 0 is the background and never occurs.
        difficult: (N,) bool; such objects are neither required nor counted against a detector.
        size: (width, height) of the image in pixels.

    Raises:
        ValueError: the arrays' shapes disagree, a box is reversed or not finite, or a label is not positive.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes: expected shape (N, 4), got {self.boxes.shape}")
        count = len(self.boxes)
        for name in ("labels", "difficult"):
            shape = getattr(self, name).shape
            if shape != (count,):
                raise ValueError(f"{name}: expected shape ({count},) like the boxes, got {shape}")
        if not np.isfinite(self.boxes).all():
            raise ValueError("boxes: expected finite numbers")
        if (self.boxes[:, :2] > self.boxes[:, 2:]).any():
            raise ValueError("boxes: expected x1 <= x2 and y1 <= y2")
        if (self.labels < 1).any():
            raise ValueError("labels: expected indices from 1, 0 is the background")


class ImagePart(NamedTuple):
    """What is seen of an image, to be brought to the network's size later on."""

    pixels: torch.Tensor  # (h, w, 3) uint8 RGB
    place: torch.Tensor  # (7,) int64: h, w; left, top, right, bottom in the network's input; whether mirrored
    colors: torch.Tensor  # (K,) float32, how to change them; K is 0 for not at all


class ImageParts(NamedTuple):
    """Those of a batch."""

    pixels: torch.Tensor  # (bytes,) uint8, one part after the other
    places: torch.Tensor  # (B, 7) int64, on the CPU
    colors: torch.Tensor  # (B, K) float32


class Sample(NamedTuple):
    """One training image as a loader worker yields it."""

    image: torch.Tensor | ImagePart  # (3, H, W) uint8 RGB, at the network's size
    boxes: torch.Tensor  # (N, 4) float32, corner form, relative to the image
    labels: torch.Tensor  # (N,) int64, negative for objects that the loss ignores, `IGNORED` or `CROWD`
    index: int = 0  # type: ignore[assignment]  # of the image in its dataset; hides `tuple.index`
    note: str = ""  # says so where another image or a blank one stands for one that could not be read


class Batch(NamedTuple):
    """Samples side by side; boxes and labels are padded to the largest count, label 0 marks padding.

    Objects that the loss ignores lie apart, so that the matching of the others does not depend on them.
    """

    images: torch.Tensor | ImageParts  # (B, 3, H, W) uint8 RGB
    boxes: torch.Tensor  # (B, M, 4) float32, corner form, relative
    labels: torch.Tensor  # (B, M) int64
    indices: tuple[int, ...] = ()  # of the images in their dataset
    notes: tuple[str, ...] = ()  # of its samples, where there is one
    ignored_boxes: torch.Tensor | None = None  # (B, K, 4) float32, corner form, relative; None if no image has any
    ignored_labels: torch.Tensor | None = None  # (B, K) int64, `IGNORED`, `CROWD`, or 0 for padding


class Detections(NamedTuple):
    """What a detector found in one image: arrays from a session, tensors on the CPU from a net itself.

    Who reads it takes either, by `np.asarray` or `tolist`.
    """

    boxes: np.ndarray | torch.Tensor  # (N, 4) float32, corner form in pixels
    labels: np.ndarray | torch.Tensor  # (N,) int64
    scores: np.ndarray | torch.Tensor  # (N,) float32
