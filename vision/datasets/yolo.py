"""YOLO's layout: a text file of `class cx cy width height` lines per image, relative to it, and `data.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vision.datasets.file_cache import FileCache
from vision.datasets.folder import SPLIT_NAMES, SPLITS, Folder, Listing, ReadingOptions
from vision.datasets.images import files_below
from vision.datasets.labels import LabelList, check_labels, read_lines, read_text, written_names
from vision.datasets.records import Defect, Form, RawImage, RawObject, some
from vision.datasets.tree import Tree, try_to
from vision.structures import IMAGE_SUFFIXES, DataError

CONFIG_FILES = ("data.yaml", "data.yml", "dataset.yaml")
LABEL_FILES = ("labels.txt", "classes.txt", "obj.names")
#: A list of classes in each split's folder, as Roboflow writes for Darknet.
_DARKNET_LABELS = "_darknet.labels"
#: How YAML writes that a setting has no value.
_NOTHING = ("", "~", "null", "Null", "NULL")
#: What settings of any name have.
_SETTINGS = {"names", "train"}

#: A line of an object: the number of its class, then at least four numbers.
_LINE = re.compile(r"\s*\d+(\s+-?[\d.]+([eE][-+]?\d+)?){4,}\s*$")
_USUAL_FOLDERS = ("images/train", "train/labels")


class YoloFolder(Folder):
    """A dataset in YOLO layout: `images/train` with `labels/train`, or `train/images` with `train/labels`.

    The classes are those of `data.yaml` (`names`), else of `labels.txt`, `classes.txt` or `obj.names`. Polygons
    become the boxes around them. An image without a text file has no objects.
    """

    name = "yolo"
    form = Form(relative=True)
    own_files = True

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, cache, options)
        self.config_path = _config_of(root)
        self.config = {} if self.config_path is None else _read_yaml(self.config_path)
        self.numbered_names, self.labels = self._read_names()

    @staticmethod
    def recognises(root: Path) -> bool:
        """Whether a folder looks like this format."""
        has_names = (root / "obj.names").is_file()
        has_folders = any((root / name).is_dir() for name in _USUAL_FOLDERS)
        return _config_of(root) is not None or has_names or has_folders or _is_flat(root)

    @staticmethod
    def begins_at(folder: Path) -> bool:
        """See `Folder.begins_at`."""
        return _config_of(folder) is not None

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """See `Folder.annotated_images`."""

        def fits(path: str) -> bool | None:
            lines = try_to(lambda file: read_text(file, "").splitlines(), tree.root / path)
            lines = [line for line in lines or () if line.strip()]
            if not lines:
                return None
            good = sum(_LINE.match(line) is not None for line in lines)
            return 2 * good > len(lines) and tree.holds(path)

        return tree.count_by_sample([path for path in tree.ending(".txt") if Path(path).name not in LABEL_FILES], fits)

    def listing(self, split: str) -> Listing | None:
        """Read the images below the folders of a split, or those that text files of the split list."""
        written = next((self.config[name] for name in SPLITS[split] if self.config.get(name)), None)
        places, defects = [], []
        for item in written if isinstance(written, list) else [written] if written else []:
            place = self._place(str(item))
            if place is not None:
                places.append(place)
            else:
                message = f"says that images for {split} are in {item}, which is not there"
                defects.append(Defect("path-missing", self.config_path, message))
        if not places:
            usual = [
                self.root / place
                for name in SPLITS[split]
                for place in (f"images/{name}", f"{name}/images", f"{name}.txt", f"obj_{name}_data", name)
            ]
            places = [path for path in usual if path.exists()][:1]
        if not places:
            return None
        listings = [self._listing_of(place) for place in places]
        return Listing(
            " + ".join(listing.title for listing in listings),
            places[0],
            [raw for listing in listings for raw in listing.images],
            [*defects, *(defect for listing in listings for defect in listing.defects)],
        )

    def _place(self, written: str) -> Path | None:
        """Find a path of the settings; exporters write paths from elsewhere, what counts is where the folder is now."""
        parts = [part for part in written.replace("\\", "/").split("/") if part not in ("..", ".", "")]
        base = self.root / str(self.config.get("path") or "")
        tails = [self.root.joinpath(*parts[start:]) for start in range(len(parts))]
        return next((path for path in (base / written, self.root / written, *tails) if path.exists()), None)

    def everything(self) -> Listing:
        """Read all images below `images`, or below the root."""
        return self._listing_of(self.root / "images" if (self.root / "images").is_dir() else self.root)

    def written_labels(self) -> LabelList:
        """Read the names of `data.yaml`, or of a file beside it."""
        return self.labels

    def all_names(self) -> Iterator[str]:
        """Return the names of the classes that occur in any text file."""
        for path in files_below(self.root, (".txt",)):
            if Path(path).name not in LABEL_FILES:
                for line in filter(str.split, self._lines(self.root / path)[0]):
                    item = self._object(1, line)
                    if item.name and item.box:
                        yield item.name

    def _read_names(self) -> tuple[list[str], LabelList]:
        """Names by number, and as a list of classes; they differ where a name is repeated or a background."""
        names = self.config.get("names")
        if isinstance(names, dict):
            try:
                by_number = {int(key): str(name) for key, name in names.items()}
            except (TypeError, ValueError) as err:
                raise DataError(f"{self.config_path}: `names:` has keys that are no numbers ({err})") from err
            names = [by_number.get(number, f"class {number}") for number in range(max(by_number, default=-1) + 1)]
        if isinstance(names, list) and names:
            names = [str(name).strip() for name in names]
            return names, check_labels(names, self.config_path)
        places = [self.root / name for name in LABEL_FILES]
        places += [self.root / folder / _DARKNET_LABELS for folder in ("", *SPLIT_NAMES)]
        path = next((path for path in places if path.is_file()), None)
        if path is None:
            raise DataError(
                f"{self.config_path or self.root}: no class names; expected `names:` in data.yaml, or classes.txt"
            )
        names = written_names(path)
        return names, check_labels(names, path)

    def _listing_of(self, place: Path) -> Listing:
        defects: list[Defect] = []
        if place.is_file():
            lines = [line.strip() for line in read_text(place, "an image's path a line").splitlines()]
            paths = [self._located(line) for line in lines if line]
        else:
            paths = [place / path for path in files_below(place, IMAGE_SUFFIXES)]
            defects = self._texts_of_nothing(place, paths)
        if not paths:
            raise DataError(f"{place}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
        images = [self._image(path, place) for path in paths]
        without = [raw.image_id for raw in images if raw.image_path and not raw.source.is_file()]
        if without:
            message = f"{len(without)} images have no text file, taken as without objects: {some(without)}"
            defects.append(Defect("annotation-absent", place, message, things=len(without)))
        return Listing(str(place), place, images, defects)

    def _texts_of_nothing(self, place: Path, paths: list[Path]) -> list[Defect]:
        """Text files beside which no image is found."""
        folder = self._text_path(place / "any.jpg").parent
        claimed = {self._text_path(path) for path in paths}
        others = (*LABEL_FILES, *(f"{name}.txt" for name in SPLIT_NAMES))
        defects = []
        for path in (folder / name for name in files_below(folder, (".txt",))) if folder.is_dir() else ():
            if path in claimed or path.name in others or path.name.lower().startswith("readme"):
                continue
            lines, _ = self._lines(path)
            objects = [line for line in lines if line.split()]
            if all(self._object(1, line).box for line in objects):
                message = f"its {len(objects)} objects left out: no image of that name in {place}"
                defects.append(Defect("image-missing", path, message, len(objects)))
        return defects

    def _located(self, line: str) -> Path:
        """Find a listed image: as it is written, from the root, or by the end of its path."""
        parts = [part for part in line.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        tails = [self.root.joinpath(*parts[start:]) for start in range(len(parts))]
        absolute = [Path(line)] if Path(line).is_absolute() else []
        return next((path for path in (*tails, *absolute) if path.is_file()), self.root / line)

    def _image(self, image_path: Path, place: Path) -> RawImage:
        folder = place if place.is_dir() else self.root
        below = image_path.relative_to(folder) if image_path.is_relative_to(folder) else Path(image_path.name)
        image_id = below.as_posix().rpartition(".")[0]
        text_path = self._text_path(image_path)
        found = image_path if image_path.is_file() else None
        lines, error = self._lines(text_path)
        if error is not None:
            defect = Defect("annotation-unreadable", text_path, f"image {image_id} left out: {error}", images=1)
            return RawImage(image_id, found, text_path, defects=[defect])
        objects = [self._object(number, line) for number, line in enumerate(lines, 1) if line.split()]
        return RawImage(image_id, found, text_path, objects)

    def _text_path(self, image_path: Path) -> Path:
        """Path of the text file of an image: the last folder called images becomes labels.

        Of an image below the root those above it do not count. Paths in `data.yaml` may be absolute, and lead to the
        root by another way than --data, or elsewhere.
        """
        root = self.root if image_path.is_relative_to(self.root) else Path(image_path.anchor)
        parts = list(image_path.relative_to(root).with_suffix(".txt").parts)
        for place in range(len(parts) - 2, -1, -1):
            if parts[place] == "images":
                parts[place] = "labels"
                break
        return root.joinpath(*parts)

    def _lines(self, path: Path) -> tuple[list[str], str | None]:
        """Read a text file's lines, and why it cannot be read; an image without one has no objects."""
        try:
            lines, error = self.cache.get("yolo", path, partial(read_lines, expected="a line per object"))
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
        if self.config.get("kpt_shape"):  # points of a pose follow the box
            values = values[:4]
        if len(values) < 4 or (len(values) > 5 and len(values) % 2):
            return RawObject(where, name, None, written=repr(line))
        if len(values) > 5:  # a polygon; five are a box with a confidence
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            x, y, width, height = values[:4]
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return RawObject(where, name, box, written=repr(line))


