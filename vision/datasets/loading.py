"""From a dataset to batches: what the loader's workers run.

A training sample depends on (seed, epoch, index) alone: neither the number of workers nor an interruption changes it.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vision.datasets.base import DetectionDataset
from vision.datasets.image_cache import FORK, ImageCache
from vision.structures import Batch, DataError, Sample

#: Grey of a blank image.
_BLANK = 127


class SampleTransform(Protocol):
    """What `TrainAugmentation` and `TestTransform` offer; this room does not know theirs."""

    def resample(
        self, image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bring an image to the network's size and its boxes to relative form."""


class _Samples(Dataset):
    """Samples for (epoch, index) pairs.

    An image that has become unreadable since the start does not end the run: in training the next one that can be
    read stands for it, in validation, where order counts, a blank one. Either is noted in the sample.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        transform: SampleTransform,
        seed: int,
        replaces: bool,
        cache: ImageCache | None = None,
    ) -> None:
        self.dataset, self.transform, self.seed, self.replaces = dataset, transform, seed, replaces
        self.cache = cache

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        image, index, note = self._read(index)
        boxes, labels = self.dataset.targets(index)
        image, boxes, labels = self.transform.resample(image, boxes, labels, rng)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return Sample(pixels, torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(labels), index, note)

    def _read(self, index: int) -> tuple[np.ndarray, int, str]:
        """Decode an image; returns what stands for it, its index, and a note if it is another one."""
        try:
            return self._image(index), index, ""
        except DataError as err:
            if not self.replaces:
                width, height = self.dataset.records[index].size
                return np.full((height, width, 3), _BLANK, np.uint8), index, f"{err}; a blank image stands for it"
            for step in range(1, len(self.dataset)):
                other = (index + step) % len(self.dataset)
                with contextlib.suppress(DataError):
                    image = self._image(other)
                    return image, other, f"{err}; {self.dataset.ids[other]} stands for it"
            raise

    def _image(self, index: int) -> np.ndarray:
        return self.dataset.get_image(index) if self.cache is None else self.cache.read(self.dataset.records[index])


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, index), in an order that depends on seed and epoch alone.

    A last batch of one image joins the batch before: batch norm needs two.

    Args:
        count: of samples.
        batch_size: at the most, but for a joined last one.
        seed: of the order.
        shuffle: else in the order of the dataset.
        least: images; a last batch of fewer joins the batch before, if it was not asked for batches as small.
    """

    def __init__(self, count: int, batch_size: int, seed: int = 0, shuffle: bool = True, least: int = 2) -> None:
        self.count, self.batch_size, self.seed, self.shuffle, self.least = count, batch_size, seed, shuffle, least
        self.begin(0)

    def begin(self, epoch: int, first_batch: int = 0) -> None:
        """Go to an epoch; batches before the first are left out, for a run that goes on within it."""
        self.epoch, self.first_batch = epoch, first_batch

    @property
    def batches_of_epoch(self) -> int:
        """How many batches a whole epoch has."""
        batches = -(-self.count // self.batch_size)
        last = self.count - (batches - 1) * self.batch_size
        return batches - (self.shuffle and batches > 1 and last < min(self.least, self.batch_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: Sequence[int] = range(self.count)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        last = self.batches_of_epoch - 1
        for number in range(self.first_batch, last + 1):
            stop = self.count if number == last else (number + 1) * self.batch_size
            yield [(self.epoch, index) for index in order[number * self.batch_size : stop]]

    def __len__(self) -> int:
        return max(0, self.batches_of_epoch - self.first_batch)


def pad(samples: Sequence[Sample]) -> Batch:
    """Put samples side by side; boxes and labels are padded with zeros to the largest count."""
    boxes = torch.nn.utils.rnn.pad_sequence([sample.boxes for sample in samples], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence([sample.labels for sample in samples], batch_first=True)
    notes = tuple(sample.note for sample in samples if sample.note)
    indices = tuple(sample.index for sample in samples)
    return Batch(torch.stack([sample.image for sample in samples]), boxes, labels, indices, notes)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # Signals are for the process that saves; it tells its workers when to end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def end_workers(loader: DataLoader) -> None:
    """End a loader's processes now; they ignore the signal by which Python would end them when it exits."""
    if loader._iterator is not None:  # no public name ends persistent workers
        loader._iterator._shutdown_workers()
        loader._iterator = None


def make_loader(
    dataset: DetectionDataset,
    transform: SampleTransform,
    batches: Sampler[list[tuple[int, int]]],
    workers: int,
    *,
    seed: int = 0,
    replaces: bool = True,
    pin_memory: bool = False,
    cache: ImageCache | None = None,
) -> DataLoader:
    """Make a loader of `Batch`es.

    Args:
        dataset: where samples come from.
        transform: brings them to the network's size.
        batches: which samples, see `EpochBatches`.
        workers: processes, 0 to work in this one.
        seed: of the augmentation.
        replaces: off for validation, where an image that cannot be read is blank instead of another.
        pin_memory: for a CUDA device.
        cache: of decoded images, if any.

    Returns:
        a loader; call `loader.batch_sampler.begin` before each epoch, and `end_workers` at the end.
    """
    extras: dict[str, Any] = {"persistent_workers": True, "worker_init_fn": _start_worker} if workers else {}
    if workers and cache is not None:
        extras["multiprocessing_context"] = FORK
    return DataLoader(
        _Samples(dataset, transform, seed, replaces, cache),
        batch_sampler=batches,
        collate_fn=pad,
        num_workers=workers,
        pin_memory=pin_memory,
        **extras,
    )


class Sharding(Protocol):
    """What the processes that train together offer; this room does not know theirs."""

    world_size: int

    def shard_each_batch(self, batches: Sampler) -> Sampler:
        """Sampler of this rank's part of each batch."""

    def shard_batches(self, batches: Sampler) -> Sampler:
        """Sampler of this rank's batches."""


@dataclass(frozen=True)
class Loaders:
    """Makes the loaders of a run.

    Attributes:
        train_set: to train on.
        val_set: to validate on.
        train_transform: of the training images.
        val_transform: of the validation images.
        seed: of order and augmentation.
        least: images in a training batch, see `EpochBatches`.
        process: this one, which has its shard of the batches.
        cache: of decoded images, if any.
    """

    train_set: DetectionDataset
    val_set: DetectionDataset
    train_transform: SampleTransform
    val_transform: SampleTransform
    seed: int
    least: int
    process: Sharding
    cache: ImageCache | None = None

    def train_batches(self, batch_size: int) -> EpochBatches:
        """Batches of all processes together.

        Args:
            batch_size: of each process.
        """
        return EpochBatches(len(self.train_set), batch_size * self.process.world_size, self.seed, least=self.least)

    def first_samples(self, count: int) -> list[Sample]:
        """Make the first training samples of a run, in its order.

        Args:
            count: at the most.
        """
        samples = _Samples(self.train_set, self.train_transform, self.seed, replaces=True)
        keys = itertools.chain.from_iterable(EpochBatches(len(self.train_set), count, self.seed))
        return [samples[key] for key in itertools.islice(keys, count)]

    @contextlib.contextmanager
    def open(self, batch_size: int, workers: int, pin_memory: bool = False) -> Iterator[tuple[DataLoader, DataLoader]]:
        """Context that gives the loaders of training and validation images of this process.

        Args:
            batch_size: images per batch, of each process.
            workers: loader processes, 0 to work in this one.
            pin_memory: for a CUDA device.
        """
        rest = {"workers": workers, "pin_memory": pin_memory, "cache": self.cache}
        train_batches = self.process.shard_each_batch(self.train_batches(batch_size))
        val_batches = self.process.shard_batches(EpochBatches(len(self.val_set), batch_size, shuffle=False))
        loaders = (
            make_loader(self.train_set, self.train_transform, train_batches, seed=self.seed, **rest),
            make_loader(self.val_set, self.val_transform, val_batches, replaces=False, **rest),
        )
        try:
            yield loaders
        finally:
            for loader in loaders:
                end_workers(loader)
