"""Building the net of a run and choosing the files it starts from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision.boxes.priors import as_width_height
from vision.engine import bundled_weights, pretrained
from vision.options.training import Options
from vision.ssd.choices import ADVICE_ON_NET, DEFAULT_NET, FITTED_PRIORS, NET_NAMES
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.models import MODELS, describe_weights
from vision.ssd.prior_choice import config_with_priors, with_fitted_priors
from vision.ssd.ssd import SSD
from vision.ssd.weights import read_weights
from vision.structures import DataError
from vision.utils.progress import ProgressBar, no_progress

logger = logging.getLogger(__name__)

#: Objects smaller than 2 x 2 cells of the finest map are hard to detect. Another net is suggested if at least this
#: fraction of the boxes is that small.
CELLS_OF_A_SMALL_OBJECT, FEW_SMALL_OBJECTS = 2.0, 0.05


def general_config(options: Options) -> SSDConfig:
    """Make the config of the net that is asked for, with priors that do not depend on the data.

    Raises:
        DataError: the file of priors cannot be read, or is of another net.
        ValueError: the size is too small for the net.
    """
    return config_with_priors(MODELS[options.net], options.resolution, options.prior_choice)


def fitted_config(options: Options, config: SSDConfig, sides: np.ndarray, labels: np.ndarray) -> SSDConfig:
    """Fit the priors to boxes to train on, where that is asked for.

    Args:
        options: of the command line.
        config: see `general_config`.
        sides: (N, 2) of the boxes in pixels at the network's size.
        labels: (N,).
    """
    if options.prior_choice != FITTED_PRIORS:
        return config
    return with_fitted_priors(MODELS[options.net], config, sides, labels)


def known_config(options: Options, class_names: Sequence[str], path: str | None) -> SSDConfig | None:
    """Read the config, for this size, of a detector to start from, if its heads know classes of the run.

    Args:
        options: of the command line.
        class_names: BACKGROUND first.
        path: of the detector's file; None where the run starts from something else.

    Returns:
        None where the heads know none of the classes, or where priors or new heads were asked for.

    Raises:
        DataError: the file cannot be read, or is not of a net known here.
    """
    if path is None or options.priors is not None or options.new_heads:
        return None
    description = describe_weights(read_weights(path), path, with_heads=False)
    return pretrained.config_of_known_heads(description, MODELS[options.net].name, class_names, options.resolution)


def build_net(options: Options, class_names: Sequence[str], config: SSDConfig) -> SSD:
    """Build the net with PyTorch's default weights.

    Args:
        options: of the command line.
        class_names: BACKGROUND first.
        config: input size, normalization and priors.
    """
    width_mult = options.mb2_width_mult or 1.0
    net = MODELS[options.net].build(len(class_names), config=config, width_mult=width_mult)
    net.class_names = tuple(class_names)
    if options.net_by_default:
        net.net_by_default = True
    return net


def better_net(options: Options) -> str | None:
    """Name the net that was measured to be better, where the default was taken because none was typed."""
    return ADVICE_ON_NET if options.net_by_default and options.net == DEFAULT_NET else None


def better_for_small_objects(options: Options, config: SSDConfig, sides: np.ndarray) -> str | None:
    """Name the net or the resolution that suits boxes which are small for this one's finest cells; None if few are.

    Args:
        options: of the command line.
        config: of the net.
        sides: (N, 2) of the boxes in pixels at the network's size.
    """
    cell = np.array(as_width_height(config.specs[0].shrinkage))
    share = float((sides < CELLS_OF_A_SMALL_OBJECT * cell).all(axis=1).mean()) if len(sides) else 0.0
    if share < FEW_SMALL_OBJECTS:
        return None
    spec = MODELS[options.net]
    width, height = config.width_height
    finer = [
        f"--net={name}"
        for name in NET_NAMES
        if MODELS[name].shares_backbone(spec) and MODELS[name].finest_step(options.resolution) < cell.min()
    ]
    ways = " or ".join([*finer, f"--resolution={2 * width}x{2 * height}"])
    return (
        f"{share:.0%} of your objects are smaller than {CELLS_OF_A_SMALL_OBJECT * cell.min():g} pixels at "
        f"{width}x{height}; {options.net} may miss them. Try {ways}"
    )


def find_starting_files(
    options: Options, *, downloads: bool, progress_bar: ProgressBar = no_progress
) -> pretrained.WeightsSource:
    """Decide on the weights to start from, and fetch those that are published and missing.

    Args:
        options: of the command line.
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
    kind: str, options: Options, downloads: bool, progress_bar: ProgressBar
) -> pretrained.WeightsSource:
    name, folder = MODELS[options.net].name, Path("models")
    path = pretrained.torchvision_path(kind, name, folder)
    if not downloads and not path.is_file():
        raise DataError(
            f"{path}: missing, training would download it; a dry run needs the file, or {pretrained.OPTIONS[kind]} "
            "left out"
        )
    return pretrained.WeightsSource(kind, str(pretrained.fetch_torchvision(kind, name, folder, progress_bar)))


def _find_pretrained_ssd(options: Options, downloads: bool, progress_bar: ProgressBar) -> str | None:
    path = options.pretrained_ssd
    if path is None:
        return _find_default(options, downloads, progress_bar)
    if path == pretrained.SCRATCH:
        return None
    if path == bundled_weights.VOC:
        return str(bundled_weights.find(MODELS[options.net].name))
    if not Path(path).exists():
        if not downloads and Path(path).as_posix() in pretrained.PUBLISHED:
            logger.warning("%s is missing: training would download it, the dry run goes on without", path)
            return None
        pretrained.fetch(Path(path), progress_bar)
    return path


def _find_default(options: Options, downloads: bool, progress_bar: ProgressBar) -> str | None:
    """The published checkpoint of a net; else the bundled start of it, or whichever of both has its backbone."""
    spec = MODELS[options.net]
    published = spec.published_weights
    if published is not None:
        if not Path(published).exists() and downloads:
            try:
                pretrained.fetch(Path(published), progress_bar, has_other=True)
            except DataError as err:
                logger.warning("%s", err)
        if Path(published).exists():
            return published
        why = f"{published} is missing" + ("" if downloads else ", which training would try to download first")
    else:
        why = f"no published checkpoint of {spec.name} is known"
        if spec.name not in bundled_weights.NETS:
            like = (MODELS[name].published_weights for name in NET_NAMES if MODELS[name].shares_backbone(spec))
            found = next((path for path in like if path is not None and Path(path).exists()), None)
            if found is not None:
                return found
    if bundled_weights.net_of(spec.name) is not None and options.mb2_width_mult in (None, 1.0):
        path = bundled_weights.find(spec.name)
        logger.info(
            "%s: starting from %s, which comes with this program (--pretrained-ssd=%s)", why, path, bundled_weights.VOC
        )
        return str(path)
    has_coco = spec.name in pretrained.TORCHVISION[pretrained.COCO]
    hint = f"; --pretrained-ssd={pretrained.COCO} starts from torchvision's" if has_coco else ""
    logger.info("%s%s", why, hint)
    return None
