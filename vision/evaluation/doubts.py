"""Where a net and the labels disagree: objects whose labels may be wrong, and objects without a label, ranked.

The kinds follow ObjectLab (Tkachenko, Thyagarajan, Mueller, "ObjectLab: Automated Diagnosis of Mislabeled Images in
Object Detection Data", arXiv 2309.00832): overlooked, badly located and swapped. Two are added: labels that the net
never finds, and objects that are labeled twice. Scores go from 0 to 1. They rank doubts of all kinds, and are no
probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vision.boxes.overlaps import iou_of_arrays
from vision.evaluation.report import Report
from vision.structures import Annotation, Detections

#: An object that the net is sure of and no label has; a label of another class than what is found; a label beside what
#: is found; a label of which nothing is found; one object with two labels.
OVERLOOKED, SWAPPED, MISPLACED = "overlooked", "swapped", "misplaced"
NOT_FOUND, DOUBLE = "not found", "double"
KINDS = (OVERLOOKED, SWAPPED, MISPLACED, NOT_FOUND, DOUBLE)

#: IoU from which a detection is of an object; from which it is near one; and above which two labels are of one object.
HIT_IOU, NEAR_IOU, DOUBLE_IOU = 0.5, 0.2, 0.8

#: Doubts below this score say nothing.
MIN_SCORE = 0.2


@dataclass(frozen=True)
class Doubt:
    """One disagreement.

    Attributes:
        image: index of the image.
        kind: one of `KINDS`.
        score: from 0 to 1, how much it is worth to look.
        box: x1 y1 x2 y2 in pixels: of the label, or of what is found where there is none.
        labeled: class of the label; "" where there is none.
        found: class that is found; "" where nothing is.
        found_box: box that is found; None where nothing is.
        object: number of the object in its annotation, from 0; -1 where there is none.
    """

    image: int
    kind: str
    score: float
    box: tuple[float, ...]
    labeled: str = ""
    found: str = ""
    found_box: tuple[float, ...] | None = None
    object: int = -1


def find_doubts(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    report: Report,
) -> list[Doubt]:
    """Find doubts, the most worth looking at first.

    An object has one doubt at most, besides that of being labeled twice. Difficult objects have none, and explain what
    is found on them.

    Args:
        detections: of each image, down to low scores, boxes in pixels.
        annotations: of each image.
        class_names: BACKGROUND first.
        report: of the same images; how reliably a class is found weighs doubts about labels that are not found.
    """
    recalls = [0.0, *(result.best.recall for result in report.classes)]
    doubts: list[Doubt] = []
    for image, (found, annotation) in enumerate(zip(detections, annotations, strict=True)):
        doubts += _of_image(image, found, annotation, class_names, recalls)
    return sorted((doubt for doubt in doubts if doubt.score >= MIN_SCORE), key=lambda doubt: -doubt.score)


class SuggestedLabels(NamedTuple):
    """Labels of an image with what a net suggests in their place.

    Attributes:
        boxes: (N, 4) float64, corner form in pixels.
        labels: (N,) int64, classes.
        scores: (N,) float64, of what was suggested; 1 for labels that stay.
        difficult: (N,) bool.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    difficult: np.ndarray


def with_suggestions(annotation: Annotation, doubts: Sequence[Doubt], class_names: Sequence[str]) -> SuggestedLabels:
    """Put what doubts suggest into the labels of an image, for a person to look at.

    An object that was overlooked is added, one that is swapped gets the class that was found, one that is misplaced the
    box that was found, and the second of two labels of one object is left out. Labels that were never found stay.

    Args:
        annotation: of the image.
        doubts: about it.
        class_names: BACKGROUND first.
    """
    boxes, labels = annotation.boxes.astype(float), annotation.labels.copy()
    scores, stays = np.ones(len(boxes)), np.ones(len(boxes), bool)
    added = [doubt for doubt in doubts if doubt.kind == OVERLOOKED]
    for doubt in doubts:
        if doubt.kind == SWAPPED:
            labels[doubt.object] = class_names.index(doubt.found)
        elif doubt.kind == MISPLACED:
            boxes[doubt.object] = doubt.found_box
        elif doubt.kind == DOUBLE:
            stays[doubt.object] = False
        if doubt.kind in (SWAPPED, MISPLACED):
            scores[doubt.object] = doubt.score
    return SuggestedLabels(
        np.concatenate([boxes[stays], np.array([doubt.box for doubt in added]).reshape(-1, 4)]),
        np.concatenate([labels[stays], np.array([class_names.index(doubt.found) for doubt in added], labels.dtype)]),
        np.concatenate([scores[stays], [doubt.score for doubt in added]]),
        np.concatenate([annotation.difficult[stays], np.zeros(len(added), bool)]),
    )


