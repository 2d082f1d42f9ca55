#!/usr/bin/env python3
"""Draw the curves of one or several runs side by side.

python3 plot_logs.py models/fruit models/fruit-fpnlite --keys loss mAP AP --output=curves.png
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import argparse
import csv
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from vision import console
from vision.report.training_plots import KEYS, Panel, Rows, columns_of, draw_runs
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: Keys that are drawn if none are typed.
_USUAL_KEYS = ("loss", "mAP", "AP")

#: What a log says of a step or of an epoch: the kind of line, and its numbers.
_EPOCH = re.compile(r"Epoch: (\d+), ")
_STEP_LOSS = re.compile(r"Average Loss: ([^,\s]+)|Avg Loss: ([^,\s]+)")
_LOSSES = re.compile(
    r"(Training|Validation) Loss: ([^,\s]+), \1 Regression Loss:? ([^,\s]+), \1 Classification Loss: ([^,\s]+)"
)
_MEAN_AP = re.compile(r"Mean Average Precision: ([^-\s]\S*)|mAP: (\S+)")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = console.Parser(description="Draw the curves of one or several runs side by side.")
    parser.add_argument(
        "runs",
        nargs="+",
        type=console.user_path,
        help="model folders, results.csv files, or text logs, upstream's included",
    )
    parser.add_argument(
        "--keys",
        nargs="+",
        help=f"what to draw, a plot each: {', '.join(KEYS)}, or a column of results.csv (default: "
        f"{', '.join(_USUAL_KEYS)}, as far as any run has them)",
    )
    parser.add_argument("--output", type=console.user_path, default=Path("curves.png"), help="the .png file to write")
    args = parser.parse_args(argv)
    if args.output.suffix != ".png":
        parser.error(f"--output: {args.output} has not the suffix .png")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs and draw them."""
    args = parse_args(argv)
    console.setup_logging()
    console.check_writable(args.output.parent, "--output")
    names = names_of(args.runs)
    runs = {name: read_run(path) for name, path in zip(names, args.runs, strict=True)}
    keys = args.keys or [key for key in _USUAL_KEYS if columns_of(KEYS[key], runs)] or _USUAL_KEYS
    draw_runs(args.output, runs, [panel_of(key, runs) for key in keys])
    logger.info("Saved %s", args.output)


def names_of(paths: Sequence[Path]) -> list[str]:
    """Name runs by the last part of their paths, and by all of them where two would be called the same."""
    short = [(path.parent if path.name == "results.csv" else path).name or str(path) for path in paths]
    names = short if len(set(short)) == len(short) else list(map(str, paths))
    if len(set(names)) < len(names):
        raise DataError(f"{max(names, key=names.count)}: named twice; name each run once")
    return names


def panel_of(key: str, runs: dict[str, Rows]) -> Panel:
    """The plot that a key of --keys asks for.

    Raises:
        DataError: no run has it.
    """
    panel = KEYS.get(key, Panel(key, (key,)))
    if columns_of(panel, runs):
        return panel
    known = dict.fromkeys(column for rows in runs.values() for row in rows for column in row)
    raise DataError(f"--keys: no run has {key!r}; there are {', '.join(KEYS)}, and the columns {', '.join(known)}")


def read_run(path: Path) -> Rows:
    """Read the rows of a run.

    Args:
        path: of a model folder, a `results.csv`, or a text log.

    Raises:
        DataError: there is no such file, or it holds no epoch.
    """
    if path.is_dir():
        path = path / "results.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a model folder, its results.csv, or the text log of a run")
    text = path.read_text(encoding="utf-8", errors="replace")
    read = list(csv.DictReader(text.splitlines())) if path.suffix == ".csv" else read_log(text)
    rows: Rows = [row for row in read if str(row.get("epoch", "")).isdecimal()]
    if not rows:
        raise DataError(
            f"{path}: holds no epoch; expected a results.csv, or a log with lines such as 'Epoch: 0, Step: 10/100'"
        )
    return rows


def read_log(text: str) -> list[dict[str, float]]:
    """Read the epochs of a text log: losses and mAP, as upstream and this program write them.

    A log without a line for an epoch's training loss has the mean of its steps.
    """
    rows: dict[int, dict[str, float]] = {}
    steps: dict[int, list[float]] = {}
    for line in text.splitlines():
        epoch = _EPOCH.search(line)
        if epoch is None:
            continue
        row = rows.setdefault(int(epoch[1]), {"epoch": int(epoch[1])})
        if losses := _LOSSES.search(line):
            kind = "train" if losses[1] == "Training" else "val"
            names = ("Loss", "Regression Loss", "Classification Loss")
            row |= {f"{name}/{kind}": float(value) for name, value in zip(names, losses.groups()[1:], strict=True)}
        elif step := _STEP_LOSS.search(line):
            steps.setdefault(int(epoch[1]), []).append(float(step[1] or step[2]))
        elif mean_ap := _MEAN_AP.search(line):
            row["Mean Average Precision/val"] = float(mean_ap[1] or mean_ap[2])
    for number, of_steps in steps.items():
        rows[number].setdefault("Loss/train", sum(of_steps) / len(of_steps))
    return [rows[number] for number in sorted(rows)]


if __name__ == "__main__":
    console.run(main, sys.argv[1:])
