"""Which images a net was trained on, so that nobody measures it on these without knowing."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

#: Images that a file names: 0.8 MB of digests, 1.1 MB as text.
MAX_IMAGES = 100_000

_DIGITS = 16  # hexadecimal, of each digest: that any two of a million images share them is 1 in 37 million
_NUMBERS = ">u8"


class TrainedImages(NamedTuple):
    """The image files that a net was trained on, by short digests of their contents.

    Attributes:
        digests: 8 bytes of each in ascending order, in base64, since JSON and PyTorch's own reading know texts.
        complete: whether all images are there; else only the `MAX_IMAGES` that come first in that order, a fair
            sample, as digests are like random numbers.
    """

    digests: str
    complete: bool = True

    @classmethod
    def of(cls, digests: Iterable[str]) -> TrainedImages:
        """Note images by the digests of their files in hexadecimal; those without one are passed over."""
        return cls._of(np.array([int(digest[:_DIGITS], 16) for digest in digests if digest], np.uint64))

    @classmethod
    def _of(cls, numbers: np.ndarray, complete: bool = True) -> TrainedImages:
        numbers = np.unique(numbers)
        kept = numbers[:MAX_IMAGES].astype(_NUMBERS)
        return cls(base64.b64encode(kept.tobytes()).decode(), complete and len(kept) == len(numbers))

    @property
    def _numbers(self) -> np.ndarray:
        return np.frombuffer(base64.b64decode(self.digests), _NUMBERS).astype(np.uint64)

    def joined(self, other: TrainedImages | None) -> TrainedImages:
        """Add the images of another net, from whose weights this one started."""
        if other is None:
            return self
        numbers = np.union1d(self._numbers, other._numbers)
        for part in (self, other):
            if not part.complete:  # beyond its last digest nothing is known of it
                numbers = numbers[numbers <= part._numbers.max()]
        return self._of(numbers, self.complete and other.complete)

    def has(self, digests: Sequence[str]) -> list[bool | None]:
        """Say of each image file, by its digest, whether the net was trained on it; None where that is not known."""
        known = self._numbers
        members = set(known.tolist())
        last = 1 << 64 if self.complete else int(known.max())
        numbers = [int(digest[:_DIGITS], 16) if digest else None for digest in digests]
        return [None if n is None or n > last else n in members for n in numbers]


class TrainedCounts(NamedTuple):
    """How many of the images that a net is measured on it was trained on.

    Attributes:
        measured: images that are measured.
        trained_on: how many of them the net was trained on.
        unknown: of how many of them nobody knows.
        left_out: other images, not measured since the net was trained on them.
        unknown_left_out: other images, not measured since it may have been.
    """

    measured: int
    trained_on: int
    unknown: int
    left_out: int = 0
    unknown_left_out: int = 0

    def __str__(self) -> str:
        parts = [f"the model was trained on {self.trained_on or 'none'} of the {self.measured} images measured"]
        if self.trained_on:
            parts.append("that says little about new images")
        if self.unknown:
            parts.append(f"of {self.unknown} it is not known")
        if self.left_out:
            parts.append(f"{self.left_out} more are left out, as it was trained on them")
        if self.unknown_left_out:
            parts.append(f"{self.unknown_left_out} more are left out, as it may have been")
        return "; ".join(parts)
