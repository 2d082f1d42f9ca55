"""Which priors a run has: published ones, general ones, those of a file, or ones fitted to its boxes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vision.boxes.prior_fitting import fit_priors
from vision.boxes.priors import Size
from vision.ssd.choices import COCO_PRIORS, FITTED_PRIORS, PRIOR_CHOICES, UPSTREAM_PRIORS
from vision.ssd.config.ssd_config import SSDConfig, level_from_dict, level_to_dict
from vision.ssd.models import ModelSpec
from vision.structures import DataError
from vision.utils.files import write_text


def config_with_priors(spec: ModelSpec, size: Size, choice: str) -> SSDConfig:
    """Make a net's config with priors that do not depend on the data.

    Args:
        spec: of the net.
        size: of its input in pixels, one number or (width, height).
        choice: one of `PRIOR_CHOICES`, where `FITTED_PRIORS` gives what fitted priors will stand beside; or a file.

    Raises:
        DataError: the file cannot be read, or is of another net.
        ValueError: the size is too small for the net.
    """
    if choice in (FITTED_PRIORS, UPSTREAM_PRIORS):
        return spec.config_at(size)
    if choice == COCO_PRIORS:
        return spec.coco_config_at(size)
    return _read_priors(Path(choice), spec, size)


def with_fitted_priors(spec: ModelSpec, config: SSDConfig, sides: np.ndarray, labels: np.ndarray) -> SSDConfig:
    """Fit a config's priors to boxes, see `fit_priors`.

    Args:
        spec: of the net.
        config: with general-purpose priors.
        sides: (N, 2) of the boxes in pixels at the network's size.
        labels: (N,).
    """
    return replace(config, specs=fit_priors(sides, labels, config.specs, trained_levels=len(spec.taps)))


def write_priors(path: Path, config: SSDConfig) -> None:
    """Write the priors of a config as JSON, fit for `--priors`."""
    plain: dict[str, Any] = {"image_size": config.width_height, "levels": [level_to_dict(x) for x in config.specs]}
    write_text(path, json.dumps(plain, indent=1) + "\n")


def _read_priors(path: Path, spec: ModelSpec, size: Size) -> SSDConfig:
    here = spec.config_at(size)
    try:
        plain = json.loads(path.read_text())
        width, height = plain["image_size"]
        published = here if (width, height) == here.width_height else spec.config_at((width, height))
        written = replace(published, specs=tuple(map(level_from_dict, plain["levels"])))
        found, expected = ([level.feature_map_size for level in config.specs] for config in (written, published))
        if found != expected:
            raise ValueError(f"they are for maps of {found} cells, expected {expected}")
        if not all(len(level.cell_priors) for level in written.specs):
            raise ValueError("each map needs a prior")
        priors = written.priors
        if not (priors.isfinite().all() and (priors[:, 2:] > 0).all()):
            raise ValueError("each prior needs finite numbers, and sides above 0")
        return spec.config_like(written, size)
    except OSError as err:
        raise DataError(
            f"--priors: {str(path)!r} cannot be read ({err.strerror}); choose from {', '.join(PRIOR_CHOICES)}, or name "
            "a priors.json of a model folder"
        ) from err
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as err:
        raise DataError(
            f"{path}: holds no priors for {spec.name} ({type(err).__name__}: {err}); expected a priors.json as a model "
            "folder of this net has"
        ) from err
