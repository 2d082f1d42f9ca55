#!/usr/bin/env python3
"""Export a trained detector as an ONNX file for detectnet, checked against PyTorch.

python3 onnx_export.py --model-dir=models/fruit
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from vision import cli
from vision.datasets import labels
from vision.deploy.export import INPUT_NORMS, export
from vision.deploy.session import load_net
from vision.engine import checkpoint
from vision.ssd.models import spec_of

logger = logging.getLogger(__name__)

#: The tutorials' name for the exported mb1-ssd.
_FILE_NAMES = {"mb1-ssd": "ssd-mobilenet"}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Export a trained detector as an ONNX file for detectnet.")
    cli.add_net_options(parser, None)
    parser.add_argument("--input", help="checkpoint (default: the best of --model-dir), or a model folder")
    parser.add_argument("--output", help="file to write (default: <net>.onnx), in --model-dir unless it names a folder")
    parser.add_argument("--labels", type=Path, help="class names, for a checkpoint that does not know its own")
    side = cli.count
    parser.add_argument("--width", type=side, help="input width in pixels (default: as trained)")
    parser.add_argument("--height", type=side, help="input height in pixels (default: as trained)")
    cli.add_resolution_option(parser, None, " (default: as trained)")
    parser.add_argument("--batch-size", type=cli.count, default=1, help="images per run; detectnet wants 1")
    parser.add_argument(
        "--input-norm",
        type=cli.one_of("input normalisation", tuple(INPUT_NORMS)),
        default="detectnet",
        help="how what runs the file normalises images: detectnet to -1 ... 1; train as in training; raw255 not at all",
    )
    parser.add_argument(
        "--model-dir", type=Path, help="folder of the checkpoint (default: that of --input, else models)"
    )
    args = parser.parse_args(argv)
    if (args.width is None) != (args.height is None):
        parser.error("--width and --height belong together; give both, or --resolution")
    if args.width is not None:
        if args.resolution is not None:
            parser.error("--resolution and --width with --height say the same; leave one out")
        args.resolution = (args.width, args.height)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Export."""
    args = parse_args(argv)
    cli.setup_logging()
    source, folder = locate(args)
    net = load_net(source, net=args.net, width_mult=args.mb2_width_mult, resolution=args.resolution)
    net.class_names = cli.class_names_of(net.class_names, net.num_classes, args.labels, [folder, source.parent])
    name = net.architecture["net"]
    output = Path(args.output or f"{args.net or _FILE_NAMES.get(name, name)}.onnx")
    if output.parent == Path("."):
        output = folder / output
    cli.check_writable(output.parent, "--output")

    width, height = net.config.width_height
    logger.info("exporting %s (%s, %dx%d, %d classes)", source, name, width, height, net.num_classes)
    if args.batch_size != 1:
        logger.warning("batch size %d: detectnet reads the first image of a batch only", args.batch_size)
    parity = export(net, output, args.batch_size, args.input_norm)
    logger.info(
        "checked with onnxruntime: scores and boxes agree with PyTorch to %.2g (allowed %.2g)",
        parity.difference,
        parity.tolerance,
    )
    label_file = write_label_file(output, net.class_names)
    for engine in sorted(output.parent.glob(f"{output.name}.*.engine")):
        logger.warning("%s was built from an older export: delete it, or detectnet may go on using it", engine)
    logger.info("Saved model %s", output)
    if args.input_norm == "detectnet":
        print(f"On a Jetson, with both files copied there:\n\n    {detectnet_command(output, label_file)}\n")
    else:
        logger.warning("--input-norm=%s: detectnet normalises otherwise, this file is not for it", args.input_norm)


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


def detectnet_command(model: Path, label_file: Path) -> str:
    """Spell the command that runs the file."""
    words = ["detectnet", f"--model={model.resolve()}", f"--labels={label_file.resolve()}"]
    words += ["--input-blob=input_0", "--output-cvg=scores", "--output-bbox=boxes"]
    return " ".join([*map(shlex.quote, words), "INPUT", "OUTPUT"])


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
