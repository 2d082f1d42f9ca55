"""Building the net of a run and choosing the files it starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vision.boxes.priors import Size, as_width_height
from vision.engine import pretrained, shipped
from vision.ssd.config import SSDConfig
from vision.ssd.models import DEFAULT_NET, MODELS, NET_NAMES, describe_weights
from vision.ssd.prior_choice import AUTO, UPSTREAM, config_with_priors, with_fitted_priors
from vision.ssd.ssd import SSD
from vision.ssd.weights import read_weights
from vision.structures import DataError
from vision.utils.progress import ProgressBar, no_progress

logger = logging.getLogger(__name__)

#: What --pretrained-ssd may say instead of a file.
WORDS = (pretrained.SCRATCH, pretrained.COCO, shipped.VOC)

#: Objects below so many of the finest cells in width and height are hard to find; fewer than this share are no reason
#: for another net.
CELLS_OF_A_SMALL_OBJECT, FEW_SMALL_OBJECTS = 2.0, 0.05


@dataclass(frozen=True)
class NetOptions:
    """Which net is trained, and from which weights.

    Attributes:
        name: of the net, or an alias.
        by_default: whether nobody named it; its export is then called as the tutorial's next command expects.
        size: of its input in pixels, one number or (width, height).
        width_mult: of MobileNetV2; None for 1.
        base_net: file of backbone weights, or `pretrained.IMAGENET`.
        pretrained_ssd: file of a whole SSD, `pretrained.COCO` or `SCRATCH`, or `shipped.VOC`; None for the published
            one, or what comes nearest to it.
        priors: one of `vision.ssd.prior_choice.PRIOR_CHOICES` or a file; None for those of the run that goes on, those
            that heads to start from know, or `AUTO`.
        new_heads: whether heads start anew, even of classes that `pretrained_ssd` knows.
    """

    name: str = DEFAULT_NET
    by_default: bool = False
    size: Size = 300
    width_mult: float | None = None
    base_net: str | None = None
    pretrained_ssd: str | None = None
    priors: str | None = None
    new_heads: bool = False

    @property
    def prior_choice(self) -> str:
        """Priors of a run that begins."""
        keeps_heads = self.pretrained_ssd == pretrained.COCO and not self.new_heads
        return self.priors or (UPSTREAM if keeps_heads else AUTO)

    def config(self) -> SSDConfig:
        """Normalisation, and priors that do not depend on the data.

        Raises:
            DataError: the file of priors cannot be read, or is of another net.
            ValueError: the size is too small for the net.
        """
        return config_with_priors(MODELS[self.name], self.size, self.prior_choice)

    def fitted_config(self, config: SSDConfig, sides: np.ndarray, labels: np.ndarray) -> SSDConfig:
        """Fit the priors to boxes to train on, where that is asked for.

        Args:
            config: see `config`.
            sides: (N, 2) of the boxes in pixels at the network's size.
            labels: (N,).
        """
        if self.prior_choice != AUTO:
            return config
        return with_fitted_priors(MODELS[self.name], config, sides, labels)

    def known_config(self, class_names: Sequence[str], path: str | None) -> SSDConfig | None:
        """Read the config, for this size, of a detector to start from, if its heads know classes of the run.

        Args:
            class_names: BACKGROUND first.
            path: of the detector's file; None where the run starts from something else.

        Returns:
            None where the heads know none of the classes, or where priors or new heads were asked for.

        Raises:
            DataError: the file cannot be read, or is not of a net known here.
        """
        if path is None or self.priors is not None or self.new_heads:
            return None
        description = describe_weights(read_weights(path), path, with_heads=False)
        return pretrained.config_of_known_heads(description, MODELS[self.name].name, class_names, self.size)

    def build(self, class_names: Sequence[str], config: SSDConfig) -> SSD:
        """The net with PyTorch's default weights.

        Args:
            class_names: BACKGROUND first.
            config: see `config`.
        """
        net = MODELS[self.name].build(len(class_names), config=config, width_mult=self.width_mult or 1.0)
        net.class_names = tuple(class_names)
        if self.by_default:
            net.net_by_default = True
        return net


def better_for_small_objects(options: NetOptions, config: SSDConfig, sides: np.ndarray) -> str | None:
    """Name the net or the resolution that suits boxes which are small for this one's finest cells; None if few are.

    Args:
        options: see `NetOptions`.
        config: of the net.
        sides: (N, 2) of the boxes in pixels at the network's size.
    """
    cell = np.array(as_width_height(config.specs[0].shrinkage))
    share = float((sides < CELLS_OF_A_SMALL_OBJECT * cell).all(axis=1).mean()) if len(sides) else 0.0
    if share < FEW_SMALL_OBJECTS:
        return None
    spec = MODELS[options.name]
    width, height = config.width_height
    finer = [
        f"--net={name}"
        for name in NET_NAMES
        if MODELS[name].shares_backbone(spec) and MODELS[name].finest_step(options.size) < cell.min()
    ]
    ways = " or ".join([*finer, f"--resolution={2 * width}x{2 * height}"])
    return (
        f"{share:.0%} of the boxes are smaller than {CELLS_OF_A_SMALL_OBJECT:g} of the finest cells of {options.name} "
        f"at {width}x{height} ({cell.min():g} pixels): {ways} may find more of them"
    )


def find_starting_files(
    options: NetOptions, *, downloads: bool, progress_bar: ProgressBar = no_progress
) -> pretrained.WeightsSource:
    """Decide on the weights to start from, and fetch those that are published and missing.

    Args:
        options: see `NetOptions`.
        downloads: whether what is missing may be fetched.
        progress_bar: shows parts of a file going by.

    Raises:
        DataError: a file is missing and cannot be had.
    """
    if options.base_net == pretrained.IMAGENET:
        return _find_torchvision(pretrained.IMAGENET, options, downloads, progress_bar)
    if options.base_net is not None:
        return pretrained.WeightsSource(pretrained.BACKBONE, options.base_net)
    if options.pretrained_ssd == pretrained.COCO:
        return _find_torchvision(pretrained.COCO, options, downloads, progress_bar)
    path = _find_pretrained_ssd(options, downloads, progress_bar)
    return pretrained.WeightsSource(pretrained.SCRATCH if path is None else pretrained.DETECTOR, path or "")


def _find_torchvision(
    kind: str, options: NetOptions, downloads: bool, progress_bar: ProgressBar
) -> pretrained.WeightsSource:
    name, folder = MODELS[options.name].name, Path("models")
    path = pretrained.torchvision_path(kind, name, folder)
    if not downloads and not path.is_file():
        raise DataError(
            f"{path}: missing, training would download it; a dry run needs the file, or {pretrained.OPTIONS[kind]} "
            "left out"
        )
    return pretrained.WeightsSource(kind, str(pretrained.fetch_torchvision(kind, name, folder, progress_bar)))


def _find_pretrained_ssd(options: NetOptions, downloads: bool, progress_bar: ProgressBar) -> str | None:
    path = options.pretrained_ssd
    if path is None:
        return _find_default(options, downloads, progress_bar)
    if path == pretrained.SCRATCH:
        return None
    if path == shipped.VOC:
        return str(shipped.find(MODELS[options.name].name))
    if not Path(path).exists():
        if not downloads and Path(path).as_posix() in pretrained.PUBLISHED:
            logger.warning("%s is missing: training would download it, the dry run goes on without", path)
            return None
        pretrained.fetch(Path(path), progress_bar)
    return path


def _find_default(options: NetOptions, downloads: bool, progress_bar: ProgressBar) -> str | None:
    """The published checkpoint of a net; else the shipped start of it, or whichever of both has its backbone."""
    spec = MODELS[options.name]
    published = spec.published_weights
    if published is not None:
        if not Path(published).exists() and downloads:
            try:
                pretrained.fetch(Path(published), progress_bar)
            except DataError as err:
                logger.warning("%s", err)
        if Path(published).exists():
            return published
        why = f"{published} is missing" + ("" if downloads else ", which training would try to download first")
    else:
        why = f"no published checkpoint of {spec.name} is known"
        if spec.name not in shipped.NETS:
            like = (MODELS[name].published_weights for name in NET_NAMES if MODELS[name].shares_backbone(spec))
            found = next((path for path in like if path is not None and Path(path).exists()), None)
            if found is not None:
                return found
    if shipped.net_of(spec.name) is not None and options.width_mult in (None, 1.0):
        path = shipped.find(spec.name)
        logger.info("%s: starting from %s, which comes with this program (--pretrained-ssd=%s)", why, path, shipped.VOC)
        return str(path)
    has_coco = spec.name in pretrained.TORCHVISION[pretrained.COCO]
    hint = f"; --pretrained-ssd={pretrained.COCO} starts from torchvision's" if has_coco else ""
    logger.info("%s%s", why, hint)
    return None
