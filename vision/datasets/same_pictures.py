"""Files of pictures that look the same: saved again, in another size, or taken a moment apart."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vision.datasets.records import Record

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
        pairs: of one record of each side.
        compared: how many of each side were looked at; the others are not decoded, or beyond the number asked for.
    """

    pairs: list[tuple[Record, Record]]
    compared: tuple[int, int]


def find_same_pictures(one: Sequence[Record], other: Sequence[Record], max_images: int | None = None) -> SamePictures:
    """Find, for each picture of one side, the most similar one of the other, if it is the same picture.

    Args:
        one: records, with or without digests of their pictures.
        other: records to look in.
        max_images: look at no more of a side than that, evenly picked; None for all.
    """
    mine, theirs = (_evenly([record for record in side if record.picture], max_images) for side in (one, other))
    compared = len(mine), len(theirs)
    mine, theirs = (_with_contrast(side) for side in (mine, theirs))
    pairs: list[tuple[Record, Record]] = []
    if not mine or not theirs:
        return SamePictures(pairs, compared)
    known = _cells_of(theirs)
    squares = (known**2).sum(axis=1)
    for start in range(0, len(mine), _CHUNK):
        cells = _cells_of(mine[start : start + _CHUNK])
        nearest = (squares - 2 * cells @ known.T).argmin(axis=1)
        differences = np.abs(cells - known[nearest])
        same = (differences.max(axis=1) <= _MAX_DIFFERENCE) & ((differences**2).mean(axis=1) <= _MAX_RMS**2)
        pairs += [(mine[start + place], theirs[nearest[place]]) for place in np.flatnonzero(same).tolist()]
    return SamePictures(pairs, compared)


def _evenly(records: list[Record], most: int | None) -> list[Record]:
    if most is None or len(records) <= most:
        return records
    return [records[place] for place in np.linspace(0, len(records) - 1, most).astype(int).tolist()]


def _cells_of(records: Sequence[Record]) -> np.ndarray:
    """Brightness (N, K) float32, about 0, of the pictures' cells, see `digest_picture`."""
    content = b"".join(base64.b64decode(record.picture) for record in records)
    return np.frombuffer(content, np.uint8).reshape(len(records), -1).astype(np.float32) - 128


def _with_contrast(records: Sequence[Record]) -> list[Record]:
    if not records:
        return []
    enough = _cells_of(records).std(axis=1) >= _MIN_CONTRAST
    return [record for record, has in zip(records, enough.tolist(), strict=True) if has]
