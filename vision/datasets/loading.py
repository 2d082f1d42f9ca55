"""From a dataset to batches: what the loader's workers run.

A training sample depends on (seed, epoch, index) alone: neither the number of workers nor an interruption changes it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from vision.datasets.base import DetectionDataset
from vision.datasets.batch_loader import BatchLoader, EpochSampler, end_workers
from vision.datasets.image_cache import FORK, ImageCache
from vision.datasets.records import Record
from vision.structures import Batch, DataError, ImagePart, ImageParts, Sample
from vision.utils.pixels import channels_first

#: Grey of a blank image.
_BLANK = 127


Plan = TypeVar("Plan", bound="SamplePlan")


class SampleTransform(Protocol[Plan]):
    """What `TrainAugmentation` and `TestTransform` offer; this package does not import theirs."""

    def plan(
        self,
        size: tuple[int, int],
        boxes: np.ndarray,
        labels: np.ndarray,
        rng: np.random.Generator,
        reductions: Sequence[int] = (1,),
    ) -> Plan:
        """Decide how to look at an image that is not decoded yet."""

    def render(self, image: np.ndarray, sample_plan: Plan) -> np.ndarray | ImagePart:
        """Bring the decoded image to the network's size, or cut out what is to be."""


class SamplePlan(Protocol):
    """What `SampleTransform.plan` decides."""

    @property
    def boxes(self) -> np.ndarray:
        """Relative corner form (N, 4)."""

    @property
    def labels(self) -> np.ndarray:
        """(N,)."""

    @property
    def reduction(self) -> int:
        """What the image's sides are to be divided by in decoding."""


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
        seed = (self.seed, epoch, index)
        try:
            return self._sample(index, self._image, seed)
        except DataError as err:
            if not self.replaces:
                return self._sample(index, _blank, seed)._replace(note=f"{err}; a blank image stands for it")
            for step in range(1, len(self.dataset)):
                other = (index + step) % len(self.dataset)
                with contextlib.suppress(DataError):
                    sample = self._sample(other, self._image, seed)
                    return sample._replace(note=f"{err}; {self.dataset.ids[other]} stands for it")
            raise

    def _sample(self, index: int, read: Callable[[Record, int], np.ndarray], seed: tuple[int, int, int]) -> Sample:
        """Make a sample of an image.

        Raises:
            DataError: it does not decode.
        """
        rng = np.random.default_rng(seed)
        record = self.dataset.records[index]
        sample_plan = self.transform.plan(record.size, *self.dataset.targets(index), rng, record.reductions)
        rendered = self.transform.render(read(record, sample_plan.reduction), sample_plan)
        image = torch.from_numpy(channels_first(rendered)) if isinstance(rendered, np.ndarray) else rendered
        boxes = torch.from_numpy(sample_plan.boxes.astype(np.float32))
        return Sample(image, boxes, torch.from_numpy(sample_plan.labels), index)

    def _image(self, record: Record, reduction: int) -> np.ndarray:
        image = record.read(reduction) if self.cache is None else self.cache.read(record, reduction)
        if image.shape != record.shape(reduction):
            height, width = (side * reduction for side in image.shape[:2])
            before = "x".join(map(str, record.size))
            raise DataError(f"{record.image_path}: is {width}x{height} now, was {before} when the run began")
        return image


def _blank(record: Record, reduction: int) -> np.ndarray:
    return np.full(record.shape(reduction), _BLANK, np.uint8)


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
    boxes, labels = _pad_objects(samples, [sample.labels > 0 for sample in samples])
    ignored_boxes = ignored_labels = None
    if any((sample.labels < 0).any() for sample in samples):
        ignored_boxes, ignored_labels = _pad_objects(samples, [sample.labels < 0 for sample in samples])
    notes = tuple(sample.note for sample in samples if sample.note)
    indices = tuple(sample.index for sample in samples)
    parts = [sample.image for sample in samples if isinstance(sample.image, ImagePart)]
    return Batch(
        _join(parts) if parts else torch.stack([sample.image for sample in samples if torch.is_tensor(sample.image)]),
        boxes,
        labels,
        indices,
        notes,
        ignored_boxes,
        ignored_labels,
    )


def _pad_objects(samples: Sequence[Sample], chosen: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    pad_sequence = torch.nn.utils.rnn.pad_sequence
    boxes = [sample.boxes[mask] for sample, mask in zip(samples, chosen, strict=True)]
    labels = [sample.labels[mask] for sample, mask in zip(samples, chosen, strict=True)]
    return pad_sequence(boxes, batch_first=True), pad_sequence(labels, batch_first=True)


def _join(parts: Sequence[ImagePart]) -> ImageParts:
    pixels, places, colors = zip(*parts, strict=True)
    return ImageParts(torch.cat([part.flatten() for part in pixels]), torch.stack(places), torch.stack(colors))


def make_loader(
    dataset: DetectionDataset,
    transform: SampleTransform,
    batches: EpochSampler,
    workers: int,
    *,
    seed: int = 0,
    replaces: bool = True,
    pin_memory: bool = False,
    cache: ImageCache | None = None,
    waits: bool = False,
    told: set[str] | None = None,
) -> BatchLoader:
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
        waits: see `BatchLoader`.
        told: see `BatchLoader`.

    Returns:
        a loader; call `loader.batch_sampler.begin` before each epoch, and `end_workers` at the end.
    """
    return BatchLoader(
        _Samples(dataset, transform, seed, replaces, cache),
        batches,
        pad,
        workers,
        pin_memory=pin_memory,
        context=None if cache is None else FORK,
        waits=waits,
        told=told,
    )


class Sharding(Protocol):
    """What the processes that train together offer; this package does not import theirs."""

    world_size: int

    def shard_each_batch(self, batches: EpochSampler) -> EpochSampler:
        """Sampler of this rank's part of each batch."""

    def shard_batches(self, batches: EpochSampler) -> EpochSampler:
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
        told: what the loaders have logged.
    """

    train_set: DetectionDataset
    val_set: DetectionDataset
    train_transform: SampleTransform
    val_transform: SampleTransform
    seed: int
    least: int
    process: Sharding
    cache: ImageCache | None = None
    told: set[str] = field(default_factory=set)

    def train_batches(self, batch_size: int) -> EpochBatches:
        """Batches of all processes together.

        Args:
            batch_size: of each process.
        """
        return EpochBatches(len(self.train_set), batch_size * self.process.world_size, self.seed, least=self.least)

    def first_batch(self, count: int) -> Batch:
        """Make a batch of the first training samples of a run, in its order.

        Args:
            count: at the most.
        """
        samples = _Samples(self.train_set, self.train_transform, self.seed, replaces=True)
        keys = itertools.chain.from_iterable(EpochBatches(len(self.train_set), count, self.seed))
        return pad([samples[key] for key in itertools.islice(keys, count)])

    @contextlib.contextmanager
    def open(
        self, batch_size: int, workers: int, pin_memory: bool = False, waits: bool = False
    ) -> Iterator[tuple[BatchLoader, BatchLoader]]:
        """Context that gives the loaders of training and validation images of this process.

        Args:
            batch_size: images per batch, of each process.
            workers: loader processes, 0 to work in this one.
            pin_memory: for a CUDA device.
            waits: see `BatchLoader`.
        """
        rest: dict[str, Any] = {
            "workers": workers,
            "pin_memory": pin_memory,
            "cache": self.cache,
            "waits": waits,
            "told": self.told,
        }
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
