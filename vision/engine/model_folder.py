"""The model folder at the start of a run: one run at a time, and what a new run will replace."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TextIO

from vision.engine import checkpoint
from vision.ssd.models import describe_weights
from vision.ssd.weights import read_weights
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: Locked by the run of a folder, and says who that is.
LOCK = ".run.lock"


@contextlib.contextmanager
def locked(folder: Path, argv: Sequence[str]) -> Iterator[None]:
    """Context in which no other run can use a model folder; the system unlocks it when this process ends.

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
    with open(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666), "r+", encoding="utf-8") as file:
        try:
            lockf(file, LOCK_EX | LOCK_NB)
        except (BlockingIOError, PermissionError) as err:
            raise DataError(
                f"--model-dir={folder}: in use by {_holder(file.read())}; wait for it, stop it, or name another folder"
            ) from err
        except OSError as err:  # file systems without locks
            logger.warning("%s: cannot be locked (%s), so a second run there would not be noticed", folder, err)
        command = shlex.join([Path(sys.argv[0]).name, *argv])
        since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        _rewrite(file, f"process {os.getpid()} on {socket.gethostname()} since {since} ({command})")
        try:
            yield
        finally:
            _rewrite(file, "")  # the file stays: to remove it could take another run's lock away


def _rewrite(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _holder(text: str) -> str:
    return f"another run, {text}" if text else "another run"  # without text it has begun this very moment


def describe_previous_run(folder: Path) -> list[str]:
    """Lines that say what a new run in a folder will replace; none where no run has been.

    Args:
        folder: the model folder.
    """
    names = (checkpoint.BEST, checkpoint.LAST, checkpoint.STATE, "results.csv")
    replaced = [name for name in names if (folder / name).is_file()]
    if not replaced:
        return []
    began = _command_of(folder / "args.json")
    lines = [f"{folder}: holds another run{began}; this one will replace its {', '.join(replaced)}"]
    kept = sum(checkpoint.parse_name(path.name) is not None for path in folder.glob("*.pth"))
    if kept:
        lines.append(f"{folder}: its {kept} checkpoints of epochs stay, --resume would go on with it")
    if (folder / checkpoint.BEST).is_file():
        found = _results_of(folder / checkpoint.BEST)
        lines.append(f"{folder / checkpoint.BEST}: is that of the other run{found} until the first validation of this")
    return lines


def _command_of(path: Path) -> str:
    try:
        return f" ({json.loads(path.read_text(encoding='utf-8'))['command']})"
    except (OSError, ValueError, KeyError):
        return ""


def _results_of(path: Path) -> str:
    try:
        description = describe_weights(read_weights(path), str(path))
    except DataError:
        return ""
    results = {key: value for key, value in description.get("results", {}).items() if key in ("epoch", "mean_ap")}
    facts = [description["net"], *(f"{key.replace('_', ' ')} {value:.4g}" for key, value in results.items())]
    return f" ({', '.join(facts)})"
