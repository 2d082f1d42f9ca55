"""Pascal VOC's layout: an XML file per image, and lists of images."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vision.datasets.base import DetectionDataset
from vision.datasets.defects import Defect, ambiguous_image, differing_name, log_defects, unannotated
from vision.datasets.file_cache import FileCache
from vision.datasets.file_index import FileIndex, FileMatch, other_suffixes
from vision.datasets.folder import SPLIT_NAMES, SPLITS, DatasetReader, ReadingOptions, SplitImages, may_be_of, splits_of
from vision.datasets.labels import LabelList, find_label_list, read_labels, read_text
from vision.datasets.names import first_few
from vision.datasets.records import BoxFormat, RawImage, RawObject, are_fractions
from vision.datasets.tree import Tree, try_to
from vision.datasets.voc_layout import (
    ANNOTATION_FOLDERS,
    IMAGE_FOLDERS,
    find_annotation_folder,
    find_base,
    find_subfolder,
    is_laid_out,
)
from vision.datasets.voc_xml import VocAnnotation, may_be_box, parse_annotation
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

#: Beginnings of the names of folders whose images are masks.
_MASK_FOLDERS = ("segmentation", "mask")

#: Files of class names that are looked for, in this order; the second is CVAT's.
LABEL_FILES = ("labels.txt", "labelmap.txt")

_TRUE = ("1", "true")
_FALSE = ("0", "false")


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
        self.base = find_base(root) or root
        self.annotation_folder = find_annotation_folder(self.base) or self.base
        self.image_folder = find_subfolder(self.base, IMAGE_FOLDERS) or self.base
        say_the_kind = (*ANNOTATION_FOLDERS, *IMAGE_FOLDERS)
        self.annotations = FileIndex(self.annotation_folder, (".xml",), say_the_kind)
        self.images = FileIndex(self.image_folder, transparent=say_the_kind, left_out=_MASK_FOLDERS)
        self._listed_annotations: set[Path] = set()
        self._lists_read: set[Path] = set()

    @staticmethod
    def recognizes(root: Path) -> bool:
        """Whether a folder looks like this format."""
        return find_base(root) is not None

    @staticmethod
    def begins_at(folder: Path) -> bool:
        """See `DatasetReader.begins_at`."""
        return is_laid_out(folder)

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """See `DatasetReader.annotated_images`."""

        def fits(path: str) -> bool:
            annotation = try_to(parse_annotation, tree.root / path)
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
            folder = find_subfolder(self.base, *([name] for name in names)) if names else self.base
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
        return find_label_list((self.base, self.root), LABEL_FILES)

    def all_names(self) -> Iterator[str]:
        """Return the names of all objects in all XML files, listed or not."""
        for path in self.annotations.paths:
            annotation = self._read(self.annotation_folder / path)
            if annotation.error is not None:
                self.is_certain = False  # it is to be said at each start
                logger.warning("%s: not read for class names, %s", self.annotation_folder / path, annotation.error)
            yield from (name for name, corners, _ in annotation.objects if name and may_be_box(corners))

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

    def _doubts(self, path: Path, annotation: VocAnnotation, found: FileMatch) -> list[Defect]:
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
        return FileIndex(self.root, transparent=(*ANNOTATION_FOLDERS, *IMAGE_FOLDERS), left_out=_MASK_FOLDERS)

    @functools.cached_property
    def _other_files(self) -> str:
        others = other_suffixes(self.image_folder)
        return f"{', '.join(others)} files" if others else "none"

    def _id_of(self, image_path: Path) -> str:
        folder = self.image_folder if image_path.is_relative_to(self.image_folder) else self.root
        return image_path.relative_to(folder).as_posix().rpartition(".")[0]

    @staticmethod
    def _objects(annotation: VocAnnotation) -> list[RawObject]:
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

    def _read(self, path: Path) -> VocAnnotation:
        try:
            return VocAnnotation(*self.cache.get("voc", path, parse_annotation))
        except OSError as err:
            self.is_certain = False
            return VocAnnotation("", None, [], f"cannot be read ({err.strerror})")


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
