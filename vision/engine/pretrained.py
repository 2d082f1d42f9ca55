"""Where weights come from before training: files of the user's, or the published checkpoint."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from vision.boxes.priors import Level, Size
from vision.engine.heads import load_heads
from vision.ssd.choices import COCO, IMAGENET, NET_NAMES, SCRATCH, TORCHVISION
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.description import Description
from vision.ssd.models import PUBLISHED_MB1, describe_weights, identify, identify_base_net, spec_of
from vision.ssd.ssd import HEADS, SSD
from vision.ssd.weights import read_weights
from vision.structures import DataError
from vision.utils.download import DownloadError, Fetcher
from vision.utils.progress import ProgressBar

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 30
_RETRIES = 2


class PublishedFile(NamedTuple):
    """A file that can be fetched."""

    url: str
    size: int
    sha256: str


PUBLISHED = {
    PUBLISHED_MB1: PublishedFile(
        "https://nvidia.box.com/shared/static/djf5w54rjvpqocsiztzaandq1m3avr7c.pth",
        37_995_286,
        "58694cafa60456eeab4e81ae50ff49a01c46ab387bfea5200f047143ecd973a9",
    )
}

#: Kinds of `WeightsSource` beside `SCRATCH`, `IMAGENET` and `COCO`: files of a backbone and of a whole detector.
BACKBONE, DETECTOR = "backbone", "detector"

#: The options that name torchvision's weights.
OPTIONS = {IMAGENET: "--base-net", COCO: "--pretrained-ssd"}

#: Nets of which torchvision's SSD is another form -> that form, which a start from COCO takes for them.
COCO_FORMS = {"vgg16-ssd": "vgg16-ssd-l2"}

#: Backbones that end with fewer channels than torchvision's classifier: the first weight that no longer fits.
NARROWER_FROM = {"mb3-ssd-lite": "13.conv.7.weight"}

#: What follows the number of the layer in a name of a weight, as in extras.0 and pyramid.laterals.2.
_WITHIN_LAYER = re.compile(r"(?<=\d)\D.*")

WAYS_OUT = (
    "ways out: put the file there yourself, or start from scratch with --pretrained-ssd=none, "
    "from a checkpoint of your own with --pretrained-ssd=FILE, or from a backbone with --base-net=FILE"
)


def fetch(path: Path, progress: ProgressBar, *, has_other: bool = False) -> None:
    """Download a published file to a temporary name, check size and sha256, and rename it.

    Args:
        path: of the file.
        progress: shows parts of it going by.
        has_other: whether the run has another start; then failures are said in brief.

    Raises:
        DataError: no such file is published, it cannot be had, or is not what was published.
    """
    published = PUBLISHED.get(path.as_posix())
    if published is None:
        raise DataError(f"{path}: no such file; {WAYS_OUT}")
    _download(published.url, path, published.sha256, published.size, progress, has_other=has_other)


def fetch_torchvision(start: str, net: str, folder: Path, progress: ProgressBar) -> Path:
    """Download torchvision's weights for a net, unless they are there.

    Args:
        start: `IMAGENET` for its backbone, `COCO` for all of it.
        net: canonical name.
        folder: where they are kept.
        progress: shows parts of the file going by.

    Raises:
        DataError: torchvision has none, or they cannot be had.
    """
    path = torchvision_path(start, net, folder)
    if not path.is_file():
        # The hash in the name is the beginning of the file's sha256.
        _download(torchvision_weights(start, net).url, path, path.stem.rpartition("-")[2], None, progress)
    return path


def torchvision_path(start: str, net: str, folder: Path) -> Path:
    """Path of the file of torchvision's weights for a net; arguments as of `fetch_torchvision`.

    Raises:
        DataError: torchvision has none.
    """
    return folder / torchvision_weights(start, net).url.rpartition("/")[2]


def torchvision_weights(start: str, net: str) -> WeightsEnum:
    """Look up torchvision's entry: `url` of its weights, `transforms` of its images, `meta` with its classes.

    Raises:
        DataError: torchvision has none.
    """
    if net not in TORCHVISION[start]:
        part = "backbone" if start == IMAGENET else "SSD"
        raise DataError(
            f"{OPTIONS[start]}={start}: torchvision has no {part} of {net}; use --net="
            f"{' or '.join(TORCHVISION[start])}, or name a file of weights"
        )
    from torchvision.models import get_weight  # takes a second or two, which not every command has to wait for

    return get_weight(TORCHVISION[start][net])


def _download(
    url: str,
    path: Path,
    sha256: str,
    size: int | None,
    progress: ProgressBar,
    *,
    has_other: bool = False,
) -> None:
    """Fetch a file whose sha256 begins as is known, and whose size may be."""
    logger.info("%s is missing, downloading %s", path, url)
    ways_out = "" if has_other else f"; {WAYS_OUT}"

    def check(part: Path) -> None:
        found, digest = part.stat().st_size, hashlib.sha256(part.read_bytes()).hexdigest()
        if (size is not None and found != size) or not digest.startswith(sha256):
            expected = "" if size is None else f" of {size}"
            raise DataError(
                f"{url}: what came is not the published file ({found} bytes{expected}, sha256 {digest}), nothing was "
                f"kept{ways_out}"
            )

    note = logger.debug if has_other else logger.warning
    try:
        Fetcher(_TIMEOUT_SECONDS, _RETRIES).fetch(url, path, check=check, progress=progress, note=note)
    except (DownloadError, OSError) as err:
        raise DataError(f"{path}: missing, and its download failed ({err}){ways_out}") from err


class WeightsSource(NamedTuple):
    """What a net takes its weights from.

    Attributes:
        kind: `IMAGENET` for one of torchvision's classifiers, `COCO` for one of torchvision's SSDs, `BACKBONE` for a
            backbone with our keys, `DETECTOR` for a whole SSD with the same backbone, `SCRATCH` for random weights.
        path: of the file; "" for `SCRATCH`.
    """

    kind: str
    path: str = ""

    @property
    def detector(self) -> str | None:
        """The file, if it is a whole SSD with our keys."""
        return self.path if self.kind == DETECTOR else None


def initialize(net: SSD, source: WeightsSource, *, new_heads: bool = False) -> None:
    """Fill a new net with its starting weights.

    The normalization that the weights were trained with comes along. Heads come along from the same net with the same
    priors if it has classes of the net's names; these keep their rows.

    Args:
        net: to fill, with its class names.
        source: of the weights.
        new_heads: whether the heads are initialized at random even where the file knows the classes.

    Raises:
        DataError: the file cannot be read, or is of another net.
    """
    kind, path = source
    if kind == SCRATCH:
        net.init()
        better = f"--base-net={IMAGENET}" if net.architecture.net in TORCHVISION[IMAGENET] else "--base-net=FILE"
        logger.warning(
            "STARTING FROM RANDOM WEIGHTS: that takes thousands of images and many epochs; %s starts from a backbone "
            "that has seen a million images, --pretrained-ssd=FILE from a whole detector",
            better,
        )
        return
    weights = read_weights(path)
    if kind == IMAGENET:
        load_imagenet(net, weights, path)
    elif kind == COCO:
        load_coco(net, weights, path, new_heads=new_heads)
    elif kind == BACKBONE:
        load_backbone(net, weights, path)
    else:
        load_detector(net, weights, path, new_heads=new_heads)


def load_backbone(net: SSD, weights: dict[str, Tensor], source: str) -> None:
    """Fill a backbone from weights with our keys, and the rest of the net as `init` does.

    Args:
        net: to fill.
        weights: of the backbone.
        source: of them, for messages.

    Raises:
        DataError: they are of another net.
    """
    try:
        net.init_from_base_net(source, weights)
    except DataError as err:
        raise DataError(_of_another_net(source, weights, net) or str(err)) from err
    own = _trained(net.base_net.state_dict())
    _report(f"base net {source}", net, {f"base_net.{key}" for key in own}, _trained(weights).keys() - own.keys())


def load_detector(net: SSD, weights: dict[str, Tensor], source: str, *, new_heads: bool = False) -> None:
    """Fill a net from a whole SSD with the same backbone; heads come along if they know classes and priors.

    Args:
        net: to fill, with its class names.
        weights: of the SSD.
        source: of them, for messages.
        new_heads: whether the heads are initialized at random even where the file knows the classes.

    Raises:
        DataError: the backbones differ.
    """
    description = describe_weights(weights, source, with_heads=False)
    matched = load_layers(net, weights, description, source)
    load_normalization(net, description)
    net.trained_on = description.trained_on
    heads = None if new_heads else _heads_for(net, description)
    if heads is not None:
        kept = load_heads(net, weights, *heads)
        matched = set(_trained(weights))
    _report(f"pretrained ssd {source}", net, matched, _trained(weights).keys() - matched)
    if heads is not None:
        _report_classes(net, kept)


def _heads_for(net: SSD, description: Description) -> tuple[Sequence[Level], Sequence[str]] | None:
    """Levels and classes of the heads of weights; None if these are of another net, or do not say both."""
    names, config = description.class_names, description.config
    if names is None or config is None or description.net != net.architecture.net:
        return None
    return config.specs, names


def config_of_known_heads(
    description: Description, net: str, class_names: Sequence[str], size: Size
) -> SSDConfig | None:
    """Make the config, for an input size, of weights whose heads know classes of a run.

    Args:
        description: of the weights, see `describe_weights`.
        net: canonical name of the run's.
        class_names: of the run, BACKGROUND first.
        size: of its input in pixels, one number or (width, height).

    Returns:
        the config, with the priors of its heads; None for weights of another net, or of other or unnamed classes.
    """
    known = set(description.class_names or ()) & set(class_names[1:])
    if description.net != net or description.config is None or not known:
        return None
    return spec_of(net).config_like(description.config, size)


def load_layers(net: SSD, weights: dict[str, Tensor], description: Description, source: str) -> set[str]:
    """Take all but the heads from the same net; from another with this backbone, that and what else fits.

    A layer is one module of the pyramid, of the extras or of the taps' add-ons. It fits where the other net has one in
    its place whose weights have the same names and shapes. The rest starts as `init` does.

    Args:
        net: to fill.
        weights: of a whole SSD.
        description: of them, see `describe_weights`.
        source: of them, for messages.

    Returns:
        names of the weights that were taken.

    Raises:
        DataError: the backbones differ, or the weights are not what the description says.
    """
    expect_backbone(description, net, source)
    if description.net == net.architecture.net:
        net.init_from_pretrained_ssd(source, weights)
        return {key for key in _trained(weights) if not key.startswith(HEADS)}
    prefix = "base_net."
    backbone = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    net.init_from_base_net(source, backbone)
    own, theirs = _layers(net.state_dict()), _layers(weights)
    matched = {prefix + key for key in _trained(backbone)}
    for name, layer in own.items():
        other = theirs.get(name, {})
        if {key: value.shape for key, value in layer.items()} == {key: value.shape for key, value in other.items()}:
            for key, value in layer.items():
                value.copy_(other[key])
            matched |= _trained(layer).keys()
    return matched


def _layers(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Group weights by their layers; backbone and heads are left out."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        if not key.startswith(("base_net.", *HEADS)):
            layers.setdefault(_WITHIN_LAYER.sub("", key), {})[key] = value
    return layers


def load_normalization(net: SSD, description: Description) -> None:
    """Set the normalization of a net's input to that which a file of weights was trained with, if it says so."""
    trained = description.config
    if trained is not None:
        net.config = replace(net.config, image_mean=trained.image_mean, image_std=trained.image_std)


