#!/usr/bin/env python3
"""Retrain an SSD detector on pictures of your own.

python3 train_ssd.py --dataset-type=voc --data=data/fruit --model-dir=models/fruit
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import secrets
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vision import __version__, cli
from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import DetectionDataset, labels, open_splits
from vision.datasets.audit import LINES_PER_KIND, Audit, box_sides, fingerprint, make_audit
from vision.datasets.loading import make_loader
from vision.engine import checkpoint, optim, pretrained
from vision.engine.faults import Means, Stop, Stopped, with_less
from vision.engine.learner import Learner, Objective
from vision.engine.loop import EpochResult, Position, RunOptions, StepResult, fit
from vision.engine.precision import AMP_CHOICES, Precision, choose_precision
from vision.engine.rehearsal import Rehearsal, channels_last_is_faster, rehearse
from vision.nn.multibox_loss import MultiboxLoss
from vision.report.audit_page import SHEET_COLUMNS, SHEET_ROWS, draw_audit
from vision.report.records import ResultsTable, Scalars, write_arguments
from vision.ssd.config import SSDConfig
from vision.ssd.data_preprocessing import AUGMENTATIONS, Normaliser, TestTransform, TrainAugmentation
from vision.ssd.models import DEFAULT_NET, MODELS, describe_weights
from vision.ssd.ssd import load_strictly, place
from vision.ssd.weights import read_weights
from vision.structures import DataError
from vision.utils.files import remove_parts, write_text

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
    start.add_argument(
        "--base-net", help="file of backbone weights; imagenet: torchvision's, for " + ", ".join(pretrained.TORCHVISION)
    )
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
    start.add_argument(
        "--auto-resume",
        action="store_true",
        help="go on with --model-dir's run if there is one, else start: for service managers",
    )
    rates = parser.add_argument_group("optimisation")
    rate = cli.number(float, 0)
    rates.add_argument(
        "--optimizer", type=cli.one_of("optimizer", optim.OPTIMIZERS), default="sgd", help=", ".join(optim.OPTIMIZERS)
    )
    rates.add_argument("--lr", "--learning-rate", type=rate, default=0.01, help="rate of the prediction heads")
    rates.add_argument("--momentum", type=cli.share, default=0.9, help="of SGD; Adam's first beta")
    rates.add_argument("--weight-decay", type=rate, default=5e-4, help="of all weights")
    rates.add_argument(
        "--no-bias-decay", dest="bias_decay", action="store_false", help="biases and batch norms do not decay"
    )
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
    rates.add_argument(
        "--schedule",
        type=cli.one_of("schedule", tuple(optim.SCHEDULES)),
        help="preset of the Detectron tables: 1x is 12 epochs, rates divided by 10 after 8 and 11, 500 iterations of "
        "warm-up; 2x twice as long; options given besides have their own say",
    )
    rates.add_argument("--warmup-epochs", type=rate, help="epochs in which rates rise at the start")
    rates.add_argument(
        "--warmup-iters",
        type=cli.number(int, 0),
        help=f"the same in iterations (default: {optim.WARMUP_ITERATIONS}, at most {optim.WARMUP_SHARE} of the run)",
    )
    rates.add_argument(
        "--warmup-factor", type=cli.share, help="where the rise begins, 1/3 to 0 are usual (default: one step of it)"
    )
    rates.add_argument(
        "--auto-lr",
        nargs="?",
        type=cli.count,
        const=optim.REFERENCE_BATCH,
        help="rates are meant for batches of this size, and scaled to the run's (default without value: "
        f"{optim.REFERENCE_BATCH})",
    )
    rates.add_argument("--clip-grad", type=cli.number(float, 0, above=True), help="largest norm of all gradients")
    rates.add_argument("--accumulate", type=cli.count, default=1, help="batches that make one step")
    rates.add_argument("--ema", action="store_true", help="validate and save an exponential average of the weights")
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
    run.add_argument(
        "--patience", type=cli.count, help="end after so many validations without a better one; forfeits the annealing"
    )
    run.add_argument("--checkpoint-steps", type=cli.count, help="steps after which the state is saved within an epoch")
    run.add_argument(
        "--keep-checkpoints", type=cli.count, help="keep so many of the newest files of epochs (default: all)"
    )
    run.add_argument(
        "--amp",
        type=cli.one_of("precision", AMP_CHOICES),
        default="auto",
        help="mixed precision: auto where the device is made for it, off, bf16 or fp16",
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
    preset, _ = parser.parse_known_args(argv)
    if preset.schedule:
        parser.set_defaults(**optim.SCHEDULES[preset.schedule])
    args = parser.parse_args(argv)
    if args.warmup_epochs is not None and preset.warmup_iters is not None:
        parser.error("--warmup-epochs and --warmup-iters say the same; leave one out")
    if args.auto_resume and args.resume is not None:
        parser.error("--auto-resume and --resume contradict each other; leave one out")
    if args.base_net and args.pretrained_ssd and args.resume is None:
        parser.error("--base-net and --pretrained-ssd both name starting weights; leave one out")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train; gives the exit code."""
    args = parse_args(argv)
    cli.setup_logging(args.log_level)
    logger.info("%s", args)
    device, why = cli.choose_device(args.device, args.use_cuda)
    logger.info(why)
    spec = MODELS[args.net]
    config = spec.config_at(args.resolution)
    cli.check_writable(args.model_dir, "--model-dir")
    if args.auto_resume and checkpoint.can_resume(args.model_dir):
        args.resume = ""
    source, state = run_to_resume(args)
    seed = next(s for s in (args.seed, state and state.seed, secrets.randbelow(2**31)) if s is not None)
    torch.manual_seed(seed)
    logger.info("seed: %d", seed)

    train_set, val_set, audit = read_data(args, config)
    class_names = train_set.class_names
    if args.no_negatives:
        train_set.drop_negatives()
    if args.balance_data:
        train_set.balance(np.random.default_rng(seed))

    net = spec.build(len(class_names), config=config, width_mult=args.mb2_width_mult or 1.0)
    net.class_names = class_names
    if source is None:
        pretrained.initialise(
            net, base_net=args.base_net, pretrained_ssd=pretrained_file(args), imagenet=imagenet_file(args)
        )
    elif not resume_weights(net, source, state):
        state = None
    config = net.config  # with the normalisation of the starting weights
    precision, choices = choose(args, net, device, state)
    place(net, device, choices["channels_last"])

    options = optim_options(args)
    frozen = optim.freeze(net, options)
    learner = Learner(
        Objective(net, Normaliser(config.image_mean, config.image_std), MultiboxLoss(), precision).to(device),
        optim.make_optimizer(net, options),
        schedule_options(args),
        frozen=frozen,
        clip_grad=args.clip_grad,
        average=optim.WeightAverage(net) if args.ema else None,
    )
    means = Means(args.batch_size, args.accumulate, args.workers)
    loaders = make_loaders(args, means, config, train_set, val_set, seed, device)
    check_batch_size(net, min(len(batch) for batch in loaders[0].batch_sampler), frozen)
    annotations = [val_set.annotation(index) for index in range(len(val_set))]
    if args.dry_run:
        log_rehearsal(rehearse(learner, *loaders, annotations, args.accumulate), args)
        draw_audit_page(args.model_dir / "audit.png", train_set, audit, config)
        logger.info("Dry run done: nothing was trained; %s has all of the audit", args.model_dir / "audit.json")
        return 0

    if stray := remove_parts(args.model_dir):
        logger.info("%s: removed %d temporary files of a run that was killed", args.model_dir, stray)
    course = {"pictures": fingerprint(train_set), "seed": seed, "step": args.batch_size * args.accumulate}
    position = go_on(learner, state, course, args.epochs)
    run = Run(args, learner, position, course, seed, choices, state)
    labels.store_labels(args.model_dir / "labels.txt", class_names)
    write_arguments(args.model_dir / "args.json", arguments(argv, args, seed, course, val_set, device, choices))
    with Stop() as stop, Scalars(args.model_dir / "tensorboard") as scalars:
        while True:
            results = fit(
                learner,
                *loaders,
                annotations,
                class_names,
                RunOptions(args.validation_epochs, args.debug_steps, args.validation_mean_ap, means.accumulate),
                train_ids=train_set.ids,
                position=position,
                progress=lambda items, what, total: stop.between(cli.progress(items, what, total)),
            )
            try:
                run.through(results, stop, scalars)
            except Stopped:
                run.save_state()
                command = resume_command(sys.argv[1:] if argv is None else argv, args)
                logger.info("Saved %s; go on with: %s", args.model_dir / checkpoint.STATE, command)
                return stop.exit_code
            except (RuntimeError, MemoryError, OSError) as err:
                less = with_less(err, means)
                if less is None:
                    raise
                logger.warning("%s", cli.error_line(err))
                logger.warning(
                    "going on at epoch %d, step %d with batches of %d, %d of them a step, and %d loader processes",
                    *(position.epoch, position.step, *less),
                )
                means = less
                del results, loaders
                loaders = make_loaders(args, means, config, train_set, val_set, seed, device)
            else:
                break
    logger.info("Task done, exiting program.")
    return 0


