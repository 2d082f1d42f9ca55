"""A dataset's folder: which lists it has, which images they name, and how it is split where it has none.

A format is a subclass that reads its files into `RawImage`s; everything that formats share is here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import signal
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from vision.datasets.defects import Defect, joined, way_out_of, weighed
from vision.datasets.file_cache import FileCache
from vision.datasets.holding_out import hold_out
from vision.datasets.images import DecodingFacts, ImageInfo, read_image_info, try_decoding
from vision.datasets.labels import LabelList, read_text, with_background
from vision.datasets.names import first_few
from vision.datasets.packed import RecordPacker, Records
from vision.datasets.records import BoxFormat, RawImage, RawObject, make_record
from vision.datasets.tree import ARCHIVES, Tree
from vision.options.training import VAL_SPLIT
from vision.structures import DataError
from vision.utils.progress import ProgressBar, no_progress

logger = logging.getLogger(__name__)

#: What may stand for a split, in the order in which it is looked for.
SPLITS = {
    "train": ("train",),
    "test": ("test", "val", "valid", "validation"),
    "val": ("val", "valid", "validation", "test"),
}

#: All these names, each once.
SPLIT_NAMES = tuple(dict.fromkeys(name for names in SPLITS.values() for name in names))

#: Two names of one split.
_ALIASES = {"valid": "val", "validation": "val"}

#: Images and pixels of them that a start decodes which is not told to decode all.
_MOST_DECODED, _MOST_PIXELS_DECODED = 2_000, 200_000_000

#: Up to this many images are decoded in less time than processes are started.
_DECODED_ALONE = 64

_WORD = re.compile(r"[a-z]+")

#: What a list of images is to hold, for messages.
NAMES_WANTED = "write the id or file name of an annotated image a line"


def splits_of(path: str, *, by_name: bool) -> frozenset[str]:
    """The splits that a file may be of.

    The outermost folder that is called so, digits apart, says it, else the outermost that has the word in its name:
    `validation/Train` may hold trains.

    Args:
        path: relative to the dataset, with / between.
        by_name: whether the file's own name may say so, as that of one about many images; else its folders alone.
    """
    *parts, name = path.lower().split("/")
    if by_name:
        parts.append(name.rpartition(".")[0] or name)
    words = [frozenset(_WORD.findall(part)) for part in parts]
    naming = [found & set(SPLIT_NAMES) for found in words]
    exact = [names for names, found in zip(naming, words, strict=True) if names == found]
    return next((names for names in (*exact, *naming) if names), frozenset())


def read_names(path: Path) -> list[str]:
    """Read a list with an image's id or file name a line; each once.

    Raises:
        DataError: it cannot be read, or names none.
    """
    names = dict.fromkeys(line.strip() for line in read_text(path, "an image's name a line").splitlines())
    names.pop("", None)
    if not names:
        raise DataError(f"{path}: names no image; {NAMES_WANTED}")
    return list(names)


def may_be_of(splits: Collection[str], path: str) -> bool:
    """Whether an image does not lie in the folder of another split than its annotation's.

    Args:
        splits: that the annotation is of, see `splits_of`; of none, it may lie anywhere.
        path: of the image, relative to the dataset, with / between.
    """
    mine, wanted = ({_ALIASES.get(name, name) for name in names} for names in (splits_of(path, by_name=False), splits))
    return not mine or not wanted or bool(mine & wanted)


@dataclass(frozen=True)
class ReadingOptions:
    """How datasets are read.

    Attributes:
        val_split: share of the training images to hold out for validation, whatever lists there are; None to take
            the lists, and to hold out `VAL_SPLIT` where there is none for validation.
        stratified: hold out by class as well as by name, see `hold_out`; runs of versions before 0.15.0 keep to names.
        labels_from_data: the classes are the names found in the annotations, whatever lists of classes there are.
        include_depictions: train on drawings and sculptures of things as on the things (Open Images).
        cache: remember between runs what was read from files.
        decode: decode every image, to leave out those that are damaged inside.
    """

    val_split: float | None = None
    stratified: bool = True
    labels_from_data: bool = False
    include_depictions: bool = False
    cache: bool = True
    decode: bool = False


class SplitImages(NamedTuple):
    """Images that a dataset puts together."""

    title: str  # in words, which images
    source: Path  # the file or folder that says so
    images: list[RawImage]
    defects: list[Defect]


class SplitRecords(NamedTuple):
    """What reading a listing gave."""

    title: str  # of the listing
    source: Path  # of the listing
    records: Records
    defects: list[Defect]
    images_listed: int
    objects_written: int  # as far as the files could be read

    @property
    def origin(self) -> dict[str, Any]:
        """What a `DetectionDataset` is told of where it comes from."""
        return {
            "title": self.title,
            "source": self.source,
            "images_listed": self.images_listed,
            "objects_written": self.objects_written,
        }


class DatasetReader:
    """A dataset on disk.

    Args:
        root: its folder.
        cache: what is known about files from earlier starts.
        options: how to read.

    Attributes:
        absent: paths outside of the folder that were looked for and are not there.
        is_certain: whether the folder's files alone, and what is absent, say what was read; off where the system
            refused to read a file, or others were read, too.

    Raises:
        DataError: there is no such folder.
    """

    #: The name of the format, as in --dataset-type.
    name = ""
    #: How its boxes are written.
    form = BoxFormat()
    #: Whether each image has an annotation file of its own.
    own_files = False

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        self.root = root
        self.cache = cache or FileCache()
        self.options = options or ReadingOptions()
        self.absent: set[str] = set()
        self.is_certain = True
        check_folder(root)

    @staticmethod
    def recognizes(root: Path) -> bool:
        """Whether a folder is laid out as this format, whatever is in its files; most formats have no layout."""
        return False

    @staticmethod
    def begins_at(folder: Path) -> bool:
        """Whether a folder has what only the beginning of a dataset has, as lists of images or settings."""
        return False

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """Estimate how many images on disk the annotations of this format are about; 0 where there are none."""
        raise NotImplementedError

    def listing(self, split: str) -> SplitImages | None:
        """Read the images of a split, a key of `SPLITS`; None if nothing says which these are."""
        raise NotImplementedError

    def all_images(self) -> SplitImages:
        """Read all annotated images.

        Raises:
            DataError: there are none; the message says what a folder of this format looks like.
        """
        raise NotImplementedError

    def written_labels(self) -> LabelList | None:
        """Read the list of classes; None if the dataset has none."""
        raise NotImplementedError

    def all_names(self) -> Iterable[str]:
        """Return the class names of all boxes in all splits, in any order, some or all repeated."""
        raise NotImplementedError

    def unlisted(self) -> list[Defect]:
        """Name annotated images that are of no split, where others are."""
        return []

    # What all formats share.

    def split(self, name: str) -> SplitImages:
        """Read the images of a split, a key of `SPLITS`; see `splits`."""
        if name != "train" and self.options.val_split is None and (listing := self.listing(name)) is not None:
            return self._with_unlisted(listing)
        return self.splits()[name != "train"]

    def listed_or_all(self, name: str) -> SplitImages:
        """Read the images of a split, a key of `SPLITS`, or all annotated ones where nothing says which these are."""
        listing = self.listing(name)
        return self.all_images() if listing is None else self._with_unlisted(listing)

    def _with_unlisted(self, listing: SplitImages) -> SplitImages:
        return listing._replace(defects=[*listing.defects, *self.unlisted()])

    def listed_in(self, path: Path, names: Collection[str]) -> tuple[SplitImages, set[str]]:
        """Read the images with the given names, which are their ids or file names, whatever split they are in.

        Args:
            path: of the file that lists them.
            names: see `read_names`.

        Returns:
            the images, and the names of which there is none here.
        """
        by_name: dict[str, RawImage] = {}
        for raw in self.all_images().images:
            by_name.setdefault(raw.image_id, raw)
            if raw.image_path is not None:
                by_name.setdefault(raw.image_path.name, raw)
        images = list({by_name[name].image_id: by_name[name] for name in names if name in by_name}.values())
        return SplitImages(str(path), path, images, []), {name for name in names if name not in by_name}

    def splits(self) -> tuple[SplitImages, SplitImages]:
        """Read training and validation images; holds some out where nothing says which.

        Raises:
            DataError: there are no images, or too few.
        """
        train, test = self.listing("train"), self.listing("test")
        share = self.options.val_split
        if train is None:
            whole = self.all_images()
            if test is None:
                train = whole._replace(title=f"all annotated images in {whole.title} (no list found)")
            else:
                known = {_key(raw) for raw in test.images}
                rest = [raw for raw in whole.images if _key(raw) not in known]
                train = whole._replace(title=f"all annotated images but those of {test.title}", images=rest)
                if not rest:
                    raise DataError(
                        f"{test.source}: names all annotated images for validation, none is left to train on; "
                        "take some out, or write a list for training"
                    )
        else:
            unlisted = self.unlisted()
            train = train._replace(defects=[*train.defects, *unlisted])
            test = None if test is None else test._replace(defects=[*test.defects, *unlisted])
        if test is not None and share is None:
            return train, test
        share = VAL_SPLIT if share is None else share
        kept, held_out = hold_out(train.images, share, self.class_names()[1:] if self.options.stratified else ())
        if not held_out:
            defects = [*train.defects, *(defect for raw in kept for defect in raw.defects)]
            first = f"; {defects[0]}" if defects else ""
            raise DataError(f"{train.title}: its {len(kept)} images are too few to hold some out for validation{first}")
        return (
            train._replace(title=f"{train.title}, except the {share:.0%} kept for validation", images=kept),
            train._replace(
                title=f"{share:.0%} of {train.title}, chosen by a hash of the names", images=held_out, defects=[]
            ),
        )

    @functools.cached_property
    def label_list(self) -> LabelList:
        """The classes, for all splits alike: those that the dataset lists, else the names found."""
        written = None if self.options.labels_from_data else self.written_labels()
        return LabelList(tuple(sorted(set(self.all_names())))) if written is None else written

    def class_names(self) -> tuple[str, ...]:
        """Return the class list, BACKGROUND first."""
        return with_background(self.label_list.names)

    def read(self, listing: SplitImages, progress: ProgressBar = no_progress) -> SplitRecords:
        """Check images and objects, and make what can be trained on.

        Raises:
            DataError: no image is left.
        """
        packer = RecordPacker()
        images, repeated = self._once(listing)
        named = [weighed(defect, len(images)) for defect in (*listing.defects, *repeated)]
        defects = list(named)
        class_names = frozenset(self.class_names())
        paths = [raw.image_path for raw in images if raw.image_path is not None]
        self._decode(paths if self.options.decode else self._some_jpegs(paths), progress)
        for raw in progress(images, f"Reading {self.root}", len(images)):
            record, found = make_record(raw, self._image_info(raw.image_path), self.form, class_names)
            defects += found
            if record is not None:
                packer.add(record._replace(listed_in=listing.source))
        defects, records = joined(defects), packer.packed()
        if not records:
            raise DataError(f"{listing.title}: {_why_nothing(images, defects)}")
        on_disk = sum(len(raw.objects) for raw in images) + sum(defect.objects for defect in named)
        listed = len(images) + sum(defect.images for defect in named)
        return SplitRecords(listing.title, listing.source, records, defects, listed, on_disk)

    def _image_info(self, path: Path | None) -> ImageInfo | None:
        if path is None:
            return None
        try:
            info = ImageInfo(*self.cache.get("image", path, read_image_info))
        except FileNotFoundError:
            return None
        except OSError as err:  # not kept: it may work the next time
            self.is_certain = False
            return ImageInfo(0, 0, 1, "", "", 0, f"cannot be read ({err.strerror})")
        error, doubt, picture = self.cache.known("decoding", path) or (None, None, "")
        return info if info.error else info._replace(error=error, doubt=doubt, picture=picture)

    def _some_jpegs(self, paths: Sequence[Path]) -> list[Path]:
        """Pick images that a start decodes in a second or two: JPEGs, whose ends do not tell that they are damaged."""
        picked = paths[:: max(1, -(-len(paths) // _MOST_DECODED))]
        infos = [(path, self._image_info(path)) for path in picked]
        jpegs = [(path, info) for path, info in infos if info and not info.error and info.format in ("JPEG", "MPO")]
        pixels = sum(info.width * info.height for _, info in jpegs)
        return [path for path, _ in jpegs[:: max(1, -(-pixels // _MOST_PIXELS_DECODED))]]

    def _decode(self, paths: Sequence[Path], progress: ProgressBar) -> None:
        """Decode images on all cores; what is wrong with them is a fact from then on."""
        paths = [path for path in paths if self.cache.known("decoding", path) is None]
        infos = [self._image_info(path) for path in paths]
        sizes = [(info.width, info.height) if info and not info.error else None for info in infos]
        with contextlib.ExitStack() as stack:
            run: Callable[..., Iterable[Any]] = map
            if len(paths) > _DECODED_ALONE:
                # Processes, not threads: what decoders say on standard error is of one file in each.
                run = stack.enter_context(ProcessPoolExecutor(os.cpu_count(), initializer=_start_decoding)).map
            found = zip(paths, run(_try_decoding, paths, sizes), strict=True)
            try:
                for path, fact in progress(found, f"Decoding {self.root}", len(paths)):
                    self.is_certain &= fact is not None
                    if fact is not None:
                        with contextlib.suppress(OSError):
                            self.cache.get("decoding", path, functools.partial(_given, fact))
            except BrokenProcessPool as err:
                raise DataError(
                    f"{self.root}: a process that decodes its images was ended by the system, most likely for want of "
                    "memory; end other programs, or take very large images out of the dataset"
                ) from err

    def _once(self, listing: SplitImages) -> tuple[list[RawImage], list[Defect]]:
        """Images of a listing, each once, and what is there again: names in a list, or annotations of one image."""
        by_path: dict[Path, RawImage] = {}
        all_objects: dict[Path, list[RawObject]] = {}
        image_of: dict[Path, Path] = {}  # by its annotation
        images: list[RawImage] = []
        repeated: list[str] = []
        defects: list[Defect] = []
        for raw in listing.images:
            path = _key(raw)
            first = by_path.setdefault(path, raw)
            if first is raw:
                annotated = raw.image_path
                if annotated is not None and self.own_files and raw.objects:
                    annotated = image_of.setdefault(raw.source, annotated)
                if annotated is None or annotated is raw.image_path:
                    images.append(raw)
                else:
                    detail = f"image {path.name} left out: {raw.source.name} is the annotation of {annotated.name}"
                    defects.append(Defect("annotation-repeats", raw.source, detail, 0, 1, image_id=raw.image_id))
            elif first.source == raw.source or first.objects == raw.objects:
                repeated.append(raw.image_id)
                if first.objects != raw.objects:
                    known = all_objects.setdefault(path, list(first.objects))
                    known += [found for found in raw.objects if not any(_is_same(found, other) for other in known)]
            else:
                count = len(raw.objects)
                detail = f"its {count} objects left out: $image has its annotation in {first.source}"
                defects.append(Defect("annotation-repeats", raw.source, detail, count, image_id=raw.image_id))
        if all_objects:
            images = [raw._replace(objects=all_objects.get(_key(raw), raw.objects)) for raw in images]
        if repeated:
            message = f"{len(repeated)} names are listed again, each counts once: {first_few(repeated)}"
            defects.append(Defect("list-repeats", listing.source, message, things=len(repeated)))
        return images, defects


def _start_decoding() -> None:
    cv2.setNumThreads(0)  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that waits for them


def _try_decoding(path: Path, size: tuple[int, int] | None) -> DecodingFacts | None:
    """Try it; None where the system could not read the file, which says nothing about what is in it."""
    try:
        return try_decoding(path, size)
    except OSError:
        return None


def _given(fact: Any, _: Path) -> Any:
    return fact


def _key(raw: RawImage) -> Path:
    """What an image is told by: its file; one that is not there by what names it."""
    return raw.image_path or raw.source / raw.image_id


def _is_same(one: RawObject, other: RawObject) -> bool:
    """Whether two objects differ at most in where they stand in their file."""
    return one._replace(where="") == other._replace(where="")


def _why_nothing(images: Sequence[RawImage], defects: Sequence[Defect]) -> str:
    if not images:
        return "names no image; write an image's name a line, or hold some out with --val-split=0.2"
    first_of_kind = {defect.kind: str(defect) for defect in reversed(defects) if defect.images}
    why = "; ".join(reversed(first_of_kind.values()))
    way_out = way_out_of(defect for defect in defects if defect.images)
    more = f"; {way_out}" if way_out and way_out not in why else ""
    return f"none of its {len(images)} images can be used; first: {why}{more}"


def check_folder(root: Path) -> None:
    """Raise DataError if a path is not a folder."""
    if not root.is_dir():
        if root.name.lower().endswith(ARCHIVES) and root.exists():
            raise DataError(f"{root}: is an archive; unpack it first, and name the folder that comes out")
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}; --data names the folder of a dataset")
