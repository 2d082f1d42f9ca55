"""Kinds of options: a text of the command line becomes a value, or one line that says what is wrong."""

from __future__ import annotations

from vision.console import checked, number, one_of, user_place
from vision.ssd.choices import COCO, SCRATCH, VOC, canonical_name

DEVICE_TYPES = ("auto", "cpu", "cuda", "mps")

#: The dataset type that goes by what is on disk.
AUTO = "auto"

#: Names of the formats of datasets, see `vision.datasets.DATASETS`, and the word for looking at what is on disk.
DATASET_TYPES = (
    *("voc", "open_images", "coco", "yolo", "cvat", "labelme", "createml", "csv", "kitti", "oidv4", "imglab"),
    *("via", "label_studio"),
    AUTO,
)

#: What --save-annotations may say, see `vision.datasets.WRITERS`.
WRITTEN_FORMATS = ("voc", "yolo", "coco", "cvat", "labelme", "createml")

#: What --split may say, see `vision.datasets.folder.SPLITS`.
SPLITS = ("train", "test", "val")

#: What --pretrained-ssd may say instead of a file.
START_WORDS = (SCRATCH, COCO, VOC)


@checked
def net_name(text: str) -> str:
    """Check a net's name; it stays as typed."""
    canonical_name(text)
    return text


@checked
def dataset_type(text: str) -> str:
    """Check a dataset type. `package.module:Class` is looked up when the dataset is opened."""
    return text if ":" in text else one_of("dataset type", DATASET_TYPES)(text)


@checked
def resolution(text: str) -> int | tuple[int, int]:
    """Read `N` or `WxH`."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f"{text!r} is no resolution, expected N or WxH in pixels, such as 300 or 512x288")
    width, height = int(sides[0]), int(sides[-1])
    return width if width == height else (width, height)


def norm_limit(text: str) -> float | None:
    """Read a limit above 0, or `none`."""
    return None if text.lower() == "none" else number(float, 0, above=True)(text)


@checked
def epochs_list(text: str) -> tuple[int, ...]:
    """Read epochs with commas between."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as err:
        raise ValueError(f"{text!r} is no list of epochs, expected numbers with commas, such as 80,100") from err


@checked
def device_name(text: str) -> str:
    """Check a device's name."""
    kind, _, index = text.partition(":")
    if kind not in DEVICE_TYPES or (index and (kind != "cuda" or not index.isdecimal())):
        raise ValueError(f"unknown device {text!r} (choose from {', '.join(DEVICE_TYPES)}, or cuda:1 and so on)")
    return text


def word_or_file(text: str) -> str:
    """Read --pretrained-ssd: one of its words, in any case, or the name of a file."""
    return text.lower() if text.lower() in START_WORDS else user_place(text)
