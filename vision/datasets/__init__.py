"""Files on disk -> images with objects. A format is one class and one row of `DATASETS`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from vision.datasets.base import DetectionDataset, join
from vision.datasets.coco import CocoReader, CocoWriter
from vision.datasets.createml import CreatemlReader, CreatemlWriter
from vision.datasets.csv_table import TableReader
from vision.datasets.cvat import CvatReader, CvatWriter
from vision.datasets.file_cache import FileCache
from vision.datasets.folder import (
    NAMES_WANTED,
    SPLIT_NAMES,
    DatasetReader,
    ReadingOptions,
    check_folder,
    read_names,
    splits_of,
)
from vision.datasets.imglab import ImglabReader
from vision.datasets.kept_readings import KeptReading, Reading
from vision.datasets.kitti import KittiReader
from vision.datasets.label_studio import LabelStudioReader
from vision.datasets.labelme import LabelmeReader, LabelmeWriter
from vision.datasets.labels import merge, with_background
from vision.datasets.names import first_few
from vision.datasets.oidv4 import Oidv4Reader
from vision.datasets.open_images import OpenImagesReader
from vision.datasets.own_reader import is_own, load_reader
from vision.datasets.tree import KIND_FOLDERS, MAX_DEPTH, Tree, several_datasets, subfolders
from vision.datasets.unsupported import pointer_in, tool_of, what_is_there
from vision.datasets.via import ViaReader
from vision.datasets.voc_dataset import VocReader
from vision.datasets.voc_xml import VocWriter
from vision.datasets.writer import AnnotationWriter
from vision.datasets.yolo import YoloReader, YoloWriter
from vision.options.kinds import AUTO
from vision.structures import DataError
from vision.utils.progress import ProgressBar, no_progress

#: Name, as in --dataset-type -> class; of formats that see as much in a folder, `auto` takes the first.
DATASETS: Mapping[str, type[DatasetReader]] = {
    folder.name: folder
    for folder in (
        *(VocReader, OpenImagesReader, CocoReader, YoloReader),
        *(CvatReader, LabelmeReader, CreatemlReader, TableReader, KittiReader, Oidv4Reader, ImglabReader),
        *(ViaReader, LabelStudioReader),
    )
}

#: Name, as in --save-annotations -> class.
WRITERS: Mapping[str, type[AnnotationWriter]] = {
    writer.name: writer for writer in (VocWriter, YoloWriter, CocoWriter, CvatWriter, LabelmeWriter, CreatemlWriter)
}

#: Folders of a level that are looked into where a folder is none.
_MOST_LOOKED_INTO = 20

logger = logging.getLogger(__name__)

__all__ = [
    "AUTO",
    "DATASETS",
    "WRITERS",
    "DetectionDataset",
    "ReadingOptions",
    "Splits",
    "is_dataset",
    "join",
    "open_dataset",
    "open_folder",
    "open_splits",
]


class Splits(NamedTuple):
    """What a run trains and validates on; one class list for both."""

    train: DetectionDataset
    validation: DetectionDataset


def open_folder(dataset_type: str, root: str | Path, options: ReadingOptions | None = None) -> DatasetReader:
    """Find out what a dataset's folder holds.

    Args:
        dataset_type: a key of `DATASETS`; "auto" to go by what is on disk; or `package.module:Class`, a reader from
            outside this package, which gets the folder as it is named.
        root: the folder.
        options: how to read.

    Raises:
        DataError: there is no such folder, or it is not of that format, or of none.
    """
    folder, messages = _find_reader(dataset_type, Path(root), options or ReadingOptions())
    for message in messages:
        logger.info("%s", message)
    return folder


def _find_reader(dataset_type: str, root: Path, options: ReadingOptions) -> tuple[DatasetReader, list[str]]:
    """Find the reader of a folder, and what is to be said of it; see `open_folder`."""
    messages: list[str] = []
    reader = load_reader(dataset_type) if is_own(dataset_type) else None
    check_folder(root)
    if reader is not None:
        return reader(root, _cache_of(root, options), options), messages
    root = _unwrapped(root)
    if several := _datasets_in(root):
        raise several_datasets(root, several)
    if dataset_type == AUTO:
        tree = Tree(root)
        candidates = _formats_of(tree)
        is_read = any(candidates.values())
        tool = None if is_read else tool_of(tree)
        if tool or not candidates or (not is_read and pointer_in(tree)):
            if (inside := _dataset_inside(root)) is not None:
                raise DataError(f"{root}: is no dataset, but {inside[0]} in it is one of {inside[1]}; name that")
            raise DataError(f"{root}: {what_is_there(tree, tool)}; formats that are read: {', '.join(DATASETS)}")
        dataset_type, *others = candidates
        messages.append(f"{root}: looks like {dataset_type}")
        messages += [
            f"{root}: also holds annotations that look like {other}, of about {candidates[other]} images; "
            f"--dataset-type={other} reads these"
            for other in others
            if candidates[other]
        ]
    elif not DATASETS[dataset_type].recognizes(root):
        found = _formats_of(Tree(root))
        best = next((name for name, images in found.items() if images), None)
        if best is not None and not found.get(dataset_type):
            raise DataError(f"{root}: is no {dataset_type} dataset, it looks like {best}; use --dataset-type=auto")
    return DATASETS[dataset_type](root, _cache_of(root, options), options), messages


def _cache_of(root: Path, options: ReadingOptions) -> FileCache:
    return FileCache.of_folder(root) if options.cache else FileCache()


def _unwrapped(root: Path) -> Path:
    """Go into a folder that an archive wrapped around a dataset: alone where it is, and of a name that says nothing."""
    for _ in range(MAX_DEPTH):
        inside = [path for path in root.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        says_something = any(path.name.lower() in (*SPLIT_NAMES, *KIND_FOLDERS, "imagesets") for path in inside)
        if len(inside) != 1 or not inside[0].is_dir() or says_something:
            break
        root = inside[0]
    return root


def _dataset_inside(root: Path) -> tuple[Path, str] | None:
    """Find the outermost folder below the root of which a format reads something, and that format."""
    level = [root]
    for _ in range(MAX_DEPTH):
        level = [child for folder in level for child in subfolders(folder)][:_MOST_LOOKED_INTO]
        for folder in level:
            found = [name for name, images in _formats_of(Tree(folder)).items() if images]
            if found:
                return folder, found[0]
    return None


def _datasets_in(root: Path) -> list[Path]:
    """List the datasets in a folder that is none itself; none of them if there is but one."""
    if _begins_at(root):
        return []
    children = [path for path in subfolders(root) if path.name.lower() not in KIND_FOLDERS]
    children = [path for path in children if not splits_of(f"{path.name}/", by_name=False)]
    beginning = [path for path in children if _begins_at(path)]
    if not beginning or len(children) == 1:
        return []
    found = [path for path in children if path in beginning or _is_recognized(path)]
    return found if len(found) > 1 else []


def _begins_at(folder: Path) -> bool:
    return any(each.begins_at(folder) for each in DATASETS.values())


def _is_recognized(folder: Path) -> bool:
    try:
        return any(each.recognizes(folder) for each in DATASETS.values())
    except DataError:  # it holds several datasets itself
        return True


def _formats_of(tree: Tree) -> dict[str, int]:
    """Rank the formats by how many images on disk their annotations are about; the best first.

    Where none is about any, a folder may still be laid out as one of them, and reading it says what is wrong.
    """
    images = {name: folder.annotated_images(tree) for name, folder in DATASETS.items()}
    found = {name: count for name, count in sorted(images.items(), key=lambda entry: -entry[1]) if count}
    if found:
        return found
    return {name: 0 for name, folder in DATASETS.items() if folder.recognizes(tree.root)}


def is_dataset(root: str | Path) -> bool:
    """Whether a folder is a dataset of one of the formats."""
    return bool(_formats_of(Tree(_unwrapped(Path(root)))))


def open_dataset(
    dataset_type: str,
    root: str | Path,
    split: str,
    options: ReadingOptions | None = None,
    progress: ProgressBar = no_progress,
) -> DetectionDataset:
    """Read one split of a dataset.

    Args:
        dataset_type: see `open_folder`.
        root: its folder.
        split: a key of `vision.datasets.folder.SPLITS`.
        options: how to read.
        progress: shows images going by.

    Raises:
        DataError: it cannot be read.
    """
    (reading,) = _read(dataset_type, [(Path(root), ("split", split))], options, progress)
    return _dataset(reading)


def open_listed(
    dataset_type: str,
    roots: Sequence[str | Path],
    image_list: Path,
    options: ReadingOptions | None = None,
    progress: ProgressBar = no_progress,
) -> list[DetectionDataset]:
    """Read the images of several datasets that a file names, by their id or file name, whatever split they are in.

    Args:
        dataset_type: see `open_folder`; with "auto" they may differ.
        roots: their folders.
        image_list: the file; it need not name images of each folder.
        options: how to read.
        progress: shows images going by.

    Raises:
        DataError: one cannot be read, or the file names an image that is in none of them.
    """
    names = read_names(image_list)
    folders = [open_folder(dataset_type, root, options) for root in roots]
    found = [folder.listed_in(image_list, names) for folder in folders]
    if unknown := [name for name in names if all(name in missing for _, missing in found)]:
        where = ", ".join(str(folder.root) for folder in folders)
        raise DataError(f"{image_list}: names {first_few(unknown)}, no annotated image in {where}; {NAMES_WANTED}")
    datasets = []
    for folder, (listing, _) in zip(folders, found, strict=True):
        if listing.images:
            datasets.append(_dataset(Reading((folder.read(listing, progress),), folder.label_list)))
            folder.cache.save()
    return datasets


def _read(
    dataset_type: str,
    wanted: Sequence[tuple[Path, Sequence[str]]],
    options: ReadingOptions | None,
    progress: ProgressBar,
) -> list[Reading]:
    """Read folders, or take what an earlier start has read.

    Args:
        dataset_type: see `open_folder`.
        wanted: folders, each with a method of its reader that gives what is to be read, and that method's arguments.
        options: how to read.
        progress: shows images going by.
    """
    options = options or ReadingOptions()
    if is_own(dataset_type):  # nobody knows what such a reader goes by
        kept = [KeptReading(dataset_type, root, replace(options, cache=False), asked) for root, asked in wanted]
    else:
        kept = [KeptReading(dataset_type, root, options, asked) for root, asked in wanted]
    readings, readers = [each.load() for each in kept], []
    for (root, _), reading in zip(wanted, readings, strict=True):  # what is wrong with a folder is said before reading
        reader, messages = (None, reading.messages) if reading else _find_reader(dataset_type, root, options)
        readers.append((reader, messages))
        for message in messages:
            logger.info("%s", message)
    for number, ((_, (method, *names)), (reader, messages)) in enumerate(zip(wanted, readers, strict=True)):
        if reader is not None:
            listings = reader.splits() if method == "splits" else [getattr(reader, method)(*names)]
            parts = tuple(reader.read(listing, progress) for listing in listings)
            readings[number] = Reading(parts, reader.label_list, tuple(messages))
    for reader, _ in readers:
        if reader is not None:
            reader.cache.save()
    return [
        each.store(reading, reader) if reader is not None else reading
        for each, reading, (reader, _) in zip(kept, filter(None, readings), readers, strict=True)
    ]


def _dataset(reading: Reading, part: int = 0, with_labels: bool = True) -> DetectionDataset:
    contents, labels = reading.parts[part], reading.labels
    defects = [*(labels.defects if with_labels else ()), *contents.defects]
    dataset = DetectionDataset(contents.records, with_background(labels.names), defects=defects, **contents.origin)
    dataset.drop_unknown(labels.source)
    return dataset


def open_splits(
    dataset_type: str,
    roots: Sequence[str | Path],
    options: ReadingOptions | None = None,
    progress: ProgressBar = no_progress,
    *,
    validation_roots: Sequence[str | Path] = (),
) -> Splits:
    """Read one or several datasets and merge them by class name.

    Args:
        dataset_type: see `open_folder`; with "auto" they may differ.
        roots: their folders.
        options: how to read.
        progress: shows images going by.
        validation_roots: folders to validate on, with the classes of the others, which are then trained on as far as
            their lists say; none for what the others hold for validation.

    Raises:
        DataError: one of them cannot be read.
    """
    others = list(map(Path, validation_roots))
    asked = ("listed_or_all", "train") if others else ("splits",)
    wanted = [(Path(root), asked) for root in roots]
    readings = _read(
        dataset_type, [*wanted, *((root, ("listed_or_all", "test")) for root in others)], options, progress
    )
    parts: tuple[list[DetectionDataset], list[DetectionDataset]] = ([], [])
    for reading in readings[: len(roots)]:
        parts[0].append(_dataset(reading))
        if not others:
            parts[1].append(_dataset(reading, 1, with_labels=False))
    parts[1].extend(_dataset(reading) for reading in readings[len(roots) :])
    train, validation = join(parts[0]), join(parts[1])
    names = train.class_names if others else merge([train.class_names, validation.class_names])
    for dataset in (train, validation):
        dataset.set_class_names(names)
    if others:
        validation.drop_unknown()
    return Splits(train, validation)
