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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from vision import __version__, cli
from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import DetectionDataset, labels, open_splits
from vision.datasets.audit import LINES_PER_KIND, Audit, box_sides, fingerprint, make_audit, require_objects
from vision.datasets.loading import EpochBatches, end_workers, make_loader
from vision.engine import checkpoint, optim, pretrained, resume
from vision.engine.faults import Means, ProcessLost, Stop, Stopped, is_dead_worker, with_less
from vision.engine.learner import Learner, Objective
from vision.engine.loop import EpochResult, Position, RunOptions, StepResult, fit
from vision.engine.precision import AMP_CHOICES, Precision, choose_precision
from vision.engine.processes import Alone, open_processes
from vision.engine.rehearsal import channels_last_is_faster, rehearse
from vision.nn.multibox_loss import MultiboxLoss
from vision.report.audit_page import SHEET_COLUMNS, SHEET_ROWS, draw_audit
from vision.report.lines import log_rehearsal, log_result, row_of, scalars_of
from vision.report.records import ResultsTable, Scalars, write_arguments
from vision.ssd.config import SSDConfig
from vision.ssd.data_preprocessing import AUGMENTATIONS, Normaliser, TestTransform, TrainAugmentation
from vision.ssd.models import DEFAULT_NET, MODELS
from vision.ssd.ssd import SSD, place
from vision.ssd.weights import digest_of
from vision.structures import Annotation, DataError
from vision.utils.files import remove_parts, write_text
from vision.utils.progress import no_progress

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
    run.add_argument("--batch-size", type=cli.count, default=4, help="pictures per batch, of each process")
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
    run.add_argument(
        "--sync-bn",
        action="store_true",
        help="batch norm sees the pictures of all processes that torchrun started; GPUs only",
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
    with open_processes() as processes:
        cli.setup_logging(args.log_level if processes.is_first else "critical")
        logger.info("%s", args)
        run = processes.prepare(lambda: prepare(args, sys.argv[1:] if argv is None else argv, processes))
        return run.rehearse() if args.dry_run else run.train()


def prepare(args: argparse.Namespace, words: Sequence[str], processes: Alone) -> Run:
    """Do all that comes before the first step.

    Args:
        args: of the command line.
        words: that they were read from.
        processes: that train together; all come through here, and the first writes.
    """
    device, why = cli.choose_device(args.device, args.use_cuda)
    device = processes.use(device)
    logger.info(why)
    if processes.size > 1:
        logger.info(
            "%d processes: batches of %d in each, %d pictures a step (--auto-lr scales the rates to that)",
            *(processes.size, args.batch_size, pictures_per_step(args, processes.size)),
        )
    spec = MODELS[args.net]
    config = spec.config_at(args.resolution)
    source, state = processes.from_first(lambda: open_model_dir(args))
    typed_or_new = (args.seed, state and state.seed, secrets.randbelow(2**31))
    seed = processes.from_first(lambda: next(seed for seed in typed_or_new if seed is not None))
    torch.manual_seed(seed)
    logger.info("seed: %d", seed)

    train_set, val_set, audit = read_data(args, config, processes)
    class_names = train_set.class_names
    if args.no_negatives:
        train_set.drop_negatives()
    if args.balance_data:
        train_set.balance(np.random.default_rng(seed))

    net = spec.build(len(class_names), config=config, width_mult=args.mb2_width_mult or 1.0)
    net.class_names = class_names
    if source is None:
        pretrained_ssd, imagenet = processes.in_turn(lambda: (pretrained_file(args), imagenet_file(args)))
        pretrained.initialise(net, base_net=args.base_net, pretrained_ssd=pretrained_ssd, imagenet=imagenet)
    elif not resume.load_weights(net, source, state):
        state = None
    processes.check_same("starts from other weights", lambda: digest_of(net.state_dict()))
    config = net.config  # with the normalisation of the starting weights
    precision, choices = choose(args, net, device, state, processes)
    place(net, device, choices["channels_last"])

    frozen = optim.freeze(net, options := optim_options(args, processes.size))
    least = max(2, processes.size * (2 if optim.trains_batch_norm(net, frozen) else 1))
    make_batches = partial(EpochBatches, len(train_set), seed=seed, least=least)
    batches = make_batches(args.batch_size * processes.size)
    smallest = min(len(batch) for batch in batches) // processes.size
    check_batch_size(net, smallest * (processes.size if args.sync_bn else 1), frozen)
    average = optim.WeightAverage(net) if args.ema else None
    if args.sync_bn:
        processes.synchronise_batch_norm(net)
    learner = processes.make_learner(
        Objective(net, Normaliser(config.image_mean, config.image_std), MultiboxLoss(), precision).to(device),
        optim.make_optimizer(net, options),
        schedule_options(args),
        frozen=frozen,
        clip_grad=args.clip_grad,
        average=average,
    )
    course = {
        "pictures": fingerprint(train_set),
        "seed": seed,
        "pictures a step": pictures_per_step(args, processes.size),
        "batches an epoch": batches.batches_of_epoch,
    }
    position = resume.go_on(learner, state, course, args.epochs)
    if processes.is_first and args.dry_run:
        draw_audit_page(args.model_dir / "audit.png", train_set, audit, config)
    elif processes.is_first:
        labels.store_labels(args.model_dir / "labels.txt", class_names)
        prints = {"training": course["pictures"], "validation": fingerprint(val_set)}
        facts = {"device": str(device), "processes": processes.size, **choices, "fingerprints": prints}
        write_arguments(args.model_dir / "args.json", arguments(words, args, seed, facts))
    return Run(
        *(args, words, processes, learner),
        Means(args.batch_size, args.accumulate, args.workers),
        partial(open_loaders, args, config, train_set, val_set, make_batches, device, processes),
        [val_set.annotation(index) for index in range(len(val_set))],
        *(train_set.ids, position, course, choices),
        best=state.best if state else {},
        waited=state.waited if state else 0,
    )


@dataclass
class Run:
    """The training itself, and what is written down as it goes on: lines, tables, curves, checkpoints and the state.

    Attributes:
        args: of the command line.
        words: that they were read from.
        processes: that train together; the first writes.
        learner: that takes the steps.
        means: that loaders are opened with.
        open_loaders: opens those of training and validation pictures.
        annotations: of the validation pictures.
        train_ids: names of the training pictures.
        position: of the run, which the loop keeps up to date.
        course: see `RunState`.
        choices: likewise.
        best: likewise.
        waited: likewise.
    """

    args: argparse.Namespace
    words: Sequence[str]
    processes: Alone
    learner: Learner
    means: Means
    open_loaders: Callable[[Means], AbstractContextManager[tuple[DataLoader, DataLoader]]]
    annotations: Sequence[Annotation]
    train_ids: Sequence[str]
    position: Position
    course: dict[str, Any]
    choices: dict[str, Any]
    best: dict[str, Any]
    waited: int

    def rehearse(self) -> int:
        """Try a few steps, and say what a run will cost; gives the exit code."""
        with self.open_loaders(self.means) as loaders:
            found = rehearse(self.learner, *loaders, self.annotations, self.means.accumulate, self.processes.everyone)
        log_rehearsal(found, self.args.epochs, self.args.validation_epochs)
        logger.info("Dry run done: nothing was trained; %s has all of the audit", self.args.model_dir / "audit.json")
        return 0

    def train(self) -> int:
        """Train to the end, or to a signal; gives the exit code."""
        table = ResultsTable(self.args.model_dir / "results.csv", self.position.epoch)
        scalars = Scalars(self.args.model_dir / "tensorboard") if self.processes.is_first else nullcontext()
        code = None
        with self.processes.stop() as stop, scalars:
            while code is None:
                code = self.train_with_means(stop, table, scalars)
        self.processes.everyone(None)  # when one ends, torchrun ends all: wait for what the first writes
        return code

    def train_with_means(self, stop: Stop, table: ResultsTable, scalars: Scalars) -> int | None:
        """Go on with the batches and loader processes there are; gives the exit code, None to try again with less."""
        progress = cli.progress if self.processes.is_first else no_progress
        with self.open_loaders(self.means) as loaders:
            results = fit(
                self.learner,
                *loaders,
                self.annotations,
                self.learner.net.class_names,
                RunOptions(
                    self.args.validation_epochs,
                    self.args.debug_steps,
                    self.args.validation_mean_ap,
                    self.means.accumulate,
                ),
                train_ids=self.train_ids,
                position=self.position,
                progress=lambda items, what, total: stop.between(progress(items, what, total)),
                everyone=self.processes.everyone,
            )
            try:
                self.through(results, stop, table, scalars)
            except Stopped:
                self.save_to_go_on()
                return stop.exit_code
            except ProcessLost:
                self.save_to_go_on()
                raise
            except (RuntimeError, MemoryError, OSError) as err:
                self.make_do_with_less(err)
                return None
        logger.info("Task done, exiting program.")
        return 0

    def through(
        self, results: Iterable[StepResult | EpochResult], stop: Stop, table: ResultsTable, scalars: Scalars
    ) -> None:
        """Go through the results of a loop, to the end of the run.

        Raises:
            Stopped: a signal asked for it.
        """
        began = time.monotonic()
        for result in results:
            log_result(result)
            if isinstance(result, StepResult):
                # The state at the end of an epoch is saved with its results.
                if (
                    self.args.checkpoint_steps
                    and result.step % self.args.checkpoint_steps == 0 < result.steps - result.step
                ):
                    self.save_state()
                stop.check()
                continue
            if result.validation is not None:
                self.save_checkpoints(result)
            if self.processes.is_first:
                scalars.write(result.epoch, scalars_of(result))
                table.add(row_of(result, time.monotonic() - began))
            began = time.monotonic()
            self.save_state()
            if self.args.patience and self.waited >= self.args.patience:
                logger.info(
                    "Epoch: %d, no better result for %d validations (--patience): ending", result.epoch, self.waited
                )
                return
            stop.check()

    def make_do_with_less(self, err: BaseException) -> None:
        """Choose smaller batches or fewer loader processes after an error, or raise it."""
        several = self.processes.size > 1
        # The others wait within a step for this one's part, and cannot be told to try it otherwise.
        less = None if several else with_less(err, self.means)
        if less is None:
            if several and is_dead_worker(err):  # between two steps, so that the state is good
                self.save_to_go_on()
            raise err
        logger.warning("%s", cli.error_line(err))
        logger.warning(
            "going on at epoch %d, step %d with batches of %d, %d of them a step, and %d loader processes",
            *(self.position.epoch, self.position.step, *less),
        )
        self.means = less

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
        if checkpoint.is_better(results, self.best):
            self.best, self.waited = results, 0
            paths.append(folder / checkpoint.BEST)
        if not self.processes.is_first:
            return
        checkpoint.save(net, paths, results)
        logger.info("Saved model %s", path)
        if self.args.keep_checkpoints:
            checkpoint.drop_old(folder, net.architecture["net"], self.args.keep_checkpoints)

    def save_state(self) -> None:
        """Write all that a resumed run needs."""
        if not self.processes.is_first:
            return
        checkpoint.save_state(
            self.args.model_dir / checkpoint.STATE,
            checkpoint.RunState(
                description=self.learner.net.description(),
                learner=self.learner.state_dict(),
                position=self.position.as_values(),
                course=self.course,
                seed=self.course["seed"],
                best=self.best,
                waited=self.waited,
                random=checkpoint.random_state(self.learner.device),
                choices=self.choices,
            ),
        )

    def save_to_go_on(self) -> None:
        """Write the state, and say how to go on."""
        self.save_state()
        command = resume_command(self.words, self.args, self.processes.launcher)
        logger.info("Saved %s; go on with: %s", self.args.model_dir / checkpoint.STATE, command)


def open_model_dir(args: argparse.Namespace) -> tuple[Path | None, checkpoint.RunState | None]:
    """Make the model folder ready to be written to, and find the run to go on with; see `resume.find_run`."""
    cli.check_writable(args.model_dir, "--model-dir")
    if not args.dry_run and (stray := remove_parts(args.model_dir)):
        logger.info("%s: removed %d temporary files of a run that was killed", args.model_dir, stray)
    goes_on = args.auto_resume and checkpoint.can_resume(args.model_dir)
    return resume.find_run("" if goes_on else args.resume, args.model_dir)


def read_data(
    args: argparse.Namespace, config: SSDConfig, processes: Alone
) -> tuple[DetectionDataset, DetectionDataset, Audit]:
    """Read the datasets, and say and write down what is wrong with them."""
    train_set, val_set = processes.in_turn(
        lambda: open_splits(args.dataset_type, args.data, cli.reading_options(args), cli.progress)
    )
    most = None if args.dry_run else BOXES_AT_START
    priors = center_form_to_corner_form(config.priors)
    audit = make_audit(train_set, val_set, config.width_height, priors, most)
    if processes.is_first:
        audit.log(None if args.dry_run else LINES_PER_KIND)
        write_text(args.model_dir / "audit.json", json.dumps(audit.as_json(), indent=1) + "\n")
    require_objects(train_set, args.data)
    if args.strict:
        audit.require_flawless()
    processes.check_same("reads other pictures", lambda: (fingerprint(train_set), fingerprint(val_set)))
    return train_set, val_set, audit


def choose(
    args: argparse.Namespace, net: SSD, device: torch.device, state: checkpoint.RunState | None, processes: Alone
) -> tuple[Precision, dict[str, Any]]:
    """Choose precision and memory format; a run that goes on keeps them, and with --seed nothing depends on timing."""
    amp = state.choices["amp"] if state and args.amp == "auto" else args.amp
    precision, why = choose_precision(amp, device)
    logger.info(why)
    if (name := processes.from_first(lambda: precision.name)) != precision.name:
        precision, _ = choose_precision(name, device)
    if state:
        channels_last = state.choices["channels_last"]
    elif args.seed is None and not args.dry_run:
        channels_last = processes.from_first(lambda: channels_last_is_faster(net, device, precision, args.batch_size))
        logger.info("memory format: %s, measured", "channels last" if channels_last else "contiguous")
    else:
        channels_last = device.type == "cpu"
    return precision, {"amp": precision.name, "channels_last": channels_last}


def pictures_per_step(args: argparse.Namespace, processes: int) -> int:
    """Count the pictures that all processes learn from in a step."""
    return args.batch_size * args.accumulate * processes


def optim_options(args: argparse.Namespace, processes: int = 1) -> optim.OptimOptions:
    """Collect what the optimizer is told; --auto-lr scales the rates."""
    scale = 1.0
    if args.auto_lr:
        scale = pictures_per_step(args, processes) / args.auto_lr
        among = f" x {processes} processes" if processes > 1 else ""
        logger.info(
            "--auto-lr: rates times %g = batch %d x %d accumulated%s / %d",
            *(scale, args.batch_size, args.accumulate, among, args.auto_lr),
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


def arguments(words: Sequence[str], args: argparse.Namespace, seed: int, facts: dict[str, Any]) -> dict[str, Any]:
    """Collect what `args.json` says of a run."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *words]),
        "arguments": vars(args),
        "seed": seed,
        **facts,
        "versions": {
            "ssd-retrain": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "system": platform.platform(),
        },
    }


def resume_command(words: Sequence[str], args: argparse.Namespace, launcher: str) -> str:
    """Spell the command that goes on with a run; with --auto-resume that is the same command again."""
    command = f"{launcher} {shlex.quote(Path(sys.argv[0]).name)}"
    if args.auto_resume:
        return f"{command} {shlex.join(words)}"
    kept, has_value = [], False
    for word in words:
        name = word.partition("=")[0]
        # argparse takes the beginning of an option's name, if it is not another's too.
        if len(name) > 2 and "--resume".startswith(name):
            has_value = name == word
            continue
        if not has_value or word.startswith("-"):
            kept.append(word)
        has_value = False
    return f"{command} {shlex.join([*kept, '--resume'])}"


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


def check_batch_size(net, smallest: int, frozen: Sequence) -> None:
    """Refuse batches so small that batch norm sees a single value; tried without numbers, on the meta device."""
    if smallest > 1:
        return
    if not smallest:
        raise DataError("--data: there are fewer training pictures than processes; start fewer with --nproc_per_node")
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


@contextmanager
def open_loaders(
    args: argparse.Namespace,
    config: SSDConfig,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    make_batches: Callable[[int], EpochBatches],
    device: torch.device,
    processes: Alone,
    means: Means,
) -> Iterator[tuple[DataLoader, DataLoader]]:
    """Give the loaders of training and validation pictures, as long as the block runs."""
    rest = {"workers": means.workers, "pin_memory": device.type == "cuda"}
    augmentation = TrainAugmentation(config.image_size, config.image_mean, config.image_std, args.augmentation)
    plain = TestTransform(config.image_size, config.image_mean, config.image_std)
    training = make_batches(means.batch_size * processes.size)
    validation = EpochBatches(len(val_set), means.batch_size, shuffle=False)
    loaders = (
        make_loader(train_set, augmentation, processes.share_of_each(training), seed=training.seed, **rest),
        make_loader(val_set, plain, processes.share_of_all(validation), replaces=False, **rest),
    )
    try:
        yield loaders
    finally:
        for loader in loaders:
            end_workers(loader)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
