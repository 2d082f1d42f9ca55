"""Where a dataset in Pascal VOC's layout begins, and which of its folders hold what."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vision.datasets.file_index import files_below
from vision.datasets.folder import SPLIT_NAMES
from vision.datasets.tree import MAX_DEPTH, several_datasets, subfolders

#: Folders of annotations and of images, in any case; without them, any folder below the root may hold some.
ANNOTATION_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels")
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")


def find_base(root: Path) -> Path | None:
    """Find where a dataset of this layout begins: at the root, or in folders that an archive wrapped around it.

    Raises:
        DataError: several datasets lie side by side.
    """
    level = [root]
    for _ in range(MAX_DEPTH + 1):
        fitting = [folder for folder in level if _begins_in(folder)]
        if len(fitting) == 1 and not (several := _datasets_beside_flat_ones(fitting[0])):
            return fitting[0]
        if len(fitting) == 1:
            return several[0] if len(several) == 1 else _common_base(root, several)
        if fitting:
            return _common_base(root, fitting)
        level = [child for folder in level for child in subfolders(folder)]
    return None


def _common_base(root: Path, fitting: list[Path]) -> Path:
    """Return the folder of parts that are named as splits, train/Annotations and test/Annotations."""
    splits = set(SPLIT_NAMES)
    names = {part.lower() for folder in fitting for part in folder.relative_to(root).parts}
    names |= {child.name.lower() for folder in fitting for child in subfolders(folder)}
    if names & splits:
        return Path(os.path.commonpath(fitting))
    raise several_datasets(root, fitting)


def _begins_in(folder: Path) -> bool:
    return is_laid_out(folder) or any(_xml_in(place) for place in (folder, *subfolders(folder)))


def is_laid_out(folder: Path) -> bool:
    """Whether a folder has lists of images or annotations where VOC has them."""
    return bool(find_subfolder(folder, ("imagesets",)) or find_annotation_folder(folder))


def _datasets_beside_flat_ones(folder: Path) -> list[Path]:
    """List the datasets in a folder that begins with XML files one below it, if one of them has a layout of its own."""
    if is_laid_out(folder) or _xml_in(folder):
        return []
    flat = level = subfolders(folder)
    laid_out: list[Path] = []
    for _ in range(MAX_DEPTH):
        found = [place for place in level if is_laid_out(place)]
        laid_out += found
        level = [child for place in level if place not in found for child in subfolders(place)]
    return [*laid_out, *(place for place in flat if _xml_in(place) and place not in laid_out)] if laid_out else []


def find_annotation_folder(folder: Path) -> Path | None:
    """Find the folder that is named as one of annotations and holds XML files."""
    candidates = (find_subfolder(folder, (name,)) for name in ANNOTATION_FOLDERS)
    return next((path for path in candidates if path and next(files_below(path, (".xml",)), None)), None)


def _xml_in(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() == ".xml" for path in folder.iterdir())
    except OSError:
        return False


def find_subfolder(folder: Path, *names: Iterable[str]) -> Path | None:
    """Follow folders by names in any case; each step has alternatives, the first that is there counts."""
    for alternatives in names:
        by_name = {path.name.lower(): path for path in subfolders(folder)}
        found = next((by_name[name] for name in alternatives if name in by_name), None)
        if found is None:
            return None
        folder = found
    return folder
