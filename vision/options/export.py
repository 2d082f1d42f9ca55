"""The options of onnx_export.py."""

from __future__ import annotations

from vision.console import Parser, count, count_or, fraction, number, one_of, user_path, user_place
from vision.deploy.choices import DEFAULT_THRESHOLD, INPUT_NORM_NAMES, INT8_TARGETS
from vision.deploy.jetpack import JETPACKS, OPSET, OPSETS
from vision.options.common import (
    add_dataset_type_option,
    add_net_options,
    add_reading_options,
    add_resolution_option,
    add_trained_images_option,
)

_DESCRIPTION = """Export a trained detector as an ONNX file for detectnet. Example:

  python3 onnx_export.py --model-dir=models/fruit --data=data/fruit
"""


def make_parser() -> Parser:
    """Make the parser of onnx_export.py."""
    parser = Parser(description=_DESCRIPTION)
    add_net_options(parser, None)
    parser.add_argument(
        "--input", type=user_place, help="checkpoint (default: the best of --model-dir), or a model folder"
    )
    parser.add_argument(
        "--output",
        type=user_place,
        help="file to write (default: <net>.onnx), in --model-dir unless it names a folder",
    )
    parser.add_argument("--labels", type=user_path, help="class names, for a checkpoint that does not know its own")
    side = count
    parser.add_argument("--width", type=side, help="input width in pixels (default: as trained)")
    parser.add_argument("--height", type=side, help="input height in pixels (default: as trained)")
    add_resolution_option(parser, None, " (default: as trained)")
    parser.add_argument(
        "--batch-size",
        type=count_or("dynamic"),
        default=1,
        help="images per run, or dynamic for any number; detectnet wants 1",
    )
    parser.add_argument(
        "--input-norm",
        type=one_of("input normalization", INPUT_NORM_NAMES),
        default="detectnet",
        help="how what runs the file normalizes images: detectnet to -1 ... 1; train as in training; raw255 not at all",
    )
    parser.add_argument(
        "--opset",
        type=number(int, OPSETS[0], OPSETS[-1]),
        default=OPSET,
        help=f"of ONNX, {OPSETS[0]} to {OPSETS[-1]}; every JetPack since 4.6 parses {OPSET}",
    )
    parser.add_argument(
        "--jetpack",
        type=one_of("JetPack", tuple(JETPACKS)),
        help="hold the files to what this one parses, and print its commands: 4.6, 5, 6 or 7 (default: all)",
    )
    parser.add_argument(
        "--model-dir", type=user_path, help="folder of the checkpoint (default: that of --input, else models)"
    )
    also = parser.add_argument_group("more files beside the plain one")
    also.add_argument("--fp16", action="store_true", help="<name>.fp16.onnx: weights and layers in 16 bits")
    also.add_argument(
        "--int8",
        nargs="?",
        const=INT8_TARGETS[0],
        type=one_of("target", INT8_TARGETS),
        metavar="cpu",
        help="<name>.int8.onnx: convolutions in 8 bits, for trtexec; --int8=cpu: <name>.int8-cpu.onnx, for onnxruntime "
        "on a CPU",
    )
    also.add_argument("--nms", action="store_true", help="<name>.nms.onnx: with non-maximum suppression in the graph")
    also.add_argument(
        "--deepstream", action="store_true", help="<name>.deepstream.onnx, and <name>.deepstream.txt for Gst-nvinfer"
    )
    parser.add_argument(
        "--threshold",
        type=fraction,
        help="score from which detections count in the printed commands and in --deepstream's file (default: what "
        f"suited best when the model's run was validated, else {DEFAULT_THRESHOLD}; for detectnet what suits "
        "its arithmetic on --data)",
    )
    proof = parser.add_argument_group("proof by a dataset")
    proof.add_argument("--data", type=user_place, help="folder of a dataset, to measure each file on its test images")
    add_dataset_type_option(proof)
    add_reading_options(proof)
    add_trained_images_option(proof)
    proof.add_argument(
        "--calib-data",
        type=user_place,
        help="images like those to come, for --int8: a folder, or that of a dataset for its training images (default: "
        "those of --data)",
    )
    proof.add_argument("--calib-images", type=count, default=200, help="how many of them to look at")
    proof.add_argument(
        "--int8-exclude",
        nargs="+",
        default=(),
        help="layers to leave in float: parts of their names, such as base_net.0 or classification_headers",
    )
    proof.add_argument(
        "--int8-max-drop",
        type=fraction,
        default=0.015,
        help="AP50 or AP that --int8 may cost on --data; while it costs more, the worst layers are left in float",
    )
    return parser
