"""Factories and configs under upstream's names, for scripts that import them. Nothing inside uses this module.

It holds the one mutable thing of the package, the configs that `set_image_size` last chose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from vision.boxes.priors import Size
from vision.ssd.choices import BASE_SIZE
from vision.ssd.config.families import MOBILENETV1, SQUEEZENET, VGG
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.models import MODELS
from vision.ssd.predictor import Predictor
from vision.ssd.ssd import SSD

_FAMILIES = {family.name: family for family in (MOBILENETV1, SQUEEZENET, VGG)}
_current: dict[str, SSDConfig] = {name: family.at(BASE_SIZE) for name, family in _FAMILIES.items()}


def current(family: str) -> SSDConfig:
    """Return a family's config at the size last chosen, 300 at first."""
    return _current[family]


def config_module(family: str) -> tuple[Callable[[str], Any], Callable[..., None]]:
    """Make the `__getattr__` and `set_image_size` of a config module of the old kind."""

    def getattribute(name: str) -> Any:
        if name.startswith("__") or not hasattr(current(family), name):
            raise AttributeError(f"the {family} config has no {name!r}")
        return getattr(current(family), name)

    def set_image_size(size: Size, min_ratio: int = 20, max_ratio: int = 90) -> None:
        """Choose the input size of the nets and predictors made from here on; see `ConfigFamily.at`."""
        _current[family] = _FAMILIES[family].at(size, min_ratio, max_ratio)

    return getattribute, set_image_size


def _build(name: str, num_classes: int, is_test: bool, **options: Any) -> SSD:
    spec = MODELS[name]
    return spec.build(num_classes, config=current(spec.family.name), is_test=is_test, **options)


def create_vgg_ssd(num_classes: int, is_test: bool = False) -> SSD:
    """Make vgg16-ssd at the size last chosen."""
    return _build("vgg16-ssd", num_classes, is_test)


def create_mobilenetv1_ssd(num_classes: int, is_test: bool = False) -> SSD:
    """Make mb1-ssd at the size last chosen."""
    return _build("mb1-ssd", num_classes, is_test)


def create_mobilenetv1_ssd_lite(num_classes: int, is_test: bool = False) -> SSD:
    """Make mb1-ssd-lite at the size last chosen."""
    return _build("mb1-ssd-lite", num_classes, is_test)


def create_mobilenetv2_ssd_lite(
    num_classes: int,
    width_mult: float = 1.0,
    use_batch_norm: bool = True,
    onnx_compatible: bool = False,
    is_test: bool = False,
) -> SSD:
    """Make mb2-ssd-lite at the size last chosen; see `ModelSpec.build`."""
    options = {"width_mult": width_mult, "use_batch_norm": use_batch_norm, "onnx_compatible": onnx_compatible}
    return _build("mb2-ssd-lite", num_classes, is_test, **options)


def create_mobilenetv3_large_ssd_lite(
    num_classes: int,
    width_mult: float = 1.0,
    use_batch_norm: bool = True,
    onnx_compatible: bool = False,
    is_test: bool = False,
) -> SSD:
    """Make mb3-large-ssd-lite at the size last chosen; it has no other width, and always batch norm."""
    options = {"width_mult": width_mult, "use_batch_norm": use_batch_norm, "onnx_compatible": onnx_compatible}
    return _build("mb3-large-ssd-lite", num_classes, is_test, **options)


def create_mobilenetv3_small_ssd_lite(
    num_classes: int,
    width_mult: float = 1.0,
    use_batch_norm: bool = True,
    onnx_compatible: bool = False,
    is_test: bool = False,
) -> SSD:
    """Make mb3-small-ssd-lite; see `create_mobilenetv3_large_ssd_lite`."""
    options = {"width_mult": width_mult, "use_batch_norm": use_batch_norm, "onnx_compatible": onnx_compatible}
    return _build("mb3-small-ssd-lite", num_classes, is_test, **options)


def create_squeezenet_ssd_lite(num_classes: int, is_test: bool = False) -> SSD:
    """Make sq-ssd-lite at the size last chosen."""
    return _build("sq-ssd-lite", num_classes, is_test)


def _predictor_factory(name: str) -> Callable[..., Predictor]:
    def create_predictor(
        net: SSD,
        candidate_size: int = 200,
        nms_method: str | None = None,
        sigma: float = 0.5,
        device: torch.device | str | None = None,
    ) -> Predictor:
        """Make a predictor with the net's own size and normalization; see `Predictor`."""
        return MODELS[name].predictor(
            net, candidate_size=candidate_size, nms_method=nms_method, sigma=sigma, device=device
        )

    return create_predictor


create_vgg_ssd_predictor = _predictor_factory("vgg16-ssd")
create_mobilenetv1_ssd_predictor = _predictor_factory("mb1-ssd")
create_mobilenetv1_ssd_lite_predictor = _predictor_factory("mb1-ssd-lite")
create_mobilenetv2_ssd_lite_predictor = _predictor_factory("mb2-ssd-lite")
create_mobilenetv3_ssd_lite_predictor = _predictor_factory("mb3-large-ssd-lite")
create_squeezenet_ssd_lite_predictor = _predictor_factory("sq-ssd-lite")
