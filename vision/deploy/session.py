"""One way to run a detector, whether it is a `.pth` or an `.onnx` file."""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vision.boxes.priors import Size, as_width_height
from vision.deploy import detectnet
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.data_preprocessing import Mean, PredictionTransform, Renormalize
from vision.ssd.description import Description
from vision.ssd.models import MODELS, build_described, describe_weights, spec_of
from vision.ssd.predictor import detections_in_pixels
from vision.ssd.ssd import SSD, evaluating, load_strictly, move_net
from vision.ssd.trained_images import TrainedImages
from vision.ssd.weights import read_weights
from vision.structures import DataError, Detections
from vision.utils.timer import Stages

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

INPUT, OUTPUTS = "input_0", ("scores", "boxes")

#: Stages of detecting.
RESIZING, NETWORK, POST_PROCESSING = "resize and normalize", "network", "post-processing"

CPU_PROVIDER = "CPUExecutionProvider"
#: The best first.
GPU_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider")

#: Where an ONNX file's metadata holds the net's description, as JSON.
ONNX_METADATA_KEY = "ssd"

#: Where it says, as JSON, how the input is normalized.
NORMALIZATION_KEY = "normalisation"


class Session(ABC):
    """A detector that is ready to run.

    Attributes:
        class_names: BACKGROUND first; None where the file does not say.
        num_classes: with the background.
        size: (width, height) of the input in pixels.
        net_name: canonical, or None where the file does not say.
        trained_on: the images that it was trained on, None where the file does not say.
        threshold: of scores that its run measured to suit it, see `SSD.threshold`; None where the file does not say.
        stages: of detecting, with the time that each has taken for each image.
    """

    net_name: str | None
    trained_on: TrainedImages | None = None
    threshold: float | None = None

    def __init__(
        self, num_classes: int, class_names: tuple[str, ...] | None, size: Size, mean: Mean, std: Mean
    ) -> None:
        self.num_classes = num_classes
        self.class_names = class_names
        self.size = as_width_height(size)
        self.transform = PredictionTransform(self.size, mean, std)
        self.stages = Stages()

    def as_input(self, images: Tensor) -> Tensor:
        """Turn what detectNet feeds, (B, 3, H, W), into the input of `run`; a file gets it as it is."""
        return images

    @abstractmethod
    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn normalized images (B, 3, H, W) into scores (B, P, C) and relative corner-form boxes (B, P, 4)."""

    def detect(self, rgb_image: np.ndarray, **nms_options: Any) -> Detections:
        """Find objects in an image (H, W, 3) uint8 RGB; options see `vision.boxes.nms.multiclass_nms`."""
        height, width = rgb_image.shape[:2]
        with self.stages(RESIZING):
            images = self.transform(rgb_image)[None]
        with self.stages(NETWORK):
            scores, boxes = self.run(images)
        with self.stages(POST_PROCESSING):
            return detections_in_pixels(scores[0], boxes[0], (width, height), **nms_options)

    def detect_as_detectnet(self, rgb_image: np.ndarray, **options: Any) -> Detections:
        """Find objects in an image (H, W, 3) uint8 RGB by the arithmetic of a device's detectNet.

        It resizes in its own way, and joins boxes instead of suppressing them; options see
        `vision.deploy.detectnet.postprocess`. A `.pth` is run as its default export would be, an `.onnx` as it is.
        """
        height, width = rgb_image.shape[:2]
        with self.stages(RESIZING):
            images = self.as_input(torch.from_numpy(detectnet.preprocess(rgb_image, self.size)))
        with self.stages(NETWORK):
            scores, boxes = self.run(images)
        with self.stages(POST_PROCESSING):
            answers = (scores[0].cpu().numpy(), boxes[0].cpu().numpy())
            # Builds with the older rule do not know of a class called void, either.
            class_names = None if options.get("across_classes") else self.class_names
            found = detectnet.postprocess(*answers, (width, height), class_names=class_names, **options)
            return Detections(*map(torch.from_numpy, found))


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

    def as_input(self, images: Tensor) -> Tensor:
        """See `Session.as_input`; an export does the same within."""
        return self._renormalizer(images)

    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Session.run`."""
        with evaluating(self.net), torch.inference_mode():
            scores, boxes = self.net(images.to(self.device))
        if scores.is_cuda:  # the answers are looked at next, and the wait is the network's
            torch.cuda.synchronize(scores.device)
        return scores.float(), boxes.float()


def choose_providers(device: str, available: Sequence[str]) -> list[tuple[str, dict[str, int]]]:
    """List the execution providers of onnxruntime to try, the best first; the CPU's comes last for what others lack.

    Args:
        device: "auto" for the best there is, "cpu", or "cuda" or "cuda:N" for TensorRT or CUDA.
        available: what this onnxruntime was built with.

    Returns:
        names with their options.

    Raises:
        DataError: a device is asked for that onnxruntime does not have.
    """
    kind, _, index = device.partition(":")
    wanted = [] if kind == "cpu" else [name for name in GPU_PROVIDERS if name in available]
    if kind not in ("auto", "cpu", "cuda") or (kind == "cuda" and not wanted):
        raise DataError(
            f"--device={device}: this onnxruntime has {', '.join(available)} only; use --device=cpu, or a package of "
            "onnxruntime for that device"
        )
    return [*((name, {"device_id": int(index or 0)}) for name in wanted), (CPU_PROVIDER, {})]


