#!/usr/bin/env python3
"""How many of the first doubts about labels are real: plants errors, trains on the broken labels, and looks.

    python3 benchmarks/doubts.py --runs=runs/doubts --data=data/bccd --common='--net=mb2-ssd-fpnlite --epochs=15'

Of the objects to train on a tenth is removed, a twentieth gets another class, a twentieth is moved to an IoU of 0.3 to
0.6, and a fiftieth is labeled twice. The net is trained on that and looks at its own training images, as somebody would
who has no others; or, with --parts=K, K nets each look at a part that they were not trained on. Chance is the share of
a random object that is wrong. Errors that the dataset had before count as none, so that the figures are bounds.

Beside the doubts stands a ranking by loss alone: of a label the negative logarithm of the highest score of its class at
an IoU of 0.5, of a detection without a label the negative logarithm of one less its score.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import accuracy  # noqa: E402
from vision import cli  # noqa: E402
from vision.datasets import DetectionDataset, open_folder, open_splits  # noqa: E402
from vision.datasets.voc_xml import VocWriter  # noqa: E402
from vision.datasets.writer import WrittenImage  # noqa: E402
from vision.evaluation.doubts import DOUBLE, MISPLACED, OVERLOOKED, SWAPPED  # noqa: E402
from vision.utils.files import write_text  # noqa: E402

#: Kind of doubt that an error should raise -> share of the objects that get the error.
SHARES = {OVERLOOKED: 0.1, SWAPPED: 0.05, MISPLACED: 0.05, DOUBLE: 0.02}

#: Numbers of first doubts that are looked at.
FIRST = (50, 100, 200)


class Error(NamedTuple):
    """An error that was planted."""

    image: str
    kind: str
    box: np.ndarray  # (4,) of the object as it is, in pixels


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes in corner form."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def moved(box: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray | None:
    """Move a box to an IoU of 0.3 to 0.6 with where it was, within the image; None if that cannot be found."""
    for _ in range(100):
        sides = np.tile(box[2:] - box[:2], 2)
        candidate = box + np.tile(rng.uniform(-0.6, 0.6, 2), 2) * sides
        candidate = np.clip(candidate, 0, [*size, *size])
        if (candidate[2:] > candidate[:2]).all() and 0.3 <= iou(box, candidate) <= 0.6:
            return candidate
    return None


def plant(
    boxes: np.ndarray, names: Sequence[str], size: tuple[int, int], classes: Sequence[str], rng: np.random.Generator
) -> tuple[list[np.ndarray], list[str], list[tuple[str, np.ndarray]]]:
    """Give some objects of an image an error; returns the boxes and names as they are written, and the errors."""
    kept_boxes, kept_names, errors = [], [], []
    kinds = [*SHARES, ""]
    chances = [*SHARES.values(), 1 - sum(SHARES.values())]
    for box, name in zip(boxes, names, strict=True):
        kind = str(rng.choice(kinds, p=chances))
        others = [other for other in classes if other != name]
        place = moved(box, size, rng) if kind == MISPLACED else box
        if (kind == SWAPPED and not others) or place is None:
            kind, place = "", box
        if kind:
            errors.append((kind, box))
        if kind == OVERLOOKED:
            continue
        kept_boxes.append(place)
        kept_names.append(str(rng.choice(others)) if kind == SWAPPED else name)
        if kind == DOUBLE:
            kept_boxes.append(box + np.array([1, 1, 0, 0]))
            kept_names.append(name)
    return kept_boxes, kept_names, errors


def write_list(root: Path, part: str, ids: Iterable[str]) -> None:
    """Write a list of images."""
    write_text(root / "ImageSets" / "Main" / f"{part}.txt", "".join(f"{image_id}\n" for image_id in ids))


def write_broken(root: Path, data: str, seed: int) -> tuple[list[Error], int, dict[str, list[str]]]:
    """Write a dataset with errors in its training part.

    Returns:
        the errors, the number of objects before, and the images of the lists "trainval" and "test".
    """
    rng = np.random.default_rng(seed)
    train, test = open_splits("voc", [data])
    classes = train.class_names[1:]
    errors: list[Error] = []
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    with VocWriter(root, classes, writes_empty=True) as writer:
        parts: list[tuple[str, DetectionDataset]] = [("trainval", train), ("test", test)]
        for part, dataset in parts:
            for record in dataset.records:
                boxes, names = list(record.boxes.astype(float)), list(record.names)
                if part == "trainval":
                    boxes, names, of_image = plant(record.boxes.astype(float), names, record.size, classes, rng)
                    errors += [Error(record.image_id, kind, box) for kind, box in of_image]
                name = PurePosixPath(f"{record.image_id}{record.image_path.suffix}")
                place = writer.image_path(name)
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    place.symlink_to(record.image_path.resolve())
                kept = np.array(boxes).reshape(-1, 4)
                writer.add(WrittenImage(name, record.size, kept, names, [1.0] * len(names)))
                lists[part].append(record.image_id)
    for part, ids in lists.items():
        write_list(root, part, ids)
    return errors, sum(len(record.names) for record in train.records), lists


def is_real(row: dict[str, str], errors: Sequence[Error]) -> Error | None:
    """The planted error that a doubt is about; None for none."""
    boxes = [
        np.array([float(row[f"{prefix}{corner}"]) for corner in ("x1", "y1", "x2", "y2")])
        for prefix in ("", "found ")
        if row[f"{prefix}x1"]
    ]
    of_image = [error for error in errors if error.image == row["image"]]
    return next((error for error in of_image if any(iou(error.box, box) >= 0.5 for box in boxes)), None)


def look(root: Path, folder: Path, seed: int, options: Sequence[str], split: str) -> list[dict[str, str]]:
    """Train on a dataset's list for training, and give the doubts about one of its lists.

    Args:
        root: of the dataset.
        folder: for the model and the evaluation.
        seed: of the run.
        options: of train_ssd.py.
        split: "train" or "test".
    """
    model, evaluation = folder / "model", folder / "evaluation"
    own = [f"--data={root}", f"--model-dir={model}", f"--seed={seed}", "--auto-resume", "--no-plots"]
    accuracy.train(model, ["--dataset-type=voc", *own, *options])
    command = [sys.executable, str(ROOT / "eval_ssd.py"), f"--model={model}", "--dataset-type=voc", f"--data={root}"]
    command += [f"--split={split}", "--include-trained", "--doubts", "--no-plots", f"--eval-dir={evaluation}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(evaluation / "doubts.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_loss(root: Path, evaluation: Path, part: str) -> list[tuple[float, dict[str, str]]]:
    """Rank labels and detections by their loss; rows as those of doubts, each behind its loss.

    Args:
        root: of the dataset.
        evaluation: folder with what was found.
        part: list that was looked at, "trainval" or "test".
    """
    train, test = open_splits("voc", [root])
    found: dict[str, list[tuple[str, float, np.ndarray]]] = {}
    for path in evaluation.glob("det_test_*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            image, score, *box = line.split()
            name = path.stem.removeprefix("det_test_")
            found.setdefault(image, []).append((name, float(score), np.array(box, float) - 1))  # pixels from 1
    rows = []
    for record in (train if part == "trainval" else test).records:
        of_image = found.get(record.image_id, [])
        for name, box in zip(record.names, record.boxes.astype(float), strict=True):
            own = [score for other, score, place in of_image if other == name and iou(box, place) >= 0.5]
            rows.append((-float(np.log(max([*own, 1e-6]))), as_row(record.image_id, box)))
        for _, score, place in of_image:
            if all(iou(box, place) < 0.5 for box in record.boxes.astype(float)):
                rows.append((-float(np.log(max(1 - score, 1e-6))), as_row(record.image_id, place)))
    return sorted(rows, key=lambda row: -row[0])


def as_row(image: str, box: np.ndarray) -> dict[str, str]:
    """Write what `is_real` reads."""
    corners = dict(zip(("x1", "y1", "x2", "y2"), map(str, box), strict=True))
    return {"image": image, "kind": "loss", **corners, "found x1": ""}


def report(title: str, rows: Sequence[dict[str, str]], errors: Sequence[Error]) -> None:
    """Print how many of the first are planted."""
    for first in FIRST:
        found = [is_real(row, errors) for row in rows[:first]]
        kinds = Counter(error.kind for error in found if error is not None)
        share = sum(kinds.values()) / max(1, len(found))
        print(f"{title}, of the first {first}: {share:.2f} planted, {dict(kinds)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Plant, train, look."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of a dataset in VOC layout")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the broken dataset and the model")
    parser.add_argument("--common", type=shlex.split, default=[], help="options of train_ssd.py")
    parser.add_argument("--seed", type=int, default=1, help="of the errors and of the run")
    parser.add_argument(
        "--parts", type=cli.count, default=1, help="parts that are held out, a net each (default: none)"
    )
    args = parser.parse_args(argv)
    cli.setup_logging()
    data = args.runs / "data"
    errors, objects, lists = write_broken(data, args.data, args.seed)
    if args.parts == 1:
        rows = look(data, args.runs, args.seed, args.common, "train")
        losses = by_loss(data, args.runs / "evaluation", "trainval")
    else:
        rows, losses = [], []
        for number in range(args.parts):
            folder = args.runs / f"part{number + 1}"
            held_out = lists["trainval"][number :: args.parts]
            view = folder / "data"
            accuracy.write_view(
                open_folder("voc", data), view, [i for i in lists["trainval"] if i not in held_out], held_out
            )
            rows += look(view, folder, args.seed, args.common, "test")
            losses += by_loss(view, folder / "evaluation", "test")
        rows.sort(key=lambda row: -float(row["score"]))
        losses.sort(key=lambda row: -row[0])
    print(f"{len(errors)} errors in {objects} objects, {dict(Counter(error.kind for error in errors))}")
    print(f"{len(rows)} doubts; chance: {len(errors) / objects:.2f}")
    report("all", rows, errors)
    report("without those that need no net", [row for row in rows if row["kind"] != DOUBLE], errors)
    report("ranked by loss", [row for _, row in losses], errors)


if __name__ == "__main__":
    main()
