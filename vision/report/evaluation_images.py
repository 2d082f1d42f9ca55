"""Images of an evaluation: the worst of them at a glance, and all of them beside what should have been found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from vision.evaluation import Evaluation
from vision.report.drawing import MATCH_KEY, annotation_marks, draw_boxes, match_marks
from vision.report.sheet import GAP, MAX_CELLS, Cell, contact_sheet, write_image
from vision.structures import DataError

#: Gives an image (H, W, 3) uint8 RGB by its number.
ImageReader = Callable[[int], np.ndarray]


#: Sheets of the images with most of a kind of mistake.
WORST = {"missed objects": "worst_missed.jpg", "false alarms": "worst_false.jpg"}


def draw_worst(
    folder: Path, evaluation: Evaluation, get_image: ImageReader, names: Sequence[str] | None = None
) -> dict[str, Path]:
    """Draw the images with most missed objects, and those with most false alarms; returns the sheets by title.

    Where there are none of a kind, there is no sheet.

    Args:
        folder: to write to.
        evaluation: of the images.
        get_image: reads one.
        names: of the images' files; None for the ids.
    """
    names = evaluation.ids if names is None else names
    sheets = {}
    for counts, (kind, name) in zip(evaluation.missed_and_false.T, WORST.items(), strict=True):
        worst = np.argsort(-counts, kind="stable")[:MAX_CELLS]
        cells = []
        for index in worst[counts[worst] > 0].tolist():
            image = _read(get_image, index)
            if image is not None:
                marks = match_marks(evaluation.matches[index], evaluation.class_names)
                cells.append(Cell.of(image, marks, f"{names[index]}: {counts[index]}"))
        if cells:
            images = int((counts > 0).sum())
            texts = [
                f"{len(cells)} of {images} images with {kind}, and how many each has",
                f"threshold {evaluation.threshold:g}",
            ]
            write_image(folder / name, contact_sheet(cells, texts, MATCH_KEY))
            sheets[f"Images with most {kind}"] = folder / name
    return sheets


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
            draw_boxes(image, *annotation_marks(match.annotation, evaluation.class_names)),
            draw_boxes(image, *match_marks(match, evaluation.class_names)),
        ]
        gap = np.full((len(image), GAP, 3), 255, np.uint8)
        name = re.sub(r"[^-\w.]", "_", evaluation.ids[index])
        write_image(folder / f"{index + 1:06d}_{name}.jpg", np.concatenate([sides[0], gap, sides[1]], axis=1))


def _read(get_image: ImageReader, index: int) -> np.ndarray | None:
    """Read an image; None for one that cannot be decoded, which was named when it was to be evaluated."""
    try:
        return get_image(index)
    except DataError:
        return None
