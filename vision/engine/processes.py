"""The processes that train together. Here: one alone, for which every answer is the plain one.

`vision.engine.distributed` answers for several; it is loaded only where torchrun started this process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from vision.engine.faults import Stop
from vision.engine.learner import Learner
from vision.structures import DataError

Value = TypeVar("Value")
Batches = TypeVar("Batches")


class Alone:
    """One process.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
    """

    rank, size = 0, 1

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def is_first(self) -> bool:
        """Whether it is this process that writes files and speaks."""
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """What starts a script with these processes."""
        return "python3"

    def everyone(self, value: Value) -> list[Value]:
        """Give what each process passed, by rank; all must call it."""
        return [value]

    def from_first(self, function: Callable[[], Value]) -> Value:
        """Call a function in the first process, and give all its result."""
        return function()

    def in_turn(self, function: Callable[[], Value]) -> Value:
        """Call a function in one process of each machine, then in its others: they find the files it has made."""
        return function()

    def check_same(self, what: str, value: Callable[[], Any]) -> None:
        """Check that what a function gives is the same in all processes.

        Args:
            what: it is, to complete "process 1 ... than the first".
            value: gives something that can be compared.

        Raises:
            DataError: it is not.
        """

    def prepare(self, function: Callable[[], Value]) -> Value:
        """Call a function that may fail in one process or in several; then all end, and the reason is said once."""
        return function()

    def use(self, device: torch.device) -> torch.device:
        """Compute on a device, or on this process's own of that kind; gives which."""
        return device

    def make_learner(self, *args: Any, **options: Any) -> Learner:
        """Make a learner that takes its steps together with those of the others."""
        return Learner(*args, **options)

    def synchronise_batch_norm(self, net: nn.Module) -> None:
        """Let batch norm see the pictures of all processes.

        Raises:
            DataError: there is one process, or PyTorch has it not for this device.
        """
        raise DataError("--sync-bn: this is one process; start several with torchrun, or leave it out")

    def stop(self) -> Stop:
        """Give what heeds signals."""
        return Stop()

    def share_of_each(self, batches: Batches) -> Batches:
        """Give this process its part of each batch."""
        return batches

    def share_of_all(self, batches: Batches) -> Batches:
        """Give this process some of the batches."""
        return batches


def open_processes() -> Alone:
    """Give the processes that this one trains with: those that PyTorch's torchrun started, or none."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("WORLD_SIZE") == "1":
        return Alone()
    from vision.engine.distributed import OneOfSeveral

    return OneOfSeveral()
