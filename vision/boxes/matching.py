"""Which prior is responsible for which object, and which negatives the loss looks at."""

from __future__ import annotations

import torch
from torch import Tensor

from vision.boxes.forms import iou_of

#: Overlap from which a prior counts as an object in training (SSD paper, section 2.2).
MATCHING_THRESHOLD = 0.5

#: Part of a prior that a crowd's box must cover for the prior to be ignored. Detectron's `CROWD_FILTER_THRESH` is 0.7
#: of a proposal; half agrees with the threshold for single objects.
CROWD_COVERAGE = 0.5

#: The overlap that an object's own best prior counts as having: above every threshold.
FORCED_OVERLAP = 2.0

#: Pairs of an object and a prior that are compared at once; IoU's intermediates take about 32 bytes a pair in float32.
#: Twice as many took up to three times as long on a busy CPU; fewer are no faster there, and cost a GPU launches.
PAIRS_AT_ONCE = 1 << 18


def _coordinate_planes(boxes: Tensor) -> Tensor:
    """Return equal boxes (..., 4) whose memory holds one coordinate of all boxes after the other.

    Elementwise results inherit the layout, so inner loops run over boxes instead of over two coordinates.
    """
    return boxes.movedim(-1, 0).contiguous().movedim(0, -1)


def _best_matches(
    corner_form_boxes: Tensor, present: Tensor, corner_form_priors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the largest overlaps both ways; of equal ones the first counts.

    Args:
        corner_form_boxes: (B, M, 4) relative, at least one.
        present: (B, M) bool, False for padding, which overlaps everything by -1.
        corner_form_priors: (P, 4) relative.

    Returns:
        of each prior the overlap (B, P) and the row of its object (B, P), of each object the index of its prior (B, M).
    """
    # Empty boxes overlap nothing, so subtracting 1 from theirs gives exactly -1: several times faster than masking.
    objects = _coordinate_planes(corner_form_boxes.masked_fill(~present[..., None], 0.0))[:, :, None]
    absent = (~present).to(objects.dtype)[..., None]
    dtype = torch.promote_types(objects.dtype, corner_form_priors.dtype)
    # Whole from the start: small results that live on between large temporaries would fragment the heap.
    iou_of_prior = torch.empty(len(present), len(corner_form_priors), dtype=dtype, device=objects.device)
    object_of_prior = torch.empty_like(iou_of_prior, dtype=torch.int64)
    iou_of_object = torch.full(present.shape, -torch.inf, dtype=dtype, device=objects.device)
    prior_of_object = torch.zeros_like(present, dtype=torch.int64)
    start = 0
    for priors in _coordinate_planes(corner_form_priors).split(max(1, PAIRS_AT_ONCE // present.numel())):
        stop = start + len(priors)
        ious = iou_of(objects, priors).sub_(absent)  # (B, M, stop - start)
        iou_of_prior[:, start:stop], object_of_prior[:, start:stop] = ious.max(dim=1)
        iou, index = ious.max(dim=2)
        prior_of_object[:] = torch.where(iou > iou_of_object, index + start, prior_of_object)
        iou_of_object[:] = torch.maximum(iou, iou_of_object)
        start = stop
    return iou_of_prior, object_of_prior, prior_of_object


def match_batch(
    corner_form_boxes: Tensor, labels: Tensor, corner_form_priors: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Match the priors of a whole padded batch (SSD paper, section 2.2, "matching strategy").

    Each prior takes the object it overlaps most. Then each object takes the prior it overlaps most, whatever
    the overlap; where objects share one, the later object wins. Priors below the threshold are background.
    All shapes are static and nothing waits for the device. Beyond a few numbers for each box and
    prior it needs memory for `PAIRS_AT_ONCE`, whatever B, M and P.

    Args:
        corner_form_boxes: (B, M, 4) relative; rows whose label is 0 are padding.
        labels: (B, M) int64.
        corner_form_priors: (P, 4) relative.
        iou_threshold: overlap from which a prior counts as an object.

    Returns:
        matched boxes (B, P, 4), corner form, of each prior's object (of the first row for images without
        objects: their labels are all 0), and labels (B, P).
    """
    batch, objects = labels.shape
    num_priors = len(corner_form_priors)
    if labels.numel() == 0:
        boxes = corner_form_boxes.new_zeros(batch, num_priors, 4)
        return boxes, labels.new_zeros(batch, num_priors)
    present = labels > 0
    best_overlap, best_object, best_prior = _best_matches(corner_form_boxes, present, corner_form_priors)

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


def find_ignored_priors(
    corner_form_boxes: Tensor, is_object: Tensor, is_crowd: Tensor, corner_form_priors: Tensor, iou_threshold: float
) -> Tensor:
    """Find the priors that belong to objects which the loss ignores.

    A prior belongs to a single object if `match_batch` would have matched the two. It belongs to a crowd if the
    crowd's box covers at least `CROWD_COVERAGE` of the part of the prior that lies in the image. Nothing waits for the
    device.

    Args:
        corner_form_boxes: (B, K, 4) relative.
        is_object: (B, K) bool, True for boxes of single objects.
        is_crowd: (B, K) bool, True for boxes of crowds; rows that are neither are padding.
        corner_form_priors: (P, 4) relative.
        iou_threshold: overlap from which a prior counts as an object.

    Returns:
        (B, P) bool.
    """
    if is_object.numel() == 0:
        return is_object.new_zeros(len(is_object), len(corner_form_priors))
    iou, _, best_prior = _best_matches(corner_form_boxes, is_object, corner_form_priors)
    is_best = torch.zeros_like(iou, dtype=torch.int64).scatter_reduce(1, best_prior, is_object.long(), "amax") > 0
    covered = crowd_coverage(corner_form_boxes, is_crowd, corner_form_priors) >= CROWD_COVERAGE
    return is_best | covered | (iou >= iou_threshold)


def crowd_coverage(corner_form_boxes: Tensor, present: Tensor, corner_form_priors: Tensor) -> Tensor:
    """Return the largest part of each prior that one box covers, (B, P); what lies outside the image does not count.

    Args:
        corner_form_boxes: (B, K, 4) relative, at least one.
        present: (B, K) bool, False for boxes that do not count.
        corner_form_priors: (P, 4) relative.
    """
    objects = corner_form_boxes.masked_fill(~present[..., None], 0.0)[:, :, None]
    found = []
    for priors in corner_form_priors.clamp(0, 1).split(max(1, PAIRS_AT_ONCE // present.numel())):
        sides = torch.minimum(objects[..., 2:], priors[:, 2:]) - torch.maximum(objects[..., :2], priors[:, :2])
        shared = sides.clamp(min=0).prod(dim=-1)  # (B, K, priors)
        areas = (priors[:, 2:] - priors[:, :2]).prod(dim=-1)
        found.append(shared.amax(dim=1) / areas.clamp(min=1e-9))
    return torch.cat(found, dim=1)


def assign_priors(
    gt_boxes: Tensor, gt_labels: Tensor, corner_form_priors: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Match the priors of one image; see `match_batch` for the rules.

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
    """Choose the priors whose classification counts: all positives and each image's hardest negatives.

    Args:
        loss: (B, P) how hard each prior is as a background, -log softmax(background).
        labels: (B, P), 0 is background; negative ones are never chosen.
        neg_pos_ratio: negatives kept for each positive of the same image.
        negatives_when_empty: negatives kept for an image without positives.

    Returns:
        (B, P) bool.
    """
    positive = labels > 0
    num_positive = positive.sum(dim=1, keepdim=True)
    num_negative = num_positive * neg_pos_ratio
    num_negative = num_negative.masked_fill(num_positive == 0, negatives_when_empty)
    background = labels == 0
    hardness = loss.masked_fill(~background, -torch.inf)
    order = hardness.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(loss.shape[1], device=loss.device).expand_as(order))
    return positive | (background & (rank < num_negative))