def load_imagenet(net: SSD, weights: dict, source: str) -> None:
    """Fill a backbone from one of torchvision's classifiers, and the rest of the net as `init` does.

    Both list the same layers in the same order under other names, so they are paired by order. The net takes over the
    normalization of torchvision: its first layer and its zero padding then see the same numbers as there.

    Args:
        net: of `TORCHVISION[IMAGENET]`.
        weights: as torchvision publishes them; what is not below `features` is passed over.
        source: of them, for messages.

    Raises:
        DataError: the layers differ.
    """
    net.init()
    name = net.architecture.net
    own = _trained(net.base_net.state_dict())
    theirs = _trained({key: value for key, value in weights.items() if key.startswith("features.")})
    most = len(own)
    if name in NARROWER_FROM:
        own = dict(itertools.takewhile(lambda item: item[0] != NARROWER_FROM[name], own.items()))
    pairs = _paired(own, theirs, name, source)
    if len(theirs) > most or not pairs:
        raise DataError(f"{source}: has {len(theirs)} weights below `features`, expected at most {most}")
    for key, value in pairs.items():
        own[key].copy_(value)
    # torchvision subtracts from pixels / 255.
    preset = torchvision_weights(IMAGENET, name).transforms()
    mean, std = (tuple(255 * value for value in values) for values in (preset.mean, preset.std))
    net.config = replace(net.config, image_mean=mean, image_std=std)
    unused = _trained(weights).keys() - list(theirs)[: len(pairs)]
    _report(f"{source}, with torchvision's normalization", net, {f"base_net.{key}" for key in pairs}, unused)


