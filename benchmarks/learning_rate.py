#!/usr/bin/env python3
"""Draw the learning rate of the default run over its 30 epochs, beside what a period of 100 epochs gives.

python3 benchmarks/learning_rate.py docs/learning_rate.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.figure import Figure  # noqa: E402

import train_ssd  # noqa: E402
from vision.engine.schedule import lr_factor  # noqa: E402

STEPS = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    args = parser.parse_args()
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for argv, label in (([], "default"), (["--t-max=100"], "--t-max=100, upstream's default")):
        options = train_ssd.parse_args(argv)
        iterations = range(options.epochs * STEPS)
        rates = [options.lr * lr_factor(iteration, STEPS, options) for iteration in iterations]
        axes.plot([iteration / STEPS for iteration in iterations], rates, label=label)
        print(f"{label}: ends at {rates[-1]:.2e}, {rates[-1] / options.lr:.1%} of --lr")
    axes.set_xlabel("epoch")
    axes.set_ylabel("rate of the heads")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.path, dpi=100)


if __name__ == "__main__":
    main()
