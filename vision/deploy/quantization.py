"""Eight bits: an exported file with scales inside, for TensorRT, or for onnxruntime on a CPU.

For TensorRT a pair of QuantizeLinear and DequantizeLinear stands before each input and each weight of a convolution:
signed, symmetric, zero points 0, a scale for each output channel of a weight. None stands before a bias, nor between a
convolution and its ReLU, which TensorRT would then not fuse (NVIDIA's guide to explicit quantization: quantize what
goes into layers with weights, not what comes out). For CPUs pairs stand around ReLU, sums and upsampling, too, so that
onnxruntime stays in 8 bits from one convolution to the next; activations are unsigned. Softmax and the decoding of
boxes stay in 32 bits.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vision.deploy.export import ExportRejected
from vision.deploy.session import INPUT, OUTPUTS, open_runtime
from vision.deploy.verification import check_valid
from vision.utils.progress import ProgressBar, no_progress

if TYPE_CHECKING:
    import onnx

logger = logging.getLogger(__name__)

#: Images whose answers rank the layers by what eight bits cost there.
RANKING_IMAGES = 8

#: A prior sees an object where its background has a lower score than this, or one of the lowest hundredth.
SEES_OBJECT = 0.5

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

#: What else is in 8 bits on CPUs: each of them left in float would cost two conversions.
_CPU_OPERATORS = ["Conv", "Add", "Resize", "Clip", "Relu"]

_TENSORRT_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
}

#: What TensorRT fuses into the convolution before it.
_ACTIVATIONS = ("Relu", "Clip")


def quantize(
    source: Path, path: Path, inputs: Iterable[np.ndarray], *, for_cpu: bool = False, excluded: Sequence[str] = ()
) -> None:
    """Quantize all convolutions of an exported file; activations' ranges are the largest values that are met.

    Args:
        source: the exported file, of opset 13 or more, for one image a run.
        path: of the file to write.
        inputs: images (1, 3, H, W) float32, normalized as the file expects; some hundred, like those to come.
        for_cpu: whether the file is for onnxruntime on a CPU instead of TensorRT.
        excluded: names of layers that stay in float.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            with _disabled_log(logging.NOTSET):  # who reads images may have something to say
                values = next(self.left, None)
            return None if values is None else {INPUT: values}

    with _disabled_log(logging.WARNING):
        quantize_static(
            str(source),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8 if for_cpu else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=False,
            nodes_to_exclude=list(excluded),
            op_types_to_quantize=_CPU_OPERATORS if for_cpu else ["Conv"],
            extra_options={} if for_cpu else _TENSORRT_OPTIONS,
        )
    model, plain = onnx.load(str(path)), onnx.load(str(source))
    del model.opset_import[:]
    model.opset_import.extend(plain.opset_import)
    model.ir_version = plain.ir_version
    check_valid(model)
    onnx.save(model, str(path))


@contextmanager
def _disabled_log(level: int) -> Iterator[None]:
    """Context in which nothing of a level or below is logged; libraries that log to the root advise what is done."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def layers_of(path: Path) -> list[str]:
    """List the names of a file's convolutions, from input to output."""
    import onnx

    return [node.name for node in onnx.load(str(path)).graph.node if node.op_type == "Conv"]


def matching(layers: Sequence[str], patterns: Iterable[str]) -> list[str]:
    """Pick the layers whose names match one of several patterns, of which a part of the name is enough.

    Raises:
        ValueError: a pattern matches none.
    """
    picked = set()
    for pattern in patterns:
        found = fnmatch.filter(layers, f"*{pattern}*")
        if not found:
            raise ValueError(f"{pattern!r} is in no layer's name; they are {', '.join(layers)}")
        picked.update(found)
    return [layer for layer in layers if layer in picked]


def in_float(source: Path, path: Path, layers: Iterable[str]) -> None:
    """Copy a quantized file, and leave some of its convolutions in float.

    Args:
        source: written by `quantize`.
        path: of the file to write; may be the same.
        layers: names.
    """
    import onnx

    model = onnx.load(str(source))
    _take_pairs_away(model, set(layers))
    onnx.save(model, str(path))


