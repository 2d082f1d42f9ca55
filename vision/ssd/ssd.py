"""The SSD net (arXiv 1512.02325) as a composition of parts, and its prior matching for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vision.boxes.coding import convert_boxes_to_locations, convert_locations_to_boxes
from vision.boxes.forms import center_form_to_corner_form, corner_form_to_center_form
from vision.boxes.matching import assign_priors
from vision.nn.layers import initialize
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.description import Architecture, Description
from vision.ssd.trained_images import TrainedImages
from vision.ssd.weights import METADATA_KEY, read_weights, write_weights
from vision.structures import DataError

HEADS = ("classification_headers", "regression_headers")


class GraphPath(NamedTuple):
    """A tap inside a block: of module `s0`, after the first `s1` layers of its Sequential `name`."""

    s0: int
    name: str
    s1: int


class Tap(NamedTuple):
    """Where a feature map leaves the backbone: after the modules before `stop`.

    With `has_norm` the next of the net's add-ons is applied to the map on its way to the head. With `cut` the map
    leaves inside module `stop`, after the first `cut.s1` layers of its Sequential; the rest of it then goes on.
    """

    stop: int
    has_norm: bool = False
    cut: GraphPath | None = None


def _as_tap(index: int | tuple[int, nn.Module] | GraphPath) -> Tap:
    if isinstance(index, GraphPath):
        return Tap(index.s0, cut=index)
    if isinstance(index, tuple):
        return Tap(index[0], has_norm=True)
    return Tap(index)


class SSD(nn.Module):
    """A backbone with taps, extra layers, and a pair of heads per feature map.

    Args:
        num_classes: with the background.
        base_net: the backbone's modules in order.
        source_layer_indexes: taps: an index (exclusive), (index, norm module), or a `GraphPath`.
        extras: each makes one more feature map from the last.
        classification_headers: one per map, channels = priors per cell * classes.
        regression_headers: one per map, channels = priors per cell * 4.
        is_test: see `forward`; may be switched at any time.
        config: priors and normalization; needed for `is_test`.
        device: where to go, if given; else the net stays where it was made.
        pyramid: mixes the tapped maps before heads and extras see them; None where these see them as they are.

    Attributes:
        architecture: how the table of nets builds this net, without a name for one composed by hand.
        net_by_default: whether the run took this net without being told to.
        class_names: of the classes, BACKGROUND first, once known.
        trained_on: the images that its weights were trained on, as far as known; None where nothing is.
        threshold: score at which the mean F1 was highest in the last validation of its run, None where nobody knows.
    """

    #: None in nets that are composed by hand without a config; nothing but `decode` meets those.
    config: SSDConfig
    priors: Tensor

    def __init__(
        self,
        num_classes: int,
        base_net: nn.ModuleList | nn.Sequential,
        source_layer_indexes: Sequence[int | tuple[int, nn.Module] | GraphPath],
        extras: nn.ModuleList,
        classification_headers: nn.ModuleList,
        regression_headers: nn.ModuleList,
        is_test: bool = False,
        config: SSDConfig | None = None,
        device: torch.device | str | None = None,
        pyramid: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.base_net = base_net
        self.extras = extras
        self.classification_headers = classification_headers
        self.regression_headers = regression_headers
        self.pyramid = pyramid
        self._taps = [_as_tap(index) for index in source_layer_indexes]
        self.source_layer_add_ons = nn.ModuleList(
            [
                index[1]
                for index in source_layer_indexes
                if isinstance(index, tuple) and not isinstance(index, GraphPath)
            ]
        )
        self.is_test = is_test
        # A frozen copy of a config module: what that shows can change later. Others are taken as they are.
        config = SSDConfig.frozen(config) or config
        self.config = config  # type: ignore[assignment]
        self.architecture = Architecture()
        self.net_by_default = False
        self.class_names: tuple[str, ...] | None = None
        self.trained_on: TrainedImages | None = None
        self.threshold: float | None = None
        # Not persistent: priors move with the net and stay out of its checkpoints.
        self.register_buffer("priors", None if config is None else config.priors.clone(), persistent=False)
        if device is not None:
            self.to(device)

    @property
    def known_class_names(self) -> tuple[str, ...]:
        """The class names of a net that must have them.

        Raises:
            ValueError: nobody has named its classes.
        """
        if self.class_names is None:
            raise ValueError("this SSD has no names of its classes; set its `class_names`, BACKGROUND first")
        return self.class_names

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Compute the maps the heads look at, from normalized images (B, 3, H, W)."""
        maps, done, x = [], 0, images
        norms = iter(self.source_layer_add_ons)
        for tap in self._taps:
            x = _run(self.base_net, x, done, tap.stop)
            done = tap.stop
            if tap.cut is not None:
                inner = getattr(self.base_net[tap.stop], tap.cut.name)
                tapped = _run(inner, x, 0, tap.cut.s1)
                x = _run(inner, tapped, tap.cut.s1, len(inner))
                done += 1
            else:
                tapped = x
            maps.append(next(norms)(tapped) if tap.has_norm else tapped)
        x = _run(self.base_net, x, done, len(self.base_net))
        if self.pyramid is not None:
            maps = self.pyramid(maps)
            x = maps[-1]
        for extra in self.extras:
            x = extra(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Answer for every prior.

        Args:
            x: normalized images (B, 3, H, W).

        Returns:
            (confidences, locations): (B, P, C) before softmax and (B, P, 4) encoded. In test mode
            (scores, boxes): after softmax, and decoded to relative corner form, not clipped.

        Raises:
            ValueError: test mode, and the images are not of the size the priors are for.
        """
        maps = self.feature_maps(x)
        confidences = torch.cat(
            [_per_prior(head(m), self.num_classes) for head, m in zip(self.classification_headers, maps, strict=True)],
            dim=1,
        )
        locations = torch.cat(
            [_per_prior(head(m), 4) for head, m in zip(self.regression_headers, maps, strict=True)], dim=1
        )
        return self.decode(confidences, locations) if self.is_test else (confidences, locations)

    def decode(self, confidences: Tensor, locations: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the raw answer of `forward` into scores (B, P, C) and relative corner-form boxes (B, P, 4)."""
        if self.config is None:
            raise ValueError("this SSD was made without a config, so it has no priors to decode boxes with")
        if locations.shape[1] != len(self.priors):
            raise ValueError(
                f"the images give {locations.shape[1]} boxes, the net has {len(self.priors)} priors: "
                f"expected images of {self.config.image_size} pixels"
            )
        center_form_boxes = convert_locations_to_boxes(
            locations, self.priors, self.config.center_variance, self.config.size_variance
        )
        return confidences.softmax(dim=2), center_form_to_corner_form(center_form_boxes)

    def description(self) -> Description:
        """Say what this net is; `vision.ssd.models.build_described` makes one like it."""
        return Description(
            self.architecture,
            self.num_classes,
            None if self.class_names is None else tuple(self.class_names),
            self.config if isinstance(self.config, SSDConfig) else None,
            self.net_by_default,
            self.trained_on,
            self.threshold,
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", None)
        if metadata is not None:
            metadata[prefix[:-1]][METADATA_KEY] = self.description().to_dict()

    def init(self) -> None:
        """Start from scratch, see `vision.nn.layers.initialize`."""
        self.apply(initialize)

    def init_from_base_net(self, path: str, weights: dict[str, Tensor] | None = None) -> None:
        """Take the backbone's weights from a file of `base_net` keys without prefix, and draw the rest.

        Args:
            path: of the file.
            weights: what it holds, where it was read already.
        """
        load_strictly(self.base_net, read_weights(path) if weights is None else weights, path)
        for name, part in self.named_children():
            if name != "base_net":
                part.apply(initialize)

    def init_from_pretrained_ssd(self, path: str, weights: dict[str, Tensor] | None = None) -> None:
        """Take all but the heads from an SSD's file of any number of classes, and draw the heads.

        Args:
            path: of the file.
            weights: what it holds, where it was read already.
        """
        found = read_weights(path) if weights is None else weights
        weights = {key: value for key, value in found.items() if not key.startswith(HEADS)}
        own = {key: value for key, value in self.state_dict().items() if key.startswith(HEADS)}
        load_strictly(self, {**weights, **own}, path)
        self.init_heads()

    def init_heads(self) -> None:
        """Draw the prediction heads (Xavier)."""
        for part in self._heads():
            part.apply(initialize)

    def _heads(self) -> list[nn.ModuleList]:
        return [getattr(self, name) for name in HEADS]

    def load(self, path: str) -> None:
        """Take all weights from a file.

        Raises:
            DataError: the file cannot be read, or its weights are not this net's.
        """
        load_strictly(self, read_weights(path), path)

    def save(self, path: str | BinaryIO) -> None:
        """Write the weights, with the net's description, to a path or an open file."""
        if hasattr(path, "write"):
            torch.save(self.state_dict(), path)
        else:
            write_weights(self.state_dict(), path)


def move_net(net: SSD, device: torch.device | str, channels_last: bool | None = None) -> SSD:
    """Move a net to a device, in the layout of memory that is fast there.

    On CPUs convolutions run 1.3 to 1.5 times as fast with the channels last.

    Args:
        net: to move.
        device: where to.
        channels_last: the layout; None for what is usually fast on such a device.
    """
    if channels_last is None:
        channels_last = torch.device(device).type == "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return net.to(device, memory_format=layout)  # type: ignore[call-overload]  # stubs lack one with both


@contextmanager
def evaluating(net: SSD, is_test: bool = True) -> Iterator[None]:
    """Put a net into eval and (unless told otherwise) test mode, and each of its modules back as it was after."""
    modes = [(module, module.training) for module in net.modules()]
    was_test = net.is_test
    net.eval()
    net.is_test = is_test
    try:
        yield
    finally:
        net.is_test = was_test
        for module, training in modes:
            module.training = training


def _run(modules: nn.ModuleList | nn.Sequential, x: Tensor, start: int, stop: int) -> Tensor:
    for index in range(start, stop):
        x = modules[index](x)
    return x


def _per_prior(head_map: Tensor, numbers: int) -> Tensor:
    """Turn a head's map (B, p * numbers, h, w) into (B, h * w * p, numbers), in the order of the priors."""
    return head_map.permute(0, 2, 3, 1).reshape(head_map.shape[0], -1, numbers)


def load_strictly(module: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load weights whose keys and shapes must be the module's.

    Raises:
        DataError: they are not; the message counts what differs and shows the first.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    reshaped = [key for key in own if key in weights and own[key].shape != weights[key].shape]
    problems = []
    if missing:
        problems.append(f"{len(missing)} weights are missing (first: {missing[0]})")
    if unexpected:
        problems.append(f"{len(unexpected)} are not this net's (first: {unexpected[0]})")
    if reshaped:
        key = reshaped[0]
        problems.append(
            f"{len(reshaped)} have another shape (first: {key} is {tuple(weights[key].shape)}, "
            f"expected {tuple(own[key].shape)})"
        )
    if problems:
        raise DataError(f"{source}: does not fit the net: {', '.join(problems)}")
    module.load_state_dict(weights)


class MatchPrior:
    """Turn the objects of an image into targets per prior, as a dataset's `target_transform`.

    Args:
        center_form_priors: (P, 4) relative.
        center_variance: see `vision.boxes.coding`.
        size_variance: see `vision.boxes.coding`.
        iou_threshold: overlap from which a prior counts as an object.
    """

    def __init__(
        self, center_form_priors: Tensor, center_variance: float, size_variance: float, iou_threshold: float
    ) -> None:
        self.center_form_priors = center_form_priors
        self.corner_form_priors = center_form_to_corner_form(center_form_priors)
        self.center_variance = center_variance
        self.size_variance = size_variance
        self.iou_threshold = iou_threshold

    def __call__(self, gt_boxes: np.ndarray | Tensor, gt_labels: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Match relative corner-form boxes (N, 4) with labels (N,); N may be 0.

        Returns:
            locations (P, 4), encoded, and labels (P,), 0 for background.
        """
        boxes = torch.as_tensor(gt_boxes, dtype=torch.float32).reshape(-1, 4)
        labels = torch.as_tensor(gt_labels, dtype=torch.int64).reshape(-1)
        matched, matched_labels = assign_priors(boxes, labels, self.corner_form_priors, self.iou_threshold)
        locations = convert_boxes_to_locations(
            corner_form_to_center_form(matched),
            self.center_form_priors,
            self.center_variance,
            self.size_variance,
        )
        return locations, matched_labels
