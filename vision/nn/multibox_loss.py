"""The SSD loss (arXiv 1512.02325, section 2.2, "training objective")."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.boxes.matching import hard_negative_mining

#: An image without objects weighs as much as one with this many matched priors: it keeps
#: `neg_pos_ratio` times as many of its hardest negatives, and adds as much to the loss normalizer.
VIRTUAL_POSITIVES = 4


class Losses(NamedTuple):
    """The two parts of the loss, scalars."""

    regression: Tensor
    classification: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised: the parts' plain sum."""
        return self.regression + self.classification


class MultiboxLoss(nn.Module):
    """Smooth L1 over the positives' locations plus cross-entropy over positives and hard negatives.

    Both sums are divided by the number of positives of the batch, where an image without any counts
    `VIRTUAL_POSITIVES`.

    Args:
        priors: not used: matching happens before the loss. Kept for scripts that pass it, like all but the ratio
            and beta.
        iou_threshold: not used.
        neg_pos_ratio: negatives per positive.
        center_variance: not used.
        size_variance: not used.
        device: not used: the loss works where its inputs are.
        beta: error of a location from which smooth L1 grows with its size instead of with its square; the paper's 1 by
            default, 0 for plain L1.
    """

    def __init__(
        self,
        priors: Tensor | None = None,
        iou_threshold: float | None = None,
        neg_pos_ratio: float = 3,
        center_variance: float | None = None,
        size_variance: float | None = None,
        device: torch.device | str | None = None,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        self.neg_pos_ratio = neg_pos_ratio
        self.beta = beta

    @staticmethod
    def loss_normalizer(labels: Tensor) -> Tensor:
        """Scalar by which the sums over a batch are divided; matched labels (B, P) alone decide it."""
        per_image = (labels > 0).sum(dim=1)
        return torch.where(per_image > 0, per_image, VIRTUAL_POSITIVES).sum()

    def forward(
        self,
        confidence: Tensor,
        predicted_locations: Tensor,
        labels: Tensor,
        gt_locations: Tensor,
        loss_normalizer: Tensor | None = None,
    ) -> Losses:
        """Compute the losses of a batch.

        Args:
            confidence: (B, P, C) class scores before softmax.
            predicted_locations: (B, P, 4) encoded.
            labels: (B, P) int64, the matched classes, 0 is background; priors of negative labels do not count.
            gt_locations: (B, P, 4) encoded boxes of the matched objects.
            loss_normalizer: of more than this batch, where it is part of a larger one; None for its own.

        Returns:
            the regression and classification loss.
        """
        confidence, predicted_locations = confidence.float(), predicted_locations.float()
        positive = labels > 0
        with torch.no_grad():
            background = -F.log_softmax(confidence, dim=2)[..., 0]
            counted = hard_negative_mining(
                background, labels, self.neg_pos_ratio, int(self.neg_pos_ratio * VIRTUAL_POSITIVES)
            )
            loss_normalizer = self.loss_normalizer(labels) if loss_normalizer is None else loss_normalizer
        cross_entropy = F.cross_entropy(confidence.flatten(0, 1), labels.flatten().clamp(min=0), reduction="none")
        classification = (cross_entropy * counted.flatten()).sum()
        # Background priors have locations too, and those may be infinite: cut them out, do not multiply by 0.
        target = torch.where(positive[..., None], gt_locations, predicted_locations.detach())
        regression = F.smooth_l1_loss(predicted_locations, target, reduction="sum", beta=self.beta)
        return Losses(regression / loss_normalizer, classification / loss_normalizer)