def _of_image(
    image: int, found: Detections, annotation: Annotation, class_names: Sequence[str], recalls: Sequence[float]
) -> list[Doubt]:
    boxes, labels = np.asarray(found.boxes, np.float64), np.asarray(found.labels)
    scores = np.asarray(found.scores, float)
    objects = annotation.boxes.astype(np.float64)
    ious = iou_of_arrays(objects[:, None], boxes[None])
    doubts = []
    for number in np.flatnonzero(~annotation.difficult).tolist():
        of_object = _of_object(ious[number], labels, scores, int(annotation.labels[number]), recalls)
        if of_object is not None:
            kind, score, which = of_object
            doubts.append(
                Doubt(
                    image,
                    kind,
                    score,
                    tuple(annotation.boxes[number].tolist()),
                    class_names[annotation.labels[number]],
                    "" if which is None else class_names[labels[which]],
                    None if which is None else tuple(boxes[which].tolist()),
                    number,
                )
            )
    doubts += _doubles(image, annotation, class_names)
    doubts += [
        Doubt(
            image, OVERLOOKED, scores[which], box := tuple(boxes[which].tolist()), "", class_names[labels[which]], box
        )
        for which in _without_object(ious, boxes, scores)
    ]
    return doubts


def _of_object(
    ious: np.ndarray, labels: np.ndarray, scores: np.ndarray, label: int, recalls: Sequence[float]
) -> tuple[str, float, int | None] | None:
    """Doubt of one object: its kind, its score, and the detection that causes it; None for no doubt."""
    hits, same = ious >= HIT_IOU, labels == label
    own = scores[hits & same].max(initial=0.0)
    candidates: list[tuple[str, float, int | None]] = []
    if (other := _best(scores, hits & ~same)) is not None:
        candidates.append((SWAPPED, scores[other] * (1 - own), other))
    beside = (ious >= NEAR_IOU) & ~hits & same
    if (near := _best(scores, beside)) is not None:
        candidates.append((MISPLACED, scores[near] * (1 - own) * (1 - ious[near]), near))
    # Last, as a class that is never found has no recall, and nan is less than nothing.
    candidates.append((NOT_FOUND, (1 - scores[ious >= NEAR_IOU].max(initial=0.0)) * recalls[label], None))
    return max(candidates, key=lambda candidate: candidate[1])


def _best(scores: np.ndarray, which: np.ndarray) -> int | None:
    """Place of the highest score of some; None if there is none."""
    return int(np.where(which, scores, -1).argmax()) if which.any() else None


def _doubles(image: int, annotation: Annotation, class_names: Sequence[str]) -> list[Doubt]:
    objects = annotation.boxes.astype(np.float64)
    ious = iou_of_arrays(objects[:, None], objects[None])
    return [
        Doubt(
            image,
            DOUBLE,
            float(ious[one, other]),
            tuple(annotation.boxes[other].tolist()),
            class_names[annotation.labels[other]],
            class_names[annotation.labels[one]],
            tuple(annotation.boxes[one].tolist()),
            other,
        )
        for one, other in itertools.combinations(range(len(objects)), 2)
        if ious[one, other] > DOUBLE_IOU and not annotation.difficult[[one, other]].any()
    ]


def _without_object(ious: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """Detections that are near no object, each place once, the surest."""
    kept: list[int] = []
    for which in np.argsort(-scores).tolist():
        if scores[which] < MIN_SCORE:
            break
        if len(ious) and ious[:, which].max() >= NEAR_IOU:
            continue
        if kept and iou_of_arrays(boxes[which], boxes[kept]).max() >= NEAR_IOU:
            continue
        kept.append(which)
    return kept
