"""Writing a net as ONNX.

The contract with detectNet: one input `input_0` (1, 3, H, W), normalized as detectNet does, and two outputs, `scores`
(1, P, C) after softmax with class 0 the background, and `boxes` (1, P, 4) relative corner form. Opset 13 and IR 7 are
what every JetPack since 4.6 parses; shapes are static, and weights are inside the one file.
`vision.deploy.verification` holds a file to this.
"""

from __future__ import annotations

import copy
import inspect
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from vision import __version__
from vision.deploy import detectnet
from vision.deploy.jetpack import OPSET
from vision.deploy.session import INPUT, NORMALIZATION_KEY, ONNX_METADATA_KEY, OUTPUTS
from vision.ssd.data_preprocessing import Renormalize
from vision.ssd.ssd import SSD, evaluating
from vision.utils.files import publish, replacing

if TYPE_CHECKING:
    import onnx

#: How the name of a file ends that failed a check.
REJECTED = ".rejected"

#: Name of the first axis where a file takes any number of images.
ANY_BATCH = "batch"


class ExportRejected(RuntimeError):
    """A file that was written failed a check; the message says which and by how much."""


class InputNorm(NamedTuple):
    """How a runtime normalizes pixels in 0 ... 255 before it feeds them: (pixel - mean) / std.

    Attributes:
        mean: per channel or one number.
        std: per channel or one number.
    """

    mean: float | tuple[float, float, float]
    std: float | tuple[float, float, float]


#: What --input-norm may say; None is as the net was trained.
INPUT_NORMS: Mapping[str, InputNorm | None] = {
    "detectnet": InputNorm(detectnet.MEAN, detectnet.STD),
    "train": None,
    "raw255": InputNorm(0.0, 1.0),
}


@dataclass(frozen=True)
class ExportOptions:
    """How a net is written.

    Attributes:
        opset: of ONNX.
        batch_size: images a run, None for any number; detectNet wants 1.
        input_norm: how what runs the file normalizes images, a key of `INPUT_NORMS`.
        half: weights and layers in 16 bits; input, outputs, softmax and the decoding of boxes stay in 32.
        facts: for the file's metadata, besides what the net says of itself.
    """

    opset: int = OPSET
    batch_size: int | None = 1
    input_norm: str = "detectnet"
    half: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)

    def input_norm_of(self, net: SSD) -> InputNorm:
        """Look up what a net's file expects."""
        return INPUT_NORMS[self.input_norm] or InputNorm(net.config.image_mean, net.config.image_std)


class _WithInputNorm(nn.Module):
    """A net behind a product and a sum that turn the input's normalization into its own.

    The sum cannot be folded into a first convolution that is padded: its zeros are those of the net's normalization.
    """

    def __init__(self, net: nn.Module, renormalizer: Renormalize) -> None:
        super().__init__()
        self.renormalizer = renormalizer
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(self.renormalizer(images))


class _HalfPrecision(nn.Module):
    """A copy of a net whose layers compute in 16 bits; what comes in and goes out, softmax and decoding have 32.

    Args:
        net: stays as it is.
    """

    def __init__(self, net: SSD) -> None:
        super().__init__()
        self.layers = copy.deepcopy(net).half().eval()
        self.layers.is_test = False
        self.net = net  # for its priors, in 32 bits

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn normalized images (B, 3, H, W) into scores and relative corner-form boxes."""
        confidences, locations = self.layers(images.half())
        return self.net.decode(confidences.float(), locations.float())


#: As the device's detectNet wants it.
DEFAULT_OPTIONS = ExportOptions()


@contextmanager
def candidate(path: Path) -> Iterator[Path]:
    """Context that gives a temporary name for a file and its checks; see `vision.utils.files.replacing`.

    If the block raises `ExportRejected`, the file is kept as `<path>.rejected`, and nothing is at `path` that was not.
    """
    with replacing(path) as temporary:
        try:
            yield temporary
        except ExportRejected as err:
            rejected = path.with_name(path.name + REJECTED)
            publish(temporary, rejected)
            raise ExportRejected(f"{err}; kept for a look as {rejected}, do not use it") from err


def write(net: SSD, path: Path, options: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Write the file, with the net's description in its metadata; checks nothing.

    Args:
        net: on the CPU, with config; class names are written where it knows them. It is left as it was.
        path: of the file.
        options: how.
    """
    import onnx

    width, height = net.config.width_height
    example = torch.zeros(options.batch_size or 1, 3, height, width)
    norm = options.input_norm_of(net)
    exported: nn.Module = _HalfPrecision(net) if options.half else net
    if options.input_norm != "train":
        own = (net.config.image_mean, net.config.image_std)
        exported = _WithInputNorm(exported, Renormalize(norm.mean, norm.std, *own))
    # The TorchScript exporter keeps to the opset; the newer one writes 18 whatever it is asked for.
    exporter: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    if options.batch_size is None:
        exporter["dynamic_axes"] = {name: {0: ANY_BATCH} for name in (INPUT, *OUTPUTS)}
    with evaluating(net), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation notices that no user of ours can act upon
        torch.onnx.export(
            exported.train(net.training),
            (example,),
            str(path),
            opset_version=options.opset,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            **exporter,
        )
    model = onnx.load(str(path))
    model.producer_name, model.producer_version = "ssd-retrain", __version__
    facts = {
        ONNX_METADATA_KEY: json.dumps(net.description().to_dict()),
        "net": net.architecture.net,
        "classes": json.dumps(net.class_names),
        "size": "x".join(map(str, net.config.width_height)),
        NORMALIZATION_KEY: json.dumps({"channels": "RGB", "pixels": [0, 255], **norm._asdict()}),
        **options.facts,
    }
    onnx.helper.set_model_props(model, facts)
    _crop_kernels(model)
    onnx.save(model, str(path))


def _crop_kernels(model: onnx.ModelProto) -> None:
    """Take the taps of depthwise kernels away that see padding only, on maps one cell wide or high.

    Answers stay the same. The depthwise convolution of OpenCV 4.7 to 4.14 reads memory beside such maps.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    sides_of = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim][2:]
        for value in (*inferred.input, *inferred.value_info)
    }
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    cropped = set()
    for node in model.graph.node:
        numbers = {attribute.name: attribute.ints for attribute in node.attribute}
        group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        if node.op_type != "Conv" or group == 1 or node.input[1] not in weights or uses[node.input[1]] > 1:
            continue
        weight, pads = weights[node.input[1]], numbers["pads"]
        kernel = onnx.numpy_helper.to_array(weight)
        for axis, side in enumerate(sides_of.get(node.input[0], ())):
            if side == 1 and pads[axis] + 1 + pads[axis + 2] == kernel.shape[axis + 2]:
                kernel = kernel.take([pads[axis]], axis=axis + 2)
                numbers["kernel_shape"][axis] = 1
                pads[axis] = pads[axis + 2] = 0
                cropped.add(weight.name)
        weight.CopyFrom(onnx.numpy_helper.from_array(kernel, weight.name))
    for value in [value for value in model.graph.value_info if value.name in cropped]:
        model.graph.value_info.remove(value)  # its shape is another now
