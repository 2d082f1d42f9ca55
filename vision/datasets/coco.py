"""COCO's JSON: one file per split, with its images beside it or in a folder of the split's name."""

from __future__ import annotations

import functools
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from vision.datasets.defects import Defect
from vision.datasets.file_cache import FileCache
from vision.datasets.file_index import FileIndex
from vision.datasets.folder import SPLIT_NAMES, SPLITS, DatasetReader, ReadingOptions, SplitImages, may_be_of, splits_of
from vision.datasets.images import LFS_POINTER
from vision.datasets.labels import LabelList, check_labels, read_text
from vision.datasets.names import first_few, shorten
from vision.datasets.records import BoxFormat, RawImage, RawObject
from vision.datasets.tree import Tree, as_written, bounding_box
from vision.datasets.writer import AnnotationWriter, WrittenImage, refuse_existing
from vision.structures import DataError
from vision.utils.files import replacing

_KEYS = ("images", "annotations", "categories")

#: Beginnings of the names of COCO's files that hold no boxes.
_OTHER_KINDS = ("captions_", "image_info_", "panoptic_", "stuff_")

#: An image's name in a file that is not parsed.
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*"([^"]*)"')

#: Beginnings of the names of COCO's files with the boxes of its instances once more.
_REPEATED_KINDS = ("person_keypoints_", "keypoints_")

#: A share of crowds above this is a way of exporting: CVAT marks all brush masks so. COCO's own is 0.01, and below 0.1
#: in each of its classes. Where a single class has more crowds than other objects, it holds for that class.
MAX_CROWD_SHARE = 0.1

#: Fewer crowds than this are none of a way of exporting, whatever their share.
_MIN_CROWDS = 2

#: Bytes at either end of a file in which COCO's keys are looked for.
_PEEK = 1 << 16


