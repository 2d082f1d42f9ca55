"""Boxes with names and scores, drawn on images."""

from __future__ import annotations

import colorsys
from abc import ABC, abstractmethod
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vision.evaluation.image_matches import ImageMatch
from vision.report.fonts import font_for
from vision.structures import Annotation, Detections

#: Red, green and blue in 0 ... 255.
Color = tuple[int, int, int]

#: Detections that hit, that do not, and that do not count; and objects that are missed.
HIT: Color = (86, 180, 233)
FALSE: Color = (213, 94, 0)
IGNORED: Color = (160, 160, 160)
MISSED: Color = (240, 228, 66)

#: Height of a font's letters that are as large as OpenCV's of scale 1, in pixels.
_FONT_PIXELS = 30

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618033988749895


def color_of(label: int) -> Color:
    """Bright RGB color of a class, (red, green, blue) in 0 ... 255; neighbors in the list differ much."""
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
    """Draw the objects of an image with their names; `rgb_image` (H, W, 3) uint8 is not written to."""
    labels = annotation.labels.tolist()
    captions = [class_names[label] for label in labels]
    return draw_boxes(rgb_image, annotation.boxes, list(map(color_of, labels)), captions)


def draw_match(rgb_image: np.ndarray, match: ImageMatch, class_names: Sequence[str]) -> np.ndarray:
    """Draw what was found in an image, what falsely, and what was missed, in colors that the color-blind tell apart.

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
    whole_boxes = np.rint(np.clip(boxes, -1, [width, height, width, height])).astype(int)
    whole_boxes[:, 2:] -= whole_boxes[:, 2:] == [width, height]  # a side at the image's end is on the last pixels
    for (x1, y1, x2, y2), color, caption in zip(whole_boxes.tolist(), colors, captions, strict=True):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)
        lettering = _lettering_of(caption, scale, thickness)
        text_width, text_height, baseline = lettering.size
        left = max(0, min(x1, width - text_width))
        top = y1 - text_height - baseline if y1 > text_height + baseline else max(y1, 0)
        cv2.rectangle(canvas, (left, top), (left + text_width, top + text_height + baseline), color, cv2.FILLED)
        dark = sum(color) < 1.5 * 255
        ink = (255, 255, 255) if dark else (0, 0, 0)
        lettering.draw(canvas, (left, top), ink)
    return canvas


class _Lettering(ABC):
    """How a caption is written.

    Attributes:
        size: its width, its height above the baseline, and that below, in pixels.
    """

    size: tuple[int, int, int]

    @abstractmethod
    def draw(self, canvas: np.ndarray, left_top: tuple[int, int], ink: Color) -> None:
        """Write it into an image."""


class _Strokes(_Lettering):
    """OpenCV's own letters, those of ASCII."""

    def __init__(self, caption: str, scale: float, thickness: int) -> None:
        self._caption, self._scale, self._thickness = caption, scale, thickness
        (width, height), baseline = cv2.getTextSize(caption, _FONT, scale, thickness)
        self.size = width, height, baseline

    def draw(self, canvas: np.ndarray, left_top: tuple[int, int], ink: Color) -> None:
        """See `_Lettering.draw`."""
        place = (left_top[0], left_top[1] + self.size[1])
        cv2.putText(canvas, self._caption, place, _FONT, self._scale, ink, self._thickness, cv2.LINE_AA)


class _FontLetters(_Lettering):
    """Letters of a font's file, for all other scripts."""

    def __init__(self, caption: str, scale: float, path: str) -> None:
        self._caption = caption
        self._font = ImageFont.truetype(path, max(8, round(_FONT_PIXELS * scale)))
        left, _, right, bottom = self._font.getbbox(caption)
        ascent, descent = self._font.getmetrics()
        self.size = round(right - left), ascent, max(descent, round(bottom) - ascent)

    def draw(self, canvas: np.ndarray, left_top: tuple[int, int], ink: Color) -> None:
        """See `_Lettering.draw`."""
        image = Image.fromarray(canvas)
        ImageDraw.Draw(image).text(left_top, self._caption, fill=ink, font=self._font)
        canvas[:] = np.asarray(image)


def _lettering_of(caption: str, scale: float, thickness: int) -> _Lettering:
    path = None if caption.isascii() else font_for(caption)
    if path is None:
        return _Strokes(caption, scale, thickness)
    return _FontLetters(caption, scale, path)