def load_coco(net: SSD, weights: dict, source: str, *, new_heads: bool = False) -> None:
    """Fill a net from torchvision's SSD of the same layers, priors and normalization.

    Of the layers that give each class its score, only the rows of classes of the same names are taken, whether these
    are in capitals or not. With other priors the heads are initialized at random.

    Args:
        net: of `TORCHVISION[COCO]`, with its class names.
        weights: as torchvision publishes them.
        source: of them, for messages.
        new_heads: whether the heads are initialized at random even where the file knows the classes.

    Raises:
        DataError: the layers differ.
    """
    name = net.architecture.net
    # Numbers that COCO left without a class are N/A there.
    categories = ["" if word == "N/A" else word for word in torchvision_weights(COCO, name).meta["categories"]]
    published = spec_of(name).config_at(net.config.image_size)
    with torch.device("meta"):
        like = spec_of(name).build(len(categories), config=published)
    own = _trained(like.state_dict())
    # The same layers in the same order, but for the add-on, which comes first there.
    theirs = dict(sorted(_trained(weights).items(), key=lambda item: item[0] == "backbone.scale_weight"))
    if len(theirs) != len(own):
        raise DataError(
            f"{source}: has {len(theirs)} weights, expected {len(own)} for {name}; is it another net's file?"
        )
    own_names = {own_name.casefold(): own_name for own_name in net.known_class_names}
    names = [net.known_class_names[0], *(own_names.get(category.casefold(), category) for category in categories[1:])]
    pairs = _paired(own, theirs, name, source)
    kept = load_classes(net, pairs, names, published.specs)
    random_keys = {key for key in own if new_heads and key.startswith(HEADS)}
    if new_heads:
        net.init_heads()
    unused = {their_key for key, their_key in zip(own, theirs, strict=True) if key in random_keys}
    _report(source, net, own.keys() - random_keys, unused)
    if not new_heads:
        _report_classes(net, kept)


