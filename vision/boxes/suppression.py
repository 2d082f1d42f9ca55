"""Non-maximum suppression of arrays. It needs nothing but NumPy, so that a device can do without PyTorch.

An overlap is computed in the precision of the boxes and compared with the limit in double, as torchvision's kernel does
on a CPU. What stays is the same, to the last bit.
"""

from __future__ import annotations

import numpy as np

from vision.boxes.choices import DEFAULT_IOU_THRESHOLD, METHODS
from vision.boxes.overlaps import IOU_EPSILON, iou_of_sides

DEFAULT_SCORE_THRESHOLD = 0.01
DEFAULT_CANDIDATES = 200
DEFAULT_SIGMA = 0.5

#: Boxes that are compared with each other at a time.
_BLOCK = 256


def check_method(nms_method: str | None) -> None:
    """Raise ValueError unless the method is known; None means hard."""
    if nms_method is not None and nms_method not in METHODS:
        raise ValueError(f"unknown NMS method {nms_method!r}, expected one of {', '.join(METHODS)}")


def suppress_hard(boxes: np.ndarray, iou_threshold: float, eps: float = 0.0) -> np.ndarray:
    """Greedy suppression: a box stays unless it overlaps a better one that stays by more than a threshold.

    Args:
        boxes: (N, 4) corner form, the best first.
        iou_threshold: the overlap above which a box is dropped.
        eps: added to the union of two boxes.

    Returns:
        (K,) numbers of the boxes that stay, rising.
    """
    sides = np.ascontiguousarray(boxes.T)
    kept, rest = [np.zeros(0, np.int64)], np.arange(len(boxes))
    while len(rest):
        block, rest = rest[:_BLOCK], rest[_BLOCK:]
        ious = iou_of_sides(sides[:, block, None], sides[:, None, block], eps)
        block = block[_first_come(ious > np.float64(iou_threshold))]
        kept.append(block)
        if len(rest):
            ious = iou_of_sides(sides[:, block, None], sides[:, None, rest], eps)
            rest = rest[~(ious > np.float64(iou_threshold)).any(axis=0)]
    return np.concatenate(kept)


def _first_come(suppresses: np.ndarray) -> list[int]:
    """Go through boxes from the first and drop what each drops (N, N); dropped ones drop none. Gives those that stay.

    A row is the bits of one integer of Python's: that takes half the time of rows of NumPy's.
    """
    rows, dropped, kept = np.packbits(suppresses, axis=1, bitorder="little"), 0, []
    bits, width = rows.tobytes(), rows.shape[1]
    for number in range(len(rows)):
        if not dropped >> number & 1:
            kept.append(number)
            dropped |= int.from_bytes(bits[number * width : (number + 1) * width], "little")
    return kept


def suppress_soft(
    boxes: np.ndarray, scores: np.ndarray, score_threshold: float, sigma: float = DEFAULT_SIGMA, top_k: int = -1
) -> tuple[np.ndarray, np.ndarray]:
    """Suppression by decay (Soft-NMS, arXiv 1704.04503, the Gaussian form): scores shrink by exp(-IoU^2 / sigma).

    Args:
        boxes: (N, 4) corner form.
        scores: (N,); not written to.
        score_threshold: boxes whose score decays to this or below are dropped; the first pick always stays.
        sigma: how gentle the decay is.
        top_k: how many to return, all if not positive.

    Returns:
        (K,) numbers of the boxes in the order of picking, and their decayed scores (K,).
    """
    sides = np.ascontiguousarray(boxes.T)
    rest, decayed = np.arange(len(boxes)), scores
    picked: list[int] = []
    picked_scores: list[np.floating] = []
    while len(rest) and len(picked) != top_k:
        best = int(decayed.argmax())
        picked.append(int(rest[best]))
        picked_scores.append(decayed[best])
        rest, decayed = np.delete(rest, best), np.delete(decayed, best)
        ious = iou_of_sides(sides[:, picked[-1:]], sides[:, rest], IOU_EPSILON)
        decayed = decayed * np.exp(-(ious**2) / sigma)
        above = decayed > decayed.dtype.type(score_threshold)
        rest, decayed = rest[above], decayed[above]
    return np.array(picked, np.int64), np.array(picked_scores, scores.dtype)


def suppress_classes(
    scores: np.ndarray,
    boxes: np.ndarray,
    *,
    score_threshold: float = DEFAULT_SCORE_THRESHOLD,
    iou_threshold: float = DEFAULT_IOU_THRESHOLD,
    nms_method: str | None = None,
    sigma: float = DEFAULT_SIGMA,
    candidate_size: int = DEFAULT_CANDIDATES,
    top_k: int = -1,
    class_agnostic: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
        boxes (N, 4), corner form, relative, not clipped; labels (N,) int64; scores (N,). In the order of classes,
        within a class by falling score.

    Raises:
        ValueError: the method is unknown, or soft suppression is to be class-agnostic.
    """
    check_method(nms_method)
    is_soft = nms_method == "soft"
    if class_agnostic and is_soft:
        raise ValueError("soft suppression is of one class at a time; use hard suppression, or each class for itself")
    class_scores = np.ascontiguousarray(scores[:, 1:].T)
    passing = class_scores > class_scores.dtype.type(score_threshold)
    if not is_soft and 0 < candidate_size < int(passing.sum(axis=1).max(initial=0)):
        # Leaves few boxes to copy; those at the limit are too low in the classes that have fewer.
        limits = np.partition(class_scores, -candidate_size, axis=1)[:, -candidate_size, None]
        passing &= class_scores >= limits
    of_class, prior = np.nonzero(passing)  # class by class
    candidates, found_scores = boxes[prior], class_scores[of_class, prior]
    groups = np.split(np.arange(len(prior)), np.cumsum(passing.sum(axis=1))[:-1])
    if is_soft:
        decayed = [
            suppress_soft(candidates[group], found_scores[group], score_threshold, sigma, top_k) for group in groups
        ]
        picked = np.concatenate([group[kept] for group, (kept, _) in zip(groups, decayed, strict=True)])
        return candidates[picked], of_class[picked] + 1, np.concatenate([of_group for _, of_group in decayed])
    if class_agnostic:
        ranked = np.argsort(-found_scores, kind="stable")
        together = ranked[suppress_hard(candidates[ranked], iou_threshold)]
        kept = [together[of_class[together] == number] for number in range(len(groups))]
    else:
        best = [group[np.argsort(-found_scores[group], kind="stable")[:candidate_size]] for group in groups]
        kept = [group[suppress_hard(candidates[group], iou_threshold)] for group in best]
    picked = np.concatenate([group[:top_k] if top_k > 0 else group for group in kept])
    return candidates[picked], of_class[picked] + 1, found_scores[picked]
