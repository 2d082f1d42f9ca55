#!/usr/bin/env python3
"""Retrain an SSD detector on images of your own.

python3 train_ssd.py --dataset-type=voc --data=data/fruit --model-dir=models/fruit
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import argparse
import json
import logging
import math
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from vision import cli
from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import (
    BACKGROUND_TOO,
    DIFFICULT,
    IGNORE,
    DataOptions,
    DetectionDataset,
    image_cache,
    labels,
    open_splits,
)
from vision.datasets.audit import (
    Audit,
    best_possible_recall,
    box_sides,
    fingerprint,
    make_audit,
    require_objects,
)
from vision.datasets.loading import Loaders
from vision.engine import checkpoint, optim, pretrained, resume, shipped
from vision.engine.batch_norm import check_batch_size, trains_batch_norm
from vision.engine.compute import AUGMENT_ON, DEVICE, Compute, choose_compute
from vision.engine.launch import current_process
from vision.engine.model_folder import describe_previous_run, locked
from vision.engine.precision import AMP_CHOICES
from vision.engine.process import SingleProcess
from vision.engine.start import WORDS, NetOptions, better_for_small_objects, find_starting_files
from vision.engine.step import to_device
from vision.engine.trainer import RunOptions, Trainer, build_step_trainer
from vision.report.audit_page import save_audit_page
from vision.report.lines import log_dry_run
from vision.report.records import RunRecorder, write_arguments
from vision.report.run_pictures import RESULTS, TRAIN_BATCH, VAL_BATCH, RunPictures, draw_training_batch
from vision.report.sheet import MOST_CELLS
from vision.ssd.config import SSDConfig
from vision.ssd.data_preprocessing import AUGMENTATIONS, TestTransform, TrainAugmentation
from vision.ssd.device_augmentation import DeferredAugmentation
from vision.ssd.models import DEFAULT_NET, MODELS, UPSTREAM_NET, ModelSpec, describe_weights, identify_base_net
from vision.ssd.prior_choice import AUTO, UPSTREAM, write_priors
from vision.ssd.ssd import SSD
from vision.ssd.trained_images import TrainedImages
from vision.ssd.weights import digest_of, read_weights
from vision.structures import DataError
from vision.utils.files import remove_parts, write_text
from vision.utils.memory import keep_freed_memory
from vision.utils.progress import no_progress

logger = logging.getLogger(__name__)

#: Boxes that are compared with all priors at every start; a dry run compares all.
BOXES_AT_START = 5000

#: Best possible recall that is given up for heads that know the classes.
RECALL_FOR_HEADS = 0.01

#: Files of the audit and of the priors in the model folder.
AUDIT, PRIORS = "audit.json", "priors.json"

#: Defaults that belong together; options typed besides have their own say.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "upstream": {
        "priors": UPSTREAM,
        "repeat": 1,
        "augmentation": "ssd",
        "difficult": BACKGROUND_TOO,
        "optimizer": "sgd",
        "lr": 0.01,
        "base_net_lr": 0.001,
        "clip_grad": None,
        "smooth_l1_beta": 1.0,
    },
}

#: Options that go together: where one is typed, the others are not the net's own.
RATES = ("optimizer", "lr", "base_net_lr", "extra_layers_lr", "momentum")

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class Options:
    """The command line as values, a part for each room.

    Attributes:
        data: what is read.
        net: what is trained, and from which weights.
        optim: optimizer and rates.
        schedule: of the rates.
        run: how training goes about, and its files.
        device: --device, by name.
        use_cuda: whether a GPU may be used.
        log_level: of the log, by name.
        typed: every option with its value, for the record.
        argv: the arguments themselves.
    """

    data: DataOptions
    net: NetOptions
    optim: optim.OptimOptions
    schedule: optim.ScheduleOptions
    run: RunOptions
    device: str
    use_cuda: bool
    log_level: str
    typed: dict[str, Any]
    argv: Sequence[str]


class ChosenConfig(NamedTuple):
    """A net's config.

    Attributes:
        config: input size, normalisation and priors.
        why: where the priors come from, for the log; None for priors that were not chosen by the data.
    """

    config: SSDConfig
    why: str | None = None


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Retrain an SSD detector.")
    add_data_options(parser)
    add_net_options(parser)
    add_optimisation_options(parser)
    add_run_options(parser)
    preset, _ = parser.parse_known_args(argv, argparse.Namespace(**dict.fromkeys(RATES)))
    by_default = preset.net is None
    if by_default:
        preset.net, by_default = choose_net(preset)
    spec = MODELS[preset.net]
    typed = {name: value for name in RATES if (value := getattr(preset, name)) is not None}
    recipe = dict(RECIPES[preset.recipe])
    if not recipe or typed.get("optimizer", "sgd") != "sgd":
        recipe |= default_rates(spec, typed, takes_shipped_start(preset))
    parser.set_defaults(net=preset.net, resolution=spec.family.base_size, **recipe)
    if preset.schedule:
        parser.set_defaults(**optim.SCHEDULES[preset.schedule])
    args = parser.parse_args(argv)
    args.net_by_default = by_default
    if args.pretrained_ssd == pretrained.COCO:  # the log begins with the arguments, so the net's name is seen
        args.net = pretrained.COCO_FORMS.get(args.net, args.net)
    if args.warmup_epochs is not None and preset.warmup_iters is not None:
        parser.error("--warmup-epochs and --warmup-iters say the same; leave one out")
    if args.validation_dataset and args.val_split is not None:
        parser.error("--validation-dataset and --val-split both say what to validate on; leave one out")
    if args.auto_resume and args.resume is not None:
        parser.error("--auto-resume and --resume contradict each other; leave one out")
    if args.base_net and args.pretrained_ssd and args.resume is None:
        parser.error("--base-net and --pretrained-ssd both name starting weights; leave one out")
    if args.new_heads and (args.base_net or args.pretrained_ssd == pretrained.SCRATCH):
        parser.error("--new-heads is about the heads of --pretrained-ssd; leave one of the options out")
    return args


def choose_net(args: argparse.Namespace) -> tuple[str, bool]:
    """Choose the net where --net is not typed: that of a run that goes on or of starting weights, else the default.

    Files that are missing or cannot be read say nothing here; whatever opens them later says what is wrong.

    Returns:
        its name, and whether nothing at all named it.
    """
    try:
        named, by_default = named_net(args)
    except DataError:
        named, by_default = None, True
    return named or DEFAULT_NET, by_default


def named_net(args: argparse.Namespace) -> tuple[str | None, bool]:
    """Read the net from what a run starts from; returns its name, None for the default, and whether nothing named it.

    Raises:
        DataError: the file that names it is missing or cannot be read.
    """
    if args.resume is not None or (args.auto_resume and checkpoint.can_resume(args.model_dir)):
        description = resume.describe_run(args.resume or "", args.model_dir)
        return description["net"], description.get("net_by_default", False)
    if args.base_net not in (None, pretrained.IMAGENET) and Path(args.base_net).is_file():
        named = identify_base_net(read_weights(args.base_net))
        if named is not None and MODELS[named].shares_backbone(MODELS[DEFAULT_NET]):
            named = None
    elif args.pretrained_ssd is not None and Path(args.pretrained_ssd).as_posix() in pretrained.PUBLISHED:
        named = UPSTREAM_NET
    elif args.pretrained_ssd not in (None, *WORDS) and Path(args.pretrained_ssd).is_file():
        named = describe_weights(read_weights(args.pretrained_ssd), args.pretrained_ssd, with_heads=False)["net"]
    else:
        named = UPSTREAM_NET if args.recipe == "upstream" else None
    return named, named is None


def takes_shipped_start(args: argparse.Namespace) -> bool:
    """Whether a run starts, as far as its options say, from what comes with this program."""
    is_usual = args.base_net is None and args.mb2_width_mult in (None, 1.0)
    return is_usual and args.pretrained_ssd in (None, shipped.VOC)


def default_rates(spec: ModelSpec, typed: Mapping[str, Any], takes_shipped: bool) -> dict[str, Any]:
    """Choose the defaults of optimizer and rates.

    Args:
        spec: of the net.
        typed: those of `RATES` that are.
        takes_shipped: whether the run starts from what comes with this program, which may want rates of its own.
    """
    optimizer = typed.get("optimizer") or ("adamw" if spec.adamw_rates and not typed else "sgd")
    own = spec.adamw_rates if optimizer == "adamw" else None
    lr, base_net_lr = own or optim.DEFAULT_RATES[optimizer]
    if takes_shipped and optimizer == "sgd":
        base_net_lr = shipped.BASE_NET_RATES.get(spec.name) or base_net_lr
    return {"optimizer": optimizer, "lr": lr, "base_net_lr": base_net_lr}


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides the data."""
    data = parser.add_argument_group("data")
    cli.add_dataset_type_option(data, "open_images")
    data.add_argument(
        "--data",
        "--datasets",
        type=cli.user_place,
        nargs="+",
        default=["data"],
        help="folders of datasets, merged by class name",
    )
    data.add_argument(
        "--validation-dataset",
        type=cli.user_place,
        nargs="+",
        default=(),
        help="folders to validate on, whatever lists --data has; their test or validation images, else all",
    )
    cli.add_reading_options(data)
    data.add_argument(
        "--labels-from-data",
        action="store_true",
        help="the classes are the names found in the annotations, whatever list of classes there is",
    )
    data.add_argument(
        "--difficult",
        type=cli.one_of("treatment", DIFFICULT),
        default=IGNORE,
        help="objects that are marked difficult, or are crowds or groups. ignore: training takes them neither for "
        "objects nor for background; background: they are dropped, so that they count as background",
    )
    data.add_argument("--no-negatives", action="store_true", help="leave out training images without objects")
    data.add_argument(
        "--strict", action="store_true", help="end the run if anything in the data is left out, mended or suspect"
    )
    data.add_argument("--balance-data", action="store_true", help="draw as many images of each class as the rarest has")
    data.add_argument(
        "--augmentation",
        type=cli.one_of("augmentation", AUGMENTATIONS),
        default="light",
        help="light: crop and mirror; ssd: with the paper's expansion and colours; none",
    )


