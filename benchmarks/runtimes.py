#!/usr/bin/env python3
"""Every net's export in every runtime that is installed: how far the answers are from onnxruntime's, and the time.

    python3 benchmarks/runtimes.py --data=data/voc07
    python3 benchmarks/runtimes.py --data=data/voc07 --python .venv-opencv4/bin/python .venv-others/bin/python

Weights are the start in models/ where that is a whole detector, else random with a fixed seed, fitted to the images.
Each runtime has a process of its own, so that versions can be compared, and one that crashes is a cell of the table.
All take turns for each image, and the least time counts: the processor's on one thread, the clock's on several, which
says nothing while other programs compute. Ratios count.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import rounds  # noqa: E402
from benchmarks.exports import conditioned_net  # noqa: E402
from benchmarks.runtime_worker import OUTPUTS, RUNTIMES  # noqa: E402
from vision import cli  # noqa: E402
from vision.boxes.forms import iou_of  # noqa: E402
from vision.boxes.nms import multiclass_nms  # noqa: E402
from vision.datasets import AUTO, open_dataset, synthetic  # noqa: E402
from vision.deploy import detectnet, export  # noqa: E402
from vision.deploy.choices import DEFAULT_THRESHOLD  # noqa: E402
from vision.deploy.torch_session import load_net  # noqa: E402
from vision.ssd.choices import NET_NAMES  # noqa: E402
from vision.ssd.data_preprocessing import PredictionTransform  # noqa: E402
from vision.ssd.ssd import SSD  # noqa: E402
from vision.structures import DataError  # noqa: E402

WORKER = Path(__file__).with_name("runtime_worker.py")
REFERENCE = "onnxruntime"

#: Overlap from which two boxes are the same.
SAME_PLACE = 0.99
#: Images that random weights are fitted to.
FITTED_TO = 16

Answers = tuple[np.ndarray, np.ndarray]


class RuntimeFailed(RuntimeError):
    """A runtime does not take a file, or ended; the message says why."""


class Worker:
    """A runtime in a process of its own, with a file; see `benchmarks/runtime_worker.py`.

    Args:
        python: interpreter that has the runtime.
        runtime: a key of `RUNTIMES`.
        path: of the file.
        threads: to run on.

    Raises:
        RuntimeFailed: it does not take the file.
    """

    def __init__(self, python: str, runtime: str, path: Path, threads: int) -> None:
        argv = [python, str(WORKER), runtime, str(path), str(threads)]
        pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(argv, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, **pipe)
        self._read("ready")

    def run(self, images: np.ndarray) -> tuple[Answers, float]:
        """Turn the input of a file into its answers, and seconds."""
        try:
            pickle.dump(images, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # why it ended is read next
        return self._read("answer")

    def _read(self, expected: str) -> Any:
        try:
            kind, *values = pickle.load(self._process.stdout)
        except EOFError:
            code = self._process.wait()
            raise RuntimeFailed(f"ended by signal {-code}" if code < 0 else f"ended with code {code}") from None
        if kind != expected:
            self.close()
            raise RuntimeFailed(values[0])
        return values

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


class Installed(NamedTuple):
    """A runtime that some interpreter has."""

    python: str
    runtime: str
    version: str

    @property
    def title(self) -> str:
        """Name with version."""
        name, comma, more = self.runtime.partition(",")
        return f"{name} {self.version}{comma}{more}"


class Agreement(NamedTuple):
    """How a runtime's answers compare with the reference's: largest differences, and detections of both among all."""

    scores: float
    boxes: float
    alike: int
    total: int


class Entrant:
    """A runtime with a file, in a process for each number of threads.

    Attributes:
        installed: which runtime.
        answers: to the images of the first round, on the first number of threads.
        failure: why it takes no part any more; None while it does.
    """

    def __init__(self, installed: Installed, path: Path, threads: Sequence[int]) -> None:
        self.installed = installed
        self.answers: list[Answers] = []
        self.failure: str | None = None
        self._workers: dict[int, Worker] = {}
        self._seconds: dict[int, list[float]] = {number: [] for number in threads}
        try:
            for number in threads:
                self._workers[number] = Worker(installed.python, installed.runtime, path, number)
        except RuntimeFailed as err:
            self.failure = str(err)

    def run(self, images: np.ndarray, keeps_answer: bool) -> None:
        """Run the input of a file on each number of threads."""
        if self.failure is not None:
            return
        try:
            for place, (number, worker) in enumerate(self._workers.items()):
                answer, seconds = worker.run(images)
                self._seconds[number].append(seconds)
                if keeps_answer and place == 0:
                    self.answers.append(answer)
        except RuntimeFailed as err:
            self.failure = str(err)

    def close(self) -> None:
        """End its processes."""
        for worker in self._workers.values():
            worker.close()

    @property
    def least_seconds(self) -> list[float]:
        """What an image takes on each number of threads; empty if it failed."""
        return [] if self.failure is not None else [min(found) for found in self._seconds.values()]


def installed(pythons: Sequence[str]) -> list[Installed]:
    """List the runtimes that interpreters have, those of the first one first; each version once."""
    found: dict[tuple[str, str], Installed] = {}
    for python in pythons:
        try:
            done = subprocess.run([python, str(WORKER), "--list"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as err:
            raise DataError(f"--python={python}: cannot run {WORKER.name} ({err}); name a Python with NumPy") from err
        for runtime, version in json.loads(done.stdout).items():
            found.setdefault((runtime, version), Installed(python, runtime, version))
    order = list(RUNTIMES)
    return sorted(found.values(), key=lambda one: order.index(one.runtime))


def choose_net(name: str, resolution: int, images: Sequence[np.ndarray]) -> tuple[SSD, str]:
    """Take a net's start if that detects, else random weights that suit the images; gives it with what it is."""
    start = ROOT / "models" / f"{name}-voc.pth"
    if start.is_file():
        try:
            return load_net(start, resolution=resolution), start.name
        except DataError:  # no heads in it
            pass
    resized = np.stack([cv2.resize(image, (resolution, resolution)) for image in images[:FITTED_TO]])
    return conditioned_net(name, resolution, torch.from_numpy(resized.transpose(0, 3, 1, 2).copy())), "random"


