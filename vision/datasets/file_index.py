"""Finding files below a folder by what lists and annotations call them."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from vision.structures import IMAGE_SUFFIXES


def files_below(folder: Path, suffixes: Iterable[str]) -> Iterator[str]:
    """Return paths relative to a folder, with / between, of files with these suffixes; sorted, nothing hidden.

    Links to folders are followed, each folder once.
    """
    wanted = tuple(suffixes)
    seen: set[tuple[int, int]] = set()
    for base, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(base)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(base).relative_to(folder).as_posix()
        prefix = "" if relative == "." else f"{relative}/"
        for name in sorted(names):
            if name.lower().endswith(wanted) and not name.startswith("."):
                yield prefix + name


class FileMatch(NamedTuple):
    """What an index found under a name.

    Attributes:
        path: of the file.
        others: further files that the name fits as well, relative to the index's folder.
        loosely: whether it fits only where spaces and letters of any kind are the same.
    """

    path: Path
    others: tuple[str, ...] = ()
    loosely: bool = False


class FileIndex:
    """Finds files below a folder by what lists and other files call them.

    A name may be bare or a path, from this folder or from anywhere, with or without suffix. Letters of any case, and
    Unicode's composed and decomposed accents, are the same unless the exact spelling is there. Where that finds
    nothing, so are spaces of any kind and number, and letters that look alike (NFKC), if only one file fits. Folders
    must not contradict: `train/1` is not `test/1.jpg`.

    Args:
        folder: is searched with all folders in it, hidden ones apart.
        suffixes: of the files that count, in lower case.
        transparent: names of folders, in lower case, that say what kind of file is in them: they count for nothing.
        left_out: beginnings of names of folders, in lower case, whose files are of another kind.
        paths: of the files, where they are known already.
    """

    def __init__(
        self,
        folder: Path,
        suffixes: Iterable[str] = IMAGE_SUFFIXES,
        transparent: Iterable[str] = (),
        left_out: tuple[str, ...] = (),
        paths: Iterable[str] | None = None,
    ) -> None:
        self.folder = folder
        self._transparent = frozenset(transparent)
        self._by_stem: dict[str, dict[str, list[str]]] = {}  # and by the last folder that counts, "" for none
        self._by_loose_stem: dict[str, list[str]] | None = None
        self._folders: set[str] = set()
        self.paths = []
        for path in files_below(folder, suffixes) if paths is None else paths:
            parts = path.lower().split("/")[:-1]
            if not any(part.startswith(left_out) for part in parts if left_out):
                self.paths.append(path)
                folders, name = self._split(path)
                self._folders.update(folders)
                by_folder = self._by_stem.setdefault(_fold(_stem(name)), {})
                by_folder.setdefault(folders[-1] if folders else "", []).append(path)

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, name: str, file_name: str = "", fits: Callable[[str], bool] | None = None) -> FileMatch | None:
        """Find a file.

        Args:
            name: what it is called, with slashes of either kind between folders.
            file_name: what it is also said to be called, with its suffix; decides between several.
            fits: whether a file may be it, by its path below this folder; None if any may.
        """
        folders, wanted = self._split(name)
        hinted = file_name.replace("\\", "/").rpartition("/")[2]
        stems = dict.fromkeys((_fold(_stem(wanted)), _fold(wanted)))
        candidates = [path for stem in stems for path in self._candidates(stem, folders) if fits is None or fits(path)]
        return self._best(candidates, folders, wanted, hinted) or self._find_loosely(folders, wanted, fits)

    def _candidates(self, stem: str, folders: list[str]) -> Iterator[str]:
        """Files of a stem, without most of those that contradict: a set may have 100,000 files of one name."""
        by_folder = self._by_stem.get(stem, {})
        known = folders and folders[-1] in self._folders
        return itertools.chain.from_iterable(
            (by_folder.get("", ()), by_folder.get(folders[-1], ())) if known else by_folder.values()
        )

    def _find_loosely(self, folders: list[str], wanted: str, fits: Callable[[str], bool] | None) -> FileMatch | None:
        """Find the one file that a name fits but for spaces and the like."""
        if self._by_loose_stem is None:
            self._by_loose_stem = {}
            for path in self.paths:
                self._by_loose_stem.setdefault(_fold_loosely(_stem(path.rpartition("/")[2])), []).append(path)
        candidates = [
            path
            for path in self._by_loose_stem.get(_fold_loosely(_stem(wanted)), [])
            if not self._contradict(folders, self._split(path)[0]) and (fits is None or fits(path))
        ]
        return FileMatch(self.folder / candidates[0], loosely=True) if len(candidates) == 1 else None

    def _contradict(self, folders: list[str], mine: list[str]) -> bool:
        """Whether the folders of a name and of a file differ, and the name does not come from elsewhere."""
        return _common_end(folders, mine) < min(len(folders), len(mine)) and folders[-1] in self._folders

    def _best(self, candidates: Iterable[str], folders: list[str], wanted: str, hinted: str) -> FileMatch | None:
        """Choose the file whose folders and name are nearest."""
        ranked = []
        for path in candidates:
            mine, own_name = self._split(path)
            if self._contradict(folders, mine):
                continue
            common = _common_end(folders, mine)
            exact = own_name in (wanted, hinted)
            folded = _fold(own_name) in (_fold(wanted), _fold(hinted))
            rank = (common - abs(len(folders) - len(mine)), exact, folded, _stem(own_name) == _stem(wanted))
            ranked.append((rank, path))
        if not ranked:
            return None
        best = max(rank for rank, _ in ranked)
        chosen, *others = [path for rank, path in ranked if rank == best]
        return FileMatch(self.folder / chosen, tuple(others))

    def _split(self, path: str) -> tuple[list[str], str]:
        """Split a path into the folders that count, and the name."""
        *folders, name = path.replace("\\", "/").split("/")
        counting = [_fold(part) for part in folders if part.lower() not in self._transparent]
        return [part for part in counting if part not in ("", ".", "..")], name


def _common_end(one: list[str], other: list[str]) -> int:
    """Count the last parts that two lists share."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


def _stem(name: str) -> str:
    """Take off a suffix that images or annotations have; other dots belong to the name."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in (*IMAGE_SUFFIXES, ".xml", ".txt") else name


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _fold_loosely(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def other_suffixes(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[str]:
    """List the suffixes of files below a folder that are not looked for: a hint why an image is missing."""
    found = {Path(path).suffix.lower() for path in files_below(folder, ("",))}
    return sorted(found - set(suffixes) - {"", ".xml", ".txt", ".json", ".csv", ".yaml", ".yml"})
