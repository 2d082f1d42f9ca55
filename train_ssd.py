#!/usr/bin/env python3
"""Retrain an SSD detector on images of your own.

python3 train_ssd.py --data=data/fruit --model-dir=models/fruit
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import sys

from vision import console
from vision.options.training import make_parser

if __name__ == "__main__":
    console.answer_help(make_parser, sys.argv[1:])  # at once: what is imported below takes seconds

import argparse
import json
import logging
import math
import secrets
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vision import cli
from vision.boxes.forms import center_form_to_corner_form
from vision.datasets import Splits, image_cache, labels, open_splits
from vision.datasets.audit import Audit, best_possible_recall, box_sides, fingerprint, make_audit, require_objects
from vision.datasets.loading import Loaders
from vision.datasets.packed import Records
from vision.engine import bundled_weights, checkpoint, devices, optim, pretrained, resume, schedule, start
from vision.engine.batch_norm import check_batch_size, trains_batch_norm
from vision.engine.execution import choose_execution
from vision.engine.model_ema import ModelEma
from vision.engine.model_folder import describe_disk, describe_previous_run, locked
from vision.engine.process import current_process
from vision.engine.run import Run
from vision.engine.step import TrainingModel, TrainStep, to_device
from vision.engine.trainer import save_state, train, try_out
from vision.nn.multibox_loss import MultiboxLoss
from vision.options.fields import read_values
from vision.options.kinds import AUTO, START_WORDS
from vision.options.training import (
    AUGMENT_ON_DEVICE,
    DEFAULT_RATES,
    IGNORE,
    RATES,
    RECIPES,
    SCHEDULES,
    Options,
    check_combinations,
)
from vision.report.audit_page import save_audit_page
from vision.report.lines import log_dry_run
from vision.report.pace import Pace
from vision.report.records import TABLE, ResultsTable, RunRecorder, Scalars, write_arguments
from vision.report.run_pictures import RESULTS, TRAIN_BATCH, VAL_BATCH, RunPictures, draw_training_batch
from vision.report.sheet import MAX_CELLS
from vision.report.summary import RunSummary
from vision.ssd.choices import (
    ADAMW_RATES,
    BUNDLED_BASE_NET_RATES,
    COCO,
    DEFAULT_NET,
    FITTED_PRIORS,
    UPSTREAM_NET,
    UPSTREAM_PRIORS,
    canonical_name,
)
from vision.ssd.config.ssd_config import SSDConfig
from vision.ssd.data_preprocessing import TestTransform, TrainAugmentation
from vision.ssd.device_augmentation import AugmentingPreprocess, DeferredAugmentation
from vision.ssd.models import MODELS, describe_weights, identify_base_net
from vision.ssd.prior_choice import write_priors
from vision.ssd.ssd import move_net
from vision.ssd.trained_images import TrainedImages
from vision.ssd.weights import digest_of, read_weights
from vision.structures import DataError
from vision.utils.files import remove_parts, write_text
from vision.utils.memory import keep_freed_memory

logger = logging.getLogger(__name__)

#: Boxes that are compared with all priors at every start; a dry run compares all.
BOXES_AT_START = 5000

#: Pictures of a split that are looked for in the other at every start; a dry run looks for all.
PICTURES_AT_START = 2000

#: Best possible recall that is given up for heads that know the classes.
RECALL_FOR_HEADS = 0.01

#: Files of the audit, of the priors and of the log in the model folder.
AUDIT, PRIORS, LOG = "audit.json", "priors.json", "log.txt"


class ChosenConfig(NamedTuple):
    """A net's config.

    Attributes:
        config: input size, normalization and priors.
        why: where the priors come from, for the log; None for priors that were not chosen by the data.
    """

    config: SSDConfig
    why: str | None = None


def parse_args(argv: Sequence[str] | None = None) -> Options:
    """Read the command line; what is not typed depends on the net, the recipe and the preset of rates."""
    parser = make_parser()
    preset, _ = parser.parse_known_args(argv, argparse.Namespace(**dict.fromkeys((*RATES, "net"))))
    by_default = preset.net is None
    if by_default:
        preset.net, by_default = choose_net(preset)
    typed = {name: value for name in RATES if (value := getattr(preset, name)) is not None}
    recipe = dict(RECIPES[preset.recipe])
    if not recipe or typed.get("optimizer", "sgd") != "sgd":
        recipe |= default_rates(preset.net, typed, takes_bundled_start(preset))
    parser.set_defaults(net=preset.net, resolution=MODELS[preset.net].family.base_size, **recipe)
    if preset.schedule:
        parser.set_defaults(**SCHEDULES[preset.schedule])
    args = parser.parse_args(argv, argparse.Namespace(net_by_default=by_default))
    if args.pretrained_ssd == COCO:  # the log begins with the arguments, so the net's name is seen
        args.net = pretrained.COCO_FORMS.get(args.net, args.net)
    check_combinations(parser, args, preset)
    return read_values(Options, args)


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
        return description.net, description.net_by_default
    if args.base_net not in (None, pretrained.IMAGENET) and Path(args.base_net).is_file():
        named = identify_base_net(read_weights(args.base_net))
        if named is not None and MODELS[named].shares_backbone(MODELS[DEFAULT_NET]):
            named = None
    elif args.pretrained_ssd is not None and Path(args.pretrained_ssd).as_posix() in pretrained.PUBLISHED:
        named = UPSTREAM_NET
    elif args.pretrained_ssd not in (None, *START_WORDS) and Path(args.pretrained_ssd).is_file():
        named = describe_weights(read_weights(args.pretrained_ssd), args.pretrained_ssd, with_heads=False).net
    else:
        named = UPSTREAM_NET if args.recipe == "upstream" else None
    return named, named is None


def takes_bundled_start(args: argparse.Namespace) -> bool:
    """Whether a run starts, as far as its options say, from what comes with this program."""
    is_usual = args.base_net is None and args.mb2_width_mult in (None, 1.0)
    return is_usual and args.pretrained_ssd in (None, bundled_weights.VOC)


def default_rates(net: str, typed: Mapping[str, Any], takes_bundled: bool) -> dict[str, Any]:
    """Choose the defaults of optimizer and rates.

    Args:
        net: any accepted name.
        typed: those of `RATES` that are typed.
        takes_bundled: whether the run starts from what comes with this program, which may want rates of its own.
    """
    name = canonical_name(net)
    optimizer = typed.get("optimizer") or ("adamw" if name in ADAMW_RATES and not typed else "sgd")
    own = ADAMW_RATES.get(name) if optimizer == "adamw" else None
    lr, base_net_lr = own or DEFAULT_RATES[optimizer]
    if takes_bundled and optimizer == "sgd":
        base_net_lr = BUNDLED_BASE_NET_RATES.get(name) or base_net_lr
    return {"optimizer": optimizer, "lr": lr, "base_net_lr": base_net_lr}


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    options = parse_args(argv)
    with current_process() as process, ExitStack() as stack:
        cli.setup_logging(options.log_level if process.is_main_process else "critical")
        log_file = stack.enter_context(console.LogFile())
        run = Run(options, argv, process)
        with process.failing_together():
            log_command(options, argv)  # says at once what cannot be had
            run.device = choose_device(run)
            if process.is_main_process:
                stack.enter_context(cli.writable_folder(options.model_dir, "--model-dir"))
                stack.enter_context(locked(options.model_dir, argv))
                run.progress_bar = cli.progress
            run.source, run.state = process.broadcast_from_main(lambda: find_run(options))
            run.seed = process.broadcast_from_main(lambda: choose_seed(run))
            torch.manual_seed(run.seed)
            logger.info("seed: %d", run.seed)

            run.train_set, run.val_set = open_datasets(run)
            weights = find_weights(run)
            chosen = process.broadcast_from_main(lambda: choose_config(run, weights))
            audit = audit_data(run, chosen.config)
            log_priors(run, chosen, audit)
            select_images(run)

            run.net = start.build_net(options, run.train_set.class_names, chosen.config)
            load_weights(run, weights)
            run.repeats = choose_repeats(run)
            run.train_set.repeat(run.repeats)
            run.frozen = optim.freeze(run.net, options)

            if process.is_main_process:
                log_disk(run)
            run.execution = choose_execution(run)
            run.loaders = make_loaders(run)
            run.train_step = make_train_step(run)
            run.data_order = describe_data_order(run)
            resume.restore(run)
            run.checkpointer = make_checkpointer(run)
            if process.is_main_process and options.dry_run:
                config = chosen.config
                path = options.model_dir / "audit.png"
                save_audit_page(path, run.train_set, audit, config.width_height, config.priors)
            elif process.is_main_process:
                run.recorder = make_recorder(run)
                write_records(run)
                log_file.open(options.model_dir / LOG, goes_on=run.state is not None)
        if options.dry_run:
            log_dry_run(try_out(run), options.epochs, options.validation_epochs)
            logger.info("Dry run done: nothing was trained; %s has all of the audit", options.model_dir / AUDIT)
            return 0
        return train(run)


def log_command(options: Options, argv: Sequence[str]) -> None:
    """Say what was typed, and the settings that matter most; all options are in `args.json`."""
    width, height = start.general_config(options).width_height
    logger.info("%s", shlex.join([Path(sys.argv[0]).name, *argv]))
    logger.info(
        "%s at %dx%d, %d epochs, batches of %d, %s with --lr=%g --base-net-lr=%g",
        canonical_name(options.net),
        width,
        height,
        options.epochs,
        options.batch_size,
        options.optimizer,
        options.lr,
        options.base_net_lr,
    )
    logger.debug("%s", argparse.Namespace(**vars(options)))


def choose_device(run: Run) -> torch.device:
    """Device of this process, from --device and --use-cuda."""
    device, why = devices.choose_device(run.options.device, run.options.use_cuda)
    device = run.process.select_device(device)
    logger.info(why)
    if device.type == "cpu":
        keep_freed_memory()
    if run.process.world_size > 1:
        logger.info(
            "%d processes: batches of %d in each, %d images per step (--auto-lr scales the rates to that)",
            run.process.world_size,
            run.options.batch_size,
            run.images_per_step,
        )
    return device


def find_run(options: Options) -> tuple[Path | None, checkpoint.RunState | None]:
    """Find the run to go on with, see `resume.find_run`, and remove what a killed one left half written."""
    if not options.dry_run and (stray := remove_parts(options.model_dir)):
        logger.info("%s: removed %d temporary files of a run that was killed", options.model_dir, stray)
    resumes_own = options.auto_resume and checkpoint.can_resume(options.model_dir)
    return resume.find_run("" if resumes_own else options.resume, options.model_dir)


def choose_seed(run: Run) -> int:
    """The seed typed, that of the run that goes on, or a new one."""
    if run.options.seed is not None:
        return run.options.seed
    return secrets.randbelow(2**31) if run.state is None else run.state.seed


def open_datasets(run: Run) -> Splits:
    """Read what the datasets hold, the same in all processes; marks the objects that are to be ignored."""
    options, width_height = run.options, start.general_config(run.options).width_height
    run.stratified = run.state is None or run.state.data_order.stratified
    with run.process.main_process_first():
        splits = open_splits(
            options.dataset_type,
            options.data,
            replace(cli.reading_options(options), stratified=run.stratified),
            cli.progress,
            validation_roots=options.validation_dataset,
        )
    for dataset in splits:
        dataset.ignores_difficult = options.difficult == IGNORE
        if count := dataset.ignore_small(options.min_object, width_height):
            logger.info(
                "%s: %d objects are smaller than %g pixels at %dx%d and ignored (--min-object)",
                dataset.title,
                count,
                options.min_object,
                *width_height,
            )
    run.process.check_same("reads other images", lambda: tuple(map(fingerprint, splits)))
    return splits


def find_weights(run: Run) -> pretrained.WeightsSource | None:
    """Find the weights that a run which begins takes; the main process downloads what is missing."""
    if run.source is not None:
        return None
    options = run.options
    with run.process.main_process_first():
        weights = start.find_starting_files(options, downloads=not options.dry_run, progress_bar=cli.progress)
    rate = bundled_weights.base_net_rate_of(weights.detector)
    if rate is not None and rate == options.base_net_lr:
        logger.info("--base-net-lr=%g, as suits %s", rate, weights.detector)
    return weights


def choose_config(run: Run, weights: pretrained.WeightsSource | None) -> ChosenConfig:
    """The net's input size, normalization and priors.

    A run that goes on keeps its own; where it is of another net or size, the loading of its weights will say so. One
    that begins keeps the priors of heads that know its classes, unless others would reach more of its boxes.
    """
    options, train_set = run.options, run.train_set
    general = start.general_config(options)
    if weights is None:
        assert run.source is not None  # else `find_weights` has found some
        published = MODELS[options.net].config_at(options.resolution)
        config = resume.config_of_run(run.source, run.state, options.net, published.width_height) or published
        if options.priors not in (None, FITTED_PRIORS) and not torch.equal(general.priors, config.priors):
            logger.warning("--priors=%s is for new runs: this one goes on with its own priors", options.priors)
        return ChosenConfig(config)
    sides, of_classes = box_sides(train_set, general.width_height)
    for advice in (start.better_net(options), start.better_for_small_objects(options, general, sides)):
        if advice is not None:
            logger.info("%s", advice)
    fitted = start.fitted_config(options, general, sides, of_classes)
    known = start.known_config(options, train_set.class_names, weights.detector)
    if known is not None:
        of_known, of_fitted = (
            best_possible_recall(train_set, center_form_to_corner_form(config.priors), BOXES_AT_START)
            for config in (known, fitted)
        )
        if of_known >= of_fitted - RECALL_FOR_HEADS:
            return ChosenConfig(known, f"of {weights.detector}, whose heads know them")
    return ChosenConfig(fitted, "fitted to the boxes" if fitted != general else None)


def audit_data(run: Run, config: SSDConfig) -> Audit:
    """Say and write down what is wrong with the data."""
    options = run.options
    priors = center_form_to_corner_form(config.priors)
    most_boxes = None if options.dry_run else BOXES_AT_START
    max_pictures = None if options.dry_run else PICTURES_AT_START
    audit = make_audit(run.train_set, run.val_set, config.width_height, priors, most_boxes, max_pictures)
    if run.process.is_main_process:
        audit.log(str(options.model_dir / AUDIT))
        write_text(options.model_dir / AUDIT, json.dumps(audit.as_json(), indent=1) + "\n")
    require_objects(run.train_set, options.data)
    if options.strict:
        audit.require_flawless()
    return audit


def log_priors(run: Run, chosen: ChosenConfig, audit: Audit) -> None:
    """Say what priors that were chosen for the data are worth."""
    if chosen.why is None:
        return
    published = MODELS[run.options.net].config_at(run.options.resolution)
    priors = center_form_to_corner_form(published.priors)
    logger.info(
        "priors: %d, %s; best possible recall %.3f, with --priors=%s %.3f",
        len(chosen.config.priors),
        chosen.why,
        audit.boxes.best_possible_recall,
        UPSTREAM_PRIORS,
        best_possible_recall(run.train_set, priors, None if run.options.dry_run else BOXES_AT_START),
    )


def select_images(run: Run) -> None:
    """Leave out the training images that the options say."""
    if run.options.no_negatives:
        run.train_set.drop_negatives()
    if run.options.balance_data:
        run.train_set.balance(np.random.default_rng(run.seed))


def load_weights(run: Run, weights: pretrained.WeightsSource | None) -> None:
    """Fill the net with --resume's weights, else with those to start from; it takes note of the images.

    Where a file has weights only, the run has no state from here on.
    """
    if weights is not None:
        pretrained.initialize(run.net, weights, new_heads=run.options.new_heads)
    elif run.source is not None and not resume.load_weights(run.net, run.source, run.state):
        run.state = None
    run.process.check_same("starts from other weights", lambda: digest_of(run.net.state_dict()))
    train_digests, val_digests = (of.records.texts("digest") for of in (run.train_set, run.val_set))
    if run.net.trained_on is not None and (known := run.net.trained_on.has(val_digests).count(True)):
        logger.warning(
            "%d of the %d validation images are among those that the starting weights were trained on: the results "
            "will say little about new images",
            known,
            len(val_digests),
        )
    run.net.trained_on = TrainedImages.of(train_digests).joined(run.net.trained_on)


def choose_repeats(run: Run) -> int:
    """How many times an epoch goes through the images: as asked, as in the run that goes on, or by their number."""
    if run.options.repeat is not None:
        return run.options.repeat
    if run.state is not None:
        return run.state.data_order.repeats
    images, epochs = len(run.train_set), run.options.epochs
    steps = epochs * math.ceil(images / run.images_per_step)
    repeats = schedule.repeats_for(steps, epochs)
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


def log_disk(run: Run) -> None:
    """Say how much room the run's files will take; a warning where there is less."""
    first_epoch = 0 if run.state is None else run.state.progress.epoch
    line, is_enough = describe_disk(run.options.model_dir, run.net, run.options, first_epoch)
    logger.log(logging.INFO if is_enough else logging.WARNING, "%s", line)


