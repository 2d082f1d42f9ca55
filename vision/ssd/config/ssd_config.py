"""What a net must know besides its weights: input size, normalization, priors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from torch import Tensor


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
            return made if made.priors.equal(config.priors) else None
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
        size, mean = square_as_number(plain["image_size"]), _three(plain["image_mean"])
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
    place = (square_as_number(plain["feature_map_size"]), square_as_number(plain["shrinkage"]))
    if "cell_priors" in plain:
        return FreePriorLevel(*place, tuple(CellPrior(*prior) for prior in plain["cell_priors"]))
    return PriorLevel(*place, SSDBoxSizes(*plain["box_sizes"]), tuple(plain["aspect_ratios"]))


def _number_or_three(std: Any) -> float | tuple[float, float, float]:
    return _three(std) if isinstance(std, (tuple, list)) else float(std)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def square_as_number(size: Size) -> Size:
    """Write a square as its side alone, as the published tables do."""
    width, height = as_width_height(size)
    return width if width == height else (width, height)
