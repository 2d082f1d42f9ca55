"""Pascal VOC's layout: an XML file per image, and lists of images; as every tool writes it a little differently."""

from __future__ import annotations

import functools
import logging
import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vision.datasets.base import DetectionDataset
from vision.datasets.defects import Defect, ambiguous_image, differing_name, log_defects, unannotated
from vision.datasets.file_cache import FileCache
from vision.datasets.folder import SPLIT_NAMES, SPLITS, DatasetReader, ReadingOptions, SplitImages, may_be_of, splits_of
from vision.datasets.images import LFS_POINTER, LFS_PULL, FileIndex, FileMatch, files_below, other_suffixes
from vision.datasets.labels import LabelList, read_label_list, read_labels, read_text
from vision.datasets.names import EXAMPLES, first_few, shorten
from vision.datasets.records import BoxFormat, RawImage, RawObject, are_fractions
from vision.datasets.tree import Tree, try_to
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: Lists that are looked for, in this order.
LISTS = {
    "train": ("trainval", "train", "default"),
    "test": ("test", "val", "default"),
    "val": ("val", "test", "default"),
}

#: Folders of lists below the root, in this order; in any case.
_LIST_FOLDERS = (("imagesets", "main"), ("imagesets",), ())

#: Folders of annotations and of images, in any case; without them, any folder below the root may hold some.
_ANNOTATION_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels")
_IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")

#: Beginnings of the names of folders whose images are masks.
_MASK_FOLDERS = ("segmentation", "mask")

#: Files of class names that are looked for, in this order; the second is CVAT's.
LABEL_FILES = ("labels.txt", "labelmap.txt")

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
#: An XML declaration up to the end, with the encoding that it names.
_ENCODING = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*\?>")

_TRUE = ("1", "true")
_FALSE = ("0", "false")

#: How deep below the given folder a dataset may begin, as archives wrap it in folders of their own.
_DEEPEST = 3


class _Annotation(NamedTuple):
    """What an XML file says; plain values, so that they can be kept between runs."""

    file_name: str
    size: list[int] | None
    objects: list[list[Any]]  # name, four texts or None, difficult as text or None
    error: str | None
    first_pixel: int | None = None  # where it is not VOC's