def compare(expected: Sequence[Answers], found: Sequence[Answers]) -> Agreement:
    """Compare answers to the same images."""
    differences = [
        max(float(np.abs(one[number] - other[number]).max()) for one, other in zip(expected, found, strict=True))
        for number in range(len(OUTPUTS))
    ]
    alike = total = 0
    for one, other in zip(expected, found, strict=True):
        (boxes, labels, _), (other_boxes, other_labels, _) = map(detections, (one, other))
        if len(boxes) and len(other_boxes):
            same = (iou_of(boxes[:, None], other_boxes[None]) > SAME_PLACE) & (labels[:, None] == other_labels[None])
            alike += int(same.any(dim=1).sum())
        total += max(len(boxes), len(other_boxes))
    return Agreement(*differences, alike, total)


def detections(answers: Answers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pick what `detect.py` would show: boxes, labels, scores."""
    scores, boxes = (torch.from_numpy(values[0]) for values in answers)
    return multiclass_nms(scores, boxes, score_threshold=DEFAULT_THRESHOLD)


def measure(
    path: Path, runtimes: Sequence[Installed], inputs: Sequence[np.ndarray], threads: Sequence[int], count: int
) -> list[Entrant]:
    """Run a file in all runtimes, in turns for each image."""
    entrants = [Entrant(one, path, threads) for one in runtimes]
    for turn in range(count):
        for images in inputs:
            for entrant in entrants:
                entrant.run(images, keeps_answer=turn == 0)
    for entrant in entrants:
        entrant.close()
    return entrants


def outcome_of(entrant: Entrant, reference: Entrant) -> Agreement | str:
    """Say how a runtime agrees with the reference, or why it does not answer."""
    if entrant.failure is not None:
        return entrant.failure
    shapes = [[values.shape for values in one.answers[0]] for one in (entrant, reference)]
    if shapes[0] != shapes[1]:
        return f"answers have the shapes {shapes[0]} instead of {shapes[1]}"
    return compare(reference.answers, entrant.answers)


def difference_cell(outcome: Agreement | str) -> str:
    """Write how a runtime agrees."""
    if isinstance(outcome, str):
        return f"failed: {outcome[:200]}"
    share = "none found" if not outcome.total else f"{outcome.alike}/{outcome.total}"
    return f"{outcome.scores:.1e}, {outcome.boxes:.1e}, {share}"


def time_cell(entrant: Entrant, reference: Entrant) -> str:
    """Write how long a runtime takes, and relative to the reference."""
    pairs = zip(entrant.least_seconds, reference.least_seconds, strict=False)
    return " / ".join(f"{1000 * own:.1f} ({own / other:.2f})" for own, other in pairs)


def table_head(first: str, runtimes: Sequence[Installed]) -> str:
    """Write the head of a table with a column for each runtime."""
    return f"| {first} | {' | '.join(one.title for one in runtimes)} |\n{'|---' * (len(runtimes) + 1)}|"


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table of differences, and one of times."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", type=cli.net_name, default=list(NET_NAMES))
    parser.add_argument("--resolution", type=cli.count, default=300)
    parser.add_argument("--data", help="dataset whose test images are looked at (default: drawings of 640x480)")
    parser.add_argument("--images", type=cli.count, default=20)
    parser.add_argument("--threads", nargs="+", type=cli.count, default=[1, 2])
    parser.add_argument("--python", nargs="+", default=[], help="interpreters with further runtimes, or other versions")
    parser.add_argument("--rounds", type=cli.count, default=5, help="over all images; the least time counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    args = parser.parse_args(argv)
    runtimes = installed([sys.executable, *args.python])
    if not runtimes or runtimes[0].runtime != REFERENCE:
        raise DataError("onnxruntime is not installed, with which all others are compared; pip install onnxruntime")
    missing = [name for name in RUNTIMES if name not in {one.runtime for one in runtimes}]
    if missing:
        print(f"not installed, and left out: {', '.join(missing)}\n")
    if args.data:
        dataset = open_dataset(AUTO, args.data, "test", progress=cli.progress)
        images = [dataset.get_image(index) for index in range(min(args.images, len(dataset)))]
    else:
        images = [drawing.image for drawing in synthetic.drawings(args.images, 0, size=(640, 480))]
    transform = PredictionTransform(args.resolution, detectnet.MEAN, detectnet.STD)
    inputs = [transform(image)[None].numpy() for image in images]
    print(f"Largest difference of scores, of boxes, detections that agree among all, on {len(images)} images:\n")
    print(table_head("net (weights)", runtimes[1:]), flush=True)
    figures, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.nets:
            net, weights = choose_net(name, args.resolution, images)
            path = Path(folder) / f"{name}.onnx"
            export.write(net, path)
            reference, *others = entrants = measure(path, runtimes, inputs, args.threads, args.rounds)
            if reference.failure is not None:
                raise DataError(f"{name}: {REFERENCE} does not run it: {reference.failure}")
            outcomes = [outcome_of(entrant, reference) for entrant in others]
            print(f"| `{name}` ({weights}) | {' | '.join(map(difference_cell, outcomes))} |", flush=True)
            rows.append(f"| `{name}` | {' | '.join(time_cell(entrant, reference) for entrant in entrants)} |")
            for entrant, outcome in zip(entrants, [None, *outcomes], strict=True):
                found = outcome._asdict() if isinstance(outcome, Agreement) else {"failed": outcome}
                seconds = dict(zip(map(str, args.threads), entrant.least_seconds, strict=False))
                facts = {"net": name, "weights": weights, "runtime": entrant.installed.title}
                figures.append({**facts, **({} if outcome is None else found), "seconds": seconds})
    threads = " / ".join(map(str, args.threads))
    print(f"\nLeast ms an image on {threads} threads (in brackets relative to {REFERENCE}), {rounds.processor()}:\n")
    print("\n".join([table_head("net", runtimes), *rows]))
    rounds.write_figures(args.json, figures)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
