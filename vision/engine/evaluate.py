"""Average precision of detections against annotations, by the rules of the VOC devkit.

Takes values, gives values: no net, no dataset class, no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vision.boxes.forms import iou_of
from vision.structures import Annotation, Detections
from vision.utils.measurements import compute_average_precision, compute_voc2007_average_precision


@dataclass(frozen=True)
class ClassResult:
    """How well one class is found.

    Attributes:
        name: of the class.
        objects: that are not difficult.
        ap_2007: average precision over eleven recall levels; nan without objects.
        ap_area: area under the precision-recall curve; nan without objects.
    """

    name: str
    objects: int
    ap_2007: float
    ap_area: float


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
            results.append(ClassResult(name, 0, math.nan, math.nan))
            continue
        scores, hits = _hits_of_class(detections, annotations, label, iou_threshold)
        hits = hits[np.argsort(-scores, kind="stable")]
        hits = hits[~np.isnan(hits)]
        true_positives = np.cumsum(hits)
        recall = true_positives / objects
        precision = true_positives / np.arange(1, len(hits) + 1)
        results.append(
            ClassResult(
                name,
                objects,
                compute_voc2007_average_precision(precision, recall),
                compute_average_precision(precision, recall),
            )
        )
    return Report(tuple(results))


def _hits_of_class(
    detections: Sequence[Detections], annotations: Sequence[Annotation], label: int, iou_threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and, for each, 1 for a hit, 0 for a false alarm, nan for what does not count.

    An object is hit once in the order of scores; images do not touch each other, so each is settled alone.
    """
    all_scores, all_hits = [np.zeros(0)], [np.zeros(0)]
    for found, annotation in zip(detections, annotations, strict=True):
        mine = found.labels == label
        scores = found.scores[mine].double().numpy()
        if not len(scores):
            continue
        hits = np.zeros(len(scores))
        of_class = annotation.labels == label
        difficult = annotation.difficult[of_class]
        if len(difficult):
            objects = found.boxes.new_tensor(annotation.boxes[of_class])
            overlaps = iou_of(found.boxes[mine][:, None], objects[None])
            best_overlap, best_object = (values.numpy() for values in overlaps.max(dim=1))
            taken = np.zeros(len(difficult), dtype=bool)
            for place in np.argsort(-scores, kind="stable"):
                if best_overlap[place] <= iou_threshold:
                    continue
                target = best_object[place]
                if difficult[target]:
                    hits[place] = math.nan
                elif not taken[target]:
                    taken[target] = True
                    hits[place] = 1
        all_scores.append(scores)
        all_hits.append(hits)
    return np.concatenate(all_scores), np.concatenate(all_hits)