class Run:
    """What is written down as a run goes on: lines, tables, curves, checkpoints and the state to resume from.

    Args:
        args: of the command line.
        learner: that takes the steps.
        position: of the run, which the loop keeps up to date.
        course: see `RunState`.
        seed: likewise.
        choices: likewise.
        state: that the run goes on from, None at its beginning.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        learner: Learner,
        position: Position,
        course: dict,
        seed: int,
        choices: dict,
        state: checkpoint.RunState | None,
    ) -> None:
        self.args, self.learner, self.position = args, learner, position
        self.course, self.seed, self.choices = course, seed, choices
        self.best = state.best if state else {}
        self.waited = state.waited if state else 0
        self.table = ResultsTable(args.model_dir / "results.csv", position.epoch)
        self._epoch_began = time.monotonic()

    def through(self, results, stop: Stop, scalars: Scalars) -> None:
        """Go through the results of a loop, to the end of the run.

        Raises:
            Stopped: a signal asked for it.
        """
        for result in results:
            log(result)
            if isinstance(result, StepResult):
                # The state at the end of an epoch is saved with its results.
                if (
                    self.args.checkpoint_steps
                    and result.step % self.args.checkpoint_steps == 0 < result.steps - result.step
                ):
                    self.save_state()
                stop.check()
                continue
            scalars.write(result.epoch, scalars_of(result))
            if result.validation is not None:
                self.save_checkpoints(result)
            self.add_row(result)
            self.save_state()
            if self.args.patience and self.waited >= self.args.patience:
                logger.info(
                    "Epoch: %d, no better result for %d validations (--patience): ending", result.epoch, self.waited
                )
                return
            stop.check()

    def save_checkpoints(self, result: EpochResult) -> None:
        """Write the epoch's checkpoint, `last.pth`, and `best.pth` where it is the best so far."""
        folder = self.args.model_dir
        results = {"epoch": result.epoch, "loss": result.validation.total}
        if result.report is not None and np.isfinite(result.report.mean_ap_2007):
            results["mean_ap"] = result.report.mean_ap_2007
        net = self.learner.result
        path = folder / checkpoint.file_name(net.architecture["net"], result.epoch, result.validation.total)
        paths = [path, folder / checkpoint.LAST]
        self.waited += 1
        if is_better(results, self.best):
            self.best, self.waited = results, 0
            paths.append(folder / checkpoint.BEST)
        checkpoint.save(net, paths, results)
        logger.info("Saved model %s", path)
        if self.args.keep_checkpoints:
            checkpoint.drop_old(folder, net.architecture["net"], self.args.keep_checkpoints)

    def add_row(self, result: EpochResult) -> None:
        """Write the epoch's row of `results.csv`."""
        now = time.monotonic()
        row = {"epoch": result.epoch, "seconds": round(now - self._epoch_began, 3), **scalars_of(result)}
        row |= {f"rate {name}": rate for name, rate in result.learning_rates.items()}
        row |= {"unreadable pictures": result.unreadable, "skipped steps": result.skipped}
        self._epoch_began = now
        self.table.add(row)

    def save_state(self) -> None:
        """Write all that a resumed run needs."""
        checkpoint.save_state(
            self.args.model_dir / checkpoint.STATE,
            checkpoint.RunState(
                description=self.learner.net.description(),
                learner=self.learner.state_dict(),
                position=self.position.as_values(),
                course=self.course,
                seed=self.seed,
                best=self.best,
                waited=self.waited,
                random=checkpoint.random_state(),
                choices=self.choices,
            ),
        )


