#!/usr/bin/env python3
"""What images without objects are good for: false detections with and without them, side by side.

Draws the demo's balls and boards to be found, and images of cones and stars alone, which are nothing to be found.
One net trains on both kinds of images, one with --no-negatives for as many steps. Both then see held-out images.

    python3 benchmarks/negatives.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train_ssd  # noqa: E402
from vision.datasets import open_dataset, synthetic  # noqa: E402
from vision.datasets.images import read_image  # noqa: E402
from vision.deploy.session import open_session  # noqa: E402
from vision.evaluation import evaluate  # noqa: E402

WANTED, OTHERS = ("ball", "board"), ("cone", "star")
THRESHOLDS = (0.3, 0.5)


def draw(count: int, seed: int, negative: bool) -> list[synthetic.Drawing]:
    """Draw images of one kind; on negatives nothing is annotated."""
    drawings = synthetic.drawings(count, seed, class_names=OTHERS if negative else WANTED)
    return [d._replace(boxes=np.zeros((0, 4), np.float32), names=()) for d in drawings] if negative else drawings


def train(data: Path, folder: Path, epochs: int, *more: str) -> None:
    """Train from scratch, at a size and for as long as two cores can in minutes."""
    train_ssd.main(
        [
            "--dataset-type=voc",
            f"--data={data}",
            f"--model-dir={folder}",
            f"--epochs={epochs}",
            "--resolution=144",
            "--augmentation=none",
            "--batch-size=8",
            "--lr=0.01",
            "--base-net-lr=0.05",
            "--pretrained-ssd=none",
            "--seed=1",
            "--debug-steps=100",
            *more,
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positives", type=int, default=1500, help="images with objects; negatives are a third")
    parser.add_argument("--held-out", type=int, default=100, help="images of each kind")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        train_set = draw(args.positives, 1, False) + draw(args.positives // 3, 2, True)
        synthetic.write_voc(root / "data", {"train": train_set, "test": draw(args.held_out, 3, False)}, WANTED)
        synthetic.write_voc(root / "negatives", {"test": draw(args.held_out, 4, True)}, WANTED)
        train(root / "data", root / "with", 3)
        train(root / "data", root / "without", 4, "--no-negatives")
        positives = open_dataset("voc", root / "data", "test")
        print("\ntrained          mAP on images with objects   false detections an image without, by threshold")
        counts = {}
        for trained in ("with", "without"):
            session = open_session(root / trained / "last.pth")
            found = [session.detect(positives.get_image(index)) for index in range(len(positives))]
            report = evaluate(found, [positives.annotation(i) for i in range(len(positives))], positives.class_names)
            paths = sorted((root / "negatives" / "JPEGImages").iterdir())
            scores = [session.detect(read_image(path)).scores for path in paths]
            counts[trained] = [np.mean([(values > threshold).sum() for values in scores]) for threshold in THRESHOLDS]
            numbers = ", ".join(f"{t:g}: {c:.2f}" for t, c in zip(THRESHOLDS, counts[trained], strict=True))
            print(f"{trained:7} negatives  {report.mean_ap_2007:29.3f}   {numbers}")
        for threshold, one, other in zip(THRESHOLDS, counts["with"], counts["without"], strict=True):
            ratio = f"{other / one:.1f} times as many" if one else f"{other:.2f} against none"
            print(f"without negatives, at {threshold:g}: {ratio}")


if __name__ == "__main__":
    main()
