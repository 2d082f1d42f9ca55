"""Overlaps of boxes in arrays: what `vision.boxes.forms` does for tensors, in the same order, so that both agree."""

from __future__ import annotations

import numpy as np

#: Keeps the IoU of two empty boxes finite.
IOU_EPSILON = 1e-5


def iou_of_arrays(boxes0: np.ndarray, boxes1: np.ndarray, eps: float = IOU_EPSILON) -> np.ndarray:
    """Intersection over union of corner-form boxes (..., 4), broadcast against each other.

    Args:
        boxes0: corner form, relative or in pixels.
        boxes1: the same form and unit as `boxes0`.
        eps: added to the union, so that two empty boxes give 0.

    Returns:
        (...,) the overlaps in [0, 1); NaN for boxes without end.
    """
    return iou_of_sides(np.moveaxis(boxes0, -1, 0), np.moveaxis(boxes1, -1, 0), eps)


def iou_of_sides(sides0: np.ndarray, sides1: np.ndarray, eps: float) -> np.ndarray:
    """Do the same for boxes whose x1, y1, x2, y2 are rows (4, ...), which is faster: memory is contiguous.

    Without an `eps`, the overlap of two empty boxes is NaN.
    """
    left, top, right, bottom = sides0
    others_left, others_top, others_right, others_bottom = sides1
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        widths, heights = np.minimum(right, others_right), np.minimum(bottom, others_bottom)
        widths -= np.maximum(left, others_left)  # in place: new memory costs more than the arithmetic
        heights -= np.maximum(top, others_top)
        intersections = np.multiply(np.maximum(widths, 0, out=widths), np.maximum(heights, 0, out=heights), out=widths)
        unions = _areas(sides0) + _areas(sides1)
        unions -= intersections
        if eps:
            unions += eps
        return np.divide(intersections, unions, out=unions)


def _areas(sides: np.ndarray) -> np.ndarray:
    """Areas (...,) of boxes (4, ...); a box with a negative side has area 0."""
    return np.maximum(sides[2] - sides[0], 0) * np.maximum(sides[3] - sides[1], 0)