def add_net_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides the net and its starting weights."""
    net = parser.add_argument_group("net")
    cli.add_net_options(net, None, f" (default: that of --resume, --pretrained-ssd or --base-net, else {DEFAULT_NET})")
    cli.add_resolution_option(net, None, " (default: 300; 320 for mb3-ssd-lite)")
    net.add_argument(
        "--priors",
        type=cli.user_place,
        help="auto: fitted to the boxes to train on; upstream: those of published checkpoints; coco: for objects of "
        "all sizes; or a priors.json (default: those of the run that goes on, or of heads that know the classes, "
        "else auto)",
    )
    net.add_argument("--freeze-base-net", action="store_true", help="the backbone and its batch norm stand still")
    net.add_argument("--freeze-net", action="store_true", help="all but the prediction heads stands still")
    start = parser.add_argument_group("starting weights (--resume over --base-net over --pretrained-ssd)")
    start.add_argument(
        "--base-net",
        type=cli.user_place,
        help=f"file of backbone weights; {pretrained.IMAGENET}: torchvision's, for "
        + ", ".join(pretrained.TORCHVISION[pretrained.IMAGENET]),
    )
    start.add_argument(
        "--pretrained-ssd",
        type=word_or_file,
        help="file of a whole SSD with the same backbone; its heads are taken over for other classes and priors, too; "
        f"{pretrained.COCO}: torchvision's, for "
        + ", ".join(pretrained.TORCHVISION[pretrained.COCO])
        + f"; {shipped.VOC}: what comes with this program, for "
        + ", ".join(shipped.NETS)
        + "; none for scratch (default: the published one, else what comes with this program)",
    )
    start.add_argument(
        "--new-heads", action="store_true", help="draw the heads at random, instead of those of --pretrained-ssd"
    )
    start.add_argument(
        "--resume",
        type=cli.user_place,
        nargs="?",
        const="",
        help="go on with a run: a file, a model folder, or without value --model-dir's newest",
    )
    start.add_argument(
        "--auto-resume",
        action="store_true",
        help="go on with --model-dir's run if there is one, else start: for service managers",
    )


def word_or_file(text: str) -> str:
    """Read --pretrained-ssd: one of its words, in any case, or the name of a file."""
    return text.lower() if text.lower() in WORDS else cli.user_place(text)


def add_optimisation_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides optimizer and rates."""
    rates = parser.add_argument_group("optimisation")
    rate = cli.number(float, 0)
    rates.add_argument(
        "--recipe",
        type=cli.one_of("recipe", tuple(RECIPES)),
        default="default",
        help="upstream: its priors, augmentation, rates and box loss; options given besides have their own say",
    )
    own = ", ".join(name for name, spec in MODELS.items() if spec.adamw_rates)
    rates.add_argument(
        "--optimizer",
        type=cli.one_of("optimizer", optim.OPTIMIZERS),
        help=f"{', '.join(optim.OPTIMIZERS)} (default: sgd; for {own} adamw at rates of its own, unless one is typed)",
    )
    lr, base_net_lr = optim.DEFAULT_RATES["sgd"]
    of_adam, of_adam_base = optim.DEFAULT_RATES["adam"]
    rates.add_argument(
        "--lr",
        "--learning-rate",
        type=rate,
        help=f"rate of the prediction heads (default: {lr:g}; of adam and adamw {of_adam:g})",
    )
    rates.add_argument("--momentum", type=cli.share, default=0.9, help="of SGD; Adam's first beta")
    rates.add_argument("--weight-decay", type=rate, default=5e-4, help="of all weights")
    rates.add_argument(
        "--no-bias-decay", dest="bias_decay", action="store_false", help="biases and batch norms do not decay"
    )
    rates.add_argument(
        "--base-net-lr",
        type=rate,
        help=f"rate of the backbone (default: {base_net_lr:g}; of adam and adamw {of_adam_base:g})",
    )
    rates.add_argument("--extra-layers-lr", type=rate, help="rate of add-ons, pyramid and extra layers (default: --lr)")
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
    rates.add_argument(
        "--clip-grad", type=cli.norm_limit, default=10.0, help="largest norm of all gradients together, or none"
    )
    rates.add_argument(
        "--smooth-l1-beta",
        type=rate,
        default=0.3,
        help="errors of boxes, in encoded units, count by their square below this, and by their size above; 0 for L1",
    )
    rates.add_argument("--accumulate", type=cli.count, default=1, help="batches that make one step")
    rates.add_argument("--ema", action="store_true", help="validate and save an exponential average of the weights")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what decides how a run goes about training."""
    run = parser.add_argument_group("run")
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="everything but the training: decode every image, audit the data, try a few steps; downloads nothing",
    )
    run.add_argument("--batch-size", type=cli.count, default=4, help="images per batch, of each process")
    run.add_argument("--epochs", "--num-epochs", type=cli.count, default=30, help="times through the images")
    run.add_argument(
        "--repeat",
        type=cli.count_or("auto"),
        help=f"times that an epoch goes through the images (default: auto: more than once where a run would have fewer "
        f"than {optim.ENOUGH_STEPS} steps, at most once for {optim.EPOCHS_A_REPEAT} epochs)",
    )
    run.add_argument(
        "--workers", "--num-workers", type=cli.number(int, 0), default=2, help="loader processes, 0 for none"
    )
    run.add_argument(
        "--cache-images",
        type=cli.one_of("place", image_cache.CHOICES),
        default=image_cache.AUTO,
        help="ram: keep images in memory once decoded; disk: in an unnamed file in --model-dir, as long as the run "
        f"lasts; auto: in memory where they take at most {image_cache.SHARE} of what is available; off",
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
    run.add_argument(
        "--augment-on",
        type=cli.one_of("place", AUGMENT_ON),
        default="auto",
        help="cpu: loader processes crop, resize, mirror and colour; device: they cut out, the net's device does the "
        "rest; auto: device on a GPU",
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
        help="batch norm sees the images of all processes that torchrun started; GPUs only",
    )
    cli.add_device_options(run)
    run.add_argument(
        "--model-dir",
        "--checkpoint-folder",
        type=cli.user_path,
        default=Path("models"),
        help="where files are written",
    )
    run.add_argument(
        "--no-plots",
        dest="plots",
        action="store_false",
        help=f"neither {RESULTS} nor {TRAIN_BATCH} and {VAL_BATCH}; numbers are written all the same",
    )
    run.add_argument(
        "--log-level", type=cli.one_of("log level", LOG_LEVELS), default="info", help=", ".join(LOG_LEVELS)
    )


def parse_options(argv: Sequence[str]) -> Options:
    """Read the command line into values."""
    args = parse_args(argv)
    return Options(
        data=DataOptions(
            dataset_type=args.dataset_type,
            roots=tuple(args.data),
            validation_roots=tuple(args.validation_dataset),
            reading=cli.reading_options(args),
            difficult=args.difficult,
            min_object=args.min_object,
            augmentation=args.augmentation,
            negatives=not args.no_negatives,
            balance=args.balance_data,
            repeat=args.repeat,
            strict=args.strict,
        ),
        net=NetOptions(
            name=args.net,
            by_default=args.net_by_default,
            size=args.resolution,
            width_mult=args.mb2_width_mult,
            base_net=args.base_net,
            pretrained_ssd=args.pretrained_ssd,
            priors=args.priors,
            new_heads=args.new_heads,
        ),
        optim=optim.OptimOptions(
            lr=args.lr,
            base_net_lr=args.base_net_lr,
            extra_layers_lr=args.extra_layers_lr,
            optimizer=args.optimizer,
            momentum=args.momentum,
            weight_decay=args.weight_decay,
            bias_decay=args.bias_decay,
            freeze_base_net=args.freeze_base_net,
            freeze_net=args.freeze_net,
            clip_grad=args.clip_grad,
            ema=args.ema,
            smooth_l1_beta=args.smooth_l1_beta,
            auto_lr=args.auto_lr,
        ),
        schedule=optim.ScheduleOptions(
            scheduler=args.scheduler,
            epochs=args.epochs,
            milestones=args.milestones,
            gamma=args.gamma,
            t_max=args.t_max,
            warmup_epochs=args.warmup_epochs,
            warmup_iters=args.warmup_iters,
            warmup_factor=args.warmup_factor,
        ),
        run=RunOptions(
            model_dir=args.model_dir,
            batch_size=args.batch_size,
            accumulate=args.accumulate,
            workers=args.workers,
            cache_images=args.cache_images,
            validation_epochs=args.validation_epochs,
            mean_ap=args.validation_mean_ap,
            debug_steps=args.debug_steps,
            patience=args.patience,
            checkpoint_steps=args.checkpoint_steps,
            keep_checkpoints=args.keep_checkpoints,
            amp=args.amp,
            augment_on=args.augment_on,
            seed=args.seed,
            sync_bn=args.sync_bn,
            resume=args.resume,
            auto_resume=args.auto_resume,
            dry_run=args.dry_run,
            plots=args.plots,
        ),
        device=args.device,
        use_cuda=args.use_cuda,
        log_level=args.log_level,
        typed=vars(args),
        argv=argv,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    with current_process() as process, ExitStack() as stack:
        cli.setup_logging(options.log_level if process.is_main_process else "critical")
        logger.info("%s", argparse.Namespace(**options.typed))
        with process.failing_together():
            device = choose_device(options, process)
            options.net.config()  # says at once what cannot be had
            if process.is_main_process:
                stack.enter_context(cli.writable_folder(options.run.model_dir, "--model-dir"))
                stack.enter_context(locked(options.run.model_dir, options.argv))
            source, state = process.broadcast_from_main(lambda: find_run(options.run))
            seed = process.broadcast_from_main(lambda: choose_seed(options.run, state))
            torch.manual_seed(seed)
            logger.info("seed: %d", seed)

            train_set, val_set = open_datasets(options, process)
            files = find_files(options, process) if source is None else None
            chosen = process.broadcast_from_main(lambda: choose_config(options.net, train_set, source, state, files))
            config = chosen.config
            audit = audit_data(options, config, train_set, val_set, process)
            log_priors(options, chosen, train_set, audit)
            select_images(options.data, train_set, seed)

            net = options.net.build(train_set.class_names, config)
            state = load_weights(net, options, source, state, files, process)
            digests = [record.digest for record in train_set.records]
            net.trained_on = TrainedImages.of(digests).joined(net.trained_on)
            repeats = choose_repeats(options, len(train_set), state, process)
            train_set.repeat(repeats)
            frozen = optim.freeze(net, options.optim)

            compute = make_compute(options.run, net, device, state, process)
            loaders = make_loaders(options, net, frozen, train_set, val_set, compute, seed, process)
            trainer = make_trainer(options, net, frozen, loaders, repeats, compute, source, state, process)
            if process.is_main_process and options.run.dry_run:
                save_audit_page(
                    options.run.model_dir / "audit.png", train_set, audit, config.width_height, config.priors
                )
            elif process.is_main_process:
                write_records(options, trainer, loaders, source if state else None)
        if options.run.dry_run:
            log_dry_run(trainer.dry_run(), options.schedule.epochs, options.run.validation_epochs)
            logger.info("Dry run done: nothing was trained; %s has all of the audit", options.run.model_dir / AUDIT)
            return 0
        return trainer.train()


def choose_device(options: Options, process: SingleProcess) -> torch.device:
    """Device of this process, from --device and --use-cuda."""
    device, why = cli.choose_device(options.device, options.use_cuda)
    device = process.select_device(device)
    logger.info(why)
    if device.type == "cpu":
        keep_freed_memory()
    if process.world_size > 1:
        images = options.run.images_per_step(process.world_size)
        logger.info(
            "%d processes: batches of %d in each, %d images per step (--auto-lr scales the rates to that)",
            process.world_size,
            options.run.batch_size,
            images,
        )
    return device


def find_run(run: RunOptions) -> tuple[Path | None, checkpoint.RunState | None]:
    """Find the run to go on with, see `resume.find_run`, and remove what a killed one left half written."""
    if not run.dry_run and (stray := remove_parts(run.model_dir)):
        logger.info("%s: removed %d temporary files of a run that was killed", run.model_dir, stray)
    resumes_own = run.auto_resume and checkpoint.can_resume(run.model_dir)
    return resume.find_run("" if resumes_own else run.resume, run.model_dir)


def choose_seed(run: RunOptions, state: checkpoint.RunState | None) -> int:
    """The seed typed, that of the run that goes on, or a new one."""
    if run.seed is not None:
        return run.seed
    return secrets.randbelow(2**31) if state is None else state.seed


def open_datasets(options: Options, process: SingleProcess) -> tuple[DetectionDataset, DetectionDataset]:
    """Read what the datasets hold, the same in all processes; marks the objects that are to be ignored."""
    data, width_height = options.data, options.net.config().width_height
    with process.main_process_first():
        train_set, val_set = open_splits(
            data.dataset_type, data.roots, data.reading, cli.progress, validation_roots=data.validation_roots
        )
    for dataset in (train_set, val_set):
        dataset.ignores_difficult = data.difficult == IGNORE
        if count := dataset.ignore_small(data.min_object, width_height):
            logger.info(
                "%s: %d objects are smaller than %g pixels at %dx%d and ignored (--min-object)",
                dataset.title,
                count,
                data.min_object,
                *width_height,
            )
    process.check_same("reads other images", lambda: (fingerprint(train_set), fingerprint(val_set)))
    return train_set, val_set


def find_files(options: Options, process: SingleProcess) -> pretrained.StartingFiles:
    """Find the files that a run which begins takes its weights from; the main process downloads what is missing."""
    with process.main_process_first():
        files = find_starting_files(options.net, downloads=not options.run.dry_run, progress_bar=cli.progress)
    rate = shipped.base_net_rate_of(files.pretrained_ssd)
    if rate is not None and rate == options.optim.base_net_lr:
        logger.info("--base-net-lr=%g, as suits %s", rate, files.pretrained_ssd)
    return files


def choose_config(
    options: NetOptions,
    train_set: DetectionDataset,
    source: Path | None,
    state: checkpoint.RunState | None,
    files: pretrained.StartingFiles | None,
) -> ChosenConfig:
    """The net's input size, normalisation and priors.

    A run that goes on keeps its own; where it is of another net or size, the loading of its weights will say so. One
    that begins keeps the priors of heads that know its classes, unless others would reach more of its boxes.
    """
    if source is not None:
        published = MODELS[options.name].config_at(options.size)
        config = resume.config_of_run(source, state, options.name, published.width_height) or published
        if options.priors not in (None, AUTO) and not torch.equal(options.config().priors, config.priors):
            logger.warning("--priors=%s is for new runs: this one goes on with its own priors", options.priors)
        return ChosenConfig(config)
    general = options.config()
    sides, of_classes = box_sides(train_set, general.width_height)
    if advice := better_for_small_objects(options, general, sides):
        logger.info("%s", advice)
    fitted = options.fitted_config(general, sides, of_classes)
    known = options.known_config(train_set.class_names, files.pretrained_ssd)
    if known is not None:
        of_known, of_fitted = (
            best_possible_recall(train_set, center_form_to_corner_form(config.priors), BOXES_AT_START)
            for config in (known, fitted)
        )
        if of_known >= of_fitted - RECALL_FOR_HEADS:
            return ChosenConfig(known, f"of {files.pretrained_ssd}, whose heads know them")
    return ChosenConfig(fitted, "fitted to the boxes" if fitted != general else None)


def audit_data(
    options: Options,
    config: SSDConfig,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    process: SingleProcess,
) -> Audit:
    """Say and write down what is wrong with the data."""
    run = options.run
    priors = center_form_to_corner_form(config.priors)
    audit = make_audit(train_set, val_set, config.width_height, priors, None if run.dry_run else BOXES_AT_START)
    if process.is_main_process:
        audit.log(str(run.model_dir / AUDIT))
        write_text(run.model_dir / AUDIT, json.dumps(audit.as_json(), indent=1) + "\n")
    require_objects(train_set, options.data.roots)
    if options.data.strict:
        audit.require_flawless()
    return audit


def log_priors(options: Options, chosen: ChosenConfig, train_set: DetectionDataset, audit: Audit) -> None:
    """Say what priors that were chosen for the data are worth."""
    if chosen.why is None:
        return
    published = MODELS[options.net.name].config_at(options.net.size)
    priors = center_form_to_corner_form(published.priors)
    logger.info(
        "priors: %d, %s; best possible recall %.3f, with --priors=%s %.3f",
        len(chosen.config.priors),
        chosen.why,
        audit.boxes.best_possible_recall,
        UPSTREAM,
        best_possible_recall(train_set, priors, None if options.run.dry_run else BOXES_AT_START),
    )


def select_images(data: DataOptions, train_set: DetectionDataset, seed: int) -> None:
    """Leave out the training images that the options say."""
    if not data.negatives:
        train_set.drop_negatives()
    if data.balance:
        train_set.balance(np.random.default_rng(seed))


def choose_repeats(options: Options, images: int, state: checkpoint.RunState | None, process: SingleProcess) -> int:
    """How many times an epoch goes through the images: as asked, as in the run that goes on, or by their number."""
    if options.data.repeat is not None:
        return options.data.repeat
    if state is not None:
        return state.data_order["repeats"]
    epochs = options.schedule.epochs
    steps = epochs * math.ceil(images / options.run.images_per_step(process.world_size))
    repeats = optim.repeats_for(steps, epochs)
    if repeats > 1:
        logger.info(
            "%d images are few: each epoch goes through them %d times, for about %d steps instead of %d; --repeat=1 "
            "for once",
            images,
            repeats,
            repeats * steps,
            steps,
        )
    return repeats


def load_weights(
    net: SSD,
    options: Options,
    source: Path | None,
    state: checkpoint.RunState | None,
    files: pretrained.StartingFiles | None,
    process: SingleProcess,
) -> checkpoint.RunState | None:
    """Fill a net with --resume's weights, else with those of the starting files; returns the state to go on with."""
    if source is None:
        pretrained.initialise(net, files, new_heads=options.net.new_heads)
    elif not resume.load_weights(net, source, state):
        state = None
    process.check_same("starts from other weights", lambda: digest_of(net.state_dict()))
    return state