def run_to_resume(args: argparse.Namespace) -> tuple[Path | None, checkpoint.RunState | None]:
    """Find what --resume names: the file, and the state of the run it belongs to where there is one."""
    if args.resume is None:
        return None, None
    source = checkpoint.resume_source(args.resume, args.model_dir)
    state_path = source if source.suffix == ".state" else checkpoint.state_beside(source)
    return source, checkpoint.load_state(state_path) if state_path else None


def read_data(args: argparse.Namespace, config: SSDConfig) -> tuple[DetectionDataset, DetectionDataset, Audit]:
    """Read the datasets, and say and write down what is wrong with them."""
    train_set, val_set = open_splits(args.dataset_type, args.data, cli.reading_options(args), cli.progress)
    most = None if args.dry_run else BOXES_AT_START
    priors = center_form_to_corner_form(config.priors)
    audit = make_audit(train_set, val_set, config.width_height, priors, most)
    audit.log(None if args.dry_run else LINES_PER_KIND)
    write_text(args.model_dir / "audit.json", json.dumps(audit.as_json(), indent=1) + "\n")
    require_sense(train_set, args.data)
    if args.strict:
        audit.require_flawless()
    return train_set, val_set, audit


def choose(args, net, device: torch.device, state: checkpoint.RunState | None) -> tuple[Precision, dict]:
    """Choose precision and memory format; a run that goes on keeps them, and with --seed nothing depends on timing."""
    amp = state.choices["amp"] if state and args.amp == "auto" else args.amp
    precision, why = choose_precision(amp, device)
    logger.info(why)
    if state:
        channels_last = state.choices["channels_last"]
    elif args.seed is None and not args.dry_run:
        channels_last = channels_last_is_faster(net, device, precision, args.batch_size)
        logger.info("memory format: %s, measured", "channels last" if channels_last else "contiguous")
    else:
        channels_last = device.type == "cpu"
    return precision, {"amp": precision.name, "channels_last": channels_last}


