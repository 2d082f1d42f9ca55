"""The table of nets: everything that differs between them is one row of numbers and parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vision.boxes.priors import Size, as_width_height
from vision.nn.layers import (
    L2Norm,
    full_extra,
    lite_extra,
    norm_extra,
    norm_head,
    separable_conv,
    separable_conv_norm,
)
from vision.nn.mobilenet import MobileNetV1
from vision.nn.mobilenet_v2 import GROUPS, LAST_CHANNELS, InvertedResidual, MobileNetV2, last_channels
from vision.nn.mobilenetv3 import GatedResidual, MobileNetV3_Large, MobileNetV3_Small
from vision.nn.pyramid import FeaturePyramid
from vision.nn.squeezenet import SqueezeNet
from vision.nn.torchvision_mobilenet_v3 import mobilenet_v3_large
from vision.nn.vgg import vgg16_reduced
from vision.ssd.choices import NET_ALIASES, NET_NAMES, WIDTH_RANGE, canonical_name
from vision.ssd.config.families import FPNLITE, MOBILENETV1, SQUEEZENET, SSD300, SSDLITE320, VGG, ConfigFamily
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.description import Architecture, Description
from vision.ssd.predictor import Predictor
from vision.ssd.ssd import HEADS, SSD, GraphPath
from vision.ssd.weights import description_of
from vision.structures import DataError

#: Weights of a MobileNetV2 block; the last of them belongs to its projection.
_BLOCK_OUTPUT = re.compile(r"base_net\.(\d+)\.conv\.\d+\.weight$")

PUBLISHED_MB1 = "models/mobilenet-v1-ssd-mp-0_675.pth"


_conv3_head = partial(nn.Conv2d, kernel_size=3, padding=1)
_conv1_head = partial(nn.Conv2d, kernel_size=1)
_separable_norm_head = partial(separable_conv, norm=True)
_v3_extra = partial(GatedResidual, stride=2)


def _inverted_residual_extra(in_channels: int, hidden: int, out_channels: int) -> nn.Module:
    return InvertedResidual(in_channels, out_channels, stride=2, expand_ratio=1, hidden=hidden)


def _pyramid_extra(in_channels: int, hidden: int, out_channels: int) -> nn.Module:
    return separable_conv_norm(in_channels, out_channels, stride=2)  # nothing is hidden in it


def _mobilenet_v1() -> nn.Sequential:
    return MobileNetV1().model


def _mobilenet_v2(**options: Any) -> nn.Sequential:
    return MobileNetV2(**options).features


def _mobilenet_v3_large() -> nn.Sequential:
    return MobileNetV3_Large().features


def _mobilenet_v3_small() -> nn.Sequential:
    return MobileNetV3_Small().features


def _squeezenet() -> nn.Sequential:
    return SqueezeNet().features


@dataclass(frozen=True)
class ModelSpec:
    """One net.

    Attributes:
        name: canonical, as in file names and options.
        family: input size, normalization and priors.
        backbone: makes `base_net`; where the width can be chosen, from the width and MobileNetV2's options.
        taps: where maps leave the backbone, see `SSD`, the last at its end; with a function in the place of a norm
            module, as each net needs one of its own.
        tap_channels: channels of the tapped maps; where the width can be chosen, a function of the width.
        extra: makes one extra layer from (in, *numbers), numbers being those of `extras`.
        extras: hidden and out channels of each; its stride and padding where they are not 2 and 1.
        head: makes a head from (in, out).
        last_head: makes the head of the last map; None for one like the others.
        pyramid_channels: of the feature pyramid between backbone and heads; None for none.
        has_width: whether the width can be chosen.
        published_weights: where a public checkpoint of the whole net is looked for, if there is one.
    """

    name: str
    family: ConfigFamily
    backbone: Callable[..., nn.Sequential]
    taps: tuple[int | GraphPath | tuple[int, Callable[[], nn.Module]], ...]
    tap_channels: tuple[int, ...] | Callable[[float], tuple[int, ...]]
    extra: Callable[..., nn.Module]
    extras: tuple[tuple[int, ...], ...]
    head: Callable[[int, int], nn.Module]
    last_head: Callable[[int, int], nn.Module] | None = None
    pyramid_channels: int | None = None
    has_width: bool = False
    published_weights: str | None = None

    def config_at(self, size: Size | None = None) -> SSDConfig:
        """Make the config for an input size, one number or (width, height), with the published priors.

        Args:
            size: the family's base size if left out.

        Raises:
            ValueError: the size is too small for this net.
        """
        return self._named(self.family.at, size)

    def coco_config_at(self, size: Size | None = None) -> SSDConfig:
        """The same with priors for objects as various as COCO's."""
        return self._named(self.family.with_coco_sizes, size)

    def _named(self, make: Callable[[Size], SSDConfig], size: Size | None) -> SSDConfig:
        try:
            return make(self.family.base_size if size is None else size)
        except ValueError as err:
            raise ValueError(f"{self.name}: {err}") from err

    def shares_backbone(self, other: ModelSpec) -> bool:
        """Whether another net's backbone has the same layers, where their widths are the same."""
        return self.backbone is other.backbone

    def finest_step(self, size: Size) -> int:
        """Pixels from cell to cell of the finest map, along the side where they are fewer."""
        return min(as_width_height(self.config_at(size).specs[0].shrinkage))

    def config_like(self, trained: SSDConfig, size: Size) -> SSDConfig:
        """Make the config for another size than a net of this row was trained at, with its normalization.

        Published and COCO's priors follow their rules, others grow with the image.

        Raises:
            ValueError: the size is too small for this net, or the config is of another.
        """
        here = self.config_at(size)
        if trained.width_height == here.width_height:
            return trained
        for rule in (self.config_at, self.coco_config_at):
            if trained.specs == rule(trained.image_size).specs:
                return replace(trained, image_size=here.image_size, specs=rule(size).specs)
        return trained.resized(here)

    def build(
        self,
        num_classes: int,
        *,
        config: SSDConfig | None = None,
        width_mult: float = 1.0,
        is_test: bool = False,
        use_batch_norm: bool = True,
        onnx_compatible: bool = False,
    ) -> SSD:
        """Make the net with PyTorch's default weights.

        Args:
            num_classes: with the background.
            config: from `config_at`; that of the base size if left out.
            width_mult: of MobileNetV2, from 0.35 to 1.4.
            is_test: see `SSD.forward`.
            use_batch_norm: of MobileNetV2's blocks.
            onnx_compatible: ReLU for ReLU6 in MobileNetV2's backbone.

        Raises:
            ValueError: an option that this net does not have, or a width out of range.
        """
        options = {"use_batch_norm": use_batch_norm, "onnx_compatible": onnx_compatible}
        if not self.has_width and (width_mult != 1.0 or not use_batch_norm or onnx_compatible):
            having = " and ".join(row.name for row in _ROWS if row.has_width)
            raise ValueError(f"{self.name} has no width multiplier or batch-norm option, only {having} have")
        if not WIDTH_RANGE[0] <= width_mult <= WIDTH_RANGE[1]:
            raise ValueError(f"width multiplier {width_mult} is outside {WIDTH_RANGE[0]} ... {WIDTH_RANGE[1]}")
        config = self.config_at() if config is None else config
        channels = list(self.tap_channels(width_mult) if callable(self.tap_channels) else self.tap_channels)
        pyramid = None
        if self.pyramid_channels is not None:
            pyramid = FeaturePyramid(channels, self.pyramid_channels)
            channels = [self.pyramid_channels] * len(channels)
        in_channels = channels[-1]
        extras = []
        for numbers in self.extras:
            extras.append(self.extra(in_channels, *numbers))
            in_channels = numbers[1]
            channels.append(in_channels)
        heads: dict[str, Any] = {name: nn.ModuleList() for name in HEADS}
        for index, (width, level) in enumerate(zip(channels, config.specs, strict=True)):
            make = (self.last_head or self.head) if index == len(channels) - 1 else self.head
            for name, outputs in zip(HEADS, (num_classes, 4), strict=True):
                heads[name].append(make(width, level.boxes_per_location * outputs))
        net = SSD(
            num_classes,
            self.backbone(width_mult=width_mult, **options) if self.has_width else self.backbone(),
            [tap if isinstance(tap, (int, GraphPath)) else (tap[0], tap[1]()) for tap in self.taps],
            nn.ModuleList(extras),
            **heads,
            is_test=is_test,
            config=config,
            pyramid=pyramid,
        )
        net.architecture = Architecture(self.name, float(width_mult), **options)
        return net

    def predictor(self, net: SSD, **kwargs: Any) -> Predictor:
        """Make a predictor with the preprocessing of the net's own config (of this row's for a net without one)."""
        config = net.config if isinstance(net.config, SSDConfig) else self.config_at()
        return Predictor(
            net,
            config.image_size,
            config.image_mean,
            config.image_std,
            iou_threshold=config.iou_threshold,
            **kwargs,
        )


