"""One of several processes that train one net together, started by PyTorch's torchrun.

Each has its part of every batch, and gradients are averaged by DistributedDataParallel. What the processes exchange
besides (whether to stop, what could not be read, detections) goes through one function, `all_gather`, always by
gloo, so that nothing waits for a GPU. That function carries errors, too: a process that fails before training says so
in it, and all end.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from vision.engine.faults import PeerProcessLost, StopRequested, StopSignal
from vision.engine.process import SingleProcess
from vision.structures import Batch, DataError

if TYPE_CHECKING:
    from vision.datasets.batch_loader import EpochSampler

Value = TypeVar("Value")

#: Parts of the messages with which gloo and NCCL say that the other end of a connection is gone.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out", "remote process exited")

#: How long one process may read data or fetch files while the others wait.
_SETUP_TIMEOUT = timedelta(days=1)


@contextlib.contextmanager
def detecting_lost_peer() -> Iterator[None]:
    """Context that turns what gloo and NCCL say when another process is gone into `PeerProcessLost`."""
    try:
        yield
    except RuntimeError as err:
        if isinstance(err, torch.distributed.DistError) or any(part in str(err) for part in _GONE):
            raise PeerProcessLost(
                f"another process of this run has ended, its own message says why ({str(err).splitlines()[0]})"
            ) from err
        raise


def _new_group(backend: str) -> torch.distributed.ProcessGroup:
    group = torch.distributed.new_group(backend=backend)
    assert isinstance(group, torch.distributed.ProcessGroup)  # all processes are members
    return group


class _Failed(NamedTuple):
    """Stands in `all_gather` for the value of a rank that failed."""

    rank: int


class DistributedProcess(SingleProcess):
    """This process among those that torchrun started; to be used as a context."""

    def __init__(self) -> None:
        self.rank = int(os.environ["RANK"])
        self.world_size = int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.local_world_size = int(os.environ["LOCAL_WORLD_SIZE"])
        #: Where gradients are averaged, by NCCL between GPUs; apart from what `all_gather` uses, or the one could
        #: take the other's bytes for its own when a process has failed.
        self.gradient_group: torch.distributed.ProcessGroup | None = None
        self._object_group: torch.distributed.ProcessGroup | None = None

    def __enter__(self) -> DistributedProcess:
        # PyTorch 2.4 warns of a call of its own whenever tensors come from another process.
        warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning, r"torch\.storage")
        torch.distributed.init_process_group("gloo", timeout=_SETUP_TIMEOUT)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # else others may be gone, and would be waited for
            # PyTorch 2.4 ends a group without letting go of Python's lock, for which gloo's threads may be waiting: for
            # ever. Only the group of `all_gather_object` can have threads that hold Python objects; as the last to know
            # its backend, this handle ends it instead, and lets go.
            group = torch.distributed.group.WORLD if self._object_group is None else self._object_group
            assert group is not None  # `__enter__` has made it
            backend = group._get_backend(torch.device("cpu"))
            del group
            torch.distributed.destroy_process_group()
            self._object_group = None
            del backend

    def select_device(self, device: torch.device) -> torch.device:
        """Device of this rank's own.

        Raises:
            DataError: there are too few GPUs, or the device is of another kind than CPU or CUDA.
        """
        if device.type not in ("cpu", "cuda"):
            raise DataError(f"--device={device}: several processes can train on cpu or cuda only; use --device=cpu")
        if device.index is not None:
            raise DataError(f"--device={device}: torchrun gives each process a GPU of its own; use --device=cuda")
        if device.type == "cuda" and self.local_world_size > torch.cuda.device_count():
            raise DataError(
                f"torchrun started {self.local_world_size} processes on {socket.gethostname()}, which has "
                f"{torch.cuda.device_count()} GPUs; start as many with --nproc_per_node, or use --device=cpu"
            )
        kinds = self.all_gather(device.type)
        if len(set(kinds)) > 1:
            raise DataError(f"--device: processes have {', '.join(kinds)}, in their order; choose one kind for all")
        if device.type == "cuda":
            device = torch.device("cuda", self.local_rank)
            torch.cuda.set_device(device)
        self.gradient_group = _new_group("nccl" if device.type == "cuda" else "gloo")
        return device

    @property
    def launcher(self) -> str:
        """What starts a script with as many processes."""
        machines = self.world_size // self.local_world_size
        if machines > 1:  # where they find each other is not known here
            return f"torchrun --nnodes={machines} --nproc_per_node={self.local_world_size} ..."
        return f"torchrun --nproc_per_node={self.local_world_size}"

    def all_gather(self, value: Value) -> list[Value]:
        """Values of all ranks, in their order; all must call it, with values that can be pickled.

        Raises:
            SystemExit: a rank has failed.
        """
        values: list[Any] = [None] * self.world_size
        # Validation exchanges from within inference mode, where gloo's threads are not; PyTorch 2.4 does not let them
        # write tensors made there.
        with detecting_lost_peer(), torch.inference_mode(False):
            torch.distributed.all_gather_object(values, value, group=self._object_group)
        if any(isinstance(other, _Failed) for other in values) and not isinstance(value, _Failed):
            self._exit_after_the_failed_rank()
        return values

    def _exit_after_the_failed_rank(self) -> None:
        """Wait until the rank that says why has said it: when one process ends, torchrun ends all."""
        with contextlib.suppress(RuntimeError):
            torch.distributed.barrier(self._object_group)
        raise SystemExit(1)

    def broadcast_from_main(self, function: Callable[[], Value]) -> Value:
        """Result of a function that the main process alone calls; all must call this."""
        values: list[Any] = [function() if self.is_main_process else None]
        self.all_gather(None)  # carries an error of the main process
        with detecting_lost_peer():
            torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    @contextlib.contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Context that one process of each machine enters first, so that its others find the files it has made."""
        if self.local_rank:
            self.all_gather(None)
        yield
        if not self.local_rank:  # not where an error came out of the block: `failing_together` tells of it
            self.all_gather(None)

    def check_same(self, what: str, value: Callable[[], Any]) -> None:
        """Check that what a function gives is the same in all processes; see `SingleProcess.check_same`."""
        found = self.all_gather((value(), socket.gethostname()))
        for rank, (other, host) in enumerate(found):
            if other != found[0][0]:
                raise DataError(f"process {rank} on {host} {what} than the first; give every machine the same files")

    @contextlib.contextmanager
    def failing_together(self) -> Iterator[None]:
        """Context in which an error of one rank ends all, and one that failed says why.

        Others that wait in `all_gather` meanwhile, or come to it, end there.
        """
        try:
            yield
        except Exception as err:
            failed = [other.rank for other in self.all_gather(_Failed(self.rank)) if isinstance(other, _Failed)]
            if failed[0] != self.rank:
                self._exit_after_the_failed_rank()
            if isinstance(err, DataError) and not self.is_main_process:
                raise DataError(f"process {self.rank} on {socket.gethostname()}: {err}") from err
            raise
        self.all_gather(None)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Wrap a model so that all processes have the same gradients."""
        self.all_gather(None)  # an error of one rank cannot be exchanged from here on
        self._object_group = _new_group("gloo")  # with the time-out of a step
        # `average_batch_norm` uses the statistics of all ranks; by itself DDP would take the first's.
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # new name and old
        settings: dict[str, Any] = {buffers: False}
        return DistributedDataParallel(model, process_group=self.gradient_group, **settings)

    @contextlib.contextmanager
    def detecting_lost_peer(self) -> Iterator[None]:
        """Context of a step, in which an error that another process has gone is `PeerProcessLost`."""
        with detecting_lost_peer():
            yield

    @contextlib.contextmanager
    def accumulating(self, parallel_model: nn.Module, *, is_last: bool) -> Iterator[None]:
        """Context of a batch of a step; behind the last one the gradients are averaged over the processes."""
        assert isinstance(parallel_model, DistributedDataParallel)  # as `parallel` made it
        with contextlib.nullcontext() if is_last else parallel_model.no_sync():
            yield

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Sum over the processes, in place."""
        torch.distributed.all_reduce(values, group=self.gradient_group)
        return values

    def summed_by_average(self, loss: Tensor) -> Tensor:
        """Scale a loss so that the average of its gradients over the processes is their sum."""
        return loss * self.world_size

    @torch.no_grad()
    def average_batch_norm(self, net: nn.Module) -> None:
        """Average the statistics of batch norm; what separates the processes' means is no part of the variance."""
        statistics = [
            buffer
            for module in net.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if not statistics:
            return
        flat = torch.cat(statistics)
        torch.distributed.all_reduce(flat, group=self.gradient_group)
        means = (flat / self.world_size).split([len(buffer) for buffer in statistics])
        torch._foreach_copy_(statistics, list(means))

    def convert_sync_batchnorm(self, net: nn.Module) -> None:
        """Let batch norm see the images of all processes.

        Raises:
            DataError: PyTorch has it for CUDA only.
        """
        device = next(net.parameters()).device
        if device.type != "cuda":
            raise DataError(f"--sync-bn: PyTorch has it for CUDA only, this is {device}; leave it out")
        nn.SyncBatchNorm.convert_sync_batchnorm(net, self.gradient_group)

    def stop_signal(self) -> StopSignal:
        """Context that catches signals to any of the processes, and stops all at the same step."""
        return DistributedStopSignal(self)

    def shard_each_batch(self, batches: EpochSampler) -> EpochSampler:
        """Sampler of this rank's part of each batch: all take as many steps, on equally many images but for one."""
        return _Shard(batches, self.rank, self.world_size, of_each=True)

    def shard_batches(self, batches: EpochSampler) -> EpochSampler:
        """Sampler of every `world_size`-th batch: each image is looked at once."""
        return _Shard(batches, self.rank, self.world_size, of_each=False)


class _Shard(Sampler):
    """One rank's part of what a sampler of batches gives."""

    def __init__(self, batches: EpochSampler, rank: int, world_size: int, of_each: bool) -> None:
        self._batches, self._rank, self._world_size, self._of_each = batches, rank, world_size, of_each

    def begin(self, epoch: int, first_batch: int = 0) -> None:
        """See `EpochBatches`."""
        self._batches.begin(epoch, first_batch)

    @property
    def batches_of_epoch(self) -> int:
        """How many batches a whole epoch has, of which all have a part."""
        return self._batches.batches_of_epoch

    def __iter__(self) -> Iterator[list]:
        if not self._of_each:
            yield from itertools.islice(self._batches, self._rank, None, self._world_size)
            return
        for batch in self._batches:
            yield batch[len(batch) * self._rank // self._world_size : len(batch) * (self._rank + 1) // self._world_size]

    def __len__(self) -> int:
        if self._of_each:
            return len(self._batches)
        return -(-(len(self._batches) - self._rank) // self._world_size)


class DistributedStopSignal(StopSignal):
    """Stops all processes at the same step when a signal came to any of them."""

    def __init__(self, process: DistributedProcess) -> None:
        super().__init__()
        self._process = process
        self._agreed: int | None = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, PeerProcessLost):
            # torchrun ends all that are left of the run; this one is ending, and has yet to say why.
            self._previous_handlers[signal.SIGTERM] = signal.SIG_IGN
        super().__exit__(kind)

    @property
    def effective(self) -> int | None:
        """The signal that the processes have agreed to end for, None for none."""
        return self._agreed

    def check_between(self, items: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on; before each, agree whether to stop, and exchange what could not be read.

        All processes must take all that this gives.

        Args:
            items: anything with a length; where others have more, this process waits for them.
        """
        assert isinstance(items, Sized)  # a loader, or the batches themselves
        all_gather = self._process.all_gather
        batches = iter(items)
        for _ in range(max(all_gather(len(items)))):
            batch = None
            with contextlib.suppress(StopRequested):  # which the others have yet to learn of
                batch = self.wait_for_next(batches)
            gathered = all_gather((self.received, () if batch is None else batch.notes))
            signals = [number for number, _ in gathered if number is not None]
            if signals:
                self._agreed = signals[0]
                self.check()
            if batch is not None:
                yield batch._replace(notes=tuple(note for _, notes in gathered for note in notes))
