"""Checks on an exported file: it is read back, run in onnxruntime, and held to the contract and to PyTorch.

OpenCV's dnn runs it, too, as many programs on devices use that. What goes wrong there is a warning: the file itself is
right, and the fault lies with that version of OpenCV.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from vision.deploy.export import ANY_BATCH, DEFAULT_OPTIONS, ExportOptions, ExportRejected
from vision.deploy.jetpack import JETPACKS, spell_release, unparsed_operators
from vision.deploy.session import INPUT, NORMALIZATION_KEY, ONNX_METADATA_KEY, OUTPUTS, OnnxSession
from vision.ssd.data_preprocessing import Preprocess
from vision.ssd.ssd import SSD, evaluating
from vision.structures import DataError
from vision.utils.errors import error_line

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

#: The newest IR that the runtimes of all JetPacks take; PyTorch writes 7 for opset 13.
NEWEST_IR = 8

#: Two runtimes may differ by this much, or by this many times what the arithmetic itself costs.
TOLERANCE, NOISE_FACTOR = 1e-4, 10.0
#: A tolerance above this makes the comparison weak.
WEAK_TOLERANCE = 0.1
#: An answer that moves less than this from image to image makes the comparison weak.
SENSITIVITY = 1e-3
#: What the scores of a prior may be away from a sum of 1.
SUM_TOLERANCE = 1e-3
PARITY_IMAGES = 3
#: How much of OpenCV's reason is shown; it repeats itself.
REASON_LENGTH = 200


class Parity(NamedTuple):
    """How the file's answers compare with PyTorch's, over some images.

    Attributes:
        difference: largest absolute difference of scores and boxes.
        tolerance: what is allowed.
        sensitivity: how much PyTorch's scores differ between the images.
        in_opencv: the difference in OpenCV's dnn; None where that does not run the file, or differs by too much.
    """

    difference: float
    tolerance: float
    sensitivity: float
    in_opencv: float | None = None


def verify(
    path: Path,
    net: SSD,
    options: ExportOptions = DEFAULT_OPTIONS,
    tensorrt: tuple[int, int] | None = None,
    pixels: Tensor | None = None,
) -> Parity:
    """Hold a file to all that can be checked without a device.

    Args:
        path: of the file.
        net: that it was written from.
        options: that it was written with.
        tensorrt: whose parser has to know the file's operators; that of the newest JetPack if left out.
        pixels: images (N, 3, H, W) uint8 at the net's size to compare on; soft shapes if left out.

    Raises:
        ExportRejected: a check failed.
        DataError: the net itself gives no finite answers.
    """
    check_contract(path, net, options)
    check_operators(path, tensorrt or JETPACKS["7"].tensorrt)
    return check_parity(path, net, options, pixels)


def check_contract(path: Path, net: SSD, options: ExportOptions = DEFAULT_OPTIONS) -> None:
    """Read the file back and compare it with the contract.

    Raises:
        ExportRejected: it breaks the contract; the message says what was found and what was expected.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise ExportRejected(
            f"the exported file breaks the contract: {len(outside)} weights are in other files "
            f"(first: {outside[0]}), expected none"
        )
    check_valid(model)
    width, height = net.config.width_height
    priors = len(net.priors)
    batch = options.batch_size or ANY_BATCH
    facts = {entry.key: entry.value for entry in model.metadata_props}
    found = {
        "opset": [(entry.domain, entry.version) for entry in model.opset_import],
        "inputs": _shapes(model.graph.input),
        "outputs": _shapes(model.graph.output),
        "number types": sorted(
            {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        ),
        "description": json.loads(facts.get(ONNX_METADATA_KEY, "null")),
        "normalization": {key: json.loads(facts.get(NORMALIZATION_KEY, "{}")).get(key) for key in ("mean", "std")},
    }
    expected = {
        "opset": [("", options.opset)],
        "inputs": {INPUT: [batch, 3, height, width]},
        "outputs": {"scores": [batch, priors, net.num_classes], "boxes": [batch, priors, 4]},
        "number types": [onnx.TensorProto.FLOAT],
        "description": _as_json(net.description().to_dict()),
        "normalization": _as_json(options.input_norm_of(net)._asdict()),
    }
    for what, value in expected.items():
        if found[what] != value:
            raise ExportRejected(f"the exported file breaks the contract: {what} is {found[what]}, expected {value}")
    if model.ir_version > NEWEST_IR:
        raise ExportRejected(
            f"the exported file breaks the contract: IR version is {model.ir_version}, expected at most {NEWEST_IR}"
        )


def check_valid(model: onnx.ModelProto) -> None:
    """Hold a model to ONNX itself.

    Raises:
        ExportRejected: it is no valid ONNX.
    """
    import onnx

    made = {name for node in model.graph.node for name in node.output}
    unmade = [output.name for output in model.graph.output if output.name not in made]
    if unmade:  # which checkers before onnx 1.17 do not see
        raise ExportRejected(f"the file is no valid ONNX: no node makes its output {unmade[0]}")
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as err:
        raise ExportRejected(f"the file is no valid ONNX: {str(err).splitlines()[0]}") from err


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _shapes(values) -> dict[str, list[int | str]]:
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def operators_of(path: Path) -> set[str]:
    """List the operators of a file."""
    import onnx

    return {node.op_type for node in onnx.load(str(path)).graph.node}


def check_operators(path: Path, tensorrt: tuple[int, int]) -> None:
    """Hold a file's operators to those that a TensorRT documents.

    Raises:
        ExportRejected: it has others.
    """
    unknown = unparsed_operators(operators_of(path), tensorrt)
    if unknown:
        raise ExportRejected(
            f"TensorRT {spell_release(tensorrt)} does not document the operators {', '.join(unknown)}; "
            "a lower --opset may do without them"
        )


def check_parity(
    path: Path, net: SSD, options: ExportOptions = DEFAULT_OPTIONS, pixels: Tensor | None = None
) -> Parity:
    """Compare the file's answers in onnxruntime, and in OpenCV's dnn, with PyTorch's.

    The tolerance follows from what the arithmetic costs this very net: its answers in float32 are compared with those
    in float64, or, where the file computes in 16 bits, with those of weights rounded to 16 bits.

    What OpenCV does not run, or answers otherwise, is only warned of.

    Raises:
        ExportRejected: they differ by more, or the file's are no scores or not finite.
        DataError: PyTorch's are not finite.
    """
    is_drawn = pixels is None
    if is_drawn:
        pixels = image_like(PARITY_IMAGES * (options.batch_size or 1), net.config.width_height)
    images = Preprocess(net.config.image_mean, net.config.image_std)(pixels)
    with evaluating(net), torch.inference_mode():
        expected = net(images)
    if not _finite(expected):
        raise DataError("the net's answers to ordinary images are not finite: it cannot be exported, train it again")
    inputs = Preprocess(*options.input_norm_of(net))(pixels)
    scores, boxes = OnnxSession(path).run(inputs.numpy())
    found = (torch.from_numpy(scores), torch.from_numpy(boxes))
    if not _finite(found):
        raise ExportRejected("the exported file's answers to ordinary images are not finite")
    sums = (found[0].sum(dim=2) - 1).abs().max()
    if not sums <= SUM_TOLERANCE:
        raise ExportRejected(f"the exported file's scores of a prior do not add up to 1 (off by {float(sums):.2g})")
    difference = _largest_difference(expected, found)
    in_opencv = _difference_in_opencv(path, inputs, options.batch_size, expected)
    tolerance = TOLERANCE
    if max(difference, in_opencv or 0) > TOLERANCE:  # other arithmetic is slow, and mostly nobody needs to ask it
        noise = _largest_difference(expected, (_with_rounded_weights if options.half else _in_double)(net, images))
        tolerance = max(TOLERANCE, NOISE_FACTOR * noise)
    if not difference <= tolerance:
        raise ExportRejected(
            f"the exported file does not compute what PyTorch does: scores or boxes differ by {difference:.2g}, "
            f"allowed are {tolerance:.2g}"
        )
    if in_opencv is not None and not in_opencv <= tolerance:
        logger.warning(
            "OpenCV %s computes something else in its dnn: scores or boxes differ from PyTorch by %.2g, allowed are "
            "%.2g; where OpenCV is to run the file, use another version (docs/deploying.md)",
            cv2.__version__,
            in_opencv,
            tolerance,
        )
        in_opencv = None
    if is_drawn and tolerance > WEAK_TOLERANCE:
        logger.warning(
            "the net's answers depend on the last digits of its arithmetic (a tolerance of %.2g follows), and the "
            "comparison with onnxruntime proves little; --data measures the file on images",
            tolerance,
        )
    parity = Parity(difference, tolerance, float((expected[0][0] - expected[0][-1]).abs().max()), in_opencv)
    if parity.sensitivity < SENSITIVITY:
        logger.warning(
            "the net answers different images alike (scores differ by %.2g): it looks untrained, and the "
            "comparison with onnxruntime proves little",
            parity.sensitivity,
        )
    return parity


def _difference_in_opencv(
    path: Path, inputs: Tensor, batch_size: int | None, expected: tuple[Tensor, Tensor]
) -> float | None:
    """Run a file in OpenCV's dnn, and compare; None, after a warning, where OpenCV does not run it.

    Args:
        path: of the file.
        inputs: normalized images (N, 3, H, W), as the file wants them.
        batch_size: images a run, None for any number.
        expected: scores and boxes.

    Returns:
        the largest difference; infinite where answers have another form, or are not finite.
    """
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
        parts = []
        for part in inputs.split(batch_size or 1):
            padded = torch.cat([part, part.new_zeros((batch_size or 1) - len(part), *part.shape[1:])])
            net.setInput(padded.numpy(), INPUT)
            parts.append([torch.from_numpy(answer[: len(part)].copy()) for answer in net.forward(list(OUTPUTS))])
    except cv2.error as err:
        logger.warning(
            "OpenCV %s cannot run the file in its dnn (%s); where OpenCV is to run it, use another version",
            cv2.__version__,
            error_line(err)[:REASON_LENGTH],
        )
        return None
    scores, boxes = map(torch.cat, zip(*parts, strict=True))
    if (scores.shape, boxes.shape) != (expected[0].shape, expected[1].shape) or not _finite((scores, boxes)):
        return math.inf
    return _largest_difference(expected, (scores, boxes))


def _in_double(net: SSD, images: Tensor) -> tuple[Tensor, Tensor]:
    with evaluating(net), torch.inference_mode():
        answers = net.double()(images.double())
    net.float()
    return answers


def _with_rounded_weights(net: SSD, images: Tensor) -> tuple[Tensor, Tensor]:
    """Answer as a net whose weights have 16 bits; computing in 16 bits itself is very slow on most CPUs."""
    rounded = copy.deepcopy(net).half().float()
    rounded.priors = net.priors
    with evaluating(rounded), torch.inference_mode():
        return rounded(images)


def _finite(answers: tuple[Tensor, Tensor]) -> bool:
    return all(bool(torch.isfinite(values).all()) for values in answers)


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
