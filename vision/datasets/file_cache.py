"""What was read from files, remembered between runs.

Reading 20,000 images' headers and as many XML files takes most of a start. What came out is kept outside the dataset,
in the user's cache folder, and taken again as long as a file's size and times are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import PIL

from vision.utils.files import write_text

logger = logging.getLogger(__name__)

#: To be raised whenever what is kept changes its form or meaning; another library may read other files.
VERSION = f"7, Pillow {PIL.__version__}, OpenCV {cv2.__version__}"

#: A file that changed this shortly before it was read may change again without its times telling.
_SETTLED_NS = 2_000_000_000


def cache_folder() -> Path:
    """Folder of the user for things that can be made again (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ssd-retrain"


def settled_until() -> int:
    """The time, in nanoseconds, until which a change of a file is told by its times."""
    return time.time_ns() - _SETTLED_NS


class FileCache:
    """Cache of what was read from files, which must be plain JSON values.

    Args:
        path: where they are kept between runs; None keeps them for this run only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._kept: dict[str, list] = {}
        self._used: dict[str, list] = {}
        self._changed = False
        if path is not None:
            self._load(path)

    @classmethod
    def of_folder(cls, root: Path) -> FileCache:
        """The cache of a dataset's folder."""
        name = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=12).hexdigest()
        try:
            return cls(cache_folder() / f"{name}.json")
        except RuntimeError as err:  # a user without a home, as in some containers
            logger.debug("nothing is remembered of files: %s", err)
            return cls()

    def _load(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["version"] == VERSION:
                self._kept = content["files"]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as err:
            logger.debug("%s: not readable, every file is read again (%s)", path, err)

    def get(self, kind: str, path: Path, read: Callable[[Path], Any]) -> Any:
        """Return what `read(path)` gives, without calling it if the file is as it was.

        Args:
            kind: of fact; names `read`.
            path: of the file.
            read: what to do with a file that is new or has changed.

        Raises:
            OSError: the file is not there.
        """
        key = f"{kind}:{path}"
        status = os.stat(path)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self._used.get(key) or self._kept.get(key)
        if known is not None and known[0] == stamp:
            self._used[key] = known
            return known[1]
        fact = read(path)
        self._used[key] = [stamp, fact]
        self._changed = True
        return fact

    def known(self, kind: str, path: Path) -> Any:
        """Return a fact only if it is kept and the file is as it was, else None."""
        key = f"{kind}:{path}"
        if key not in self._used and key not in self._kept:
            return None
        try:
            return self.get(kind, path, _unknown)
        except (_UnknownError, OSError):
            return None

    def save(self) -> None:
        """Keep what this run read or took; what belongs to files that it did not meet stays, if they still exist."""
        if self.path is None or not self._changed:
            return
        latest = settled_until()
        others = {
            key: value
            for key, value in self._kept.items()
            if key not in self._used and os.path.exists(key.partition(":")[2])
        }
        settled = {key: value for key, value in self._used.items() if max(value[0][1:]) < latest}
        content = {"version": VERSION, "files": {**others, **settled}}
        try:
            write_text(self.path, json.dumps(content, separators=(",", ":")))
        except OSError as err:
            logger.debug("%s: cannot be written, the next start reads every file again (%s)", self.path, err)
        self._changed = False


class _UnknownError(Exception):
    """Nothing is kept about a file."""


def _unknown(path: Path) -> Any:
    raise _UnknownError(path)
