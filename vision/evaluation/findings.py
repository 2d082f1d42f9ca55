"""What an evaluation says about its classes in words: which are weak, why, and whose labels look swapped."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from vision.evaluation.image_matches import ImageMatch, confusion_matrix
from vision.evaluation.report import ClassResult, Report

#: A class is weak with an AP50 below this, or that far below the mean of the classes.
WEAK_AP_50, FAR_BELOW_MEAN = 0.5, 0.2

#: With a mean AP50 below this and all classes weak, no class has a reason of its own.
LEARNT_LITTLE = 0.3

#: Objects to train on are few below this, or below that fraction of what the median class has.
FEW_OBJECTS, FEW_OF_MEDIAN = 50, 0.2

#: Objects to measure on, below which the figure of a class is uncertain.
FEW_TO_MEASURE = 10

#: Objects are small where half of them are below this at the net's size: two cells of the finest map of fpnlite nets.
SMALL_SIDE = 16.0

#: Fractions of a class's objects from which a reason is worth a word, and the least number of objects.
CONFUSED, MISSED, FALSE_ALARMS, AT_LEAST = 0.1, 0.3, 0.5, 3

#: Fraction of the objects of each of two classes that is found as the other where labels look swapped.
SWAPPED = 0.04

#: Labels look swapped if the net is as sure of the other class as of its right answers, less this factor.
AS_SURE = 0.8


@dataclass(frozen=True)
class WeakClass:
    """A class that is found badly.

    Attributes:
        name: of the class.
        ap_50: COCO's AP50.
        reasons: that are likely, in words, the weightiest first.
    """

    name: str
    ap_50: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} (AP50 {self.ap_50:.2f}): {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class SwappedLabels:
    """Two classes, some objects of which are found as the other, surely and both ways.

    Attributes:
        names: of the classes.
        counts: how many objects of each are found as the other.
    """

    names: tuple[str, str]
    counts: tuple[int, int]

    def __str__(self) -> str:
        (one, other), (as_other, as_one) = self.names, self.counts
        return (
            f"{one} and {other} may be swapped in places: {as_other} {one} found as {other}, {as_one} {other} found as "
            f"{one}, as surely as right ones"
        )


@dataclass(frozen=True)
class Findings:
    """What stands out in an evaluation.

    Attributes:
        weak: the weakest class first.
        swapped: pairs of classes.
        learnt_little: whether all classes are weak, so that none has a reason of its own.
    """

    weak: tuple[WeakClass, ...] = ()
    swapped: tuple[SwappedLabels, ...] = ()
    learnt_little: bool = False

    def lines(self) -> list[str]:
        """One line for each finding."""
        if self.learnt_little:
            return [
                f"weak: all {len(self.weak)} classes: the net has learnt little; more epochs, or a start that has seen "
                "more (--pretrained-ssd), come before anything else"
            ]
        return [f"weak: {finding}" for finding in self.weak] + [f"labels: {finding}" for finding in self.swapped]


def find(
    report: Report,
    matches: Sequence[ImageMatch],
    input_size: tuple[int, int],
    training_objects: Mapping[str, int] | None = None,
) -> Findings:
    """Name weak classes with their likely reasons, and pairs of classes whose labels look swapped.

    Args:
        report: of the evaluation.
        matches: of all images, at one threshold.
        input_size: (width, height) of the net in pixels.
        training_objects: number of objects to train on by class name; None if that is not known.
    """
    names = [result.name for result in report.classes]
    matrix = confusion_matrix(matches, len(names) + 1)
    floor = max(WEAK_AP_50, report.coco.ap_50 - FAR_BELOW_MEAN)
    sides = _sides_at(matches, input_size)
    weak = []
    for label, result in enumerate(report.classes, start=1):
        if result.objects and result.coco.ap_50 < floor:
            reasons = [
                *_too_few(result, training_objects),
                *_too_small(sides.get(label, []), input_size),
                *_confused(matrix, label, names),
            ]
            weak.append(WeakClass(result.name, result.coco.ap_50, tuple(reasons) or (NO_REASON,)))
    weak.sort(key=lambda finding: finding.ap_50)
    learnt_little = len(weak) == len(report.with_objects) > 1 and report.coco.ap_50 < LEARNT_LITTLE
    return Findings(tuple(weak), tuple(_swapped_labels(matrix, matches, names)), learnt_little)


NO_REASON = "no reason stands out; look at its worst images in the report of eval_ssd.py"


def _too_few(result: ClassResult, training_objects: Mapping[str, int] | None) -> list[str]:
    reasons = []
    if training_objects is not None:
        count, usual = training_objects.get(result.name, 0), median(training_objects.values())
        if count < FEW_OBJECTS or count < FEW_OF_MEDIAN * usual:
            of_others = f", the median class has {usual:g}" if len(training_objects) > 1 else ""
            reasons.append(f"few: {count} objects to train on{of_others}; label more")
    if result.objects < FEW_TO_MEASURE:
        reasons.append(f"only {result.objects} objects to measure on, so the figure is uncertain")
    return reasons


def _sides_at(matches: Sequence[ImageMatch], input_size: tuple[int, int]) -> dict[int, list[float]]:
    """Square roots of the areas of all objects at the net's size, by class."""
    sides: dict[int, list[float]] = {}
    for match in matches:
        annotation = match.annotation
        scale = np.array(input_size) / np.array(annotation.size)
        extents = (annotation.boxes[:, 2:] - annotation.boxes[:, :2]) * scale
        for label, side in zip(annotation.labels.tolist(), np.sqrt(extents.prod(axis=1)).tolist(), strict=True):
            sides.setdefault(label, []).append(side)
    return sides