class CocoReader(DatasetReader):
    """A dataset in COCO layout: `annotations/instances_train2017.json`, `train/_annotations.coco.json` and the like.

    All splits share one class list: the categories of all files by their ids, without those that only group others.
    Crowds count as difficult, unless too many are marked for the mark to mean anything, see `MAX_CROWD_SHARE`.
    """

    name = "coco"
    form = BoxFormat(states_size=True)

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, cache, options)
        self._files = _files(root)
        self._contents: dict[Path, dict[str, Any]] = {}

    @staticmethod
    def recognizes(root: Path) -> bool:
        """Whether a folder looks like this format."""
        return bool(_files(root))

    @staticmethod
    def begins_at(folder: Path) -> bool:
        """See `DatasetReader.begins_at`."""
        return bool(_files(folder).keys() - {"all"})

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """See `DatasetReader.annotated_images`."""
        count = 0
        for path in dict.fromkeys(_files(tree.root).values()):
            content = path.read_bytes()
            names = [match.decode(errors="replace") for match in _FILE_NAME.findall(content)]
            if b'"annotations"' in content:
                count += tree.count_by_sample(names, tree.holds)
        return count

    def listing(self, split: str) -> SplitImages | None:
        """Read the file whose name, or whose folder's name, says the split."""
        path = next((self._files[name] for name in SPLITS[split] if name in self._files), None)
        return None if path is None else self._listing_of(path)

    def all_images(self) -> SplitImages:
        """Read all files."""
        if not self._files:
            others = [path.name for path in sorted(self.root.glob("*.json"))]
            found = f"; {first_few(others)}: none of COCO's lists {', '.join(_KEYS)}" if others else ""
            raise DataError(
                f"{self.root}: no COCO file{found}; expected a name such as annotations/instances_train.json or "
                "train/_annotations.coco.json"
            )
        listings = [self._listing_of(path) for path in self._files.values()]
        images = [raw for listing in listings for raw in listing.images]
        defects = [defect for listing in listings for defect in listing.defects]
        if len(listings) == 1:
            return listings[0]
        return SplitImages(str(self.root), self.root, images, defects)

    def written_labels(self) -> LabelList:
        """Read the categories of all files."""
        names = {name: None for path in self._files.values() for name in _class_names(self._content(path))}
        return check_labels(list(names), next(iter(self._files.values())))

    def all_names(self) -> Iterator[str]:
        """Return the names of the categories of all annotations in all files."""
        for path in self._files.values():
            content = self._content(path)
            names = _categories(content)
            yield from (_name(names, annotation) for annotation in content["annotations"] if _box(annotation))

    def unlisted(self) -> list[Defect]:
        """See `DatasetReader.unlisted`; they are in files named after no split, or in a split's second file."""
        used = set(self._files.values())
        places = ("annotations/*.json", "*.json", *(f"{split}/*.coco.json" for split in SPLIT_NAMES))
        others = [path for place in places for path in sorted(self.root.glob(place)) if path not in used]
        others = [path for path in others if not path.name.startswith((*_OTHER_KINDS, *_REPEATED_KINDS))]
        others = [path for path in others if _looks_like_coco(path)]
        if not others:
            return []
        known = {str(image.get("file_name")) for path in used for image in self._content(path)["images"]}
        images, defects = FileIndex(self.root), []
        for path in others:
            content = path.read_bytes()
            names = {match.decode(errors="replace") for match in _FILE_NAME.findall(content)} - known
            names = {name for name in names if images.find(name)} if b'"annotations"' in content else set()
            if names:
                message = f"its {len(names)} annotated images are of no split, and not used: {first_few(sorted(names))}"
                defects.append(Defect("image-unlisted", path, message, things=len(names)))
        return defects

    @functools.cached_property
    def _crowd_classes(self) -> frozenset[str]:
        """The classes whose crowds are single objects, as their share says that this is a way of exporting."""
        crowds: Counter[str] = Counter()
        objects: Counter[str] = Counter()
        for path in self._files.values():
            content = self._content(path)
            names = _categories(content)
            for annotation in content["annotations"]:
                name = _name(names, annotation)
                objects[name] += 1
                crowds[name] += _is_crowd(annotation)
        if crowds.total() >= _MIN_CROWDS and crowds.total() > MAX_CROWD_SHARE * objects.total():
            return frozenset(objects)
        return frozenset(name for name, count in crowds.items() if count >= _MIN_CROWDS and 2 * count > objects[name])

    def _content(self, path: Path) -> dict[str, Any]:
        if path not in self._contents:
            self._contents[path] = _read(path)
        return self._contents[path]

    def _listing_of(self, path: Path) -> SplitImages:
        content = self._content(path)
        names = _categories(content)
        annotations = content["annotations"]
        places: dict[str, list[int]] = {}
        taken = 0
        for place, annotation in enumerate(annotations):
            taken += _is_crowd(annotation) and _name(names, annotation) in self._crowd_classes
            places.setdefault(_key(annotation.get("image_id")), []).append(place)

        def make(place: int) -> RawObject:
            annotation = annotations[place]
            name, written = _name(names, annotation), str(annotation.get("bbox", "missing"))
            crowd = _is_crowd(annotation) and name not in self._crowd_classes
            return RawObject(f"annotation {place + 1}", name, _box(annotation), crowd, written, crowd=crowd)

        folders = [FileIndex(folder) for folder in _image_folders(self.root, path) if folder.is_dir()]
        splits = splits_of(path.relative_to(self.root).as_posix(), by_name=True)
        images, defects = [], []
        if taken:
            message = (
                f"{taken} of {len(content['annotations'])} objects have `iscrowd` 1, far more than are crowds, as CVAT "
                "marks all brush masks; each is taken as a single object"
            )
            defects.append(Defect("crowd-usual", path, message, things=taken))
        met: set[str] = set()
        for image in content["images"]:
            name = str(image.get("file_name", "")).replace("\\", "/")
            image_id = name.rpartition(".")[0] or name
            key = _key(image.get("id"))
            if key in met or image.get("id") is None:
                detail = f"$image left out: another one has its id {key}, or it has none"
                own = [Defect("row-unreadable", path, detail, images=1, image_id=image_id)]
                images.append(RawImage(image_id, None, path, defects=own))
                continue
            met.add(key)
            found = _Objects(places.pop(key, []), make)
            fits = functools.partial(may_be_of, splits | splits_of(name, by_name=False))
            match = next(filter(None, (folder.find(name, fits=fits) for folder in folders)), None) if name else None
            own = []
            if match is None:
                message = f"image {shorten(name)} left out: no such file beside {path.name} or in folders of its split"
                own.append(Defect("image-missing", path, message, len(found), 1))
            width, height = _side(image.get("width")), _side(image.get("height"))
            stated = None if width is None or height is None else (width, height)
            images.append(RawImage(image_id, None if match is None else match.path, path, found, stated, own))
        strays = [place for of_image in places.values() for place in of_image]
        if strays:
            first = f"annotation {strays[0] + 1}"
            message = f"{len(strays)} annotations left out, their image_id is of no image; first: {first}"
            defects.append(Defect("row-unreadable", path, message, len(strays), things=len(strays)))
        return SplitImages(str(path), path, images, defects)


