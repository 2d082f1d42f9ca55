"""Options that several scripts have."""

from __future__ import annotations

import argparse

from vision.boxes.choices import DEFAULT_IOU_THRESHOLD, METHODS
from vision.console import fraction, one_of
from vision.deploy.choices import DEFAULT_CLUSTERING, DETECTNET, NMS, POSTPROCESSES
from vision.options.fields import add_option
from vision.options.training import Options
from vision.ssd.choices import CANONICAL_NAMES


def add_net_options(parser: argparse._ActionsContainer, default: str | None, note: str = "") -> None:
    """Add --net and --mb2-width-mult."""
    add_option(parser, Options, "net", default=default, help=f"one of {', '.join(CANONICAL_NAMES)}{note}")
    add_option(parser, Options, "mb2_width_mult")


def add_resolution_option(
    parser: argparse._ActionsContainer, default: int | tuple[int, int] | None, note: str = ""
) -> None:
    """Add --resolution."""
    help = f"the network's input in pixels, N or WxH{note}"
    add_option(parser, Options, "resolution", default=default, help=help)


def add_dataset_type_option(parser: argparse._ActionsContainer) -> None:
    """Add --dataset-type."""
    add_option(parser, Options, "dataset_type")


def add_reading_options(parser: argparse._ActionsContainer) -> None:
    """Add the options of how datasets are read."""
    for name in ("val_split", "include_depiction", "min_object", "cache"):
        add_option(parser, Options, name)


def add_device_options(parser: argparse._ActionsContainer) -> None:
    """Add --device, --use-cuda and --no-cuda."""
    for name in ("device", "use_cuda"):
        add_option(parser, Options, name)


def add_postprocess_options(parser: argparse._ActionsContainer) -> None:
    """Add --postprocess, and what belongs to either way: options of NMS, or --clustering."""
    parser.add_argument(
        "--postprocess",
        type=one_of("post-processing", POSTPROCESSES),
        default=NMS,
        help="nms; or detectnet for a device's own arithmetic, from its resizing to the joining of boxes",
    )
    parser.add_argument(
        "--clustering",
        type=fraction,
        help=f"detectnet: overlap above which boxes are joined (default: {DEFAULT_CLUSTERING})",
    )
    parser.add_argument("--nms-method", type=one_of("NMS method", METHODS), default="hard", help="hard or soft")
    parser.add_argument(
        "--nms-iou-threshold",
        type=fraction,
        default=DEFAULT_IOU_THRESHOLD,
        help="overlap above which NMS drops a box",
    )
    parser.add_argument(
        "--class-agnostic",
        action="store_true",
        help="NMS: a box also drops boxes of other classes, so that an object has one class",
    )


def check_postprocess_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error if options of the other post-processing were given."""
    if args.postprocess == NMS and args.clustering is not None:
        parser.error("--clustering: belongs to --postprocess=detectnet; add that, or leave it out")
    if args.nms_method == "soft" and args.nms_iou_threshold != parser.get_default("nms_iou_threshold"):
        parser.error("--nms-iou-threshold: soft suppression has no such limit; leave one of the two out")
    if args.nms_method == "soft" and args.class_agnostic:
        parser.error("--class-agnostic: soft suppression is of one class at a time; leave one of the two out")
    if args.postprocess == DETECTNET:
        for name in ("nms_method", "nms_iou_threshold", "class_agnostic"):
            if getattr(args, name) != parser.get_default(name):
                option = "--" + name.replace("_", "-")
                parser.error(f"{option}: detectNet does not suppress; leave it out, or --postprocess=detectnet")


def add_trained_images_option(parser: argparse._ActionsContainer) -> None:
    """Add --include-trained."""
    parser.add_argument(
        "--include-trained",
        action="store_true",
        help="measure on images that the model was trained on, too (default: they are left out where others remain)",
    )


def check_cuda_wanted(device: str, use_cuda: bool) -> None:
    """Raise ValueError if --device names a CUDA device and --use-cuda says that there is to be none."""
    if device.startswith("cuda") and not use_cuda:
        raise ValueError(f"--device={device} and --use-cuda=false contradict each other; leave one out")
