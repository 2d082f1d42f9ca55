"""Boxes with names and scores, drawn on images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from vision.evaluation.image_matches import ImageMatch
from vision.structures import Annotation, Detections

#: Red, green and blue in 0 ... 255.
Color = tuple[int, int, int]

#: Detections that hit, that do not, and that do not count; and objects that are missed.
HIT: Color = (86, 180, 233)
FALSE: Color = (213, 94, 0)
IGNORED: Color = (160, 160, 160)
MISSED: Color = (240, 228, 66)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618033988749895


def color_of(label: int) -> Color:
    """Bright RGB colour of a class, (red, green, blue) in 0 ... 255; neighbours in the list differ much."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(rgb_image: np.ndarray, detections: Detections, class_names: Sequence[str]) -> np.ndarray:
    """Draw boxes with a caption each, name and score.

    Args:
        rgb_image: (H, W, 3) uint8; not written to.
        detections: boxes in pixels of it.
        class_names: BACKGROUND first.

    Returns:
        an image of the same size.
    """
    order = detections.scores.argsort()  # the best last: they lie on top
    labels = detections.labels[order].tolist()
    scores = detections.scores[order].tolist()
    captions = [f"{class_names[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return draw_boxes(rgb_image, detections.boxes[order].cpu().numpy(), list(map(color_of, labels)), captions)


def draw_annotation(rgb_image: np.ndarray, annotation: Annotation, class_names: Sequence[str]) -> np.ndarray:
    """Draw the objects of an image with their names; arguments as above."""
    labels = annotation.labels.tolist()
    captions = [class_names[label] for label in labels]
    return draw_boxes(rgb_image, annotation.boxes, list(map(color_of, labels)), captions)


def draw_match(rgb_image: np.ndarray, match: ImageMatch, class_names: Sequence[str]) -> np.ndarray:
    """Draw what was found in an image, what falsely, and what was missed, in colours that the colour-blind tell apart.

    Args:
        rgb_image: (H, W, 3) uint8; not written to.
        match: of the image's detections and objects.
        class_names: BACKGROUND first.
    """
    missed = match.missed
    colors = np.array([HIT, FALSE, IGNORED])[np.where(match.ignored, 2, match.false.astype(int))].tolist()
    pairs = zip(match.labels, match.scores, strict=True)
    captions = [f"{class_names[label]} {score:.2f}" for label, score in pairs]
    colors += [MISSED] * int(missed.sum())
    captions += [f"missed {class_names[label]}" for label in match.annotation.labels[missed]]
    return draw_boxes(rgb_image, np.concatenate([match.boxes, match.annotation.boxes[missed]]), colors, captions)


def draw_boxes(
    rgb_image: np.ndarray, boxes: np.ndarray, colors: Sequence[Color], captions: Sequence[str]
) -> np.ndarray:
    """Draw boxes with a caption each.

    Args:
        rgb_image: (H, W, 3) uint8; not written to.
        boxes: (N, 4), corner form in pixels of it; later ones lie on top.
        colors: N of the boxes.
        captions: N texts.

    Returns:
        an image of the same size.
    """
    canvas = np.ascontiguousarray(rgb_image).copy()
    height, width = canvas.shape[:2]
    scale = max(0.4, min(width, height) / 900)
    thickness = max(1, round(scale * 2))
    whole_boxes = np.rint(np.clip(boxes, -1, [width, height, width, height])).astype(int).tolist()
    for (x1, y1, x2, y2), color, caption in zip(whole_boxes, colors, captions, strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)
        (text_width, text_height), baseline = cv2.getTextSize(caption, _FONT, scale, thickness)
        left = max(0, min(x1, width - text_width))
        top = y1 - text_height - baseline if y1 > text_height + baseline else max(y1, 0)
        cv2.rectangle(canvas, (left, top), (left + text_width, top + text_height + baseline), color, cv2.FILLED)
        dark = sum(color) < 1.5 * 255
        ink = (255, 255, 255) if dark else (0, 0, 0)
        cv2.putText(canvas, caption, (left, top + text_height), _FONT, scale, ink, thickness, cv2.LINE_AA)
    return canvas
