"""What a detector finds, misses and mistakes on each image, at one threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vision.boxes.overlaps import iou_of_arrays
from vision.structures import Annotation, Detections

#: The object of a detection that has none, and the other way round.
NONE = -1


class ImageMatch(NamedTuple):
    """Detections of at least a threshold and objects of one image, in pairs.

    Attributes:
        labels: (D,) of the detections.
        scores: (D,).
        boxes: (D, 4), corner form in pixels.
        objects: (D,) number of each detection's object, `NONE` without.
        annotation: the objects.
    """

    labels: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    objects: np.ndarray
    annotation: Annotation

    @property
    def true_labels(self) -> np.ndarray:
        """(D,) classes of the detections' objects, 0 without."""
        return self._of_object(self.annotation.labels, 0)

    @property
    def ignored(self) -> np.ndarray:
        """(D,) bool: detections of difficult objects, which count neither for nor against."""
        return self._of_object(self.annotation.difficult, False)

    @property
    def hits(self) -> np.ndarray:
        """(D,) bool: detections of an object of their class."""
        return (self.true_labels == self.labels) & ~self.ignored

    @property
    def false(self) -> np.ndarray:
        """(D,) bool: detections of nothing, of what another has found already, or of another class."""
        return ~self.hits & ~self.ignored

    @property
    def missed(self) -> np.ndarray:
        """(N,) bool: objects that no detection of their class is paired with, difficult ones left out."""
        missed = ~self.annotation.difficult
        missed[self.objects[self.hits]] = False
        return missed

    def _of_object(self, values: np.ndarray, without: int | bool) -> np.ndarray:
        """Take a value of each detection's object."""
        return np.append(values, without)[self.objects]


def match_image(
    detections: Detections, annotation: Annotation, threshold: float, iou_threshold: float = 0.5
) -> ImageMatch:
    """Pair detections and objects one to one, whatever their classes.

    Of all pairs whose overlap exceeds the limit those of the same class come first, then those that overlap most; pairs
    with difficult objects come last.

    Args:
        detections: of the image, boxes in pixels.
        annotation: its objects.
        threshold: scores below this are left out.
        iou_threshold: overlap to be exceeded.
    """
    all_boxes, all_labels, all_scores = map(np.asarray, detections)
    kept = all_scores.astype(np.float64) >= threshold
    boxes, labels = all_boxes[kept], all_labels[kept]
    paired = np.full(len(labels), NONE)
    if len(labels) and len(annotation.labels):
        ious = iou_of_arrays(boxes[:, None], annotation.boxes.astype(boxes.dtype)[None])
        rows, columns = np.nonzero(ious > iou_threshold)
        other_class = labels[rows] != annotation.labels[columns]
        order = np.lexsort((-ious[rows, columns], other_class, annotation.difficult[columns]))
        free = np.full(len(annotation.labels), True)
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            if paired[row] == NONE and free[column]:
                paired[row], free[column] = column, False
    return ImageMatch(labels, all_scores[kept], boxes, paired, annotation)


def confusion_matrix(matches: Sequence[ImageMatch], num_classes: int) -> np.ndarray:
    """Count what objects are taken for.

    Args:
        matches: of all images.
        num_classes: with the background.

    Returns:
        (C, C) int64, rows are true classes and columns detected ones. Row 0 counts detections of nothing, column 0
        objects that are not found; difficult objects are left out.
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    for match in matches:
        counts = ~match.ignored
        np.add.at(matrix, (match.true_labels[counts], match.labels[counts]), 1)
        unpaired = ~match.annotation.difficult
        unpaired[match.objects[match.objects != NONE]] = False
        np.add.at(matrix, (match.annotation.labels[unpaired], 0), 1)
    return matrix
