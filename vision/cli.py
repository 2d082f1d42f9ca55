"""What scripts with nets share: choosing a threshold, opening models, detecting; all of `vision.console`.

PyTorch is loaded by opening a `.pth` file or a model folder, and by nothing else in here.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vision.console import (  # noqa: F401 - scripts find all of them here
    FAILURE,
    USER_ERROR,
    Parser,
    check_writable,
    checked,
    count,
    count_or,
    fraction,
    number,
    one_of,
    open_fraction,
    progress,
    run,
    setup_logging,
    sigterm_interrupts,
    str2bool,
    user_path,
    user_place,
    writable_folder,
)
from vision.datasets import DetectionDataset, ReadingOptions, labels
from vision.deploy.choices import DEFAULT_CLUSTERING, DEFAULT_THRESHOLD, DETECTNET, NMS  # noqa: F401 - scripts find both here
from vision.deploy.session import OnnxSession, Session, is_onnx, load_torch_session, open_session
from vision.options.common import check_cuda_wanted
from vision.options.kinds import net_name, resolution  # noqa: F401 - scripts find them here
from vision.options.training import Options
from vision.ssd.choices import canonical_name
from vision.ssd.trained_images import TrainedCounts, TrainedImages
from vision.structures import DataError, Detections
from vision.utils.memory import keep_freed_memory

logger = logging.getLogger(__name__)


def reading_options(args: argparse.Namespace | Options) -> ReadingOptions:
    """Collect the options of `vision.options.common.add_reading_options`, and those that only training has."""
    return ReadingOptions(
        val_split=args.val_split,
        labels_from_data=getattr(args, "labels_from_data", False),
        include_depictions=args.include_depiction,
        cache=args.cache,
        decode=getattr(args, "dry_run", False),
    )


def leave_out_trained_images(
    datasets: Sequence[DetectionDataset], trained_on: TrainedImages | None, measures_all: bool = False
) -> TrainedCounts | None:
    """Leave out, in place, the images that a model was trained on, and those of which that is not known.

    None is left out where the model was trained on none, or where nothing would be left.

    Args:
        datasets: to measure on.
        trained_on: what the model knows; None if nothing.
        measures_all: whether to count only.

    Returns:
        how many images there are; None where the model does not know.
    """
    if trained_on is None:
        return None
    answers = [trained_on.has(dataset.records.texts("digest")) for dataset in datasets]
    found = Counter(itertools.chain.from_iterable(answers))
    if measures_all or not found[True] or not found[False]:
        counts = TrainedCounts(found.total(), found[True], found[None])
        logger.log(logging.WARNING if found[True] else logging.INFO, "%s", counts)
        return counts
    for dataset, of_dataset in zip(datasets, answers, strict=True):
        dataset.records = dataset.records.take(index for index, was_seen in enumerate(of_dataset) if was_seen is False)
    counts = TrainedCounts(found[False], 0, 0, found[True], found[None])
    logger.warning("%s (--include-trained measures on them, too)", counts)
    return counts


def hint_at_left_out(counts: TrainedCounts | None) -> str:
    """Say, for the end of an error about the images measured, that others were left out; "" if none were."""
    if counts is None or not counts.left_out:
        return ""
    return f", in the {counts.measured} images that it was not trained on; --include-trained measures on all"


class ChosenThreshold(NamedTuple):
    """A threshold of scores, and where it is from, in words."""

    value: float
    why: str

    def __str__(self) -> str:
        return f"threshold {self.value:g}: {self.why}"


def choose_threshold(typed: float | None, measured: float | None) -> ChosenThreshold:
    """Choose from which score detections count.

    Args:
        typed: with --threshold; None if it was not.
        measured: by the model's run, see `SSD.threshold`.
    """
    if typed is not None:
        return ChosenThreshold(typed, "as --threshold says")
    if measured is not None:
        return ChosenThreshold(measured, "the mean F1 was highest there when the model's run was validated")
    return ChosenThreshold(DEFAULT_THRESHOLD, "the default, as the model does not know which suits it")


def detect(session: Session, rgb_image: np.ndarray, args: argparse.Namespace, **nms_options: Any) -> Detections:
    """Find objects in an image as the options of `add_postprocess_options` say.

    Args:
        session: to run.
        rgb_image: (H, W, 3) uint8.
        args: with these options and `threshold`, None for detectNet's.
        nms_options: others for `vision.boxes.suppression.suppress_classes`.
    """
    if args.postprocess == NMS:
        return session.detect(
            rgb_image,
            nms_method=args.nms_method,
            iou_threshold=args.nms_iou_threshold,
            class_agnostic=args.class_agnostic,
            **nms_options,
        )
    threshold = DEFAULT_THRESHOLD if args.threshold is None else args.threshold
    clustering = DEFAULT_CLUSTERING if args.clustering is None else args.clustering
    return session.detect_as_detectnet(rgb_image, threshold=threshold, clustering=clustering)


def class_names_of(
    known: Sequence[str] | None, num_classes: int, typed: Path | None, folders: Sequence[Path]
) -> tuple[str, ...]:
    """Decide on the class names of a model: its own, else those of a file.

    Args:
        known: the model's own, None where it does not know them.
        num_classes: of the model, with the background.
        typed: the file that the user named, if any.
        folders: where `labels.txt` is looked for, and a typed file that is not found as it is.

    Raises:
        DataError: no file is there, or it does not have the model's number of classes.
    """
    candidates = [folder / (typed or "labels.txt") for folder in folders]
    source = next((path for path in ([typed] if typed else []) + candidates if path.is_file()), None)
    if source is None:
        if known is not None and typed is None:
            return tuple(known)
        raise DataError(
            f"no file of labels: looked for {', '.join(map(str, candidates))}; name one with class names, one a line"
        )
    names = labels.read_labels(source)
    if known is not None:
        if typed is not None and names != tuple(known):
            logger.warning(
                "%s has %s, the model was trained with %s; using the model's",
                source,
                list(names),
                list(known),
            )
        return tuple(known)
    if len(names) != num_classes:
        raise DataError(f"{source}: names {len(names)} classes (with BACKGROUND), the model has {num_classes}")
    return names


def count_labels(typed: Path | None, folders: Sequence[Path] = ()) -> int | None:
    """Count the classes of a file of labels that the user named, with the background; None without a file."""
    for path in [] if typed is None else [typed, *(folder / typed for folder in folders)]:
        if path.is_file():
            return len(labels.read_labels(path))
    return None


def open_model(path: Path, label_file: Path | None, args: argparse.Namespace) -> tuple[Path, Session, tuple[str, ...]]:
    """Open a model for running, held to what the common options say; logs what it is and what it runs on.

    Args:
        path: of a .pth or .onnx file, or of a model folder for its best checkpoint.
        label_file: that the user named.
        args: with the options of `add_net_options`, `add_resolution_option` and `add_device_options`.

    Returns:
        the file, the session, and the class names, BACKGROUND first.
    """
    if path.is_dir() and not any(path.glob("*.pth")) and (exports := sorted(path.glob("*.onnx"))):
        raise DataError(f"{path}: holds no checkpoint; to run an exported model, name it itself: {exports[0]}")
    if is_onnx(path) and not path.is_dir():
        model, session = path, _open_export(path, args)
    else:
        model, session = _open_checkpoint(path, label_file, args)
    class_names = class_names_of(session.class_names, session.num_classes, label_file, [model.parent])
    if isinstance(session, OnnxSession):
        logger.info("device: onnxruntime's %s", session.provider)
    width, height = session.size
    net = session.net_name or "unknown net"
    logger.info("model: %s (%s, %dx%d, classes %s)", model, net, width, height, list(class_names[1:]))
    return model, session, class_names


def _open_export(path: Path, args: argparse.Namespace) -> Session:
    """Open an `.onnx` file; what PyTorch finds here says nothing of what onnxruntime can use."""
    check_cuda_wanted(args.device, args.use_cuda)
    device = args.device if args.use_cuda else "cpu"
    return open_session(path, net=args.net, width_mult=args.mb2_width_mult, resolution=args.resolution, device=device)


def _open_checkpoint(path: Path, label_file: Path | None, args: argparse.Namespace) -> tuple[Path, Session]:
    """Open a `.pth` file, or the best of a model folder; arguments as of `open_model`."""
    torch_session = load_torch_session(path)
    from vision.engine import checkpoint, devices  # PyTorch is there now

    model = checkpoint.find(path, canonical_name(args.net) if args.net else None, count_labels(label_file))
    device, why = devices.choose_device(args.device, args.use_cuda)
    logger.info(why)
    if device.type == "cpu":
        keep_freed_memory()
    net = torch_session.load_net(model, net=args.net, width_mult=args.mb2_width_mult, resolution=args.resolution)
    return model, torch_session.TorchSession(net, device)