def _config_of(root: Path) -> Path | None:
    """Find the settings: by a usual name, else any YAML file with classes and places of images."""
    usual = next((path for name in CONFIG_FILES if (path := root / name).is_file()), None)
    if usual is not None:
        return usual
    others = sorted(path for path in root.iterdir() if path.suffix.lower() in (".yaml", ".yml") and path.is_file())
    return next((path for path in others if _SETTINGS.issubset(try_to(_read_yaml, path) or ())), None)


def _is_flat(root: Path) -> bool:
    """Whether images and texts lie in `images` and `labels`, or beside each other with a list of classes."""
    if (root / "images").is_dir() and next((root / "labels").glob("*.txt"), None) is not None:
        return True
    return any((root / name).is_file() for name in LABEL_FILES[1:]) and any(
        path.with_suffix(".txt").is_file() for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    """Read settings, all values as the texts that stand there; a setting without a value is None."""
    try:
        import yaml
    except ImportError as err:
        raise DataError(f"{path}: needs PyYAML to be read; pip install pyyaml") from err

    class TextLoader(yaml.SafeLoader):
        """Leaves all plain values as they are written: `on`, `010`, `null` and `12:30` may be names of classes."""

        yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merging of mappings alone

    text = read_text(path, "YAML")
    try:
        content = yaml.load(text, TextLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(err).split())})") from err
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no settings; expected `names:` with the classes")
    return {key: None if value in _NOTHING else value for key, value in content.items()}
