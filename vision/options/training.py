"""The options of train_ssd.py: their names, defaults, kinds and help stand here and nowhere else.

A new option is a field of one of these classes, and its use. What it contradicts goes into `check_combinations`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vision.console import (
    Parser,
    count,
    count_or,
    fraction,
    number,
    one_of,
    open_fraction,
    str2bool,
    user_path,
    user_place,
)
from vision.options.fields import add_option, option, options_of
from vision.options.kinds import (
    AUTO,
    DATASET_TYPES,
    dataset_type,
    device_name,
    epochs_list,
    net_name,
    norm_limit,
    resolution,
    word_or_file,
)
from vision.ssd.choices import (
    ADAMW_RATES,
    AUGMENTATIONS,
    BASE_SIZE,
    BUNDLED_BASE_NET_RATES,
    CANONICAL_NAMES,
    COCO,
    DEFAULT_NET,
    FITTED_PRIORS,
    IMAGENET,
    SCRATCH,
    TORCHVISION,
    UPSTREAM_PRIORS,
    VOC,
    WIDTH_RANGE,
)

#: Fraction of the images that is held out for validation where nothing says which.
VAL_SPLIT = 0.2

#: What difficult objects are to training: neither positive nor negative, or background, as in upstream's code, which
#: drops them.
IGNORE, BACKGROUND = DIFFICULT = ("ignore", "background")

#: What --cache-images may say, and the fraction of the available memory that auto takes at most.
CACHE_AUTO, CACHE_RAM, CACHE_DISK, CACHE_OFF = CACHE_CHOICES = ("auto", "ram", "disk", "off")
MAX_CACHE_FRACTION = 0.25

AMP_CHOICES = ("auto", "off", "bf16", "fp16")

#: What --augment-on may say.
AUGMENT_AUTO, AUGMENT_ON_CPU, AUGMENT_ON_DEVICE = AUGMENT_ON = ("auto", "cpu", "device")

#: Rates of heads and backbone by optimizer.
DEFAULT_RATES: Mapping[str, tuple[float, float]] = {"sgd": (0.03, 0.01), "adam": (1e-3, 3e-4), "adamw": (1e-3, 3e-4)}
OPTIMIZERS = tuple(DEFAULT_RATES)
SCHEDULERS = ("cosine", "multi-step")

#: Options that go together: where one is typed, the others are not the net's own.
RATES = ("optimizer", "lr", "base_net_lr", "extra_layers_lr", "momentum")

#: The batch that the default rates are meant for: the default batch.
REFERENCE_BATCH = 4

#: Where nothing else is asked for, warm-up lasts this many iterations, but not more than this fraction of the run.
WARMUP_ITERATIONS = 500
WARMUP_FRACTION = 0.1

#: Target number of steps for new heads: small datasets are repeated within an epoch to reach it. A run must have so
#: many epochs for each repeat, so that a short run stays short.
TARGET_STEPS = 1500
EPOCHS_PER_REPEAT = 5

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

#: Presets of the Detectron tables: epochs, milestones, warm-up.
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    f"{times}x": {
        "epochs": 12 * times,
        "scheduler": "multi-step",
        "milestones": (8 * times, 11 * times),
        "gamma": 0.1,
        "warmup_iters": 500 * times,
        "warmup_factor": 1 / 3,
    }
    for times in (1, 2)
}

#: Sets of defaults; an option that is typed counts.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "upstream": {
        "priors": UPSTREAM_PRIORS,
        "repeat": 1,
        "augmentation": "ssd",
        "difficult": BACKGROUND,
        "optimizer": "sgd",
        "lr": 0.01,
        "base_net_lr": 0.001,
        "clip_grad": None,
        "smooth_l1_beta": 1.0,
    },
}

_RATE = number(float, 0)
_SGD_LR, _SGD_BASE_NET_LR = DEFAULT_RATES["sgd"]
_ADAM_LR, _ADAM_BASE_NET_LR = DEFAULT_RATES["adam"]


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Which images a run trains and validates on."""

    group: ClassVar[str] = "data"

    dataset_type: str = option(
        "--dataset-type",
        default=AUTO,
        kind=dataset_type,
        help=f"one of {', '.join(DATASET_TYPES)}; auto goes by what is on disk; or package.module:Class, a reader of "
        "your own",
    )
    data: tuple[str, ...] = option(
        "--data",
        "--datasets",
        default=("data",),
        kind=user_place,
        nargs="+",
        metavar="FOLDER",
        help="folders of datasets, merged by class name",
    )
    validation_dataset: tuple[str, ...] = option(
        "--validation-dataset",
        default=(),
        kind=user_place,
        nargs="+",
        metavar="FOLDER",
        help="folders to validate on, whatever lists --data has; their test or validation images, else all",
    )
    val_split: float | None = option(
        "--val-split",
        default=None,
        kind=open_fraction,
        help="fraction of the training images to hold out for validation, whatever lists there are (default: take the "
        f"lists, and hold out {VAL_SPLIT} where there is none)",
    )
    include_depiction: bool = option(
        "--include-depiction", default=False, help="Open Images: take drawings and sculptures of things for the things"
    )
    min_object: float = option(
        "--min-object",
        default=0.0,
        kind=number(float, 0),
        metavar="PIXELS",
        help="objects with both sides shorter than this, at the net's size, count as difficult: they are neither "
        "trained on nor counted",
    )
    cache: bool = option(
        "--no-cache", default=True, help="read every file again, instead of those that changed since the last start"
    )
    labels_from_data: bool = option(
        "--labels-from-data",
        default=False,
        help="the classes are the names found in the annotations, whatever list of classes there is",
    )
    difficult: str = option(
        "--difficult",
        default=IGNORE,
        kind=one_of("treatment", DIFFICULT),
        help="objects that are marked difficult, or are crowds or groups. ignore: training takes them neither for "
        "objects nor for background; background: they are dropped, so that they count as background",
    )
    no_negatives: bool = option("--no-negatives", default=False, help="leave out training images without objects")
    strict: bool = option(
        "--strict", default=False, help="end the run if anything in the data is left out, repaired or suspect"
    )
    balance_data: bool = option(
        "--balance-data", default=False, help="draw as many images of each class as the rarest has"
    )
    augmentation: str = option(
        "--augmentation",
        default="light",
        kind=one_of("augmentation", AUGMENTATIONS),
        help="light: crop and mirror; ssd: with the paper's expansion and colors; none",
    )
    repeat: int | None = option(
        "--repeat",
        default=None,
        kind=count_or("auto"),
        help="times that an epoch goes through the images (default: auto: more than once where a run would have fewer "
        f"than {TARGET_STEPS} steps, at most once for {EPOCHS_PER_REPEAT} epochs)",
    )
    cache_images: str = option(
        "--cache-images",
        default=CACHE_AUTO,
        kind=one_of("place", CACHE_CHOICES),
        help="ram: keep images in memory once decoded; disk: in an unnamed file in --model-dir, as long as the run "
        f"lasts; auto: in memory where they take at most {MAX_CACHE_FRACTION} of what is available; off",
    )