def optim_options(args: argparse.Namespace) -> optim.OptimOptions:
    """Collect what the optimizer is told; --auto-lr scales the rates."""
    scale = 1.0
    if args.auto_lr:
        scale = args.batch_size * args.accumulate / args.auto_lr
        logger.info(
            "--auto-lr: rates times %g = batch %d x %d accumulated / %d",
            scale,
            args.batch_size,
            args.accumulate,
            args.auto_lr,
        )
    return optim.OptimOptions(
        lr=args.lr * scale,
        base_net_lr=args.base_net_lr * scale,
        extra_layers_lr=None if args.extra_layers_lr is None else args.extra_layers_lr * scale,
        optimizer=args.optimizer,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        bias_decay=args.bias_decay,
        freeze_base_net=args.freeze_base_net,
        freeze_net=args.freeze_net,
    )


def schedule_options(args: argparse.Namespace) -> optim.ScheduleOptions:
    """Collect what decides the rates over time."""
    return optim.ScheduleOptions(
        args.scheduler,
        args.epochs,
        args.milestones,
        args.gamma,
        args.t_max,
        args.warmup_epochs,
        args.warmup_iters,
        args.warmup_factor,
    )


def go_on(learner: Learner, state: checkpoint.RunState | None, course: dict, epochs: int) -> Position:
    """Put a learner where a state left it, and give the position to go on from."""
    if state is None:
        return Position()
    learner.load_state_dict(state.learner)
    checkpoint.restore_random_state(state.random)
    position = Position.from_values(state.position)
    if position.step and course != state.course:
        changed = ", ".join(key for key in course if course[key] != state.course.get(key))
        logger.warning(
            "Resume: stopped in the middle of epoch %d, with other %s: that epoch begins anew", position.epoch, changed
        )
        position.begin_epoch(position.epoch)
    logger.info("Resume: epoch %d goes on after step %d", position.epoch, position.step)
    if position.epoch >= epochs:
        logger.warning("Resume: its %d epochs are done; --epochs=%d would add more", position.epoch, 2 * position.epoch)
    return position


