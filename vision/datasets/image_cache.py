"""Decoded images in memory or on disk: a file is decoded once in a run, at each size, instead of once in an epoch."""

from __future__ import annotations

import array
import mmap
import multiprocessing
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vision.datasets.images import reductions_of
from vision.datasets.packed import Records
from vision.datasets.records import Record
from vision.options.training import CACHE_AUTO, CACHE_DISK, CACHE_OFF, CACHE_RAM, MAX_CACHE_FRACTION
from vision.structures import DataError
from vision.utils.memory import available_memory

#: Loader processes see the memory of the one that made it only if they are copies of it.
FORK = "fork"

_MIB = 1 << 20


class ImageCache:
    """Images by file and size, kept as they were first decoded; processes forked from this one share them.

    Memory is taken as images are read, a disk's space from the start. What is given is the very pixels that decoding
    gives, so a run does not depend on whether there is a cache.

    Args:
        records: images that will be asked for; each file is kept once, at each of its reductions that is asked for.
        folder: for a file without a name, which ends with its last process; None for memory.

    Raises:
        OSError: the file cannot be written, or not be as large.
    """

    def __init__(self, records: Sequence[Record], folder: Path | None = None) -> None:
        self._places: dict[str, int] = {}  # of the first of an image's reductions, which lie side by side
        ends = array.array("q", [0])
        for path, counts in _sizes(records):
            self._places[path] = len(ends) - 1
            for count in counts:
                ends.append(ends[-1] + count)
        self._ends = np.frombuffer(ends, np.int64)
        end = ends[-1]
        self._pixels = mmap.mmap(-1, max(1, end)) if folder is None else _map_file(folder, max(1, end))
        # Checksums of what is there, 0 where nothing is. No lock: a process that is killed would keep it.
        self._checksums = np.frombuffer(mmap.mmap(-1, 4 * len(self._ends)), np.uint32)
        self._seen: set[int] = set()

    def read(self, record: Record, reduction: int = 1) -> np.ndarray:
        """Give an image, (H, W, 3) uint8 RGB, upright, not to be written to.

        Args:
            record: of the image.
            reduction: what to divide its sides by, see `read_image`.

        Raises:
            DataError: it does not decode.
        """
        first = self._places.get(str(record.image_path))
        if first is None or reduction not in record.reductions:
            return record.read(reduction)
        index = first + record.reductions.index(reduction)
        start, stop = self._ends[index : index + 2].tolist()
        kept = np.frombuffer(self._pixels, np.uint8, stop - start, start).reshape(record.shape(reduction))
        if not self._is_whole(index, kept):
            image = record.read(reduction)
            if image.shape != kept.shape:
                return image
            kept[:] = image
            self._checksums[index] = _checksum(image)
            self._seen.add(index)
        kept.flags.writeable = False
        return kept

    def _is_whole(self, index: int, kept: np.ndarray) -> bool:
        """Whether an image is there; what another process wrote is looked at once, as it may still be writing."""
        if index not in self._seen and self._checksums[index] and self._checksums[index] == _checksum(kept):
            self._seen.add(index)
        return index in self._seen


def _map_file(folder: Path, size: int) -> mmap.mmap:
    """Map a new file of a number of bytes, which has no name, into memory."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # else a full disk would kill whoever writes to it
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        return mmap.mmap(file.fileno(), size)


def _checksum(image: np.ndarray) -> int:
    return zlib.crc32(image.data) or 1


def _sizes(records: Sequence[Record]) -> Iterator[tuple[str, list[int]]]:
    """Count the bytes of each file at each of its reductions."""
    packed = Records.of(records)
    for path, (width, height) in dict(zip(packed.texts("image_path"), packed.sizes.tolist(), strict=True)).items():
        reductions = reductions_of(Path(path), (width, height))
        yield path, [(height // reduction) * (width // reduction) * 3 for reduction in reductions]


def can_be_shared() -> bool:
    """Whether loader processes can be copies of this one here."""
    return FORK in multiprocessing.get_all_start_methods()


def bytes_of(records: Sequence[Record]) -> int:
    """Count what images take at most when they are decoded; each file once at each of its sizes."""
    return sum(sum(counts) for _, counts in _sizes(records))


def make_cache(
    kind: str, records: Sequence[Record], workers: int, folder: Path, processes: int = 1
) -> tuple[ImageCache | None, str]:
    """Decide whether and where decoded images are kept.

    Args:
        kind: one of `CACHE_CHOICES`.
        records: of all images of a run.
        workers: loader processes.
        folder: on the disk that "disk" means.
        processes: that train together on this machine, each with a cache of its own.

    Returns:
        the cache or None, and a line that says why.

    Raises:
        DataError: "ram" or "disk", and there is not enough, or loader processes cannot share it.
    """
    needed, there = bytes_of(records) * processes, available_memory()
    needs = f"decoded they take up to {needed / _MIB:.0f} MiB"
    amount = "how much there is cannot be found out here" if there is None else f"{there / _MIB:.0f} MiB are available"
    sizes = f"{needs}, {amount}"
    if kind == CACHE_OFF:
        return None, "images: decoded in each epoch, as asked"
    if workers and not can_be_shared():
        if kind != CACHE_AUTO:
            raise DataError(f"--cache-images={kind}: loader processes cannot share memory here; use --workers=0")
        return None, "images: decoded in each epoch, as loader processes cannot share memory here"
    if kind == CACHE_DISK:
        try:
            return ImageCache(records, folder), f"images: kept on disk once decoded; {needs} in {folder}"
        except OSError as err:
            raise DataError(
                f"--cache-images={CACHE_DISK}: {needs}, {folder}: {err.strerror}; use --cache-images={CACHE_OFF}"
            ) from err
    if kind == CACHE_RAM and there is not None and needed > there:
        raise DataError(f"--cache-images={CACHE_RAM}: {sizes}; use --cache-images={CACHE_DISK} or {CACHE_OFF}")
    if kind == CACHE_AUTO and there is None:
        return None, f"images: decoded in each epoch; {sizes} (--cache-images={CACHE_RAM} keeps them all the same)"
    if kind == CACHE_AUTO and there is not None and needed > MAX_CACHE_FRACTION * there:
        return None, f"images: decoded in each epoch; {sizes}, of which a quarter may be used (--cache-images)"
    return ImageCache(records), f"images: kept in memory once decoded; {sizes}"
