"""What is wrong with the data, said before training: every defect with its file, and totals at the end."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision.boxes.forms import iou_of
from vision.boxes.matching import MATCHING_THRESHOLD
from vision.datasets.base import DetectionDataset, say_left_out
from vision.datasets.class_audit import frequency_defects, small_classes
from vision.datasets.defects import (
    INFO,
    KINDS,
    LEFT_OUT,
    REPAIRED,
    SUSPECT,
    Defect,
    count_things,
    log_defects,
    way_out_of,
)
from vision.datasets.names import first_few
from vision.datasets.packed import Objects
from vision.datasets.records import Record
from vision.datasets.same_pictures import find_same_pictures
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: A box with a side below this, in pixels of the network's input, is half a cell of the finest feature map.
SMALL_SIDE = 8.0

#: Boxes that are compared with all priors at once.
_CHUNK = 256


@dataclass(frozen=True)
class SplitSummary:
    """One split in numbers.

    Attributes:
        title: the list or folder that names its images.
        images_listed: by it, each once.
        images: that are used.
        negatives: how many of the used images have no object.
        objects_written: in the files of the images listed, as far as these could be read.
        objects_left_out: how many of them were dropped.
        objects: that are used, difficult ones included.
        difficult: how many of the used objects are difficult.
        objects_per_class: used objects by class name.
    """

    title: str
    images_listed: int
    images: int
    negatives: int
    objects_written: int
    objects_left_out: int
    objects: int
    difficult: int
    objects_per_class: dict[str, int]


@dataclass(frozen=True)
class BoxSummary:
    """The boxes to train on, seen by the network.

    Attributes:
        network_size: (width, height) of its input in pixels.
        boxes: how many were looked at.
        small: how many have a side below `SMALL_SIDE` pixels there.
        unreached: how many no prior overlaps by `MATCHING_THRESHOLD`.
        recall_per_class: share of a class's boxes that some prior overlaps enough, by name; classes with boxes only.
    """

    network_size: tuple[int, int]
    boxes: int
    small: int
    unreached: int
    recall_per_class: dict[str, float]

    @property
    def best_possible_recall(self) -> float:
        """Share of the boxes that some prior overlaps enough; nan without boxes."""
        return 1 - self.unreached / self.boxes if self.boxes else float("nan")


@dataclass(frozen=True)
class Audit:
    """Everything that was found out about the data of a run."""

    train: SplitSummary
    validation: SplitSummary
    defects: tuple[Defect, ...]
    boxes: BoxSummary

    def count(self, *effects: str) -> int:
        """Count what has defects of the given effects: one defect may stand for many images or objects."""
        return count_things(defect for defect in self.defects if defect.effect in effects)

    def _left_out(self) -> str:
        """Say how many objects and images are left out, and how many files or lines with nobody knows what."""
        lost = [defect for defect in self.defects if defect.effect == LEFT_OUT]
        counts = {
            "objects": sum(defect.objects for defect in lost),
            "images": sum(defect.images for defect in lost),
            "files or lines": count_things(defect for defect in lost if not defect.objects and not defect.images),
        }
        return " and ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing"

    def _counts_of_kinds(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for defect in self.defects:
            counts[defect.kind] += defect.things
        return counts

    def log(self, all_in: str = "") -> None:
        """Log defects and totals; see `log_defects`."""
        log_defects(self.defects, all_in)
        for name, split in (("train", self.train), ("validation", self.validation)):
            classes = ", ".join(f"{label} {count}" for label, count in split.objects_per_class.items())
            logger.info("%s: %s", name, split.title)
            logger.info(
                "%s: %d of %d images used (%d without objects), %d of %d objects used (%d difficult): %s",
                name,
                split.images,
                split.images_listed,
                split.negatives,
                split.objects,
                split.objects_written,
                split.difficult,
                classes,
            )
        boxes = self.boxes
        width, height = boxes.network_size
        logger.info(
            "boxes at %dx%d: %d of %d have a side below %g pixels; %d are reached by no prior at IoU %g, "
            "best possible recall %.3f (%s)",
            width,
            height,
            boxes.small,
            boxes.boxes,
            SMALL_SIDE,
            boxes.unreached,
            MATCHING_THRESHOLD,
            boxes.best_possible_recall,
            ", ".join(f"{name} {recall:.3f}" for name, recall in boxes.recall_per_class.items()),
        )
        logger.info(
            "audit: %s left out, %d repaired, %d suspect, %d noted",
            self._left_out(),
            *(self.count(effect) for effect in (REPAIRED, SUSPECT, INFO)),
        )

    def require_flawless(self) -> None:
        """Raise DataError if anything is left out, repaired or suspect."""
        flaws = [defect for defect in self.defects if defect.effect != INFO]
        if flaws:
            raise DataError(
                f"--strict: the data have {len(flaws)} defects, all in audit.json; first: {flaws[0]}; fix the files, "
                "or leave --strict out"
            )

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        boxes = self.boxes
        return {
            "train": vars(self.train),
            "validation": vars(self.validation),
            "boxes": {
                "network_size": list(boxes.network_size),
                "boxes": boxes.boxes,
                "small": boxes.small,
                "small_side": SMALL_SIDE,
                "unreached": boxes.unreached,
                "reaching_overlap": MATCHING_THRESHOLD,
                "best_possible_recall": boxes.best_possible_recall if boxes.boxes else None,
                "best_possible_recall_per_class": boxes.recall_per_class,
            },
            "totals": {
                **{effect: self.count(effect) for effect in (LEFT_OUT, REPAIRED, SUSPECT, INFO)},
                **{
                    kind: {"count": count, "effect": KINDS[kind].effect, "what": KINDS[kind].title}
                    for kind, count in self._counts_of_kinds().items()
                },
            },
            "defects": [
                {
                    "kind": defect.kind,
                    "effect": defect.effect,
                    "file": str(defect.source),
                    "message": defect.message,
                    "objects": defect.objects,
                    "images": defect.images,
                    "things": defect.things,
                }
                for defect in self.defects
            ],
        }


def make_audit(
    train: DetectionDataset,
    validation: DetectionDataset,
    network_size: tuple[int, int],
    corner_form_priors: torch.Tensor,
    most_boxes: int | None = None,
    max_pictures: int | None = None,
) -> Audit:
    """Look at the data as a whole.

    Args:
        train: to train on, with the run's class list.
        validation: to validate on, with the same class list.
        network_size: (width, height) of the network's input in pixels.
        corner_form_priors: (P, 4) relative.
        most_boxes: compare no more boxes with priors than that, evenly picked; None for all.
        max_pictures: look at no more pictures of a split for those of the other than that, evenly picked; None for all.
    """
    of_split = [
        [*dataset.defects, *dataset.class_defects(images)]
        for dataset, images in ((train, "the training images"), (validation, "the validation images"))
    ]
    defects = [*of_split[0], *of_split[1], *frequency_defects(train)]
    boxes, seen_by_network = _look_at_boxes(train, network_size, corner_form_priors, most_boxes)
    defects += [*shared_images(train, validation, max_pictures), *contradictions(train), *seen_by_network]
    unique = tuple(dict.fromkeys(defects))  # both splits may come from one list
    return Audit(_summary(train, of_split[0]), _summary(validation, of_split[1]), unique, boxes)


def _summary(dataset: DetectionDataset, defects: Sequence[Defect]) -> SplitSummary:
    counts = dataset.class_counts()
    objects = dataset.records.objects()
    known = objects.only(objects.is_of(dataset.object_labels))
    return SplitSummary(
        title=dataset.title,
        images_listed=dataset.images_listed,
        images=len(dataset),
        negatives=int((np.bincount(known.record, minlength=len(dataset)) == 0).sum()),
        objects_written=dataset.objects_written,
        objects_left_out=sum(defect.objects for defect in defects),
        objects=sum(counts.values()),
        difficult=int(known.difficult.sum()),
        objects_per_class=counts,
    )


def _defect_of(dataset: DetectionDataset, objects: Objects, row: int, kind: str, detail: str) -> Defect:
    """Make a defect of a box; the detail follows its name."""
    record, name = dataset.records[int(objects.record[row])], objects.names[objects.name[row]]
    where = record.places[objects.number[row]]
    detail = f"$object {detail}"
    return Defect(kind, record.source, detail, image_id=record.image_id, where=where, class_name=name)


def _boxes_to_train_on(dataset: DetectionDataset, most: int | None) -> tuple[torch.Tensor, Objects]:
    """Relative corner-form boxes (N, 4) of known classes that are not difficult; at most `most`, evenly picked."""
    objects = dataset.objects_to_learn()
    if most is not None and len(objects.record) > most:
        objects = objects.only(np.linspace(0, len(objects.record) - 1, most).astype(int))
    sizes = np.tile(dataset.records.sizes.astype(np.float32)[objects.record], 2)
    return torch.from_numpy(objects.boxes / sizes), objects


def _best_ious(corner_form_boxes: torch.Tensor, corner_form_priors: torch.Tensor) -> torch.Tensor:
    """Of each box (N, 4) the largest overlap with a prior (P, 4), (N,)."""
    chunks = [chunk for chunk in corner_form_boxes.split(_CHUNK) if len(chunk)]
    return torch.cat([iou_of(chunk[:, None], corner_form_priors).amax(dim=1) for chunk in chunks] or [torch.zeros(0)])


def _look_at_boxes(
    dataset: DetectionDataset, network_size: tuple[int, int], corner_form_priors: torch.Tensor, most: int | None
) -> tuple[BoxSummary, list[Defect]]:
    """See boxes as the network will: their sides in its pixels, and the best overlap with a prior."""
    boxes, objects = _boxes_to_train_on(dataset, most)
    ious = _best_ious(boxes, corner_form_priors)
    sides = ((boxes[:, 2:] - boxes[:, :2]) * torch.tensor(network_size)).numpy()
    defects = []
    small = unreached = 0
    for row, ((width, height), best) in enumerate(zip(sides.tolist(), ious.tolist(), strict=True)):
        if min(width, height) < SMALL_SIDE:
            small += 1
            detail = f"is {width:.1f}x{height:.1f} pixels at the network's size"
            defects.append(_defect_of(dataset, objects, row, "box-small", detail))
        if best < MATCHING_THRESHOLD:
            unreached += 1
            detail = f"overlaps no prior by {MATCHING_THRESHOLD:g}, the best by {best:.2f}"
            defects.append(_defect_of(dataset, objects, row, "box-unreached", detail))
    names = np.array(objects.names, dtype=str)[objects.name]
    defects += small_classes(dataset, names, sides, network_size)
    reached = ious.numpy() >= MATCHING_THRESHOLD
    recalls = {name: float(reached[names == name].mean()) for name in dataset.class_names[1:] if (names == name).any()}
    return BoxSummary(network_size, len(boxes), small, unreached, recalls), defects


def best_possible_recall(dataset: DetectionDataset, corner_form_priors: torch.Tensor, most_boxes: int | None) -> float:
    """Share of a dataset's boxes that some prior overlaps by `MATCHING_THRESHOLD`; nan without boxes.

    Args:
        dataset: with the run's class list.
        corner_form_priors: (P, 4) relative.
        most_boxes: look at no more than that, evenly picked; None for all.
    """
    boxes, _ = _boxes_to_train_on(dataset, most_boxes)
    return float((_best_ious(boxes, corner_form_priors) >= MATCHING_THRESHOLD).double().mean())


def box_sides(dataset: DetectionDataset, network_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Widths and heights (N, 2) of a dataset's boxes to train on, in pixels at the network's size, and labels (N,)."""
    objects = dataset.objects_to_learn()
    scales = np.asarray(network_size, np.float32) / dataset.records.sizes.astype(np.float32)
    labels = np.array([dataset.object_labels.get(name, 0) for name in objects.names], np.int64)
    return (objects.boxes[:, 2:] - objects.boxes[:, :2]) * scales[objects.record], labels[objects.name]


