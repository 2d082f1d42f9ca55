"""Non-maximum suppression: of one class as published, and of all classes of an image by torchvision's kernel.

The published IoU has an epsilon in its union, torchvision's has none. So `multiclass_nms` drops a box that `hard_nms`
keeps where its overlap with a better one exceeds the threshold by less than the epsilon takes away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vision.boxes.choices import DEFAULT_IOU_THRESHOLD, METHODS
from vision.boxes.forms import iou_of

DEFAULT_SCORE_THRESHOLD = 0.01
DEFAULT_CANDIDATES = 200
DEFAULT_SIGMA = 0.5


def check_method(nms_method: str | None) -> None:
    """Raise ValueError unless the method is known; None means hard."""
    if nms_method is not None and nms_method not in METHODS:
        raise ValueError(f"unknown NMS method {nms_method!r}, expected one of {', '.join(METHODS)}")


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
    candidates = _best(box_scores, candidate_size)
    suppresses = (iou_of(candidates[:, None, :4], candidates[None, :, :4]) > iou_threshold).triu(diagonal=1).cpu()
    dropped = torch.zeros(len(candidates), dtype=torch.bool)
    for index, overlapping in enumerate(suppresses):
        if not dropped[index]:
            dropped |= overlapping
    kept = candidates[~dropped.to(candidates.device)]
    return kept[:top_k] if top_k > 0 else kept


def _best(box_scores: Tensor, count: int) -> Tensor:
    """Pick the rows (N, 5) of the `count` highest scores, falling; of equal scores the first comes first."""
    return box_scores[box_scores[:, 4].argsort(descending=True, stable=True)[:count]]


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
    """Suppress overlapping boxes of one class, "hard" (the default, `hard_nms`) or "soft" (`soft_nms`)."""
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
    class_agnostic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the detections among a net's answers for one image.

    Per class: scores above the threshold, the best `candidate_size` of them, suppression, the best `top_k`. With
    `class_agnostic` the candidates of all classes go through one suppression, so that an object has one class.

    Args:
        scores: (P, C) after softmax, class 0 is the background.
        boxes: (P, 4) corner form, relative.
        score_threshold: a score counts if it is above this.
        iou_threshold: overlap above which hard suppression drops a box.
        nms_method: "hard", "soft" or None for hard.
        sigma: of soft suppression.
        candidate_size: candidates per class; soft suppression has no such limit.
        top_k: detections per class, all if not positive.
        class_agnostic: whether a box also suppresses boxes of other classes; for hard suppression.

    Returns:
        boxes (N, 4), corner form, relative, not clipped; labels (N,); scores (N,). In the order of classes,
        within a class by falling score.

    Raises:
        ValueError: the method is unknown, or soft suppression is to be class-agnostic.
    """
    check_method(nms_method)
    if class_agnostic and nms_method == "soft":
        raise ValueError("soft suppression is of one class at a time; use hard suppression, or each class for itself")
    device = scores.device
    # How many boxes remain is needed several times per class; on a GPU each time would be a wait.
    class_scores, boxes = scores[:, 1:].T.cpu().contiguous(), boxes.cpu()
    passing = class_scores > score_threshold
    if nms_method != "soft" and 0 < candidate_size < int(passing.sum(dim=1).amax()):
        # Leaves few boxes to copy; those at the limit are too low in the classes that have fewer.
        wide = class_scores.detach().to(torch.promote_types(class_scores.dtype, torch.float32))  # NumPy has no bf16
        limits = np.partition(wide.numpy(), -candidate_size, axis=1)[:, -candidate_size, None]
        passing &= class_scores >= torch.from_numpy(limits)
    of_class, prior = passing.nonzero(as_tuple=True)  # class by class
    rows = torch.cat([boxes[prior], class_scores[of_class, prior, None]], dim=1)
    counts = passing.sum(dim=1).tolist()
    if nms_method == "soft":
        decayed = [soft_nms(box_scores, score_threshold, sigma, top_k) for box_scores in rows.split(counts)]
        found = torch.cat([rows[:0], *decayed])
        labels = torch.arange(len(counts)).repeat_interleave(
            torch.tensor([len(kept) for kept in decayed], dtype=torch.int64)
        )
    else:
        if class_agnostic:
            together = _exact_nms(rows, [len(rows)], iou_threshold, -1, len(rows))
            of_each = (together[of_class[together] == number] for number in range(len(counts)))
            picked = torch.cat([kept[:top_k] if top_k > 0 else kept for kept in of_each])
        else:
            picked = _exact_nms(rows, counts, iou_threshold, top_k, candidate_size)
        found, labels = rows[picked], of_class[picked]
    found = found.to(device)
    return found[:, :4], (labels + 1).to(device), found[:, 4]


def _exact_nms(
    box_scores: Tensor, counts: Sequence[int], iou_threshold: float, top_k: int, candidate_size: int
) -> Tensor:
    """Do what `hard_nms` does for each of several groups, by torchvision's kernel, whose IoU has no epsilon.

    Args:
        box_scores: (N, 5) on the CPU, group by group.
        counts: of the rows of each group.
        iou_threshold: see `hard_nms`.
        top_k: see `hard_nms`.
        candidate_size: see `hard_nms`.

    Returns:
        (K,) indices of the rows that stay, group by group.
    """
    from torchvision import ops  # takes a second or two, which not every command has to wait for

    wide = box_scores.to(torch.promote_types(box_scores.dtype, torch.float32))  # the kernel has no half precision
    boxes, scores = wide[:, :4].contiguous(), wide[:, 4].contiguous()
    picked, end = [torch.zeros(0, dtype=torch.int64)], 0
    for count in counts:
        begin, end = end, end + count
        if count > candidate_size:
            best = begin + scores[begin:end].argsort(descending=True, stable=True)[:candidate_size]
            kept = best[ops.nms(boxes[best], scores[best], iou_threshold)]
        else:
            kept = begin + ops.nms(boxes[begin:end], scores[begin:end], iou_threshold)
        picked.append(kept[:top_k] if top_k > 0 else kept)  # by falling score, of equal ones the first first
    return torch.cat(picked)
