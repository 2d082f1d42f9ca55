"""Files of a model folder: their names, what is in them, and which is best.

The contract with other tools: `<net>-Epoch-<n>-Loss-<loss>.pth` is a plain state_dict (which also describes itself, see
`vision.ssd.weights`), as are `best.pth` and `last.pth`; `labels.txt` has BACKGROUND first. `last.state` is ours: all
that a resumed run needs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vision.engine.loop import TrainState
from vision.ssd.description import Description, Results
from vision.ssd.models import describe_weights
from vision.ssd.ssd import SSD
from vision.ssd.weights import METADATA_KEY, read_weights, write_weights
from vision.structures import DataError
from vision.utils.files import replacing

logger = logging.getLogger(__name__)

BEST, LAST, STATE = "best.pth", "last.pth", "last.state"
#: The state and the best checkpoint of the run that was in a folder before.
PREVIOUS_STATE, PREVIOUS_BEST = "previous.state", "previous_best.pth"

_NAME = re.compile(r"^(?P<net>.+)-Epoch-(?P<epoch>\d+)-Loss-(?P<loss>[^/]+)\.pth$")


class NamedCheckpoint(NamedTuple):
    """What a checkpoint's file name says."""

    net: str
    epoch: int
    loss: float


def file_name(net: str, epoch: int, loss: float) -> str:
    """File name of a checkpoint; `parse_name` reads it back."""
    return f"{net}-Epoch-{epoch}-Loss-{loss}.pth"


def parse_name(name: str) -> NamedCheckpoint | None:
    """Read a checkpoint's file name; None for other names."""
    match = _NAME.match(name)
    if match is None:
        return None
    try:
        return NamedCheckpoint(match["net"], int(match["epoch"]), float(match["loss"]))
    except ValueError:
        return None


def save(net: SSD, paths: list[Path], results: Results, run: str = "") -> None:
    """Write the weights to each path, with the net's description, and what is known of the run.

    Args:
        net: with the weights.
        paths: to write to.
        results: that were reached.
        run: see `new_run`.
    """
    weights = net.state_dict()
    metadata = weights._metadata  # type: ignore[attr-defined]  # stubs say dict, but it is one with metadata
    metadata[""][METADATA_KEY] = replace(net.description(), results=results, run=run).to_dict()
    for path in paths:
        write_weights(weights, path)


def new_run() -> str:
    """Name a run, so that its files can be told from those of others; a later run has a later name."""
    return f"{datetime.now():%Y-%m-%d %H:%M:%S} {secrets.token_hex(4)}"


class _Candidate(NamedTuple):
    """A checkpoint that might be the best of its run.

    Attributes:
        run: by name; of files without one, as of others and of versions before 0.13.0, what they were trained as.
        written: when, in nanoseconds.
        score: to compare it with others of its run.
        path: of the file.
    """

    run: tuple[str, Description | None]
    written: int
    score: tuple[bool, float]
    path: Path


