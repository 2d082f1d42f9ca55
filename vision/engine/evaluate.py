"""Average precision of detections against annotations, by the rules of the VOC devkit.

Takes values, gives values: no net, no dataset class, no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vision.boxes.forms import iou_of
from vision.structures import Annotation, Detections
from vision.utils.measurements import compute_average_precision, compute_voc2007_average_precision

#: COCO's overlaps: 0.5, 0.55 ... 0.95.
OVERLAPS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True)
class ClassResult:
    """How well one class is found.

    Attributes:
        name: of the class.
        objects: that are not difficult.
        ap_2007: average precision over eleven recall levels; nan without objects.
        ap_area: area under the precision-recall curve; nan without objects.
        ap_50_95: its mean over COCO's overlaps; nan without objects.
    """

    name: str
    objects: int
    ap_2007: float
    ap_area: float
    ap_50_95: float


@dataclass(frozen=True)
class Report:
    """Results per class, in the order of the class list."""

    classes: tuple[ClassResult, ...]

    @property
    def mean_ap_2007(self) -> float:
        """Mean over the classes that have objects; nan if none has."""
        return _mean(result.ap_2007 for result in self.classes)

    @property
    def mean_ap_area(self) -> float:
        """Mean over the classes that have objects; nan if none has."""
        return _mean(result.ap_area for result in self.classes)

    @property
    def mean_ap_50_95(self) -> float:
        """Mean over the classes that have objects; nan if none has."""
        return _mean(result.ap_50_95 for result in self.classes)


def _mean(values) -> float:
    finite = [value for value in values if not math.isnan(value)]
    return float(np.mean(finite)) if finite else math.nan


def evaluate(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
) -> Report:
    """Compare the detections of each image with its annotation.

    Within a class detections come by score. One hits the object of its image and class that it overlaps most, if by
    more than the threshold. A hit on a difficult object does not count at all, one on an object already hit is a
    false alarm.

    Args:
        detections: per image, boxes in pixels.
        annotations: per image, in the same order.
        class_names: BACKGROUND first.
        iou_threshold: overlap to be exceeded.
    """
    if len(detections) != len(annotations):
        raise ValueError(f"{len(detections)} images with detections, but {len(annotations)} annotations")
    results = []
    for label, name in enumerate(class_names[1:], start=1):
        objects = sum(int((~a.difficult[a.labels == label]).sum()) for a in annotations)
        if objects == 0:
            results.append(ClassResult(name, 0, math.nan, math.nan, math.nan))
            continue
        matches = _matches_of_class(detections, annotations, label)
        precision, recall = _precision_and_recall(matches, objects, iou_threshold)
        results.append(
            ClassResult(
                name,
                objects,
                compute_voc2007_average_precision(precision, recall),
                compute_average_precision(precision, recall),
                _mean(compute_average_precision(*_precision_and_recall(matches, objects, t)) for t in OVERLAPS),
            )
        )
    return Report(tuple(results))


class _Matches(NamedTuple):
    """Detections of a class by falling score, each with the object of its image and class that it overlaps most.

    Attributes:
        overlaps: (D,); 0 where there is no object.
        objects: (D,) numbers of these objects over all images.
        difficult: (D,) bool, of these objects.
    """

    overlaps: np.ndarray
    objects: np.ndarray
    difficult: np.ndarray


def _matches_of_class(detections: Sequence[Detections], annotations: Sequence[Annotation], label: int) -> _Matches:
    all_scores, parts = [np.zeros(0)], [(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))]
    first = 0  # number of the image's first object
    for found, annotation in zip(detections, annotations, strict=True):
        mine = found.labels == label
        scores = found.scores[mine].double().numpy()
        of_class = annotation.labels == label
        difficult = annotation.difficult[of_class]
        if len(scores) and len(difficult):
            objects = found.boxes.new_tensor(annotation.boxes[of_class])
            overlaps = iou_of(found.boxes[mine][:, None], objects[None])
            best_overlap, best_object = (values.numpy() for values in overlaps.max(dim=1))
            parts.append((best_overlap, first + best_object, difficult[best_object]))
        else:
            parts.append((np.zeros(len(scores)), np.zeros(len(scores), np.int64), np.zeros(len(scores), bool)))
        all_scores.append(scores)
        first += len(difficult)
    order = np.argsort(-np.concatenate(all_scores), kind="stable")
    return _Matches(*(np.concatenate(values)[order] for values in zip(*parts, strict=True)))


def _precision_and_recall(matches: _Matches, objects: int, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall, (K,) each, after the first 1 ... K detections that count."""
    over = matches.overlaps > iou_threshold
    counts = ~(over & matches.difficult)
    candidates = np.flatnonzero(over & counts)
    # Of each object the one with the highest score.
    _, first = np.unique(matches.objects[candidates], return_index=True)
    hits = np.zeros(len(over))
    hits[candidates[first]] = 1
    true_positives = np.cumsum(hits[counts])
    return true_positives / np.arange(1, len(true_positives) + 1), true_positives / objects
