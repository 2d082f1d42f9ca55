"""Images with objects, whatever format they come from: samples, class lists, balancing.

Objects are kept by class *name*, so that several datasets can be given one class list afterwards.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vision.datasets.defects import Defect
from vision.datasets.labels import merge
from vision.datasets.names import EXAMPLES, did_you_mean, first_few, fold_name
from vision.datasets.records import LeftOut, Record
from vision.structures import CROWD, IGNORED, Annotation

logger = logging.getLogger(__name__)

#: Classes that a message lists.
_MAX_NAMES = 20


class DetectionDataset:
    """Images with objects.

    Args:
        records: the images.
        class_names: BACKGROUND first; objects of other names are left out, see `class_defects`.
        transform: (image, boxes, labels) -> triple, see `__getitem__`.
        target_transform: (boxes, labels) -> pair, applied after it.
        keep_difficult: whether `__getitem__` gives difficult objects; annotations always do.
        defects: what reading the files left out or repaired.
        title: says in words which images these are.
        source: the file or folder that says so.
        images_listed: how many images it names, those that were left out included.
        objects_written: how many objects the files hold, those that were left out included.

    Attributes:
        class_names: BACKGROUND first.
        ignores_difficult: whether training ignores difficult objects and crowds, instead of taking them for background.
        class_dict: name -> index.
        ids: of the images, strings.
    """

    def __init__(
        self,
        records: Sequence[Record],
        class_names: Sequence[str],
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        keep_difficult: bool = False,
        defects: Sequence[Defect] = (),
        title: str = "",
        source: Path | None = None,
        images_listed: int | None = None,
        objects_written: int | None = None,
    ) -> None:
        self.records = records
        self.title = title
        self.source = Path(title) if source is None else source
        self.images_listed = len(self) if images_listed is None else images_listed
        written = sum(len(record.names) for record in self.records)
        self.objects_written = written if objects_written is None else objects_written
        self.transform = transform
        self.target_transform = target_transform
        self.keep_difficult = keep_difficult
        self.ignores_difficult = True
        self.defects = list(defects)
        self.set_class_names(class_names)

    def set_class_names(self, class_names: Sequence[str]) -> None:
        """Number the classes by this list, BACKGROUND first."""
        self.class_names = tuple(class_names)
        self.class_dict = {name: index for index, name in enumerate(self.class_names)}
        # An object may be called BACKGROUND, and is none of a class for that.
        self.object_labels = {name: index for name, index in self.class_dict.items() if index}

    def drop_unknown(self, label_file: Path | None = None) -> None:
        """Leave out the objects whose classes are not in the list, for good; each class becomes a defect.

        Args:
            label_file: where the list stands, if in a file.
        """
        self.defects += self._unknown(label_file)
        for index, record in enumerate(self.records):
            kept = [index for index, name in enumerate(record.names) if name in self.object_labels]
            if len(kept) < len(record.names):
                self._records[index] = record.only(kept)._replace(left_out=tuple(self.left_out(index)))

    def _unknown(self, label_file: Path | None = None) -> list[Defect]:
        known = self.class_names[1:]
        of_file = "" if label_file is None else f" of {label_file}"
        found: dict[str, tuple[Record, list[str]]] = {}
        counts: Counter[str] = Counter()
        for record in self.records:
            for name, index in zip(record.names, record.places or record.names, strict=True):
                if name not in self.object_labels:
                    counts[name] += 1
                    _, places = found.setdefault(name, (record, []))
                    if len(places) <= EXAMPLES:
                        places.append(f"{record.source} {index}")
        defects = []
        for name, (record, places) in sorted(found.items()):
            more = f" and {counts[name] - EXAMPLES} more" if counts[name] > EXAMPLES else ""
            detail = (
                f"{say_left_out(counts[name])}: class {name!r} is not in the list {list(known)}{of_file}"
                f"{did_you_mean(name, known)}; first: {', '.join(places[:EXAMPLES])}{more}"
            )
            count = counts[name]
            defects.append(Defect("class-unknown", record.source, detail, count, things=count, class_name=name))
        return defects

    def class_defects(self, images: str = "the images") -> list[Defect]:
        """Defects: objects whose classes are not in the list, and classes without objects or with names too alike.

        Args:
            images: says in words which images these are.
        """
        defects = self._unknown()
        source = self.source
        known = self.class_names[1:]
        counts = self.class_counts()
        if empty := [repr(name) for name in known if not counts[name]]:
            classes = f"class {empty[0]} has" if len(empty) == 1 else f"{len(empty)} classes have"
            which = "" if len(empty) == 1 else f": {first_few(empty, _MAX_NAMES)}"
            message = f"{classes} no object in {images}{which}"
            defects.append(Defect("class-empty", source, message, things=len(empty)))
        alike: dict[str, list[str]] = {}
        for name in known:
            alike.setdefault(fold_name(name), []).append(name)
        for names in alike.values():
            if len(names) > 1:
                message = f"classes {names} differ by case or spaces only; if they are one, correct the annotations"
                defects.append(Defect("label-alike", source, message))
        return defects

    @property
    def ids(self) -> list[str]:
        """Ids of the images, in order; setting them keeps the images with the given ids."""
        return self._ids

    @ids.setter
    def ids(self, ids: Sequence[str]) -> None:
        by_id = {record.image_id: record for record in self.records}
        self.records = [by_id[image_id] for image_id in ids]

    @property
    def records(self) -> list[Record]:
        """The images."""
        return self._records

    @records.setter
    def records(self, records: Sequence[Record]) -> None:
        self._records = list(records)
        self._ids = [record.image_id for record in self._records]

    def __len__(self) -> int:
        return len(self.records)

    def annotation(self, index: int) -> Annotation:
        """Return the objects of an image, difficult ones included, those of unknown classes not."""
        record = self.records[index]
        return Annotation(*self._objects(record), record.size)

    def places(self, index: int) -> list[str]:
        """What the objects of an image, as `annotation` has them, are called in their file: "object 3"."""
        record = self.records[index]
        places = record.places or tuple(f"object {number}" for number in range(1, len(record.names) + 1))
        return [place for place, name in zip(places, record.names, strict=True) if name in self.object_labels]

    def left_out(self, index: int) -> list[LeftOut]:
        """List the objects of an image that are not used: those without a usable box, and those of unknown classes."""
        record = self.records[index]
        unknown = [
            LeftOut("class-unknown", name, box)
            for name, box in zip(record.names, record.boxes.tolist(), strict=True)
            if name not in self.object_labels
        ]
        return [*record.left_out, *unknown]

    def _objects(self, record: Record) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes in pixels (N, 4), labels (N,) and difficulties (N,) of the objects of known classes."""
        known = [index for index, name in enumerate(record.names) if name in self.object_labels]
        labels = np.array([self.object_labels[record.names[index]] for index in known], dtype=np.int64)
        difficult = np.array([record.difficult[index] for index in known], dtype=bool)
        return record.boxes[known], labels, difficult

    def get_image(self, index: int) -> np.ndarray:
        """Decode an image, (H, W, 3) uint8 RGB, upright."""
        return self.records[index].read()

    def get_annotation(self, index: int) -> tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return (id, (boxes in pixels (N, 4), labels (N,), difficult (N,))), whatever `keep_difficult` says."""
        boxes, labels, difficult = self._objects(self.records[index])
        return self.records[index].image_id, (boxes, labels, difficult.astype(np.uint8))

    def targets(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pixel boxes (N, 4) and labels (N,) to train on; what to ignore is labelled `IGNORED` or `CROWD`."""
        record = self.records[index]
        boxes, labels, difficult = self._objects(record)
        if not self.ignores_difficult:
            return boxes[~difficult], labels[~difficult]
        labels[difficult] = IGNORED
        if record.crowds:
            known = [name in self.object_labels for name in record.names]
            labels[np.array(record.crowds, bool)[known]] = CROWD
        return boxes, labels

    def ignore_small(self, min_size: float, width_height: tuple[int, int]) -> int:
        """Mark objects as difficult that are small at the network's size; returns how many.

        Args:
            min_size: in pixels; an object is small if both its sides are shorter.
            width_height: of the network's input in pixels.
        """
        count = 0
        for index, record in enumerate(self._records):
            sides = (record.boxes[:, 2:] - record.boxes[:, :2]) * np.divide(width_height, record.size)
            small = (sides < min_size).all(axis=1)
            difficult = tuple((small | np.array(record.difficult, bool)).tolist())
            if difficult != record.difficult:
                count += sum(difficult) - sum(record.difficult)
                self._records[index] = record._replace(difficult=difficult)
        return count

    def has_objects(self, index: int) -> bool:
        """Whether an image has an object to learn: of a known class, and not difficult."""
        return not self._objects(self.records[index])[2].all()

    def __getitem__(self, index: int) -> tuple:
        """Return (image, boxes, labels), by `transform` and `target_transform` where set."""
        image = self.get_image(index)
        boxes, labels, difficult = self._objects(self.records[index])
        if not self.keep_difficult:
            boxes, labels = boxes[~difficult], labels[~difficult]
        if self.transform is not None:
            image, boxes, labels = self.transform(image, boxes, labels)
        if self.target_transform is not None:
            boxes, labels = self.target_transform(boxes, labels)
        return image, boxes, labels

    def class_counts(self, *, with_difficult: bool = True) -> dict[str, int]:
        """Count the objects of each class, in the order of the class list; difficult ones unless they are unwanted."""
        counts: Counter[str] = Counter()
        for record in self.records:
            names = zip(record.names, record.difficult, strict=True)
            counts.update(record.names if with_difficult else (name for name, hard in names if not hard))
        return {name: counts[name] for name in self.class_names[1:]}

    def balance(self, rng: np.random.Generator) -> None:
        """Keep, of each class, as many images as the rarest class has; drawn at random, and their union kept.

        Images without objects stay: they belong to no class.
        """
        holders: dict[str, list[int]] = {name: [] for name in self.class_names[1:]}
        empty = []
        for index, record in enumerate(self.records):
            known = {name for name in record.names if name in self.object_labels}
            for name in sorted(known):
                holders[name].append(index)
            if not known:
                empty.append(index)
        fewest = min((len(places) for places in holders.values() if places), default=0)
        chosen = set(empty)
        for places in holders.values():
            if places:
                chosen.update(rng.choice(places, size=fewest, replace=False).tolist())
        before = self.class_counts()
        self.records = [record for index, record in enumerate(self.records) if index in chosen]
        logger.info("balanced: objects per class %s -> %s, %d images", before, self.class_counts(), len(self))

    def repeat(self, times: int) -> None:
        """Put all images in here several times; each time is augmented in its own way."""
        self.records = self.records * times

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def drop_negatives(self) -> None:
        """Leave out the images without an object to train on; says how many."""
        kept = [record for index, record in enumerate(self.records) if self.has_objects(index)]
        logger.info("%d images without objects left out, as asked; %d are left", len(self) - len(kept), len(kept))
        self.records = kept

    def summary(self) -> str:
        """Say in one line what is in here."""
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts().items())
        return f"{len(self)} images, objects: {counts or 'none'}"


