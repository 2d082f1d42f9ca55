#!/usr/bin/env python3
"""How long a start takes, and how much memory, until the data are read and audited: first start and second.

Draws datasets of growing size in VOC layout, and starts a process for each figure, imports and the net left out. The
second start takes what the first has read from a cache; a third follows after one file in a hundred was changed.
Memory is the peak; what it grew by; what is held in the end; and what a loader process has for itself when it has
looked at all records once.

    python3 benchmarks/startup.py
    python3 benchmarks/startup.py --sizes 1000 100000 --formats voc coco yolo open_images
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vision.datasets import DetectionDataset

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

#: Files younger than this are not believed to be settled, and read again.
SETTLING_SECONDS = 2.5


def measure(root: Path, kind: str) -> dict[str, float]:
    """Read and audit a dataset in this process."""
    from vision.boxes.forms import center_form_to_corner_form
    from vision.datasets import open_splits
    from vision.datasets.audit import make_audit
    from vision.ssd.config.families import MOBILENETV1

    config = MOBILENETV1.at(300)
    before, held_before = _peak(), _memory("Rss")
    start = time.perf_counter()
    splits = open_splits(kind, [root])
    read = time.perf_counter()
    audit = make_audit(*splits, config.width_height, center_form_to_corner_form(config.priors), 5000, 2000)
    return {
        "reading": read - start,
        "audit": time.perf_counter() - read,
        "peak": _peak(),
        "grown": _peak() - before,
        "held": _memory("Rss") - held_before,
        "loader": _memory_of_a_loader(splits),
        "images": audit.train.images + audit.validation.images,
    }


def _memory_of_a_loader(datasets: Sequence[DetectionDataset]) -> float:
    """Memory in MiB that a process forked from this one has for itself when it has looked at all records."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            for dataset in datasets:
                for index in range(len(dataset)):
                    dataset.targets(index)
            os.write(writing, str(_memory("Private_Clean") + _memory("Private_Dirty")).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(reading, 99))


def _memory(kind: str) -> float:
    """Memory of this process in MiB, of a kind that Linux counts."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))


def _peak() -> float:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_dataset(root: Path, count: int, kind: str) -> None:
    """Write small images, of a few contents under many names, with a fifth of them for validation."""
    from tests import dataset_writers
    from vision.datasets import synthetic

    writers = {
        "voc": synthetic.write_voc,
        "coco": dataset_writers.write_coco,
        "yolo": dataset_writers.write_yolo,
        "open_images": dataset_writers.write_open_images,
        "cvat": dataset_writers.write_cvat_images,
        "labelme": dataset_writers.write_labelme,
        "createml": dataset_writers.write_createml,
        "csv": dataset_writers.write_table,
        "kitti": dataset_writers.write_kitti,
        "oidv4": dataset_writers.write_oidv4,
        "imglab": dataset_writers.write_imglab,
    }
    drawings = synthetic.drawings(16, 1, size=(96, 80), objects=(2, 4))
    many = [drawings[number % len(drawings)] for number in range(count)]
    writers[kind](root, {"train": many[count // 5 :], "val": many[: count // 5]})
    for number, path in enumerate(sorted(root.rglob("*.jpg"))):
        content = path.read_bytes()
        # A comment behind the end of the image makes every file another one.
        path.write_bytes(content[:-2] + b"\xff\xfe\x00\x08%06d" % number + b"\xff\xd9")


def start(root: Path, cache: Path, kind: str) -> dict[str, float]:
    """Measure in a process of its own."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, __file__, f"--measure={root}", "--formats", kind]
    done = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10000, 20000])
    parser.add_argument(
        "--formats", nargs="+", default=["voc"], help="as of --dataset-type, or auto, which is VOC's files"
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.formats[0])))
        return
    print("format       images  start          reading s   audit s   us an image   MiB: peak  grown   held  loader")
    with tempfile.TemporaryDirectory() as folder:
        for kind, size in itertools.product(args.formats, args.sizes):
            root, cache = Path(folder) / f"{kind}_{size}", Path(folder) / f"cache_{kind}_{size}"
            write_dataset(root, size, "voc" if kind == "auto" else kind)
            time.sleep(SETTLING_SECONDS)
            totals = {}
            for name in ("first", "second", "1 % changed"):
                if name == "1 % changed":
                    for path in sorted(
                        path for path in root.rglob("*") if path.suffix in (".xml", ".json", ".txt", ".csv")
                    )[::100]:
                        path.write_text(path.read_text() + "\n")
                figures = start(root, cache, kind)
                totals[name] = figures["reading"] + figures["audit"]
                print(
                    f"{kind:11}  {figures['images']:6}  {name:12}  {figures['reading']:10.2f}  "
                    f"{figures['audit']:8.2f}  {totals[name] / size * 1e6:13.0f}  "
                    f"{figures['peak']:10.0f}  {figures['grown']:5.0f}  "
                    f"{figures['held']:5.0f}  {figures['loader']:6.0f}"
                )
            print(f"{'':8}  second start: {totals['first'] / totals['second']:.1f} times as fast as the first")
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