def make_compute(
    run: RunOptions, net: SSD, device: torch.device, state: checkpoint.RunState | None, process: SingleProcess
) -> Compute:
    """Choose how the run computes; memory formats are measured where nothing has to be repeatable."""
    measures_memory_format = run.seed is None and not run.dry_run
    return choose_compute(
        net,
        device,
        run.amp,
        run.augment_on,
        state=state,
        measured_batch=run.batch_size if measures_memory_format else None,
        process=process,
    )


def make_loaders(
    options: Options,
    net: SSD,
    frozen: Sequence[nn.Module],
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    compute: Compute,
    seed: int,
    process: SingleProcess,
) -> Loaders:
    """Bring images to the net's size and normalisation, in batches of which no part is too small for it."""
    config, run = net.config, options.run
    records = [*train_set.records, *val_set.records]
    cache, why = image_cache.make_cache(run.cache_images, records, run.workers, run.model_dir, process.local_world_size)
    if not run.dry_run:
        logger.info("%s", why)
    augmentation = TrainAugmentation(config.image_size, config.image_mean, config.image_std, options.data.augmentation)
    loaders = Loaders(
        train_set,
        val_set,
        DeferredAugmentation(augmentation) if compute.augment_on == DEVICE else augmentation,
        TestTransform(config.image_size, config.image_mean, config.image_std),
        seed=seed,
        least=max(2, process.world_size * (2 if trains_batch_norm(net, frozen) else 1)),
        process=process,
        cache=cache,
    )
    smallest = min(len(batch) for batch in loaders.train_batches(run.batch_size)) // process.world_size
    check_batch_size(net, smallest * (process.world_size if run.sync_bn else 1), frozen)
    return loaders


