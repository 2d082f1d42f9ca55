"""Classes that a net can hardly learn: of few objects, of few beside another class, or of small ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from vision.datasets.base import DetectionDataset
from vision.datasets.defects import Defect
from vision.datasets.names import first_few, fold_name, nearest_name
from vision.datasets.records import Record

#: A class with fewer objects is one of few: LVIS calls a class of at most ten images rare, and its AP is the lowest.
FEW_OBJECTS = 10

#: A class with at most this part of the objects of the most frequent class is rare beside it: the loss is a mean over
#: objects, so that the class decides a tenth of a step at most. LVIS calls a class with more images than that frequent,
#: whatever others have.
RARE_SHARE, MAX_RARE_OBJECTS = 0.1, 100

#: A side below this, in pixels of the network's input, is a cell of the finest feature map of most nets, or less.
SMALL_OBJECT_SIDE = 16.0

#: Names that a message lists.
_MAX_NAMES = 20

_DIGITS = re.compile(r"\d+")


def frequency_defects(train: DetectionDataset) -> list[Defect]:
    """Defects: classes with few objects to train on, those of which may be typing errors, and rare classes.

    Each class is named once, and none that has no object at all, see `DetectionDataset.class_defects`.
    """
    to_learn = train.class_counts(with_difficult=False)
    counts = {name: to_learn[name] for name, count in train.class_counts().items() if count}
    objects = train.objects_to_learn()
    rows = np.full(len(objects.names), -1)
    rows[objects.name[::-1]] = np.arange(len(objects.name))[::-1]  # of the first object of each class, which stays
    first: dict[str, tuple[Record, str]] = {}
    for row in sorted(rows[rows >= 0].tolist()):
        record, number = train.records[int(objects.record[row])], objects.number[row]
        first[objects.names[objects.name[row]]] = record, (record.places or record.names)[number]
    most = max(counts.values(), default=0)
    doubtful = []
    for name, (record, place) in first.items():
        usual = [other for other, count in counts.items() if counts[name] <= RARE_SHARE * count]
        if counts[name] >= FEW_OBJECTS or not usual:
            continue
        if detail := _doubt(counts[name], _misspelled(name, usual), counts):
            defect = Defect(
                "class-doubtful", record.source, detail, image_id=record.image_id, where=place, class_name=name
            )
            doubtful.append((name, defect))
    named = {name for name, _ in doubtful}
    few = {name: count for name, count in counts.items() if count < FEW_OBJECTS and name not in named}
    at_most = min(RARE_SHARE * most, MAX_RARE_OBJECTS)
    rare = {name: count for name, count in counts.items() if FEW_OBJECTS <= count <= at_most and name not in named}
    defects = [defect for _, defect in doubtful]
    if few:
        message = (
            f"classes with fewer than {FEW_OBJECTS} objects to train on: {_listed(few)}; label more of them, their AP "
            "will hardly rise otherwise"
        )
        defects.append(Defect("class-few", train.source, message, things=len(few)))
    if rare:
        usual_name = max(counts, key=lambda name: counts[name])
        message = (
            f"classes with at most a tenth of the {most} objects of {usual_name!r} to train on: {_listed(rare)}; if "
            "their AP stays low, label more of them"
        )
        defects.append(Defect("class-rare", train.source, message, things=len(rare)))
    return defects


def _doubt(count: int, misspelled: str | None, counts: dict[str, int]) -> str:
    """Say why a class may be none, by its first object; "" where nothing says so."""
    objects = "the only object" if count == 1 else f"one of {count} objects"
    if misspelled is not None:
        return (
            f"$object is {objects} of its class to train on; is it a typing error for {misspelled!r}, which has "
            f"{counts[misspelled]} objects?"
        )
    return f"$object is {objects} of its class to train on; correct the name, or label more" if count == 1 else ""


def _misspelled(name: str, usual: Sequence[str]) -> str | None:
    """Return the name, among those of usual classes, that another is nearly; numbers tell classes apart."""
    others = [
        other
        for other in usual
        if fold_name(other) != fold_name(name) and _DIGITS.sub("", other) != _DIGITS.sub("", name)
    ]
    return nearest_name(name, others)


def _listed(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    return first_few([f"{name!r} {count}" for name, count in ordered], _MAX_NAMES)


def small_classes(
    dataset: DetectionDataset, names: np.ndarray, sides: np.ndarray, network_size: tuple[int, int]
) -> list[Defect]:
    """Defects: classes of which at least half of the objects are small for the network.

    Args:
        dataset: that the objects are of.
        names: (N,) of the class of each object.
        sides: (N, 2) of the objects, in pixels at the network's size.
        network_size: (width, height) in pixels.
    """
    small = sides.max(axis=1) < SMALL_OBJECT_SIDE
    width, height = network_size
    defects = []
    for name in dataset.class_names[1:]:
        mine = small[np.flatnonzero(names == name)]
        if len(mine) and 2 * mine.sum() >= len(mine):
            message = (
                f"class {name!r}: {mine.sum()} of {len(mine)} objects are smaller than {SMALL_OBJECT_SIDE:g} pixels at "
                f"{width}x{height}, and may be missed; a larger --resolution makes them larger"
            )
            defects.append(Defect("class-small", dataset.source, message, class_name=name))
    return defects
