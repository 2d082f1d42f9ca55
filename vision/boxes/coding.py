"""Boxes relative to priors: what the regression heads learn (SSD paper, arXiv 1512.02325, section 2.2).

The two functions are each other's inverse for boxes and priors with positive sides.
"""

from __future__ import annotations

import torch
from torch import Tensor


def convert_boxes_to_locations(
    center_form_boxes: Tensor, center_form_priors: Tensor, center_variance: float, size_variance: float
) -> Tensor:
    """Encode boxes: offsets of the center in prior sides, logarithms of the side ratios, divided by variances.

    Args:
        center_form_boxes: (..., P, 4) relative.
        center_form_priors: (P, 4) or (..., P, 4) relative.
        center_variance: divides the center's offsets.
        size_variance: divides the sides' logarithms.

    Returns:
        (..., P, 4) locations; infinite where a box has no side.
    """
    centers = (center_form_boxes[..., :2] - center_form_priors[..., :2]) / center_form_priors[..., 2:]
    sides = torch.log(center_form_boxes[..., 2:] / center_form_priors[..., 2:])
    return torch.cat([centers / center_variance, sides / size_variance], dim=-1)


def convert_locations_to_boxes(
    locations: Tensor, priors: Tensor, center_variance: float, size_variance: float
) -> Tensor:
    """Decode locations into relative center-form boxes; arguments and result as in `convert_boxes_to_locations`."""
    centers = locations[..., :2] * center_variance * priors[..., 2:] + priors[..., :2]
    sides = torch.exp(locations[..., 2:] * size_variance) * priors[..., 2:]
    return torch.cat([centers, sides], dim=-1)
