"""Boxes with names and scores, drawn on images."""

from __future__ import annotations

import colorsys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vision.evaluation.image_matches import ImageMatch
from vision.report.fonts import font_for
from vision.structures import Annotation, Detections

#: Red, green and blue in 0 ... 255.
Color = tuple[int, int, int]

#: Objects; detections that hit, that do not, and that do not count; and objects that are missed.
TRUTH: Color = (0, 158, 115)
HIT: Color = (86, 180, 233)
FALSE: Color = (213, 94, 0)
IGNORED: Color = (160, 160, 160)
MISSED: Color = (240, 228, 66)

#: What the colors of `match_marks` mean.
MATCH_KEY: Mapping[str, Color] = MappingProxyType(
    {
        "truth": TRUTH,
        "hit": HIT,
        "false alarm": FALSE,
        "missed": MISSED,
        "on a difficult object, not counted": IGNORED,
    }
)

BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)

#: Height of a font's letters that are as large as OpenCV's of scale 1, in pixels.
_FONT_PIXELS = 30

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_RATIO = 0.618033988749895

#: Side of an image from which boxes have lines of two pixels at the least, so that pale ones are seen.
_MIN_SIDE_OF_WIDE_LINES = 200

#: Length of a dash and of the gap after it, in pixels of a line one pixel wide.
_DASH, _DASH_GAP = 5, 4

#: Share of an image's width that a caption may take, or the width of its box: longer ones are cut in the middle.
_CAPTION_SHARE = 0.4

#: How much worse than a pixel of another box it is to cover one of the box that a caption names, or of another caption.
_OWN_BOX_COST, _CAPTION_COST = 2.0, 4.0

#: With more boxes than that captions avoid other captions and their own box only, so that drawing stays fast.
_MAX_BOXES_AVOIDED = 200


class Marks(NamedTuple):
    """Boxes to draw on one image; later ones lie on top.

    Attributes:
        boxes: (N, 4), corner form in pixels of the image.
        colors: N of the boxes.
        captions: N texts, "" for none.
        dashed: N, whether a box is drawn with dashes; empty if none is.
    """

    boxes: np.ndarray
    colors: Sequence[Color]
    captions: Sequence[str]
    dashed: Sequence[bool] = ()

    def scaled(self, scale: np.ndarray) -> Marks:
        """Marks of the same image resized by a scale (2,) in x and y."""
        return self._replace(boxes=self.boxes * np.tile(scale, 2))