class VocReader(DatasetReader):
    """A dataset in VOC layout.

    Lists lie in `ImageSets/Main`, `ImageSets` or the root; without any, folders called train, valid and test split the
    images. Annotations lie in `Annotations`, or beside the images.
    """

    name = "voc"
    form = BoxFormat(first_pixel=1, states_size=True, whole_pixels=True)

    own_files = True

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, cache, options)
        self.base = _base(root) or root
        self.annotation_folder = _annotation_folder(self.base) or self.base
        self.image_folder = _subfolder(self.base, _IMAGE_FOLDERS) or self.base
        say_the_kind = (*_ANNOTATION_FOLDERS, *_IMAGE_FOLDERS)
        self.annotations = FileIndex(self.annotation_folder, (".xml",), say_the_kind)
        self.images = FileIndex(self.image_folder, transparent=say_the_kind, left_out=_MASK_FOLDERS)
        self._listed_annotations: set[Path] = set()
        self._lists_read: set[Path] = set()

    @staticmethod
    def recognizes(root: Path) -> bool:
        """Whether a folder looks like this format."""
        return _base(root) is not None

    @staticmethod
    def begins_at(folder: Path) -> bool:
        """See `DatasetReader.begins_at`."""
        return _is_laid_out(folder)

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """See `DatasetReader.annotated_images`."""

        def fits(path: str) -> bool:
            annotation = try_to(_parse, tree.root / path)
            if annotation is None or annotation.error is not None:
                return False
            return tree.holds(path) or (bool(annotation.file_name) and tree.holds(annotation.file_name))

        return tree.count_by_sample(tree.ending(".xml"), fits)

    def listing(self, split: str) -> SplitImages | None:
        """Read the images of a list, of per-class lists, or of a folder that is named as the split.

        A list that is the one to train on, as CVAT's `default.txt` alone, is none to validate on.
        """
        paths = self._lists(split)
        if paths and (split == "train" or paths != self._lists("train")):
            return self._listing_of(paths)
        for wanted in SPLITS[split]:
            annotations = [path for path in self.annotations.paths if wanted in path.lower().split("/")[:-1]]
            if annotations:
                folder = self.annotation_folder / wanted
                return SplitImages(str(folder), folder, *self._all_of(annotations, wanted))
        return None

    def published_listing(self, split: str) -> SplitImages | None:
        """Read the images of the list that upstream's code takes, which may be one for training and validation."""
        paths = self._lists(split)
        return self._listing_of(paths) if paths else self.listing(split)

    def _lists(self, split: str) -> list[Path]:
        """Find the list of a split, or its lists of classes; [] where there are none."""
        for names in _LIST_FOLDERS:
            folder = _subfolder(self.base, *([name] for name in names)) if names else self.base
            texts = {} if folder is None else {path.stem.lower(): path for path in sorted(folder.glob("*.txt"))}
            for wanted in LISTS[split]:
                if wanted in texts:
                    return [texts[wanted]]
                per_class = [path for stem, path in texts.items() if stem.endswith(f"_{wanted}")]
                if per_class:
                    return per_class
        return []

    def all_images(self) -> SplitImages:
        """Read every image that has an XML file."""
        if not self.annotations.paths:
            raise DataError(
                f"{self.root}: no image set and no XML file; expected Annotations/*.xml with JPEGImages, or XML "
                "files beside their images"
            )
        folder = self.annotation_folder
        return SplitImages(str(folder), folder, *self._all_of(self.annotations.paths))

    def _all_of(self, paths: Sequence[str], split: str | None = None) -> tuple[list[RawImage], list[Defect]]:
        """Read XML files with their images, and name the images that none of them is about."""
        images = [self._annotated(path) for path in paths]
        used = {raw.image_path for raw in images}
        free = [
            path
            for path in self.images.paths
            if self.image_folder / path not in used and (split is None or split in path.lower().split("/")[:-1])
        ]
        return images, unannotated(free, self.image_folder, len(used - {None}))

    def written_labels(self) -> LabelList | None:
        """Read `labels.txt` or CVAT's `labelmap.txt`."""
        folders = (self.base, self.root)
        paths = [folder / name for folder in folders for name in LABEL_FILES if (folder / name).is_file()]
        return read_label_list(paths[0]) if paths else None

    def all_names(self) -> Iterator[str]:
        """Return the names of all objects in all XML files, listed or not."""
        for path in self.annotations.paths:
            annotation = self._read(self.annotation_folder / path)
            if annotation.error is not None:
                logger.warning("%s: not read for class names, %s", self.annotation_folder / path, annotation.error)
            yield from (name for name, corners, _ in annotation.objects if name and _may_be_box(corners))

    def unlisted(self) -> list[Defect]:
        """See `DatasetReader.unlisted`."""
        lists = self._all_lists()
        if lists:
            rest = self._paths_but(self._listed_annotations)
            for path in lists if rest else ():
                if path not in self._lists_read:
                    found = map(self.annotations.find, self._names(path, set()))
                    self._listed_annotations |= {annotation.path for annotation in found if annotation is not None}
            rest = self._paths_but(self._listed_annotations)
        else:
            rest = [path for path in self.annotations.paths if not set(SPLIT_NAMES) & set(path.lower().split("/")[:-1])]
        names = [path for path in rest if self.images.find(path) or self._annotated(path).image_path]
        if not names:
            return []
        source = lists[0].parent if lists else self.base
        message = (
            f"{len(names)} annotated images are of no {'list' if lists else 'split'}, and not used: {first_few(names)}"
        )
        return [Defect("image-unlisted", source, message, things=len(names))]

    def _all_lists(self) -> list[Path]:
        """List all files of image names, of whatever split, in the folder that `_lists` reads."""
        found = [path for split in LISTS for path in self._lists(split)]
        wanted = {name for names in LISTS.values() for name in names}
        folders = dict.fromkeys(path.parent for path in found)
        return [
            path
            for folder in folders
            for path in sorted(folder.glob("*.txt"))
            if path in found or path.stem.lower().rpartition("_")[2] in wanted
        ]

    def _paths_but(self, known: set[Path]) -> list[str]:
        """List the annotation files but these."""
        names = {str(path) for path in known}
        folder = f"{self.annotation_folder}/"
        return [path for path in self.annotations.paths if folder + path not in names]

    def _listing_of(self, paths: list[Path]) -> SplitImages:
        """Read lists of names; several are per-class lists, which together name the images."""
        names: list[str] = []
        self._lists_read.update(paths)
        for path in paths:
            names += self._names(path, known=set(names) if len(paths) > 1 else set())
        title = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more lists of classes"
        if not names:
            raise DataError(
                f"{title}: lists no image; write an image's name a line, or take the file away and hold some out "
                "with --val-split=0.2"
            )
        return SplitImages(title, paths[0], [self._listed(name, paths[0]) for name in names], [])

    def _names(self, path: Path, known: set[str]) -> Iterator[str]:
        """Return the names of a list, without the column of 1 and -1 that lists of a class have."""
        for line in read_text(path, "an image's name a line").splitlines():
            name = line.strip()
            words = name.rsplit(None, 1)
            if len(words) == 2 and words[1] in ("1", "-1", "0") and not self._is_known(name):
                name = words[0]
            if name and name not in known:
                yield name

    def _is_known(self, name: str) -> bool:
        return self.images.find(name) is not None or self.annotations.find(name) is not None

    def _listed(self, name: str, list_path: Path) -> RawImage:
        """Find image and annotation of a name in a list, which may be a path, and with or without a suffix."""
        annotation = self.annotations.find(name)
        if annotation is not None:
            self._listed_annotations.add(annotation.path)
            return self._image(annotation.path, name, list_path)
        image = self.images.find(name)
        if image is None:
            return RawImage(name, None, list_path, defects=[self._without_image(name, list_path, 0)])
        image_id = self._id_of(image.path)
        detail = f"$image left out: no XML in {self.annotation_folder}"
        defect = Defect("annotation-missing", list_path, detail, images=1, image_id=image_id)
        return RawImage(image_id, image.path, list_path, defects=[defect])

    def _annotated(self, path: str) -> RawImage:
        """Find the image of an XML file."""
        return self._image(self.annotation_folder / path, path, None)

    def _image(self, path: Path, name: str, list_path: Path | None) -> RawImage:
        """Put an annotation and its image together, which is sought by its name and the one that the XML gives it."""
        annotation = self._read(path)
        splits = splits_of(path.relative_to(self.annotation_folder).as_posix(), by_name=False)
        fits = functools.partial(may_be_of, splits)
        found = self._find(self.images, name, annotation.file_name, fits)
        if found is None and self._all_images is not None:
            found = self._find(self._all_images, name, annotation.file_name, fits)
        if found is None:
            defect = self._without_image(name, list_path or path, len(annotation.objects))
            if annotation.error is not None:
                defect = Defect("annotation-unreadable", path, f"left out: {annotation.error}", images=1)
            return RawImage(path.stem, None, path, self._objects(annotation), defects=[defect])
        image_path = found.path
        image_id = self._id_of(image_path)
        if annotation.error is not None:
            detail = f"$image left out: {annotation.error}; repair the file or remove it from the dataset"
            defect = Defect("annotation-unreadable", path, detail, images=1, image_id=image_id)
            return RawImage(image_id, image_path, path, defects=[defect])
        size = None if annotation.size is None else (annotation.size[0], annotation.size[1])
        objects = self._objects(annotation)
        doubts = [*self._doubts(path, annotation, found), *differing_name(found, name, list_path or path)]
        relative = are_fractions(objects)
        return RawImage(image_id, image_path, path, objects, size, doubts, relative, annotation.first_pixel)

    def _doubts(self, path: Path, annotation: _Annotation, found: FileMatch) -> list[Defect]:
        defects = ambiguous_image(found, path)
        unsaid = [
            number
            for number, (_, _, difficult) in enumerate(annotation.objects, start=1)
            if (difficult or "").lower() not in (*_TRUE, *_FALSE)
        ]
        if unsaid:
            message = f"object {', '.join(map(str, unsaid))}: no <difficult> of 0 or 1, taken as 0"
            defects.append(Defect("difficult-missing", path, message))
        return defects

    def _without_image(self, name: str, source: Path, objects: int) -> Defect:
        detail = f"$image left out: no image of that name in {self.image_folder}"
        if not len(self.images):
            detail += f", which holds {self._other_files}"
        return Defect("image-missing", source, detail, objects, 1, image_id=name.removesuffix(".xml"))

    @staticmethod
    def _find(index: FileIndex, name: str, file_name: str, fits: Callable[[str], bool]) -> FileMatch | None:
        return index.find(name, file_name, fits) or (index.find(file_name, fits=fits) if file_name else None)

    @functools.cached_property
    def _all_images(self) -> FileIndex | None:
        """The images of the whole dataset, for those that are not where they usually are; None if that is where."""
        if self.image_folder == self.root:
            return None
        return FileIndex(self.root, transparent=(*_ANNOTATION_FOLDERS, *_IMAGE_FOLDERS), left_out=_MASK_FOLDERS)

    @functools.cached_property
    def _other_files(self) -> str:
        others = other_suffixes(self.image_folder)
        return f"{', '.join(others)} files" if others else "none"

    def _id_of(self, image_path: Path) -> str:
        folder = self.image_folder if image_path.is_relative_to(self.image_folder) else self.root
        return image_path.relative_to(folder).as_posix().rpartition(".")[0]

    @staticmethod
    def _objects(annotation: _Annotation) -> list[RawObject]:
        found = []
        for number, (name, corners, difficult) in enumerate(annotation.objects, start=1):
            box: tuple[float, float, float, float] | None
            try:
                x1, y1, x2, y2 = map(float, corners)
                box = (x1, y1, x2, y2)
            except (TypeError, ValueError):
                box = None
            is_difficult = (difficult or "").lower() in _TRUE
            written = "[" + ", ".join(map(str, corners)) + "]" if corners else "missing"
            found.append(RawObject(f"object {number}", name, box, is_difficult, written))
        return found

    def _read(self, path: Path) -> _Annotation:
        try:
            return _Annotation(*self.cache.get("voc", path, _parse))
        except OSError as err:
            return _Annotation("", None, [], f"cannot be read ({err.strerror})")


