"""Crop windows: the part of an image's plane that becomes the new image, decided before pixels are touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, overload

import cv2
import numpy as np


class Placement(NamedTuple):
    """What of an image is seen through a window, and where that comes to lie; whole pixels.

    Attributes:
        source: (left, top, right, bottom) in the image.
        target: (left, top, right, bottom) in the window's result, before it is mirrored.
    """

    source: tuple[int, int, int, int]
    target: tuple[int, int, int, int]

    @property
    def target_size(self) -> tuple[int, int]:
        """(width, height) of what the part becomes."""
        left, top, right, bottom = self.target
        return right - left, bottom - top

    @property
    def shrinkage(self) -> float:
        """Number of pixels of the part for each that it becomes."""
        left, top, right, bottom = self.source
        width, height = self.target_size
        return (right - left) * (bottom - top) / (width * height)


class Window(NamedTuple):
    """The part of an image's plane that becomes the new image: whole pixels of the old one, maybe beyond its rim."""

    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.right - self.left, self.bottom - self.top

    def then(self, inner: Window) -> Window:
        """Look through `inner`, which is in the coordinates of this window's image."""
        left, right = inner.left, inner.right
        if self.mirrored:
            width = self.size[0]
            left, right = width - right, width - left
        return Window(
            self.left + left,
            self.top + inner.top,
            self.left + right,
            self.top + inner.bottom,
            self.mirrored != inner.mirrored,
        )

    @overload
    def map_boxes(self, boxes: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    @overload
    def map_boxes(
        self, boxes: np.ndarray | None, labels: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]: ...

    def map_boxes(
        self, boxes: np.ndarray | None, labels: np.ndarray | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Move pixel boxes (N, 4) into the window's image, clip them to it, drop those whose center is outside.

        Of objects that the loss ignores, which have negative labels, whatever is still visible is kept.
        """
        if boxes is None or len(boxes) == 0:
            return boxes, labels
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        low = np.array([self.left, self.top, self.left, self.top], np.float32)
        high = np.array([self.right, self.bottom, self.right, self.bottom], np.float32)
        moved = np.minimum(np.maximum(boxes, low), high) - low
        inside = (centers > low[:2]) & (centers < high[:2])
        inside = inside[:, 0] & inside[:, 1]
        if labels is not None:
            inside |= labels < 0
        inside &= (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])
        if self.mirrored:
            moved[:, ::2] = np.float32(self.size[0]) - moved[:, 2::-2]
        return moved[inside], None if labels is None else labels[inside]

    def within_grid(self, step: int) -> Window:
        """Look at the largest part whose sides lie on multiples of a number; in coordinates of this window's image."""
        left, top = -(-self.left // step) * step, -(-self.top // step) * step
        right, bottom = self.right // step * step, self.bottom // step * step
        if self.mirrored:
            left, right = self.left + self.right - right, self.left + self.right - left
        return Window(left - self.left, top - self.top, right - self.left, bottom - self.top)

    def divided(self, by: int) -> Window:
        """The same part of the same image with its sides divided by a number, on whose multiples the window lies."""
        return Window(self.left // by, self.top // by, self.right // by, self.bottom // by, self.mirrored)

    def placement(self, image_size: tuple[int, int], size: tuple[int, int]) -> Placement | None:
        """Work out where an image comes to lie.

        Args:
            image_size: (width, height) of the image.
            size: (width, height) of the window's result.

        Returns:
            None where nothing of the image is seen.
        """
        x1, x2 = max(0, self.left), min(image_size[0], self.right)
        y1, y2 = max(0, self.top), min(image_size[1], self.bottom)
        if x1 >= x2 or y1 >= y2:
            return None
        scale_x, scale_y = np.divide(size, self.size).tolist()
        to_x1, to_x2 = round((x1 - self.left) * scale_x), round((x2 - self.left) * scale_x)
        to_y1, to_y2 = round((y1 - self.top) * scale_y), round((y2 - self.top) * scale_y)
        to_x1, to_y1 = min(to_x1, size[0] - 1), min(to_y1, size[1] - 1)
        return Placement((x1, y1, x2, y2), (to_x1, to_y1, max(to_x2, to_x1 + 1), max(to_y2, to_y1 + 1)))

    def render(
        self,
        image: np.ndarray,
        size: tuple[int, int] | None,
        fill: Sequence[float] | np.ndarray,
        recolor: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Resample the window, bilinearly and once.

        Args:
            image: (H, W, 3).
            size: (width, height) of the result; the window's own if None.
            fill: per channel, beyond the image's rim.
            recolor: changes each pixel by itself; is given the image's part where that has fewest pixels.

        Returns:
            (height, width, 3) of the image's type.
        """
        width, height = self.size if size is None else size
        placement = self.placement((image.shape[1], image.shape[0]), (width, height))
        if placement is None:
            return np.full((height, width, 3), fill, dtype=image.dtype)
        (x1, y1, x2, y2), (left, top, right, bottom) = placement
        part = image[y1:y2, x1:x2]
        shrinks = placement.shrinkage >= 1
        if recolor is not None and not shrinks:
            part = recolor(part)
        part = cv2.resize(part, placement.target_size, interpolation=cv2.INTER_LINEAR)
        if recolor is not None and shrinks:
            part = recolor(part)
        if part.shape[:2] != (height, width):
            value = np.broadcast_to(np.asarray(fill).astype(image.dtype), 3).tolist()
            beside, below = width - right, height - bottom
            part = cv2.copyMakeBorder(part, top, below, left, beside, cv2.BORDER_CONSTANT, value=value)
        return cv2.flip(part, 1) if self.mirrored else part


def whole_image(image: np.ndarray) -> Window:
    """The window that shows an image as it is."""
    return Window(0, 0, image.shape[1], image.shape[0])
