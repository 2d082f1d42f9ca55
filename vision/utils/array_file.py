"""Named arrays in one file that is mapped into memory: processes share them, and touching them copies nothing."""

from __future__ import annotations

import json
import mmap
import multiprocessing.reduction
import os
import tempfile
import weakref
import zlib
from collections.abc import Callable, Mapping
from multiprocessing.context import get_spawning_popen
from typing import IO, Any

import numpy as np

#: How a file begins; behind it stand the checksum of the rest, the size of the header, the header, and the arrays.
_MAGIC = b"arrays1\n"

_WORD = 8

#: What the place of an array in the file is a multiple of.
_ALIGNMENT = 64


class ArrayFile:
    """Arrays in a file that stays open, and may have another name by now, or none.

    It can be pickled for a process that is being started, which gets the open file.

    Args:
        file: open for reading.
        check: whether to compare it with its checksum.

    Attributes:
        about: what else was written, plain JSON values.
        arrays: by their names, not to be written to.

    Raises:
        ValueError: it is none, or not whole.
    """

    def __init__(self, file: IO[bytes], check: bool = True) -> None:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        begin = len(_MAGIC) + _WORD
        if content[: len(_MAGIC)] != _MAGIC or len(content) < begin + _WORD:
            raise ValueError("holds no arrays")
        if check:
            with memoryview(content) as view, view[begin:] as rest:
                if zlib.crc32(rest) != int.from_bytes(content[len(_MAGIC) : begin], "little"):
                    raise ValueError("is damaged")
        end = begin + _WORD + int.from_bytes(content[begin : begin + _WORD], "little")
        header = json.loads(content[begin + _WORD : end])
        self.about: dict[str, Any] = header["about"]
        self.arrays = {
            name: np.ndarray(tuple(shape), dtype, content, _aligned(end) + place)
            for name, (dtype, shape, place) in header["arrays"].items()
        }
        self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _received, (multiprocessing.reduction.DupFd(self._descriptor),)


def can_be_handed_over() -> bool:
    """Whether something is being pickled for a process that is being started, which can get open files."""
    return get_spawning_popen() is not None and hasattr(multiprocessing.reduction, "DupFd")


def _received(handle: Any) -> ArrayFile:
    with os.fdopen(handle.detach(), "rb") as file:
        return ArrayFile(file, check=False)


def write_arrays(file: IO[bytes], arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write arrays and plain JSON values to an empty file that can be sought in."""
    places, size = {}, 0
    for name, array in arrays.items():
        places[name] = (array.dtype.str, array.shape, size)
        size = _aligned(size + array.nbytes)
    header = json.dumps({"about": about, "arrays": places}, separators=(",", ":")).encode()
    begin = len(_MAGIC) + 2 * _WORD
    parts: list[Any] = [len(header).to_bytes(_WORD, "little"), header, _padding(begin + len(header))]
    for array in arrays.values():
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts += [content.data, _padding(len(content))]
    checksum = 0
    file.write(_MAGIC + bytes(_WORD))
    for part in parts:
        checksum = zlib.crc32(part, checksum)
        file.write(part)
    file.seek(len(_MAGIC))
    file.write(checksum.to_bytes(_WORD, "little"))
    file.flush()


def nameless_file(arrays: Mapping[str, np.ndarray]) -> ArrayFile:
    """Write arrays to a file without a name, which ends with its last process.

    Raises:
        OSError: it cannot be written.
    """
    with tempfile.TemporaryFile() as file:
        write_arrays(file, arrays, {})
        return ArrayFile(file, check=False)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNMENT) * _ALIGNMENT


def _padding(size: int) -> bytes:
    return bytes(_aligned(size) - size)