class _Objects(Sequence[RawObject]):
    """The objects of an image, made when they are looked at: those of all images would fill memory.

    Args:
        places: of the annotations in their file.
        make: an object of one.
    """

    def __init__(self, places: Sequence[int], make: Callable[[int], RawObject]) -> None:
        self._places, self._make = places, make

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> RawObject: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RawObject]: ...

    def __getitem__(self, index: int | slice) -> RawObject | Sequence[RawObject]:
        if isinstance(index, slice):
            return list(map(self._make, self._places[index]))
        return self._make(self._places[index])

    def __iter__(self) -> Iterator[RawObject]:
        return map(self._make, self._places)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


def _box(annotation: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """Return the corners of an annotation's box; where it has none, those of the box around its polygons."""
    if not annotation.get("bbox"):
        polygons = annotation.get("segmentation")
        if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
            return None
        return bounding_box(point for polygon in polygons for point in zip(polygon[::2], polygon[1::2], strict=False))
    try:
        x, y, width, height = (float(value) for value in annotation["bbox"])
    except (TypeError, ValueError, OverflowError):
        return None
    return x, y, x + width, y + height


def _is_crowd(annotation: dict[str, Any]) -> bool:
    return str(annotation.get("iscrowd")).lower() in ("1", "true")


def _side(value: Any) -> int | None:
    """Read a width or height, which some tools write as text or with decimals."""
    try:
        return round(float(value))
    except (TypeError, ValueError, OverflowError):
        return None


def _files(root: Path) -> dict[str, Path]:
    """Map the names of splits to their files; a file that names none stands for "all"."""
    found: dict[str, Path] = {}
    places = {
        "annotations": sorted(root.glob("annotations/*.json")),
        "": sorted(root.glob("*.json")),
    }
    for split in SPLIT_NAMES:
        word = re.compile(rf"(?<![a-z]){split}(?![a-z])", re.IGNORECASE)
        candidates = [path for path in places["annotations"] if word.search(path.stem)]
        candidates += [*sorted(root.glob(f"{split}/*.coco.json")), *sorted(root.glob(f"{split}/annotations.json"))]
        candidates += [path for path in places[""] if word.search(path.stem)]
        path = _first_of_objects(path for path in candidates if path not in found.values())
        if path is not None:
            found[split] = path
    if not found:
        path = _first_of_objects([*places["annotations"], *places[""]])
        if path is not None:
            found["all"] = path
    return found


def _first_of_objects(candidates: Iterable[Path]) -> Path | None:
    """Choose among files the one with objects: "instances" as COCO calls it, never captions or lists of images."""
    fitting = [path for path in candidates if not path.name.startswith(_OTHER_KINDS) and _looks_like_coco(path)]
    return min(fitting, key=lambda path: not path.name.startswith("instances"), default=None)


def _looks_like_coco(path: Path) -> bool:
    """Look for COCO's keys at the beginning and end of a file; one that is to be read and is broken counts."""
    try:
        with open(path, "rb") as file:
            head = file.read(_PEEK)
            file.seek(max(0, path.stat().st_size - _PEEK))
            text = head + file.read(_PEEK)
    except OSError:
        return False
    if text.startswith(LFS_POINTER):  # of a file that is to be read
        return True
    is_object = text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")
    return is_object and any(f'"{key}"'.encode() in text for key in _KEYS)


def _image_folders(root: Path, path: Path) -> list[Path]:
    """List where the images of a file may lie: beside it, and in folders named as its split."""
    splits = [name for name in SPLIT_NAMES if name in path.name or name == path.parent.name]
    year = "".join(character for character in path.stem if character.isdigit())
    named = [root / base / f"{split}{suffix}" for split in splits for suffix in (year, "") for base in ("", "images")]
    return list(dict.fromkeys([path.parent, *named, root / "images", root]))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, "COCO's JSON"), object_hook=_what_is_used)
    except ValueError as err:
        raise DataError(f"{path}: cannot be read as JSON ({err})") from err
    lacking = [key for key in _KEYS if not isinstance(content, dict) or not _is_list_of_dicts(content.get(key))]
    if lacking:
        raise DataError(f"{path}: lacks the lists {', '.join(lacking)}; expected COCO's {', '.join(_KEYS)}")
    return content


