"""Default boxes ("priors"): SSD paper, section 2.2, with the sizes of the published checkpoints.

What says of which sizes they are is plain values. Only laying them out loads torch, so that a device can read what an
exported file says of its net.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

#: One number for a square, or (width, height).
Size = int | tuple[int, int]


def as_width_height(size: Size) -> tuple[int, int]:
    """Return a size as (width, height)."""
    if isinstance(size, (tuple, list)):
        width, height = size
        return width, height
    return size, size


class CellPrior(NamedTuple):
    """One of a cell's priors: its sides in pixels, and how far its center is from the cell's, in cells."""

    width: float
    height: float
    offset_x: float = 0.0
    offset_y: float = 0.0


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

    @property
    def cell_priors(self) -> tuple[CellPrior, ...]:
        """A cell's priors, in the order of the heads' channels."""
        small, large = self.box_sizes
        middle = math.sqrt(small * large)
        priors = [CellPrior(small, small), CellPrior(middle, middle)]
        for ratio in self.aspect_ratios:
            root = math.sqrt(ratio)
            priors += [CellPrior(small * root, small / root), CellPrior(small / root, small * root)]
        return tuple(priors)


class FreePriorLevel(NamedTuple):
    """The priors of one feature map, each of any size and place within the cell."""

    feature_map_size: Size  # cells: one number, or (columns, rows)
    shrinkage: Size  # pixels from cell to cell: one number, or (horizontal, vertical)
    cell_priors: tuple[CellPrior, ...]

    @property
    def boxes_per_location(self) -> int:
        """How many priors each cell has."""
        return len(self.cell_priors)


#: Either way to say what priors a feature map has.
Level = PriorLevel | FreePriorLevel


def generate_ssd_priors(specs: Iterable[Level], image_size: Size, clamp: bool = True) -> Tensor:
    """Lay out the priors of all levels: level by level, rows outside, columns inside, a cell's priors innermost.

    Args:
        specs: the levels, sizes in pixels of the network's input.
        image_size: the network's input in pixels, one number or (width, height).
        clamp: cut all four numbers to [0, 1], as the published checkpoints expect.

    Returns:
        (P, 4) float32, center form, relative.
    """
    import torch

    width, height = as_width_height(image_size)
    priors = []
    for level in specs:
        columns, rows = as_width_height(level.feature_map_size)
        step_x, step_y = as_width_height(level.shrinkage)
        # In double and rounded once at the end: the published priors were made so.
        of_cell = torch.tensor(level.cell_priors, dtype=torch.float64)
        grid = torch.empty(rows, columns, len(of_cell), 4, dtype=torch.float64)
        grid[..., 0] = (torch.arange(columns)[:, None] + 0.5 + of_cell[:, 2]) * step_x / width
        grid[..., 1] = (torch.arange(rows)[:, None, None] + 0.5 + of_cell[:, 3]) * step_y / height
        grid[..., 2:] = of_cell[:, :2] / torch.tensor([width, height])
        priors.append(grid.reshape(-1, 4))
    center_form_priors = torch.cat(priors).float()
    return center_form_priors.clamp(0.0, 1.0) if clamp else center_form_priors