def say_left_out(objects: int) -> str:
    """Say how many objects are left out."""
    return f"{objects} {'object is' if objects == 1 else 'objects are'} left out"


def join(datasets: Sequence[DetectionDataset]) -> DetectionDataset:
    """Put several datasets into one; classes are merged by name, a file that several have counts once.

    Args:
        datasets: objects that their lists of classes leave out stay left out. One alone stays as it is.
    """
    if len(datasets) == 1:
        return datasets[0]
    seen: set[str] = set()
    records, defects = [], []
    for dataset in datasets:
        defects += dataset.defects
        paths = [os.path.realpath(record.image_path) for record in dataset.records]
        repeated = [record for record, path in zip(dataset.records, paths, strict=True) if path in seen]
        records += [record for record, path in zip(dataset.records, paths, strict=True) if path not in seen]
        seen.update(paths)
        if repeated:
            objects = sum(len(record.names) for record in repeated)
            message = f"{len(repeated)} images left out, another folder of --data has them: {repeated[0].image_path}"
            defects.append(Defect("annotation-repeats", dataset.source, message, objects, len(repeated), len(repeated)))
    return DetectionDataset(
        records,
        merge(dataset.class_names for dataset in datasets),
        defects=defects,
        title=" + ".join(dataset.title for dataset in datasets),
        source=Path(" + ".join(dict.fromkeys(str(dataset.source) for dataset in datasets))),
        images_listed=sum(dataset.images_listed for dataset in datasets),
        objects_written=sum(dataset.objects_written for dataset in datasets),
    )