def color_of(label: int) -> Color:
    """Bright RGB color of a class, (red, green, blue) in 0 ... 255; neighbors in the list differ much."""
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def contrast(one: Color, other: Color) -> float:
    """Contrast ratio of two colors by WCAG 2: from 1 for the same color to 21 for black and white."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def ink_on(color: Color) -> Color:
    """Black or white, whichever has more contrast on a color."""
    return max(BLACK, WHITE, key=lambda ink: contrast(ink, color))


def _luminance(color: Color) -> float:
    """Relative luminance of an sRGB color by WCAG 2, from 0 to 1."""
    shares = np.array(color) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def detection_marks(detections: Detections, class_names: Sequence[str]) -> Marks:
    """Mark detections with name and score, the best on top.

    Args:
        detections: boxes in pixels of the image.
        class_names: BACKGROUND first.
    """
    boxes, labels, scores = map(np.asarray, detections)
    order = np.argsort(scores, kind="stable")
    names = [class_names[label] for label in labels[order].tolist()]
    captions = [f"{name} {score:.2f}" for name, score in zip(names, scores[order].tolist(), strict=True)]
    return Marks(boxes[order], list(map(color_of, labels[order].tolist())), captions)


def annotation_marks(annotation: Annotation, class_names: Sequence[str]) -> Marks:
    """Mark the objects of an image with their names."""
    labels = annotation.labels.tolist()
    return Marks(annotation.boxes, list(map(color_of, labels)), [class_names[label] for label in labels])


def match_marks(match: ImageMatch, class_names: Sequence[str]) -> Marks:
    """Mark what was found in an image, what falsely, and what was missed, in colors that the color-blind tell apart.

    Args:
        match: of the image's detections and objects.
        class_names: BACKGROUND first.
    """
    missed, truth = match.missed, match.annotation
    found = ~missed & ~truth.difficult
    kinds = np.where(match.ignored, 2, match.false.astype(int)).tolist()
    pairs = zip(match.labels, match.scores, strict=True)
    return Marks(
        np.concatenate([truth.boxes[found], match.boxes, truth.boxes[missed]]),
        [
            *[TRUTH] * int(found.sum()),
            *((HIT, FALSE, IGNORED)[kind] for kind in kinds),
            *[MISSED] * int(missed.sum()),
        ],
        [
            *[""] * int(found.sum()),
            *(f"{class_names[label]} {score:.2f}" for label, score in pairs),
            *(f"missed {class_names[label]}" for label in truth.labels[missed]),
        ],
    )


def draw_detections(rgb_image: np.ndarray, detections: Detections, class_names: Sequence[str]) -> np.ndarray:
    """Draw detections on an image (H, W, 3) uint8, which is not written to; see `detection_marks`."""
    return draw_boxes(rgb_image, *detection_marks(detections, class_names))


def draw_boxes(
    rgb_image: np.ndarray,
    boxes: np.ndarray,
    colors: Sequence[Color],
    captions: Sequence[str],
    dashed: Sequence[bool] = (),
) -> np.ndarray:
    """Draw boxes with a caption each, where it covers least: beside its box, if there is room.

    Args:
        rgb_image: (H, W, 3) uint8; not written to.
        boxes: (N, 4), see `Marks`.
        colors: see `Marks`.
        captions: see `Marks`.
        dashed: see `Marks`.

    Returns:
        an image of the same size.
    """
    canvas = np.ascontiguousarray(rgb_image).copy()
    height, width = canvas.shape[:2]
    scale = max(0.4, min(width, height) / 900)
    thickness = max(1, round(scale * 2))
    edge = max(thickness, 2 if min(width, height) >= _MIN_SIDE_OF_WIDE_LINES else 1)
    whole_boxes = np.rint(np.clip(boxes, -1, [width, height, width, height])).astype(int)
    whole_boxes[:, 2:] -= whole_boxes[:, 2:] == [width, height]  # a side at the image's end is on the last pixels
    for box, color, has_dashes in zip(whole_boxes.tolist(), colors, dashed or [False] * len(colors), strict=True):
        _draw_rectangle(canvas, box, color, edge, has_dashes)
    named = [number for number, caption in enumerate(captions) if caption]
    room = [min(width, max(round(_CAPTION_SHARE * width), x2 - x1)) for x1, _, x2, _ in whole_boxes.tolist()]
    letterings = {number: fitted_lettering(captions[number], room[number], scale, thickness) for number in named}
    sizes = np.array([letterings[number].whole_size for number in named], int).reshape(-1, 2)
    places = _caption_places(whole_boxes, named, sizes, (width, height))
    for number, (left, top) in zip(named, places, strict=True):
        letterings[number].draw_on(canvas, (left, top), colors[number])
    return canvas


def _draw_rectangle(canvas: np.ndarray, box: Sequence[int], color: Color, thickness: int, has_dashes: bool) -> None:
    x1, y1, x2, y2 = box
    if not has_dashes:
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, thickness)
        return
    dash, step = _DASH * thickness, (_DASH + _DASH_GAP) * thickness
    for x in range(x1, x2 + 1, step):
        for y in (y1, y2):
            cv2.line(canvas, (x, y), (min(x + dash, x2), y), color, thickness)
    for y in range(y1, y2 + 1, step):
        for x in (x1, x2):
            cv2.line(canvas, (x, y), (x, min(y + dash, y2)), color, thickness)


def _caption_places(
    boxes: np.ndarray, named: Sequence[int], sizes: np.ndarray, image_size: tuple[int, int]
) -> list[tuple[int, int]]:
    """Choose where captions go, those on top first: where they cover least of their box, others, and other boxes.

    Args:
        boxes: (N, 4), corner form in whole pixels.
        named: numbers of the M boxes with captions.
        sizes: (M, 2) width and height of their captions.
        image_size: (width, height).

    Returns:
        left and top of each caption.
    """
    x1, y1, x2, y2 = own = boxes[named].T
    width, height = sizes.T
    corners = np.stack(
        [
            (x1, y1 - height),  # above, below, on the right, on the left; else inside
            (x2 - width + 1, y1 - height),
            (x1, y2 + 1),
            (x2 - width + 1, y2 + 1),
            (x2 + 1, y1),
            (x1 - width, y1),
            (x1, y1),
            (x1, y2 - height + 1),
        ]
    )  # (8, 2, M)
    corners = np.clip(corners, 0, np.maximum(np.array(image_size)[:, None] - sizes.T, 0))
    areas = np.concatenate([corners, corners + sizes.T], axis=1).transpose(2, 0, 1)  # (M, 8, 4)
    costs = _OWN_BOX_COST * _shared_pixels(areas, own.T[:, None, :])
    if len(boxes) <= _MAX_BOXES_AVOIDED:
        costs = costs + _shared_pixels(areas[:, :, None], boxes).sum(axis=2)
    taken = np.zeros((len(named), 4), int)
    for place in reversed(range(len(named))):
        cost = costs[place] + _CAPTION_COST * _shared_pixels(areas[place, :, None], taken[place + 1 :]).sum(axis=1)
        taken[place] = areas[place, cost.argmin()]  # the first of those that are as good
    return [(left, top) for left, top, _, _ in taken.tolist()]


def _shared_pixels(areas: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pixels that areas (..., 4) and others (..., 4) have in common."""
    wide = np.minimum(areas[..., 2], others[..., 2]) - np.maximum(areas[..., 0], others[..., 0])
    high = np.minimum(areas[..., 3], others[..., 3]) - np.maximum(areas[..., 1], others[..., 1])
    return np.maximum(wide, 0) * np.maximum(high, 0)


