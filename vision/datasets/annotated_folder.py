"""What formats share whose annotations name their images, and whose files or folders are named as the splits."""

from __future__ import annotations

import functools
import posixpath
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vision.datasets.defects import Defect, ambiguous_image, differing_name, unannotated
from vision.datasets.file_cache import FileCache
from vision.datasets.file_index import FileMatch
from vision.datasets.folder import SPLITS, DatasetReader, ReadingOptions, SplitImages, may_be_of, splits_of
from vision.datasets.labels import LabelList, find_label_list
from vision.datasets.names import first_few, shorten
from vision.datasets.records import RawImage, RawObject, has_box
from vision.datasets.tree import Tree
from vision.structures import DataError

#: Files of class names that are looked for, in this order.
LABEL_FILES = ("labels.txt", "labelmap.txt", "classes.txt", "obj.names")


class Annotated(NamedTuple):
    """An image with the names of the splits that it may belong to, in lower case."""

    image: RawImage
    splits: frozenset[str]


class SelfDescribedReader(DatasetReader):
    """A dataset whose annotations name their images.

    Splits are the folders, and the files that are about many images, whose names have train, val, valid, validation or
    test in them. The classes are those of `labels.txt` or another usual file at the root, else the names found.
    """

    #: What a dataset of this format looks like, for messages.
    looks_like = ""
    #: Whether a file is about many images, so that its own name may say of which split they are.
    about_many = True

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, cache, options)
        self.tree = Tree(root)
        self._found: set[Path] = set()  # images that annotations are about

    @abstractmethod
    def annotate(self) -> Iterator[Annotated | Defect]:
        """Read all annotations; an image may come several times, with some of its objects each time."""

    @functools.cached_property
    def _annotated(self) -> tuple[list[Annotated], list[Defect]]:
        items = list(self.annotate())
        images = [item for item in items if isinstance(item, Annotated)]
        return images, [item for item in items if isinstance(item, Defect)]

    def listing(self, split: str) -> SplitImages | None:
        """Put the images together whose files or folders are named as the split."""
        images, defects = self._annotated
        for wanted in SPLITS[split]:
            mine = [image for image, splits in images if wanted in splits]
            if mine:
                folder = self.root / wanted if (self.root / wanted).is_dir() else mine[0].source
                title = f"{self.root} ({wanted})"
                return SplitImages(title, folder, mine, [*defects, *self._unannotated(len(mine), wanted)])
        return None

    def all_images(self) -> SplitImages:
        """Put all images together."""
        images, defects = self._annotated
        if not images:
            first = f"; {defects[0]}" if defects else ""
            raise DataError(f"{self.root}: no annotation of {self.name}{first}; expected {self.looks_like}")
        mine = [image for image, _ in images]
        return SplitImages(str(self.root), self.root, mine, [*defects, *self._unannotated(len(mine))])

    def written_labels(self) -> LabelList | None:
        """Read a list of classes at the root, if there is one."""
        return find_label_list([self.root], LABEL_FILES)

    def all_names(self) -> Iterator[str]:
        """Return the names of all objects that have a box: those of points and lines are no classes."""
        yield from (
            item.name for image, _ in self._annotated[0] for item in image.objects if item.name and has_box(item)
        )

    def unlisted(self) -> list[Defect]:
        """See `DatasetReader.unlisted`."""
        images, _ = self._annotated
        of_splits = {image.image_path for image, splits in images if splits}
        strays = {image.image_path: image.source for image, _ in images if image.image_path not in of_splits}
        strays.pop(None, None)
        if not strays or not of_splits:
            return []
        folders = first_few(sorted({str(path.parent.relative_to(self.root)) for path in strays.values()}))
        message = f"{len(strays)} annotated images are of no split, and not used; annotations in {folders}"
        return [Defect("image-unlisted", self.root, message, things=len(strays))]

    def _unannotated(self, annotated: int, split: str | None = None) -> list[Defect]:
        free = [
            path
            for path in self.tree.images.paths
            if self.root / path not in self._found and (split is None or split in splits_of(path, by_name=False))
        ]
        return unannotated(free, self.root, annotated)

    def image(
        self,
        name: str,
        source: Path,
        objects: Iterable[RawObject] = (),
        size: tuple[int, int] | None = None,
        defects: Iterable[Defect] = (),
        relative: bool = False,
    ) -> RawImage:
        """Find the image of an annotation.

        Args:
            name: as the annotation has it; may be a path from there.
            source: the annotation file.
            objects: on it.
            size: as the annotation says.
            defects: what was odd so far.
            relative: whether boxes are fractions of the image.
        """
        objects, defects = list(objects), list(defects)
        name = name.replace("\\", "/").strip()
        found = self._find(name, source)
        if found is None:
            message = f"image {shorten(name) or 'without a name'} left out: no image of that name in {self.root}"
            defects.append(Defect("image-missing", source, message, len(objects), 1))
            return RawImage(without_suffix(name), None, source, objects, size, defects, relative)
        self._found.add(found.path)
        defects += [*ambiguous_image(found, source), *differing_name(found, name, source)]
        image_id = without_suffix(found.path.relative_to(self.root).as_posix())
        return RawImage(image_id, found.path, source, objects, size, defects, relative)

    def _find(self, name: str, source: Path) -> FileMatch | None:
        if not name:
            return None
        folder = source.parent.relative_to(self.root).as_posix()
        beside = posixpath.normpath(posixpath.join(folder, name))
        splits = self.splits_of(source.relative_to(self.root).as_posix()) | splits_of(name, by_name=False)
        find = partial(self.tree.images.find, fits=partial(may_be_of, splits))
        return find(beside) or find(name) or find(posixpath.basename(name))

    def splits_of(self, path: str) -> frozenset[str]:
        """The splits that the images of an annotation file may be of, by its path below the dataset's folder."""
        return splits_of(path, by_name=self.about_many)


def not_used(file: Path, error: DataError) -> Defect:
    """Say that a file of annotations cannot be read."""
    return Defect("annotation-unreadable", file, f"not used: {str(error).removeprefix(f'{file}: ')}")


def without_suffix(name: str) -> str:
    """Take off what stands behind the last dot."""
    return name.rpartition(".")[0] or name
