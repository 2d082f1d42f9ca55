"""Images of an evaluation: the worst of them at a glance, and all of them beside what should have been found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from vision.evaluation import Evaluation
from vision.evaluation.image_matches import ImageMatch
from vision.report.drawing import draw_annotation, draw_match
from vision.report.sheet import MAX_CELLS, THUMBNAIL, contact_sheet, thumbnail, write_image
from vision.structures import DataError

#: White between images, in pixels.
_GAP = 8

#: Gives an image (H, W, 3) uint8 RGB by its number.
ImageReader = Callable[[int], np.ndarray]


#: Sheets of the images with most of a kind of mistake.
WORST = {"missed objects": "worst_missed.jpg", "false detections": "worst_false.jpg"}


def draw_worst(folder: Path, evaluation: Evaluation, get_image: ImageReader) -> dict[str, Path]:
    """Draw the images with most missed objects, and those with most false detections; returns the sheets by title.

    Where there are none of a kind, there is no sheet.

    Args:
        folder: to write to.
        evaluation: of the images.
        get_image: reads one.
    """
    sheets = {}
    for counts, (kind, name) in zip(evaluation.missed_and_false.T, WORST.items(), strict=True):
        worst = np.argsort(-counts, kind="stable")[:MAX_CELLS]
        cells = [_cell(get_image, index, evaluation) for index in worst[counts[worst] > 0].tolist()]
        if cells := [cell for cell in cells if cell is not None]:
            write_image(folder / name, contact_sheet(cells))
            sheets[f"Images with most {kind}"] = folder / name
    return sheets


def _cell(get_image: ImageReader, index: int, evaluation: Evaluation) -> np.ndarray | None:
    image = _read(get_image, index)
    if image is None:
        return None
    return draw_match(*shrink(image, evaluation.matches[index], THUMBNAIL - _GAP), evaluation.class_names)


def shrink(image: np.ndarray, match: ImageMatch, longer_side: int) -> tuple[np.ndarray, ImageMatch]:
    """Resize an image, (H, W, 3) uint8, to a longer side in pixels, and its boxes with it."""
    resized, scale = thumbnail(image, longer_side)
    scales = np.tile(scale, 2)
    height, width = resized.shape[:2]
    annotation = match.annotation
    smaller = replace(annotation, boxes=(annotation.boxes * scales).astype(np.float32), size=(width, height))
    return resized, match._replace(boxes=match.boxes * scales, annotation=smaller)


def show_images(folder: Path, evaluation: Evaluation, get_image: ImageReader, indices: Iterable[int]) -> None:
    """Write images with their objects on the left and what was made of them on the right, as `<number>_<id>.jpg`.

    Args:
        folder: made if it is not there.
        evaluation: of the images.
        get_image: reads one.
        indices: of the images to write.
    """
    for index in indices:
        image = _read(get_image, index)
        if image is None:
            continue
        match = evaluation.matches[index]
        sides = [
            draw_annotation(image, match.annotation, evaluation.class_names),
            draw_match(image, match, evaluation.class_names),
        ]
        gap = np.full((len(image), _GAP, 3), 255, np.uint8)
        name = re.sub(r"[^-\w.]", "_", evaluation.ids[index])
        write_image(folder / f"{index + 1:06d}_{name}.jpg", np.concatenate([sides[0], gap, sides[1]], axis=1))


def _read(get_image: ImageReader, index: int) -> np.ndarray | None:
    """Read an image; None for one that cannot be decoded, which was named when it was to be evaluated."""
    try:
        return get_image(index)
    except DataError:
        return None
