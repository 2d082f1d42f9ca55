"""Files of pictures that look the same: saved again, in another size, or taken a moment apart."""

from __future__ import annotations

import base64
from typing import NamedTuple

import numpy as np

from vision.datasets.images import PICTURE_CELLS
from vision.datasets.packed import Records

#: Two digests are of one picture if no cell differs by more than this, of 256 levels, nor all of them in the root of
#: the mean square. Of photos saved again as JPEG of quality 30 to 75, or at other sizes, no cell differs by more than
#: 3; at quality 10 by 5. Frames of a still camera differ as little where hardly anything moves, else by 7 and more.
_MAX_DIFFERENCE, _MAX_RMS = 6.0, 1.5

#: A picture whose cells vary by less has nothing to tell it by, as one taken in the dark.
_MIN_CONTRAST = 6.0

#: Pictures that are compared with all others at once.
_CHUNK = 512


class SamePictures(NamedTuple):
    """What a comparison of pictures gave.

    Attributes:
        pairs: the index of one record of each side.
        compared: how many of each side were looked at; the others are not decoded, or beyond the number asked for.
    """

    pairs: list[tuple[int, int]]
    compared: tuple[int, int]


def find_same_pictures(one: Records, other: Records, max_images: int | None = None) -> SamePictures:
    """Find, for each picture of one side, the most similar one of the other, if it is the same picture.

    Args:
        one: records, with or without digests of their pictures.
        other: records to look in.
        max_images: look at no more of a side than that, evenly picked; None for all.
    """
    of_sides = [_pictures_of(side, max_images) for side in (one, other)]
    compared = len(of_sides[0][0]), len(of_sides[1][0])
    (mine, my_cells), (theirs, known) = (_with_contrast(*of_side) for of_side in of_sides)
    pairs: list[tuple[int, int]] = []
    if not len(mine) or not len(theirs):
        return SamePictures(pairs, compared)
    squares = (known**2).sum(axis=1)
    for start in range(0, len(mine), _CHUNK):
        cells = my_cells[start : start + _CHUNK]
        nearest = (squares - 2 * cells @ known.T).argmin(axis=1)
        differences = np.abs(cells - known[nearest])
        same = (differences.max(axis=1) <= _MAX_DIFFERENCE) & ((differences**2).mean(axis=1) <= _MAX_RMS**2)
        chosen = np.flatnonzero(same)
        pairs += zip(mine[start + chosen].tolist(), theirs[nearest[chosen]].tolist(), strict=True)
    return SamePictures(pairs, compared)


def _pictures_of(records: Records, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N,) of records that have a picture, and brightness (N, K) float32, about 0, of its cells."""
    pictures = records.texts("picture")
    places = np.array([place for place, picture in enumerate(pictures) if picture], np.int64)
    if most is not None and len(places) > most:
        places = places[np.linspace(0, len(places) - 1, most).astype(int)]
    content = b"".join(base64.b64decode(pictures[place]) for place in places.tolist())
    cells = np.frombuffer(content, np.uint8).reshape(len(places), PICTURE_CELLS**2)
    return places, cells.astype(np.float32) - 128


def _with_contrast(places: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    enough = cells.std(axis=1) >= _MIN_CONTRAST
    return places[enough], cells[enough]
