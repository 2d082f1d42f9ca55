"""A `DataLoader` whose processes lose no batch, and whose silence is noticed."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from vision.structures import Batch, LoaderProcessError, LoaderProcessesSilent, Sample
from vision.utils.errors import error_line

logger = logging.getLogger(__name__)

#: Where the shared memory of Linux lies; a container's has 64 MB unless it is told otherwise.
SHARED_MEMORY = Path("/dev/shm")

#: What gives a container more of it.
_MORE = "in Docker --shm-size=2g gives it more"

#: Share of it, and bytes at the most, that batches leave to others.
_LEFT_SHARE, _LEFT_MOST = 1 / 8, 1 << 24

#: Bytes that it must have in all, for the locks of processes.
_LEAST = 1 << 20

#: Bytes from which a tensor is worth shared memory, a file descriptor, and a visit to another process's socket.
_LARGE = 1 << 16

#: Seconds without a batch after which the processes are looked at; of the second look on they may count as silent.
_LOOK = 7.5

#: Share of its time that a process spends computing at the least, if it computes at all.
_COMPUTES = 0.01

#: Seconds that processes have to end by themselves.
_GRACE = 1.0

#: How PyTorch begins to say that nothing came within `_LOOK` seconds; one may go on to wait.
_TIMED_OUT = "DataLoader timed out"

_MIB = 1 << 20


class EpochSampler(Protocol):
    """A sampler of batches that is told the epoch: all batches, or one process's part."""

    def begin(self, epoch: int, first_batch: int = 0) -> None:
        """Go to an epoch; batches before the first are left out, for a run that goes on within it."""

    @property
    def batches_of_epoch(self) -> int:
        """How many batches a whole epoch has, of all processes together."""

    def __iter__(self) -> Iterator[list[tuple[int, int]]]: ...

    def __len__(self) -> int: ...


class _Handed(NamedTuple):
    """A batch as another process gave it.

    Attributes:
        batch: itself.
        why: it did not come through shared memory; "" where it did.
    """

    batch: Batch
    why: str


class _Parcel:
    """A batch that is pickled already, so that nothing can go wrong when PyTorch's thread sends it."""

    def __init__(self, content: bytes, why: str) -> None:
        self._content, self._why = content, why

    def __reduce__(self) -> tuple[Callable, tuple[bytes, str]]:
        return _unpack, (self._content, self._why)


def _unpack(content: bytes, why: str) -> _Handed:
    return _Handed(pickle.loads(content), why)


class _Pickler(ForkingPickler):
    """Pickles a batch: large tensors by shared memory, others, and where there is none all, as plain bytes."""

    def __init__(self, file: io.BytesIO, *, shares: bool) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._shares = shares

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and not (self._shares and value.nbytes >= _LARGE):
            return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def _pickled(batch: Batch, *, shares: bool) -> bytes:
    file = io.BytesIO()
    _Pickler(file, shares=shares).dump(batch)
    return file.getvalue()


class _HandOver:
    """Makes batches in a loader process, and hands each over: through shared memory, or where that fails a pipe.

    Args:
        collate: makes a batch of samples.
    """

    def __init__(self, collate: Callable[[Sequence[Sample]], Batch]) -> None:
        self._collate = collate
        #: Why sharing has failed. It is not tried again: each failure may leave an open file behind.
        self._failed = ""

    def __call__(self, samples: Sequence[Sample]) -> _Parcel:
        batch = self._collate(samples)
        why = self._failed or _no_room_for(batch)
        if not why:
            try:
                return _Parcel(_pickled(batch, shares=True), "")
            except (OSError, RuntimeError) as err:
                why = self._failed = _why_not_shared(err)
        return _Parcel(_pickled(batch, shares=False), why)


