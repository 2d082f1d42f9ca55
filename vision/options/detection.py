"""The options of detect.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from vision.console import Parser, count, fraction, number, one_of, user_path, user_place
from vision.deploy.choices import DEFAULT_THRESHOLD
from vision.options.common import (
    add_device_options,
    add_net_options,
    add_postprocess_options,
    add_resolution_option,
)
from vision.options.kinds import WRITTEN_FORMATS

_DESCRIPTION = """Find objects in images, videos and camera streams. Example:

  python3 detect.py --model=models/fruit --input=images/ --output=out/
"""


def make_parser() -> Parser:
    """Make the parser of detect.py."""
    parser = Parser(description=_DESCRIPTION)
    add_net_options(parser, None)
    parser.add_argument(
        "--model",
        required=True,
        type=user_path,
        help=".pth or .onnx file, or a model folder (its best checkpoint)",
    )
    parser.add_argument("--labels", type=user_path, help="class names, for a model that does not know its own")
    parser.add_argument(
        "--input",
        type=user_place,
        nargs="+",
        required=True,
        help="images, folders with their subfolders, globs; or a video, a camera (0, /dev/video0), rtsp://...",
    )
    parser.add_argument(
        "--output", type=user_path, default=Path("detections"), help="folder, or an image or video file"
    )
    parser.add_argument(
        "--threshold",
        type=fraction,
        help=f"least score (default: what suited best when the model's run was validated, else {DEFAULT_THRESHOLD})",
    )
    add_postprocess_options(parser)
    parser.add_argument("--top-k", type=count, help="detections per class and image (default: all)")
    parser.add_argument("--classes", help="show only these, with commas between (default: all)")
    parser.add_argument(
        "--save-json", action=argparse.BooleanOptionalAction, default=True, help="write detections.json"
    )
    parser.add_argument(
        "--save-txt",
        action="store_true",
        help="write <image>.txt in YOLO's form: class number, relative center, width and height, score",
    )
    parser.add_argument(
        "--save-annotations",
        metavar="FORMAT",
        type=one_of("format", WRITTEN_FORMATS),
        help="write a dataset that a labelling tool opens, to correct what was found, into a folder of that name in "
        f"--output: {', '.join(WRITTEN_FORMATS)}",
    )
    parser.add_argument(
        "--save-fps",
        metavar="N",
        type=number(float, 0, above=True),
        default=1.0,
        help="frames of a video that --save-annotations takes per second, at most; near-twins are left out",
    )
    parser.add_argument(
        "--choose",
        metavar="N",
        type=count,
        help="label next: keep only the N images, or frames of a video, that would teach the model most; chosen.csv "
        "says why; implies --save-annotations",
    )
    parser.add_argument(
        "--without-objects",
        action="store_true",
        help="with --choose: the input shows none of the classes; choose by false alarms, and write annotations that "
        "say that there is no object",
    )
    parser.add_argument("--sheet", action="store_true", help="write sheet.png, too: some of the drawn images in a grid")
    parser.add_argument("--show", action="store_true", help="show a window, too; q ends, any key goes on")
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="print the time of each stage, and images per second without loading and warm-up",
    )
    add_device_options(parser)
    add_resolution_option(parser, None, " (default: as trained)")
    return parser