def make_trainer(
    options: Options,
    net: SSD,
    frozen: Sequence[nn.Module],
    loaders: Loaders,
    repeats: int,
    compute: Compute,
    source: Path | None,
    state: checkpoint.RunState | None,
    process: SingleProcess,
) -> Trainer:
    """Put the run together, at its beginning or where its state left it; the source is the file of the latter."""
    run = options.run
    images_per_step = run.images_per_step(process.world_size)
    if options.optim.auto_lr:
        logger.info(
            "--auto-lr: rates times %g = %d images per step (batch %d x %d accumulated x %d processes) / %d",
            images_per_step / options.optim.auto_lr,
            images_per_step,
            run.batch_size,
            run.accumulate,
            process.world_size,
            options.optim.auto_lr,
        )
    step_trainer = build_step_trainer(
        net,
        frozen,
        options.optim.scaled_to(images_per_step),
        options.schedule,
        compute,
        sync_bn=run.sync_bn,
        process=process,
    )
    data_order = {
        "images": fingerprint(loaders.train_set),
        "seed": loaders.seed,
        "images a step": images_per_step,
        "repeats": repeats,
        "batches an epoch": loaders.train_batches(run.batch_size).batches_of_epoch,
    }
    progress = resume.restore(step_trainer, state, data_order, options.schedule.epochs)
    program = resume.program_of(process.launcher, sys.argv[0])
    writes = process.is_main_process
    return Trainer(
        step_trainer,
        loaders.open,
        [loaders.val_set.annotation(index) for index in range(len(loaders.val_set))],
        loaders.train_set.ids,
        run,
        checkpointer=checkpoint.Checkpointer(run.model_dir, run.keep_checkpoints, fingerprint(loaders.val_set), state),
        data_order=data_order,
        compute=compute.as_values(),
        progress=progress,
        process=process,
        recorder=make_recorder(run, loaders, source, progress.epoch) if writes and not run.dry_run else None,
        resume_command=resume.resume_command(program, options.argv, auto_resume=run.auto_resume),
        progress_bar=cli.progress if writes else no_progress,
    )


