"""YOLO's layout: a text file of `class cx cy width height` lines per picture, relative to it, and `data.yaml`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vision.datasets.base import IMAGE_SUFFIXES, DetectionDataset, Record
from vision.datasets.labels import read_labels, with_background
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: Names of splits, in the order in which they are looked for; as keys of data.yaml and as folders.
SPLITS = {"train": ("train",), "test": ("test", "val", "valid", "validation")}
CONFIG_FILES = ("data.yaml", "data.yml", "dataset.yaml")
LABEL_FILES = ("labels.txt", "classes.txt", "obj.names")


class YoloDataset(DetectionDataset):
    """A dataset in YOLO layout: `images/train` with `labels/train`, or `train/images` with `train/labels`.

    The classes are those of `data.yaml` (`names`), else of `labels.txt`, `classes.txt` or `obj.names`. Polygons
    become the boxes around them. A picture without a text file has no objects.

    Args:
        root: the folder of the dataset.
        split: "train" or "test", which also stands for val, valid and validation.

    Raises:
        DataError: there are no pictures of that split, or a file cannot be read.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = Path(root)
        self.defects = []
        config_path = next((path for name in CONFIG_FILES if (path := self.root / name).is_file()), None)
        config = {} if config_path is None else _read_yaml(config_path)
        names = self._class_names(config, config_path)
        folder = self._folder(config, split)
        records = list(self._read(folder, names))
        if not records:
            raise DataError(f"{folder}: holds no picture ({', '.join(IMAGE_SUFFIXES)})")
        super().__init__(records, with_background(names), defects=self.defects)
        logger.info("%s (%s)", folder, self.summary())

    @classmethod
    def for_split(cls, root: str | Path, split: str) -> YoloDataset:
        """Read the split "train" or "test"."""
        return cls(root, split)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Tell whether a folder looks like this format."""
        has_config = any((root / name).is_file() for name in CONFIG_FILES)
        return has_config or (root / "images" / "train").is_dir() or (root / "train" / "labels").is_dir()

    def _class_names(self, config: dict[str, Any], config_path: Path | None) -> list[str]:
        names = config.get("names")
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
        if isinstance(names, list) and names:
            return [str(name) for name in names]
        path = next((path for name in LABEL_FILES if (path := self.root / name).is_file()), None)
        if path is None:
            raise DataError(
                f"{config_path or self.root}: no class names; expected `names:` in data.yaml, or classes.txt"
            )
        return list(read_labels(path)[1:])

    def _folder(self, config: dict[str, Any], split: str) -> Path:
        base = self.root / str(config.get("path") or "")
        candidates = []
        for name in SPLITS[split]:
            if isinstance(config.get(name), str):
                # Exporters write paths from elsewhere; what counts is where the folder is now.
                written = Path(config[name])
                parts = [part for part in written.parts if part not in ("..", ".")]
                candidates += [base / written, self.root / written, self.root.joinpath(*parts)]
            candidates += [self.root / "images" / name, self.root / name / "images"]
        for candidate in candidates:
            if candidate.is_dir():
                return candidate
        raise DataError(
            f"{self.root}: no pictures of the split {' or '.join(SPLITS[split])}; looked in "
            f"{', '.join(dict.fromkeys(map(str, candidates)))}"
        )

    def _read(self, folder: Path, names: list[str]) -> Iterator[Record]:
        for image_path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
            text_path = _text_path(image_path)
            objects = list(self._objects(text_path, names)) if text_path.is_file() else []
            yield self._record(text_path, image_path.stem, image_path, objects, relative=True)

    def _objects(self, path: Path, names: list[str]) -> Iterator[tuple[str, list[float], bool]]:
        """Read (name, relative corners, False) of each object."""
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as err:
            raise DataError(f"{path}: cannot be read as text ({err})") from err
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words:
                continue
            try:
                label, values = int(words[0]), [float(word) for word in words[1:]]
                if not 0 <= label < len(names) or len(values) < 4 or (len(values) > 5 and len(values) % 2):
                    raise ValueError
            except ValueError:
                self._note(path, f"line {number} left out: {line!r}, expected a class below {len(names)} and its box")
                continue
            if len(values) > 5:  # a polygon; five are a box with a confidence
                box = [min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])]
            else:
                x, y, width, height = values[:4]
                box = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            yield names[label], box, False


def _text_path(image_path: Path) -> Path:
    """Name the text file of a picture: the last folder called images becomes labels."""
    parts = list(image_path.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as err:
        raise DataError(f"{path}: needs PyYAML to be read; pip install pyyaml") from err
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(err).split())})") from err
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no settings; expected `names:` with the classes")
    return content
