"""Writing a net as ONNX, and every check on the file.

The contract with detectNet: one input `input_0` (N, 3, H, W), normalised as detectNet does, and two outputs, `scores`
(N, P, C) after softmax with class 0 the background, and `boxes` (N, P, 4) relative corner form. Opset 13 and IR 7 are
what every JetPack since 4.6 parses; shapes are static, and weights are inside the one file.
"""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vision import __version__
from vision.deploy import detectnet
from vision.deploy.session import INPUT, NORMALISATION_KEY, ONNX_METADATA_KEY, OUTPUTS, OnnxSession
from vision.ssd.data_preprocessing import Normaliser, Renormaliser
from vision.ssd.ssd import SSD, evaluating
from vision.structures import DataError
from vision.utils.files import replacing

logger = logging.getLogger(__name__)

OPSET, IR_VERSION = 13, 7

#: Two runtimes may differ by this much, or by this many times what float32 itself differs from float64.
TOLERANCE, NOISE_FACTOR = 1e-4, 10.0
#: An answer that moves less than this from image to image makes the comparison weak.
SENSITIVITY = 1e-3
PARITY_IMAGES = 3


class Parity(NamedTuple):
    """How the file's answers compare with PyTorch's, over some images.

    Attributes:
        difference: largest absolute difference of scores and boxes.
        tolerance: what is allowed.
        sensitivity: how much PyTorch's scores differ between the images.
    """

    difference: float
    tolerance: float
    sensitivity: float


class InputNorm(NamedTuple):
    """How a runtime normalises pixels in 0 ... 255 before it feeds them: (pixel - mean) / std.

    Attributes:
        mean: per channel or one number.
        std: one number.
    """

    mean: float | tuple[float, float, float]
    std: float


#: What --input-norm may say; None is as the net was trained.
INPUT_NORMS: Mapping[str, InputNorm | None] = {
    "detectnet": InputNorm(detectnet.MEAN, detectnet.STD),
    "train": None,
    "raw255": InputNorm(0.0, 1.0),
}


def input_norm_of(net: SSD, name: str) -> InputNorm:
    """Look up how a net's export expects its input; a key of `INPUT_NORMS`."""
    return INPUT_NORMS[name] or InputNorm(net.config.image_mean, net.config.image_std)


class _WithInputNorm(nn.Module):
    """A net behind a product and a sum that turn the input's normalisation into its own.

    The sum cannot be folded into a first convolution that is padded: its zeros are those of the net's normalisation.
    """

    def __init__(self, net: SSD, norm: InputNorm) -> None:
        super().__init__()
        self.renormaliser = Renormaliser(norm.mean, norm.std, net.config.image_mean, net.config.image_std)
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(self.renormaliser(images))


def export(net: SSD, path: Path, batch_size: int = 1, input_norm: str = "detectnet") -> Parity:
    """Write a net as an ONNX file that has passed every check; nothing is left at `path` unless it has.

    Args:
        net: on the CPU, with config; class names are written where it knows them.
        path: of the file.
        batch_size: images per run; detectNet wants 1.
        input_norm: how what runs the file normalises images, a key of `INPUT_NORMS`.

    Raises:
        DataError: a check failed.
    """
    with replacing(path) as temporary:
        write(net, temporary, batch_size, input_norm)
        check_contract(temporary, net, batch_size)
        return check_parity(temporary, net, batch_size, input_norm)


def write(net: SSD, path: Path, batch_size: int = 1, input_norm: str = "detectnet") -> None:
    """Write the file, with the net's description in its metadata; checks nothing."""
    import onnx

    width, height = net.config.width_height
    example = torch.zeros(batch_size, 3, height, width)
    norm = input_norm_of(net, input_norm)
    exported = net if input_norm == "train" else _WithInputNorm(net, norm)
    # The TorchScript exporter keeps to the opset; the newer one writes 18 whatever it is asked for.
    exporter = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with evaluating(net), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notices that no user of ours can act upon
        torch.onnx.export(
            exported.train(net.training),
            (example,),
            str(path),
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            **exporter,
        )
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = "ssd-retrain", __version__
    facts = {
        ONNX_METADATA_KEY: json.dumps(net.description()),
        "net": net.architecture.get("net", ""),
        "classes": json.dumps(net.class_names),
        NORMALISATION_KEY: json.dumps({"channels": "RGB", "pixels": [0, 255], **norm._asdict()}),
    }
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, str(path))