class Lettering(ABC):
    """A caption ready to be drawn.

    Attributes:
        size: width, height above the line and below it, in pixels.
    """

    size: tuple[int, int, int]

    @property
    def whole_size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, above, below = self.size
        return width, above + below

    def draw_on(self, canvas: np.ndarray, left_top: tuple[int, int], color: Color) -> None:
        """Write it into an image, on a ground of a color, in the ink that is best to read there."""
        (left, top), (width, height) = left_top, self.whole_size
        cv2.rectangle(canvas, (left, top), (left + width, top + height), color, cv2.FILLED)
        self.draw(canvas, left_top, ink_on(color))

    @abstractmethod
    def draw(self, canvas: np.ndarray, left_top: tuple[int, int], ink: Color) -> None:
        """Write it into an image."""


class _Strokes(Lettering):
    """OpenCV's own letters, those of ASCII."""

    def __init__(self, caption: str, scale: float, thickness: int) -> None:
        self._caption, self._scale, self._thickness = caption, scale, thickness
        (width, height), baseline = cv2.getTextSize(caption, _FONT, scale, thickness)
        self.size = width, height, baseline

    def draw(self, canvas: np.ndarray, left_top: tuple[int, int], ink: Color) -> None:
        """See `Lettering.draw`."""
        place = (left_top[0], left_top[1] + self.size[1])
        cv2.putText(canvas, self._caption, place, _FONT, self._scale, ink, self._thickness, cv2.LINE_AA)


class _FontLetters(Lettering):
    """Letters of a font's file, for all other scripts."""

    def __init__(self, caption: str, scale: float, path: str) -> None:
        self._caption = caption
        self._font = ImageFont.truetype(path, max(8, round(_FONT_PIXELS * scale)))
        left, _, right, bottom = self._font.getbbox(caption)
        ascent, descent = self._font.getmetrics()
        self.size = round(right - left), ascent, max(descent, round(bottom) - ascent)

    def draw(self, canvas: np.ndarray, left_top: tuple[int, int], ink: Color) -> None:
        """See `Lettering.draw`."""
        image = Image.fromarray(canvas)
        ImageDraw.Draw(image).text(left_top, self._caption, fill=ink, font=self._font)
        canvas[:] = np.asarray(image)


def lettering_of(caption: str, scale: float = 0.4, thickness: int = 1) -> Lettering:
    """Letters for a text, as large as OpenCV's at a scale."""
    path = None if caption.isascii() else font_for(caption)
    if path is None:
        return _Strokes(caption, scale, thickness)
    return _FontLetters(caption, scale, path)


def fitted_lettering(caption: str, max_width: int, scale: float = 0.4, thickness: int = 1) -> Lettering:
    """Letters for a text, cut in the middle where it is wider than some pixels: both ends of a name say much."""
    kept = len(caption)
    lettering = lettering_of(caption, scale, thickness)
    while lettering.size[0] > max_width and kept > 2:
        kept = min(kept - 1, max(2, kept * max_width // lettering.size[0]))
        lettering = lettering_of(f"{caption[: (kept + 1) // 2]}...{caption[-(kept // 2) :]}", scale, thickness)
    return lettering
