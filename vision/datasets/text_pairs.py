"""Which text file belongs to which image, where each image has one of its own: by the names of files and folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from vision.datasets.folder import may_be_of, splits_of
from vision.datasets.tree import KIND_FOLDERS, Tree
from vision.structures import IMAGE_SUFFIXES

#: Names of folders, in lower case, that say no more of the files in them than what kind they are.
_KIND_FOLDERS = frozenset(
    (
        *KIND_FOLDERS,
        *("data", "frames", "pics", "pictures", "photos", "raw"),
        *("yolo", "txt", "txts", "text", "texts", "ann", "anns", "bbox", "bboxes", "boxes", "gt"),
    )
)

#: Folders that are compared with each other where their paths are the same but for one folder; more are too many.
_MAX_ALIKE = 200


class Pairs(NamedTuple):
    """Images with their texts, paths relative to the dataset's folder.

    Attributes:
        text_of: image -> text.
        single: texts that no image is found for.
        repeated: texts that are about an image which has its text elsewhere.
    """

    text_of: dict[str, str]
    single: list[str]
    repeated: list[str]


def pair(tree: Tree, fits: Callable[[str], bool | None], is_other: Callable[[str], bool]) -> Pairs:
    """Find the text of each image.

    A text lies in `labels` where its image lies in `images`, or beside it. Folders that have nothing in common by that
    rule are held against each other: `data` and `labels`, `images/train` and `yolo/train`, `part1` and `labels/part1`.
    Their paths may differ by one folder, besides those that only name a kind of file.

    Args:
        tree: all files.
        fits: whether a text is an annotation, by its path; None if it says neither.
        is_other: whether a text is called as lists and the like are. It is an image's only if it fits.
    """
    images, texts = tree.ending(*IMAGE_SUFFIXES), tree.ending(".txt")
    by_key: dict[str, str] = {}
    for path in texts:
        by_key.setdefault(path[:-4].lower(), path)
    exact = set(texts)
    places: dict[str, list[str]] = {}
    text_of: dict[str, str] = {}
    free_images: dict[str, dict[str, str]] = {}
    for image in images:
        folder, stem = _split(image)
        for place in places.get(folder) or places.setdefault(folder, places_of(folder)):
            text: str | None = f"{place}{stem}.txt"
            if text not in exact:
                key = f"{place}{stem}".lower()
                text = by_key.get(key) or by_key.get(f"{place}{image[len(folder) :]}".lower())
            if text and not (is_other(text) and not fits(text)):
                text_of[image] = text
                break
        else:
            free_images.setdefault(folder, {}).setdefault(stem.lower(), image)
    used = set(text_of.values())
    single = [text for text in texts if text not in used and not is_other(text)]
    if not single:
        return Pairs(text_of, [], [])
    taken_folders = {_split(text)[0] for text in used}
    for folder in {_split(image)[0] for image in text_of}:
        free_images.pop(folder, None)
    free_texts: dict[str, dict[str, str]] = {}
    for text in single:
        folder, stem = _split(text)
        if folder not in taken_folders:
            free_texts.setdefault(folder, {})[stem.lower()] = text
    found = dict(_alike(free_images, free_texts, lambda paths: tree.count_by_sample(paths, fits) > 0))
    text_of.update(found)
    used.update(found.values())
    single = [text for text in single if text not in used]
    stems = {_split(image)[1].lower() for image in text_of}
    repeated = {text for text in single if _split(text)[0] not in taken_folders and _split(text)[1].lower() in stems}
    return Pairs(text_of, [text for text in single if text not in repeated], sorted(repeated))


def _split(path: str) -> tuple[str, str]:
    """Split a path into its folder with a slash behind, "" for the root, and the name without suffix."""
    folder, slash, name = path.rpartition("/")
    return folder + slash, name.rpartition(".")[0]


def places_of(folder: str) -> list[str]:
    """Folders of the texts of a folder of images: the last part called images becomes labels."""
    parts = folder.split("/")
    for place in range(len(parts) - 2, -1, -1):
        if parts[place].lower() == "images":
            return ["/".join([*parts[:place], "labels", *parts[place + 1 :]]), folder]
    return [folder]


def _alike(
    images: dict[str, dict[str, str]],
    texts: dict[str, dict[str, str]],
    are_annotations: Callable[[list[str]], bool],
) -> Iterator[tuple[str, str]]:
    """Pair the files of folders whose paths are nearly the same; both are given as folder -> stem -> path."""
    by_key: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for folder, stems in texts.items():
        if are_annotations(list(stems.values())):
            for rank, key in _keys_of(folder):
                by_key.setdefault(key, []).append((rank, folder))
    options = []
    for folder, stems in images.items():
        ranks: dict[str, int] = {}
        for rank, key in _keys_of(folder):
            for other_rank, other in by_key.get(key, [])[:_MAX_ALIKE]:
                ranks[other] = min(rank + other_rank, ranks.get(other, 2))
        shared = {other: len(stems.keys() & texts[other].keys()) for other in ranks}
        options += [(ranks[other], -count, folder, other) for other, count in shared.items() if count]
    taken: set[str] = set()
    for _, _, folder, other in sorted(options):
        for stem in sorted(images[folder].keys() & texts[other].keys()):
            image, text = images[folder][stem], texts[other][stem]
            if taken.isdisjoint((image, text)) and may_be_of(splits_of(text, by_name=False), image):
                yield image, text
                taken.update((image, text))


def _keys_of(folder: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The parts of a path that do not name a kind of file: all of them, then without each one."""
    parts = tuple(part for part in folder.lower().split("/") if part and part not in _KIND_FOLDERS)
    yield 0, parts
    yield from ((1, (*parts[:place], *parts[place + 1 :])) for place in range(len(parts)))
