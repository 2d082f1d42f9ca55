"""Forms of boxes, their areas and overlaps.

Corner form is (x1, y1, x2, y2), center form is (cx, cy, w, h); both work in pixels and relative to the image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vision.boxes.overlaps import IOU_EPSILON


def center_form_to_corner_form(center_form_boxes: Tensor) -> Tensor:
    """Turn (..., 4) boxes (cx, cy, w, h) into (x1, y1, x2, y2); inverse of `corner_form_to_center_form`."""
    centers, sides = center_form_boxes[..., :2], center_form_boxes[..., 2:]
    return torch.cat([centers - sides / 2, centers + sides / 2], dim=-1)


def corner_form_to_center_form(corner_form_boxes: Tensor) -> Tensor:
    """Turn (..., 4) boxes (x1, y1, x2, y2) into (cx, cy, w, h); inverse of `center_form_to_corner_form`."""
    left_top, right_bottom = corner_form_boxes[..., :2], corner_form_boxes[..., 2:]
    return torch.cat([(left_top + right_bottom) / 2, right_bottom - left_top], dim=-1)


def area_of(left_top: Tensor, right_bottom: Tensor) -> Tensor:
    """Areas (...,) of boxes given by their corners (..., 2); a box with a negative side has area 0."""
    sides = (right_bottom - left_top).clamp(min=0.0)
    return sides[..., 0] * sides[..., 1]


def iou_of(boxes0: Tensor, boxes1: Tensor, eps: float = IOU_EPSILON) -> Tensor:
    """Intersection over union of corner-form boxes (..., 4), broadcast against each other.

    Args:
        boxes0: corner form, relative or in pixels.
        boxes1: the same form and unit as `boxes0`.
        eps: added to the union, so that two empty boxes give 0.

    Returns:
        (...,) the overlaps in [0, 1).
    """
    intersections = area_of(
        torch.maximum(boxes0[..., :2], boxes1[..., :2]), torch.minimum(boxes0[..., 2:], boxes1[..., 2:])
    )
    areas0 = area_of(boxes0[..., :2], boxes0[..., 2:])
    areas1 = area_of(boxes1[..., :2], boxes1[..., 2:])
    return intersections / (areas0 + areas1 - intersections + eps)