@dataclasses.dataclass(frozen=True)
class NetOptions:
    """Which net is trained.

    Attributes:
        net_by_default: nothing named the net; its export is then called as the tutorial's next command expects.
    """

    group: ClassVar[str] = "net"

    net: str = option(
        "--net",
        default=DEFAULT_NET,
        kind=net_name,
        help=f"one of {', '.join(CANONICAL_NAMES)} (default: that of --resume, --pretrained-ssd or --base-net, else "
        f"{DEFAULT_NET})",
    )
    resolution: int | tuple[int, int] = option(
        "--resolution",
        default=BASE_SIZE,
        kind=resolution,
        help=f"the network's input in pixels, N or WxH (default: {BASE_SIZE}; 320 for mb3-ssd-lite)",
    )
    mb2_width_mult: float | None = option(
        "--mb2-width-mult",
        default=None,
        kind=number(float, *WIDTH_RANGE),
        help=f"width of MobileNetV2, from {WIDTH_RANGE[0]} to {WIDTH_RANGE[1]} (default: as trained, else 1.0)",
    )
    priors: str | None = option(
        "--priors",
        default=None,
        kind=user_place,
        help="auto: fitted to the boxes to train on; upstream: those of published checkpoints; coco: for objects of "
        "all sizes; or a priors.json (default: those of the run that is resumed, or of heads that know the classes, "
        "else auto)",
    )
    net_by_default: bool = False


