"""One of several processes that train one net together, started by PyTorch's torchrun.

Each has its part of every batch, and gradients are averaged by DistributedDataParallel. What the processes tell each
other besides (whether to stop, what could not be read, detections) goes through one function, `everyone`, always by
gloo, so that nothing waits for a GPU. That function carries errors, too: a process that fails before training says so
in it, and all end.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from vision.engine.faults import ProcessLost, Stop
from vision.engine.learner import Learner
from vision.engine.processes import Alone
from vision.nn.multibox_loss import Losses
from vision.structures import Batch, DataError

Value = TypeVar("Value")

#: Parts of the messages with which gloo and NCCL say that the other end of a connection is gone.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "remote process exited")

#: How long one process may read data or fetch files while the others wait.
_PREPARATION = timedelta(days=1)


@contextlib.contextmanager
def noticing_loss() -> Iterator[None]:
    """Turn what gloo and NCCL say when another process is gone into `ProcessLost`."""
    try:
        yield
    except RuntimeError as err:
        if isinstance(err, torch.distributed.DistError) or any(part in str(err) for part in _GONE):
            raise ProcessLost(
                f"another process of this run has ended, its own message says why ({str(err).splitlines()[0]})"
            ) from err
        raise


class _Failed(NamedTuple):
    """Stands in `everyone` for a value that a process does not have, since it failed."""

    rank: int


class OneOfSeveral(Alone):
    """This process among those that torchrun started; to be used as a context."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.size = int(os.environ["WORLD_SIZE"])
        self.rank_here = int(os.environ["LOCAL_RANK"])
        self.size_here = int(os.environ["LOCAL_WORLD_SIZE"])
        #: Where gradients are averaged, by NCCL between GPUs; apart from what `everyone` uses, or the one could
        #: take the other's bytes for its own when a process has failed.
        self.group: torch.distributed.ProcessGroup | None = None
        self._control: torch.distributed.ProcessGroup | None = None

    def __enter__(self) -> OneOfSeveral:
        torch.distributed.init_process_group("gloo", timeout=_PREPARATION)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # else others may be gone, and would be waited for
            torch.distributed.destroy_process_group()

    def use(self, device: torch.device) -> torch.device:
        """Compute on a device of this process's own.

        Raises:
            DataError: there are too few GPUs, or the device is of another kind than CPU or CUDA.
        """
        if device.type not in ("cpu", "cuda"):
            raise DataError(f"--device={device}: several processes can train on cpu or cuda only; use --device=cpu")
        if device.index is not None:
            raise DataError(f"--device={device}: torchrun gives each process a GPU of its own; use --device=cuda")
        if device.type == "cuda" and self.size_here > torch.cuda.device_count():
            raise DataError(
                f"torchrun started {self.size_here} processes on {socket.gethostname()}, which has "
                f"{torch.cuda.device_count()} GPUs; start as many with --nproc_per_node, or use --device=cpu"
            )
        kinds = self.everyone(device.type)
        if len(set(kinds)) > 1:
            raise DataError(f"--device: processes have {', '.join(kinds)}, in their order; choose one kind for all")
        if device.type == "cuda":
            device = torch.device("cuda", self.rank_here)
            torch.cuda.set_device(device)
        self.group = torch.distributed.new_group(backend="nccl" if device.type == "cuda" else "gloo")
        return device

    @property
    def launcher(self) -> str:
        """What starts a script with these processes."""
        machines = self.size // self.size_here
        if machines > 1:  # where they find each other is not known here
            return f"torchrun --nnodes={machines} --nproc_per_node={self.size_here} ..."
        return f"torchrun --nproc_per_node={self.size_here}"

    def everyone(self, value: Value) -> list[Value]:
        """Give what each process passed, by rank; all must call it, with values that can be pickled.

        Raises:
            SystemExit: a process has failed.
        """
        values: list[Any] = [None] * self.size
        with noticing_loss():
            torch.distributed.all_gather_object(values, value, group=self._control)
        if any(isinstance(other, _Failed) for other in values) and not isinstance(value, _Failed):
            self._leave()
        return values

    def _leave(self) -> None:
        """End once the process that says why has ended: when one ends, torchrun ends all."""
        with contextlib.suppress(RuntimeError):
            torch.distributed.barrier(self._control)
        raise SystemExit(1)

    def from_first(self, function: Callable[[], Value]) -> Value:
        """Call a function in the first process, and give all its result."""
        values = [function() if self.is_first else None]
        self.everyone(None)  # carries an error of the first
        with noticing_loss():
            torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def in_turn(self, function: Callable[[], Value]) -> Value:
        """Call a function in one process of each machine, then in its others: they find the files it has made."""
        if self.rank_here:
            self.everyone(None)
        value = function()
        if not self.rank_here:
            self.everyone(None)
        return value

    def check_same(self, what: str, value: Callable[[], Any]) -> None:
        """Check that what a function gives is the same in all processes; see `Alone.check_same`."""
        found = self.everyone((value(), socket.gethostname()))
        for rank, (other, host) in enumerate(found):
            if other != found[0][0]:
                raise DataError(f"process {rank} on {host} {what} than the first; give every machine the same files")

    def prepare(self, function: Callable[[], Value]) -> Value:
        """Call a function that may fail in one process or in several; then all end, and one that failed says why.

        Others that wait in `everyone` meanwhile, or come to it, end there.
        """
        try:
            value = function()
        except Exception as err:
            failed = [other.rank for other in self.everyone(_Failed(self.rank)) if isinstance(other, _Failed)]
            if failed[0] != self.rank:
                self._leave()
            if isinstance(err, DataError) and not self.is_first:
                raise DataError(f"process {self.rank} on {socket.gethostname()}: {err}") from err
            raise
        self.everyone(None)
        return value

    def make_learner(self, *args: Any, **options: Any) -> Learner:
        """Make a learner that takes its steps together with those of the others; see `Learner`."""
        self.everyone(None)  # from here on errors of one cannot be told
        self._control = torch.distributed.new_group(backend="gloo")  # whose patience is that for a step
        return SharedLearner(*args, processes=self, **options)

    def synchronise_batch_norm(self, net: nn.Module) -> None:
        """Let batch norm see the pictures of all processes.

        Raises:
            DataError: PyTorch has it for CUDA only.
        """
        device = next(net.parameters()).device
        if device.type != "cuda":
            raise DataError(f"--sync-bn: PyTorch has it for CUDA only, this is {device}; leave it out")
        nn.SyncBatchNorm.convert_sync_batchnorm(net, self.group)

    def stop(self) -> Stop:
        """Give what heeds signals, of any of the processes, in all at the same step."""
        return StopTogether(self)

    def share_of_each(self, batches: Sampler) -> Sampler:
        """Give this process its part of each batch: all take as many steps, on equally many pictures but for one."""
        return _Share(batches, self.rank, self.size, of_each=True)

    def share_of_all(self, batches: Sampler) -> Sampler:
        """Give this process every so manieth batch: each picture is looked at once."""
        return _Share(batches, self.rank, self.size, of_each=False)


