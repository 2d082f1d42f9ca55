"""Numbers of each kind of net, from which its config at any input size follows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vision.boxes.priors import PriorLevel, Size, SSDBoxSizes, as_width_height
from vision.ssd.choices import BASE_SIZE
from vision.ssd.config.ssd_config import SSDConfig, square_as_number


class PublishedSizes(NamedTuple):
    """The table of a net's published checkpoints, at 300 x 300.

    Attributes:
        edges: box sizes in pixels; level i goes from edge i to edge i + 1.
        shrinkage: pixels from cell to cell, per level.
    """

    edges: tuple[float, ...]
    shrinkage: tuple[int, ...]


@dataclass(frozen=True)
class ConfigFamily:
    """One row of numbers per kind of net, from which a config of any size follows.

    Attributes:
        name: of the family.
        image_mean: see `SSDConfig`.
        image_std: see `SSDConfig`.
        aspect_ratios: per level.
        map_sides: cells per axis of each level for an input side in pixels.
        minimum_side: the least input side in pixels.
        coco_percents: edges of box sizes that suit objects as various as COCO's, in percent of the shorter side.
        published: where there are published checkpoints; else the priors are those of `coco_percents`.
        base_size: side in pixels of the square that the net was designed for, the default.
        torchvisions: whether the priors are torchvision's: at every size those of `coco_percents`, with centers that
            are not clamped, and cells that fill the input exactly where `published` does not say otherwise.
    """

    name: str
    image_mean: tuple[float, float, float]
    image_std: float
    aspect_ratios: tuple[tuple[float, ...], ...]
    map_sides: Callable[[int], list[int]]
    minimum_side: int
    coco_percents: tuple[float, ...]
    published: PublishedSizes | None = None
    base_size: int = BASE_SIZE
    torchvisions: bool = False

    def at(self, size: Size, min_ratio: int = 20, max_ratio: int = 90) -> SSDConfig:
        """Make the config for an input size, with the priors of published checkpoints where there are any.

        At 300 x 300 these are the published priors. Elsewhere the steps follow from the feature maps, and box
        sizes from the shorter side: 10 %, then evenly from `min_ratio` to beyond `max_ratio` percent. A square
        prior is square in the network's pixels.

        Args:
            size: one number or (width, height) in pixels.
            min_ratio: percent of the shorter side where the second level begins.
            max_ratio: percent at which the sizes are spread out.

        Raises:
            ValueError: a side is below what the net can take.
        """
        if self.published is None or self.torchvisions:
            return self.with_coco_sizes(size)
        levels = len(self.aspect_ratios)
        spread = (max_ratio - min_ratio) // (levels - 2)
        return self._make(size, [10] + [min_ratio + spread * level for level in range(levels)], self.published)

    def with_coco_sizes(self, size: Size) -> SSDConfig:
        """Make the config for an input size, with priors for objects as various as COCO's.

        Raises:
            ValueError: a side is below what the net can take.
        """
        return self._make(size, self.coco_percents, self.published if self.torchvisions else None)

    def _make(self, size: Size, percents: Sequence[float], at_base_size: PublishedSizes | None = None) -> SSDConfig:
        width, height = as_width_height(size)
        if min(width, height) < self.minimum_side:
            raise ValueError(
                f"resolution {width}x{height} is too small for this net: each side needs at least "
                f"{self.minimum_side} pixels"
            )
        columns, rows = self.map_sides(width), self.map_sides(height)
        edges: Sequence[float]
        steps: Sequence[Size]
        if at_base_size is not None and (width, height) == (BASE_SIZE, BASE_SIZE):
            edges, steps = at_base_size
        else:
            rounded = float if self.torchvisions else math.ceil
            steps = [
                square_as_number((rounded(width / column), rounded(height / row)))  # type: ignore[arg-type]
                for column, row in zip(columns, rows, strict=True)
            ]
            edges = [min(width, height) * percent / 100 for percent in percents]
        specs = tuple(
            PriorLevel(square_as_number(cells), step, SSDBoxSizes(edges[level], edges[level + 1]), ratios)
            for level, (cells, step, ratios) in enumerate(
                zip(zip(columns, rows, strict=True), steps, self.aspect_ratios, strict=True)
            )
        )
        return SSDConfig(
            square_as_number(size), self.image_mean, self.image_std, specs, clamps_centers=not self.torchvisions
        )


def _halve(side: int) -> int:
    return math.ceil(side / 2)


def _halvings(first: int, count: int) -> list[int]:
    """Sides of `count` maps, each of half the side of the one before, rounded up."""
    sides = [first]
    while len(sides) < count:
        sides.append(_halve(sides[-1]))
    return sides


def _mobilenet_map_sides(side: int) -> list[int]:
    return _halvings(math.ceil(side / 16), 6)


def _pyramid_map_sides(side: int) -> list[int]:
    return _halvings(math.ceil(side / 8), 5)


def _squeezenet_map_sides(side: int) -> list[int]:
    """Four unpadded 3/2 windows, an extra with padding 2, then four that halve."""
    first = side
    for _ in range(4):
        first = (first - 3) // 2 + 1
    return [first, *_halvings((first + 1) // 2 + 1, 5)]


def _vgg_map_sides(side: int) -> list[int]:
    """Two poolings that round down, one that rounds up, and so on; the last two extras are unpadded."""
    first = _halve(side // 2 // 2)
    second = first // 2
    third = _halve(second)
    fourth = _halve(third)
    return [first, second, third, fourth, fourth - 2, fourth - 4]


#: Of torchvision's SSD for COCO: six levels from 7 to 105 percent.
_COCO_PERCENTS = (7, 15, 33, 51, 69, 87, 105)

_MOBILE_SIZES = PublishedSizes((60, 105, 150, 195, 240, 285, 330), (16, 32, 64, 100, 150, 300))

MOBILENETV1 = ConfigFamily(
    name="mobilenetv1",
    image_mean=(127.0, 127.0, 127.0),
    image_std=128.0,
    aspect_ratios=((2, 3),) * 6,
    map_sides=_mobilenet_map_sides,
    minimum_side=32,
    coco_percents=_COCO_PERCENTS,
    published=_MOBILE_SIZES,
)
SQUEEZENET = ConfigFamily(
    name="squeezenet",
    image_mean=(127.0, 127.0, 127.0),
    image_std=128.0,
    aspect_ratios=((2, 3),) * 6,
    map_sides=_squeezenet_map_sides,
    minimum_side=32,
    coco_percents=_COCO_PERCENTS,
    published=_MOBILE_SIZES,
)
VGG = ConfigFamily(
    name="vgg",
    image_mean=(123.0, 117.0, 104.0),
    image_std=1.0,
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    map_sides=_vgg_map_sides,
    minimum_side=268,
    coco_percents=_COCO_PERCENTS,
    published=PublishedSizes((30, 60, 111, 162, 213, 264, 315), (8, 16, 32, 64, 100, 300)),
)
FPNLITE = ConfigFamily(
    name="fpnlite",
    image_mean=(127.0, 127.0, 127.0),
    image_std=128.0,
    aspect_ratios=((2,),) * 5,
    map_sides=_pyramid_map_sides,
    minimum_side=32,
    # From three cells of a level to six, as far as the image goes.
    coco_percents=(8, 16, 32, 56, 80, 105),
)
#: Of torchvision's ssdlite320_mobilenet_v3_large.
SSDLITE320 = ConfigFamily(
    name="ssdlite320",
    image_mean=(127.5, 127.5, 127.5),
    image_std=127.5,
    aspect_ratios=((2, 3),) * 6,
    map_sides=_mobilenet_map_sides,
    minimum_side=32,
    coco_percents=(20, 35, 50, 65, 80, 95, 100),
    base_size=320,
    torchvisions=True,
)
#: Of torchvision's ssd300_vgg16.
SSD300 = ConfigFamily(
    name="ssd300",
    image_mean=(255 * 0.48235, 255 * 0.45882, 255 * 0.40784),
    image_std=1.0,
    aspect_ratios=VGG.aspect_ratios,
    map_sides=_vgg_map_sides,
    minimum_side=268,
    coco_percents=_COCO_PERCENTS,
    published=PublishedSizes((21, 45, 99, 153, 207, 261, 315), (8, 16, 32, 64, 100, 300)),
    torchvisions=True,
)
