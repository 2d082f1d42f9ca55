"""Contact sheets: many images on one, each with the name of its file, and the one that shows detections at a glance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import cv2
import numpy as np

from vision.report.drawing import BLACK, Color, Marks, detection_marks, draw_boxes, fitted_lettering
from vision.structures import Detections
from vision.utils.files import replacing

#: Images on a sheet at the most.
MAX_CELLS = 16

#: Width of a sheet of several rows, and the longer side of images that all have one shape, in pixels.
SHEET_WIDTH, THUMBNAIL = 1440, 352

#: White between images, in pixels, and the height of a line of text.
GAP, LINE = 8, 24

#: Width that a sheet of few images has at the least, so that there is room for what stands above them.
_MIN_WIDTH = SHEET_WIDTH // 2

#: Longer side that an image is kept with until the sheet is laid out, in pixels.
_KEPT_SIDE = 640

#: Shapes, as width by height, beyond which an image does not fill its cell.
_MIN_ASPECT, _MAX_ASPECT = 0.25, 4.0

#: How many times its usual height a row may have, so that it is as wide as the sheet.
_MAX_GROWTH = 1.35

#: Share of a row that has to be left over for another row.
_MIN_REST = 0.3

#: Side of the squares of a legend, in pixels.
_SQUARE = 15

_NO_KEY: Mapping[str, Color] = MappingProxyType({})


class Cell(NamedTuple):
    """An image of a sheet.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        marks: in pixels of the image.
        name: of its file.
    """

    image: np.ndarray
    marks: Marks
    name: str

    @classmethod
    def of(cls, image: np.ndarray, marks: Marks, name: str) -> Cell:
        """Take an image of any size; of a large one a smaller copy is kept."""
        height, width = image.shape[:2]
        share = min(1.0, _KEPT_SIDE / max(height, width))
        resized, scale = _resize(image, round(width * share), round(height * share))
        return cls(resized, marks.scaled(scale), name)

    @property
    def aspect(self) -> float:
        """Width by height of its place on a sheet."""
        height, width = self.image.shape[:2]
        return min(max(width / height, _MIN_ASPECT), _MAX_ASPECT)

    def drawn(self, width: int, height: int) -> np.ndarray:
        """Draw it as large as fits: captions are as large on each image of a sheet."""
        image_height, image_width = self.image.shape[:2]
        share = min(width / image_width, height / image_height)
        fits = _MIN_ASPECT < image_width / image_height < _MAX_ASPECT
        size = (width, height) if fits else (round(image_width * share), round(image_height * share))
        resized, scale = _resize(self.image, *size)
        return draw_boxes(resized, *self.marks.scaled(scale))


def _resize(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize an image (H, W, 3) uint8; returns the scale (2,) in x and y, too."""
    before = image.shape[1::-1]
    size = max(1, width), max(1, height)
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if size < before else cv2.INTER_LINEAR)
    return resized, np.divide(size, before).astype(np.float32)


def contact_sheet(cells: Sequence[Cell], texts: Sequence[str] = (), key: Mapping[str, Color] = _NO_KEY) -> np.ndarray:
    """Lay images out in rows on one, on white; rows are as wide as the sheet, so that hardly any white is left.

    Args:
        cells: the images, in the order of reading.
        texts: above them.
        key: what the colors of boxes mean, above them too.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = _rows(cells)
    width = max((sum(place for _, place in row) + GAP * (len(row) + 1) for row, _ in rows), default=0)
    width = max(width, _MIN_WIDTH if texts or key else 1)
    header = _header(texts, key, width)
    sheet = np.full((len(header) + sum(height + LINE + GAP for _, height in rows) + GAP, width, 3), 255, np.uint8)
    sheet[: len(header)] = header
    top = len(header) + GAP
    for row, height in rows:
        left = GAP
        for cell, place in row:
            image = cell.drawn(place, height)
            y, x = top + (height - image.shape[0]) // 2, left + (place - image.shape[1]) // 2
            sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
            fitted_lettering(cell.name, place, 0.45).draw(sheet, (left, top + height + 4), BLACK)
            left += place + GAP
        top += height + LINE + GAP
    return sheet


def _rows(cells: Sequence[Cell]) -> list[tuple[list[tuple[Cell, int]], int]]:
    """Part images into rows of about one width: cells with their widths, and the height of each row."""
    if not cells:
        return []
    aspects = np.array([cell.aspect for cell in cells])
    usual = THUMBNAIL / max(1.0, aspects.mean())
    count = max(1, int(np.ceil(aspects.sum() * usual / SHEET_WIDTH - _MIN_REST)))
    row_of = np.floor((np.cumsum(aspects) - aspects / 2) / aspects.sum() * count).astype(int)
    rows = []
    for row in np.unique(row_of):
        numbers = np.flatnonzero(row_of == row)
        gaps, of_row = GAP * (len(numbers) + 1), aspects[numbers].sum()
        most = usual * _MAX_GROWTH if count > 1 else max(usual, min((_MIN_WIDTH - gaps) / of_row, 1.5 * THUMBNAIL))
        height = int(min((SHEET_WIDTH - gaps) / of_row, most))
        rows.append(([(cells[number], round(height * aspects[number])) for number in numbers.tolist()], height))
    return rows


def _header(texts: Sequence[str], key: Mapping[str, Color], width: int) -> np.ndarray:
    """Write texts and a legend in as many lines as they need, (H, width, 3); none for nothing."""
    canvas = np.full((LINE * (len(texts) + len(key)) + GAP, width, 3), 255, np.uint8)
    left, top = GAP, GAP
    for text, color in [*((text, None) for text in texts), *key.items()]:
        square = 0 if color is None else _SQUARE + GAP // 2
        lettering = fitted_lettering(text, width - 2 * GAP - square, 0.5)
        needed = square + lettering.size[0]
        if left > GAP and left + needed > width - GAP:
            left, top = GAP, top + LINE
        if color is not None:
            cv2.rectangle(canvas, (left, top), (left + _SQUARE, top + _SQUARE), color, cv2.FILLED)
            cv2.rectangle(canvas, (left, top), (left + _SQUARE, top + _SQUARE), BLACK, 1)
        lettering.draw(canvas, (left + square, top + 1), BLACK)
        left += needed + 3 * GAP
    return canvas[: top + LINE if left > GAP else 0]


def encode_image(rgb_image: np.ndarray, suffix: str) -> bytes:
    """Encode an image (H, W, 3) uint8 RGB in the format of a suffix."""
    return cv2.imencode(suffix, cv2.cvtColor(rgb_image, cv2.COLOR_RGB2BGR))[1].tobytes()


def write_image(path: Path, rgb_image: np.ndarray) -> None:
    """Write an image (H, W, 3) uint8 RGB in the format of its suffix, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(encode_image(rgb_image, path.suffix))


