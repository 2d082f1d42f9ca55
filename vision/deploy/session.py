"""One way to run a detector, whether it is a `.pth` or an `.onnx` file. The latter needs no PyTorch.

What goes in and comes out are arrays. `open_session` loads PyTorch, where a `.pth` file needs it.
"""

from __future__ import annotations

import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from vision.boxes.priors import Size, as_width_height
from vision.boxes.suppression import suppress_classes
from vision.deploy import detectnet
from vision.ssd.choices import canonical_name
from vision.ssd.config.families import MOBILENETV1
from vision.ssd.description import Description
from vision.ssd.trained_images import TrainedImages
from vision.structures import DataError, Detections
from vision.utils.pixels import Mean, resized_and_normalized
from vision.utils.processors import usable_processors
from vision.utils.timer import Stages

if TYPE_CHECKING:
    import onnxruntime
    import torch

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
        self._mean, self._std = mean, std
        self.stages = Stages()

    def transform(self, rgb_image: np.ndarray) -> np.ndarray:
        """Resize and normalize an image (H, W, 3) uint8 RGB as in training: (3, height, width) float32."""
        return resized_and_normalized(rgb_image, self.size, self._mean, self._std)

    def as_input(self, images: np.ndarray) -> np.ndarray:
        """Turn what detectNet feeds, (B, 3, H, W), into the input of `run`; a file gets it as it is."""
        return images

    @abstractmethod
    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn normalized images (B, 3, H, W) into scores (B, P, C) and relative corner-form boxes (B, P, 4)."""

    def detect(self, rgb_image: np.ndarray, **nms_options: Any) -> Detections:
        """Find objects in an image (H, W, 3) uint8 RGB; options see `vision.boxes.suppression.suppress_classes`.

        Returns:
            arrays; boxes in pixels, not clipped.
        """
        height, width = rgb_image.shape[:2]
        with self.stages(RESIZING):
            images = self.transform(rgb_image)[None]
        with self.stages(NETWORK):
            scores, boxes = self.run(images)
        with self.stages(POST_PROCESSING):
            found_boxes, labels, found_scores = suppress_classes(scores[0], boxes[0], **nms_options)
            return Detections(found_boxes * np.array([width, height] * 2, found_boxes.dtype), labels, found_scores)

    def detect_as_detectnet(self, rgb_image: np.ndarray, **options: Any) -> Detections:
        """Find objects in an image (H, W, 3) uint8 RGB by the arithmetic of a device's detectNet.

        It resizes in its own way, and joins boxes instead of suppressing them; options see
        `vision.deploy.detectnet.postprocess`. A `.pth` is run as its default export would be, an `.onnx` as it is.
        """
        height, width = rgb_image.shape[:2]
        with self.stages(RESIZING):
            images = self.as_input(detectnet.preprocess(rgb_image, self.size))
        with self.stages(NETWORK):
            scores, boxes = self.run(images)
        with self.stages(POST_PROCESSING):
            # Builds with the older rule do not know of a class called void, either.
            class_names = None if options.get("across_classes") else self.class_names
            found = detectnet.postprocess(scores[0], boxes[0], (width, height), class_names=class_names, **options)
            return Detections(*found)


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
    """Open any ONNX file in onnxruntime, which says errors only, and takes the processors that this process may use."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Left alone it takes all cores of the machine, those included that a container or OMP_NUM_THREADS does not give.
    options.intra_op_num_threads = usable_processors()
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
            mean, std = MOBILENETV1.image_mean, MOBILENETV1.image_std
            logger.warning("%s: does not say its normalization; taken: mean %s, std %s", path, mean, std)
            names, self.net_name, self.width_mult = None, None, None
        else:
            way_out = "it is of another version; use the version that wrote it, or export again"
            description = Description.of_file(facts, path, way_out)
            self.net_name = description.net or None
            normalization = json.loads(metadata[NORMALIZATION_KEY])
            mean, std = normalization["mean"], normalization["std"]
            self.width_mult, self.threshold = description.width_mult, description.threshold
            self.trained_on, names = description.trained_on, description.class_names
        super().__init__(outputs["scores"][2], names, (width, height), mean, std)

    def run(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Session.run`; images are padded to the file's batch size, or run in several goes."""
        scores, boxes = [], []
        batch_size = self.batch_size or len(images)
        for begin in range(0, len(images), batch_size):
            part = np.asarray(images[begin : begin + batch_size], np.float32)
            padding = np.zeros((batch_size - len(part), *part.shape[1:]), np.float32)
            try:
                found = self.session.run(list(OUTPUTS), {INPUT: np.concatenate([part, padding])})
            except Exception as err:  # onnxruntime's have no other ancestor
                raise RuntimeError(f"{self.path}: onnxruntime cannot run it ({err})") from err
            scores.append(found[0][: len(part)])
            boxes.append(found[1][: len(part)])
        return np.concatenate(scores), np.concatenate(boxes)


def is_onnx(path: Path) -> bool:
    """Whether a file is an ONNX file by its name; all others are checkpoints."""
    return path.suffix.lower() == ".onnx"


def load_torch_session(path: Path) -> ModuleType:
    """Load the module that runs `.pth` files, and PyTorch with it.

    Args:
        path: of the file to be run.

    Raises:
        DataError: PyTorch is not installed.
    """
    try:
        from vision.deploy import torch_session
    except ModuleNotFoundError as err:
        if err.name != "torch":
            raise
        raise DataError(
            f"{path}: needs PyTorch to run, which is not installed; name the .onnx file that onnx_export.py writes, or "
            "pip install torch torchvision"
        ) from err
    return torch_session


def open_session(
    path: str | Path,
    *,
    net: str | None = None,
    width_mult: float | None = None,
    resolution: Size | None = None,
    device: torch.device | str = "cpu",
) -> Session:
    """Open a `.pth` or `.onnx` file.

    Args:
        path: of the file.
        net: what it must be, if given; any spelling.
        width_mult: what it must be, if given.
        resolution: of an `.onnx` the input size that it must have, of a `.pth` the one to run it at, if given.
        device: to run on, "auto" for an `.onnx` only.

    Raises:
        DataError: the file cannot be read, or is not what the arguments say, or PyTorch is missing for a `.pth`.
    """
    path = Path(path)
    if not is_onnx(path):
        torch_session = load_torch_session(path)
        loaded = torch_session.load_net(path, net=net, width_mult=width_mult, resolution=resolution)
        return torch_session.TorchSession(loaded, device)
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an .onnx file")
    session = OnnxSession(path, str(device))
    if net is not None and session.net_name not in (None, canonical_name(net)):
        raise DataError(f"{path}: is of {session.net_name}, --net is {net}; use --net={session.net_name}")
    if width_mult is not None and session.width_mult not in (None, width_mult):
        raise DataError(f"{path}: has width {session.width_mult:g}, --mb2-width-mult is {width_mult:g}; leave it out")
    if resolution is not None and as_width_height(resolution) != session.size:
        width, height = session.size
        raise DataError(f"{path}: takes images of {width}x{height} only; leave --resolution out, or export again")
    return session