_MOBILE_EXTRAS = ((256, 512), (128, 256), (128, 256), (128, 256))
_NARROWING_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 64))
_VGG_EXTRAS = ((256, 512), (128, 256), (128, 256, 1, 0), (128, 256, 1, 0))

#: The numbers in SqueezeNet's maps are some twenty times as large as MobileNet's, which have batch norm.
_SQUEEZENET_GAIN = 0.1

#: Maps at 1/64 and 1/128 after a pyramid's three.
_PYRAMID_EXTRAS = ((128, 128), (128, 128))

_ROWS = (
    ModelSpec(
        name="mb1-ssd",
        family=MOBILENETV1,
        backbone=_mobilenet_v1,
        taps=(12, 14),
        tap_channels=(512, 1024),
        extra=full_extra,
        extras=_MOBILE_EXTRAS,
        head=_conv3_head,
        published_weights=PUBLISHED_MB1,
    ),
    ModelSpec(
        name="mb1-ssd-lite",
        family=MOBILENETV1,
        backbone=_mobilenet_v1,
        taps=(12, 14),
        tap_channels=(512, 1024),
        extra=lite_extra,
        extras=_MOBILE_EXTRAS,
        head=separable_conv,
        last_head=_conv1_head,
    ),
    ModelSpec(
        name="mb2-ssd-lite",
        family=MOBILENETV1,
        backbone=_mobilenet_v2,
        taps=(GraphPath(14, "conv", 3), 19),
        tap_channels=lambda width: (6 * int(96 * width), last_channels(width)),
        extra=_inverted_residual_extra,
        extras=_NARROWING_EXTRAS,
        head=_separable_norm_head,
        last_head=_conv1_head,
        has_width=True,
    ),
    ModelSpec(
        name="mb3-ssd-lite",
        family=SSDLITE320,
        backbone=mobilenet_v3_large,
        taps=(GraphPath(13, "conv", 3), 17),
        tap_channels=(672, 480),
        extra=norm_extra,
        extras=((256, 512), (128, 256), (128, 256), (64, 128)),
        head=norm_head,
    ),
    ModelSpec(
        name="mb3-large-ssd-lite",
        family=MOBILENETV1,
        backbone=_mobilenet_v3_large,
        taps=(15, 21),
        tap_channels=(112, 960),
        extra=_v3_extra,
        extras=_NARROWING_EXTRAS,
        head=_separable_norm_head,
        last_head=_conv1_head,
    ),
    ModelSpec(
        name="mb3-small-ssd-lite",
        family=MOBILENETV1,
        backbone=_mobilenet_v3_small,
        taps=(11, 17),
        tap_channels=(48, 576),
        extra=_v3_extra,
        extras=_NARROWING_EXTRAS,
        head=_separable_norm_head,
        last_head=_conv1_head,
    ),
    ModelSpec(
        name="sq-ssd-lite",
        family=SQUEEZENET,
        backbone=_squeezenet,
        taps=(12,),
        tap_channels=(512,),
        extra=partial(lite_extra, gain=_SQUEEZENET_GAIN),
        extras=((256, 512, 2, 2), (256, 512), (128, 256), (128, 256), (128, 256)),
        head=partial(separable_conv, gain=_SQUEEZENET_GAIN),
        last_head=_conv1_head,
    ),
    ModelSpec(
        name="vgg16-ssd",
        family=VGG,
        backbone=vgg16_reduced,
        taps=((23, partial(nn.BatchNorm2d, 512)), 35),
        tap_channels=(512, 1024),
        extra=full_extra,
        extras=_VGG_EXTRAS,
        head=_conv3_head,
    ),
    ModelSpec(
        name="vgg16-ssd-l2",
        family=SSD300,
        backbone=vgg16_reduced,
        taps=((23, partial(L2Norm, 512)), 35),
        tap_channels=(512, 1024),
        extra=full_extra,
        extras=_VGG_EXTRAS,
        head=_conv3_head,
    ),
    # After ssd_mobilenet_v1_fpn and ssd_mobilenet_v2_fpnlite of TensorFlow's model zoo: the same taps and channels,
    # one separable layer a head where those have four that levels share.
    ModelSpec(
        name="mb1-ssd-fpnlite",
        family=FPNLITE,
        backbone=_mobilenet_v1,
        taps=(6, 12, 14),
        tap_channels=(256, 512, 1024),
        extra=_pyramid_extra,
        extras=_PYRAMID_EXTRAS,
        head=_separable_norm_head,
        pyramid_channels=128,
    ),
    ModelSpec(
        name="mb2-ssd-fpnlite",
        family=FPNLITE,
        backbone=_mobilenet_v2,
        taps=(7, 14, 19),
        tap_channels=lambda width: (int(32 * width), int(96 * width), last_channels(width)),
        extra=_pyramid_extra,
        extras=_PYRAMID_EXTRAS,
        head=_separable_norm_head,
        pyramid_channels=128,
        has_width=True,
    ),
)

