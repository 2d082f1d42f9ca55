"""YOLO's layout: a text file of `class cx cy width height` lines per picture, relative to it, and `data.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vision.datasets.facts import FileFacts
from vision.datasets.folder import SPLITS, Folder, Listing, ReadingOptions
from vision.datasets.labels import LabelList, check_labels, read_text, written_names
from vision.datasets.pictures import files_below
from vision.datasets.records import Defect, Form, RawObject, RawPicture
from vision.structures import IMAGE_SUFFIXES, DataError

CONFIG_FILES = ("data.yaml", "data.yml", "dataset.yaml")
LABEL_FILES = ("labels.txt", "classes.txt", "obj.names")


class YoloFolder(Folder):
    """A dataset in YOLO layout: `images/train` with `labels/train`, or `train/images` with `train/labels`.

    The classes are those of `data.yaml` (`names`), else of `labels.txt`, `classes.txt` or `obj.names`. Polygons
    become the boxes around them. A picture without a text file has no objects.
    """

    name = "yolo"
    form = Form(relative=True)

    def __init__(self, root: Path, facts: FileFacts | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, facts, options)
        self.config_path = next((path for name in CONFIG_FILES if (path := root / name).is_file()), None)
        self.config = {} if self.config_path is None else _read_yaml(self.config_path)
        self.numbered_names, self.labels = self._read_names()

    @staticmethod
    def recognises(root: Path) -> bool:
        """Tell whether a folder looks like this format."""
        has_config = any((root / name).is_file() for name in CONFIG_FILES)
        return has_config or any((root / name).is_dir() for name in ("images/train", "train/labels")) or _is_flat(root)

    def listing(self, split: str) -> Listing | None:
        """Read the pictures below the folder of a split, or those that a text file of the split lists."""
        base = self.root / str(self.config.get("path") or "")
        candidates = []
        for name in SPLITS[split]:
            if isinstance(self.config.get(name), str):
                # Exporters write paths from elsewhere; what counts is where the folder is now.
                written = Path(self.config[name])
                parts = [part for part in written.parts if part not in ("..", ".")]
                candidates += [base / written, self.root / written, self.root.joinpath(*parts)]
            candidates += [self.root / "images" / name, self.root / name / "images"]
        place = next((path for path in candidates if path.exists()), None)
        return None if place is None else self._listing_of(place)

    def everything(self) -> Listing:
        """Read all pictures below `images`, or below the root."""
        return self._listing_of(self.root / "images" if (self.root / "images").is_dir() else self.root)

    def written_labels(self) -> LabelList:
        """Read the names of `data.yaml`, or of a file beside it."""
        return self.labels

    def all_names(self) -> Iterator[str]:
        """Give the names of the classes that occur in any text file."""
        for path in files_below(self.root, (".txt",)):
            if Path(path).name not in LABEL_FILES:
                for line in filter(str.split, self._lines(self.root / path)[0]):
                    item = self._object(1, line)
                    if item.name and item.box:
                        yield item.name

    def _read_names(self) -> tuple[list[str], LabelList]:
        """Give the names by number, and as a list of classes; they differ where a name is repeated or a background."""
        names = self.config.get("names")
        if isinstance(names, dict):
            try:
                by_number = {int(key): str(name) for key, name in names.items()}
            except ValueError as err:
                raise DataError(f"{self.config_path}: `names:` has keys that are no numbers ({err})") from err
            names = [by_number.get(number, f"class {number}") for number in range(max(by_number, default=-1) + 1)]
        if isinstance(names, list) and names:
            names = [str(name).strip() for name in names]
            return names, check_labels(names, self.config_path)
        path = next((path for name in LABEL_FILES if (path := self.root / name).is_file()), None)
        if path is None:
            raise DataError(
                f"{self.config_path or self.root}: no class names; expected `names:` in data.yaml, or classes.txt"
            )
        names = written_names(path)
        return names, check_labels(names, path)

    def _listing_of(self, place: Path) -> Listing:
        if place.is_file():
            lines = [line.strip() for line in read_text(place, "a picture's path a line").splitlines()]
            paths = [self._located(line) for line in lines if line]
        else:
            paths = [place / path for path in files_below(place, IMAGE_SUFFIXES)]
        if not paths:
            raise DataError(f"{place}: holds no picture ({', '.join(IMAGE_SUFFIXES)})")
        return Listing(str(place), [self._picture(path) for path in paths], [])

    def _located(self, line: str) -> Path:
        """Find a listed picture: as it is written, from the root, or by the end of its path."""
        parts = [part for part in line.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        tails = [self.root.joinpath(*parts[start:]) for start in range(len(parts))]
        return next((path for path in (Path(line), *tails) if path.is_file()), self.root / line)

    def _picture(self, image_path: Path) -> RawPicture:
        text_path = _text_path(image_path)
        found = image_path if image_path.is_file() else None
        lines, error = self._lines(text_path)
        if error is not None:
            defect = Defect(
                "annotation-unreadable", text_path, f"picture {image_path.stem} left out: {error}", pictures=1
            )
            return RawPicture(image_path.stem, found, text_path, defects=[defect])
        objects = [self._object(number, line) for number, line in enumerate(lines, 1) if line.split()]
        return RawPicture(image_path.stem, found, text_path, objects)

    def _lines(self, path: Path) -> tuple[list[str], str | None]:
        """Read a text file's lines, and why it cannot be read; a picture without one has no objects."""
        try:
            lines, error = self.facts.get("yolo", path, _read_lines)
        except FileNotFoundError:
            return [], None
        return lines, error

    def _object(self, number: int, line: str) -> RawObject:
        """Read an object of a line that is not blank; one that cannot be read has no box."""
        where, words = f"line {number}", line.split()
        try:
            label = int(float(words[0]))
            known = 0 <= label < len(self.numbered_names)
            name = self.numbered_names[label] if known else f"class {label}"
        except (ValueError, OverflowError):
            name = words[0]
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        if len(values) < 4 or (len(values) > 5 and len(values) % 2):
            return RawObject(where, name, None, written=repr(line))
        if len(values) > 5:  # a polygon; five are a box with a confidence
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            x, y, width, height = values[:4]
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return RawObject(where, name, box, written=repr(line))


def _is_flat(root: Path) -> bool:
    """Tell whether pictures and texts lie in `images` and `labels`, or beside each other with a list of classes."""
    if (root / "images").is_dir() and next((root / "labels").glob("*.txt"), None) is not None:
        return True
    return any((root / name).is_file() for name in LABEL_FILES[1:]) and any(
        path.with_suffix(".txt").is_file() for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
    )


def _read_lines(path: Path) -> tuple[list[str], str | None]:
    try:
        return read_text(path, "a line per object").splitlines(), None
    except DataError as err:
        return [], str(err)


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
        content = yaml.safe_load(read_text(path, "YAML"))
    except yaml.YAMLError as err:
        raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(err).split())})") from err
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no settings; expected `names:` with the classes")
    return content