@dataclasses.dataclass(frozen=True)
class StartOptions:
    """Which weights a run starts from."""

    group: ClassVar[str] = "starting weights (--resume over --base-net over --pretrained-ssd)"

    base_net: str | None = option(
        "--base-net",
        default=None,
        kind=user_place,
        help=f"file of backbone weights; {IMAGENET}: torchvision's, for {', '.join(TORCHVISION[IMAGENET])}",
    )
    pretrained_ssd: str | None = option(
        "--pretrained-ssd",
        default=None,
        kind=word_or_file,
        help="file of a whole SSD with the same backbone; its heads are taken over for other classes and priors, too; "
        f"{COCO}: torchvision's, for {', '.join(TORCHVISION[COCO])}; {VOC}: what comes with this program, for "
        f"{', '.join(BUNDLED_BASE_NET_RATES)}; {SCRATCH} for scratch (default: the published one, else what comes "
        "with this program)",
    )
    new_heads: bool = option(
        "--new-heads", default=False, help="draw the heads at random, instead of those of --pretrained-ssd"
    )
    resume: str | None = option(
        "--resume",
        default=None,
        kind=user_place,
        nargs="?",
        const="",
        help="go on with a run: a file, a model folder, or without value --model-dir's newest",
    )
    auto_resume: bool = option(
        "--auto-resume",
        default=False,
        help="go on with --model-dir's run if there is one, else start: for service managers",
    )


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """Optimizer, rates, frozen parts and box loss."""

    group: ClassVar[str] = "optimization"

    recipe: str = option(
        "--recipe",
        default="default",
        kind=one_of("recipe", tuple(RECIPES)),
        help="upstream: its priors, augmentation, rates and box loss, each image once an epoch; other options that are "
        "typed count",
    )
    optimizer: str = option(
        "--optimizer",
        default="sgd",
        kind=one_of("optimizer", OPTIMIZERS),
        help=f"{', '.join(OPTIMIZERS)} (default: sgd; for {', '.join(ADAMW_RATES)} adamw at rates of its own, unless "
        "one is typed)",
    )
    lr: float = option(
        "--lr",
        "--learning-rate",
        default=_SGD_LR,
        kind=_RATE,
        help=f"rate of the prediction heads (default: {_SGD_LR:g}; of adam and adamw {_ADAM_LR:g})",
    )
    momentum: float = option("--momentum", default=0.9, kind=fraction, help="of SGD; Adam's first beta")
    weight_decay: float = option("--weight-decay", default=5e-4, kind=_RATE, help="of all weights")
    bias_decay: bool = option("--no-bias-decay", default=True, help="biases and batch norms do not decay")
    base_net_lr: float = option(
        "--base-net-lr",
        default=_SGD_BASE_NET_LR,
        kind=_RATE,
        help=f"rate of the backbone (default: {_SGD_BASE_NET_LR:g}; of adam and adamw {_ADAM_BASE_NET_LR:g}"
        + "".join(f"; from {net}'s bundled start {rate:g}" for net, rate in BUNDLED_BASE_NET_RATES.items() if rate)
        + ")",
    )
    extra_layers_lr: float | None = option(
        "--extra-layers-lr",
        default=None,
        kind=_RATE,
        help="rate of add-ons, pyramid and extra layers (default: --lr)",
    )
    freeze_base_net: bool = option(
        "--freeze-base-net", default=False, help="freeze the backbone, with the statistics of its batch norm"
    )
    freeze_net: bool = option("--freeze-net", default=False, help="freeze all but the prediction heads")
    auto_lr: int | None = option(
        "--auto-lr",
        default=None,
        kind=count,
        nargs="?",
        const=REFERENCE_BATCH,
        help="rates are meant for batches of this size, and scaled to the run's (default: off; without value "
        f"{REFERENCE_BATCH})",
    )
    clip_grad: float | None = option(
        "--clip-grad", default=10.0, kind=norm_limit, help="largest norm of all gradients together, or none"
    )
    smooth_l1_beta: float = option(
        "--smooth-l1-beta",
        default=0.3,
        kind=_RATE,
        help="errors of boxes, in encoded units, count by their square below this, and by their size above; 0 for L1",
    )
    ema: bool = option("--ema", default=False, help="validate and save an exponential average of the weights")


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """How rates change over the epochs."""

    group: ClassVar[str] = "schedule"

    epochs: int = option("--epochs", "--num-epochs", default=30, kind=count, help="times through the images")
    scheduler: str = option(
        "--scheduler", default="cosine", kind=one_of("scheduler", SCHEDULERS), help="cosine or multi-step"
    )
    milestones: tuple[int, ...] = option(
        "--milestones", default=(80, 100), kind=epochs_list, help="epochs, for multi-step"
    )
    gamma: float = option("--gamma", default=0.1, kind=_RATE, help="factor at each milestone, for multi-step")
    t_max: float | None = option(
        "--t-max",
        default=None,
        kind=number(float, 0, above=True),
        help="epochs in which cosine falls to zero; after them the rate rises again (default: --epochs)",
    )
    schedule: str | None = option(
        "--schedule",
        default=None,
        kind=one_of("schedule", tuple(SCHEDULES)),
        help="preset of the Detectron tables: 1x is 12 epochs, rates divided by 10 after 8 and 11, 500 iterations of "
        "warm-up; 2x twice as long; other options that are typed count",
    )
    warmup_epochs: float | None = option(
        "--warmup-epochs", default=None, kind=_RATE, help="epochs in which rates rise at the start"
    )
    warmup_iters: int | None = option(
        "--warmup-iters",
        default=None,
        kind=number(int, 0),
        help=f"the same in iterations (default: {WARMUP_ITERATIONS}, at most {WARMUP_FRACTION} of the run)",
    )
    warmup_factor: float | None = option(
        "--warmup-factor",
        default=None,
        kind=fraction,
        help="by what rates are multiplied in the first iteration, 1/3 to 0 are usual (default: one step of the rise)",
    )


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run goes about training, and where its files go."""

    group: ClassVar[str] = "run"

    dry_run: bool = option(
        "--dry-run",
        default=False,
        help="everything but the training: decode every image, audit the data, try a few steps; downloads nothing",
    )
    batch_size: int = option(
        "--batch-size", default=REFERENCE_BATCH, kind=count, help="images per batch, of each process"
    )
    accumulate: int = option("--accumulate", default=1, kind=count, help="batches that make one step")
    workers: int = option(
        *("--workers", "--num-workers"), default=2, kind=number(int, 0), help="loader processes, 0 for none"
    )
    validation_epochs: int = option(
        "--validation-epochs",
        default=1,
        kind=count,
        help="epochs between validations; the last epoch is always validated",
    )
    validation_mean_ap: bool = option(
        "--validation-mean-ap",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="compute mAP when validating",
    )
    patience: int | None = option(
        "--patience",
        default=None,
        kind=count,
        help="stop after this many validations without improvement; the rate then never reaches zero, so the result "
        "may be worse",
    )
    checkpoint_steps: int | None = option(
        "--checkpoint-steps", default=None, kind=count, help="steps after which the state is saved within an epoch"
    )
    keep_checkpoints: int | None = option(
        "--keep-checkpoints",
        default=None,
        kind=count,
        help="keep this many of the newest checkpoints (default: all)",
    )
    amp: str = option(
        "--amp",
        default="auto",
        kind=one_of("precision", AMP_CHOICES),
        help="mixed precision: auto where the device is made for it, off, bf16 or fp16",
    )
    augment_on: str = option(
        "--augment-on",
        default=AUGMENT_AUTO,
        kind=one_of("place", AUGMENT_ON),
        help="cpu: loader processes crop, resize, mirror and color; device: they cut out, the net's device does the "
        "rest; auto: device on a GPU",
    )
    debug_steps: int = option("--debug-steps", default=10, kind=count, help="steps between log lines")
    seed: int | None = option(
        "--seed",
        default=None,
        kind=number(int, 0),
        help="of weights, order and augmentation (default: a new one, logged)",
    )
    sync_bn: bool = option(
        "--sync-bn",
        default=False,
        help="batch norm sees the images of all processes that torchrun started; GPUs only",
    )
    device: str = option(
        "--device",
        default="auto",
        kind=device_name,
        help="auto, cpu, cuda, cuda:N or mps; auto takes the best there is",
    )
    use_cuda: bool = option(
        "--use-cuda",
        default=True,
        kind=str2bool,
        nargs="?",
        const=True,
        help="--use-cuda=false stays on the CPU",
        off=("--no-cuda", "the same as --use-cuda=false"),
    )
    model_dir: Path = option(
        "--model-dir",
        "--checkpoint-folder",
        default=Path("models"),
        kind=user_path,
        metavar="FOLDER",
        help="where files are written",
    )
    plots: bool = option(
        "--no-plots",
        default=True,
        help="neither results.png nor train_batch.jpg and val_batch.jpg; numbers are written all the same",
    )
    log_level: str = option(
        "--log-level", default="info", kind=one_of("log level", LOG_LEVELS), help=", ".join(LOG_LEVELS)
    )


@dataclasses.dataclass(frozen=True)
class Options(RunOptions, ScheduleOptions, OptimOptions, StartOptions, NetOptions, DataOptions):
    """All options of train_ssd.py, by name. Python puts the fields of the last parent first."""

    @property
    def prior_choice(self) -> str:
        """What --priors means for a run that begins."""
        keeps_heads = self.pretrained_ssd == COCO and not self.new_heads
        return self.priors or (UPSTREAM_PRIORS if keeps_heads else FITTED_PRIORS)

    def images_per_step(self, world_size: int) -> int:
        """Number of images that all processes learn from in a step."""
        return self.batch_size * self.accumulate * world_size


#: Groups of help, in order.
GROUPS = (DataOptions, NetOptions, StartOptions, OptimOptions, ScheduleOptions, RunOptions)

#: Options that people need first, in order.
FIRST = (
    *("data", "dataset_type", "model_dir", "net", "resolution", "pretrained_ssd", "epochs", "batch_size"),
    *("resume", "dry_run"),
)

_DESCRIPTION = """Retrain an SSD detector on images of your own. Example:

  python3 train_ssd.py --data=data/fruit --model-dir=models/fruit --epochs=30

