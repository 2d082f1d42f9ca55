"""Which unlabeled images teach a detector most: those it is unsure of, of weak and rare classes, that look new.

An image is worth what it adds: the sum over classes of weight * log(1 + own / (1 + labeled + chosen)), where an object
that the net is unsure of counts up to 1. The logarithm makes the next object of a class that has many worth less. The
sum is multiplied by how unlike the image is to those that are labeled or chosen, as cosine distance of features. Images
are taken one by one, the best first. Choosing what is near the threshold is uncertainty sampling (Settles, "Active
Learning Literature Survey", 2009), choosing what is far from the rest is core-set selection (Sener and Savarese, arXiv
1708.00489).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision.structures import Detections

#: Detections below this score are background, not doubts.
MIN_SCORE = 0.05

#: Uncertainty from which a detection is named in a reason: a score between half the threshold and the middle between
#: the threshold and 1.
UNSURE = 0.5

#: What an image is worth in which the net finds nothing, in parts of the mean: it may be what is overlooked.
_NOTHING_FOUND = 0.1

#: Share of the images that count as looking new in a reason.
_NEW_SHARE = 0.25


@dataclass(frozen=True)
class Candidate:
    """What is remembered of an unlabeled image.

    Attributes:
        name: of the image or frame.
        mass: (C,) float32, by class without the background: how much there is to learn, see `as_candidate`.
        counts: (C,) int32, the detections that a reason names.
        features: (D,) float32, what the net's heads see of the image, in any scale.
    """

    name: str
    mass: np.ndarray
    counts: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class ClassFacts:
    """What is known of the classes, without the background.

    Attributes:
        labeled: (C,) float, labeled objects; 0 where nobody knows.
        ap: (C,) float, average precision in the last evaluation; nan where nobody knows.
    """

    labeled: np.ndarray
    ap: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """(C,) what an object of a class is worth: more where the net is weak, 0.1 at least."""
        return np.clip(1 - np.nan_to_num(self.ap, nan=0.5), 0.1, 1)


@dataclass(frozen=True)
class Choice:
    """An image to label next.

    Attributes:
        name: of the image or frame.
        counts: (C,) int32, see `Candidate`.
        is_new: whether it is among the quarter that looks least like what was labeled or chosen before it.
        worth: against the mean of all images at that moment.
    """

    name: str
    counts: np.ndarray
    is_new: bool
    worth: float


def uncertainty(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Say how unsure scores are: 1 at the threshold, falling to 0 at scores of 0 and of 1."""
    return np.where(scores < threshold, scores / threshold, (1 - scores) / max(1 - threshold, 1e-6))


def as_candidate(
    name: str, found: Detections, features: np.ndarray, threshold: float, num_classes: int, is_empty: bool = False
) -> Candidate:
    """Remember an image.

    Args:
        name: of it.
        found: detections down to `MIN_SCORE`.
        features: see `Candidate`.
        threshold: from which detections count.
        num_classes: without the background.
        is_empty: whether the image is known to hold no object. Then all that is found is a false alarm, and there is
            the more to learn the surer the net is.
    """
    labels, scores = found.labels.numpy() - 1, found.scores.numpy()
    values = scores if is_empty else uncertainty(scores, threshold)
    named = scores >= threshold if is_empty else values >= UNSURE
    mass = np.bincount(labels, values, minlength=num_classes).astype(np.float32)
    counts = np.bincount(labels[named], minlength=num_classes).astype(np.int32)
    return Candidate(name, mass, counts, features.astype(np.float32))


def choose(
    candidates: Sequence[Candidate], number: int, facts: ClassFacts, labeled_features: np.ndarray | None = None
) -> list[Choice]:
    """Choose the images that teach most, the best first.

    Args:
        candidates: images to choose from.
        number: of images to choose; all where there are not more.
        facts: of the classes.
        labeled_features: (L, D) of images that are labeled already; None if there is none.
    """
    if not candidates:
        return []
    mass = np.stack([candidate.mass for candidate in candidates]).astype(float)
    features = np.stack([candidate.features for candidate in candidates])
    others = features[:0] if labeled_features is None else labeled_features
    features, others = _directions(features, others)
    distances = np.full(len(candidates), 1.0)
    for other in others:
        distances = np.minimum(distances, _distances(features, other))
    have = 1 + facts.labeled
    is_left = np.ones(len(candidates), bool)
    choices: list[Choice] = []
    while len(choices) < number and is_left.any():
        gains = np.log1p(mass / have) @ facts.weights
        gains = gains + _NOTHING_FOUND * (gains[is_left].mean() or 1)
        worth = np.where(is_left, gains * distances, -1)
        best = int(worth.argmax())
        mean = worth[is_left].mean()
        is_new = distances[best] > np.quantile(distances[is_left], 1 - _NEW_SHARE)
        choices.append(
            Choice(
                candidates[best].name, candidates[best].counts, bool(is_new), float(worth[best] / mean if mean else 1)
            )
        )
        is_left[best] = False
        have = have + mass[best]
        distances = np.minimum(distances, _distances(features, features[best]))
    return choices


def _directions(features: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn features into unit vectors from the mean of all: maps that are never negative all point one way."""
    mean = np.concatenate([features, others]).mean(axis=0)
    parts = [part - mean for part in (features, others)]
    first, second = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in parts)
    return first, second


def _distances(features: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N,) cosine distances of unit vectors (N, D) from one (D,), from 0 for the same direction to 1 for opposite."""
    return np.clip((1 - features @ other) / 2, 0, 1)
