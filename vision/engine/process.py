"""What a process knows of the others that train with it. Here: a single process, for which every answer is plain.

`vision.engine.distributed` answers for one of several, `current_process` chooses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from vision.engine.faults import StopSignal
from vision.structures import DataError

if TYPE_CHECKING:
    from vision.datasets.batch_loader import EpochSampler

Value = TypeVar("Value")


class SingleProcess:
    """One process; to be used as a context.

    Attributes:
        rank: number of this process, from 0.
        world_size: how many there are.
        local_world_size: how many of them are on this machine.
    """

    rank, world_size, local_world_size = 0, 1, 1

    def __enter__(self) -> SingleProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        pass

    @property
    def is_main_process(self) -> bool:
        """Whether it is this process that writes files and logs."""
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """What starts a script with as many processes."""
        return "python3"

    def all_gather(self, value: Value) -> list[Value]:
        """Values of all ranks, in their order; all must call it."""
        return [value]

    def broadcast_from_main(self, function: Callable[[], Value]) -> Value:
        """Result of a function that the main process alone calls; all must call this."""
        return function()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Context that one process of each machine enters first, so that its others find the files it has made."""
        yield

    def check_same(self, what: str, value: Callable[[], Any]) -> None:
        """Check that what a function gives is the same in all processes.

        Args:
            what: it is, to complete "process 1 ... than the first".
            value: gives something that can be compared.

        Raises:
            DataError: it is not.
        """

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Context in which an error of one process ends all, and is said once."""
        yield

    def select_device(self, device: torch.device) -> torch.device:
        """Device of this process: the one asked for, or this rank's own of that kind."""
        return device

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that all processes have the same gradients."""
        return model

    @contextmanager
    def detecting_lost_peer(self) -> Iterator[None]:
        """Context of a step, in which an error that another process has gone is `PeerProcessLost`."""
        yield

    @contextmanager
    def accumulating(self, parallel_model: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Context of a batch of a step; behind the last one the gradients are those of all processes."""
        yield

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        return values

    def summed_by_average(self, loss: Tensor) -> Tensor:
        """Scale a loss so that the average of its gradients over the processes is their sum."""
        return loss

    def average_batch_norm(self, net: nn.Module) -> None:
        """Average the statistics of batch norm over the processes."""

    def convert_sync_batchnorm(self, net: nn.Module) -> None:
        """Let batch norm see the images of all processes.

        Raises:
            DataError: there is one process, or PyTorch has none for this device.
        """
        raise DataError("--sync-bn: this is one process; start several with torchrun, or leave it out")

    def stop_signal(self) -> StopSignal:
        """Context that catches the signals by which a run is asked to end."""
        return StopSignal()

    def shard_each_batch(self, batches: EpochSampler) -> EpochSampler:
        """Sampler of this rank's part of each batch."""
        return batches

    def shard_batches(self, batches: EpochSampler) -> EpochSampler:
        """Sampler of this rank's batches."""
        return batches


def current_process() -> SingleProcess:
    """`DistributedProcess` where torchrun started several processes, else `SingleProcess`."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return SingleProcess()
    # Loaded here only: one process has nothing of it.
    from vision.engine.distributed import DistributedProcess

    return DistributedProcess()
