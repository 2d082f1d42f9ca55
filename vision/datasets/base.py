"""What all formats share: records of pictures and objects, image reading, class lists, balancing.

A format is a subclass whose constructor reads its files into `Record`s. Objects are kept by class *name*, so that
several datasets can be given one class list afterwards.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from vision.datasets.labels import merge, with_background
from vision.structures import Annotation, DataError

logger = logging.getLogger(__name__)

#: Suffixes under which pictures are looked for, in lower case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

#: EXIF's tag for the orientation, and its values that swap width and height.
_EXIF_ORIENTATION = 0x0112
_EXIF_ROTATED = (5, 6, 7, 8)

#: A box with a side below this, in pixels, has no area: float32 could not tell its corners apart later.
LEAST_SIDE = 0.01

#: How many of many alike names a message lists.
_EXAMPLES = 5


class Record(NamedTuple):
    """One picture on disk with its objects."""

    image_id: str
    image_path: Path
    size: tuple[int, int]  # (width, height) in pixels, as decoded
    boxes: np.ndarray  # (N, 4) float32, corner form in pixels, inside the picture, with an area
    names: tuple[str, ...]
    difficult: tuple[bool, ...]


class Defect(NamedTuple):
    """Something in the files that was left out or mended."""

    source: Path
    message: str


class ImageIndex:
    """Finds the pictures of a folder by name, with or without suffix; the exact case comes before any other."""

    def __init__(self, folder: Path) -> None:
        self._exact: dict[str, Path] = {}
        self._any_case: dict[str, Path] = {}
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                for name in (path.name, path.stem):
                    self._exact.setdefault(name, path)
                    self._any_case.setdefault(name.lower(), path)

    def find(self, name: str) -> Path | None:
        """Give the path of a picture, None if there is none."""
        return self._exact.get(name) or self._any_case.get(name.lower())


def picture_size(path: Path) -> tuple[int, int]:
    """Read (width, height) from a picture's header, turned as EXIF says and OpenCV decodes.

    Raises:
        DataError: the file is no picture that can be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.getexif().get(_EXIF_ORIENTATION) in _EXIF_ROTATED:
                width, height = height, width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise _undecodable(path) from err
    return width, height


