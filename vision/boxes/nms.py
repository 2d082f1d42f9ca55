"""Non-maximum suppression, for one class and for all classes of a picture at once.

Hard suppression works on all classes at once. Greedy suppression keeps a box if no better *kept* box overlaps it
too much; starting from "all kept" and applying that rule again and again fixes one more box at least in
each round, so the rounds end in exactly the greedy answer, as a rule after a handful of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vision.boxes.forms import iou_of

DEFAULT_IOU_THRESHOLD = 0.45
DEFAULT_SCORE_THRESHOLD = 0.01
DEFAULT_CANDIDATES = 200
DEFAULT_SIGMA = 0.5

METHODS = ("hard", "soft")


def check_method(nms_method: str | None) -> None:
    """Raise ValueError unless the method is known; None means hard."""
    if nms_method is not None and nms_method not in METHODS:
        raise ValueError(f"unknown NMS method {nms_method!r}, expected one of {', '.join(METHODS)}")


def _greedy_keep(corner_form_boxes: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Greedy suppression within each row: boxes (C, K, 4) by falling score, valid (C, K) -> kept (C, K)."""
    overlaps = iou_of(corner_form_boxes[:, :, None], corner_form_boxes[:, None, :])
    count = corner_form_boxes.shape[1]
    better = torch.ones(count, count, dtype=torch.bool, device=valid.device).triu(diagonal=1)
    suppresses = (overlaps > iou_threshold) & better  # [c, j, i]: j comes first and would remove i
    keep = valid
    while True:
        removed = (suppresses & keep[:, :, None]).any(dim=1)
        following = valid & ~removed
        if torch.equal(following, keep):
            return keep
        keep = following


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
    scores = box_scores[:, -1]
    order = scores.argsort(descending=True, stable=True)[:candidate_size]
    candidates = box_scores[order]
    keep = _greedy_keep(
        candidates[None, :, :4],
        torch.ones(1, len(candidates), dtype=torch.bool, device=scores.device),
        iou_threshold,
    )[0]
    kept = candidates[keep]
    return kept[:top_k] if top_k > 0 else kept


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
    rest, picked = box_scores.clone(), []
    while len(rest):
        best = int(rest[:, 4].argmax())
        pick = rest[best].clone()
        picked.append(pick)
        if len(picked) == top_k:
            break
        rest = torch.cat([rest[:best], rest[best + 1 :]])
        rest[:, 4] *= torch.exp(-(iou_of(rest[:, :4], pick[:4]) ** 2) / sigma)
        rest = rest[rest[:, 4] > score_threshold]
    return torch.stack(picked) if picked else box_scores[:0]


def nms(
    box_scores: Tensor,
    nms_method: str | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    sigma: float = DEFAULT_SIGMA,
    top_k: int = -1,
    candidate_size: int = DEFAULT_CANDIDATES,
) -> Tensor:
    """Suppress overlapping boxes of one class, "hard" (the default) or "soft"; see the functions of these names."""
    if nms_method == "soft":
        threshold = DEFAULT_SCORE_THRESHOLD if score_threshold is None else score_threshold
        return soft_nms(box_scores, threshold, sigma, top_k)
    check_method(nms_method)
    threshold = DEFAULT_IOU_THRESHOLD if iou_threshold is None else iou_threshold
    return hard_nms(box_scores, threshold, top_k, candidate_size)


def multiclass_nms(
    scores: Tensor,
    boxes: Tensor,
    *,
    score_threshold: float = DEFAULT_SCORE_THRESHOLD,
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    nms_method: str | None = None,
    sigma: float = DEFAULT_SIGMA,
    candidate_size: int = DEFAULT_CANDIDATES,
    top_k: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the detections among a net's answers for one picture.

    Per class: scores above the threshold, the best `candidate_size` of them, suppression, the best `top_k`.

    Args:
        scores: (P, C) after softmax, class 0 is the background.
        boxes: (P, 4) corner form, relative.
        score_threshold: a score counts if it is above this.
        iou_threshold: overlap above which hard suppression drops a box.
        nms_method: "hard", "soft" or None for hard.
        sigma: of soft suppression.
        candidate_size: candidates per class; soft suppression has no such limit.
        top_k: detections per class, all if not positive.

    Returns:
        boxes (N, 4), corner form, relative, not clipped; labels (N,); scores (N,). In the order of classes,
        within a class by falling score.
    """
    class_scores = scores[:, 1:].T  # (C - 1, P)
    if nms_method == "soft":
        rows, labels = [boxes.new_zeros(0, 5)], [torch.zeros(0, dtype=torch.int64, device=scores.device)]
        for index, of_class in enumerate(class_scores, start=1):
            above = of_class > score_threshold
            picked = soft_nms(torch.cat([boxes[above], of_class[above, None]], dim=1), score_threshold, sigma, top_k)
            rows.append(picked)
            labels.append(torch.full((len(picked),), index, dtype=torch.int64, device=scores.device))
        found = torch.cat(rows)
        return found[:, :4], torch.cat(labels), found[:, 4]
    check_method(nms_method)
    passing = class_scores > score_threshold
    candidates = min(candidate_size, int(passing.sum(dim=1).max())) if passing.numel() else 0
    # A stable sort keeps ties in the order of the priors.
    ranked, order = class_scores.masked_fill(~passing, -torch.inf).sort(dim=1, descending=True, stable=True)
    ranked, order = ranked[:, :candidates], order[:, :candidates]
    candidate_boxes = boxes[order]  # (C - 1, K, 4)
    keep = _greedy_keep(candidate_boxes, ranked > -torch.inf, iou_threshold)
    if top_k > 0:
        keep &= keep.cumsum(dim=1) <= top_k
    return candidate_boxes[keep], keep.nonzero()[:, 0] + 1, ranked[keep]
