#!/usr/bin/env python3
"""Retrain an SSD detector on pictures of your own.

python3 train_ssd.py --dataset-type=voc --data=data/fruit --model-dir=models/fruit
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import secrets
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from vision import cli
from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import DetectionDataset, labels, open_splits
from vision.datasets.audit import LINES_PER_KIND, Audit, box_sides, make_audit
from vision.datasets.loading import make_loader
from vision.engine import checkpoint, optim, pretrained
from vision.engine.loop import EpochResult, Objective, RunOptions, StepResult, fit
from vision.engine.rehearsal import Rehearsal, rehearse
from vision.nn.multibox_loss import MultiboxLoss
from vision.report.audit_page import SHEET_COLUMNS, SHEET_ROWS, draw_audit
from vision.ssd.config import SSDConfig
from vision.ssd.data_preprocessing import AUGMENTATIONS, Normaliser, TestTransform, TrainAugmentation
from vision.ssd.models import DEFAULT_NET, MODELS, describe_weights
from vision.ssd.ssd import place
from vision.ssd.weights import read_weights
from vision.structures import DataError
from vision.utils.files import write_text

logger = logging.getLogger(__name__)

#: Boxes that are compared with all priors at every start; a dry run compares all.
BOXES_AT_START = 5000

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Retrain an SSD detector.")
    data = parser.add_argument_group("data")
    cli.add_dataset_type_option(data, "open_images")
    data.add_argument(
        "--data", "--datasets", nargs="+", default=["data"], help="folders of datasets, merged by class name"
    )
    cli.add_reading_options(data)
    data.add_argument(
        "--labels-from-data",
        action="store_true",
        help="the classes are the names found in the annotations, whatever list of classes there is",
    )
    data.add_argument("--no-negatives", action="store_true", help="leave out training pictures without objects")
    data.add_argument(
        "--strict", action="store_true", help="end the run if anything in the data is left out, mended or suspect"
    )
    data.add_argument(
        "--balance-data", action="store_true", help="draw as many pictures of each class as the rarest has"
    )
    data.add_argument(
        "--augmentation",
        type=cli.one_of("augmentation", AUGMENTATIONS),
        default="ssd",
        help="ssd as in the paper; light: crop and mirror only, for small nets and short runs; none",
    )
    net = parser.add_argument_group("net")
    cli.add_net_options(net, DEFAULT_NET)
    cli.add_resolution_option(net, 300)
    net.add_argument("--freeze-base-net", action="store_true", help="the backbone and its batch norm stand still")
    net.add_argument("--freeze-net", action="store_true", help="all but the prediction heads stands still")
    start = parser.add_argument_group("starting weights (--resume over --base-net over --pretrained-ssd)")
    start.add_argument("--base-net", help="file of backbone weights")
    start.add_argument(
        "--pretrained-ssd",
        help="file of a whole SSD, whose heads are dropped; none for scratch (default: the published one)",
    )
    start.add_argument(
        "--resume",
        nargs="?",
        const="",
        help="go on with a run: a file, a model folder, or without value --model-dir's newest",
    )
    rates = parser.add_argument_group("optimisation")
    rate = cli.number(float, 0)
    rates.add_argument("--lr", "--learning-rate", type=rate, default=0.01, help="rate of the prediction heads")
    rates.add_argument("--momentum", type=cli.share, default=0.9, help="of SGD")
    rates.add_argument("--weight-decay", type=rate, default=5e-4, help="of SGD")
    rates.add_argument("--base-net-lr", type=rate, default=0.001, help="rate of the backbone")
    rates.add_argument("--extra-layers-lr", type=rate, help="rate of add-ons and extra layers (default: --lr)")
    rates.add_argument(
        "--scheduler",
        type=cli.one_of("scheduler", optim.SCHEDULERS),
        default="cosine",
        help="cosine or multi-step",
    )
    rates.add_argument("--milestones", type=cli.epochs_list, default=(80, 100), help="epochs, for multi-step")
    rates.add_argument("--gamma", type=rate, default=0.1, help="factor at each milestone, for multi-step")
    rates.add_argument(
        "--t-max",
        type=cli.number(float, 0, above=True),
        help="epochs in which cosine falls to zero (default: --epochs)",
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="everything but the training: decode every picture, audit the data, try a few steps; downloads nothing",
    )
    run.add_argument("--batch-size", type=cli.count, default=4, help="pictures per step")
    run.add_argument("--epochs", "--num-epochs", type=cli.count, default=30, help="times through the pictures")
    run.add_argument(
        "--workers", "--num-workers", type=cli.number(int, 0), default=2, help="loader processes, 0 for none"
    )
    run.add_argument("--validation-epochs", type=cli.count, default=1, help="epochs between validations")
    run.add_argument(
        "--validation-mean-ap",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compute mAP when validating",
    )
    run.add_argument("--debug-steps", type=cli.count, default=10, help="steps between log lines")
    run.add_argument(
        "--seed",
        type=cli.number(int, 0),
        help="of weights, order and augmentation (default: a new one, logged)",
    )
    cli.add_device_options(run)
    run.add_argument(
        "--model-dir",
        "--checkpoint-folder",
        type=Path,
        default=Path("models"),
        help="where files are written",
    )
    run.add_argument(
        "--log-level", type=cli.one_of("log level", LOG_LEVELS), default="info", help=", ".join(LOG_LEVELS)
    )
    args = parser.parse_args(argv)
    if args.base_net and args.pretrained_ssd and args.resume is None:
        parser.error("--base-net and --pretrained-ssd both name starting weights; leave one out")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Train."""
    args = parse_args(argv)
    cli.setup_logging(args.log_level)
    logger.info("%s", args)
    device, why = cli.choose_device(args.device, args.use_cuda)
    logger.info(why)
    spec = MODELS[args.net]
    config = spec.config_at(args.resolution)
    cli.check_writable(args.model_dir, "--model-dir")

    state = None
    if args.resume is not None:
        source = checkpoint.resume_source(args.resume, args.model_dir)
        state_path = source if source.suffix == ".state" else checkpoint.state_beside(source)
        state = checkpoint.load_state(state_path) if state_path else None
    seed = next(s for s in (args.seed, state and state.seed, secrets.randbelow(2**31)) if s is not None)
    torch.manual_seed(seed)
    logger.info("seed: %d", seed)

    train_set, val_set = open_splits(args.dataset_type, args.data, cli.reading_options(args), cli.progress)
    class_names = train_set.class_names
    audit = make_audit(
        train_set,
        val_set,
        config.width_height,
        center_form_to_corner_form(config.priors),
        None if args.dry_run else BOXES_AT_START,
    )
    audit.log(None if args.dry_run else LINES_PER_KIND)
    write_text(args.model_dir / "audit.json", json.dumps(audit.as_json(), indent=1) + "\n")
    require_sense(train_set, args.data)
    if args.strict:
        audit.require_flawless()
    if args.no_negatives:
        train_set.drop_negatives()
    if args.balance_data:
        train_set.balance(np.random.default_rng(seed))

    net = spec.build(len(class_names), config=config, width_mult=args.mb2_width_mult or 1.0)
    net.class_names = class_names
    if args.resume is not None:
        resume_weights(net, source, state)
    else:
        pretrained.initialise(net, base_net=args.base_net, pretrained_ssd=pretrained_file(args))
    place(net, device)

    options = optim.OptimOptions(
        lr=args.lr,
        base_net_lr=args.base_net_lr,
        extra_layers_lr=args.extra_layers_lr,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        freeze_base_net=args.freeze_base_net,
        freeze_net=args.freeze_net,
    )
    schedule = optim.ScheduleOptions(args.scheduler, args.epochs, args.milestones, args.gamma, args.t_max)
    frozen = optim.freeze(net, options)
    optimizer = optim.sgd(net, options)
    loaders = make_loaders(args, config, train_set, val_set, seed, device)
    check_batch_size(net, min(len(batch) for batch in loaders[0].batch_sampler), frozen)
    objective = Objective(net, Normaliser(config.image_mean, config.image_std), MultiboxLoss()).to(device)
    first_epoch = 0
    if state is not None:
        optim.restore(optimizer, state.optimizer)
        torch.set_rng_state(state.random_state)
        first_epoch = state.epoch + 1
        if first_epoch >= args.epochs:
            logger.warning(
                "%s: its %d epochs are done; --epochs=%d would add more", source, first_epoch, 2 * first_epoch
            )
    annotations = [val_set.annotation(index) for index in range(len(val_set))]
    if args.dry_run:
        log_rehearsal(rehearse(objective, *loaders, annotations, optimizer, frozen), args)
        draw_audit_page(args.model_dir / "audit.png", train_set, audit, config)
        logger.info("Dry run done: nothing was trained; %s has all of the audit", args.model_dir / "audit.json")
        return
    best = best_so_far(args.model_dir) if args.resume is not None else {}
    labels.store_labels(args.model_dir / "labels.txt", class_names)

    results = fit(
        objective,
        *loaders,
        annotations,
        class_names,
        optimizer,
        schedule,
        RunOptions(args.validation_epochs, args.debug_steps, args.validation_mean_ap),
        frozen=frozen,
        first_epoch=first_epoch,
        progress=cli.progress,
    )
    with Scalars(args.model_dir / "tensorboard") as scalars:
        for result in results:
            log(result)
            if isinstance(result, StepResult):
                continue
            scalars.write(result)
            if result.validation is not None:
                best = save(net, result, args.model_dir, best)
            checkpoint.save_state(
                args.model_dir / checkpoint.STATE,
                checkpoint.RunState(
                    description=net.description(),
                    weights=net.state_dict(),
                    optimizer=optimizer.state_dict(),
                    epoch=result.epoch,
                    seed=seed,
                    random_state=torch.get_rng_state(),
                ),
            )
    logger.info("Task done, exiting program.")