def best_of_folder(folder: Path, net: str | None = None, num_classes: int | None = None) -> Path:
    """Find the best checkpoint of a model folder.

    That is `best.pth`. Where there is none, those of the newest run compete: by the mean AP that is recorded in them,
    else by the loss in their names.

    Args:
        folder: the model folder.
        net: canonical name; others are passed over.
        num_classes: with the background; others are passed over.

    Raises:
        DataError: `best.pth` cannot be read, or there is none; the message says why each file was passed over.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a model folder as train_ssd.py writes it")
    found: list[_Candidate] = []
    refused: list[str] = []
    for path in sorted(folder.glob("*.pth"), key=lambda path: (path.name != BEST, path.name)):
        if path.name == PREVIOUS_BEST:
            continue
        named = parse_name(path.name)
        try:
            description = describe_weights(read_weights(path), path.name)
        except DataError as err:
            if path.name == BEST:
                raise DataError(
                    f"{err}; no other file is taken for the best instead of it: restore it, name the file to use "
                    f"({folder / LAST}, say), or remove it"
                ) from err
            refused.append(str(err))
            continue
        mean_ap = None if description.results is None else description.results.mean_ap
        if net is not None and description.net != net:
            refused.append(f"{path.name}: is a {description.net} checkpoint, not {net}")
        elif num_classes is not None and description.num_classes != num_classes:
            refused.append(f"{path.name}: has {description.num_classes} classes, not {num_classes}")
        elif path.name == BEST:
            return path
        elif mean_ap is not None and math.isfinite(mean_ap):
            found.append(_Candidate(_run_of(description), path.stat().st_mtime_ns, (True, mean_ap), path))
        elif named is not None and math.isfinite(named.loss):
            found.append(_Candidate(_run_of(description), path.stat().st_mtime_ns, (False, -named.loss), path))
        else:
            refused.append(f"{path.name}: no finite loss in its name and no result recorded in it")
    if not found:
        why = f" ({'; '.join(refused)})" if refused else ""
        raise DataError(f"{folder}: no checkpoint that can be used{why}; train first, or name a .pth file")
    newest = max(found, key=lambda candidate: (candidate.run[0], candidate.written))
    of_newest = [candidate for candidate in found if candidate.run == newest.run]
    best = max(of_newest, key=lambda candidate: (candidate.score, candidate.path)).path
    if len(of_newest) < len(found):
        others = len(found) - len(of_newest)
        logger.warning(
            "%s: no %s; %s is the best of the newest run, %d files are of others", folder, BEST, best, others
        )
    return best


def _run_of(description: Description) -> tuple[str, Description | None]:
    if description.run:
        return description.run, None
    known = Description(description.architecture, description.num_classes, description.class_names, description.config)
    return "", known


def find(path: str | Path, net: str | None = None, num_classes: int | None = None) -> Path:
    """Return a file as it is, and the best checkpoint of a folder."""
    path = Path(path)
    return best_of_folder(path, net, num_classes) if path.is_dir() else path


@dataclass(frozen=True)
class DataOrder:
    """What decides the order of images within an epoch; only with the same may a run go on within one.

    Attributes:
        images: fingerprint of the training images.
        seed: of order and augmentation.
        images_per_step: that all processes learn from together.
        repeats: how many times an epoch goes through the images.
        batches_per_epoch: None in states of versions that did not write it.
        stratified: whether images were held out by class as well, see `ReadingOptions`; not in versions before 0.15.0.
    """

    images: str
    seed: int
    images_per_step: int
    repeats: int = 1
    batches_per_epoch: int | None = None
    stratified: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a state file."""
        return {key: getattr(self, name) for name, key in _KEYS_OF_DATA_ORDER.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> DataOrder:
        """Read what `to_dict` gave, now or in an earlier version."""
        return cls(**{name: plain[key] for name, key in _KEYS_OF_DATA_ORDER.items() if key in plain})

    def differences(self, other: DataOrder) -> list[str]:
        """Name, in words, what differs in another order."""
        return [key for name, key in _KEYS_OF_DATA_ORDER.items() if getattr(self, name) != getattr(other, name)]


#: Fields of `DataOrder` -> their keys in a state file.
_KEYS_OF_DATA_ORDER = {
    "images": "images",
    "seed": "seed",
    "images_per_step": "images a step",
    "repeats": "repeats",
    "batches_per_epoch": "batches an epoch",
    "stratified": "way of holding out",
}


@dataclass(frozen=True)
class ExecutionChoice:
    """What was chosen at the start of a run and stays when it goes on.

    Attributes:
        amp: name of the precision.
        channels_last: memory format of net and images.
        augment_on: where images are augmented, see `vision.engine.execution`; "cpu" in states that do not say it.
    """

    amp: str
    channels_last: bool
    augment_on: str = "cpu"


#: Fields of `RunState` -> their keys in a state file, where they differ.
_KEYS_OF_RUN_STATE = {"execution": "compute", "validation_fingerprint": "validation"}


@dataclass(frozen=True)
class RunState:
    """All that a resumed run needs.

    Attributes:
        description: of the net.
        training: weights, optimizer, scaler and moving average, see `TrainStep.state_dict`.
        progress: epoch and step.
        data_order: what decides the order of images within an epoch.
        seed: of order and augmentation.
        best: results of the best epoch so far; None before the first validation.
        validations_since_best: how many were no better.
        random: see `random_state`.
        execution: what was chosen at the start and stays.
        validation_fingerprint: of the images that `best` was found on; "" where nobody knows.
        run: see `new_run`; "" of versions before 0.13.0.
    """

    description: Description
    training: dict[str, Any]
    progress: TrainState
    data_order: DataOrder
    seed: int
    best: Results | None
    validations_since_best: int
    random: dict[str, Any]
    execution: ExecutionChoice
    validation_fingerprint: str = ""
    run: str = ""

    @property
    def eval_weights(self) -> dict[str, torch.Tensor]:
        """The weights that are validated and saved: the moving average where there is one."""
        average = self.training["average"]
        return self.training["weights"] if average is None else average["weights"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a state file."""
        return {
            **{_KEYS_OF_RUN_STATE.get(name, name): value for name, value in vars(self).items()},
            "description": self.description.to_dict(),
            "progress": self.progress.as_values(),
            "data_order": self.data_order.to_dict(),
            "best": {} if self.best is None else self.best.to_dict(),
            "compute": asdict(self.execution),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RunState:
        """Read what `to_dict` gave, now or in a version from 0.2.0 on.

        Raises:
            KeyError, TypeError, ValueError: the values are no such state.
        """
        fields = {key: name for name, key in _KEYS_OF_RUN_STATE.items()}
        values = {
            **{fields.get(key, key): value for key, value in plain.items()},
            "description": Description.from_dict(plain["description"]),
            "progress": TrainState.from_values(plain["progress"]),
            "data_order": DataOrder.from_dict(plain["data_order"]),
            "best": Results.from_dict(plain["best"]),
            "execution": ExecutionChoice(**plain["compute"]),
        }
        return cls(**values)


def random_state(device: torch.device) -> dict[str, Any]:
    """Take down the random generators of Python, NumPy and torch; what is ours draws from others, by seed and place.

    Args:
        device: of the run; of several GPUs only its generator counts.
    """
    version, numbers, gauss = random.getstate()
    of_numpy = np.random.get_state(legacy=False)
    kind, place = of_numpy["bit_generator"], of_numpy["state"]
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, place["key"].tolist(), place["pos"], of_numpy["has_gauss"], of_numpy["gauss"]],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set the generators as `random_state` found them; that of a GPU where the run was and is on one."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if isinstance(state["cuda"], torch.Tensor) and device.type == "cuda":  # older states hold a list, of all GPUs
        torch.cuda.set_rng_state(state["cuda"], device)


def save_state(path: Path, state: RunState) -> None:
    """Write the state of a run, under a temporary name until it is complete."""
    with replacing(path) as temporary:
        torch.save(state.to_dict(), temporary)


def load_state(path: Path) -> RunState:
    """Read the state of a run.

    Raises:
        DataError: the file is none.
    """
    try:
        return RunState.from_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as err:  # the unpickler of a file that is none may stumble over anything
        raise DataError(
            f"{path}: cannot be read as the state of a run, it is cut off or of another version; resume from "
            f"{path.with_name(LAST)} instead (weights only)"
        ) from err


def state_beside(path: Path) -> Path | None:
    """Find the state that belongs to a checkpoint: the folder's, if it holds the very same weights and can be read."""
    state = path.parent / STATE
    if not state.is_file():
        return None
    weights = read_weights(path)
    try:
        of_state = load_state(state).eval_weights
    except DataError as err:  # whose way out leads here
        logger.warning("%s", err)
        return None
    same = weights.keys() == of_state.keys() and all(torch.equal(weights[key], of_state[key]) for key in weights)
    return state if same else None


#: Checkpoints that a message names.
_LISTED = 8


def resume_source(resume: str, model_dir: Path) -> Path:
    """Turn what --resume says into a file: itself, one of that name in the model folder, or for "" the newest there.

    Raises:
        DataError: there is nothing to resume; the message lists what there is.
    """
    if not resume:
        return _newest(model_dir)
    path = Path(resume)
    if path.is_dir():
        return _newest(path)
    if path.is_file():
        return path
    if path.parent == Path(".") and (model_dir / path).is_file():
        return model_dir / path
    folder = model_dir if path.parent == Path(".") else path.parent
    there = sorted(other.name for other in folder.glob("*") if parse_name(other.name) or other.name == STATE)
    known = f"{folder} has {', '.join(there[:_LISTED])}" if there else f"{folder} has no checkpoint"
    more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
    raise DataError(f"--resume={resume}: no such file; {known}{more}; name one of them, or leave it out for a new run")


def _newest(folder: Path) -> Path:
    if (folder / STATE).is_file():
        return folder / STATE
    checkpoints = [path for path in folder.glob("*.pth") if parse_name(path.name)]
    if not checkpoints:
        raise DataError(f"{folder}: nothing to resume, neither {STATE} nor a checkpoint; leave --resume out to start")
    return max(checkpoints, key=lambda path: (path.stat().st_mtime_ns, path.name))


def set_state_aside(folder: Path) -> None:
    """Give the state of a folder's run another name before another run begins there, unless it had not begun to learn.

    So that a command that is started again and again by mistake does not replace what was worth keeping.
    """
    path = folder / STATE
    if not path.is_file():
        return
    try:
        progress = load_state(path).progress
        has_learnt = (progress.epoch, progress.step) != (0, 0)
    except DataError:  # of another version, or damaged: somebody may make something of it
        has_learnt = True
    if has_learnt:
        path.replace(folder / PREVIOUS_STATE)
        logger.info("%s: the state of the run before is %s from now on", folder, PREVIOUS_STATE)


def can_resume(folder: Path) -> bool:
    """Whether a model folder holds a run to go on with."""
    return folder.is_dir() and ((folder / STATE).is_file() or any(parse_name(p.name) for p in folder.glob("*.pth")))


def is_better(results: Results, best: Results | None) -> bool:
    """Compare by AP over COCO's overlaps where both have it, else by mean AP, else by loss.

    At an overlap of 0.5 alone AP stops rising long before boxes stop getting better, and chance decides.
    """
    if best is None:
        return results.loss <= math.inf
    for ap, best_ap in ((results.ap_50_95, best.ap_50_95), (results.mean_ap, best.mean_ap)):
        if ap is not None and best_ap is not None:
            return ap >= best_ap
    return results.loss <= best.loss


def drop_old(folder: Path, net: str, keep: int) -> None:
    """Remove all but the last written of a net's files of epochs; `best.pth`, `last.pth` and the state stay."""
    named = [(parse_name(path.name), path) for path in folder.glob("*.pth")]
    mine = [(path.stat().st_mtime_ns, name.epoch, path) for name, path in named if name is not None and name.net == net]
    for *_, path in sorted(mine, reverse=True)[keep:]:
        path.unlink()


def _is_best_of(path: Path, state: RunState) -> bool:
    """Whether a file holds a run's best epoch, or the one after it that a kill left without a state."""
    try:
        found = describe_weights(read_weights(path), str(path)).results
    except DataError:
        return False
    if found is None:
        return False
    if str(found) == str(state.best):  # as texts, since nan is not equal to itself
        return True
    return found.epoch == state.progress.epoch and is_better(found, state.best)


class Checkpointer:
    """Writes a run's checkpoints, and knows its best epoch so far.

    Args:
        folder: the model folder.
        keep: how many of the newest files of epochs stay, None for all.
        validation_fingerprint: of the images to validate on.
        state: of the run that goes on. Its best epoch counts where its file is, and was found on the same images.

    Attributes:
        best: results of the best epoch so far; None before the first validation.
        validations_since_best: how many were no better.
        run: that it belongs to, see `new_run`.
    """

    def __init__(
        self, folder: Path, keep: int | None = None, validation_fingerprint: str = "", state: RunState | None = None
    ) -> None:
        self.folder, self.keep, self.validation_fingerprint = folder, keep, validation_fingerprint
        self.best: Results | None = None
        self.validations_since_best = 0
        self.run = new_run() if state is None else state.run
        self._best_is_own = False
        if state is None or state.best is None:
            return
        if state.validation_fingerprint not in ("", validation_fingerprint):
            logger.warning("other images to validate on than before: the best epoch so far is forgotten")
        elif (folder / BEST).is_file():
            if _is_best_of(folder / BEST, state):
                self.best, self.validations_since_best = state.best, state.validations_since_best
                self._best_is_own = True
            else:
                logger.warning(
                    "%s: is not this run's, whose best epoch was %d: the next that is validated will take its place, "
                    "and it will be %s",
                    folder / BEST,
                    state.best.epoch,
                    PREVIOUS_BEST,
                )

    def update_best(self, results: Results) -> bool:
        """Take in the results of a validated epoch; True if it is the best so far."""
        better = is_better(results, self.best)
        if better and not (self.best is not None and is_better(self.best, results)):
            self.validations_since_best = 0
        else:  # a later epoch that is as good becomes the best, but is no progress
            self.validations_since_best += 1
        if better:
            self.best = results
        return better

    def save(self, net: SSD, results: Results, is_best: bool) -> Path:
        """Write the epoch's checkpoint, `last.pth`, and `best.pth` if it is the best so far.

        The `best.pth` of another run becomes `previous_best.pth`.

        Args:
            net: to write.
            results: of the epoch.
            is_best: see `update_best`.

        Returns:
            the epoch's checkpoint.
        """
        name = net.architecture.net
        path = self.folder / file_name(name, results.epoch, results.loss)
        save(net, [path, self.folder / LAST], results, self.run)
        if is_best:
            self._set_best_of_others_aside()
            save(net, [self.folder / BEST], results, self.run)
        if self.keep:
            drop_old(self.folder, name, self.keep)
        return path

    def _set_best_of_others_aside(self) -> None:
        if self._best_is_own:
            return
        self._best_is_own = True
        path = self.folder / BEST
        if not path.is_file():
            return
        with contextlib.suppress(DataError):  # one that is damaged may still be worth something to somebody
            run = describe_weights(read_weights(path), BEST).run
            if run and run == self.run:  # of an epoch after which the run was killed before it saved its state
                return
        path.replace(self.folder / PREVIOUS_BEST)
        logger.info("%s: the best checkpoint of the run before is %s from now on", self.folder, PREVIOUS_BEST)
