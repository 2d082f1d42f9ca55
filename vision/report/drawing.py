"""Boxes with names and scores, drawn on pictures."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from vision.structures import Detections

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618033988749895


def color_of(label: int) -> tuple[int, int, int]:
    """Give a class a bright RGB colour of its own; neighbours in the list differ much."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(rgb_image: np.ndarray, detections: Detections, class_names: Sequence[str]) -> np.ndarray:
    """Draw boxes with a caption each.

    Args:
        rgb_image: (H, W, 3) uint8; not written to.
        detections: boxes in pixels of it.
        class_names: BACKGROUND first.

    Returns:
        a picture of the same size.
    """
    canvas = np.ascontiguousarray(rgb_image).copy()
    height, width = canvas.shape[:2]
    scale = max(0.4, min(width, height) / 900)
    thickness = max(1, round(scale * 2))
    # The best last: they lie on top.
    for place in detections.scores.argsort().tolist():
        box = detections.boxes[place].clamp(min=-1)
        x1, y1, x2, y2 = (int(round(value)) for value in box.minimum(box.new_tensor([width, height] * 2)).tolist())
        label = int(detections.labels[place])
        color = color_of(label)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)
        caption = f"{class_names[label]} {float(detections.scores[place]):.2f}"
        (text_width, text_height), baseline = cv2.getTextSize(caption, _FONT, scale, thickness)
        left = max(0, min(x1, width - text_width))
        top = y1 - text_height - baseline if y1 > text_height + baseline else max(y1, 0)
        cv2.rectangle(canvas, (left, top), (left + text_width, top + text_height + baseline), color, cv2.FILLED)
        dark = sum(color) < 1.5 * 255
        ink = (255, 255, 255) if dark else (0, 0, 0)
        cv2.putText(canvas, caption, (left, top + text_height), _FONT, scale, ink, thickness, cv2.LINE_AA)
    return canvas
