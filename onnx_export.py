#!/usr/bin/env python3
"""Export a trained detector as an ONNX file for detectnet, checked against PyTorch.

python3 onnx_export.py --model-dir=models/fruit
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import sys

from vision import console
from vision.options.export import make_parser

if __name__ == "__main__":
    console.answer_help(make_parser, sys.argv[1:])  # at once: what is imported below takes seconds

import argparse
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from vision import cli
from vision.datasets import AUTO, DetectionDataset, is_dataset, labels, open_dataset
from vision.datasets.images import read_upright
from vision.deploy import detectnet, graph_variants, jetson_commands, quantization
from vision.deploy.accuracy_check import AccuracyCheck
from vision.deploy.export import INPUT_NORMS, ExportOptions, candidate, write
from vision.deploy.jetpack import (
    JETPACKS,
    OPERATORS,
    missing_operators,
    spell_release,
    unparsed_operators,
    unparsed_opset,
)
from vision.deploy.media import Source
from vision.deploy.session import OnnxSession
from vision.deploy.torch_session import load_net
from vision.deploy.verification import PARITY_IMAGES, image_like, operators_of, verify
from vision.engine import checkpoint
from vision.ssd.choices import UPSTREAM_NET
from vision.ssd.models import spec_of
from vision.ssd.ssd import SSD
from vision.structures import Annotation, DataError
from vision.utils.files import write_text
from vision.utils.prefetch import read_ahead

logger = logging.getLogger(__name__)

#: The tutorials' name for the exported mb1-ssd, and for the net that a run took without being told.
_TUTORIALS_NAME = "ssd-mobilenet"

#: What tells folders from files in --output.
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))

#: How much less AP50 or AP a file may have than the checkpoint it was written from.
AP_TOLERANCE = 0.01

#: Scales per channel, which --int8 writes, came with this opset.
QUANTISED_OPSET = 13


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if (args.width is None) != (args.height is None):
        parser.error("--width and --height belong together; give both, or --resolution")
    if args.width is not None:
        if args.resolution is not None:
            parser.error("--resolution and --width with --height say the same; leave one out")
        args.resolution = (args.width, args.height)
    check_combinations(parser, args)
    return args


def check_combinations(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error if options contradict each other."""
    if args.batch_size != 1:
        if args.input_norm == "detectnet":
            parser.error(
                "--batch-size: detectnet reads the first image of a batch only; leave it out, or say by --input-norm "
                f"({', '.join(name for name in INPUT_NORMS if name != 'detectnet')}) what another runtime feeds"
            )
        for name in ("int8", "nms", "deepstream"):
            if getattr(args, name):
                parser.error(f"--{name}: is made for one image a run; leave --batch-size out")
    if args.jetpack is not None:
        jetpack = JETPACKS[args.jetpack]
        release = f"TensorRT {spell_release(jetpack.tensorrt)} of JetPack {args.jetpack}"
        if args.opset > jetpack.opset:
            parser.error(f"--opset={args.opset}: {release} parses up to {jetpack.opset}; leave it out")
        if args.nms and unparsed_operators(["NonMaxSuppression"], jetpack.tensorrt):
            needed = spell_release(OPERATORS["NonMaxSuppression"])
            parser.error(f"--nms: {release} has no NonMaxSuppression, which came with {needed}; leave one of them out")
    if args.int8 and args.opset < QUANTISED_OPSET:
        parser.error(f"--int8: needs opset {QUANTISED_OPSET}, --opset is {args.opset}; leave that out")
    if args.int8 and args.data is None and args.calib_data is None:
        parser.error("--int8: needs images to find the range of values with; give --data, or --calib-data")
    if not args.int8:
        for name in ("calib_data", "calib_images", "int8_exclude", "int8_max_drop"):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"--{name.replace('_', '-')}: belongs to --int8; add that, or leave it out")


