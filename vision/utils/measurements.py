"""Average precision from points of a precision-recall curve, by the two definitions of the VOC devkit."""

from __future__ import annotations

import numpy as np

#: The devkit's levels. They are not round numbers (0.30000000000000004), and results depend on it.
RECALL_LEVELS = np.arange(0, 1.1, 0.1)


def compute_average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the curve after making precision monotone from the right (VOC 2010 and later).

    Args:
        precision: (K,) after the first 1 ... K detections by falling score.
        recall: (K,) after the first 1 ... K detections by falling score.
    """
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[1:]))


def compute_voc2007_average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """Mean over eleven recall levels of the best precision at that recall or above (VOC 2007).

    Args:
        precision: (K,) after the first 1 ... K detections by falling score.
        recall: (K,) after the first 1 ... K detections by falling score.
    """
    precision, recall = np.asarray(precision, dtype=float), np.asarray(recall, dtype=float)
    best = [precision[recall >= level].max(initial=0.0) for level in RECALL_LEVELS]
    return float(np.sum(best) / len(RECALL_LEVELS))