def read_image(path: Path) -> np.ndarray:
    """Decode a picture to (H, W, 3) uint8 RGB.

    Raises:
        DataError: it does not decode.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise _undecodable(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _undecodable(path: Path) -> DataError:
    if not path.exists():
        return DataError(f"{path}: no such picture")
    size = path.stat().st_size
    return DataError(
        f"{path}: cannot be decoded as a picture ({size} bytes, truncated or another kind of file?); "
        "replace the file or take it out of the dataset"
    )


class DetectionDataset:
    """Pictures with objects.

    Args:
        records: the pictures.
        class_names: BACKGROUND first; objects of other names are left out, with a warning that counts them.
        transform: (image, boxes, labels) -> triple, see `__getitem__`.
        target_transform: (boxes, labels) -> pair, applied after it.
        keep_difficult: whether samples contain difficult objects; annotations always do.

    Attributes:
        class_names: as above.
        class_dict: name -> index.
        ids: of the pictures, strings.
        defects: what reading the files left out or mended.
    """

    def __init__(
        self,
        records: Sequence[Record],
        class_names: Sequence[str],
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        keep_difficult: bool = False,
        defects: Sequence[Defect] = (),
    ) -> None:
        self.records = records
        self.transform = transform
        self.target_transform = target_transform
        self.keep_difficult = keep_difficult
        self.defects = list(defects)
        self.class_names: tuple[str, ...] = ()
        self.set_class_names(class_names)

    def set_class_names(self, class_names: Sequence[str]) -> None:
        """Number the classes by this list (BACKGROUND first); says which names of objects are not in it."""
        if tuple(class_names) == self.class_names:
            return
        self.class_names = tuple(class_names)
        self.class_dict = {name: index for index, name in enumerate(self.class_names)}
        unknown = Counter(name for record in self.records for name in record.names if name not in self.class_dict)
        if unknown:
            found = ", ".join(f"{name!r} ({count})" for name, count in unknown.most_common())
            logger.warning(
                "%d objects left out, their classes are not among %s: %s",
                unknown.total(),
                list(self.class_names[1:]),
                found,
            )

    @property
    def ids(self) -> list[str]:
        """Ids of the pictures, in order; setting them keeps the pictures of these ids."""
        return self._ids

    @ids.setter
    def ids(self, ids: Sequence[str]) -> None:
        by_id = {record.image_id: record for record in self.records}
        self.records = [by_id[image_id] for image_id in ids]

    @property
    def records(self) -> list[Record]:
        """The pictures."""
        return self._records

    @records.setter
    def records(self, records: Sequence[Record]) -> None:
        self._records = list(records)
        self._ids = [record.image_id for record in self._records]

    def __len__(self) -> int:
        return len(self.records)

    def annotation(self, index: int) -> Annotation:
        """Give the objects of a picture, difficult ones included, those of unknown classes not."""
        record = self.records[index]
        known = [place for place, name in enumerate(record.names) if name in self.class_dict]
        return Annotation(
            boxes=record.boxes[known],
            labels=np.array([self.class_dict[record.names[place]] for place in known], dtype=np.int64),
            difficult=np.array([record.difficult[place] for place in known], dtype=bool),
            size=record.size,
        )

    def get_image(self, index: int) -> np.ndarray:
        """Decode a picture, (H, W, 3) uint8 RGB, as it is on disk."""
        return read_image(self.records[index].image_path)

    def get_annotation(self, index: int) -> tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Give (id, (boxes in pixels (N, 4), labels (N,), difficult (N,))), whatever `keep_difficult` says."""
        annotation = self.annotation(index)
        triple = annotation.boxes, annotation.labels, annotation.difficult.astype(np.uint8)
        return self.records[index].image_id, triple

    def targets(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Give boxes in pixels (N, 4) and labels (N,) to train on."""
        annotation = self.annotation(index)
        kept = np.full(len(annotation.labels), True) if self.keep_difficult else ~annotation.difficult
        return annotation.boxes[kept], annotation.labels[kept]

    def __getitem__(self, index: int) -> tuple:
        """Give (image, boxes, labels), by `transform` and `target_transform` where set."""
        image = self.get_image(index)
        boxes, labels = self.targets(index)
        if self.transform is not None:
            image, boxes, labels = self.transform(image, boxes, labels)
        if self.target_transform is not None:
            boxes, labels = self.target_transform(boxes, labels)
        return image, boxes, labels

    def class_counts(self) -> dict[str, int]:
        """Count the objects of each class, in the order of the class list."""
        counts = Counter(name for record in self.records for name in record.names)
        return {name: counts[name] for name in self.class_names[1:]}

    def balance(self, rng: np.random.Generator) -> None:
        """Keep, of each class, as many pictures as the rarest class has; drawn at random, and their union kept.

        Pictures without objects stay: they belong to no class.
        """
        holders: dict[str, list[int]] = {name: [] for name in self.class_names[1:]}
        empty = []
        for place, record in enumerate(self.records):
            known = {name for name in record.names if name in self.class_dict}
            for name in sorted(known):
                holders[name].append(place)
            if not known:
                empty.append(place)
        fewest = min((len(places) for places in holders.values() if places), default=0)
        chosen = set(empty)
        for places in holders.values():
            if places:
                chosen.update(rng.choice(places, size=fewest, replace=False).tolist())
        before = self.class_counts()
        self.records = [record for place, record in enumerate(self.records) if place in chosen]
        logger.info("balanced: objects per class %s -> %s, %d pictures", before, self.class_counts(), len(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def summary(self) -> str:
        """Say in one line what is in here."""
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts().items())
        return f"{len(self)} pictures, objects: {counts or 'none'}"

    # What the formats' readers share.

    def _note(self, source: Path, message: str) -> None:
        self.defects.append(Defect(source, message))
        logger.warning("%s: %s", source, message)

    def _note_missing(self, source: Path, missing: Sequence[str], listed: int, what: str) -> None:
        """Say in one line that ids have no picture or annotation."""
        if missing:
            examples = ", ".join(missing[:_EXAMPLES])
            message = f"{len(missing)} of {listed} ids left out: {what}; first: {examples}"
            self._note(source, message)

    def _record(
        self,
        source: Path,
        image_id: str,
        image_path: Path,
        objects: Iterable[tuple[str, Sequence[float], bool]],
        *,
        relative: bool = False,
        first_pixel: int = 0,
    ) -> Record:
        """Make a record; clips boxes to the real picture, names and leaves out those without area.

        Args:
            source: the annotation file, for messages.
            image_id: of the picture.
            image_path: of the picture.
            objects: (class name, corner-form box, difficult) each, as the file has them.
            relative: whether boxes are relative, else they are in pixels.
            first_pixel: what the file calls the first pixel, 0 or 1.
        """
        width, height = size = picture_size(image_path)
        boxes, names, difficult = [], [], []
        for number, (name, box, is_difficult) in enumerate(objects, start=1):
            what = f"object {number} {name!r} of picture {image_id}"
            corners = np.asarray(box, dtype=np.float64) * ((width, height) * 2 if relative else 1) - first_pixel
            if not np.isfinite(corners).all():
                self._note(source, f"{what} left out: its box {list(box)} is not finite")
                continue
            if (corners[:2] > corners[2:]).any():
                self._note(source, f"{what} mended: the corners of its box {list(box)} were swapped")
                corners = np.concatenate([np.minimum(corners[:2], corners[2:]), np.maximum(corners[:2], corners[2:])])
            clipped = corners.clip(0, (width, height) * 2).astype(np.float32)
            if (clipped[2:] - clipped[:2] < LEAST_SIDE).any():
                self._note(source, f"{what} left out: its box {list(box)} has no area within {width}x{height}")
                continue
            boxes.append(clipped)
            names.append(name)
            difficult.append(is_difficult)
        return Record(
            image_id,
            image_path,
            size,
            np.array(boxes, np.float32).reshape(-1, 4),
            tuple(names),
            tuple(difficult),
        )


def names_found(records: Iterable[Record]) -> tuple[str, ...]:
    """Make a class list of the names that occur, sorted, BACKGROUND first."""
    return with_background(sorted({name for record in records for name in record.names}))


def join(datasets: Sequence[DetectionDataset]) -> DetectionDataset:
    """Put several datasets into one; classes are merged by name. One alone stays as it is."""
    if len(datasets) == 1:
        return datasets[0]
    names = merge(dataset.class_names for dataset in datasets)
    records = [record for dataset in datasets for record in dataset.records]
    defects = [defect for dataset in datasets for defect in dataset.defects]
    return DetectionDataset(records, names, defects=defects)
