"""COCO's JSON: one file per split, with its pictures beside it or in a folder of the split's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vision.datasets.facts import FileFacts
from vision.datasets.folder import SPLITS, Folder, Listing, ReadingOptions
from vision.datasets.labels import LabelList, check_labels, read_text
from vision.datasets.pictures import FileIndex
from vision.datasets.records import Defect, Form, RawObject, RawPicture
from vision.structures import DataError

_KEYS = ("images", "annotations", "categories")


class CocoFolder(Folder):
    """A dataset in COCO layout: `annotations/instances_train2017.json`, `train/_annotations.coco.json` and the like.

    All splits share one class list: the categories of all files by their ids, without those that only group others.
    Crowds count as difficult.
    """

    name = "coco"
    form = Form(states_size=True)

    def __init__(self, root: Path, facts: FileFacts | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, facts, options)
        self._files = _files(root)
        self._contents: dict[Path, dict[str, Any]] = {}

    @staticmethod
    def recognises(root: Path) -> bool:
        """Tell whether a folder looks like this format."""
        return bool(_files(root))

    def listing(self, split: str) -> Listing | None:
        """Read the file whose name, or whose folder's name, says the split."""
        path = next((self._files[name] for name in SPLITS[split] if name in self._files), None)
        return None if path is None else self._listing_of(path)

    def everything(self) -> Listing:
        """Read all files."""
        if not self._files:
            raise DataError(
                f"{self.root}: no COCO file; expected a name such as annotations/instances_train.json or "
                "train/_annotations.coco.json"
            )
        listings = [self._listing_of(path) for path in self._files.values()]
        title = str(self.root) if len(listings) > 1 else listings[0].title
        return Listing(title, [raw for listing in listings for raw in listing.pictures], [])

    def written_labels(self) -> LabelList:
        """Read the categories of all files."""
        names = {name: None for path in self._files.values() for name in _class_names(self._content(path))}
        return check_labels(list(names), next(iter(self._files.values())))

    def all_names(self) -> Iterator[str]:
        """Give the names of the categories of all annotations in all files."""
        for path in self._files.values():
            content = self._content(path)
            names = _categories(content)
            yield from (_name(names, annotation) for annotation in content["annotations"])

    def _content(self, path: Path) -> dict[str, Any]:
        if path not in self._contents:
            self._contents[path] = _read(path)
        return self._contents[path]

    def _listing_of(self, path: Path) -> Listing:
        content = self._content(path)
        names = _categories(content)
        objects: dict[Any, list[RawObject]] = {}
        for number, annotation in enumerate(content["annotations"], start=1):
            try:
                x, y, width, height = (float(value) for value in annotation["bbox"])
                box = (x, y, x + width, y + height)
            except (KeyError, TypeError, ValueError):
                box = None
            objects.setdefault(annotation.get("image_id"), []).append(
                RawObject(
                    f"annotation {number}",
                    _name(names, annotation),
                    box,
                    bool(annotation.get("iscrowd")),
                    str(annotation.get("bbox", "missing")),
                )
            )
        folders = [FileIndex(folder) for folder in _image_folders(self.root, path) if folder.is_dir()]
        pictures, defects = [], []
        for image in content["images"]:
            found = objects.pop(image.get("id"), [])
            file_name = Path(str(image.get("file_name", "")))
            direct = [folder / file_name for folder in (path.parent, self.root) if (folder / file_name).is_file()]
            image_path = next(iter(direct), None) or next(filter(None, (f.find(file_name.name) for f in folders)), None)
            own = []
            if image_path is None:
                message = f"picture {file_name} left out: no such file beside {path.name} or in folders of its split"
                own.append(Defect("image-missing", path, message, len(found), 1))
            size = (image.get("width"), image.get("height"))
            stated = size if all(isinstance(side, int) for side in size) else None
            pictures.append(RawPicture(file_name.stem, image_path, path, found, stated, own))
        strays = [item.where for items in objects.values() for item in items]
        if strays:
            message = f"{len(strays)} annotations left out, their image_id is of no picture; first: {strays[0]}"
            defects.append(Defect("row-unreadable", path, message, len(strays)))
        return Listing(str(path), pictures, defects)


def _files(root: Path) -> dict[str, Path]:
    """Map the names of splits to their files; a file that names none stands for "all"."""
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
    if not found:
        patterns = ("annotations/*.json", "*.coco.json", "*annotations*.json", "*instances*.json")
        path = next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)
        if path is not None:
            found["all"] = path
    return found


def _image_folders(root: Path, path: Path) -> list[Path]:
    """List where the pictures of a file may lie: beside it, and in folders named as its split."""
    splits = [name for names in SPLITS.values() for name in names if name in path.name or name == path.parent.name]
    year = "".join(character for character in path.stem if character.isdigit())
    named = [root / base / f"{split}{suffix}" for split in splits for suffix in (year, "") for base in ("", "images")]
    return list(dict.fromkeys([path.parent, *named, root / "images", root]))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, "COCO's JSON"))
    except ValueError as err:
        raise DataError(f"{path}: cannot be read as JSON ({err})") from err
    lacking = [key for key in _KEYS if not isinstance(content, dict) or not _is_list_of_dicts(content.get(key))]
    if lacking:
        raise DataError(f"{path}: lacks the lists {', '.join(lacking)}; expected COCO's {', '.join(_KEYS)}")
    return content


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _categories(content: dict[str, Any]) -> dict[Any, str]:
    return {category.get("id"): str(category.get("name", "")).strip() for category in content["categories"]}


def _name(names: dict[Any, str], annotation: dict[str, Any]) -> str:
    """Give the name of an annotation's category; of one that is not in the list, what its id is called."""
    category = annotation.get("category_id")
    return names.get(category) or f"category {category}"


def _class_names(content: dict[str, Any]) -> list[str]:
    """Give the categories' names by id, without those that group others and have no objects of their own."""
    used = {annotation.get("category_id") for annotation in content["annotations"]}
    groups = {category.get("supercategory") for category in content["categories"]}
    names = _categories(content)
    ids = sorted(names, key=lambda key: (not isinstance(key, int), key if isinstance(key, int) else str(key)))
    return [names[key] for key in ids if key in used or names[key] not in groups]
