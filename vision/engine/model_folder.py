"""The model folder at the start of a run: one run at a time, and what a new run will replace."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from torch import nn

from vision.engine import checkpoint
from vision.options.training import Options
from vision.ssd.models import describe_weights
from vision.ssd.weights import read_weights
from vision.structures import DataError
from vision.utils.errors import error_line

logger = logging.getLogger(__name__)

#: Checkpoints that are enough for most, as best.pth and last.pth are there besides.
_FEW_CHECKPOINTS = 3

#: Locked by the run of a folder, and says who that is.
LOCK = ".run.lock"


@contextlib.contextmanager
def locked(folder: Path, argv: Sequence[str]) -> Iterator[None]:
    """Context in which no other process can run in a model folder; the system unlocks it when this process ends.

    Args:
        folder: that is there and can be written to.
        argv: arguments of this run, for the message to others.

    Raises:
        DataError: another run uses it; the message names it.
    """
    try:
        # Not flock, as of the library filelock: loader processes would inherit it and outlive a killed run with it.
        from fcntl import LOCK_EX, LOCK_NB, lockf
    except ImportError:  # Windows
        yield
        return
    path = folder / LOCK
    is_new = not path.exists()
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as err:  # another user's
        logger.warning("%s: a second run there would not be noticed (%s)", folder, error_line(err))
        yield
        return
    try:
        try:
            lockf(lock, LOCK_EX | LOCK_NB)
        except (BlockingIOError, PermissionError) as err:
            raise _in_use(folder, _holder(lock)) from err
        except OSError as err:  # file systems without locks
            logger.warning("%s: cannot be locked (%s), so a second run there would not be noticed", folder, err)
        if not _is_at(lock, path):
            raise _in_use(folder, "another run, which has failed this very moment")
        command = shlex.join([Path(sys.argv[0]).name, *argv])
        since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        _write(lock, f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})")
        try:
            yield
        except BaseException:
            if is_new:
                path.unlink(missing_ok=True)
            raise
        finally:
            _write(lock, "")
    finally:
        os.close(lock)


def _write(lock: int, text: str) -> None:
    """Write for others who holds the lock; on a full disk they are told without."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode(errors="backslashreplace"), 0)


def _is_at(lock: int, path: Path) -> bool:
    """Whether an open file is still the one at a path: a run that fails removes the lock that it has made."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _in_use(folder: Path, holder: str) -> DataError:
    return DataError(f"--model-dir={folder}: in use by {holder}; wait for it, stop it, or name another folder")


def _holder(lock: int) -> str:
    text = os.pread(lock, 1 << 16, 0).decode(errors="replace")
    return f"another run, {text}" if text else "another run"  # without text it has begun this very moment


def describe_previous_run(folder: Path, keep_checkpoints: int | None = None) -> list[str]:
    """Lines that say what a new run in a folder will replace; none where no run has been.

    Args:
        folder: the model folder.
        keep_checkpoints: how many checkpoints of epochs the new run keeps, None for all.
    """
    names = (checkpoint.BEST, checkpoint.LAST, checkpoint.STATE, "results.csv", "labels.txt", "log.txt")
    there = [name for name in names if (folder / name).is_file()]
    epochs = sum(checkpoint.parse_name(path.name) is not None for path in folder.glob("*.pth"))
    if not epochs and there in ([], ["labels.txt"]):  # a user may have put the list there
        return []
    has_best = checkpoint.BEST in there
    replaced = [name for name in there if name != checkpoint.BEST]
    if has_best and (folder / checkpoint.PREVIOUS_BEST).is_file():
        replaced.insert(0, checkpoint.PREVIOUS_BEST)
    began = _command_of(folder / "args.json")
    lines = [f"{folder}: holds another run{began}; this one will replace its {', '.join(replaced) or 'files'}"]
    if epochs:
        become = "stay" if keep_checkpoints is None else "will be removed in time, as --keep-checkpoints says"
        lines.append(f"{folder}: its {epochs} checkpoints of epochs {become}")
    if has_best:
        best = folder / checkpoint.BEST
        lines.append(
            f"{best}: is that of the other run{_results_of(best)} until the first validation of this, then it becomes "
            f"{checkpoint.PREVIOUS_BEST}"
        )
    return lines


def _command_of(path: Path) -> str:
    try:
        return f" ({json.loads(path.read_text(encoding='utf-8'))['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _results_of(path: Path) -> str:
    try:
        description = describe_weights(read_weights(path), str(path))
    except DataError:
        return ""
    parts, results = [description.net], description.results
    if results is not None:
        parts.append(f"epoch {results.epoch}")
        if results.mean_ap is not None:
            parts.append(f"mean ap {results.mean_ap:.4g}")
    return f" ({', '.join(parts)})"


def describe_disk(folder: Path, net: nn.Module, options: Options, first_epoch: int) -> tuple[str, bool]:
    """Say how much room the files of a run will take, and how much there is.

    Args:
        folder: the model folder.
        net: to be trained.
        options: of the run.
        first_epoch: epoch that comes next.

    Returns:
        a line for the log, and whether there is room enough.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
    every = options.validation_epochs
    checkpoints = -(-options.epochs // every) - first_epoch // every
    kept = checkpoints if options.keep_checkpoints is None else min(checkpoints, options.keep_checkpoints)
    # Besides them best.pth, last.pth, and the state: weights, what the optimizer remembers, and the average.
    in_state = 1 + (1 if options.optimizer == "sgd" else 2) + options.ema
    needed = weights * (kept + 2 + in_state)
    free = shutil.disk_usage(folder).free
    fewer = "" if kept <= _FEW_CHECKPOINTS else f"; --keep-checkpoints={_FEW_CHECKPOINTS} keeps the newest alone"
    return f"disk: about {_size_text(needed)} for {kept} checkpoints and the state, {_size_text(free)} free{fewer}", (
        free > needed
    )


def _size_text(count: int) -> str:
    """Write a number of bytes for people: 390 MB, 1.2 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