def _what_is_used(item: dict[str, Any]) -> dict[str, Any]:
    """Keep of an annotation with a box, or of an image, what is looked at: polygons of all would fill memory."""
    if item.get("bbox") and "image_id" in item:
        return {key: item[key] for key in ("image_id", "category_id", "bbox", "iscrowd") if key in item}
    if "file_name" in item:
        return {key: item[key] for key in ("id", "file_name", "width", "height") if key in item}
    return item


def _is_list_of_dicts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _key(number: Any) -> str:
    """Write an id as text; pandas makes 1.0 of 1."""
    return str(int(number) if isinstance(number, float) and number.is_integer() else number)


def _categories(content: dict[str, Any]) -> dict[str, str]:
    """Return the categories' names by id, the ids as text: some tools write numbers here and texts there."""
    return {
        _key(category.get("id")): as_written(category["name"])
        for category in content["categories"]
        if category.get("name") is not None
    }


def _name(names: dict[str, str], annotation: dict[str, Any]) -> str:
    """Return the name of an annotation's category; of one that is not in the list, what its id is called."""
    category = _key(annotation.get("category_id"))
    return names.get(category) or f"category {shorten(category, 20)}"


def _class_names(content: dict[str, Any]) -> list[str]:
    """Return the categories' names by id, without those that group others and have no objects of their own."""
    used = {_key(annotation.get("category_id")) for annotation in content["annotations"]}
    groups = {as_written(category.get("supercategory")) for category in content["categories"]}
    names = _categories(content)
    ids = sorted(names, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))
    return [names[key] for key in ids if key in used or names[key] not in groups]


class CocoWriter(AnnotationWriter):
    """Writes `images` and `annotations/instances_default.json`, as CVAT takes it; scores as in COCO's results.

    Images go into the file as they come; their objects into a temporary one that is appended at the end.
    """

    name = "coco"

    def __enter__(self) -> AnnotationWriter:
        super().__enter__()
        path = self.root / "annotations" / "instances_default.json"
        refuse_existing(path)
        path.parent.mkdir(exist_ok=True)
        temporary = self._contexts.enter_context(replacing(path))
        self._file = self._contexts.enter_context(open(temporary, "w", encoding="utf-8"))
        self._objects = self._contexts.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
        self._contexts.callback(self._complete)
        self._ids = {name: number for number, name in enumerate(self.class_names, start=1)}
        self._images_written = self._objects_written = 0
        self._file.write('{"images": [')
        return self

    def add(self, image: WrittenImage) -> None:
        """Write the objects of an image."""
        width, height = image.size
        facts = {"id": self._images_written, "file_name": str(image.name), "width": width, "height": height}
        self._file.write(("," if self._images_written else "") + "\n" + json.dumps(facts))
        for name, (x1, y1, x2, y2), score in image.objects():
            entry = {
                "id": self._objects_written + 1,
                "image_id": self._images_written,
                "category_id": self._ids[name],
                "bbox": [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                "area": round((x2 - x1) * (y2 - y1), 2),
                "iscrowd": 0,
                "score": round(score, 4),
            }
            self._objects.write(("," if self._objects_written else "") + "\n" + json.dumps(entry))
            self._objects_written += 1
        self._images_written += 1

    def _complete(self) -> None:
        self._file.write('\n], "annotations": [')
        self._objects.seek(0)
        shutil.copyfileobj(self._objects, self._file)
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in self._ids.items()]
        self._file.write(f'\n], "categories": {json.dumps(categories)}}}\n')