#: Every accepted name -> its row.
MODELS: Mapping[str, ModelSpec] = {accepted: row for row in _ROWS for accepted in (row.name, *NET_ALIASES[row.name])}


def spec_of(name: str) -> ModelSpec:
    """Look a net up by name or alias.

    Raises:
        ValueError: there is none; the message names the nearest and lists all.
    """
    return MODELS[canonical_name(name)]


def _layout(weights: Mapping[str, Tensor], parts: tuple[str, ...] = ()) -> dict[str, tuple[int, ...]]:
    """Keys and shapes without the heads, whose widths depend on the classes; only of `parts` if given."""
    return {
        key: tuple(value.shape)
        for key, value in weights.items()
        if not key.startswith(HEADS) and (not parts or key.startswith(parts))
    }


def identify(weights: Mapping[str, Tensor]) -> Description | None:
    """Recognize an SSD's state_dict by its keys and shapes.

    Returns:
        its architecture and number of classes; None for something else.
    """
    layout = _layout(weights)
    for net in _candidates(weights):
        if set(weights) == set(net.state_dict()) and layout == _layout(net.state_dict()):
            num_classes = _head_channels(weights, HEADS[0])[0] // _priors_per_cell(weights)[0]
            return Description(net.architecture, num_classes)
    return None