README.md leads from data to a detector, docs/training.md says more about training.
"""


def make_parser() -> Parser:
    """Make the parser of train_ssd.py, with the options that people need first in front."""
    parser = Parser(description=_DESCRIPTION, usage="%(prog)s [options]")
    first = parser.add_argument_group("the ten options to know first")
    for name in FIRST:
        add_option(first, Options, name)
    for values in GROUPS:
        group = parser.add_argument_group(values.group)
        for field, _ in options_of(values):
            if field.name not in FIRST:
                add_option(group, values, field.name)
    return parser


def check_combinations(parser: argparse.ArgumentParser, args: argparse.Namespace, typed: argparse.Namespace) -> None:
    """End with an error if options contradict each other.

    Args:
        parser: of the options.
        args: their values.
        typed: their values before a preset of --schedule set any.
    """
    if args.warmup_epochs is not None and typed.warmup_iters is not None:
        parser.error("--warmup-epochs and --warmup-iters say the same; leave one out")
    if args.validation_dataset and args.val_split is not None:
        parser.error("--validation-dataset and --val-split both say what to validate on; leave one out")
    if args.auto_resume and args.resume is not None:
        parser.error("--auto-resume and --resume contradict each other; leave one out")
    if args.base_net and args.pretrained_ssd and args.resume is None:
        parser.error("--base-net and --pretrained-ssd both name starting weights; leave one out")
    if args.new_heads and (args.base_net or args.pretrained_ssd == SCRATCH):
        parser.error("--new-heads is about the heads of --pretrained-ssd; leave one of the options out")
