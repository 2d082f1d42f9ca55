"""Default boxes ("priors"): SSD paper, section 2.2, with the sizes of the published checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

#: One number for a square, or (width, height).
Size = int | tuple[int, int]


def as_width_height(size: Size) -> tuple[int, int]:
    """Spell a size as (width, height)."""
    if isinstance(size, (tuple, list)):
        width, height = size
        return width, height
    return size, size


class SSDBoxSizes(NamedTuple):
    """Sides in pixels of a level's small square, and of the next level's."""

    min: float
    max: float


class PriorLevel(NamedTuple):
    """The priors of one feature map.

    Each cell has a square of side `box_sizes.min`, one of side sqrt(min * max), and for each ratio r two
    boxes of the small square's area whose sides relate as r:1 and 1:r.
    """

    feature_map_size: Size  # cells: one number, or (columns, rows)
    shrinkage: Size  # pixels from cell to cell: one number, or (horizontal, vertical)
    box_sizes: SSDBoxSizes
    aspect_ratios: Sequence[float]

    @property
    def boxes_per_location(self) -> int:
        """How many priors each cell has."""
        return 2 + 2 * len(self.aspect_ratios)

    def shapes(self) -> list[tuple[float, float]]:
        """The (width, height) in pixels of each of a cell's priors, in the order of the heads' channels."""
        small, large = self.box_sizes
        middle = math.sqrt(small * large)
        shapes = [(small, small), (middle, middle)]
        for ratio in self.aspect_ratios:
            root = math.sqrt(ratio)
            shapes += [(small * root, small / root), (small / root, small * root)]
        return shapes


def generate_ssd_priors(specs: Iterable[PriorLevel], image_size: Size, clamp: bool = True) -> Tensor:
    """Lay out the priors of all levels: level by level, rows outside, columns inside, shapes innermost.

    Args:
        specs: the levels, sizes in pixels of the network's input.
        image_size: the network's input in pixels, one number or (width, height).
        clamp: cut all four numbers to [0, 1], as the published checkpoints expect.

    Returns:
        (P, 4) float32, centre form, relative.
    """
    width, height = as_width_height(image_size)
    priors = []
    for level in specs:
        columns, rows = as_width_height(level.feature_map_size)
        step_x, step_y = as_width_height(level.shrinkage)
        # In double and rounded once at the end: the published priors were made so.
        center_x = (torch.arange(columns, dtype=torch.float64) + 0.5) * step_x / width
        center_y = (torch.arange(rows, dtype=torch.float64) + 0.5) * step_y / height
        sides = torch.tensor(level.shapes(), dtype=torch.float64) / torch.tensor([width, height])
        grid = torch.empty(rows, columns, len(sides), 4, dtype=torch.float64)
        grid[..., 0] = center_x[None, :, None]
        grid[..., 1] = center_y[:, None, None]
        grid[..., 2:] = sides
        priors.append(grid.reshape(-1, 4))
    center_form_priors = torch.cat(priors).float()
    return center_form_priors.clamp(0.0, 1.0) if clamp else center_form_priors
