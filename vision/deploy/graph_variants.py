"""Files for other runtimes, made from an exported one: with suppression in the graph, and with DeepStream's outputs.

Both take files for one image a run, and leave out operators whose form differs between opsets 11 and 18.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision.boxes.nms import DEFAULT_SCORE_THRESHOLD
from vision.deploy.export import ExportRejected
from vision.deploy.session import INPUT, OnnxSession, open_runtime
from vision.deploy.verification import check_valid

#: Outputs of a file with suppression: relative corner form (K, 4), (K,), and class numbers (K,) as in labels.txt.
NMS_OUTPUTS = ("nms_boxes", "nms_scores", "nms_labels")

#: Outputs that DeepStream's own parser of TensorFlow's detectors reads: (1, P, 4) as y1 x1 y2 x2, (1, P) and (1, P).
DEEPSTREAM_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes")

#: Boxes a class that suppression gives at most.
MAX_BOXES = 200


def write_with_nms(source: Path, path: Path, iou_threshold: float) -> None:
    """Add suppression class by class to an exported file, by ONNX's own operator.

    Detections have scores above `DEFAULT_SCORE_THRESHOLD`; what a higher one would leave is those of them that reach
    it, so that one file serves all thresholds.

    Args:
        source: the exported file.
        path: of the file to write.
        iou_threshold: overlap above which a box is dropped.
    """
    graph = _Graph(source)
    graph.add("Slice", ("scores", [1], [graph.num_classes], [2]), "of_objects")
    graph.add("Transpose", ("of_objects",), "by_class", perm=[0, 2, 1])
    limits = ([MAX_BOXES], np.array([iou_threshold], np.float32), np.array([DEFAULT_SCORE_THRESHOLD], np.float32))
    graph.add("NonMaxSuppression", ("boxes", "by_class", *limits), "selected", center_point_box=0)
    graph.add("Slice", ("selected", [2], [3], [1]), "prior_column")
    graph.add("Reshape", ("prior_column", [-1]), "prior")
    graph.add("Reshape", ("boxes", [-1, 4]), "boxes_of_image")
    graph.add("Gather", ("boxes_of_image", "prior"), NMS_OUTPUTS[0], axis=0)
    graph.add("GatherND", ("by_class", "selected"), NMS_OUTPUTS[1])
    graph.add("Slice", ("selected", [1], [2], [1]), "class_column")
    graph.add("Reshape", ("class_column", [-1]), "class")
    graph.add("Add", ("class", [1]), NMS_OUTPUTS[2])
    graph.write(
        path,
        zip(NMS_OUTPUTS, (["detections", 4], ["detections"], ["detections"]), ("FLOAT", "FLOAT", "INT64"), strict=True),
    )


def check_with_nms(source: Path, path: Path, images: torch.Tensor, iou_threshold: float) -> int:
    """Compare a file with suppression with torchvision's on what the plain file answers.

    Args:
        source: the plain file.
        path: the file with suppression.
        images: (N, 3, H, W), normalized as the files expect.
        iou_threshold: that the file was written with.

    Returns:
        the number of detections compared.

    Raises:
        ExportRejected: they differ.
    """
    from torchvision.ops import nms

    compared, plain, with_nms = 0, OnnxSession(source), open_runtime(path)
    for image in images:
        scores, boxes = map(torch.from_numpy, plain.run(image[None].numpy()))
        expected = set()
        for label in range(1, scores.shape[2]):
            candidates = (scores[0, :, label] > DEFAULT_SCORE_THRESHOLD).nonzero()[:, 0]
            kept = nms(boxes[0, candidates], scores[0, candidates, label], iou_threshold)[:MAX_BOXES]
            expected |= {(label, *_rounded(boxes[0, index], scores[0, index, label])) for index in candidates[kept]}
        answers = zip(*with_nms.run(NMS_OUTPUTS, {INPUT: image[None].numpy()}), strict=True)
        found = {(int(label), *_rounded(box, score)) for box, score, label in answers}
        # Overlaps at the very threshold may fall either way.
        if len(found ^ expected) > 0.01 * len(expected):
            raise ExportRejected(
                f"the file with suppression keeps {len(found)} boxes, of which torchvision's keeps "
                f"{len(found & expected)} (and {len(expected)} in all)"
            )
        compared += len(expected)
    return compared


def _rounded(box: Any, score: Any) -> tuple[float, ...]:
    return (*(round(float(side), 4) for side in box), round(float(score), 4))


def write_for_deepstream(source: Path, path: Path) -> None:
    """Give an exported file the outputs that DeepStream reads without a library to compile.

    They are those of `NvDsInferParseCustomTfSSD`, a parser that comes with it: each prior's best class but the
    background.
    """
    graph = _Graph(source)
    graph.add("Slice", ("scores", [1], [graph.num_classes], [2]), "of_objects")
    graph.add("TopK", ("of_objects", [1]), ("best_score", "best_class"), axis=2)
    graph.add("Reshape", ("best_score", [1, -1]), DEEPSTREAM_OUTPUTS[1])
    graph.add("Cast", ("best_class",), "best_class_as_float", to=1)
    graph.add("Add", ("best_class_as_float", np.array([1], np.float32)), "best_label")
    graph.add("Reshape", ("best_label", [1, -1]), DEEPSTREAM_OUTPUTS[2])
    graph.add("Gather", ("boxes", [1, 0, 3, 2]), DEEPSTREAM_OUTPUTS[0], axis=2)
    shapes = ([1, graph.num_priors, 4], [1, graph.num_priors], [1, graph.num_priors])
    graph.write(path, zip(DEEPSTREAM_OUTPUTS, shapes, ("FLOAT",) * 3, strict=True))


def check_for_deepstream(source: Path, path: Path, images: torch.Tensor) -> None:
    """Compare a file for DeepStream with the plain one; arguments as in `check_with_nms`.

    Raises:
        ExportRejected: they differ.
    """
    plain, for_deepstream = OnnxSession(source), open_runtime(path)
    for image in images:
        scores, boxes = map(torch.from_numpy, plain.run(image[None].numpy()))
        answers = for_deepstream.run(DEEPSTREAM_OUTPUTS, {INPUT: image[None].numpy()})
        found = dict(zip(DEEPSTREAM_OUTPUTS, map(torch.from_numpy, answers), strict=True))
        best, labels = scores[:, :, 1:].max(dim=2)
        x1, y1, x2, y2 = boxes.unbind(dim=2)
        expected = (torch.stack([y1, x1, y2, x2], dim=2), best, labels + 1)
        for name, values in zip(DEEPSTREAM_OUTPUTS, expected, strict=True):
            # Of classes with the same score either may come first.
            if (found[name] - values).abs().gt(1e-4).float().mean() > 0.001:
                raise ExportRejected(f"the file for DeepStream gives other {name} than the plain one")


def deepstream_config(
    model: str,
    labels: str,
    num_classes: int,
    size: tuple[int, int],
    mean: Any,
    std: float,
    iou_threshold: float,
    threshold: float,
    why: str,
) -> str:
    """Write down for Gst-nvinfer how a file of `write_for_deepstream` is run.

    Args:
        model: name of the ONNX file.
        labels: name of the file of labels, BACKGROUND first.
        num_classes: with the background.
        size: (width, height) of the input.
        mean: that the file expects to be subtracted from pixels in 0 ... 255, per channel or one number.
        std: by which it expects them to be divided after that.
        iou_threshold: overlap above which nvinfer's suppression drops a box.
        threshold: score from which there are detections.
        why: says in a line where that is from.
    """
    offsets = ";".join(f"{value:g}" for value in np.broadcast_to(np.float64(mean), 3))
    width, height = size
    return f"""[property]
