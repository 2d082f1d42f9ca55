"""Finding the list of classes of a dataset whose annotations have numbers: where tools put it, under all its names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from vision.datasets.labels import read_text, with_background, written_names
from vision.datasets.names import EXAMPLES
from vision.datasets.tree import KIND_FOLDERS, Tree, try_to
from vision.structures import DataError

#: What tools call a list of classes, in lower case.
_USUAL_NAME = re.compile(
    r"_darknet\.labels|obj\.names|(obj_?names|names|categories|labels?|class(es)?"
    r"|(label|class|category|object)_?(names?|list|map)|(predefined|obj|custom|my)_?(classes|labels))"
    r"\.(txt|names|labels|list)"
)
#: How else such a list may end, as Darknet's coco.names.
_OTHER_ENDING = ".names"


def is_usual_name(path: str) -> bool:
    """Whether a file is called as a list of classes."""
    return _USUAL_NAME.fullmatch(path.rpartition("/")[2].lower()) is not None


def folders_around(paths: Iterable[str]) -> set[str]:
    """The folders of files and all folders around them, relative to the dataset, "" for the dataset's own."""
    found = {""}
    for folder in {path.rpartition("/")[0] for path in paths}:
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def find_class_list(tree: Tree, folders: Collection[str], is_annotation: Callable[[str], bool | None]) -> Path | None:
    """Find the list of classes.

    Lists in `folders` come before those that lie elsewhere, and lists of a usual name before others. At each
    stage there may be several lists of the same names.

    Args:
        tree: all files.
        folders: where images and annotations lie, see `folders_around`.
        is_annotation: whether a text is an annotation instead, by its path; None if it says neither.

    Returns:
        its path, None if there is none.

    Raises:
        DataError: there are several lists that differ.
    """
    usual = [path for path in tree.paths if is_usual_name(path)]
    others = [path for path in tree.ending(_OTHER_ENDING) if not is_usual_name(path)]
    near = [[path for path in paths if path.rpartition("/")[0] in folders] for paths in (usual, others)]
    for paths in (*near, usual, others):
        found = _lists_of(tree, paths, is_annotation)
        if len({with_background(names) for names in found.values()}) > 1:
            raise _differing(tree.root, list(found))
        if found:  # a list that begins with the background was made for a net
            return tree.root / min(found, key=lambda path: (len(found[path]), path.count("/"), path))
    return None


def names_in(path: Path) -> tuple[str, ...] | None:
    """The names of a list of classes in their order; None if it cannot be read, or names none."""
    return tuple(try_to(written_names, path) or ()) or None


def other_lists(tree: Tree, folders: Collection[str], names: Collection[str]) -> list[Path]:
    """Lists of classes of a usual name in these folders that hold other names, or the same in another order."""
    paths = [tree.root / path for path in tree.paths if is_usual_name(path) and path.rpartition("/")[0] in folders]
    found = [(path, names_in(path)) for path in paths]
    return [path for path, other in found if other and with_background(other) != with_background(names)]


def _lists_of(
    tree: Tree, paths: Iterable[str], is_annotation: Callable[[str], bool | None]
) -> dict[str, tuple[str, ...]]:
    """Read lists of classes; those at the top may not be unreadable."""
    found = {}
    for path in paths:
        if "/" not in path:
            read_text(tree.root / path, "class names, one a line")
        names = names_in(tree.root / path)
        if names is not None and not is_annotation(path):
            found[path] = names
    return found


def _differing(root: Path, paths: list[str]) -> DataError:
    of_their_own = dict.fromkeys(_dataset_of(path) for path in paths)
    message = f"{root}: lists of classes that differ: {', '.join(paths[:EXAMPLES])}"
    message += f" and {len(paths) - EXAMPLES} more" if len(paths) > EXAMPLES else ""
    message += "; keep the one by which the annotations are numbered, or write `names:` into data.yaml"
    if len(of_their_own) == len(paths) and "" not in of_their_own:
        folders = " ".join(str(root / folder) for folder in list(of_their_own)[:EXAMPLES])
        message += f"; if these are several datasets, name them one by one: --data {folders}"
    return DataError(message)


def _dataset_of(path: str) -> str:
    """The folder around a list, without folders that name a kind of file."""
    folders = path.split("/")[:-1]
    while folders and folders[-1].lower() in KIND_FOLDERS:
        folders.pop()
    return "/".join(folders)
