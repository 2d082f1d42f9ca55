"""Precision and recall over the score, by the rules of the VOC devkit, and the threshold that suits a class best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from vision.boxes.overlaps import iou_of_arrays
from vision.structures import Annotation, Detections

#: Pairs of a detection and an object whose overlaps are held at once.
_MOST_PAIRS = 1 << 20


class Point(NamedTuple):
    """What a class reaches when detections below a threshold are left out.

    Attributes:
        threshold: scores of at least this stay; nan where there is none to choose.
        precision: share of the detections that hit, 0 where there are none; nan without objects.
        recall: share of the objects that are hit; nan without objects.
        f1: their harmonic mean, 2 TP / (2 TP + FP + FN); nan without objects.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


class Curve(NamedTuple):
    """What the first 1 ... K detections of a class by falling score are worth; those that do not count are left out.

    Attributes:
        scores: (K,) falling.
        hits: (K,) how many of the first 1 ... K are hits.
        objects: that are to be found.
        cut_off: score below which detections were left out before, so that nothing is known of lower thresholds.
    """

    scores: np.ndarray
    hits: np.ndarray
    objects: int
    cut_off: float = 0.0

    @property
    def precision(self) -> np.ndarray:
        """(K,); nan without objects."""
        return self._shares(np.arange(1, len(self.hits) + 1))

    @property
    def recall(self) -> np.ndarray:
        """(K,); nan without objects."""
        return self._shares(self.objects)

    @property
    def f1(self) -> np.ndarray:
        """(K,); nan without objects."""
        return self._f1(self.hits, np.arange(1, len(self.hits) + 1))

    def at(self, threshold: float) -> Point:
        """The point of one threshold."""
        count = int(self.counts_at(threshold))
        if not count:
            return Point(threshold, *[0.0 if self.objects else math.nan] * 3)
        return Point(threshold, *(float(of[count - 1]) for of in (self.precision, self.recall, self.f1)))

    def f1_at(self, thresholds: np.ndarray) -> np.ndarray:
        """F1 (T,) at thresholds (T,); nan without objects."""
        counts = self.counts_at(thresholds)
        return self._f1(np.concatenate([[0], self.hits])[counts], counts)

    def counts_at(self, thresholds: np.ndarray | float) -> np.ndarray:
        """How many detections have scores of at least the thresholds."""
        return np.searchsorted(-self.scores, -np.asarray(thresholds), side="right")

    def best(self) -> Point:
        """The point of highest F1; of equal ones that with the fewest detections."""
        return self.at(best_threshold([self]))

    def _shares(self, totals: np.ndarray | int) -> np.ndarray:
        return self.hits / totals if self.objects else np.full(len(self.hits), math.nan)

    def _f1(self, hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return 2 * hits / (counts + self.objects) if self.objects else np.full(len(hits), math.nan)


def best_threshold(curves: Sequence[Curve]) -> float:
    """Choose one threshold for all classes: where the mean of their F1 is highest.

    Every threshold between two neighboring scores gives the same detections; the one chosen is the number of fewest
    decimals near the middle between them, which new images are least likely to cross.

    Args:
        curves: of the classes; those without objects have no say.

    Returns:
        the threshold; nan where nothing is ever hit.
    """
    curves = [curve for curve in curves if curve.objects]
    if not any(curve.hits.any() for curve in curves):
        return math.nan
    scores = np.unique(np.concatenate([curve.scores for curve in curves]))
    mean_f1 = np.asarray(sum(curve.f1_at(scores) for curve in curves)) / len(curves)
    best = len(scores) - 1 - int(np.argmax(mean_f1[::-1]))
    return _short_number(scores[best - 1] if best else max(curve.cut_off for curve in curves), scores[best])


def _short_number(low: float, high: float) -> float:
    """Round the middle of low < x <= high to as few decimals as stay within."""
    middle = (low + high) / 2
    for decimals in range(1, 17):
        rounded = round(float(middle), decimals)
        if low < rounded <= high:
            return rounded
    return float(high)


class Matches(NamedTuple):
    """Detections of a class by falling score, each with the object of its image and class that it overlaps most.

    Attributes:
        scores: (D,).
        ious: (D,); 0 where there is no object.
        objects: (D,) number of the object that each detection overlaps most, counted over all images.
        difficult: (D,) bool, whether that object is difficult.
        num_objects: of the class, those that are difficult not counted.
    """

    scores: np.ndarray
    ious: np.ndarray
    objects: np.ndarray
    difficult: np.ndarray
    num_objects: int

    def curve(self, iou_threshold: float, cut_off: float = 0.0) -> Curve:
        """Say which detections hit, in that order.

        One hits its object if their overlap exceeds the threshold. Hits on difficult objects do not count at all; of
        several hits on an object only the first is one, the others are false. `cut_off`: see `Curve`.
        """
        over = self.ious > iou_threshold
        counts = ~(over & self.difficult)
        candidates = np.flatnonzero(over & counts)
        _, first = np.unique(self.objects[candidates], return_index=True)
        hits = np.zeros(len(over), np.int64)
        hits[candidates[first]] = 1
        return Curve(self.scores[counts], np.cumsum(hits[counts]), self.num_objects, cut_off)


class _Rows(NamedTuple):
    """Boxes of all images one below the other, in the order of the images.

    Attributes:
        images: (N,) numbers of the images.
        boxes: (N, 4) corner form in pixels.
        labels: (N,).
        values: (N,) scores of detections, or whether objects are difficult.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], kind: type) -> _Rows:
        """Put boxes, labels and values of each image together."""
        lengths = [len(labels) for _, labels, _ in parts]
        return cls(
            np.repeat(np.arange(len(parts)), lengths),
            np.concatenate([np.zeros((0, 4), np.float32), *(boxes for boxes, _, _ in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(labels for _, labels, _ in parts)]),
            np.concatenate([np.zeros(0, kind), *(values for _, _, values in parts)]),
        )

    def of_class(self, label: int) -> _Rows:
        """Keep the rows of a class."""
        mine = np.flatnonzero(self.labels == label)
        return _Rows(self.images[mine], self.boxes[mine], self.labels[mine], self.values[mine])


def match_classes(
    detections: Sequence[Detections], annotations: Sequence[Annotation], num_classes: int, *, inclusive: bool = False
) -> Iterator[Matches]:
    """Match the detections of each class in turn, BACKGROUND left out; arguments as in `vision.evaluation.evaluate`."""
    grow = np.array([0, 0, inclusive, inclusive], np.float32)
    found = _Rows.of(
        [
            (np.asarray(boxes) + grow, np.asarray(labels), np.asarray(scores, np.float64))
            for boxes, labels, scores in detections
        ],
        float,
    )
    truth = _Rows.of([(np.float32(one.boxes) + grow, one.labels, one.difficult) for one in annotations], bool)
    for label in range(1, num_classes):
        yield _match_class(found.of_class(label), truth.of_class(label))


def _match_class(found: _Rows, truth: _Rows) -> Matches:
    first, stop = (np.searchsorted(truth.images, found.images, side) for side in ("left", "right"))
    ious, objects = np.zeros(len(first), np.float32), np.zeros(len(first), np.int64)
    ends = np.cumsum(stop - first)
    begin = 0
    while begin < len(first):  # a bounded number of pairs at a time
        end = max(begin + 1, int(np.searchsorted(ends, (ends[begin - 1] if begin else 0) + _MOST_PAIRS, "right")))
        part = slice(begin, end)
        ious[part], objects[part] = _best_objects(found.boxes[part], truth.boxes, first[part], stop[part])
        begin = end
    difficult = truth.values[objects] & (stop > first) if len(truth.values) else np.zeros(len(first), bool)
    order = np.argsort(-found.values, kind="stable")
    num_objects = int((~truth.values).sum())
    return Matches(found.values[order], ious[order], objects[order], difficult[order], num_objects)


def _best_objects(
    boxes: np.ndarray, objects: np.ndarray, first: np.ndarray, stop: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For boxes (N, 4), find which of the objects first ... stop - 1 (N,) each overlaps most, and by how much.

    Boxes without any have an overlap of 0 with object 0.
    """
    best_overlap, best_object = np.zeros(len(first), np.float32), np.zeros(len(first), np.int64)
    having = np.flatnonzero(stop > first)
    if not len(having):
        return best_overlap, best_object
    counts = (stop - first)[having]
    starts = np.cumsum(counts) - counts
    of_pair = np.repeat(np.arange(len(having)), counts)
    object_of_pair = np.arange(len(of_pair)) - starts[of_pair] + first[having][of_pair]
    # Boxes without end overlap nothing.
    ious = np.nan_to_num(iou_of_arrays(boxes[having[of_pair]], objects[object_of_pair]), nan=0.0)
    best = np.maximum.reduceat(ious, starts)
    _, places = np.unique(of_pair[reached := np.flatnonzero(ious == best[of_pair])], return_index=True)
    best_overlap[having], best_object[having] = best, object_of_pair[reached[places]]
    return best_overlap, best_object