def shared_images(
    train: DetectionDataset, validation: DetectionDataset, max_pictures: int | None = None
) -> list[Defect]:
    """Defects: images that are in both splits, as the same file, as a copy, or as another file of the same picture.

    Args:
        train: to train on.
        validation: to validate on; each defect is of one of the lists that name its images.
        max_pictures: look at no more pictures of a split than that, evenly picked; None for all.
    """
    train_paths, paths = (dataset.records.texts("image_path") for dataset in (train, validation))
    digests = validation.records.texts("digest")
    by_digest = dict(zip(train.records.texts("digest"), train_paths, strict=True))
    by_digest.pop("", None)
    trained_paths = set(train_paths)
    same_file = [index for index, path in enumerate(paths) if path in trained_paths]
    rest = [index for index, path in enumerate(paths) if path not in trained_paths]
    copies = [(index, by_digest[digests[index]]) for index in rest if digests[index] in by_digest]
    rest = [index for index in rest if digests[index] not in by_digest]
    found, compared = find_same_pictures(validation.records.take(rest), train.records, max_pictures)
    same_pictures = [(rest[index], train_paths[other]) for index, other in found]
    sample = f" (compared: {compared[0]} with {compared[1]} training images, --dry-run compares all)"
    if compared == (len(rest), len(train)):
        sample = ""
    return [
        *_shared(
            validation,
            [(index, validation.records[index].image_id) for index in same_file],
            "ARE TRAINING IMAGES too: the results will say little about new images; correct the lists, or hold some "
            "out with --val-split=0.2; first: ",
        ),
        *_shared(
            validation,
            [(index, f"{paths[index]} is {other}") for index, other in copies],
            "ARE COPIES of training images in other files; first: ",
        ),
        *_shared(
            validation,
            [(index, f"{paths[index]} is {other}") for index, other in same_pictures],
            f"LOOK THE SAME AS TRAINING IMAGES{sample}: saved again, in another size, or frames of a video a moment "
            "apart; the results will say little about new images; take them out of one list; first: ",
        ),
    ]