def _take_pairs_away(model: onnx.ModelProto, layers: set[str]) -> None:
    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}

    def before_pair(name: str) -> str:
        node = made_by.get(name)
        return made_by[node.input[0]].input[0] if node is not None and node.op_type == _DEQUANTIZE else name

    for node in graph.node:
        if node.name in layers:
            node.input[:] = [before_pair(name) for name in node.input]
    # What a pair gives also goes to sums and upsampling; without a convolution that wants it, nobody does.
    wanted = {name for node in graph.node if node.op_type == "Conv" for name in node.input}
    for node in graph.node:
        if node.op_type != "Conv":
            node.input[:] = [name if name in wanted else before_pair(name) for name in node.input]
    while True:  # a pair goes in two steps
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if not used & set(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def errors_by_layer(
    quantized: Path, plain: Path, inputs: Sequence[np.ndarray], scratch: Path, progress: ProgressBar = no_progress
) -> dict[str, float]:
    """Find out what eight bits in one convolution alone change where there are objects.

    Args:
        quantized: written by `quantize`.
        plain: the file it was made from.
        inputs: images (1, 3, H, W) as the files expect them.
        scratch: a file to overwrite.
        progress: shows layers going by.

    Returns:
        by layer, the largest first: mean absolute difference of scores, plus that of boxes as a share of their sides,
        over the priors that see an object.
    """
    layers = layers_of(quantized)
    session = open_runtime(plain)
    expected = [session.run(OUTPUTS, {INPUT: values}) for values in inputs]
    errors = {}
    for layer in progress(layers, "Ranking layers", len(layers)):
        in_float(quantized, scratch, set(layers) - {layer})
        session = open_runtime(scratch)
        found = [session.run(OUTPUTS, {INPUT: values}) for values in inputs]
        errors[layer] = float(np.mean(list(map(_difference, found, expected))))
    return dict(sorted(errors.items(), key=lambda entry: -entry[1]))


def _difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    (scores, boxes), (true_scores, true_boxes) = found, expected
    sees = true_scores[..., 0] < max(SEES_OBJECT, np.quantile(true_scores[..., 0], 0.01))
    if not sees.any():
        return float(np.abs(scores - true_scores).mean())
    sides = np.tile(true_boxes[sees][:, 2:] - true_boxes[sees][:, :2], 2).clip(1e-3)
    of_boxes = np.abs(boxes[sees] - true_boxes[sees]) / sides
    return float(np.abs(scores[sees] - true_scores[sees]).mean() + of_boxes.mean())


def search(
    file: Path,
    quantized: Path,
    plain: Path,
    excluded: Sequence[str],
    inputs: Sequence[np.ndarray],
    cost: Callable[[Path], float],
    most: float,
    progress: ProgressBar = no_progress,
) -> list[str]:
    """Leave in float where eight bits cost most, twice as many layers at a time, until they cost little enough.

    Args:
        file: to write.
        quantized: with all layers in eight bits, from `quantize`.
        plain: the file it was made from.
        excluded: layers that are to be in float anyway.
        inputs: a few images (1, 3, H, W) as the files expect them, which rank the layers.
        cost: measures a file.
        most: what it may cost.
        progress: shows layers going by.

    Returns:
        the layers in float; where the last file still costs too much, all but a few.
    """
    tried = list(excluded)
    in_float(quantized, file, tried)
    found = cost(file)
    if found <= most:
        return tried
    logger.info("8 bits cost %.4f, allowed are %g: looking for the layers to leave in float", found, most)
    errors = errors_by_layer(quantized, plain, inputs, file, progress)
    ranked = [layer for layer in errors if layer not in excluded]
    count = 1
    while found > most and count < len(ranked):
        tried = [*excluded, *ranked[:count]]
        in_float(quantized, file, tried)
        found = cost(file)
        logger.info("with %d layers in float they cost %.4f", len(tried), found)
        count *= 2
    logger.info("left in float: %s", ", ".join(tried))
    return tried


def check_quantized(path: Path, in_float_layers: Iterable[str] = ()) -> int:
    """Hold a quantized file to what TensorRT's parsers take.

    Args:
        path: of the file.
        in_float_layers: convolutions that may be in float.

    Returns:
        how many convolutions are in eight bits.

    Raises:
        ExportRejected: a rule is broken; the message says which, and where.
    """
    import onnx

    model = onnx.load(str(path))
    check_valid(model)
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    count, may_be_float = 0, set(in_float_layers)
    for node in model.graph.node:
        if node.op_type in (_QUANTIZE, _DEQUANTIZE):
            _check_scales(node, values)
        if node.op_type in _ACTIVATIONS:
            _check_fusable(node, made_by)
        if node.op_type != "Conv":
            continue
        kinds = [name in made_by and made_by[name].op_type == _DEQUANTIZE for name in node.input]
        if any(kinds[2:]):
            raise ExportRejected(f"{node.name}: its bias is in integers, which TensorRT's parsers refuse")
        if all(kinds[:2]):
            count += 1
            _check_weight(node, made_by, values)
        elif any(kinds) or node.name not in may_be_float:
            raise ExportRejected(f"{node.name}: is not in eight bits")
    return count


def _check_fusable(activation: onnx.NodeProto, made_by: dict[str, onnx.NodeProto]) -> None:
    before = made_by.get(activation.input[0])
    if before is not None and before.op_type == _DEQUANTIZE:
        source = made_by.get(made_by[before.input[0]].input[0])
        if source is not None and source.op_type == "Conv":
            raise ExportRejected(f"{activation.name}: scales stand between it and the convolution {source.name}")


def _check_scales(node: onnx.NodeProto, values: dict[str, np.ndarray]) -> None:
    if len(node.input) != 3 or not {node.input[1], node.input[2]} <= set(values):
        raise ExportRejected(f"{node.name}: expected a scale and a zero point as constants")
    scale, zero_point = (values[name] for name in node.input[1:])
    if zero_point.dtype != np.int8 or zero_point.any():
        raise ExportRejected(f"{node.name}: its zero point is {zero_point.dtype} {zero_point.max()}, expected int8 0")
    if scale.dtype != np.float32 or not (scale > 0).all() or scale.shape != zero_point.shape:
        raise ExportRejected(f"{node.name}: its scales are not all positive, or not as many as zero points")


def _check_weight(node: onnx.NodeProto, made_by: dict[str, onnx.NodeProto], values: dict[str, np.ndarray]) -> None:
    activation, weight = (made_by[name] for name in node.input[:2])
    if values[activation.input[1]].size != 1:
        raise ExportRejected(f"{node.name}: its input has several scales, expected one")
    channels = values[made_by[weight.input[0]].input[0]].shape[0]
    axis = next((attribute.i for attribute in weight.attribute if attribute.name == "axis"), 1)
    if values[weight.input[1]].size != channels or (axis != 0 and channels != 1):
        raise ExportRejected(f"{node.name}: its weight has no scale for each of its {channels} output channels")