def require_sense(train_set: DetectionDataset, folders: Sequence[str]) -> None:
    """Raise DataError if there is nothing to learn: no object of a known class that is not difficult."""
    if not any(len(train_set.targets(index)[1]) for index in range(len(train_set))):
        found = [
            defect.message.partition(" is not in the list")[0]
            for defect in train_set.defects
            if defect.kind == "class-unknown"
        ]
        raise DataError(
            f"no object in {', '.join(folders)} can be trained on, classes are {list(train_set.class_names[1:])}; "
            f"{'; '.join(found) or 'all are difficult'}; mend the list of classes, or take the names found with "
            "--labels-from-data"
        )


def log_rehearsal(rehearsal: Rehearsal, args: argparse.Namespace) -> None:
    """Say what a run will cost."""
    logger.info("first losses: training %.4f, validation %.4f", rehearsal.losses.total, rehearsal.validation.total)
    memory = [
        f"{size / 2**20:.0f} MiB {where}"
        for size, where in ((rehearsal.peak_memory, "of memory"), (rehearsal.peak_device_memory, "on the GPU"))
        if size is not None
    ]
    logger.info("peak so far: %s, loader workers apart", ", ".join(memory) or "not known here")
    validations = -(-args.epochs // args.validation_epochs)
    whole = rehearsal.training_seconds * args.epochs + rehearsal.validation_seconds * validations
    logger.info(
        "%.3f s a step: about %s an epoch and %s a validation, %s for %d epochs",
        *(rehearsal.seconds_per_step, in_words(rehearsal.training_seconds), in_words(rehearsal.validation_seconds)),
        *(in_words(whole), args.epochs),
    )


def in_words(seconds: float) -> str:
    """Write a time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def draw_audit_page(path: Path, train_set: DetectionDataset, audit: Audit, config: SSDConfig) -> None:
    """Draw the audit; without matplotlib a warning."""
    chosen = np.unique(np.linspace(0, len(train_set) - 1, SHEET_COLUMNS * SHEET_ROWS).astype(int)).tolist()
    shapes = torch.unique(config.priors[:, 2:], dim=0).numpy() * np.float32(config.width_height)
    try:
        draw_audit(
            path,
            {"train": audit.train.objects_per_class, "validation": audit.validation.objects_per_class},
            *box_sides(train_set, config.width_height),
            shapes,
            config.width_height,
            [(train_set.get_image(index), train_set.annotation(index)) for index in chosen],
            train_set.class_names,
        )
    except ImportError as err:
        logger.warning("%s: not drawn, %s (pip install matplotlib)", path, err)
    else:
        logger.info("Saved %s", path)


def pretrained_file(args: argparse.Namespace) -> str | None:
    """Decide on the file for --pretrained-ssd, and fetch the published one when it is needed and missing."""
    spec = MODELS[args.net]
    path = args.pretrained_ssd
    if path is None:
        path = "none" if args.base_net is not None else spec.published_weights
    if path is None:
        logger.warning(
            "no published checkpoint of %s is known: starting from scratch, which needs far more pictures",
            spec.name,
        )
        return None
    if path.lower() == "none":
        return None
    if not Path(path).exists() and args.dry_run and args.pretrained_ssd is None:
        logger.warning("%s is missing: training would download it, the dry run goes on without", path)
        return None
    if not Path(path).exists():
        pretrained.fetch(Path(path), cli.progress)
    return path


def resume_weights(net, source: Path, state: checkpoint.RunState | None) -> None:
    """Load the weights to go on with, after checking that they are of this net and these classes."""
    description = state.description if state else describe_weights(read_weights(source), str(source))
    pretrained.expect_net(description, net, source)
    names = description["class_names"]
    if description["num_classes"] != net.num_classes or (names is not None and tuple(names) != net.class_names):
        raise DataError(
            f"{source}: was trained on {names or description['num_classes']} classes, the data have "
            f"{list(net.class_names)}; resume with the same classes, or start anew from it with --pretrained-ssd"
        )
    if description["config"] is not None and SSDConfig.from_dict(description["config"]).specs != net.config.specs:
        width, height = SSDConfig.from_dict(description["config"]).width_height
        raise DataError(f"{source}: was trained at {width}x{height}; add --resolution={width}x{height}")
    if state is None:
        net.load(str(source))
        logger.warning(
            "Resume from %s: weights only, no optimizer state of that epoch was found; starting at epoch 0",
            source,
        )
    else:
        net.load_state_dict(state.weights)
        logger.info("Resume from %s: epoch %d goes on with optimizer and schedule", source, state.epoch + 1)


def check_batch_size(net, smallest: int, frozen: Sequence) -> None:
    """Refuse batches so small that batch norm sees a single value; tried without numbers, on the meta device."""
    if smallest > 1:
        return
    width, height = net.config.width_height
    trial = copy.deepcopy(net).to("meta").train()
    for name, module in net.named_modules():
        if any(module is part for part in frozen):
            trial.get_submodule(name).eval()
    try:
        trial(torch.empty(smallest, 3, height, width, device="meta"))
    except ValueError as err:
        raise DataError(
            f"--batch-size: batches of one picture are too small for the batch norm of {net.architecture['net']} at "
            f"{width}x{height}; use --batch-size=2 or more, and at least two pictures"
        ) from err


def make_loaders(args, config, train_set, val_set, seed: int, device: torch.device) -> tuple:
    """Make the loaders of training and validation pictures."""
    rest = {"batch_size": args.batch_size, "workers": args.workers, "pin_memory": device.type == "cuda"}
    augmentation = TrainAugmentation(config.image_size, config.image_mean, config.image_std, args.augmentation)
    plain = TestTransform(config.image_size, config.image_mean, config.image_std)
    return (
        make_loader(train_set, augmentation, seed=seed, **rest),
        make_loader(val_set, plain, shuffle=False, **rest),
    )


def log(result: StepResult | EpochResult) -> None:
    """Write the documented lines."""
    if isinstance(result, StepResult):
        logger.info(
            "Epoch: %d, Step: %d/%d, Avg Loss: %.4f, Avg Regression Loss %.4f, Avg Classification Loss: %.4f",
            *(result.epoch, result.step, result.steps, result.losses.total, *result.losses),
        )
        return
    for kind, losses in (("Training", result.losses), ("Validation", result.validation)):
        if losses is not None:
            logger.info(
                f"Epoch: %d, {kind} Loss: %.4f, {kind} Regression Loss %.4f, {kind} Classification Loss: %.4f",
                *(result.epoch, losses.total, *losses),
            )
    if result.unreadable:
        logger.warning(
            "Epoch: %d, %d pictures could not be read, others stood for them", result.epoch, result.unreadable
        )
    if result.report is not None:
        for of_class in result.report.classes:
            logger.info("Epoch: %d, Average Precision %s: %.4f", result.epoch, of_class.name, of_class.ap_2007)
        logger.info("Epoch: %d, Mean Average Precision: %.4f", result.epoch, result.report.mean_ap_2007)


def best_so_far(folder: Path) -> dict[str, float]:
    """Give the results recorded in a folder's `best.pth`, {} without one."""
    path = folder / checkpoint.BEST
    return checkpoint.results_of(path) if path.is_file() else {}


def is_better(results: dict[str, float], best: dict[str, float]) -> bool:
    """Compare by mean AP where both have it, else by loss."""
    if "mean_ap" in results and "mean_ap" in best:
        return results["mean_ap"] >= best["mean_ap"]
    return results["loss"] <= best.get("loss", np.inf)


def save(net, result: EpochResult, folder: Path, best: dict[str, float]) -> dict[str, float]:
    """Write the epoch's checkpoint, `last.pth`, and `best.pth` where it is the best so far; give the best's results."""
    results = {"epoch": result.epoch, "loss": result.validation.total}
    if result.report is not None and np.isfinite(result.report.mean_ap_2007):
        results["mean_ap"] = result.report.mean_ap_2007
    path = folder / checkpoint.file_name(net.architecture["net"], result.epoch, result.validation.total)
    paths = [path, folder / checkpoint.LAST]
    if is_better(results, best):
        best = results
        paths.append(folder / checkpoint.BEST)
    checkpoint.save(net, paths, results)
    logger.info("Saved model %s", path)
    return best


class Scalars:
    """Curves for TensorBoard, in a folder of the run's own; without the package a warning, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / datetime.now().strftime("%Y%m%d_%H%M%S")

    def __enter__(self) -> Scalars:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as err:
            logger.warning("no curves for TensorBoard: %s (pip install tensorboard)", err)
            self.writer = None
        else:
            self.writer = SummaryWriter(str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, result: EpochResult) -> None:
        """Write an epoch's numbers."""
        if self.writer is None:
            return
        for kind, losses in (("train", result.losses), ("val", result.validation)):
            if losses is not None:
                self.writer.add_scalar(f"Loss/{kind}", losses.total, result.epoch)
                self.writer.add_scalar(f"Regression Loss/{kind}", losses.regression, result.epoch)
                self.writer.add_scalar(f"Classification Loss/{kind}", losses.classification, result.epoch)
        if result.report is not None:
            self.writer.add_scalar("Mean Average Precision/val", result.report.mean_ap_2007, result.epoch)
            for of_class in result.report.classes:
                self.writer.add_scalar(f"Class Average Precision/{of_class.name}", of_class.ap_2007, result.epoch)
        self.writer.flush()


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