def arguments(argv, args, seed: int, course: dict, val_set: DetectionDataset, device, choices: dict) -> dict:
    """Collect what `args.json` says of a run."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *(sys.argv[1:] if argv is None else argv)]),
        "arguments": vars(args),
        "seed": seed,
        "device": str(device),
        **choices,
        "fingerprints": {"training": course["pictures"], "validation": fingerprint(val_set)},
        "versions": {
            "ssd-retrain": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "system": platform.platform(),
        },
    }


def resume_command(words: Sequence[str], args: argparse.Namespace) -> str:
    """Spell the command that goes on with a run; with --auto-resume that is the same command again."""
    if args.auto_resume:
        return shlex.join(["python3", Path(sys.argv[0]).name, *words])
    kept, has_value = [], False
    for word in words:
        name = word.partition("=")[0]
        if len(name) > 2 and "--resume".startswith(
            name
        ):  # argparse takes beginnings of options, if they are no other's
            has_value = name == word
        elif has_value and not word.startswith("-"):
            has_value = False
        else:
            has_value = False
            kept.append(word)
    return shlex.join(["python3", Path(sys.argv[0]).name, *kept, "--resume"])


def scalars_of(result: EpochResult) -> dict[str, float]:
    """Name an epoch's numbers as TensorBoard shows them."""
    values = {}
    for kind, losses in (("train", result.losses), ("val", result.validation)):
        if losses is not None:
            values[f"Loss/{kind}"] = losses.total
            values[f"Regression Loss/{kind}"] = losses.regression
            values[f"Classification Loss/{kind}"] = losses.classification
    if result.report is not None:
        values["Mean Average Precision/val"] = result.report.mean_ap_2007
        values |= {f"Class Average Precision/{of_class.name}": of_class.ap_2007 for of_class in result.report.classes}
    return values


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


def imagenet_file(args: argparse.Namespace) -> Path | None:
    """Give the file that --base-net=imagenet stands for, and fetch it when it is missing; None without."""
    if args.base_net != pretrained.IMAGENET:
        return None
    net, folder = MODELS[args.net].name, Path("models")
    path = pretrained.imagenet_path(net, folder)
    if args.dry_run and not path.is_file():
        raise DataError(
            f"{path}: missing, training would download it; a dry run needs the file, or --base-net left out"
        )
    return pretrained.fetch_imagenet(net, folder, cli.progress)


def resume_weights(net, source: Path, state: checkpoint.RunState | None) -> bool:
    """Load the weights to go on with, after checking that they are of this net.

    Returns:
        whether the run goes on; else only the weights were taken, and it starts at epoch 0.
    """
    weights = state.learner["weights"] if state else read_weights(source)
    description = state.description if state else describe_weights(weights, str(source))
    pretrained.expect_net(description, net, source)
    names = description["class_names"]
    if names is None and description["num_classes"] != net.num_classes:
        raise DataError(
            f"{source}: was trained on {description['num_classes']} classes whose names it does not know, the data "
            f"have {list(net.class_names)}; resume with the same classes, or start anew from it with --pretrained-ssd"
        )
    if description["config"] is not None and SSDConfig.from_dict(description["config"]).specs != net.config.specs:
        width, height = SSDConfig.from_dict(description["config"]).width_height
        raise DataError(f"{source}: was trained at {width}x{height}; add --resolution={width}x{height}")
    if names is not None and tuple(names) != net.class_names:
        kept = pretrained.take_classes(net, weights, names)
        pretrained.take_normalisation(net, description)
        new = [name for name in net.class_names[1:] if name not in kept]
        dropped = [name for name in names[1:] if name not in kept]
        logger.warning(
            "Resume from %s: other classes, so weights only, starting at epoch 0; kept %s, new %s, dropped %s",
            *(source, kept, new, dropped),
        )
        return False
    load_strictly(net, weights, str(source))
    pretrained.take_normalisation(net, description)
    if state is None:
        logger.warning(
            "Resume from %s: weights only, no optimizer state of that epoch was found; starting at epoch 0", source
        )
        return False
    logger.info("Resume from %s: optimizer and schedule go on", source)
    return True


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


def make_loaders(args, means: Means, config, train_set, val_set, seed: int, device: torch.device) -> tuple:
    """Make the loaders of training and validation pictures."""
    rest = {"batch_size": means.batch_size, "workers": means.workers, "pin_memory": device.type == "cuda"}
    augmentation = TrainAugmentation(config.image_size, config.image_mean, config.image_std, args.augmentation)
    plain = TestTransform(config.image_size, config.image_mean, config.image_std)
    return (
        make_loader(train_set, augmentation, seed=seed, **rest),
        make_loader(val_set, plain, shuffle=False, **rest),
    )


def log(result: StepResult | EpochResult) -> None:
    """Write the documented lines."""
    if isinstance(result, StepResult):
        if result.losses is None:
            return
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
    if result.skipped:
        logger.warning("Epoch: %d, %d steps left out, their losses were not finite", result.epoch, result.skipped)


def is_better(results: dict[str, float], best: dict[str, float]) -> bool:
    """Compare by mean AP where both have it, else by loss."""
    if "mean_ap" in results and "mean_ap" in best:
        return results["mean_ap"] >= best["mean_ap"]
    return results["loss"] <= best.get("loss", np.inf)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