def spread(count: int, most: int) -> list[int]:
    """Choose some of `count` numbers from 0, evenly spaced with the first and the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def with_all_classes(chosen: Sequence[int], labels: Mapping[int, Collection[int]]) -> list[int]:
    """Exchange some of the chosen images for others so that each class is seen, as far as there is room.

    An image gives way only if others show all its classes; the nearest one to the image that takes its place.

    Args:
        chosen: numbers of images.
        labels: number of an image -> its classes, of the chosen ones and all that may take their places.

    Returns:
        as many numbers, in order.
    """
    shown = list(chosen)
    missing = {label for of_image in labels.values() for label in of_image}
    missing -= {label for number in shown for label in labels[number]}
    while missing:
        best = max(labels, key=lambda number: len(missing.intersection(labels[number])))
        counts: dict[int, int] = {}
        for label in (label for number in shown for label in set(labels[number])):
            counts[label] = counts.get(label, 0) + 1
        spare = [n for n in shown if all(counts[label] > 1 or label in labels[best] for label in labels[n])]
        if not spare:
            break
        shown[shown.index(min(spare, key=lambda number: abs(number - best)))] = best
        missing -= set(labels[best])
    return sorted(shown)


class Sheet:
    """Takes images with their detections, and keeps some: nobody knows how many a camera gives.

    They are evenly spread over all, and among them is one with each class that was found, as far as there is room.

    Args:
        class_names: BACKGROUND first.
        threshold: score that detections have at the least.
    """

    def __init__(self, class_names: Sequence[str], threshold: float) -> None:
        self.class_names, self.threshold = class_names, threshold
        self._spread: dict[int, Cell] = {}
        self._first_of_class: dict[int, tuple[int, Cell]] = {}
        self._labels: dict[int, set[int]] = {}
        self._seen, self._step = 0, 1

    def add(self, rgb_image: np.ndarray, detections: Detections, name: str = "") -> None:
        """Take an image.

        Args:
            rgb_image: (H, W, 3) uint8, of any size; not written to.
            detections: boxes in pixels of it.
            name: of the file, or of a video's frame.
        """
        number, labels = self._seen, set(detections.labels.tolist())
        self._seen += 1
        new = labels - self._first_of_class.keys()
        if number % self._step and not new:
            return
        cell = Cell.of(rgb_image, detection_marks(detections, self.class_names), Path(name).name)
        self._labels[number] = labels
        self._first_of_class |= dict.fromkeys(new, (number, cell))
        if number % self._step == 0:
            self._spread[number] = cell
        if len(self._spread) > 2 * MAX_CELLS:
            self._step *= 2
            self._spread = {number: cell for number, cell in self._spread.items() if number % self._step == 0}

    def image(self) -> np.ndarray:
        """Lay the images out: (H, W, 3) uint8 RGB, up to `MAX_CELLS` in the order they came, on white."""
        cells = self._spread | dict(self._first_of_class.values())
        numbers = list(self._spread)
        chosen = [numbers[place] for place in spread(len(numbers), MAX_CELLS)]
        labels = {number: self._labels[number] for number in cells}
        shown = [cells[number] for number in with_all_classes(chosen, labels)]
        texts = [f"{len(shown)} of {self._seen} images", f"detections with a score of {self.threshold:g} or more"]
        return contact_sheet(shown, texts)

    def write(self, path: Path) -> None:
        """Write the sheet as a PNG file."""
        write_image(path, self.image())