def make_loaders(run: Run) -> Loaders:
    """Bring images to the net's size and normalization, in batches of which no part is too small for it."""
    options, config, process = run.options, run.net.config, run.process
    cache, why = image_cache.make_cache(
        options.cache_images,
        Records.joined([run.train_set.records, run.val_set.records]),
        options.workers,
        options.model_dir,
        process.local_world_size,
    )
    if not options.dry_run:
        logger.info("%s", why)
    augmentation = TrainAugmentation(config.image_size, config.image_mean, config.image_std, options.augmentation)
    on_device = run.execution.augment_on == AUGMENT_ON_DEVICE
    loaders = Loaders(
        run.train_set,
        run.val_set,
        DeferredAugmentation(augmentation) if on_device else augmentation,
        TestTransform(config.image_size, config.image_mean, config.image_std),
        seed=run.seed,
        least=max(2, process.world_size * (2 if trains_batch_norm(run.net, run.frozen) else 1)),
        process=process,
        cache=cache,
    )
    smallest = min(len(batch) for batch in loaders.train_batches(options.batch_size)) // process.world_size
    check_batch_size(run.net, smallest * (process.world_size if options.sync_bn else 1), run.frozen)
    return loaders


def make_train_step(run: Run) -> TrainStep:
    """Put the net on its device, and make what trains it."""
    options, net, execution = run.options, run.net, run.execution
    if options.auto_lr:
        logger.info(
            "--auto-lr: rates times %g = %d images per step (batch %d x %d accumulated x %d processes) / %d",
            run.images_per_step / options.auto_lr,
            run.images_per_step,
            options.batch_size,
            options.accumulate,
            run.process.world_size,
            options.auto_lr,
        )
    move_net(net, execution.device, execution.channels_last)
    average = ModelEma(net) if options.ema else None
    if options.sync_bn:
        run.process.convert_sync_batchnorm(net)
    config = net.config
    preprocess = AugmentingPreprocess(config.image_size, config.image_mean, config.image_std)
    criterion = MultiboxLoss(beta=options.smooth_l1_beta)
    return TrainStep(
        TrainingModel(net, preprocess, criterion, execution.precision).to(execution.device),
        optim.make_optimizer(net, schedule.scale_rates(options, run.images_per_step)),
        options,
        frozen=run.frozen,
        average=average,
        process=run.process,
    )