def make_recorder(run: RunOptions, loaders: Loaders, source: Path | None, first_epoch: int) -> RunRecorder:
    """Make what logs, writes and draws the results, after those of the run that goes on."""
    pictures = RunPictures(run.model_dir, loaders.val_set) if run.plots else None
    # Beside a state that was set aside lie the results of the run that replaced it.
    has_results = source is not None and source.name != checkpoint.PREVIOUS_STATE
    return RunRecorder(run.model_dir, pictures, source.parent if has_results else None, first_epoch)


def write_records(options: Options, trainer: Trainer, loaders: Loaders, source: Path | None) -> None:
    """Write `labels.txt`, `priors.json`, `args.json`; of a run that begins, its state and its first images, too.

    Says first what of another run in the folder will be replaced.

    Args:
        options: of the command line.
        trainer: of the run.
        loaders: likewise.
        source: file of the run that goes on, None for one that begins.
    """
    folder = options.run.model_dir
    if any(Path(root).exists() and folder.samefile(root) for root in options.data.roots):
        logger.warning(
            "%s: is both --model-dir and a folder of --data, so labels.txt, which this run writes, is the list of "
            "classes of the next one; name another --model-dir, or add --labels-from-data when classes have changed",
            folder,
        )
    if source is None or not source.parent.samefile(folder):
        for line in describe_previous_run(folder, options.run.keep_checkpoints):
            logger.warning("%s", line)
        checkpoint.set_state_aside(folder)
        trainer.save_state()  # --resume of a run that is killed before its first epoch ends must not find another
    write_priors(folder / PRIORS, trainer.step_trainer.net.config)
    labels.store_labels(folder / "labels.txt", loaders.train_set.class_names)
    facts = {
        "seed": loaders.seed,
        "device": str(trainer.step_trainer.device),
        "processes": trainer.process.world_size,
        "repeats": trainer.data_order["repeats"],
        **trainer.compute,
        "fingerprints": {"training": trainer.data_order["images"], "validation": trainer.checkpointer.validation},
    }
    write_arguments(folder / "args.json", options.argv, options.typed, facts)
    if source is None and not options.run.plots:
        for name in (RESULTS, TRAIN_BATCH, VAL_BATCH):  # of another run, they would belie this one
            (folder / name).unlink(missing_ok=True)
    elif source is None:
        step_trainer = trainer.step_trainer
        batch = loaders.first_batch(MOST_CELLS)
        moved = to_device(batch, step_trainer.device)
        images = step_trainer.net_with_loss.normaliser.render(moved.images).cpu()
        draw_training_batch(folder / TRAIN_BATCH, batch._replace(images=images), loaders.train_set.class_names)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