def main(argv: Sequence[str] | None = None) -> None:
    """Export."""
    args = parse_args(argv)
    cli.setup_logging()
    source, folder = locate(args)
    net = load_net(source, net=args.net, width_mult=args.mb2_width_mult, resolution=args.resolution)
    net.class_names = cli.class_names_of(net.class_names, net.num_classes, args.labels, [folder, source.parent])
    output = output_path(args, net, folder)
    cli.check_writable(output.parent, "--output")
    width, height = net.config.width_height
    name = net.architecture.net
    logger.info("exporting %s (%s, %dx%d, %d classes)", source, name, width, height, net.num_classes)
    warn_of_jetpacks(args)
    for trap in jetson_commands.label_traps(net.class_names):
        logger.warning("%s; rename it before it goes on a device", trap)

    options = ExportOptions(
        args.opset,
        args.batch_size,
        args.input_norm,
        facts={"checkpoint": source.name, "checkpoint_sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
    )
    check = open_accuracy_check(args, net) if args.data else None
    calibration = CalibrationImages(args) if args.int8 else None
    with candidate(output) as file:
        write_and_verify(net, file, options, args, check)
        if check is not None:
            check.measure_plain(file, output.name)
            check.hold(output.name, AP_TOLERANCE)
            if args.input_norm == "detectnet":
                old = args.jetpack is not None and JETPACKS[args.jetpack].joins_across_classes
                alike = check.measure_on_device(file, output.name, across_classes=old)
                logger.info("by detectnet's arithmetic it has %d of the %d detections of the checkpoint", *alike)
    saved(output)
    label_file = write_label_file(output, net.class_names)
    variants: dict[str, Callable[[Path], None]] = {}
    if args.fp16:
        variants["fp16"] = lambda file: make_half(file, net, replace(options, half=True), args, check)
    if calibration is not None and args.int8 == "cpu":
        variants["int8-cpu"] = lambda file: make_int8_for_cpu(file, output, args, calibration, check)
    elif calibration is not None:
        variants["int8"] = lambda file: make_int8(file, output, args, calibration, check)
    if args.nms:
        variants["nms"] = lambda file: make_with_nms(file, output, net)
    if args.deepstream:
        variants["deepstream"] = lambda file: make_for_deepstream(file, output)
    for suffix, make in variants.items():
        path = output.with_name(f"{output.stem}.{suffix}.onnx")
        with candidate(path) as file:
            make(file)
        saved(path)
    if args.deepstream:
        threshold = cli.choose_threshold(args.threshold, net.threshold)
        model = output.with_name(f"{output.stem}.deepstream.onnx")
        saved(write_deepstream_config(model, label_file, net, options, threshold))
        logger.info("for DeepStream, %s", threshold)
    if check is not None:
        print("\nOn the test images:")
        print("\n".join(check.table()))
    print_commands(args, output, label_file, *device_options(args, net, check))


def device_options(args: argparse.Namespace, net: SSD, check: AccuracyCheck | None) -> tuple[list[str], str]:
    """Choose detectnet's options, and say where they are from."""
    if check is not None and args.threshold is None and (check.of_new_images or net.threshold is None):
        better = "with these options F1" if check.device_options else "with its defaults F1"
        return check.device_options, f"{better} is highest on the images of --data"
    threshold = cli.choose_threshold(args.threshold, net.threshold)
    others = (
        [] if check is None else [option for option in check.device_options if not option.startswith("--threshold")]
    )
    is_default = args.threshold is None and net.threshold is None
    return [*([] if is_default else [f"--threshold={threshold.value:g}"]), *others], str(threshold)


def locate(args: argparse.Namespace) -> tuple[Path, Path]:
    """Find the checkpoint to export, and the folder that the file goes to."""
    if args.input is None:
        folder = args.model_dir or Path("models")
        best = checkpoint.best_of_folder(
            folder, spec_of(args.net).name if args.net else None, cli.count_labels(args.labels, [folder])
        )
        logger.info("best checkpoint of %s: %s", folder, best.name)
        return best, folder
    source = Path(args.input)
    if args.model_dir is not None and not source.exists():
        source = args.model_dir / source
    if source.is_dir():
        net = spec_of(args.net).name if args.net else None
        return checkpoint.find(source, net, cli.count_labels(args.labels, [source])), args.model_dir or source
    return source, args.model_dir or source.parent


def output_path(args: argparse.Namespace, net: SSD, folder: Path) -> Path:
    """Decide on the file to write.

    Raises:
        DataError: --output names a file of another kind.
    """
    name = net.architecture.net
    if name == UPSTREAM_NET or net.net_by_default:
        name = _TUTORIALS_NAME
    usual = f"{args.net or name}.onnx"
    if args.output is None:
        return folder / usual
    output = Path(args.output)
    if args.output.endswith(_SEPARATORS) or output.is_dir():
        return output / usual
    if output.suffix not in ("", ".onnx"):
        raise DataError(f"--output={args.output}: expected a folder, or the name of an .onnx file")
    output = output.with_suffix(".onnx")
    return output if any(separator in args.output for separator in _SEPARATORS) else folder / output


def warn_of_jetpacks(args: argparse.Namespace) -> None:
    """Name the JetPacks that will not parse the file."""
    unparsed = unparsed_opset(args.opset)
    if unparsed and args.jetpack is None:
        logger.warning("--opset=%d: JetPack %s will not parse it", args.opset, ", ".join(unparsed))


def write_and_verify(
    net: SSD, file: Path, options: ExportOptions, args: argparse.Namespace, check: AccuracyCheck | None
) -> None:
    """Write a file, and hold it to contract and PyTorch."""
    write(net, file, options)
    tensorrt = None if args.jetpack is None else JETPACKS[args.jetpack].tensorrt
    parity = verify(file, net, options, tensorrt, None if check is None else check.pixels(PARITY_IMAGES))
    logger.info(
        "checked with onnxruntime on %s: scores and boxes agree with PyTorch to %.2g (allowed %.2g)",
        "drawn images" if check is None else f"images of {args.data}",
        parity.difference,
        parity.tolerance,
    )
    if parity.in_opencv is not None:
        logger.info("checked with OpenCV %s's dnn: they agree to %.2g", cv2.__version__, parity.in_opencv)
    if args.jetpack is None:
        for name, missing in missing_operators(options.opset, operators_of(file)).items():
            if missing:
                release = spell_release(JETPACKS[name].tensorrt)
                logger.warning("JetPack %s from its start (TensorRT %s) has no %s", name, release, ", ".join(missing))


def open_accuracy_check(args: argparse.Namespace, net: SSD) -> AccuracyCheck:
    """Open the dataset to measure on.

    Raises:
        DataError: it has no objects of the model's classes.
    """
    dataset = open_dataset(args.dataset_type, args.data, "test", cli.reading_options(args), cli.progress)
    dataset.set_class_names(net.known_class_names)
    dataset.ignore_small(args.min_object, net.config.width_height)
    trained = cli.leave_out_trained_images([dataset], net.trained_on, args.include_trained)
    logger.info("%s: %s", dataset.title, dataset.summary())
    if all(dataset.annotation(index).difficult.all() for index in range(len(dataset))):
        raise DataError(
            f"{args.data}: no object is of a class that the model knows and not difficult: "
            f"{list(dataset.class_names[1:])}{cli.hint_at_left_out(trained)}"
        )

    def images() -> Iterator[tuple[np.ndarray, Annotation]]:
        return read_ahead(readable(dataset, range(len(dataset))))

    return AccuracyCheck(
        images, len(dataset), net, cli.progress, of_new_images=trained is None or not trained.trained_on
    )


def readable(dataset: DetectionDataset, indices: Iterable[int]) -> Iterator[tuple[np.ndarray, Annotation]]:
    """Read images with their annotations, and leave out, with a word, what cannot be read."""
    for index in indices:
        try:
            yield dataset.get_image(index), dataset.annotation(index)
        except DataError as err:
            logger.warning("%s; it is left out", err)


def make_half(
    file: Path, net: SSD, options: ExportOptions, args: argparse.Namespace, check: AccuracyCheck | None
) -> None:
    """Write the file in 16 bits."""
    write_and_verify(net, file, options, args, check)
    if check is not None:
        check.cost_of("fp16", file)
        check.hold("fp16", AP_TOLERANCE)


def excluded_layers(args: argparse.Namespace, layers: Sequence[str]) -> list[str]:
    """Read --int8-exclude."""
    try:
        return quantization.matching(layers, args.int8_exclude)
    except ValueError as err:
        raise DataError(f"--int8-exclude: {err}") from err


def make_int8_for_cpu(
    file: Path, plain: Path, args: argparse.Namespace, images: CalibrationImages, check: AccuracyCheck | None
) -> None:
    """Write the file in 8 bits for onnxruntime on a CPU."""
    excluded = excluded_layers(args, quantization.layers_of(plain))
    logger.info("finding the range of values on %d images", images.count)
    inputs = cli.progress(images.take(images.count, session=OnnxSession(plain)), "Calibrating", images.count)
    quantization.quantize(plain, file, inputs, for_cpu=True, excluded=excluded)
    OnnxSession(file)  # raises unless inputs, outputs and metadata are there as in the plain file
    if check is None:
        logger.warning("--int8=cpu without --data: what it costs is not known")
        return
    check.cost_of("int8-cpu", file)
    check.hold("int8-cpu", args.int8_max_drop)


def make_int8(
    file: Path, plain: Path, args: argparse.Namespace, images: CalibrationImages, check: AccuracyCheck | None
) -> None:
    """Write the file in 8 bits, and leave as many layers in float as it takes."""
    layers = quantization.layers_of(plain)
    excluded = excluded_layers(args, layers)
    logger.info("finding the range of values on %d images", images.count)
    take = partial(images.take, session=OnnxSession(plain))
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.onnx"
        quantization.quantize(plain, whole, cli.progress(take(images.count), "Calibrating", images.count))
        quantization.in_float(whole, file, excluded)
        if check is None:
            logger.warning("--int8 without --data: what it costs is not known")
        else:
            some = list(take(quantization.RANKING_IMAGES))
            cost = partial(check.cost_of, "int8")
            excluded = quantization.search(file, whole, plain, excluded, some, cost, args.int8_max_drop, cli.progress)
            check.hold("int8", args.int8_max_drop)
    count = quantization.check_quantized(file, excluded)
    logger.info("%d of %d convolutions in 8 bits", count, len(layers))


class CalibrationImages:
    """Images to find the range of values with, as the runtime of a file feeds them; see --calib-data.

    Attributes:
        count: how many are asked for, or there are.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._as_detectnet = args.input_norm == "detectnet"
        place = args.calib_data or args.data
        self._images: Callable[[Sequence[int]], Iterator[np.ndarray]]
        if args.calib_data is None or (Path(place).is_dir() and is_dataset(place)):
            kind = args.dataset_type if args.calib_data is None else AUTO
            dataset = open_dataset(kind, place, "train", cli.reading_options(args), cli.progress)
            self._total = len(dataset)
            self._images = lambda chosen: (image for image, _ in readable(dataset, chosen))
        else:
            source = Source(place, read_upright)
            if source.is_video:
                raise DataError(f"--calib-data={place}: is a video; expected a folder of images, or that of a dataset")
            self._total = len(source.paths)
            self._images = lambda chosen: (
                frame.image for frame in source.images([source.paths[number] for number in chosen])
            )
        self.count = min(self._total, args.calib_images)

    def take(self, count: int, session: OnnxSession) -> Iterator[np.ndarray]:
        """Read some of them, evenly chosen, for a file: (1, 3, H, W) float32 each; what cannot be read is left out."""
        for image in self._images(spread(self._total, count)):
            if self._as_detectnet:
                yield detectnet.preprocess(image, session.size)
            else:
                yield session.transform(image)[None]


def spread(total: int, count: int) -> list[int]:
    """Choose numbers below a total, evenly."""
    return sorted({round(number) for number in np.linspace(0, total - 1, min(count, total))})


def make_with_nms(file: Path, plain: Path, net: SSD) -> None:
    """Write the file with suppression in the graph."""
    graph_variants.write_with_nms(plain, file, net.config.iou_threshold)
    compared = graph_variants.check_with_nms(plain, file, drawn_inputs(plain), net.config.iou_threshold)
    logger.info(
        "checked with onnxruntime: suppression in the graph keeps what torchvision's keeps (%d boxes)", compared
    )


def make_for_deepstream(file: Path, plain: Path) -> None:
    """Write the file with DeepStream's outputs."""
    graph_variants.write_for_deepstream(plain, file)
    graph_variants.check_for_deepstream(plain, file, drawn_inputs(plain))
    logger.info("checked with onnxruntime: the outputs for DeepStream say what the plain ones say")


def drawn_inputs(plain: Path) -> torch.Tensor:
    """Draw images and normalize them as a file expects."""
    session = OnnxSession(plain)
    pixels = image_like(PARITY_IMAGES, session.size)
    return torch.from_numpy(np.stack([session.transform(image.permute(1, 2, 0).numpy()) for image in pixels]))


def write_deepstream_config(
    model: Path, label_file: Path, net: SSD, options: ExportOptions, threshold: cli.ChosenThreshold
) -> Path:
    """Write what Gst-nvinfer needs to know of the file."""
    norm = options.input_norm_of(net)
    if isinstance(norm.std, tuple):
        raise DataError(
            f"--deepstream: Gst-nvinfer divides all channels by one number, --input-norm={options.input_norm} of this "
            f"model by {norm.std}; use another --input-norm"
        )
    path = model.with_suffix(".txt")
    text = graph_variants.deepstream_config(
        model.name,
        label_file.name,
        net.num_classes,
        net.config.width_height,
        norm.mean,
        norm.std,
        net.config.iou_threshold,
        *threshold,
    )
    write_text(path, text)
    return path


def saved(path: Path) -> None:
    """Say that a file is there, and remove the engines of its predecessor."""
    for engine in jetson_commands.remove_engines(path):
        logger.info("removed %s: it was built from an older export, and detectnet might have gone on using it", engine)
    logger.info("Saved model %s" if path.suffix == ".onnx" else "Saved %s", path)


def write_label_file(model: Path, class_names: Sequence[str]) -> Path:
    """See to it that a file with just these names lies beside the model; one with other names is left alone."""
    usual, own = model.parent / "labels.txt", model.parent / f"{model.stem}.labels.txt"
    for path in (usual, own):
        if path.is_file() and path.read_bytes() == "".join(f"{name}\n" for name in class_names).encode():
            return path
    path = own if usual.exists() else usual
    labels.store_labels(path, class_names)
    if path == own:
        logger.warning("%s does not hold this model's classes as detectnet needs them: wrote %s", usual, own)
    else:
        logger.info("wrote %s, whose order detectnet depends on", path)
    return path


def print_commands(args: argparse.Namespace, output: Path, label_file: Path, options: Sequence[str], why: str) -> None:
    """Print what to type on the device, with options for detectnet and where they are from."""
    if args.input_norm == "detectnet":
        print("\nOn a Jetson, with both files copied there (detectnet.py takes the same):\n")
        print(f"    {jetson_commands.detectnet_command(output, label_file, options)}\n\n({why})\n")
        if args.jetpack in (None, "6", "7"):
            print(
                "From JetPack 6.1 on jetson-inference needs a patch for any ONNX file: docs/deploying.md says which\n"
            )
    else:
        logger.warning("--input-norm=%s: detectnet normalizes otherwise, this file is not for it", args.input_norm)
    if args.batch_size != 1:
        return
    unparsed = unparsed_opset(args.opset)
    names = [args.jetpack] if args.jetpack else [name for name in JETPACKS if name not in unparsed]
    lines = jetson_commands.trtexec_lines(output, names)
    if args.int8 == "tensorrt":
        lines += jetson_commands.trtexec_lines(output.with_name(f"{output.stem}.int8.onnx"), names, "int8")
    if "7" in names:
        variants = [name for name, asked in (("fp16", args.fp16), ("int8", args.int8 == "tensorrt")) if asked]
        lines += [jetson_commands.tensorrt_11_line(output.with_name(f"{output.stem}.{name}.onnx")) for name in variants]
    print("An engine for other programs of yours:\n")
    for line in lines:
        print(f"    {line}")
    print()


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
