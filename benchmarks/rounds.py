"""What the benchmarks share: timing in turns, what machine it was, and figures as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from vision import cli
from vision.utils.files import write_text


def add_options(parser: argparse.ArgumentParser, rounds: int = 5) -> None:
    """Add the options of all benchmarks."""
    parser.add_argument("--rounds", type=cli.count, default=rounds, help="in which all take turns; medians count")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def in_turns(
    functions: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Time functions in turns, so that a busy moment of the machine does not hit one of them alone.

    Args:
        functions: by name; each is called once before, to warm up.
        rounds: that count.
        clock: `time.process_time` for what other programs should have little influence on.

    Returns:
        median seconds of a call.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            began = clock()
            function()
            if number:
                times[name].append(clock() - began)
    return {name: median(found) for name, found in times.items()}


def peak_bytes() -> int:
    """Return the most memory that this process has had; unlike getrusage's, it is not inherited from the parent."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024


def processor() -> str:
    """Name the processor."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return platform.processor() if found is None else found[1]


def write_figures(path: Path | None, figures: Sequence[Mapping[str, Any]]) -> None:
    """Write a benchmark's figures and what machine they are of, if a file was asked for."""
    if path is None:
        return
    machine = {"processor": processor(), "cores": os.cpu_count(), "torch": torch.__version__}
    write_text(path, json.dumps({"machine": machine, "figures": list(figures)}, indent=1) + "\n")