def describe_data_order(run: Run) -> checkpoint.DataOrder:
    """What decides the order of images within an epoch."""
    return checkpoint.DataOrder(
        images=fingerprint(run.train_set),
        stratified=run.stratified,
        seed=run.seed,
        images_per_step=run.images_per_step,
        repeats=run.repeats,
        batches_per_epoch=run.loaders.train_batches(run.options.batch_size).batches_of_epoch,
    )


def make_checkpointer(run: Run) -> checkpoint.Checkpointer:
    """Make what writes checkpoints, and knows the best epoch so far."""
    options = run.options
    return checkpoint.Checkpointer(options.model_dir, options.keep_checkpoints, fingerprint(run.val_set), run.state)


def make_recorder(run: Run) -> RunRecorder:
    """Make what logs, writes and draws the results, after those of the run that goes on."""
    options, folder = run.options, run.options.model_dir
    source = None if run.state is None else run.source
    # Beside a state that was set aside lie the results of the run that replaced it.
    earlier = None if source is None or source.name == checkpoint.PREVIOUS_STATE else source.parent
    return RunRecorder(
        ResultsTable(folder / TABLE, earlier and earlier / TABLE, run.train_state.epoch),
        Scalars(folder / "tensorboard", earlier and earlier / "tensorboard", run.train_state.epoch),
        Pace(options.epochs, options.validation_epochs, run.images_per_step),
        RunSummary(
            folder / checkpoint.BEST,
            {name: n // run.repeats for name, n in run.train_set.class_counts(with_difficult=False).items()},
            run.annotations,
            run.net.config.width_height,
            next_commands(options),
        ),
        RunPictures(folder, run.val_set) if options.plots else None,
        console.TerminalStepBar,
    )


def next_commands(options: Options) -> dict[str, str]:
    """What to do with a trained net, a command by what it is for."""
    data = options.validation_dataset or options.data
    kind = [] if options.dataset_type == AUTO else [f"--dataset-type={options.dataset_type}"]
    folders = [f"--data={data[0]}"] if len(data) == 1 else ["--data", *data]
    evaluate = [*console.command_of("eval_ssd.py"), f"--model={options.model_dir}", *kind, *folders]
    export = [*console.command_of("onnx_export.py"), f"--model-dir={options.model_dir}"]
    return {"measure it, see its errors": shlex.join(evaluate), "export it for the device": shlex.join(export)}


def write_records(run: Run) -> None:
    """Write `labels.txt`, `priors.json`, `args.json`; of a run that begins, its state and its first images, too.

    Says first what of another run in the folder will be replaced.
    """
    options, folder, class_names = run.options, run.options.model_dir, run.train_set.class_names
    begins = run.state is None
    if any(Path(root).exists() and folder.samefile(root) for root in options.data):
        logger.warning(
            "%s: is both --model-dir and a folder of --data, so labels.txt, which this run writes, is the list of "
            "classes of the next one; name another --model-dir, or add --labels-from-data when classes have changed",
            folder,
        )
    if begins or run.source is None or not run.source.parent.samefile(folder):
        for line in describe_previous_run(folder, options.keep_checkpoints):
            logger.warning("%s", line)
        checkpoint.set_state_aside(folder)
        save_state(run)  # --resume of a run that is killed before its first epoch ends must not find another
    write_priors(folder / PRIORS, run.net.config)
    labels.store_labels(folder / "labels.txt", class_names)
    facts = {
        "seed": run.seed,
        "device": str(run.train_step.device),
        "processes": run.process.world_size,
        "repeats": run.repeats,
        **asdict(run.execution.choice),
        "fingerprints": {"training": run.data_order.images, "validation": run.checkpointer.validation_fingerprint},
    }
    write_arguments(folder / "args.json", run.argv, vars(options), facts)
    if begins and not options.plots:
        for name in (RESULTS, TRAIN_BATCH, VAL_BATCH):  # of another run, they would contradict this one
            (folder / name).unlink(missing_ok=True)
    elif begins:
        batch = run.loaders.first_batch(MAX_CELLS)
        moved = to_device(batch, run.train_step.device)
        images = run.train_step.model.preprocess.render(moved.images).cpu()
        names = [Path(path).name for path in run.train_set.records.texts("image_path")]
        draw_training_batch(folder / TRAIN_BATCH, batch._replace(images=images), class_names, names)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