def _candidates(weights: Mapping[str, Tensor]) -> Iterator[SSD]:
    """Build every net of the table that a file might be of, without numbers, on the meta device."""
    for row in _ROWS:
        options: list[dict[str, Any]] = [{}]
        if row.has_width and WIDTH_RANGE[0] <= (width := _width_of(weights)) <= WIDTH_RANGE[1]:
            options = [{"width_mult": width, "use_batch_norm": use_norm} for use_norm in (True, False)]
        for chosen in options:
            with torch.device("meta"):
                net = row.build(2, **chosen)
            yield net


def _width_of(weights: Mapping[str, Tensor]) -> float:
    """Work out MobileNetV2's width: the least with which every group of blocks has the channels found, 0 if none.

    A group of c channels has n = int(c * width), so the width is at least n / c, for each group.
    """
    found = {match[1]: value.shape[0] for key, value in weights.items() if (match := _BLOCK_OUTPUT.match(key))}
    last = weights.get("base_net.18.0.weight")
    # The last module grows with widths above 1 only.
    widths, block = [0.0 if last is None or len(last) == LAST_CHANNELS else len(last) / LAST_CHANNELS], 1
    for _, channels, repetitions, _ in GROUPS:
        widths.append(found.get(str(block), 0) / channels)
        block += repetitions
    return max(widths)


