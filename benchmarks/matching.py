#!/usr/bin/env python3
"""CPU time and peak memory of matching a batch, against the formula that holds all of the batch's overlaps at once.

python3 benchmarks/matching.py

Both run in turns in one process for the time, and each in a process of its own for the memory, which Linux tells.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.rounds import peak_bytes  # noqa: E402
from vision import cli  # noqa: E402
from vision.boxes.forms import center_form_to_corner_form, iou_of  # noqa: E402
from vision.boxes.matching import FORCED_OVERLAP, MATCHING_THRESHOLD, match_batch  # noqa: E402
from vision.ssd.choices import DEFAULT_NET  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402

Matcher = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]

#: Resolution, images in a batch, rows of objects, of which a third is padding in all images but the first.
CASES = ((300, 24, 10), (300, 32, 100), (1024, 8, 300))


def match_broadcast(
    corner_form_boxes: Tensor, labels: Tensor, corner_form_priors: Tensor, iou_threshold: float
) -> tuple[Tensor, Tensor]:
    """Do what `match_batch` does, by one broadcast over images, objects and priors."""
    present = labels > 0
    overlaps = iou_of(corner_form_boxes[:, :, None], corner_form_priors)
    overlaps = overlaps.masked_fill(~present[..., None], -1.0)
    best_overlap, best_object = overlaps.max(dim=1)
    best_prior = overlaps.argmax(dim=2)
    indices = torch.arange(labels.shape[1]).expand_as(labels).masked_fill(~present, -1)
    owner = torch.full_like(best_object, -1).scatter_reduce(1, best_prior, indices, "amax")
    forced = owner >= 0
    chosen = torch.where(forced, owner, best_object)
    best_overlap = best_overlap.masked_fill(forced, FORCED_OVERLAP)
    matched_labels = labels.gather(1, chosen).masked_fill(best_overlap < iou_threshold, 0)
    return corner_form_boxes.gather(1, chosen[..., None].expand(-1, -1, 4)), matched_labels


#: The reference first.
MATCHERS: dict[str, Matcher] = {"broadcast": match_broadcast, "match_batch": match_batch}


def draw(resolution: int, images: int, objects: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Draw the arguments of a matcher: always the same boxes, and the priors of the default net."""
    generator = torch.Generator().manual_seed(0)
    left_top = torch.rand(images, objects, 2, generator=generator) * 0.8
    sides = torch.rand(images, objects, 2, generator=generator) * 0.2
    labels = torch.randint(1, 5, (images, objects), generator=generator)
    labels[1:, objects * 2 // 3 :] = 0
    priors = center_form_to_corner_form(MODELS[DEFAULT_NET].config_at(resolution).priors)
    return torch.cat([left_top, left_top + sides], dim=-1), labels, priors, MATCHING_THRESHOLD


def extra_bytes(name: str, case: tuple[int, int, int], threads: int) -> int:
    """Return by how much a call raises the peak of this process, which must be new."""
    torch.set_num_threads(threads)
    arguments = draw(*case)
    MATCHERS[name](arguments[0][:1, :2], arguments[1][:1, :2], *arguments[2:])  # loads what torch loads late
    before = peak_bytes()
    MATCHERS[name](*arguments)
    return peak_bytes() - before


def seconds(case: tuple[int, int, int], rounds: int) -> list[float]:
    """Take the CPU time of all matchers in turns; returns the median of each.

    Raises RuntimeError if their results differ at all.
    """
    arguments = draw(*case)
    expected = match_broadcast(*arguments)
    times: dict[str, list[float]] = {name: [] for name in MATCHERS}
    for _ in range(rounds):
        for name, matcher in MATCHERS.items():
            start = time.process_time()
            found = matcher(*arguments)
            times[name].append(time.process_time() - start)
            if not all(map(torch.equal, found, expected)):
                raise RuntimeError(f"{name} differs from the reference at {case}")
    return [median(found) for found in times.values()]


def main(argv: list[str] | None = None) -> None:
    """Print a row of a table for each case."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=cli.count, default=3)
    parser.add_argument("--threads", type=cli.count, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print("| size, images x objects x priors | broadcast | `match_batch` | ratio |\n|---|---|---|---|")
    spawn = multiprocessing.get_context("spawn")
    for case in CASES:
        memory = []
        for name in MATCHERS:
            with spawn.Pool(1) as pool:
                memory.append(pool.apply(extra_bytes, (name, case, args.threads)) / 1e6)
        times = seconds(case, args.rounds)
        resolution, images, objects = case
        title = f"{resolution}, {images} x {objects} x {len(draw(*case)[2])}"
        print(
            f"| {title} | {times[0]:.3f} s, {memory[0]:.0f} MB | {times[1]:.3f} s, {memory[1]:.0f} MB "
            f"| {times[0] / times[1]:.1f}, {memory[0] / memory[1]:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
