"""Which unlabeled images teach a detector most: those that stand for many others in which the net is unsure.

Each unlabeled image has a weight: 1, and as much again for the mean of what there is to learn in an image, counted by
class as log(1 + unsure objects / (1 + labeled objects)) and weighted by how weak the net is there. An image is worth
the weights of the images that look like it, as far as no labeled or chosen image looks more like them. So images are
chosen that cover the unlabeled ones best, one by one, the best first. Images that look like nothing else are worth
little, however unsure the net is: with few labels, typical images teach more (Hacohen, Dekel and Weinshall, "Active
Learning on a Budget", arXiv 2202.02794). The sum is facility location, for which taking the best one by one is within
1 - 1/e of the optimum (Nemhauser, Wolsey and Fisher, 1978). That scores near the threshold are the least sure is
uncertainty sampling (Settles, "Active Learning Literature Survey", 2009).
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

#: Unlabeled images that the chosen ones are to stand for, spread over all: memory grows with them times all images.
MAX_OTHERS = 2000


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
        stands_for: share of the other unlabeled images that look more like it than like any labeled or chosen before.
        worth: against the mean of all images at that moment.
    """

    name: str
    counts: np.ndarray
    stands_for: float
    worth: float


def uncertainty(scores: np.ndarray, threshold: float) -> np.ndarray:
    """Say how unsure scores are: 1 at the threshold, falling to 0 at scores of 0 and of 1."""
    return np.where(scores < threshold, scores / max(threshold, 1e-6), (1 - scores) / max(1 - threshold, 1e-6))


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
    labels, scores = np.asarray(found.labels) - 1, np.asarray(found.scores)
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
    features = np.stack([candidate.features for candidate in candidates])
    labeled = features[:0] if labeled_features is None else labeled_features
    features, labeled = _directions(features, labeled)
    to_learn = np.log1p(np.stack([c.mass for c in candidates]) / (1 + facts.labeled)) @ facts.weights
    weights = (1 + to_learn / max(float(to_learn.mean()), 1e-12)).astype(np.float32)
    others = np.unique(np.linspace(0, len(candidates) - 1, MAX_OTHERS).round().astype(int))
    alike = np.maximum(features @ features[others].T, 0)  # (N, O)
    covered = np.maximum((labeled @ features[others].T).max(axis=0, initial=0), 0)
    is_left = np.ones(len(candidates), bool)
    choices: list[Choice] = []
    while len(choices) < number and is_left.any():
        gains = np.maximum(alike - covered, 0)
        worth = np.where(is_left, gains @ weights[others], -1)
        best = int(worth.argmax())
        mean = float(worth[is_left].mean())
        stands_for = float((gains[best][others != best] > 0).mean()) if len(others) > 1 else 0.0
        chosen = candidates[best]
        choices.append(Choice(chosen.name, chosen.counts, stands_for, float(worth[best]) / mean if mean > 0 else 1.0))
        is_left[best] = False
        covered = np.maximum(covered, alike[best])
    return choices


def _directions(features: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn features into unit vectors from the mean of all: maps that are never negative all point one way."""
    mean = np.concatenate([features, others]).mean(axis=0)
    parts = [part - mean for part in (features, others)]
    first, second = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in parts)
    return first, second
