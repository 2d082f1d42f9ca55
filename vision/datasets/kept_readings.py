"""What reading a folder gave, kept for the next start.

A later start that asks for the same maps it into memory, and parses nothing, as long as every file in the folder has
the size and times that it had. In doubt all is read again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL

from vision.datasets.defects import Defect
from vision.datasets.file_cache import VERSION, cache_folder, settled_until
from vision.datasets.folder import DatasetReader, ReadingOptions, SplitRecords
from vision.datasets.labels import LabelList
from vision.datasets.packed import Records
from vision.utils.array_file import ArrayFile, nameless_file, write_arrays
from vision.utils.files import PART, remove_parts

logger = logging.getLogger(__name__)

#: How the names of the files end.
_SUFFIX = ".records"

#: Bytes of all files together; above that, those that were not used for longest go.
_MOST_BYTES = 2 << 30

#: Files of a folder of which the beginning is compared, too, and how much of it.
_SAMPLES, _SAMPLE = 16, 4096

#: Of a defect of this kind nobody knows whether it will be found again: the system may have refused to read the file.
_UNCERTAIN = "annotation-unreadable"


class Reading(NamedTuple):
    """What reading a folder gave.

    Attributes:
        parts: the splits that were asked for.
        labels: the classes.
        messages: what was said of the folder.
    """

    parts: tuple[SplitRecords, ...]
    labels: LabelList
    messages: tuple[str, ...] = ()


class KeptReading:
    """The place where the reading of a folder is kept.

    Args:
        dataset_type: as it was asked for.
        root: the folder, as it was named.
        options: how to read it.
        asked: what of it.
    """

    def __init__(self, dataset_type: str, root: Path, options: ReadingOptions, asked: Sequence[str]) -> None:
        self._root, self._options = root, options
        self._path: Path | None = None
        if not options.cache:
            return
        try:
            self._files, latest_change = _digest_of_files(root)
            self._is_settled = latest_change < settled_until()  # now, before anything is read
            # `decode` is none of it: a start that decodes all images leaves nothing to find for one that does not.
            facts = asdict(options) | {"decode": None}
            user = (os.getuid(), sorted(os.getgroups())) if hasattr(os, "getuid") else None  # who may read what
            key = (_version(), dataset_type, str(root), os.path.realpath(root), sorted(facts.items()), asked, user)
            name = hashlib.blake2b(repr(key).encode(errors="surrogateescape"), digest_size=12).hexdigest()
            self._path = cache_folder() / f"{name}{_SUFFIX}"
        except (OSError, RuntimeError) as err:  # a user without a home, as in some containers
            logger.debug("%s: its reading is not kept (%s)", root, err)

    def load(self) -> Reading | None:
        """Map what an earlier start has read; None if there is none, or anything has changed since."""
        if self._path is None:
            return None
        try:
            with open(self._path, "rb") as opened:
                file = ArrayFile(opened)
            about = file.about
            decoded = about["decoded"] or not self._options.decode
            facts = _stamp(about["facts"][0]) == about["facts"][1]
            absent = not any(map(os.path.lexists, about["absent"]))
            if not (decoded and facts and absent and about["files"] == self._files):
                return None
            reading = _reading_of(file)
            with contextlib.suppress(OSError):  # a cache that can only be read
                os.utime(self._path)  # it is in use
            return reading
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as err:
            logger.debug("%s: not readable, all is read again (%s)", self._path, err)
            return None

    def store(self, reading: Reading, reader: DatasetReader) -> Reading:
        """Keep what was read, if it is certain; returns the same, mapped from a file, which processes share.

        Args:
            reading: which may be given up.
            reader: that has read it, and saved what it knows of files.
        """
        arrays: dict[str, np.ndarray] = {}
        for number, part in enumerate(reading.parts):
            arrays |= part.records.columns(f"{number}/")
        about = _about(reading, reader) | {"decoded": self._options.decode}
        try:
            if self._path is not None and self._is_certain(reading, reader):
                file = _write(self._path, arrays, about | {"files": self._files})
            else:
                file = nameless_file(arrays)
        except (OSError, TypeError) as err:
            logger.debug("%s: not kept in a file (%s)", self._root, err)
            return reading
        parts = [
            part._replace(records=Records.of_file(file, f"{number}/")) for number, part in enumerate(reading.parts)
        ]
        return reading._replace(parts=tuple(parts))

    def _is_certain(self, reading: Reading, reader: DatasetReader) -> bool:
        """Whether a later start must find the same, as far as the files in the folder say."""
        defects = (defect.kind for part in reading.parts for defect in part.defects)
        if not self._is_settled or not reader.is_certain or _UNCERTAIN in defects:
            return False
        below = "" if self._root == Path() else f"{self._root}{os.sep}"
        paths = {
            path
            for part in reading.parts
            for column in ("image_path", "source", "listed_in")
            for path in part.records.texts(column)
        }
        paths |= {str(part.source) for part in reading.parts}
        if reading.labels.source is not None:
            paths.add(str(reading.labels.source))
        paths -= {str(self._root), str(Path())}  # of what no file names
        return all(path.startswith(below) and _was_looked_at(path[len(below) :]) for path in paths)


def _was_looked_at(path: str) -> bool:
    """Whether a path, from a folder, leads to what is in it and not hidden."""
    return not os.path.isabs(path) and f"{os.sep}." not in os.sep + path


def _write(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> ArrayFile:
    """Write a file as a whole, and map it. A loss of power may damage it, which its checksum tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_parts(path.parent, path.name)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    try:
        with open(handle, "w+b") as opened:
            write_arrays(opened, arrays, about)
            file = ArrayFile(opened, check=False)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _remove_oldest(path.parent)
    return file


