"""Where weights come from before training: files of the user's, or the published checkpoint."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from vision.ssd.models import PUBLISHED_MB1, describe_weights, identify, identify_base_net
from vision.ssd.ssd import SSD
from vision.ssd.weights import read_weights
from vision.structures import DataError
from vision.utils.download import DownloadError, Fetcher

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

WAYS_OUT = (
    "ways out: put the file there yourself, or start from scratch with --pretrained-ssd=none, "
    "from a checkpoint of your own with --pretrained-ssd=FILE, or from a backbone with --base-net=FILE"
)


def fetch(path: Path, progress: Callable[[Iterable, str, int | None], Iterable]) -> None:
    """Download a published file to a temporary name, check size and sha256, and rename it.

    Raises:
        DataError: no such file is published, it cannot be had, or is not what was published.
    """
    published = PUBLISHED.get(path.as_posix())
    if published is None:
        raise DataError(f"{path}: no such file; {WAYS_OUT}")
    logger.info("%s is missing, downloading %s (%d bytes)", path, published.url, published.size)

    def check(part: Path) -> None:
        size, digest = part.stat().st_size, hashlib.sha256(part.read_bytes()).hexdigest()
        if (size, digest) != (published.size, published.sha256):
            raise DataError(
                f"{published.url}: what came is not the published file ({size} bytes of {published.size}, sha256 "
                f"{digest}), nothing was kept; {WAYS_OUT}"
            )

    fetcher = Fetcher(_TIMEOUT_SECONDS, _RETRIES)
    try:
        fetcher.fetch(published.url, path, check=check, progress=progress, note=logger.warning)
    except (DownloadError, OSError) as err:
        raise DataError(f"{path}: missing, and its download failed ({err}); {WAYS_OUT}") from err


def initialise(net: SSD, *, base_net: str | None, pretrained_ssd: str | None) -> None:
    """Give a new net its starting weights: of a backbone, of a whole SSD less its heads, or from scratch.

    Raises:
        DataError: a file cannot be read, or is of another net.
    """
    if base_net is not None:
        weights = read_weights(base_net)
        try:
            net.init_from_base_net(base_net, weights)
        except DataError as err:
            raise DataError(_of_another_net(base_net, weights, net) or str(err)) from err
        logger.info("Init from base net %s", base_net)
    elif pretrained_ssd is not None:
        weights = read_weights(pretrained_ssd)
        expect_net(describe_weights(weights, pretrained_ssd), net, pretrained_ssd)
        net.init_from_pretrained_ssd(pretrained_ssd, weights)
        logger.info("Init from pretrained ssd %s", pretrained_ssd)
    else:
        net.init()
        logger.info("Init from scratch")


def _of_another_net(path: str, weights: dict, net: SSD) -> str | None:
    """Say what a file is that was given as a backbone and does not fit; None if nobody knows."""
    wanted = net.architecture["net"]
    if (backbone := identify_base_net(weights)) is not None:
        return f"{path}: is the backbone of {backbone}, --net is {wanted}; use --net={backbone} or another file"
    if (found := identify(weights)) is not None:
        return f"{path}: is a whole {found['net']} checkpoint, not a backbone; it goes to --pretrained-ssd"
    return None


def expect_net(description: dict, net: SSD, source: str | Path) -> None:
    """Raise DataError if a file of weights is of another net than this one, naming both."""
    wanted = net.architecture
    if description["net"] != wanted["net"]:
        raise DataError(
            f"{source}: is a {description['net']} checkpoint, --net is {wanted['net']}; "
            f"use --net={description['net']} or another file"
        )
    if description["width_mult"] != wanted["width_mult"]:
        raise DataError(
            f"{source}: has width {description['width_mult']:g}, --mb2-width-mult is {wanted['width_mult']:g}; "
            f"use --mb2-width-mult={description['width_mult']:g} or another file"
        )


def take_classes(net: SSD, weights: dict, names: Sequence[str]) -> list[str]:
    """Load weights of the same net with other classes: the rows of the heads go to the classes of the same names.

    Rows of new classes start as all heads do.

    Args:
        net: with its class names.
        weights: of a net like it.
        names: of the classes that the weights know, BACKGROUND first.

    Returns:
        the names, without the background, of classes that both know.
    """
    net.init()
    own = net.state_dict()
    pairs = [(names.index(name), label) for label, name in enumerate(net.class_names) if name in names]
    theirs, mine = (torch.tensor(indices) for indices in zip(*pairs, strict=True))
    by_class = set(_keys_of_last_layers(net))
    for key, value in own.items():
        found = weights.get(key)
        if found is None:
            continue
        if key in by_class:  # its rows are ordered by prior, then by class
            rows = value.reshape(-1, net.num_classes, *value.shape[1:])
            rows[:, mine] = found.reshape(-1, len(names), *found.shape[1:])[:, theirs]
        elif found.shape == value.shape:
            value.copy_(found)
    return [net.class_names[label] for label in mine.tolist() if label]


def _keys_of_last_layers(net: SSD) -> Iterator[str]:
    """Name the weights of the layers that give each class its score."""
    for index, head in enumerate(net.classification_headers):
        place = f".{len(head) - 1}" if isinstance(head, nn.Sequential) else ""
        yield from (f"classification_headers.{index}{place}.{name}" for name in ("weight", "bias"))
