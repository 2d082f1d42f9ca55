#!/usr/bin/env python3
r"""Make a start that has seen objects: train a detector in stages from small to large images, and put it in 16 bits.

    python3 benchmarks/pretrain.py --net=mb2-ssd-fpnlite --data=data/voc07 --runs=runs/fpnlite \
        --out=models/mb2-ssd-fpnlite-voc.pth --base-net=models/mobilenet_v2_coco_base_net.pth --stages 224x6 300x8

Each stage is a run of train_ssd.py in RUNS/<number>-<resolution>, which starts from the one before. The same command
again goes on where it was stopped, and gives the same file. Beside the start lies a text that says what it is.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import shlex
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import accuracy  # noqa: E402
from benchmarks.accuracy import LOG  # noqa: E402
from vision import __version__, cli  # noqa: E402
from vision.engine import checkpoint  # noqa: E402
from vision.ssd.choices import DEFAULT_NET, NET_NAMES  # noqa: E402
from vision.ssd.ssd import HEADS  # noqa: E402
from vision.ssd.weights import METADATA_KEY, read_weights, write_weights  # noqa: E402
from vision.utils.files import write_text  # noqa: E402

logger = logging.getLogger(__name__)


#: What the starts in models/ were trained for.
STAGES = ("160x8", "224x8")


class Stage(NamedTuple):
    """One run: its images' side in pixels, and its epochs."""

    resolution: int
    epochs: int


@cli.checked
def stage(text: str) -> Stage:
    """Read RESOLUTIONxEPOCHS."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise ValueError(f"{text!r} is no stage, expected RESOLUTIONxEPOCHS such as 224x8")
    return Stage(*map(int, match.groups()))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", type=cli.one_of("net", NET_NAMES), default=DEFAULT_NET, help=", ".join(NET_NAMES))
    parser.add_argument("--data", required=True, type=Path, help="folder of a dataset, with a test split to measure on")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--base-net", help="what the first stage starts from, see train_ssd.py")
    start.add_argument("--pretrained-ssd", help="the same, of a whole detector")
    parser.add_argument(
        "--no-heads", dest="heads", action="store_false", help="leave the heads out: the start then knows no classes"
    )
    parser.add_argument("--runs", required=True, type=Path, help="folder of the stages' runs")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.pth", help="the start; a .txt is beside it")
    parser.add_argument(
        "--stages",
        nargs="+",
        type=stage,
        default=list(map(stage, STAGES)),
        metavar="RESOLUTIONxEPOCHS",
        help=f"(default: {' '.join(STAGES)})",
    )
    parser.add_argument(
        "--common",
        type=cli.checked(shlex.split),
        default=["--batch-size=8"],
        help="--common='OPTIONS' of all stages (default: --batch-size=8)",
    )
    parser.add_argument("--seed", type=cli.number(int, 0), default=1, help="of all stages (default: 1)")
    parser.add_argument("--note", action="append", default=[], help="a further line of the text; may be said again")
    args = parser.parse_args(argv)
    if args.out.suffix != ".pth":
        parser.error(f"--out: {args.out} has not the suffix .pth; name a file of weights")
    return args


def train(args: argparse.Namespace) -> Path:
    """Run the stages that are not done yet; returns the folder of the last.

    Raises:
        DataError: one was refused.
        RuntimeError: one failed.
    """
    start = f"--base-net={args.base_net}" if args.base_net else f"--pretrained-ssd={args.pretrained_ssd}"
    for number, (resolution, epochs) in enumerate(args.stages, start=1):
        folder = args.runs / f"{number}-{resolution}"
        logger.info("%s: training, see its %s", folder, LOG)
        accuracy.train(
            folder,
            [
                *("--dataset-type=auto", f"--data={args.data}", f"--net={args.net}", f"--resolution={resolution}"),
                *(f"--epochs={epochs}", f"--validation-epochs={epochs}", "--keep-checkpoints=1", *args.common),
                *(start, f"--model-dir={folder}", f"--seed={args.seed}", "--auto-resume"),
            ],
        )
        # Not best.pth: the test images shall choose nothing.
        start = f"--pretrained-ssd={folder / checkpoint.LAST}"
    return folder


def as_start(weights: OrderedDict[str, Tensor], heads: bool) -> OrderedDict[str, Tensor]:
    """Put weights in 16 bits, and leave the results out.

    Batch norm's values and biases stay in 32 bits: they are few, and a variance may lie below what 16 bits can say.

    Args:
        weights: of a checkpoint.
        heads: whether the prediction heads and the names of their classes stay.
    """
    start = OrderedDict(
        (key, value.half() if value.dim() > 1 else value)
        for key, value in weights.items()
        if heads or not key.startswith(HEADS)
    )
    start._metadata = weights._metadata
    for facts in start._metadata.values():
        if METADATA_KEY in facts:
            of_run = ("results", "run")
            facts[METADATA_KEY] = {key: value for key, value in facts[METADATA_KEY].items() if key not in of_run}
            if not heads:
                facts[METADATA_KEY]["class_names"] = None
    return start


def describe(args: argparse.Namespace, argv: Sequence[str], figures: dict) -> str:
    """Say what a start is, a fact a line."""
    content = args.out.read_bytes()
    facts = {
        "file": args.out.name,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "net": f"{args.net}, {'a whole detector' if args.heads else 'all but its heads'}, in 16 bits",
        "data": args.data.name,
        "command": shlex.join(["python3", "benchmarks/pretrain.py", *argv]),
        "stages": ", ".join(f"{epochs} epochs at {resolution} pixels" for resolution, epochs in args.stages),
        "seed": args.seed,
        "versions": f"{__version__}; torch {torch.__version__}, torchvision {torchvision.__version__}",
        "with its heads": f"AP50 {figures['AP50']:.4f}, AP {figures['AP']:.4f} (COCO's, on the data's "
        f"{figures['images']} test images, at {args.stages[-1].resolution} pixels)",
    }
    return "".join(f"{line}\n" for line in (*(f"{name}: {value}" for name, value in facts.items()), *args.note))


def main(argv: Sequence[str] | None = None) -> None:
    """Train, measure, cut, and write."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    cli.setup_logging()
    folder = train(args)
    weights = folder / checkpoint.LAST
    figures = accuracy.measure_on_test_images(weights, "auto", args.data)
    write_weights(as_start(read_weights(weights), args.heads), args.out)
    text = describe(args, argv, figures)
    write_text(args.out.with_suffix(".txt"), text)
    print(text, end="")


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
