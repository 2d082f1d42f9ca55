"""The options of eval_ssd.py."""

from __future__ import annotations

from pathlib import Path

from vision.console import Parser, fraction, one_of, str2bool, user_path, user_place
from vision.options.common import (
    add_dataset_type_option,
    add_device_options,
    add_net_options,
    add_postprocess_options,
    add_reading_options,
    add_resolution_option,
    add_trained_images_option,
)
from vision.options.kinds import SPLITS, WRITTEN_FORMATS

_DESCRIPTION = """Measure how well a detector finds the objects of a dataset. Example:

  python3 eval_ssd.py --model=models/fruit --data=data/fruit
"""


def make_parser() -> Parser:
    """Make the parser of eval_ssd.py."""
    parser = Parser(description=_DESCRIPTION)
    add_net_options(parser, None)
    parser.add_argument(
        "--trained-model",
        "--model",
        required=True,
        type=user_path,
        help=".pth or .onnx file, or a model folder (its best checkpoint)",
    )
    add_dataset_type_option(parser)
    add_reading_options(parser)
    parser.add_argument(
        "--dataset", "--data", type=user_place, nargs="+", required=True, help="folder of the dataset, or several"
    )
    parser.add_argument(
        "--split",
        type=one_of("split", SPLITS),
        default="test",
        help="images to evaluate on: test, else what there is for validation; val, else test; or train",
    )
    parser.add_argument(
        "--image-list",
        type=user_path,
        help="file with names of images, one a line, to evaluate on these instead, whatever split they are in",
    )
    parser.add_argument(
        "--label-file", "--labels", type=user_path, help="class names, for a model that does not know its own"
    )
    add_trained_images_option(parser)
    add_device_options(parser)
    parser.add_argument(
        "--use-2007-metric",
        type=str2bool,
        nargs="?",
        const=True,
        default=True,
        help="the headline is the 11-point AP, else the area under the curve",
    )
    add_postprocess_options(parser)
    parser.add_argument("--iou-threshold", type=fraction, default=0.5, help="overlap above which a detection is a hit")
    parser.add_argument(
        "--inclusive-boxes",
        action="store_true",
        help="VOC's AP: a box reaches to the far side of its last pixel, as in the devkit's areas",
    )
    parser.add_argument(
        "--threshold",
        type=fraction,
        help="score from which detections count in precision, recall, the confusion matrix and the images (default: "
        "where the mean F1 of the classes is highest); with --postprocess=detectnet, from which there are any (0.5)",
    )
    parser.add_argument("--eval-dir", type=user_path, default=Path("eval_results"), help="where reports are written")
    parser.add_argument(
        "--show-dir", type=user_path, help="folder for all images, with what was found beside what is there"
    )
    parser.add_argument(
        "--complexity",
        action="store_true",
        help="parameters, multiply-accumulates and activation memory of the net, too; of a .pth",
    )
    parser.add_argument(
        "--doubts",
        action="store_true",
        help="write doubts.csv and doubts.html, too: objects whose labels may be wrong or missing, ranked",
    )
    parser.add_argument(
        "--save-annotations",
        metavar="FORMAT",
        type=one_of("format", WRITTEN_FORMATS),
        help="with --doubts: write the images of the first doubts as a dataset that a labelling tool opens, with what "
        f"the net suggests in place of the labels: {', '.join(WRITTEN_FORMATS)}",
    )
    parser.add_argument("--no-plots", dest="plots", action="store_false", help="neither plots nor report.html")
    add_resolution_option(parser, None, " (default: as trained)")
    return parser
