"""Which prior is responsible for which object, and which negatives the loss looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from vision.boxes.forms import iou_of

#: Overlap from which a prior counts as an object in training (SSD paper, section 2.2).
MATCHING_THRESHOLD = 0.5

#: The overlap that an object's own best prior counts as having: above every threshold.
FORCED_OVERLAP = 2.0


def match_batch(
    corner_form_boxes: Tensor, labels: Tensor, corner_form_priors: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Match the priors of a whole padded batch (SSD paper, section 2.2, "matching strategy").

    Each prior takes the object it overlaps most. Then each object takes the prior it overlaps most, whatever
    the overlap; where objects share one, the later object wins. Priors below the threshold are background.
    All shapes are static and nothing waits for the device.

    Args:
        corner_form_boxes: (B, M, 4) relative; rows whose label is 0 are padding.
        labels: (B, M) int64.
        corner_form_priors: (P, 4) relative.
        iou_threshold: overlap from which a prior counts as an object.

    Returns:
        matched boxes (B, P, 4), corner form, of each prior's object (of the first row for pictures without
        objects: their labels are all 0), and labels (B, P).
    """
    batch, objects = labels.shape
    num_priors = len(corner_form_priors)
    if objects == 0:
        boxes = corner_form_boxes.new_zeros(batch, num_priors, 4)
        return boxes, labels.new_zeros(batch, num_priors)
    present = labels > 0
    overlaps = iou_of(corner_form_boxes[:, :, None], corner_form_priors)  # (B, M, P)
    overlaps = overlaps.masked_fill(~present[..., None], -1.0)
    best_overlap, best_object = overlaps.max(dim=1)  # (B, P)
    best_prior = overlaps.argmax(dim=2)  # (B, M)

    # "The later object wins" as a maximum over object indices: a plain scatter picks any of them on a GPU.
    indices = torch.arange(objects, device=labels.device).expand(batch, objects)
    owner = torch.full((batch, num_priors), -1, device=labels.device, dtype=torch.int64)
    owner = owner.scatter_reduce(1, best_prior, indices.masked_fill(~present, -1), "amax")
    forced = owner >= 0
    chosen = torch.where(forced, owner, best_object)
    best_overlap = best_overlap.masked_fill(forced, FORCED_OVERLAP)

    matched_labels = labels.gather(1, chosen).masked_fill(best_overlap < iou_threshold, 0)
    matched_boxes = corner_form_boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
    return matched_boxes, matched_labels


def assign_priors(
    gt_boxes: Tensor, gt_labels: Tensor, corner_form_priors: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Match the priors of one picture; see `match_batch` for the rules.

    Args:
        gt_boxes: (N, 4) corner form, relative.
        gt_labels: (N,) from 1.
        corner_form_priors: (P, 4) relative.
        iou_threshold: overlap from which a prior counts as an object.

    Returns:
        boxes (P, 4), corner form, and labels (P,), 0 for background.
    """
    boxes, labels = match_batch(gt_boxes[None], gt_labels[None], corner_form_priors, iou_threshold)
    return boxes[0], labels[0]


def hard_negative_mining(loss: Tensor, labels: Tensor, neg_pos_ratio: float, negatives_when_empty: int = 0) -> Tensor:
    """Choose the priors whose classification counts: all positives and each picture's hardest negatives.

    Args:
        loss: (B, P) how hard each prior is as a background, -log softmax(background).
        labels: (B, P), 0 is background.
        neg_pos_ratio: negatives kept for each positive of the same picture.
        negatives_when_empty: negatives kept for a picture without positives.

    Returns:
        (B, P) bool.
    """
    positive = labels > 0
    num_positive = positive.sum(dim=1, keepdim=True)
    num_negative = num_positive * neg_pos_ratio
    num_negative = num_negative.masked_fill(num_positive == 0, negatives_when_empty)
    hardness = loss.masked_fill(positive, -torch.inf)
    order = hardness.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(loss.shape[1], device=loss.device).expand_as(order))
    return positive | (rank < num_negative)