def _shared(validation: DetectionDataset, found: Sequence[tuple[int, str]], what: str) -> list[Defect]:
    """Make a defect for each list that names some of the images found, each with words that name it."""
    unsaid = str(Path())
    lists = [str(validation.source) if path == unsaid else path for path in validation.records.texts("listed_in")]
    listed = Counter(lists)
    by_list: dict[str, list[str]] = {}
    for index, words in found:
        by_list.setdefault(lists[index], []).append(words)
    return [
        Defect(
            "overlap",
            Path(path),
            f"{len(words)} of {listed[path]} validation images ({len(words) / listed[path]:.0%}) {what}"
            f"{first_few(words)}",
            things=len(words),
        )
        for path, words in by_list.items()
    ]


def contradictions(dataset: DetectionDataset) -> list[Defect]:
    """Defects: pictures that are several times in a dataset, in files of their own, with different objects."""
    digests, paths = dataset.records.texts("digest"), dataset.records.texts("image_path")
    counts = Counter(filter(None, digests))
    by_digest: dict[str, dict[str, int]] = {}
    for index, digest in enumerate(digests):
        if counts[digest] > 1:
            by_digest.setdefault(digest, {})[paths[index]] = index
    found = []
    for copies in by_digest.values():
        first, *others = (dataset.records[index] for index in copies.values())
        if any(not _have_the_same_objects(first, other) for other in others):
            found.append(list(copies))
    if not found:
        return []
    files = sum(map(len, found))
    message = (
        f"{files} of {len(set(paths))} training images are copies of "
        f"{len(found)} picture{'s'[: len(found) > 1]} with different objects in each; keep the right one of each; "
        f"first: {first_few(found[0])}"
    )
    return [Defect("annotation-contradicts", dataset.source, message, things=files)]


