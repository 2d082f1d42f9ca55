#!/usr/bin/env python3
"""How cost grows with images, classes, resolution and loader processes, drawn.

    python3 benchmarks/growth.py --plot=docs/growth.png
    python3 benchmarks/growth.py --plot=docs/growth.png --data=data/bccd

Without --data, loader processes are fed with drawings of 640x480. Takes five minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import bench_eval, bench_postprocess, bench_train, rounds, startup  # noqa: E402
from vision import cli  # noqa: E402
from vision.datasets import synthetic  # noqa: E402
from vision.evaluation import evaluate  # noqa: E402
from vision.report.plots import figure_file  # noqa: E402
from vision.utils.memory import keep_freed_memory  # noqa: E402

IMAGES_AT_START = (1000, 2500, 5000, 10000)
RESOLUTIONS = (160, 224, 300, 400, 512)
WORKERS = (0, 1, 2)
IMAGES_EVALUATED = (250, 500, 1000, 2000)
CLASSES = (3, 10, 20, 40, 80)
NETS = ("mb1-ssd", "mb1-ssd-fpnlite")

#: What stays where another grows.
RESOLUTION, FEW_IMAGES, SOME_CLASSES, DETECTIONS, PRIORS, BATCH = 300, 500, 20, 50, 3000, 4

#: By the name of a line: cost by what grows.
Lines = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Panel:
    """A part of the plot.

    Attributes:
        title: what is measured.
        unit: of the cost.
        grows: what does.
        measure: returns the lines, from the command line.
    """

    title: str
    unit: str
    grows: str
    measure: Callable[[argparse.Namespace], Lines]


def starts(args: argparse.Namespace) -> Lines:
    """Reading and audit of small images, first and second start."""
    lines: Lines = {"first start": {}, "second start": {}}
    for count in IMAGES_AT_START:
        with tempfile.TemporaryDirectory() as folder:
            root, cache = Path(folder) / "data", Path(folder) / "cache"
            startup.write_dataset(root, count, "voc")
            time.sleep(startup.SETTLING_SECONDS)
            for name in lines:
                figures = startup.start(root, cache, "voc")
                lines[name][count] = figures["reading"] + figures["audit"]
    return lines


def steps(args: argparse.Namespace) -> Lines:
    """A training step on a batch that is in memory."""
    lines: Lines = {name: {} for name in NETS}
    for resolution in RESOLUTIONS:
        batches = itertools.repeat(bench_train.draw_batch(BATCH, resolution, 5))
        functions = {name: bench_train.step_of(bench_train.make_train_step(name, resolution), batches) for name in NETS}
        for name, seconds in rounds.in_turns(functions, args.rounds).items():
            lines[name][resolution] = seconds
    return lines


def end_to_end(args: argparse.Namespace) -> Lines:
    """Training from files, by loader processes, beside a batch that is in memory."""
    options = vars(
        bench_train.parse_args([f"--net={NETS[0]}", f"--resolution={RESOLUTION}", f"--rounds={args.rounds}"])
    )
    lines: Lines = {"end to end": {}, "a batch in memory": {}}
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            synthetic.write_voc(Path(folder), {"train": synthetic.drawings(20, 0, size=(640, 480))})
        for workers in WORKERS:
            options |= {"data": args.data or folder, "workers": workers, "no_cache": True}
            speeds = bench_train.compare_with_resident(argparse.Namespace(**options), "off", BATCH)["images/s"]
            lines["end to end"][workers] = speeds["end to end"]
            lines["a batch in memory"][workers] = speeds["resident"]
    return lines


def evaluations(counts: Iterable[tuple[int, int, int]], args: argparse.Namespace) -> Lines:
    """An evaluation with all of its figures.

    Args:
        counts: of what grows, images and classes.
        args: of the command line.
    """
    line = {}
    for count, images, classes in counts:
        scene = bench_eval.draw_scene(images, DETECTIONS, classes)
        names = ("BACKGROUND", *map(str, range(classes)))
        line[count] = rounds.in_turns({"all": partial(evaluate, *scene, names)}, args.rounds)["all"]
    return {f"{DETECTIONS} detections an image": line}


def suppressions(args: argparse.Namespace) -> Lines:
    """Suppression of an image's boxes, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    lines: Lines = {name: {} for name in ("ours", "plain loop")}
    for classes in CLASSES:
        seconds = bench_postprocess.seconds_by_method(PRIORS, classes + 1, args.rounds)
        for name, line in lines.items():
            line[classes] = 1000 * seconds[name]
    torch.set_num_threads(threads)
    return lines


PANELS = (
    Panel("start: reading and audit", "seconds", "images", starts),
    Panel(f"training step, batch {BATCH}", "seconds", "pixels a side", steps),
    Panel(f"training, batch {BATCH}, {RESOLUTION} pixels", "images/s", "loader processes", end_to_end),
    Panel(
        f"evaluation, {SOME_CLASSES} classes",
        "seconds",
        "images",
        lambda args: evaluations([(count, count, SOME_CLASSES) for count in IMAGES_EVALUATED], args),
    ),
    Panel(
        f"evaluation, {FEW_IMAGES} images",
        "seconds",
        "classes",
        lambda args: evaluations([(count, FEW_IMAGES, count) for count in CLASSES], args),
    ),
    Panel(f"suppression, {PRIORS} priors", "milliseconds an image", "classes", suppressions),
)


def draw_plot(path: Path, found: Mapping[Panel, Lines]) -> None:
    """Draw the panels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with figure_file(path, 13, 7.5) as figure:
        for axes, (panel, lines) in zip(figure.subplots(2, 3).flat, found.items(), strict=True):
            for name, line in lines.items():
                axes.plot(list(line), list(line.values()), marker="o", label=name)
            axes.set(title=panel.title, xlabel=panel.grows, ylabel=panel.unit)
            axes.set_xticks(sorted({count for line in lines.values() for count in line}))
            axes.set_ylim(0, 1.1 * max(cost for line in lines.values() for cost in line.values()))
            axes.grid(alpha=0.3)
            axes.legend()


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and draw."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, required=True, metavar="FILE.png", help="draw it there")
    parser.add_argument("--data", help="dataset to train on, for loader processes")
    rounds.add_options(parser, 3)
    args = parser.parse_args(argv)
    keep_freed_memory()  # as training does
    cli.check_writable(args.plot.parent, "--plot")
    found: dict[Panel, Lines] = {}
    figures = []
    for panel in PANELS:
        found[panel] = panel.measure(args)
        print(f"{panel.title}, {panel.unit} by {panel.grows}")
        for name, line in found[panel].items():
            print(f"  {name}: " + ", ".join(f"{count}: {cost:.3g}" for count, cost in line.items()), flush=True)
        figures.append({"title": panel.title, "unit": panel.unit, "grows": panel.grows, "lines": found[panel]})
    draw_plot(args.plot, found)
    rounds.write_figures(args.json, figures)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