def _no_room_for(batch: Batch) -> str:
    """Why a batch is not to be put into shared memory, as far as that is known beforehand; "" if it may be."""
    images = [batch.images] if isinstance(batch.images, torch.Tensor) else batch.images
    needed = sum(image.nbytes for image in images)
    memory = _shared_memory()
    if memory is None or needed + min(_LEFT_SHARE * memory.total, _LEFT_MOST) <= memory.free:
        return ""
    return (
        f"{SHARED_MEMORY}: {memory.free / _MIB:.1f} of {memory.total / _MIB:.1f} MiB are free, too little for another "
        f"batch of {needed / _MIB:.1f} MiB; {_MORE}"
    )


class _SharedMemory(NamedTuple):
    """Bytes that are free, and in all."""

    free: int
    total: int


def _shared_memory() -> _SharedMemory | None:
    """How much shared memory there is; None where the system does not tell, as all but Linux."""
    try:
        there = os.statvfs(SHARED_MEMORY)
    except (OSError, AttributeError):
        return None
    return _SharedMemory(there.f_bavail * there.f_frsize, there.f_blocks * there.f_frsize)


def _why_not_shared(err: Exception) -> str:
    if "AF_UNIX" in str(err):
        folder = tempfile.gettempdir()
        return f"TMPDIR={folder}: too long for the path of a socket ({err}); a shorter one lets processes share memory"
    return f"{SHARED_MEMORY}: {error_line(err)}; {_MORE}"


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # Signals are for the process that saves; it tells its workers when to end.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class BatchLoader(DataLoader):
    """Gives `Batch`es, made in this process or in others.

    PyTorch's loader processes hand a batch over in a thread, which drops the batch if it cannot, and nobody learns of
    it. Those of this class hand it over themselves, and have a way that needs neither shared memory nor sockets.

    Args:
        dataset: of samples.
        batches: which samples.
        collate: makes a batch of samples.
        workers: processes, 0 to work in this one.
        pin_memory: for a CUDA device.
        context: how processes are started, None for the system's way.
        waits: for processes that give and compute nothing, however long.
        told: what has been logged; loaders that have it in common say it once.
    """

    batch_sampler: EpochSampler

    def __init__(
        self,
        dataset: Dataset,
        batches: EpochSampler,
        collate: Callable[[Sequence[Sample]], Batch],
        workers: int,
        *,
        pin_memory: bool = False,
        context: str | None = None,
        waits: bool = False,
        told: set[str] | None = None,
    ) -> None:
        extras: dict[str, Any] = {}
        if workers:
            extras = {"persistent_workers": True, "worker_init_fn": _start_worker, "timeout": _LOOK}
            extras["multiprocessing_context"] = context
        super().__init__(
            dataset,
            batch_sampler=batches,
            collate_fn=_HandOver(collate) if workers else collate,
            num_workers=workers,
            pin_memory=pin_memory,
            **extras,
        )
        self._waits = waits
        self._told = set() if told is None else told

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Start an epoch.

        Raises:
            LoaderProcessError: the processes cannot be started, or are silent.
        """
        if not self.num_workers:
            return super().__iter__()
        try:
            iterator = super().__iter__()
        except RuntimeError as err:
            if str(err).startswith(_TIMED_OUT):
                raise LoaderProcessesSilent("loader processes do not begin another epoch; starting new ones") from err
            raise
        return self._watched(iterator)

    def _get_iterator(self) -> _BaseDataLoaderIter:
        """Start the processes; PyTorch's way, but without what is left over where that fails."""
        if not self.num_workers:
            return super()._get_iterator()
        memory = _shared_memory()
        if memory is not None and memory.total < _LEAST:
            raise LoaderProcessError(f"{SHARED_MEMORY}: {memory.total} bytes are too few for loader processes; {_MORE}")
        self.check_worker_number_rationality()
        before = set(multiprocessing.active_children())
        iterator: Any = object.__new__(_MultiProcessingDataLoaderIter)
        try:
            iterator.__init__(self)
        except BaseException as err:
            iterator._shutdown = True  # else it would end what it has not begun
            _kill(set(multiprocessing.active_children()) - before)
            if not isinstance(err, (OSError, RuntimeError)):
                raise
            raise LoaderProcessError(
                f"loader processes cannot be started ({error_line(err)}); they need shared memory ({SHARED_MEMORY}, "
                f"{_MORE}), open files and processes (ulimit -n, ulimit -u)"
            ) from err
        return iterator

    def _watched(self, iterator: Any) -> Iterator[Batch]:
        silence = _Silence([worker.pid for worker in iterator._workers], self._waits)
        while True:
            try:
                handed = next(iterator)
            except StopIteration:
                return
            except (OSError, EOFError, RuntimeError) as err:
                text = str(err)
                if "Original Traceback" in text or "DataLoader worker" in text:  # of a process, or of its death
                    raise
                if not text.startswith(_TIMED_OUT):
                    raise LoaderProcessError(f"loader processes cannot be reached ({error_line(err)})") from err
                pin_thread = getattr(iterator, "_pin_memory_thread", None)
                if pin_thread is not None and not pin_thread.is_alive():
                    raise LoaderProcessError("the thread that receives from loader processes has ended") from err
                silence.look()
                continue
            silence.end()
            if handed.why and not self._told:
                self._told.add(handed.why)
                logger.warning("%s; until then batches come through pipes, which takes longer", handed.why)
            yield handed.batch


