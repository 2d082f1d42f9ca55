"""All figures of an evaluation as one value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vision.evaluation.coco import ClassFigures, CocoFigures, coco_figures
from vision.evaluation.curves import Curve, Point, best_threshold, match_classes
from vision.evaluation.image_matches import ImageMatch, confusion_matrix, match_image
from vision.structures import Annotation, Detections
from vision.utils.measurements import compute_average_precision, compute_voc2007_average_precision

#: The threshold of detectNet, and of whoever has no better one.
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class ClassResult:
    """How well one class is found.

    Attributes:
        name: of the class.
        objects: that are not difficult.
        ap_2007: VOC's average precision over eleven recall levels; nan without objects.
        ap_area: VOC's area under the precision-recall curve; nan without objects.
        coco: COCO's figures.
        curve: precision, recall and F1 over the score.
    """

    name: str
    objects: int
    ap_2007: float
    ap_area: float
    coco: ClassFigures
    curve: Curve

    @cached_property
    def best(self) -> Point:
        """The point of highest F1."""
        return self.curve.best()


@dataclass(frozen=True)
class Report:
    """Results per class, in the order of the class list, and over all."""

    classes: tuple[ClassResult, ...]
    coco: CocoFigures

    @property
    def mean_ap_2007(self) -> float:
        """Mean over the classes that have objects; nan if none has."""
        return mean_of(result.ap_2007 for result in self.classes)

    @property
    def mean_ap_area(self) -> float:
        """Mean over the classes that have objects; nan if none has."""
        return mean_of(result.ap_area for result in self.classes)

    @property
    def with_objects(self) -> list[ClassResult]:
        """The classes that have objects to find, over which all means are."""
        return [result for result in self.classes if result.objects]

    @property
    def means_note(self) -> str:
        """Say what means are over."""
        return (
            f"means are over the classes that have objects to find, {len(self.with_objects)} of {len(self.classes)}; a "
            "class of which nothing is found counts with precision, recall and F1 of 0"
        )

    @cached_property
    def best_threshold(self) -> float:
        """The threshold for all classes that gives the highest mean F1; nan if nothing is ever hit."""
        return best_threshold([result.curve for result in self.classes])

    @property
    def usual_threshold(self) -> float:
        """The best threshold, or `DEFAULT_THRESHOLD` if nothing is ever hit."""
        return DEFAULT_THRESHOLD if math.isnan(self.best_threshold) else self.best_threshold

    def mean_at(self, threshold: float) -> Point:
        """Means over the classes that have objects, all at one threshold; nan if none has."""
        return self._mean(threshold, [result.curve.at(threshold) for result in self.with_objects])

    def mean_at_own_thresholds(self) -> Point:
        """Means over the classes that have objects, each at the threshold of its own highest F1; nan if none has."""
        return self._mean(math.nan, [result.best for result in self.with_objects])

    @staticmethod
    def _mean(threshold: float, points: Sequence[Point]) -> Point:
        return Point(threshold, *(mean_of(getattr(p, name) for p in points) for name in ("precision", "recall", "f1")))


@dataclass(frozen=True)
class Evaluation:
    """The images of an evaluation with all that came of them; see `of`.

    Attributes:
        ids: of the images.
        detections: of each image.
        annotations: of each image.
        class_names: BACKGROUND first.
        report: figures over all thresholds.
        threshold: at which detections count in what follows.
        matches: of each image, at the threshold.
    """

    ids: Sequence[str]
    detections: Sequence[Detections]
    annotations: Sequence[Annotation]
    class_names: Sequence[str]
    report: Report
    threshold: float
    matches: Sequence[ImageMatch]

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        detections: Sequence[Detections],
        annotations: Sequence[Annotation],
        class_names: Sequence[str],
        iou_threshold: float = 0.5,
        *,
        inclusive: bool = False,
        threshold: float | None = None,
        cut_off: float = 0.0,
    ) -> Evaluation:
        """Evaluate, and look at each image at one threshold.

        Args:
            ids: of the images.
            detections: see `evaluate`.
            annotations: see `evaluate`.
            class_names: see `evaluate`.
            iou_threshold: see `evaluate`.
            inclusive: see `evaluate`.
            threshold: of scores; None for the one with the highest mean F1, or `DEFAULT_THRESHOLD` if nothing is hit.
            cut_off: see `evaluate`.
        """
        report = evaluate(detections, annotations, class_names, iou_threshold, inclusive=inclusive, cut_off=cut_off)
        if threshold is None:
            threshold = report.usual_threshold
        pairs = zip(detections, annotations, strict=True)
        matches = [match_image(found, annotation, threshold, iou_threshold) for found, annotation in pairs]
        return cls(ids, detections, annotations, class_names, report, threshold, matches)

    @property
    def confusion_matrix(self) -> np.ndarray:
        """(C, C): see `vision.evaluation.image_matches.confusion_matrix`."""
        return confusion_matrix(self.matches, len(self.class_names))

    @property
    def missed_and_false(self) -> np.ndarray:
        """(N, 2) int: of each image how many objects are missed, and how many detections are false."""
        counts = [(match.missed.sum(), match.false.sum()) for match in self.matches]
        return np.array(counts, dtype=np.int64).reshape(-1, 2)


def mean_of(values: Iterable[float]) -> float:
    """Mean of the values that are not nan; nan if none is."""
    finite = [value for value in values if not math.isnan(value)]
    return float(np.mean(finite)) if finite else math.nan


def ap_text(value: float, form: str = ".4f") -> str:
    """Write the AP of a class for people; it is nan where there are no objects to find."""
    return "no objects" if math.isnan(value) else f"{value:{form}}"


def number_text(value: float, form: str = ".4f") -> str:
    """Write a figure for people; a dash for nan, which stands for what is not defined."""
    return "-" if math.isnan(value) else f"{value:{form}}"


def evaluate(
    detections: Sequence[Detections],
    annotations: Sequence[Annotation],
    class_names: Sequence[str],
    iou_threshold: float = 0.5,
    *,
    inclusive: bool = False,
    cut_off: float = 0.0,
) -> Report:
    """Compare the detections of each image with its annotation.

    VOC's figures: within a class detections come by score. One hits the object of its image and class that it overlaps
    most, if by more than the threshold. A hit on a difficult object does not count at all, one on an object already
    hit is a false alarm. COCO's: see `vision.evaluation.coco`.

    Args:
        detections: per image, boxes in pixels.
        annotations: per image, in the same order.
        class_names: BACKGROUND first.
        iou_threshold: overlap to be exceeded, for VOC's figures.
        inclusive: whether VOC's areas take a box to reach to the far side of its last pixel, as the devkit's do.
        cut_off: score below which detections were left out before; no threshold below it is recommended.
    """
    if len(detections) != len(annotations):
        raise ValueError(f"{len(detections)} images with detections, but {len(annotations)} annotations")
    whole, of_classes = coco_figures(detections, annotations, len(class_names))
    matches = match_classes(detections, annotations, len(class_names), inclusive=inclusive)
    results = []
    for name, figures, of_class in zip(class_names[1:], of_classes, matches, strict=True):
        curve = of_class.curve(iou_threshold, cut_off)
        ap_2007 = ap_area = math.nan
        if curve.objects:
            ap_2007 = compute_voc2007_average_precision(curve.precision, curve.recall)
            ap_area = compute_average_precision(curve.precision, curve.recall)
        results.append(ClassResult(name, curve.objects, ap_2007, ap_area, figures, curve))
    return Report(tuple(results), whole)
