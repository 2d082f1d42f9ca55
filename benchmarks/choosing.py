#!/usr/bin/env python3
r"""Is `detect.py --choose` better than chance? AP by the number of labeled images, chosen against drawn at random.

    python3 benchmarks/choosing.py --runs=runs --data cells=data/bccd --first=20 --each=20 --rounds=3 --seeds 1 2 3 \
        --common='--net=mb2-ssd-fpnlite --epochs=20' --plot=runs/choosing.png

Each seed draws its first images from the dataset's list for training, less the test images, and a detector is trained
on them. Then each round labels more: at random, or those that `detect.py --choose` takes with the detector of the
round before; "labels" are the dataset's own. Trained and measured as by benchmarks/accuracy.py, resumable like it.
Runs at random are those of benchmarks/few_images.py with a setting of the name "random".
"""

from __future__ import annotations

import argparse
import csv
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import accuracy, few_images  # noqa: E402
from benchmarks.accuracy import VIEWS, Run  # noqa: E402
from vision import cli  # noqa: E402
from vision.datasets import open_folder  # noqa: E402
from vision.structures import DataError  # noqa: E402

logger = logging.getLogger(__name__)

RANDOM, CHOSEN = "random", "chosen"


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    accuracy.add_run_options(parser)
    parser.add_argument("--first", type=cli.count, default=20, help="images to begin with (default: %(default)s)")
    parser.add_argument("--each", type=cli.count, default=20, help="images that a round adds (default: %(default)s)")
    parser.add_argument("--rounds", type=cli.count, default=3, help="rounds after the first (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw AP50 and AP over the number of images")
    args = parser.parse_args(argv)
    accuracy.check_names(parser, args)
    if args.setting:
        parser.error("--setting: the methods are the settings; name options of the runs with --common")
    if not args.data:
        parser.error("nothing to train: name --data")
    return args


def view_of(args: argparse.Namespace, dataset: str, images: int, seed: int, method: str) -> Path:
    """Say where the dataset with only some images labeled is shown; those drawn are where few_images.py has them."""
    ending = "" if method == RANDOM else f"-{method}"
    return args.runs / VIEWS / f"{dataset}-{images}-{seed}{ending}"


def run_of(args: argparse.Namespace, dataset: str, data: str, images: int, seed: int, method: str) -> Run:
    """Describe a training."""
    setting = argparse.Namespace(**{**vars(args), "setting": [(method, [])]})
    view = view_of(args, dataset, images, seed, method)
    (run,) = accuracy.plan_settings(setting, f"{dataset}-{images}", data, seed, view, exclude_test_images=True)
    return run


def labeled_in(view: Path) -> list[str]:
    """Read which images of a view are labeled."""
    return (view / "ImageSets" / "Main" / "trainval.txt").read_text(encoding="utf-8").split("\n")[:-1]


def choose_more(args: argparse.Namespace, dataset: str, data: str, images: int, seed: int, before: Run) -> Path:
    """Let the detector of the round before choose what is labeled next, as a user would; gives the view.

    Args:
        args: of this program.
        dataset: its name.
        data: its folder.
        images: number of labeled images after it.
        seed: of the draw.
        before: training of the round before.
    """
    view = view_of(args, dataset, images, seed, CHOSEN)
    if (view / "ImageSets" / "Main" / "trainval.txt").is_file():
        return view
    folder = open_folder("voc", data)
    train, test = folder.splits()
    test_images = {raw.image_path for raw in test.images}
    ids = {raw.image_path.name: raw.image_id for raw in train.images if raw.image_path not in test_images}
    pool = view.with_name(f"{view.name}-pool")
    pool.mkdir(parents=True, exist_ok=True)
    for raw in train.images:
        if raw.image_path not in test_images and not (link := pool / raw.image_path.name).is_symlink():
            link.symlink_to(raw.image_path.resolve())
    out = view.with_name(f"{view.name}-choice")
    argv = [f"--model={before.folder}", f"--input={pool}", f"--output={out}", f"--choose={args.each}", "--no-save-json"]
    done = subprocess.run([sys.executable, str(ROOT / "detect.py"), *argv], capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"detect.py {' '.join(argv)}: {done.stderr.splitlines()[-1]}")
    with open(out / "chosen.csv", encoding="utf-8", newline="") as file:
        chosen = [ids[Path(row["image"]).name] for row in csv.DictReader(file)]
    before_ids = labeled_in(before.data)
    logger.info("%s: %d images chosen, %d labeled before", view, len(chosen), len(before_ids))
    accuracy.write_view(folder, view, [*before_ids, *chosen], [raw.image_id for raw in test.images])
    return view


def perform(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what is left; gives the figures of all runs. The first round is that of both methods."""
    results = []
    for dataset, data in args.data:
        for seed in args.seeds:
            for images in range(args.first, args.first + args.rounds * args.each + 1, args.each):
                accuracy.without_test_images(data, view_of(args, dataset, images, seed, RANDOM), images, seed)
                run = run_of(args, dataset, data, images, seed, RANDOM)
                results += accuracy.perform([run])
                if images == args.first:
                    before = run
                    results.append({**results[-1], "setting": CHOSEN})
                    continue
                choose_more(args, dataset, data, images, seed, before)
                before = run_of(args, dataset, data, images, seed, CHOSEN)
                results += accuracy.perform([before])
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is left, then show what there is."""
    args = parse_args(argv)
    few_images.show(args, lambda: perform(args))


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
