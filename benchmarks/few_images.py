#!/usr/bin/env python3
r"""How good a detector becomes by the number of its training images: settings of train_ssd.py on random draws.

    python3 benchmarks/few_images.py --runs=runs --data cells=data/bccd --images 15 30 60 120 --seeds 1 2 3 \
        --common='--epochs=20' --setting start='--pretrained-ssd=voc' --setting scratch='--pretrained-ssd=none' \
        --plot=runs/few_images.png

Each seed draws its own images from the dataset's list for training, less the test images; larger draws of a seed hold
its smaller ones. Trained and measured as by benchmarks/accuracy.py, resumable like it; draws are called NAME-IMAGES.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import accuracy  # noqa: E402
from benchmarks.accuracy import VIEWS, Run  # noqa: E402
from vision import cli  # noqa: E402
from vision.report.plots import figure_file  # noqa: E402


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    accuracy.add_run_options(parser)
    parser.add_argument("--images", nargs="+", required=True, type=cli.count, help="sizes of the draws")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw AP50 and AP over the number of images")
    args = parser.parse_args(argv)
    accuracy.check_names(parser, args)
    if not (args.data and args.setting):
        parser.error("nothing to train: name --data and --setting")
    return args


def plan(args: argparse.Namespace) -> list[Run]:
    """List the runs that are asked for, small draws first.

    Raises:
        DataError: a dataset cannot be read or has fewer images, a setting has wrong options, or a folder holds
            another run.
    """
    runs = []
    for dataset, data in args.data:
        for images in sorted(args.images):
            name = f"{dataset}-{images}"
            for seed in args.seeds:
                view = accuracy.without_test_images(data, args.runs / VIEWS / f"{name}-{seed}", images, seed)
                runs += accuracy.plan_settings(args, name, data, seed, view, exclude_test_images=True)
    return runs


def draw_plot(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """Draw AP50 and AP over the number of images, a row a dataset: the draws' mean in a band from least to most.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.ticker import NullLocator, ScalarFormatter

    grouped: dict[str, dict[str, dict[int, list[dict[str, Any]]]]] = {}
    for figures in results:
        dataset, _, images = figures["dataset"].rpartition("-")
        grouped.setdefault(dataset, {}).setdefault(figures["setting"], {}).setdefault(int(images), []).append(figures)
    with figure_file(path, 12, 4.5 * len(grouped)) as figure:
        for row, (dataset, settings) in zip(
            figure.subplots(len(grouped), 2, squeeze=False), grouped.items(), strict=True
        ):
            for axes, key in zip(row, ("AP50", "AP"), strict=True):
                for setting, by_images in settings.items():
                    values = {count: [figures[key] for figures in draws] for count, draws in by_images.items()}
                    accuracy.draw_band(axes, setting, values, marker="o")
                axes.set_xscale("log")
                axes.set_xticks(sorted({count for by_images in settings.values() for count in by_images}))
                axes.xaxis.set_major_formatter(ScalarFormatter())
                axes.xaxis.set_minor_locator(NullLocator())
                axes.set_title(dataset)
                axes.set_xlabel("training images")
                axes.set_ylabel(f"COCO's {key}, test images")
                axes.set_ylim(0, 1)
                axes.grid(alpha=0.3)
                axes.legend()


def show(args: argparse.Namespace, perform: Callable[[], list[dict[str, Any]]]) -> None:
    """Do all runs, print their table, and draw --plot; what cannot be written is refused before."""
    cli.setup_logging()
    cli.check_writable(args.runs, "--runs")
    if args.plot is not None:
        cli.check_writable(args.plot.parent, "--plot")
    results = perform()
    print(accuracy.table(results))
    if args.plot is not None:
        draw_plot(args.plot, results)


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is left, then show what there is."""
    args = parse_args(argv)
    show(args, lambda: accuracy.perform(plan(args)))


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