def check_contract(path: Path, net: SSD, batch_size: int = 1) -> None:
    """Read the file back and compare it with the contract.

    Raises:
        DataError: it breaks the contract; the message says what was found and what was expected.
    """
    import onnx

    model = onnx.load(str(path))
    onnx.checker.check_model(model, full_check=True)
    width, height = net.config.width_height
    priors = len(net.priors)
    found = {
        "opset": [(entry.domain, entry.version) for entry in model.opset_import],
        "IR version": model.ir_version,
        "inputs": _shapes(model.graph.input),
        "outputs": _shapes(model.graph.output),
        "weights in other files": sum(
            tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer
        ),
    }
    expected = {
        "opset": [("", OPSET)],
        "IR version": IR_VERSION,
        "inputs": {INPUT: [batch_size, 3, height, width]},
        "outputs": {"scores": [batch_size, priors, net.num_classes], "boxes": [batch_size, priors, 4]},
        "weights in other files": 0,
    }
    for what, value in expected.items():
        if found[what] != value:
            raise DataError(f"the exported file breaks the contract: {what} is {found[what]}, expected {value}")


def _shapes(values) -> dict[str, list[int]]:
    return {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values}


def check_parity(path: Path, net: SSD, batch_size: int = 1, input_norm: str = "detectnet") -> Parity:
    """Compare the file's answers in onnxruntime with PyTorch's, on input that looks like images.

    The tolerance follows from what float32 costs this very net: its answers are compared with those in float64.

    Raises:
        DataError: they differ by more, or are not finite.
    """
    session = OnnxSession(path)
    pixels = image_like(PARITY_IMAGES * batch_size, net.config.width_height)
    images = Normaliser(net.config.image_mean, net.config.image_std)(pixels)
    with evaluating(net), torch.inference_mode():
        single = net(images)
    exported = session.run(Normaliser(*input_norm_of(net, input_norm))(pixels))
    if not all(torch.isfinite(values).all() for values in (*single, *exported)):
        raise DataError("the net's answers to ordinary images are not finite: it cannot be exported, train it anew")
    difference = _largest_difference(single, exported)
    tolerance = TOLERANCE
    if difference > TOLERANCE:  # float64 is slow on CPUs, and mostly nobody needs to ask it
        with evaluating(net), torch.inference_mode():
            double = net.double()(images.double())
        net.float()
        tolerance = max(TOLERANCE, NOISE_FACTOR * _largest_difference(single, double))
    if not difference <= tolerance:
        raise DataError(
            f"the exported file does not compute what PyTorch does: scores or boxes differ by {difference:.2g}, "
            f"allowed are {tolerance:.2g}; nothing was written"
        )
    parity = Parity(difference, tolerance, float((single[0][0] - single[0][-1]).abs().max()))
    if parity.sensitivity < SENSITIVITY:
        logger.warning(
            "the net answers different images alike (scores differ by %.2g): it looks untrained, and the "
            "comparison with onnxruntime proves little",
            parity.sensitivity,
        )
    return parity


def _largest_difference(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


def image_like(count: int, size: tuple[int, int]) -> Tensor:
    """Draw soft shapes with a little noise: (count, 3, height, width) uint8, the same at each call.

    Plain noise would not do: far from anything a net was trained on, it overflows the boxes' exponentials.
    """
    width, height = size
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 7, 7)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    noise = torch.from_numpy(rng.normal(0, 8, (count, 3, height, width)).astype(np.float32))
    return (smooth + noise).clamp(0, 255).to(torch.uint8)