def _head_channels(weights: Mapping[str, Tensor], name: str) -> list[int]:
    """Output channels of each level's head, one of `HEADS`: those of the last weight that it lists."""
    found = {}
    for key, value in weights.items():
        part, _, place = key.partition(".")
        if part == name and key.endswith("weight"):
            found[place.partition(".")[0]] = len(value)
    return list(found.values())


def _priors_per_cell(weights: Mapping[str, Tensor]) -> list[int]:
    """Priors that each level of an SSD's weights has."""
    return [channels // 4 for channels in _head_channels(weights, HEADS[1])]


def identify_base_net(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first net of the table whose `base_net` has these keys and shapes."""
    layout = {f"base_net.{key}": shape for key, shape in _layout(weights).items()}
    for net in _candidates({f"base_net.{key}": value for key, value in weights.items()}):
        if layout == _layout(net.state_dict(), ("base_net.",)):
            return net.architecture.net
    return None


def describe_weights(weights: Mapping[str, Tensor], source: str, *, with_heads: bool = True) -> Description:
    """Say what net a state_dict is of: by its own description, else by its keys.

    Args:
        weights: of a file.
        source: the file, for messages.
        with_heads: whether the heads are wanted, too, which are of no use without the priors that belong to them.

    Returns:
        what the file says; of a file that does not describe itself, architecture and number of classes alone.

    Raises:
        DataError: it is not an SSD of the table, has other priors than published and does not say which, or what it
            says of itself cannot be read.
    """
    facts = description_of(weights)
    if facts and facts.get("net") in MODELS:
        way_out = "it is damaged or of a later version; use the version that wrote it, or another file"
        description = Description.of_file(facts, source, way_out)
        if with_heads and not any(key.startswith(HEADS) for key in weights):
            raise DataError(
                f"{source}: a {description.net} without heads, which detects nothing; it is for train_ssd.py "
                "--pretrained-ssd"
            )
        return description
    found = identify(weights)
    if found is None:
        base = identify_base_net(weights)
        hint = f"; it holds the weights of {base}'s backbone, which go to --base-net" if base else ""
        raise DataError(f"{source}: not a checkpoint of a net known here ({', '.join(NET_NAMES)}){hint}")
    published = [level.boxes_per_location for level in spec_of(found.net).config_at().specs]
    if with_heads and _priors_per_cell(weights) != published:
        raise DataError(
            f"{source}: a {found.net} with priors of its own, and no description that says which; use the file "
            "as train_ssd.py wrote it, not a copy of its weights"
        )
    return found


def build_described(description: Description, *, config: SSDConfig | None = None) -> SSD:
    """Make the net that a description speaks of, with default weights.

    Args:
        description: see `describe_weights`.
        config: in the place of the described one.
    """
    architecture = description.architecture
    net = spec_of(architecture.net).build(
        description.num_classes,
        config=description.config if config is None else config,
        width_mult=architecture.width_mult,
        use_batch_norm=architecture.use_batch_norm,
        onnx_compatible=architecture.onnx_compatible,
    )
    net.class_names = description.class_names
    net.net_by_default = description.net_by_default
    net.trained_on = description.trained_on
    if config in (None, description.config):  # at another size scores are others
        net.threshold = description.threshold
    return net
