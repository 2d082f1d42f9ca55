#!/usr/bin/env python3
"""Size and speed of the nets side by side: what they count, a training step, and the exported file in onnxruntime.

python3 benchmarks/nets.py --nets mb1-ssd mb1-ssd-fpnlite --resolution=300
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import rounds  # noqa: E402
from benchmarks.bench_train import draw_batch, make_train_step, step_of  # noqa: E402
from vision import cli  # noqa: E402
from vision.deploy import export  # noqa: E402
from vision.deploy.session import INPUT  # noqa: E402
from vision.ssd.choices import DEFAULT_NET, NET_NAMES  # noqa: E402
from vision.ssd.complexity import Complexity, complexity_of  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402
from vision.utils.memory import keep_freed_memory  # noqa: E402

BATCH_SIZE, NUM_CLASSES = 4, 4


class Cost(NamedTuple):
    """What a net costs; seconds are the median of the rounds, bytes those of the ONNX file."""

    complexity: Complexity
    bytes: int
    step: float
    latency: dict[int, float]


def onnx_run(path: Path, threads: int) -> Callable[[], Any]:
    """Give a function that runs a file on so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return lambda: session.run(None, {INPUT: image})


def measure(names: list[str], resolution: int, threads: list[int], count: int) -> dict[str, Cost]:
    """Export each net and time it, in rounds."""
    facts, runs = {}, {}
    batch = draw_batch(BATCH_SIZE, resolution)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            net = MODELS[name].build(NUM_CLASSES, config=MODELS[name].config_at(resolution)).eval()
            net.class_names = tuple(f"class {index}" for index in range(NUM_CLASSES))
            path = Path(folder) / f"{name}.onnx"
            export.write(net, path)
            facts[name] = (complexity_of(net), path.stat().st_size)
            runs[name, 0] = step_of(make_train_step(name, resolution), itertools.repeat(batch))
            runs |= {(name, number): onnx_run(path, number) for number in threads}
        seconds = rounds.in_turns(runs, count)
    return {
        name: Cost(*facts[name], seconds[name, 0], {number: seconds[name, number] for number in threads})
        for name in names
    }


def main(argv: list[str] | None = None) -> None:
    """Print the table; times are also given relative to the first net."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", type=cli.net_name, default=[DEFAULT_NET, *NET_NAMES[1:]])
    parser.add_argument("--resolution", type=cli.count, default=300)
    parser.add_argument("--threads", nargs="+", type=cli.count, default=[1, 2], help="of onnxruntime")
    rounds.add_options(parser, 15)
    args = parser.parse_args(argv)
    keep_freed_memory()  # as training does
    names = [MODELS[name].name for name in args.nets]
    costs = measure(names, args.resolution, args.threads, args.rounds)
    rounds.write_figures(
        args.json, [{"net": name, **cost.complexity._asdict(), **cost._asdict()} for name, cost in costs.items()]
    )
    first = costs[names[0]]
    heads = [f"ONNX, {count} threads" if count > 1 else "ONNX, 1 thread" for count in args.threads]
    print("| net | parameters | MACs | activations | priors | ONNX file | training step | " + " | ".join(heads) + " |")
    print("|---" * (7 + len(heads)) + "|")
    for name, cost in costs.items():
        latencies = [
            f"{1000 * cost.latency[count]:.1f} ms ({cost.latency[count] / first.latency[count]:.2f})"
            for count in args.threads
        ]
        counts = cost.complexity
        print(
            f"| {name} | {counts.parameters / 1e6:.2f} M | {counts.macs / 1e9:.2f} G | "
            f"{counts.activation_bytes / 2**20:.0f} MiB | {counts.priors} | {cost.bytes / 1e6:.1f} MB | "
            f"{1000 * cost.step:.0f} ms ({cost.step / first.step:.2f}) | {' | '.join(latencies)} |"
        )


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