def _paired(own: dict, theirs: dict, net: str, source: str) -> dict:
    """Pair weights of the same layers by their order; returns theirs by our names.

    Raises:
        DataError: shapes differ.
    """
    for (key, value), (their_key, their_value) in zip(own.items(), theirs.items(), strict=False):
        if value.shape != their_value.shape:
            raise DataError(
                f"{source}: {their_key} is {tuple(their_value.shape)}, expected {tuple(value.shape)} for {key} of "
                f"{net}; is it another net's file?"
            )
    return dict(zip(own, theirs.values(), strict=False))


def _trained(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the counters of batches, which no net needs and not every file has."""
    return {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}


def _report(source: str, net: SSD, matched: set[str], unused: set[str]) -> None:
    """Say in three lines what came from a file, what is newly initialized, and what of the file is not used."""
    own = _trained(net.state_dict()).keys()
    logger.info("Init from %s: %d of %d weights", source, len(matched), len(own))
    logger.info("newly initialized (not in the file, or of other classes): %s", _by_part(own - matched))
    logger.info("not used of the file: %s", _by_part(unused))


def _report_classes(net: SSD, kept: Sequence[str]) -> None:
    new = [name for name in net.known_class_names[1:] if name not in kept]
    logger.info(
        "classes that the file knows: %s; new classes, which start from its mean over classes: %s",
        ", ".join(kept) or "none",
        ", ".join(new) or "none",
    )


def _by_part(names: set[str]) -> str:
    counts = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{count} of {part}" for part, count in sorted(counts.items())) or "nothing"


def _of_another_net(path: str, weights: dict, net: SSD) -> str | None:
    """Say what a file is that was given as a backbone and does not fit; None if nobody knows."""
    wanted = net.architecture.net
    if (backbone := identify_base_net(weights)) is not None:
        return f"{path}: is the backbone of {backbone}, --net is {wanted}; use --net={backbone} or another file"
    if (found := identify(weights)) is not None:
        return f"{path}: is a whole {found.net} checkpoint, not a backbone; it goes to --pretrained-ssd"
    return None


def expect_net(description: Description, net: SSD, source: str | Path) -> None:
    """Raise DataError if a file of weights is of another net than this one, naming both."""
    wanted = net.architecture.net
    if description.net != wanted:
        raise DataError(
            f"{source}: is a {description.net} checkpoint, --net is {wanted}; use --net={description.net} or "
            "another file"
        )
    _expect_width(description, net, source)


def expect_backbone(description: Description, net: SSD, source: str | Path) -> None:
    """Raise DataError if a file of weights is of a net with another backbone than this one, naming both."""
    wanted, spec = net.architecture.net, spec_of(description.net)
    if not spec.shares_backbone(spec_of(wanted)):
        fitting = [name for name in NET_NAMES if spec_of(name).shares_backbone(spec)]
        raise DataError(
            f"{source}: is a {description.net} checkpoint, --net is {wanted} with another backbone; use --net="
            f"{' or '.join(fitting)}, or another file"
        )
    _expect_width(description, net, source)


def _expect_width(description: Description, net: SSD, source: str | Path) -> None:
    if description.width_mult != net.architecture.width_mult:
        raise DataError(
            f"{source}: has width {description.width_mult:g}, --mb2-width-mult is "
            f"{net.architecture.width_mult:g}; use --mb2-width-mult={description.width_mult:g} or another file"
        )


def load_classes(net: SSD, weights: dict, names: Sequence[str], specs: Sequence[Level] | None = None) -> list[str]:
    """Load weights of the same net with other classes, and maybe with other priors; see `load_heads`.

    Args:
        net: with its class names.
        weights: of a net like it.
        names: of the classes that the weights know, BACKGROUND first.
        specs: levels of that net; None for the same as this net's.

    Returns:
        the names, without the background, of classes that both know.
    """
    net.init()
    own = net.state_dict()
    for key, value in weights.items():
        if not key.startswith(HEADS):
            own[key].copy_(value)
    return load_heads(net, weights, net.config.specs if specs is None else specs, names)
