"""Images with objects, whatever format they come from: samples, class lists, balancing.

Objects are kept by class *name*, so that several datasets can be given one class list afterwards.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vision.datasets.defects import Defect
from vision.datasets.labels import merge
from vision.datasets.names import EXAMPLES, did_you_mean, first_few, fold_name
from vision.datasets.packed import Objects, Records
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
        self.objects_written = len(self.records.objects().record) if objects_written is None else objects_written
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
        self.records = self.records.without(set(self.records.objects().names).difference(self.object_labels))

    def _unknown(self, label_file: Path | None = None) -> list[Defect]:
        objects = self.records.objects()
        unknown = objects.only(~objects.is_of(self.object_labels))
        known = self.class_names[1:]
        of_file = "" if label_file is None else f" of {label_file}"
        defects = []
        for number, name in sorted(enumerate(objects.names), key=lambda entry: entry[1]):
            rows = np.flatnonzero(unknown.name == number)
            if not (count := len(rows)):
                continue
            first = rows[:EXAMPLES].tolist()
            examples = [(self.records[int(unknown.record[row])], int(unknown.number[row])) for row in first]
            places = [f"{record.source} {(record.places or record.names)[place]}" for record, place in examples]
            more = f" and {count - EXAMPLES} more" if count > EXAMPLES else ""
            detail = (
                f"{say_left_out(count)}: class {name!r} is not in the list {list(known)}{of_file}"
                f"{did_you_mean(name, known)}; first: {', '.join(places)}{more}"
            )
            source = examples[0][0].source
            defects.append(Defect("class-unknown", source, detail, count, things=count, class_name=name))
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
        return self.records.texts("image_id")

    @ids.setter
    def ids(self, ids: Sequence[str]) -> None:
        by_id = {image_id: index for index, image_id in enumerate(self.ids)}
        self.records = self.records.take(by_id[image_id] for image_id in ids)

    @property
    def records(self) -> Records:
        """The images."""
        return self._records

    @records.setter
    def records(self, records: Sequence[Record]) -> None:
        self._records = Records.of(records)

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
        before = self.records.objects().difficult.sum()
        self.records = self.records.with_difficult(
            lambda boxes, sizes: ((boxes[:, 2:] - boxes[:, :2]) * np.divide(width_height, sizes) < min_size).all(axis=1)
        )
        return int(self.records.objects().difficult.sum() - before)

    def objects_to_learn(self) -> Objects:
        """The objects of all images side by side: those of known classes that are not difficult."""
        objects = self.records.objects()
        return objects.only(~objects.difficult & objects.is_of(self.object_labels))

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
        objects = self.records.objects()
        wanted = objects.name if with_difficult else objects.name[~objects.difficult]
        counts = dict(zip(objects.names, np.bincount(wanted, minlength=len(objects.names)).tolist(), strict=True))
        return {name: counts.get(name, 0) for name in self.class_names[1:]}

    def balance(self, rng: np.random.Generator) -> None:
        """Keep, of each class, as many images as the rarest class has; drawn at random, and their union kept.

        Images without objects stay: they belong to no class.
        """
        objects = self.records.objects()
        objects = objects.only(objects.is_of(self.object_labels))
        numbers = {name: number for number, name in enumerate(objects.names)}
        holders = [np.unique(objects.record[objects.name == numbers.get(name, -1)]) for name in self.class_names[1:]]
        fewest = min((len(places) for places in holders if len(places)), default=0)
        chosen = set(range(len(self))).difference(objects.record.tolist())
        for places in holders:
            if len(places):
                chosen.update(rng.choice(places, size=fewest, replace=False).tolist())
        before = self.class_counts()
        self.records = self.records.take(sorted(chosen))
        logger.info("balanced: objects per class %s -> %s, %d images", before, self.class_counts(), len(self))

    def repeat(self, times: int) -> None:
        """Put all images in here several times; each time is augmented in its own way."""
        self.records = self.records.repeated(times)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"

    def drop_negatives(self) -> None:
        """Leave out the images without an object to train on; says how many."""
        kept = np.flatnonzero(np.bincount(self.objects_to_learn().record, minlength=len(self)))
        logger.info("%d images without objects left out, as asked; %d are left", len(self) - len(kept), len(kept))
        self.records = self.records.take(kept.tolist())

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
        paths = list(map(os.path.realpath, dataset.records.texts("image_path")))
        repeated = dataset.records.take(index for index, path in enumerate(paths) if path in seen)
        records.append(dataset.records.take(index for index, path in enumerate(paths) if path not in seen))
        seen.update(paths)
        if repeated:
            count, objects = len(repeated), len(repeated.objects().record)
            message = f"{count} images left out, another folder of --data has them: {repeated[0].image_path}"
            defects.append(Defect("annotation-repeats", dataset.source, message, objects, count, count))
    return DetectionDataset(
        Records.joined(records),
        merge(dataset.class_names for dataset in datasets),
        defects=defects,
        title=" + ".join(dataset.title for dataset in datasets),
        source=Path(" + ".join(dict.fromkeys(str(dataset.source) for dataset in datasets))),
        images_listed=sum(dataset.images_listed for dataset in datasets),
        objects_written=sum(dataset.objects_written for dataset in datasets),
    )
