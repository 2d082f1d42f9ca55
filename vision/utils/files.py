"""Writing files so that nobody ever finds half of one."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

#: How the names of files end that are not whole yet; they begin with a dot and the name to come.
PART = ".part"

#: Bytes of the name to come that a temporary name has: with what is added it must not exceed a file system's 255.
_MOST_OF_NAME = 230

#: Free bytes below which a failure to write is blamed on the disk.
_HARDLY_ANY = 1 << 20


@contextmanager
def replacing(path: str | Path, *, keep_suffix: bool = False) -> Iterator[Path]:
    """Context that gives a temporary name beside `path`; rename it to `path` if the block succeeds, else remove it.

    Args:
        path: of the file.
        keep_suffix: whether the temporary name ends as `path` does, for programs that go by that.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    begin = os.fsdecode(os.fsencode(path.name)[:_MOST_OF_NAME])
    handle, name = tempfile.mkstemp(prefix=f".{begin}.", suffix=PART + path.suffix * keep_suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        try:
            yield temporary
        except (OSError, RuntimeError) as err:  # torch does not say why it could not write
            if getattr(err, "errno", None) == errno.ENOSPC or shutil.disk_usage(path.parent).free < _HARDLY_ANY:
                raise OSError(
                    errno.ENOSPC, "no space left on the disk; what was there before is whole", str(path)
                ) from err
            raise
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def fit_for_name(text: str) -> str:
    """Replace by `_` all but letters, digits, blanks and `-._`, and what the locale cannot have in a file's name."""
    return "".join(char if _can_be_encoded(char) else "_" for char in re.sub(r"[^-\w. ]", "_", text))


def _can_be_encoded(char: str) -> bool:
    try:
        os.fsencode(char)
    except UnicodeEncodeError:
        return False
    return True


class JsonListFile:
    """A file with a list of JSON values, written as they come, so that it may outgrow memory; a context.

    It has its name when the context ends, however it ends.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> JsonListFile:
        self._contexts = ExitStack()
        temporary = self._contexts.enter_context(replacing(self.path))
        self._file = self._contexts.enter_context(open(temporary, "w", encoding="utf-8"))
        self._file.write("[")
        self._is_empty = True
        return self

    def add(self, value: Any) -> None:
        """Write a value behind those before."""
        self._file.write(("" if self._is_empty else ",") + json.dumps([value], indent=1)[len("[") : -len("\n]")])
        self._is_empty = False

    def __exit__(self, *_: object) -> None:
        with self._contexts:
            self._file.write("]\n" if self._is_empty else "\n]\n")


def publish(temporary: Path, path: Path) -> None:
    """Give a temporary file of `replacing` its name."""
    # mkstemp makes files that only their owner can read.
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)
    # On the disk before it has its name, or a loss of power could leave a name without content.
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def parts_of(folder: Path, prefix: str = "") -> list[Path]:
    """Find the files with temporary names in a folder, which need not exist.

    Args:
        folder: to look in.
        prefix: what their final names begin with.
    """
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.startswith(f".{prefix}") and path.suffix == PART)


def remove_parts(folder: Path, prefix: str = "") -> int:
    """Remove what killed processes left under temporary names; see `parts_of`. Gives how many there were."""
    stray = parts_of(folder, prefix)
    for path in stray:
        path.unlink()
    return len(stray)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file as a whole, with LF line ends."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