def _remove_oldest(folder: Path) -> None:
    found = []
    for path in folder.iterdir():
        if _SUFFIX in path.suffixes:
            with contextlib.suppress(OSError):  # another process may have removed it
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, path))
    size = 0
    for number, (_, of_file, path) in enumerate(sorted(found, reverse=True)):
        size += of_file
        if number and size > _MOST_BYTES:
            with contextlib.suppress(OSError):
                path.unlink()


def _about(reading: Reading, reader: DatasetReader) -> dict[str, Any]:
    """All of a reading but the records, and what it depends on besides the files of the folder."""
    facts = reader.cache.path
    return {
        "facts": [None if facts is None else str(facts), None if facts is None else _stamp(str(facts))],
        "absent": sorted(reader.absent),
        "messages": reading.messages,
        "labels": [
            reading.labels.names,
            list(map(_plain, reading.labels.defects)),
            None if reading.labels.source is None else str(reading.labels.source),
        ],
        "parts": [
            [part.title, str(part.source), list(map(_plain, part.defects)), part.images_listed, part.objects_written]
            for part in reading.parts
        ],
    }


def _plain(defect: Defect) -> list:
    return [*defect._replace(source=str(defect.source))]  # type: ignore[arg-type]


def _reading_of(file: ArrayFile) -> Reading:
    path_of = functools.cache(Path)

    def defects_of(found: Sequence[Sequence[Any]]) -> list[Defect]:
        return [Defect(kind, path_of(source), *rest) for kind, source, *rest in found]

    names, defects, source = file.about["labels"]
    labels = LabelList(tuple(names), tuple(defects_of(defects)), None if source is None else Path(source))
    parts = [
        SplitRecords(title, Path(source), Records.of_file(file, f"{number}/"), defects_of(defects), *counts)
        for number, (title, source, defects, *counts) in enumerate(file.about["parts"])
    ]
    return Reading(tuple(parts), labels, tuple(file.about["messages"]))


def _version() -> list:
    """What reads: its own files, and the programs below it."""
    folder = Path(__file__).parent
    code = [*folder.glob("*.py"), *(folder.parent / "utils").glob("*.py"), folder.parent / "structures.py"]
    programs = [sys.version, np.__version__, cv2.__version__, PIL.__version__]
    return [VERSION, programs, [(path.name, *_stamp(str(path))) for path in sorted(code)]]


def _stamp(path: str | None) -> list[int]:
    """Size and time of change of a file; [] if it is not there."""
    with contextlib.suppress(OSError):
        if path is not None:
            status = os.stat(path)
            return [status.st_size, status.st_mtime_ns]
    return []


def _digest_of_files(root: Path) -> tuple[str, int]:
    """Digest the names, sizes and times of all files in a folder, and a few beginnings; and say when one changed last.

    Raises:
        OSError: the folder cannot be looked through.
    """
    digest = hashlib.blake2b(digest_size=16)
    paths: list[str] = []
    latest = 0
    for path, status in _walk(str(root), set()):
        line = f"{path}\0"
        if status is not None:
            line += f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"
            latest = max(latest, status.st_mtime_ns, status.st_ctime_ns)
            if stat.S_ISREG(status.st_mode):
                paths.append(path)
        digest.update(line.encode(errors="surrogateescape"))
    for path in paths[:: max(1, len(paths) // _SAMPLES)]:
        with contextlib.suppress(OSError), open(path, "rb", buffering=0) as file:
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest(), latest


def _walk(folder: str, seen: set[tuple[int, int]]) -> Iterator[tuple[str, os.stat_result | None]]:
    """All files and folders below a folder, links followed, each folder once, hidden ones closed; in a fixed order."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            yield entry.path, None
            if entry.is_symlink():  # to another folder, which may have been looked through already
                yield f"{entry.path}\0{os.path.realpath(entry.path)}", None
            if not entry.name.startswith("."):
                yield from _walk(entry.path, seen)
        else:
            with contextlib.suppress(FileNotFoundError):  # a link to nowhere, or gone since
                yield entry.path, entry.stat()
