"""What a net must know besides its weights: input size, normalization, priors.

`SSDConfig` values are passed around and never change. The modules of the old names in this package
(`mobilenetv1_ssd_config` and so on) show the size that `set_image_size` last chose, for scripts that use them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vision.boxes.priors import (
    CellPrior,
    FreePriorLevel,
    Level,
    PriorLevel,
    Size,
    SSDBoxSizes,
    as_width_height,
    generate_ssd_priors,
)
from vision.ssd.choices import BASE_SIZE


@dataclass(frozen=True)
class SSDConfig:
    """Input size, normalization and priors of a net.

    Attributes:
        image_size: the network's input in pixels, one number for a square, else (width, height).
        image_mean: per RGB channel, subtracted from pixels in 0 ... 255.
        image_std: divides after that; one number, or one per channel.
        specs: the priors of each feature map.
        iou_threshold: of NMS.
        center_variance: see `vision.boxes.coding`.
        size_variance: see `vision.boxes.coding`.
        clamps_centers: whether centers of priors beyond the image are moved to its border; sides are cut to it always.
    """

    image_size: Size
    image_mean: tuple[float, float, float]
    image_std: float | tuple[float, float, float]
    specs: tuple[Level, ...]
    iou_threshold: float = 0.45
    center_variance: float = 0.1
    size_variance: float = 0.2
    clamps_centers: bool = True

    @staticmethod
    def frozen(config: Any) -> SSDConfig | None:
        """Make a config of any object with the same attributes, such as a module; None if its priors follow no rule."""
        if isinstance(config, SSDConfig):
            return config
        try:
            levels = tuple(
                PriorLevel(level[0], level[1], SSDBoxSizes(*level[2]), tuple(level[3])) for level in config.specs
            )
            made = SSDConfig(
                config.image_size,
                _three(config.image_mean),
                _number_or_three(config.image_std),
                levels,
                iou_threshold=config.iou_threshold,
                center_variance=config.center_variance,
                size_variance=config.size_variance,
            )
            return made if torch.equal(made.priors, config.priors) else None
        except (AttributeError, TypeError):
            return None

    @property
    def width_height(self) -> tuple[int, int]:
        """The network's input as (width, height)."""
        return as_width_height(self.image_size)

    @cached_property
    def priors(self) -> Tensor:
        """(P, 4) float32, center form, relative."""
        priors = generate_ssd_priors(self.specs, self.image_size, clamp=self.clamps_centers)
        priors[:, 2:].clamp_(0, 1)
        return priors

    def resized(self, published: SSDConfig) -> SSDConfig:
        """Make the config for another size, with priors that cover the same shares of the image.

        Args:
            published: the net's own config at that size.

        Raises:
            ValueError: it is of a net with other maps.
        """
        if len(self.specs) != len(published.specs):
            raise ValueError(f"there are priors for {len(self.specs)} maps, the net has {len(published.specs)}")
        (width, height), (new_width, new_height) = self.width_height, published.width_height
        levels = tuple(
            FreePriorLevel(
                new.feature_map_size,
                new.shrinkage,
                tuple(
                    prior._replace(width=prior.width * new_width / width, height=prior.height * new_height / height)
                    for prior in old.cell_priors
                ),
            )
            for old, new in zip(self.specs, published.specs, strict=True)
        )
        return replace(self, image_size=published.image_size, specs=levels)

    def to_dict(self) -> dict[str, Any]:
        """Convert the config to plain values for a checkpoint or JSON; see `from_dict`."""
        plain = asdict(self)
        plain["specs"] = [level_to_dict(level) for level in self.specs]
        plain["image_size"] = list(self.width_height)
        plain["image_mean"] = list(self.image_mean)
        return plain

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> SSDConfig:
        """Make the config from what `to_dict` returned.

        Raises:
            KeyError, TypeError, ValueError: the values are not such a spelling.
        """
        levels = tuple(map(level_from_dict, plain["specs"]))
        rest = {key: plain[key] for key in ("iou_threshold", "center_variance", "size_variance")}
        rest["clamps_centers"] = plain.get("clamps_centers", True)  # older files do not say it
        size, mean = _square_as_number(plain["image_size"]), _three(plain["image_mean"])
        return SSDConfig(size, mean, _number_or_three(plain["image_std"]), levels, **rest)


def level_to_dict(level: Level) -> dict[str, Any]:
    """Convert a level to plain values; see `level_from_dict`."""
    plain = {
        "feature_map_size": list(as_width_height(level.feature_map_size)),
        "shrinkage": list(as_width_height(level.shrinkage)),
    }
    if isinstance(level, FreePriorLevel):
        return {**plain, "cell_priors": [list(prior) for prior in level.cell_priors]}
    return {**plain, "box_sizes": list(level.box_sizes), "aspect_ratios": list(level.aspect_ratios)}


def level_from_dict(plain: dict[str, Any]) -> Level:
    """Make the level from what `level_to_dict` returned.

    Raises:
        KeyError, TypeError, ValueError: the values are not such a spelling.
    """
    place = (_square_as_number(plain["feature_map_size"]), _square_as_number(plain["shrinkage"]))
    if "cell_priors" in plain:
        return FreePriorLevel(*place, tuple(CellPrior(*prior) for prior in plain["cell_priors"]))
    return PriorLevel(*place, SSDBoxSizes(*plain["box_sizes"]), tuple(plain["aspect_ratios"]))


def _number_or_three(std: Any) -> float | tuple[float, float, float]:
    return _three(std) if isinstance(std, (tuple, list)) else float(std)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _square_as_number(size: Size) -> Size:
    """Write a square as its side alone, as the published tables do."""
    width, height = as_width_height(size)
    return width if width == height else (width, height)


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
                _square_as_number((rounded(width / column), rounded(height / row)))  # type: ignore[arg-type]
                for column, row in zip(columns, rows, strict=True)
            ]
            edges = [min(width, height) * percent / 100 for percent in percents]
        specs = tuple(
            PriorLevel(_square_as_number(cells), step, SSDBoxSizes(edges[level], edges[level + 1]), ratios)
            for level, (cells, step, ratios) in enumerate(
                zip(zip(columns, rows, strict=True), steps, self.aspect_ratios, strict=True)
            )
        )
        return SSDConfig(
            _square_as_number(size), self.image_mean, self.image_std, specs, clamps_centers=not self.torchvisions
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