class VOCDataset(DetectionDataset):
    """A split of a dataset in VOC layout.

    The classes are those of `labels.txt` or CVAT's `labelmap.txt`; without these, the names found in all annotations.

    Args:
        root: the folder with `Annotations`, `JPEGImages` and `ImageSets`, or another that `VocReader` understands.
        transform: see `DetectionDataset`.
        target_transform: see `DetectionDataset`.
        is_test: read the first of the lists test, val, default; else of trainval, train, default.
        keep_difficult: see `DetectionDataset`.
        label_file: class names, in the place of `labels.txt`.

    Raises:
        DataError: there is no such folder, or no image in it that can be used.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        is_test: bool = False,
        keep_difficult: bool = False,
        label_file: str | Path | None = None,
    ) -> None:
        self.root = Path(root)
        folder = VocReader(self.root)
        split = "test" if is_test else "train"
        contents = folder.read(folder.published_listing(split) or folder.split(split))
        class_names = folder.class_names() if label_file is None else read_labels(label_file)
        defects = folder.label_list.defects if label_file is None else ()
        super().__init__(
            contents.records,
            class_names,
            transform,
            target_transform,
            keep_difficult,
            [*defects, *contents.defects],
            **contents.origin,
        )
        log_defects([*self.defects, *self.class_defects()])


def _base(root: Path) -> Path | None:
    """Find where a dataset of this layout begins: at the root, or in folders that an archive wrapped around it.

    Raises:
        DataError: several datasets lie side by side.
    """
    level = [root]
    for _ in range(_DEEPEST + 1):
        fitting = [folder for folder in level if _begins_in(folder)]
        if len(fitting) == 1 and not (several := _datasets_beside_flat_ones(fitting[0])):
            return fitting[0]
        if len(fitting) == 1:
            return several[0] if len(several) == 1 else _common_base(root, several)
        if fitting:
            return _common_base(root, fitting)
        level = [child for folder in level for child in _folders(folder)]
    return None


def _common_base(root: Path, fitting: list[Path]) -> Path:
    """Return the folder of parts that are named as splits, train/Annotations and test/Annotations."""
    splits = set(SPLIT_NAMES)
    names = {part.lower() for folder in fitting for part in folder.relative_to(root).parts}
    names |= {child.name.lower() for folder in fitting for child in _folders(folder)}
    if names & splits:
        return Path(os.path.commonpath(fitting))
    raise DataError(
        f"{root}: holds {len(fitting)} datasets; name them one by one: --data {' '.join(map(str, fitting[:EXAMPLES]))}"
    )


def _begins_in(folder: Path) -> bool:
    return _is_laid_out(folder) or any(_xml_in(place) for place in (folder, *_folders(folder)))


def _is_laid_out(folder: Path) -> bool:
    return bool(_subfolder(folder, ("imagesets",)) or _annotation_folder(folder))


def _datasets_beside_flat_ones(folder: Path) -> list[Path]:
    """List the datasets in a folder that begins with XML files one below it, if one of them has a layout of its own."""
    if _is_laid_out(folder) or _xml_in(folder):
        return []
    flat = level = _folders(folder)
    laid_out: list[Path] = []
    for _ in range(_DEEPEST):
        found = [place for place in level if _is_laid_out(place)]
        laid_out += found
        level = [child for place in level if place not in found for child in _folders(place)]
    return [*laid_out, *(place for place in flat if _xml_in(place) and place not in laid_out)] if laid_out else []


def _annotation_folder(folder: Path) -> Path | None:
    """Find the folder that is named as one of annotations and holds XML files."""
    candidates = (_subfolder(folder, (name,)) for name in _ANNOTATION_FOLDERS)
    return next((path for path in candidates if path and next(files_below(path, (".xml",)), None)), None)


def _xml_in(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() == ".xml" for path in folder.iterdir())
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:  # says of each file what it is without asking again
            return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return []


def _subfolder(folder: Path, *names: Iterable[str]) -> Path | None:
    """Follow folders by names in any case; each step has alternatives, the first that is there counts."""
    for alternatives in names:
        by_name = {path.name.lower(): path for path in _folders(folder)}
        found = next((by_name[name] for name in alternatives if name in by_name), None)
        if found is None:
            return None
        folder = found
    return folder


def _parse(path: Path) -> _Annotation:
    """Read an XML file; what cannot be read becomes its error."""
    content = path.read_bytes()
    if content.startswith(LFS_POINTER):
        return _Annotation("", None, [], f"is a Git LFS pointer; {LFS_PULL}")
    try:
        root = _root_of(content)
    except (ET.ParseError, ValueError, LookupError) as err:
        return _Annotation("", None, [], f"not readable as XML ({err})")
    for element in root.iter():  # namespaces say nothing here
        element.tag = str(element.tag).rpartition("}")[2]
    if root.tag.lower() != "annotation":
        return _Annotation("", None, [], f"holds <{shorten(root.tag, 20)}>, expected <annotation>")
    is_labelme = root.find("object/polygon/pt") is not None and root.find("object/bndbox") is None
    size = root.find("imagesize" if is_labelme else "size")
    sides = ("ncols", "nrows") if is_labelme else ("width", "height")
    numbers = [] if size is None else [_whole(size.findtext(side)) for side in sides]
    stated = [number for number in numbers if number is not None]
    return _Annotation(
        file_name=(root.findtext("filename") or "").strip(),
        size=stated if len(stated) == len(sides) else None,
        objects=[
            [_text(element, "name"), _corners(element), _text(element, "difficult")] for element in root.iter("object")
        ],
        error=None,
        first_pixel=0 if is_labelme else None,
    )


def _root_of(content: bytes) -> ET.Element:
    """Parse XML, also in encodings that Python knows and expat does not."""
    try:
        return ET.fromstring(content)
    except (ET.ParseError, ValueError, LookupError):
        declared = _ENCODING.match(content)
        if declared is None:
            raise
        text = content[declared.end() :].decode(declared[1].decode("ascii"))
        return ET.fromstring(text[text.index("<") :] if "<" in text else text)


def _may_be_box(corners: Sequence[str] | None) -> bool:
    """Whether four texts are finite numbers; an object of another kind is none of a class."""
    try:
        return corners is not None and all(math.isfinite(float(corner)) for corner in corners)
    except ValueError:
        return False


def _text(element: ET.Element, tag: str) -> str | None:
    return (element.findtext(tag) or "").strip() or None


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else round(float(text))
    except (ValueError, OverflowError):
        return None


def _corners(element: ET.Element) -> list[str] | None:
    """Return the four texts of a box, or of the box around a polygon."""
    if element.find("bndbox") is not None:
        return [(element.findtext(f"bndbox/{corner}") or "").strip() for corner in _CORNERS]
    polygon = element.find("polygon")
    if polygon is None:
        return None
    axes: dict[str, list[float]] = {"x": [], "y": []}
    for point in polygon.iter():
        if point.tag[:1] in axes and point.tag[1:].isdecimal() | (len(point.tag) == 1):
            try:
                axes[point.tag[0]].append(float(point.text or ""))
            except ValueError:
                return None
    if not axes["x"] or not axes["y"]:
        return None
    return [repr(function(axes[axis])) for function in (min, max) for axis in ("x", "y")]