onnx-file={model}
labelfile-path={labels}
num-detected-classes={num_classes}
net-scale-factor={1 / std:.17g}
offsets={offsets}
model-color-format=0
network-type=0
# 0 computes in 32 bits, 2 in 16
network-mode=2
batch-size=1
infer-dims=3;{height};{width}
maintain-aspect-ratio=0
output-blob-names={";".join(DEEPSTREAM_OUTPUTS)}
# 2 suppresses boxes that overlap
cluster-mode=2
parse-bbox-func-name=NvDsInferParseCustomTfSSD
custom-lib-path=/opt/nvidia/deepstream/deepstream/lib/libnvds_infercustomparser.so

[class-attrs-all]
# {why}
pre-cluster-threshold={threshold:g}
nms-iou-threshold={iou_threshold:g}
topk=200

# the background is no object
[class-attrs-0]
pre-cluster-threshold=1.1
"""


class _Graph:
    """An exported file's graph, to which nodes are added; numbers among their inputs become initializers.

    Args:
        source: the exported file.
    """

    def __init__(self, source: Path) -> None:
        import onnx

        self.model = onnx.load(str(source))
        shapes = {
            output.name: [dim.dim_value for dim in output.type.tensor_type.shape.dim]
            for output in self.model.graph.output
        }
        _, self.num_priors, self.num_classes = shapes["scores"]

    def add(
        self,
        operator: str,
        inputs: tuple[str | list[int] | np.ndarray, ...],
        outputs: str | tuple[str, ...],
        **attributes,
    ) -> None:
        """Add a node."""
        import onnx

        outputs = (outputs,) if isinstance(outputs, str) else outputs
        names = []
        for index, value in enumerate(inputs):
            if not isinstance(value, str):
                name = f"{outputs[0]}_{index}"
                values = value if isinstance(value, np.ndarray) else np.array(value, np.int64)
                self.model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
                value = name
            names.append(value)
        self.model.graph.node.append(onnx.helper.make_node(operator, names, outputs, outputs[0], **attributes))

    def write(self, path: Path, outputs) -> None:
        """Write the file, with other outputs (name, shape, type) than it had.

        Raises:
            ExportRejected: it is no valid ONNX.
        """
        import onnx

        del self.model.graph.output[:]
        for name, shape, number_type in outputs:
            kind = getattr(onnx.TensorProto, number_type)
            self.model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        check_valid(self.model)
        onnx.save(self.model, str(path))