class _Silence:
    """Finds out whether processes that give nothing compute nothing, either.

    Args:
        pids: of the processes.
        waits: however long it takes; else it is an error.
    """

    def __init__(self, pids: Sequence[int], waits: bool) -> None:
        self._pids, self._waits = pids, waits
        self.end()

    def end(self) -> None:
        """Take note that something came."""
        self._began: float | None = None
        self._computed = 0.0
        self._say_after = 0.0

    def look(self) -> None:
        """Look at the processes after a while without anything.

        Raises:
            LoaderProcessesSilent: they compute nothing, and it is not to be waited for.
        """
        now, computed = time.monotonic(), _cpu_seconds(self._pids)
        if computed is None:
            return
        if self._began is None or computed - self._computed >= _COMPUTES * (now - self._began):
            self._began, self._computed = now, computed
            return
        seconds = now - self._began
        what = f"loader processes have given and computed nothing for {seconds:.0f} seconds"
        if not self._waits:
            raise LoaderProcessesSilent(f"{what}: is a disk or a network mount not answering? Starting new ones")
        if seconds >= self._say_after:
            self._say_after = 2 * seconds
            logger.warning(
                "%s: is a disk or a network mount not answering? Waiting for it; Ctrl-C or SIGTERM saves and ends", what
            )


def _cpu_seconds(pids: Sequence[int]) -> float | None:
    """Time that processes have computed for; None where the system does not tell."""
    try:
        stats = [Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace") for pid in pids]
        # Behind the name, which may hold anything, the 12th and 13th field: ticks in the program and in the system.
        return sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in stats) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None


def end_workers(loader: DataLoader) -> None:
    """End a loader's processes now, blocked ones too; they ignore the signal by which Python would end them."""
    iterator: Any = loader._iterator  # no public name ends persistent workers
    if iterator is None:
        return
    loader._iterator = None
    if iterator._worker_pids_set:  # else their end would be taken for an accident
        signal_handling._remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False
    killer = threading.Timer(_GRACE, _kill, [iterator._workers])
    killer.start()
    try:
        pin_thread = getattr(iterator, "_pin_memory_thread", None)
        if pin_thread is not None:
            iterator._pin_memory_thread_done_event.set()
            iterator._worker_result_queue.put((None, None))
            pin_thread.join(2 * _GRACE)
            if pin_thread.is_alive():  # within half a batch, whose other half will not come
                del iterator._pin_memory_thread
        iterator._shutdown_workers()
    finally:
        killer.cancel()
        _kill(iterator._workers)


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        if worker.is_alive():
            with contextlib.suppress(OSError):
                worker.kill()
