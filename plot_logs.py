#!/usr/bin/env python3
"""Compare runs: curves, figures, and the settings that differ.

python3 plot_logs.py models/fruit models/fruit-fpnlite --output=runs.html
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
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

from vision import console
from vision.report.device_timings import DeviceTiming, read_timing, timings_table
from vision.report.run_comparison import (
    ComparedRun,
    comparability,
    figures_table,
    settings_table,
    summarize,
    verdict,
    write_comparison,
)
from vision.report.training_plots import KEYS, Panel, Rows, columns_of, draw_runs
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: Keys that are drawn if none are typed.
_USUAL_KEYS = ("loss", "mAP", "AP")

#: The table of a model folder.
RESULTS = "results.csv"

#: Turns that each net takes when it is timed, and those before, which warm up.
_TURNS, _WARM_UP_TURNS = 20, 3

#: What a log says of a step or of an epoch: the kind of line, and its numbers.
_EPOCH = re.compile(r"Epoch: (\d+), ")
_STEP_LOSS = re.compile(r"Average Loss: ([^,\s]+)|Avg Loss: ([^,\s]+)")
_LOSSES = re.compile(
    r"(Training|Validation) Loss: ([^,\s]+), \1 Regression Loss:? ([^,\s]+), \1 Classification Loss: ([^,\s]+)"
)
_MEAN_AP = re.compile(r"Mean Average Precision: ([^-\s]\S*)|mAP: (\S+)")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = console.Parser(
        description="Compare runs: curves as a .png, or an .html page with figures, settings that differ and curves. "
        "Of several runs a table is printed, too. Logs of trtexec and detect.py --benchmark become a table of timings."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        type=console.user_path,
        help="model folders, results.csv files, or text logs, upstream's included; or logs with timings alone",
    )
    parser.add_argument(
        "--keys",
        nargs="+",
        help=f"what to draw, a plot each: {', '.join(KEYS)}, or a column of results.csv (default: "
        f"{', '.join(_USUAL_KEYS)}, as far as any run has them)",
    )
    parser.add_argument(
        "--output",
        type=console.user_path,
        default=Path("curves.png"),
        help="the file to write: .png for curves, .html for a page with all that can be compared",
    )
    parser.add_argument(
        "--time",
        action="store_true",
        help="measure what an image takes: each best.pth in PyTorch on this CPU, the runs taking turns",
    )
    args = parser.parse_args(argv)
    if args.output.suffix not in (".png", ".html"):
        parser.error(f"--output: {args.output} has neither the suffix .png nor .html")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, compare them, and draw their curves."""
    args = parse_args(argv)
    console.setup_logging()
    if timings := read_timings(args.runs):
        print(timings_table(timings))
        return
    console.check_writable(args.output.parent, "--output")
    folders = {name: folder_of(path) for name, path in zip(names_of(args.runs), args.runs, strict=True)}
    rows = {name: read_run(path) for name, path in zip(folders, args.runs, strict=True)}
    keys = args.keys or [key for key in _USUAL_KEYS if columns_of(KEYS[key], rows)] or _USUAL_KEYS
    panels = [panel_of(key, rows) for key in keys]
    runs = [summarize(name, rows[name], folder) for name, folder in folders.items()]
    if args.time:
        times = milliseconds_of({name: folder for name, folder in folders.items() if folder is not None})
        runs = [replace(run, milliseconds=times.get(run.name)) for run in runs]
    if len(runs) > 1 or args.time:
        print("\n".join(comparison_lines(runs)))
    if args.output.suffix == ".png":
        draw_runs(args.output, rows, panels)
    else:
        write_page(args.output, runs, rows, panels)
    logger.info("Saved %s", args.output)


def read_timings(paths: Sequence[Path]) -> list[DeviceTiming]:
    """Read logs of trtexec and of detect.py --benchmark; none where the paths are runs.

    Raises:
        DataError: some are, some are not.
    """
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()}
    timings = {path: read_timing(path.name, text) for path, text in texts.items()}
    found = [timing for timing in timings.values() if timing is not None]
    if found and len(found) < len(paths):
        other = next(path for path in paths if timings.get(path) is None)
        raise DataError(
            f"{other}: has no timing, as {found[0].log} has; name logs of trtexec and of detect.py --benchmark, or runs"
        )
    return found


def write_page(path: Path, runs: Sequence[ComparedRun], rows: dict[str, Rows], panels: Sequence[Panel]) -> None:
    """Write the comparison as a page; without matplotlib it has no curves."""
    with tempfile.TemporaryDirectory() as folder:
        curves: Path | None = Path(folder) / "curves.png"
        try:
            draw_runs(Path(folder) / "curves.png", rows, panels)
        except ImportError as err:
            logger.warning("%s: has no curves, %s (pip install matplotlib)", path, err)
            curves = None
        write_comparison(path, runs, curves)


def comparison_lines(runs: Sequence[ComparedRun]) -> list[str]:
    """Lay the comparison out for the terminal."""
    differing = settings_table(runs)
    lines = ["", *comparability(runs), *aligned(figures_table(runs)), ""]
    if len(differing) > 1:
        lines += ["settings that differ:", *aligned(differing), ""]
    return [*lines, *verdict(runs)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of texts in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def milliseconds_of(folders: Mapping[str, Path]) -> dict[str, float]:
    """Measure what an image takes: the nets of each `best.pth`, in PyTorch on the CPU, taking turns.

    Args:
        folders: of the runs, by their names.

    Returns:
        the median for each run that has that file.

    Raises:
        DataError: none has it.
    """
    import torch  # takes a second or two, which curves need not wait for

    from vision.deploy.session import open_session

    paths = {name: folder / "best.pth" for name, folder in folders.items() if (folder / "best.pth").is_file()}
    if not paths:
        raise DataError("--time: none of the runs has a best.pth to measure; leave --time out")
    sessions = {name: open_session(path) for name, path in paths.items()}
    noise = torch.Generator().manual_seed(0)
    images = {
        name: torch.randn(1, 3, *reversed(session.size), generator=noise).numpy()  # size is (width, height)
        for name, session in sessions.items()
    }
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in console.progress(range(_WARM_UP_TURNS + _TURNS), "Timing", _WARM_UP_TURNS + _TURNS):
        for name, session in sessions.items():
            began = perf_counter()
            session.run(images[name])
            times[name].append(1000 * (perf_counter() - began))
    logger.info("timed in turns, medians of %d images, on %d threads", _TURNS, torch.get_num_threads())
    return {name: median(of_run[_WARM_UP_TURNS:]) for name, of_run in times.items()}


def folder_of(path: Path) -> Path | None:
    """The model folder of a run; None of a text log."""
    if path.is_dir():
        return path
    return path.parent if path.name == RESULTS else None


def names_of(paths: Sequence[Path]) -> list[str]:
    """Name runs by the last part of their paths, and by as many more as it takes to tell them apart."""
    folders = [path.parent if path.name == RESULTS else path for path in paths]
    for count in range(1, max(len(folder.parts) for folder in folders) + 2):
        names = [str(Path(*folder.parts[-count:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise DataError(f"{max(names, key=names.count)}: named twice; name each run once")


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
        path = path / RESULTS
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