def open_runtime(path: str | Path, providers: Sequence[Any] = (CPU_PROVIDER,)) -> onnxruntime.InferenceSession:
    """Open any ONNX file in onnxruntime, which says errors only, and takes as many threads as PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Left alone it takes all cores of the machine, those included that a container or OMP_NUM_THREADS does not give.
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait for the next image would take the cores from those that read and write.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=list(providers))


class OnnxSession(Session):
    """An ONNX file in onnxruntime.

    Args:
        path: of the file.
        device: see `choose_providers`.

    Attributes:
        path: of the file.
        provider: of onnxruntime, that runs it.
        batch_size: images a run, None for any number.

    Raises:
        DataError: it is no ONNX file, or not of a detector with our input and outputs, or the device is not there.
    """

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        try:
            import onnxruntime
        except ImportError as err:
            raise DataError(f"{path}: needs onnxruntime to run; pip install onnxruntime") from err
        providers = choose_providers(device, onnxruntime.get_available_providers())
        try:
            self.session = open_runtime(path, providers)
        except Exception as err:  # onnxruntime's own exceptions have no common base of theirs
            raise DataError(
                f"{path}: cannot be read as an ONNX model; expected a file that onnx_export.py wrote"
            ) from err
        self.path = path
        inputs = {value.name: value.shape for value in self.session.get_inputs()}
        outputs = {value.name: value.shape for value in self.session.get_outputs()}
        if set(inputs) != {INPUT} or set(outputs) != set(OUTPUTS):
            raise DataError(
                f"{path}: has inputs {list(inputs)} and outputs {list(outputs)}, "
                f"expected [{INPUT!r}] and {list(OUTPUTS)}; name the plain file of onnx_export.py"
            )
        self.provider = self.session.get_providers()[0]
        if device.startswith("cuda") and self.provider == CPU_PROVIDER:
            raise DataError(f"--device={device}: onnxruntime could not start {providers[0][0]}; use --device=cpu")
        shape = inputs[INPUT]
        fixed = (*shape[1:], *outputs["scores"][1:])
        if len(shape) != 4 or not all(isinstance(side, int) for side in fixed) or shape[1] != 3:
            raise DataError(
                f"{path}: its input is {shape}, expected three fixed numbers after the batch, of channels first 3; "
                "export it again"
            )
        batch, _, height, width = shape
        self.batch_size = batch if isinstance(batch, int) else None
        metadata = self.session.get_modelmeta().custom_metadata_map
        facts = json.loads(metadata.get(ONNX_METADATA_KEY, "null"))
        if facts is None:
            config = MODELS["mb1-ssd"].config_at()
            logger.warning(
                "%s: does not say its normalization; taken: mean %s, std %s",
                path,
                config.image_mean,
                config.image_std,
            )
            mean, std, names, self.net_name, self.width_mult = config.image_mean, config.image_std, None, None, None
        else:
            way_out = "it is of another version; use the version that wrote it, or export again"
            description = Description.of_file(facts, path, way_out)
            self.net_name = description.net or None
            normalization = json.loads(metadata[NORMALIZATION_KEY])
            mean, std = normalization["mean"], normalization["std"]
            self.width_mult, self.threshold = description.width_mult, description.threshold
            self.trained_on, names = description.trained_on, description.class_names
        super().__init__(outputs["scores"][2], names, (width, height), mean, std)

    def run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `Session.run`; images are padded to the file's batch size, or run in several goes."""
        scores, boxes = [], []
        batch_size = self.batch_size or len(images)
        for part in images.cpu().float().split(batch_size):
            padded = torch.cat([part, part.new_zeros(batch_size - len(part), *part.shape[1:])])
            try:
                found = self.session.run(list(OUTPUTS), {INPUT: padded.numpy()})
            except Exception as err:  # onnxruntime's have no other ancestor
                raise RuntimeError(f"{self.path}: onnxruntime cannot run it ({err})") from err
            scores.append(found[0][: len(part)])
            boxes.append(found[1][: len(part)])
        return torch.from_numpy(np.concatenate(scores)), torch.from_numpy(np.concatenate(boxes))


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


def is_onnx(path: Path) -> bool:
    """Whether a file is an ONNX file by its name; all others are checkpoints."""
    return path.suffix.lower() == ".onnx"


def open_session(
    path: str | Path,
    *,
    net: str | None = None,
    width_mult: float | None = None,
    resolution: Size | None = None,
    device: torch.device | str = "cpu",
) -> Session:
    """Open a `.pth` or `.onnx` file; arguments as in `load_net`, and the device to run on, "auto" for an `.onnx` only.

    Raises:
        DataError: the file cannot be read, or is not what the arguments say.
    """
    path = Path(path)
    if not is_onnx(path):
        return TorchSession(load_net(path, net=net, width_mult=width_mult, resolution=resolution), device)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an .onnx file")
    session = OnnxSession(path, str(device))
    if net is not None and session.net_name not in (None, spec_of(net).name):
        raise DataError(f"{path}: is of {session.net_name}, --net is {net}; use --net={session.net_name}")
    if width_mult is not None and session.width_mult not in (None, width_mult):
        raise DataError(f"{path}: has width {session.width_mult:g}, --mb2-width-mult is {width_mult:g}; leave it out")
    if resolution is not None and as_width_height(resolution) != session.size:
        width, height = session.size
        raise DataError(f"{path}: takes images of {width}x{height} only; leave --resolution out, or export again")
    return session
