"""What a file says of the weights in it: a value, and the plain dict that it becomes at the file's edge.

The dict lies in the metadata of a `.pth` file (see `vision.ssd.weights`), in that of an `.onnx` file as JSON, and in
the state of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.trained_images import TrainedImages
from vision.structures import DataError


@dataclass(frozen=True)
class Architecture:
    """How the table of nets builds a net.

    Attributes:
        net: canonical name in the table; "" for a net composed by hand.
        width_mult: of MobileNetV2; 1 for other nets.
        use_batch_norm: of MobileNetV2's blocks.
        onnx_compatible: of MobileNetV2's activations.
    """

    net: str = ""
    width_mult: float = 1.0
    use_batch_norm: bool = True
    onnx_compatible: bool = False


@dataclass(frozen=True)
class Results:
    """What a validated epoch reached.

    Attributes:
        epoch: its number, from 0.
        loss: of the validation.
        mean_ap: VOC's average precision over eleven recall levels; None where it was not computed.
        ap_50_95: COCO's AP; None where it was not computed.
    """

    epoch: int
    loss: float
    mean_ap: float | None = None
    ap_50_95: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without what was not computed."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Results | None:
        """Read what `to_dict` gave; None for an empty dict, which stands for no results."""
        if not plain:
            return None
        return cls(plain["epoch"], plain["loss"], plain.get("mean_ap"), plain.get("ap_50_95"))


@dataclass(frozen=True)
class Description:
    """What a file says of its weights.

    Attributes:
        architecture: of the net.
        num_classes: with the background.
        class_names: BACKGROUND first; None where nobody knows.
        config: input size, normalization and priors; None where nobody knows, as in files of other programs.
        net_by_default: whether the run took the net without being told to.
        trained_on: the images that the net was trained on; None where nobody knows.
        threshold: score at which the mean F1 was highest in the last validation; None where nobody knows.
        results: of the epoch that the weights are from; None where nobody knows.
        run: name of the run that the weights are from; "" where nobody knows.
    """

    architecture: Architecture
    num_classes: int
    class_names: tuple[str, ...] | None = None
    config: SSDConfig | None = None
    net_by_default: bool = False
    trained_on: TrainedImages | None = None
    threshold: float | None = None
    results: Results | None = None
    run: str = ""

    @property
    def net(self) -> str:
        """Canonical name of the net; "" for a net composed by hand."""
        return self.architecture.net

    @property
    def width_mult(self) -> float:
        """Width of MobileNetV2; 1 for other nets."""
        return self.architecture.width_mult

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for a checkpoint or JSON; what nobody knows is left out, but for classes and config."""
        optional = {
            "trained_on": self.trained_on and self.trained_on._asdict(),
            "threshold": self.threshold,
            "results": self.results and self.results.to_dict(),
            "run": self.run or None,
        }
        return {
            **(asdict(self.architecture) if self.net else {}),
            **({"net_by_default": True} if self.net_by_default else {}),
            "num_classes": self.num_classes,
            "class_names": None if self.class_names is None else list(self.class_names),
            "config": None if self.config is None else self.config.to_dict(),
            **{key: value for key, value in optional.items() if value is not None},
        }

    @classmethod
    def of_file(cls, plain: Mapping[str, Any], source: str | Path, way_out: str) -> Description:
        """Read what a file says of itself, see `from_dict`.

        Args:
            plain: what it says.
            source: the file, for messages.
            way_out: end of the message: what the file may be, and what to do.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return cls.from_dict(plain)
        except (KeyError, TypeError, ValueError) as err:
            raise DataError(
                f"{source}: what it says of its net cannot be read ({type(err).__name__}: {err}), {way_out}"
            ) from err

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Description:
        """Read what `to_dict` gave, now or in an earlier version.

        Raises:
            KeyError, TypeError, ValueError: the values are no description.
        """
        names, config, images = plain["class_names"], plain["config"], plain.get("trained_on")
        options = ("net", "width_mult", "use_batch_norm", "onnx_compatible")
        return cls(
            Architecture(**{key: plain[key] for key in options if key in plain}),
            plain["num_classes"],
            None if names is None else tuple(names),
            None if config is None else SSDConfig.from_dict(config),
            plain.get("net_by_default", False),
            None if images is None else TrainedImages(**images),
            plain.get("threshold"),
            Results.from_dict(plain.get("results", {})),
            plain.get("run", ""),
        )