def _too_small(sides: Sequence[float], input_size: tuple[int, int]) -> list[str]:
    if not sides or median(sides) >= SMALL_SIDE:
        return []
    width, height = input_size
    return [
        f"small: half of its objects are below {median(sides):.0f} pixels at {width}x{height}; a larger --resolution "
        "or an fpnlite net finds more of them"
    ]


def _confused(matrix: np.ndarray, label: int, names: Sequence[str]) -> list[str]:
    """Say what objects of a class are taken for, how many are missed, and how often nothing is taken for one."""
    row, reasons = matrix[label], []
    objects = row.sum()
    others = row.copy()
    others[[0, label]] = 0
    other = int(others.argmax())
    if others[other] >= max(AT_LEAST, CONFUSED * objects):
        reasons.append(f"{others[other]} of {objects} objects are taken for {names[other - 1]}")
    if row[0] >= max(AT_LEAST, MISSED * objects):
        reasons.append(f"{row[0]} of {objects} objects are not found")
    if matrix[0, label] >= max(AT_LEAST, FALSE_ALARMS * objects):
        reasons.append(
            f"found {matrix[0, label]} times where nothing is labeled: objects without a label, or too few images of "
            "what looks like it"
        )
    return reasons


def _swapped_labels(matrix: np.ndarray, matches: Sequence[ImageMatch], names: Sequence[str]) -> list[SwappedLabels]:
    found = []
    for one, other in itertools.combinations(range(1, len(names) + 1), 2):
        counts = int(matrix[one, other]), int(matrix[other, one])
        objects = matrix[one].sum(), matrix[other].sum()
        if all(count >= max(AT_LEAST, SWAPPED * n) for count, n in zip(counts, objects, strict=True)):
            crossed = _median_score(matches, {(one, other), (other, one)})
            if crossed >= AS_SURE * _median_score(matches, {(one, one), (other, other)}):
                found.append(SwappedLabels((names[one - 1], names[other - 1]), counts))
    return found


def _median_score(matches: Sequence[ImageMatch], pairs: set[tuple[int, int]]) -> float:
    """Median score of detections by (true class, detected class); nan without one."""
    scores = [
        score
        for match in matches
        for true, label, score in zip(
            match.true_labels.tolist(), match.labels.tolist(), match.scores.tolist(), strict=True
        )
        if (true, label) in pairs
    ]
    return median(scores) if scores else math.nan
