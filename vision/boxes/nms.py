"""Non-maximum suppression of tensors: of one class as published, and of all classes of an image.

The arithmetic is that of `vision.boxes.suppression`, in NumPy on the CPU. The published IoU has an epsilon in its
union, that of all classes has none. So `multiclass_nms` drops a box that `hard_nms` keeps where its overlap with a
better one exceeds the threshold by less than the epsilon takes away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision.boxes.choices import DEFAULT_IOU_THRESHOLD
from vision.boxes.overlaps import IOU_EPSILON
from vision.boxes.suppression import (
    DEFAULT_CANDIDATES,
    DEFAULT_SCORE_THRESHOLD,
    DEFAULT_SIGMA,
    check_method,
    suppress_classes,
    suppress_hard,
    suppress_soft,
)


def _as_array(values: Tensor) -> np.ndarray:
    """Copy values to the CPU, in float32 at the least: NumPy has no bfloat16."""
    return values.detach().to(torch.promote_types(values.dtype, torch.float32)).cpu().numpy()


def hard_nms(
    box_scores: Tensor, iou_threshold: float, top_k: int = -1, candidate_size: int = DEFAULT_CANDIDATES
) -> Tensor:
    """Greedy suppression of one class.

    Args:
        box_scores: (N, 5) corner form and score.
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        top_k: how many to return, all if not positive.
        candidate_size: only this many best boxes are looked at.

    Returns:
        (K, 5) rows of the input by falling score.
    """
    candidates = box_scores[box_scores[:, 4].argsort(descending=True, stable=True)[:candidate_size]]
    kept = torch.from_numpy(suppress_hard(_as_array(candidates[:, :4]), iou_threshold, IOU_EPSILON))
    return candidates[(kept[:top_k] if top_k > 0 else kept).to(candidates.device)]


def soft_nms(box_scores: Tensor, score_threshold: float, sigma: float = DEFAULT_SIGMA, top_k: int = -1) -> Tensor:
    """Suppression by decay (Soft-NMS, arXiv 1704.04503, the Gaussian form): scores shrink by exp(-IoU^2 / sigma).

    Args:
        box_scores: (N, 5) corner form and score; not written to.
        score_threshold: boxes whose score decays to this or below are dropped; the first pick always stays.
        sigma: how gentle the decay is.
        top_k: how many to return, all if not positive.

    Returns:
        (K, 5) boxes with their decayed scores, in the order of picking.
    """
    rows = _as_array(box_scores)
    picked, scores = suppress_soft(rows[:, :4], rows[:, 4], score_threshold, sigma, top_k)
    return torch.from_numpy(np.column_stack([rows[picked, :4], scores])).to(box_scores)


def nms(
    box_scores: Tensor,
    nms_method: str | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    sigma: float = DEFAULT_SIGMA,
    top_k: int = -1,
    candidate_size: int = DEFAULT_CANDIDATES,
) -> Tensor:
    """Suppress overlapping boxes of one class, "hard" (the default, `hard_nms`) or "soft" (`soft_nms`)."""
    if nms_method == "soft":
        threshold = DEFAULT_SCORE_THRESHOLD if score_threshold is None else score_threshold
        return soft_nms(box_scores, threshold, sigma, top_k)
    check_method(nms_method)
    threshold = DEFAULT_IOU_THRESHOLD if iou_threshold is None else iou_threshold
    return hard_nms(box_scores, threshold, top_k, candidate_size)


def multiclass_nms(
    scores: Tensor, boxes: Tensor, *, score_threshold: float = DEFAULT_SCORE_THRESHOLD, **nms_options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the detections among a net's answers for one image; see `vision.boxes.suppression.suppress_classes`.

    Args:
        scores: (P, C) after softmax, class 0 is the background.
        boxes: (P, 4) corner form, relative.
        score_threshold: a score counts if it is above this.
        nms_options: others of `suppress_classes`.

    Returns:
        boxes (N, 4), corner form, relative, not clipped; labels (N,); scores (N,); where the scores were.
    """
    threshold = float(torch.tensor(score_threshold, dtype=scores.dtype))  # what 16 bits make of it
    found = suppress_classes(_as_array(scores), _as_array(boxes), score_threshold=threshold, **nms_options)
    found_boxes, labels, found_scores = map(torch.from_numpy, found)
    return found_boxes.to(boxes), labels.to(scores.device), found_scores.to(scores)