def _have_the_same_objects(one: Record, other: Record) -> bool:
    """Whether two records have objects of the same classes, at about the same places."""
    if sorted(one.names) != sorted(other.names) or one.size != other.size:
        return False
    if not one.names:
        return True
    ious = iou_of(torch.from_numpy(one.boxes)[:, None], torch.from_numpy(other.boxes)).numpy()
    same_name = np.array(one.names)[:, None] == np.array(other.names)
    near = same_name & (ious >= MATCHING_THRESHOLD)
    return bool(near.any(axis=0).all() and near.any(axis=1).all())


def require_objects(train_set: DetectionDataset, folders: Sequence[str]) -> None:
    """Raise DataError if there is nothing to learn: no object of a known class that is not difficult."""
    if not len(train_set.objects_to_learn().record):
        why, way_out = _why_no_object(train_set)
        raise DataError(
            f"no object in {', '.join(folders)} can be trained on, classes are {list(train_set.class_names[1:])}; "
            f"{why}; {way_out}"
        )


def _why_no_object(dataset: DetectionDataset) -> tuple[str, str]:
    """Say what became of a dataset's objects, what most came to first, and the way out of that."""
    lost: Counter[str] = Counter()
    for defect in dataset.defects:
        lost[defect.kind] += defect.objects
    unknown = [
        f"{say_left_out(defect.objects)}: class {defect.class_name!r}" if defect.class_name else defect.message
        for defect in dataset.defects
        if defect.kind == "class-unknown"
    ]
    reasons = {kind: f"{count} {KINDS[kind].title}" for kind, count in lost.most_common() if count}
    if unknown:
        reasons["class-unknown"] = "; ".join(unknown)
    difficult = len(dataset.records.objects().record)
    if difficult and difficult >= max(lost.values(), default=0):
        rest = "all are difficult" if not reasons else f"{difficult} are difficult"
        return "; ".join([rest, *reasons.values()]), (
            "take the mark from those that are to be found, or lower --min-object"
        )
    way_out = way_out_of(dataset.defects) or "label some objects, and export again"
    return "; ".join(reasons.values()) or "there is none", way_out


def fingerprint(dataset: DetectionDataset) -> str:
    """Digest what a dataset holds: contents of images, boxes and classes, in their order."""
    digest = hashlib.blake2b(digest_size=12)
    for record in dataset.records:
        facts = (record.image_id, record.digest, record.size, record.names, record.difficult)
        digest.update(repr(facts).encode())
        digest.update(record.boxes.tobytes())
    return digest.hexdigest()
