"""Running a `.pth` file: the session of a net in PyTorch, beside that of an `.onnx` file in `vision.deploy.session`."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from vision.boxes.priors import Size
from vision.deploy import detectnet
from vision.deploy.session import Session
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.data_preprocessing import Renormalize
from vision.ssd.description import Description
from vision.ssd.models import build_described, describe_weights, spec_of
from vision.ssd.ssd import SSD, evaluating, load_strictly, move_net
from vision.ssd.weights import read_weights
from vision.structures import DataError

logger = logging.getLogger(__name__)


class TorchSession(Session):
    """A net in PyTorch.

    Args:
        net: with a config; in test mode during `run` only.
        device: where to run; the net is moved there.
    """

    def __init__(self, net: SSD, device: torch.device | str = "cpu") -> None:
        config = net.config
        super().__init__(net.num_classes, net.class_names, config.image_size, config.image_mean, config.image_std)
        self.net_name, self.trained_on, self.threshold = net.architecture.net or None, net.trained_on, net.threshold
        self._renormalizer = Renormalize(detectnet.MEAN, detectnet.STD, config.image_mean, config.image_std)
        self.net = move_net(net, device)
        self.device = device

    def as_input(self, images: np.ndarray) -> np.ndarray:
        """See `Session.as_input`; an export does the same within."""
        return self._renormalizer(torch.from_numpy(images)).numpy()

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.run`."""
        with evaluating(self.net), torch.inference_mode():
            scores, boxes = self.net(torch.as_tensor(images, device=self.device))
            return scores.float().cpu().numpy(), boxes.float().cpu().numpy()


def load_net(
    path: str | Path,
    *,
    net: str | None = None,
    width_mult: float | None = None,
    resolution: Size | None = None,
) -> SSD:
    """Build the net that a `.pth` file is of, and load it.

    Args:
        path: of the file.
        net: what it must be, if given; any spelling.
        width_mult: what it must be, if given.
        resolution: the input size, in the place of the file's own (300 where it has none).

    Raises:
        DataError: the file cannot be read, or is of another net.
    """
    weights = read_weights(path)
    description = describe_weights(weights, str(path))
    if net is not None and spec_of(net).name != description.net:
        raise DataError(f"{path}: is a {description.net} checkpoint, --net is {net}; use --net={description.net}")
    if width_mult is not None and width_mult != description.width_mult:
        raise DataError(
            f"{path}: has width {description.width_mult:g}, --mb2-width-mult is {width_mult:g}; leave it out"
        )
    config = None
    if resolution is not None:
        config = _config_for(description, resolution, path)
    built = build_described(description, config=config)
    load_strictly(built, weights, str(path))
    return built


def _config_for(description: Description, resolution: Size, path: str | Path) -> SSDConfig:
    spec, trained = spec_of(description.net), description.config
    if trained is None:
        return spec.config_at(resolution)
    config = spec.config_like(trained, resolution)
    if config.width_height != trained.width_height:
        logger.warning(
            "%s: was trained at %dx%d, is run at another resolution: expect less of it", path, *trained.width_height
        )
    return config