class _Share(Sampler):
    """One process's part of what a sampler of batches gives."""

    def __init__(self, batches: Sampler, rank: int, size: int, of_each: bool) -> None:
        self._batches, self._rank, self._size, self._of_each = batches, rank, size, of_each

    def begin(self, epoch: int, first_batch: int = 0) -> None:
        """See `EpochBatches`."""
        self._batches.begin(epoch, first_batch)

    @property
    def batches_of_epoch(self) -> int:
        """How many batches a whole epoch has, of which all have a part."""
        return self._batches.batches_of_epoch

    def __iter__(self) -> Iterator[list]:
        if not self._of_each:
            yield from itertools.islice(self._batches, self._rank, None, self._size)
            return
        for batch in self._batches:
            yield batch[len(batch) * self._rank // self._size : len(batch) * (self._rank + 1) // self._size]

    def __len__(self) -> int:
        if self._of_each:
            return len(self._batches)
        return -(-(len(self._batches) - self._rank) // self._size)


class StopTogether(Stop):
    """Stops all processes at the same step when a signal came to any of them."""

    def __init__(self, processes: OneOfSeveral) -> None:
        super().__init__()
        self._processes = processes
        self._agreed: int | None = None

    @property
    def decisive(self) -> int | None:
        """The signal that the processes have agreed to end for, None for none."""
        return self._agreed

    def between(self, items: Sequence[Batch]) -> Iterator[Batch]:
        """Pass batches on; before each, agree whether to stop, and exchange what could not be read.

        All processes must take all that this gives.

        Args:
            items: anything with a length; where others have more, this process waits for them.
        """
        everyone = self._processes.everyone
        batches = iter(items)
        for _ in range(max(everyone(len(items)))):
            batch = next(batches, None)
            told = everyone((self.signal, () if batch is None else batch.notes))
            signals = [number for number, _ in told if number is not None]
            if signals:
                self._agreed = signals[0]
                self.check()
            if batch is not None:
                yield batch._replace(notes=tuple(note for _, notes in told for note in notes))


class SharedLearner(Learner):
    """A learner whose steps are taken by several processes together, as if their batches were one.

    Batch norm sees the pictures of its own process (but `SyncBatchNorm`); its statistics are averaged after each step,
    so that all nets stay equal. (What separates the processes' means is no part of the averaged variance.)
    """

    def __init__(self, *args: Any, processes: OneOfSeveral, **options: Any) -> None:
        super().__init__(*args, **options)
        self._size, self._group = processes.size, processes.group
        # Statistics are averaged below, which uses those of all processes; by itself it would take the first's.
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # new name and old
        self._parallel = DistributedDataParallel(self.objective, process_group=self._group, **{buffers: False})

    def step(self, batches: Sequence[Batch], iteration: int, steps_per_epoch: int) -> Losses | None:
        """Take one step on the batches of all processes, which count as one large batch but for batch norm.

        See `Learner.step`.

        Raises:
            ProcessLost: another process has ended; nothing has changed.
        """
        with noticing_loss():
            return super().step(batches, iteration, steps_per_epoch)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        torch.distributed.all_reduce(values, group=self._group)
        return values

    def backward(self, batch: Batch, target: tuple[Tensor, Tensor], normaliser: Tensor, *, is_last: bool) -> Losses:
        """Add a batch's gradients to those of the step; after the last, they are averaged over the processes."""
        with contextlib.nullcontext() if is_last else self._parallel.no_sync():
            losses, _, _ = self._parallel(batch, target, normaliser)
            # The normaliser is that of all, so gradients are to be summed: undo the average.
            self.scaler.scale(losses.total * self._size).backward()
        if is_last:
            self._average_statistics()
        return losses

    @torch.no_grad()
    def _average_statistics(self) -> None:
        statistics = [
            buffer
            for module in self.net.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
            for buffer in (module.running_mean, module.running_var)
        ]
        if not statistics:
            return
        flat = torch.cat(statistics)
        torch.distributed.all_reduce(flat, group=self._group)
        torch._foreach_copy_(statistics, list((flat / self._size).split([len(buffer) for buffer in statistics])))
