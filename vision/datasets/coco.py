"""COCO's JSON: one file per split, with its pictures beside it or in a folder of the split's name."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vision.datasets.base import DetectionDataset, ImageIndex, Record
from vision.datasets.labels import merge, with_background
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: Names of splits, in the order in which they are looked for.
SPLITS = {"train": ("train",), "test": ("test", "val", "valid", "validation")}


class CocoDataset(DetectionDataset):
    """A dataset in COCO layout: `annotations/instances_train2017.json`, `train/_annotations.coco.json` and the like.

    All splits share one class list: the categories of all files by their ids, without those that only group others.
    Crowds count as difficult.

    Args:
        root: the folder of the dataset.
        split: "train" or "test", which also stands for val, valid and validation.

    Raises:
        DataError: there is no file for that split, or it cannot be read.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root)
        self.defects = []
        files = _files(self.root)
        path = next((files[name] for name in SPLITS[split] if name in files), None)
        if path is None:
            found = ", ".join(str(file) for file in files.values()) or "none"
            raise DataError(
                f"{self.root}: no COCO file of the split {' or '.join(SPLITS[split])}; found {found}; "
                "expected a name such as annotations/instances_train.json or train/_annotations.coco.json"
            )
        contents = {file: _read(file) for file in files.values()}
        class_names = merge(with_background(_class_names(content)) for content in contents.values())
        super().__init__(list(self._records_of(path, contents[path])), class_names, defects=self.defects)
        logger.info("%s (%s)", path, self.summary())

    @classmethod
    def for_split(cls, root: str | Path, split: str) -> CocoDataset:
        """Read the split "train" or "test"."""
        return cls(root, split)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Tell whether a folder looks like this format."""
        return bool(_files(root))

    def _records_of(self, path: Path, content: dict[str, Any]) -> Iterator[Record]:
        names = {category["id"]: category["name"].strip() for category in content["categories"]}
        objects: dict[Any, list] = {}
        for number, annotation in enumerate(content["annotations"], start=1):
            try:
                x, y, width, height = (float(value) for value in annotation["bbox"])
                name = names[annotation["category_id"]]
            except (KeyError, TypeError, ValueError):
                what = {key: annotation.get(key) for key in ("id", "category_id", "bbox")}
                self._note(path, f"annotation {number} left out: {what}, expected a known category and four numbers")
                continue
            box = (x, y, x + width, y + height)
            objects.setdefault(annotation.get("image_id"), []).append((name, box, bool(annotation.get("iscrowd"))))
        folders = [ImageIndex(folder) for folder in _image_folders(self.root, path)]
        missing = []
        for image in content["images"]:
            file_name = Path(str(image["file_name"]))
            direct = [folder / file_name for folder in (path.parent, self.root) if (folder / file_name).is_file()]
            image_path = next(iter(direct), None) or next(filter(None, (f.find(file_name.name) for f in folders)), None)
            if image_path is None:
                missing.append(str(file_name))
            else:
                yield self._record(path, file_name.stem, image_path, objects.get(image["id"], []))
        self._note_missing(path, missing, len(content["images"]), "no such picture")
        if missing and len(missing) == len(content["images"]):
            raise DataError(f"{path}: none of its {len(missing)} pictures is there; first: {missing[0]}")


def _files(root: Path) -> dict[str, Path]:
    """Map the names of splits to their files."""
    found: dict[str, Path] = {}
    for split in (name for names in SPLITS.values() for name in names):
        patterns = (
            f"annotations/*{split}*.json",
            f"{split}/*.coco.json",
            f"{split}/annotations.json",
            f"*{split}*.json",
        )
        path = next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)
        if path is not None and path not in found.values():
            found[split] = path
    return found


def _image_folders(root: Path, path: Path) -> list[Path]:
    """List where the pictures of a file may lie: beside it, and in folders named as its split."""
    splits = [name for names in SPLITS.values() for name in names if name in path.name or name == path.parent.name]
    year = "".join(character for character in path.stem if character.isdigit())
    named = [root / base / f"{split}{suffix}" for split in splits for suffix in (year, "") for base in ("", "images")]
    return [path.parent, *named, root / "images", root]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as err:
        raise DataError(f"{path}: cannot be read as JSON ({err})") from err
    keys = ("images", "annotations", "categories")
    lacking = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise DataError(f"{path}: lacks the lists {', '.join(lacking)}; expected COCO's {', '.join(keys)}")
    return content


def _class_names(content: dict[str, Any]) -> list[str]:
    """Give the categories' names by id, without those that group others and have no objects of their own."""
    used = {annotation.get("category_id") for annotation in content["annotations"]}
    groups = {category.get("supercategory") for category in content["categories"]}
    categories = sorted(content["categories"], key=lambda category: category["id"])
    return [c["name"] for c in categories if c["id"] in used or c["name"] not in groups]
