"""Prediction heads of a trained detector, brought to a net of other classes and other priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vision.boxes.forms import center_form_to_corner_form, iou_of
from vision.boxes.priors import Level, as_width_height
from vision.ssd.ssd import HEADS, SSD

CLASSIFICATION, _ = HEADS


class PriorMatch(NamedTuple):
    """For each prior of a cell the most similar prior of another detector, and how to convert predictions for it.

    A location predicted for the other prior, times `scale` plus `shift`, is the same box encoded for this prior.

    Attributes:
        indices: (A,) int64, of the other detector's priors.
        scale: (A, 4) float32.
        shift: (A, 4) float32.
    """

    indices: Tensor
    scale: Tensor
    shift: Tensor

    def convert(self, rows: Tensor, is_bias: bool) -> Tensor:
        """Convert rows (A, 4, ...) of a convolution that predicts locations."""
        if is_bias:
            return rows * self.scale + self.shift
        return rows * self.scale.reshape(*self.scale.shape, *(1,) * (rows.dim() - 2))


def match_cell_priors(target: Level, source: Level, center_variance: float, size_variance: float) -> PriorMatch:
    """Find for each prior of a target's cell the prior of a source's cell that overlaps it most.

    Priors are compared in pixels of the networks' inputs, so that features of one size mean objects of one size,
    whatever the resolutions.

    Args:
        target: level of the net that is filled.
        source: level at the same place of the net that heads are taken from.
        center_variance: of both nets, see `vision.boxes.coding`.
        size_variance: of both nets.
    """
    ours, theirs = _center_form_cell_priors(target), _center_form_cell_priors(source)
    ious = iou_of(center_form_to_corner_form(ours)[:, None], center_form_to_corner_form(theirs)[None])
    indices = ious.argmax(dim=1)
    theirs = theirs[indices]
    ratio = theirs[:, 2:] / ours[:, 2:]
    shift = torch.cat(
        [(theirs[:, :2] - ours[:, :2]) / (center_variance * ours[:, 2:]), ratio.log() / size_variance], dim=1
    )
    scale = torch.cat([ratio, torch.ones_like(ratio)], dim=1)
    return PriorMatch(indices, scale.float(), shift.float())


def _center_form_cell_priors(level: Level) -> Tensor:
    """Priors (A, 4) of a cell around the origin, center form in pixels of the network's input."""
    sides = torch.tensor(level.cell_priors, dtype=torch.float64)
    step = torch.tensor(as_width_height(level.shrinkage), dtype=torch.float64)
    return torch.cat([sides[:, 2:] * step, sides[:, :2]], dim=1)


@torch.no_grad()
def load_heads(net: SSD, weights: dict[str, Tensor], specs: Sequence[Level], class_names: Sequence[str]) -> list[str]:
    """Fill a net's heads from a detector of the same net, with other classes and other priors.

    Layers below the last of each head are copied. Each prior takes the rows of the most similar prior of the detector,
    converted so that the predicted box stays the same. Of the class scores, classes of the same names take their rows.
    A new class takes the mean of the detector's classes, which tells objects from background.

    Args:
        net: to fill, with its class names.
        weights: of the detector.
        specs: its levels.
        class_names: its classes, BACKGROUND first.

    Returns:
        the names of the classes that both know, BACKGROUND left out.
    """
    known = {name: label for label, name in enumerate(class_names)}
    kept = [(known[name], label) for label, name in enumerate(net.known_class_names) if name in known]
    theirs, ours = (torch.tensor(labels) for labels in zip(*kept, strict=True))

    def classes_of(rows: Tensor) -> Tensor:
        """From scores (A, detector's classes, ...) to scores (A, net's classes, ...)."""
        mean = rows[:, 1:].mean(dim=1, keepdim=True)
        result = mean.repeat_interleave(net.num_classes, dim=1)
        result[:, ours] = rows[:, theirs]
        return result

    for level, (target, source) in enumerate(zip(net.config.specs, specs, strict=True)):
        match = match_cell_priors(target, source, net.config.center_variance, net.config.size_variance)
        for name in HEADS:
            head, prefix = getattr(net, name)[level], f"{name}.{level}."
            last = f"{len(head) - 1}." if isinstance(head, nn.Sequential) else ""
            for key, value in head.state_dict().items():
                if prefix + key not in weights:  # a counter of batches, which not every file has
                    continue
                found = weights[prefix + key].float()
                if key.startswith(last):
                    rows = found.reshape(len(source.cell_priors), -1, *found.shape[1:])[match.indices]
                    rows = classes_of(rows) if name == CLASSIFICATION else match.convert(rows, is_bias=found.dim() == 1)
                    found = rows.flatten(0, 1)
                value.copy_(found)
    return [net.known_class_names[label] for label in ours.tolist() if label]
