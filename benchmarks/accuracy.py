#!/usr/bin/env python3
r"""Train settings on datasets with several seeds, as a user would, and compare COCO's AP on the test images.

    python3 benchmarks/accuracy.py --runs=runs --data bccd=data/bccd --seeds 1 2 3 --common='--epochs=20' \
        --setting lite='--net=mb1-ssd-lite' --setting upstream='--net=mb1-ssd --t-max=100'

The same command again goes on where it was stopped, and trains nothing that is done. Runs lie in
RUNS/<dataset>/<setting>/seed<k>, each with its log and, when it is done, its figures in ap.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import logging
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import train_ssd  # noqa: E402
from vision import cli  # noqa: E402
from vision.boxes.forms import iou_of  # noqa: E402
from vision.datasets import DetectionDataset, open_dataset, open_folder  # noqa: E402
from vision.datasets.folder import check_folder  # noqa: E402
from vision.datasets.voc_dataset import LABEL_FILES, VocReader  # noqa: E402
from vision.deploy.session import Session, open_session  # noqa: E402
from vision.engine import checkpoint, devices  # noqa: E402
from vision.evaluation import evaluate  # noqa: E402
from vision.report.drawing import Marks, color_of  # noqa: E402
from vision.report.plots import figure_file  # noqa: E402
from vision.report.sheet import Cell, contact_sheet, write_image  # noqa: E402
from vision.structures import Annotation, DataError, Detections  # noqa: E402
from vision.utils.files import write_text  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

#: Files of a run: what was asked for, written at its start; its log; its figures, written at its end.
ASKED, LOG, FIGURES = "asked.json", "output.txt", "ap.json"

#: Folder of `--runs` with the datasets less their test images; no dataset's name begins with a dot.
VIEWS = ".data"

#: What this program says to train_ssd.py itself.
OWN_OPTIONS = ("data", "model_dir", "seed", "resume", "auto_resume", "dry_run")

#: Options that decide no result.
WITHOUT_RESULT = ("debug_steps", "log_level", "plots")

#: Column of results.csv.
MEAN_AP = "Mean Average Precision/val"

#: Score and overlap from which a detection finds an object, on the sheet of `--misses`; and images on it.
SCORE, OVERLAP, MAX_IMAGES = 0.5, 0.5, 8

_NAME = re.compile(r"[\w+-][\w.+-]*")


@dataclass(frozen=True)
class Asked:
    """What decides the result of a run, but for the machine.

    Attributes:
        dataset: its name.
        setting: its name.
        seed: of the run.
        data: the dataset's folder, as typed.
        options: of train_ssd.py, those of all runs first.
        exclude_test_images: whether test images were taken out of the training list.
        values: of all options that decide it by name, those that were not typed included: defaults change with the
            program.
    """

    dataset: str
    setting: str
    seed: int
    data: str
    options: list[str]
    exclude_test_images: bool
    values: dict[str, str]


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        asked: see there.
        folder: of the run.
        data: the folder to read, `asked.data` or a view of it.
    """

    asked: Asked
    folder: Path
    data: Path

    @property
    def argv(self) -> list[str]:
        """Arguments of train_ssd.py; a setting may overrule the first two."""
        return [
            "--dataset-type=auto",
            "--keep-checkpoints=1",
            *self.asked.options,
            f"--data={self.data}",
            f"--model-dir={self.folder}",
            f"--seed={self.asked.seed}",
            "--auto-resume",
        ]


@cli.checked
def named(text: str) -> tuple[str, str]:
    """Read NAME=VALUE; the name becomes that of a folder."""
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} has no name, expected NAME=..., where a name has letters, digits and . _ + - only")
    return name, value


@cli.checked
def named_options(text: str) -> tuple[str, list[str]]:
    """Read NAME='--option=value ...'."""
    name, value = named(text)
    return name, shlex.split(value)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which runs there are."""
    parser.add_argument("--runs", required=True, type=Path, help="folder of all runs and their results")
    parser.add_argument(
        "--data", action="extend", nargs="+", type=named, metavar="NAME=FOLDER", default=[], help="datasets"
    )
    parser.add_argument(
        "--setting",
        action="extend",
        nargs="+",
        type=named_options,
        metavar="NAME='OPTIONS'",
        default=[],
        help="options of train_ssd.py under a name; none are its defaults",
    )
    parser.add_argument(
        "--seeds", nargs="+", type=cli.number(int, 0), default=[1, 2, 3], help="of the runs (default: 1 2 3)"
    )
    parser.add_argument("--common", type=cli.checked(shlex.split), default=[], help="--common='OPTIONS' of all runs")


def check_names(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error if two datasets or two settings have the same name."""
    for option, pairs in (("--data", args.data), ("--setting", args.setting)):
        if len(dict(pairs)) < len(pairs):
            parser.error(f"{option}: a name is there twice; give each its own")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_options(parser)
    parser.add_argument(
        "--exclude-test-images",
        action="store_true",
        help="VOC layout: train on views of the datasets whose list for training lacks the test images",
    )
    parser.add_argument("--table-only", action="store_true", help="train nothing; show what --runs holds")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw mAP on the validation images over epochs")
    parser.add_argument(
        "--misses",
        type=Path,
        metavar="FILE.png",
        help=f"draw test images with objects that the first setting of --compare misses at a score of {SCORE} and the "
        "second finds, first seed",
    )
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="settings for --misses")
    args = parser.parse_args(argv)
    if not args.table_only and not (args.data and args.setting):
        parser.error("nothing to train: name --data and --setting, or add --table-only")
    if (args.misses is None) != (args.compare is None):
        parser.error("--misses and --compare go together; name both or neither")
    check_names(parser, args)
    return args


def plan(args: argparse.Namespace) -> list[Run]:
    """List the runs that are asked for, dataset by dataset and seed by seed.

    Raises:
        DataError: a dataset cannot be read, a setting has wrong options, or a folder holds another run.
    """
    runs = []
    for dataset, data in args.data:
        check_folder(Path(data))
        read = without_test_images(data, args.runs / VIEWS / dataset) if args.exclude_test_images else Path(data)
        for seed in args.seeds:
            runs += plan_settings(args, dataset, data, seed, read, args.exclude_test_images)
    for run in runs:
        check_test_images(run)
    return runs


def plan_settings(
    args: argparse.Namespace, dataset: str, data: str, seed: int, read: Path, exclude_test_images: bool
) -> list[Run]:
    """List the runs of all settings on one dataset with one seed.

    Args:
        args: with what `add_run_options` adds.
        dataset: its name.
        data: its folder, as typed.
        seed: of the runs.
        read: the folder to read.
        exclude_test_images: whether it shows no test images for training.

    Raises:
        DataError: a setting has wrong options, or a folder holds another run.
    """
    runs = []
    for setting, options in args.setting:
        typed = [*args.common, *options]
        asked = Asked(dataset, setting, seed, data, typed, exclude_test_images, values_of(setting, typed))
        runs.append(Run(asked, args.runs / dataset / setting / f"seed{seed}", read))
        check_same(runs[-1])
    return runs


def values_of(setting: str, options: Sequence[str]) -> dict[str, str]:
    """Read a setting's options, and give the values of all that train_ssd.py has.

    Raises:
        DataError: it refuses them, or they say what this program says itself.
    """
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            typed = train_ssd.parse_args(options)
        except SystemExit as err:
            raise DataError(f"--setting {setting}: {said.getvalue().partition('error: ')[2].strip()}") from err
    defaults = train_ssd.parse_args([])
    for name in OWN_OPTIONS:
        if getattr(typed, name) != getattr(defaults, name):
            option = "--" + name.replace("_", "-")
            raise DataError(f"--setting {setting}: has {option}, which this program sets; leave it out")
    return {name: str(value) for name, value in vars(typed).items() if name not in (*OWN_OPTIONS, *WITHOUT_RESULT)}


def check_test_images(run: Run) -> None:
    """Raise DataError if --val-split would hold out others than the images that are measured, and train on those."""
    options = train_ssd.parse_args(run.argv)
    if options.val_split is not None and open_folder(options.dataset_type, run.data).listing("test") is None:
        raise DataError(
            f"{run.data}: has no list of test images, of which --val-split={options.val_split:g} would leave some to "
            "train on; leave --val-split out, or write a list"
        )


def check_same(run: Run) -> None:
    """Raise DataError if a run's folder holds one that was asked for otherwise; one that was refused left nothing."""
    path = run.folder / ASKED
    if not path.is_file() or not ((run.folder / FIGURES).is_file() or checkpoint.can_resume(run.folder)):
        return
    # An option that is newer than the run was at its default.
    earlier = values_of(run.asked.setting, []) | _flat(read_json(path))
    now = _flat(asdict(run.asked))
    for key, value in now.items():
        if earlier.get(key) != value:
            was, is_now = (shlex.join(v) if isinstance(v, list) else v for v in (earlier.get(key), value))
            raise DataError(
                f"{run.folder}: holds a run with {key.replace('_', ' ')} {was!r}, asked for is {is_now!r}; ask for the "
                "same, name the setting otherwise, or remove the folder"
            )


def _flat(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Put the values of options beside the rest of what was asked for."""
    return {key: value for key, value in asked.items() if key != "values"} | asked.get("values", {})


def without_test_images(data: str | Path, view: Path, images: int | None = None, seed: int = 0) -> Path:
    """Make a folder that shows a VOC dataset, by links, with lists for training and test that share no image.

    Args:
        data: the dataset's folder, which stays as it is.
        view: the folder to make; if it is there, its lists are written again.
        images: how many to train on, drawn by the seed; None for all.
        seed: a larger draw of the same seed holds the smaller ones.

    Raises:
        DataError: the dataset is of another layout, has no other image to train on or not as many, or the view is of
            another one.
    """
    folder = open_folder("voc", data)
    train, test = folder.splits()
    test_images = {raw.image_path for raw in test.images} - {None}
    kept = [raw for raw in train.images if raw.image_path not in test_images]
    if not kept:
        raise DataError(f"{train.source}: all its images are test images; take some out of {test.source}")
    taken_out = len(train.images) - len(kept)
    if images is not None:
        if len(kept) < images:
            raise DataError(f"{data}: has {len(kept)} images to draw from, asked for are {images}; ask for fewer")
        kept = [kept[place] for place in np.random.default_rng(seed).permutation(len(kept))[:images]]
    write_view(folder, view, [raw.image_id for raw in kept], [raw.image_id for raw in test.images])
    logger.info("%s: %d test images taken out of %s", view, taken_out, train.title)
    return view


def write_view(folder: VocReader, view: Path, train: Iterable[str], test: Iterable[str]) -> None:
    """Make a folder that shows a VOC dataset, by links, with lists of its own.

    Args:
        folder: of the dataset.
        view: the folder to make; if it is there, its lists are written again.
        train: ids of the images of the list for training.
        test: the same for the test.

    Raises:
        DataError: the view is of another dataset.
    """
    links = {"Annotations": folder.annotation_folder, "JPEGImages": folder.image_folder}
    label_files = [place / name for place in (folder.base, folder.root) for name in LABEL_FILES]
    links |= {path.name: path for path in label_files[::-1] if path.is_file()}
    view.mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        link = view / name
        if not link.is_symlink():
            link.symlink_to(target.resolve())
        elif link.resolve() != target.resolve():
            raise DataError(f"{link}: shows {link.resolve()}, not {target.resolve()}; remove {view}, or change --data")
    for name, ids in (("trainval", train), ("test", test)):
        write_text(view / "ImageSets" / "Main" / f"{name}.txt", "".join(f"{image_id}\n" for image_id in ids))


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of ours; raises DataError if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path}: cannot be read as JSON ({err}); remove it and start again") from err


def perform(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Train and measure what is not done yet; returns the figures of all runs, in their order."""
    done = [read_json(path) for run in runs if (path := run.folder / FIGURES).is_file()]
    left = [run for run in runs if not (run.folder / FIGURES).is_file()]
    logger.info("%d of %d runs are done", len(done), len(runs))
    while left:
        logger.info("%s: training, %s", left[0].folder, time_left(done, left))
        write_text(left[0].folder / ASKED, json.dumps(asdict(left[0].asked), indent=1) + "\n")
        train(left[0].folder, left[0].argv)
        done.append(measure(left.pop(0)))
    return [read_json(run.folder / FIGURES) for run in runs]


def time_left(done: Sequence[Mapping[str, Any]], left: Sequence[Run]) -> str:
    """Say how long runs will take, going by what those on the same dataset took, else by all."""
    if not done:
        return f"{len(left)} left"
    seconds = 0.0
    for run in left:
        same = [figures["seconds"] for figures in done if figures["dataset"] == run.asked.dataset]
        seconds += np.mean(same or [figures["seconds"] for figures in done])
    return f"{len(left)} left, about {timedelta(seconds=round(seconds))}"


def train(folder: Path, argv: Sequence[str]) -> None:
    """Train in a process of its own, with its log in the model folder, or go on with what was stopped.

    Args:
        folder: of the model.
        argv: arguments of train_ssd.py.

    Raises:
        DataError: the run was refused.
        RuntimeError: it failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    with open(log, "a", encoding="utf-8") as file:
        command = [sys.executable, str(ROOT / "train_ssd.py"), *argv]
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        last = next((line for line in reversed(log.read_text(errors="replace").splitlines()) if line), "")
        kind = DataError if code == cli.USER_ERROR else RuntimeError
        raise kind(f"{folder}: training ended with exit code {code}; {LOG} ends with: {last}")


def measure(run: Run) -> dict[str, Any]:
    """Measure a trained run on the test images, and write its `ap.json`.

    Its seconds are those of the epochs in results.csv, validation included; its curve is mAP by epoch.
    """
    options = train_ssd.parse_args(run.argv)
    device, _ = devices.choose_device(options.device, options.use_cuda)
    with open(run.folder / "results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    curve = [[int(row["epoch"]), float(row[MEAN_AP])] for row in rows if row.get(MEAN_AP)]
    figures = {
        **asdict(run.asked),
        "command": shlex.join(["train_ssd.py", *run.argv]),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": str(device),
        **measure_on_test_images(run.folder, options.dataset_type, run.data, device),
        "seconds": sum(float(row["seconds"]) for row in rows),
        "curve": [[epoch, value] for epoch, value in curve if math.isfinite(value)],
    }
    write_text(run.folder / FIGURES, json.dumps(figures, indent=1) + "\n")
    return figures


def measure_on_test_images(
    model: Path, dataset_type: str, data: str | Path, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """COCO's figures on a dataset's test images: AP, AP50, "AP50 per class" by name, and the number of images.

    Args:
        model: .pth or .onnx file, or a model folder for its best checkpoint.
        dataset_type: see `vision.datasets.open_folder`.
        data: folder of the dataset.
        device: on which a .pth file runs.

    Raises:
        DataError: the model or the dataset cannot be read.
    """
    session = open_session(checkpoint.find(model), device=device)
    dataset = open_dataset(dataset_type, data, "test")
    dataset.set_class_names(session.class_names)
    indices = range(len(dataset))
    found = [session.detect(dataset.get_image(index)) for index in cli.progress(indices, "Detecting", len(dataset))]
    report = evaluate(found, [dataset.annotation(index) for index in indices], dataset.class_names)
    return {
        "AP": report.coco.ap,
        "AP50": report.coco.ap_50,
        "AP50 per class": {result.name: result.coco.ap_50 for result in report.classes if result.objects},
        "images": len(dataset),
    }


def by_setting(results: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Group results: dataset -> setting -> those of the seeds."""
    grouped: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for figures in results:
        grouped.setdefault(figures["dataset"], {}).setdefault(figures["setting"], []).append(figures)
    return grouped


def table(results: Iterable[dict[str, Any]]) -> str:
    """Write results as tables in Markdown, one a dataset: mean (least..most) over the seeds, and mean seconds."""
    blocks = []
    for dataset, settings in by_setting(results).items():
        runs = [figures for of_setting in settings.values() for figures in of_setting]
        names = list(dict.fromkeys(name for figures in runs for name in figures["AP50 per class"]))
        rows = [["setting", "seeds", "AP50", "AP", *(f"AP50 {name}" for name in names), "seconds"]]
        for setting, seeds in settings.items():
            columns = [[figures[key] for figures in seeds] for key in ("AP50", "AP")]
            columns += [[f["AP50 per class"][name] for f in seeds if name in f["AP50 per class"]] for name in names]
            seconds = np.mean([figures["seconds"] for figures in seeds])
            listed = " ".join(str(figures["seed"]) for figures in seeds)
            rows.append([setting, listed, *map(_spread, columns), f"{seconds:.0f}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, ["-" * width for width in widths])
        lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
        images = " or ".join(map(str, sorted({figures["images"] for figures in runs})))
        title = f"{dataset}, {images} test images: mean (least..most) over the seeds, mean seconds of training"
        blocks.append("\n".join([title, "", *lines]))
    return "\n\n".join(blocks)


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}..{max(values):.3f})" if values else "none"


def draw_curves(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """Draw mAP on the validation images over epochs, a plot a dataset: the seeds' mean in a band from least to most.

    Raises:
        ImportError: matplotlib is not installed.
    """
    grouped = by_setting(results)
    with figure_file(path, 7 * len(grouped), 5) as figure:
        for axes, (dataset, settings) in zip(
            figure.subplots(1, len(grouped), squeeze=False)[0], grouped.items(), strict=True
        ):
            for setting, seeds in settings.items():
                by_epoch: dict[int, list[float]] = {}
                for epoch, value in (point for figures in seeds for point in figures["curve"]):
                    by_epoch.setdefault(epoch, []).append(value)
                draw_band(axes, setting, by_epoch, marker=".")
            axes.set_title(dataset)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_ylabel("11-point mAP, validation images")
            axes.set_ylim(0, 1)
            axes.grid(alpha=0.3)
            axes.legend()


def draw_band(axes: Axes, label: str, values: Mapping[int, Sequence[float]], marker: str) -> None:
    """Draw the means of the values at each place of the x axis, in a band from least to most."""
    places = sorted(values)
    columns = [values[place] for place in places]
    (line,) = axes.plot(places, [np.mean(column) for column in columns], marker=marker, label=label)
    axes.fill_between(places, list(map(min, columns)), list(map(max, columns)), color=line.get_color(), alpha=0.2)


def draw_misses(path: Path, results: Iterable[dict[str, Any]], worse: str, better: str, runs: Path) -> None:
    """Draw test images with what one setting misses and another finds, those with most such objects of all datasets.

    Args:
        path: of the .png file.
        results: of which, for each dataset, the first seed that both settings have counts.
        worse: setting that misses.
        better: setting that finds.
        runs: folder of all runs.

    Raises:
        DataError: no dataset has results of both with a seed in common.
    """
    cells: list[tuple[int, Cell]] = []
    compared = 0
    for dataset, settings in by_setting(results).items():
        of_worse, of_better = ({f["seed"]: f for f in settings.get(name, [])} for name in (worse, better))
        seed = next((seed for seed in of_worse if seed in of_better), None)
        if seed is None:
            continue
        compared += 1
        sessions = [open_session(checkpoint.find(runs / dataset / name / f"seed{seed}")) for name in (worse, better)]
        figures = of_better[seed]
        dataset_type = train_ssd.parse_args(shlex.split(figures["command"])[1:]).dataset_type
        cells += missed_cells(open_dataset(dataset_type, figures["data"], "test"), *sessions)
    if not compared:
        raise DataError(f"--compare {worse} {better}: no dataset has both with the same seed; train them first")
    cells.sort(key=lambda cell: -cell[0])
    write_image(path, contact_sheet([cell for _, cell in cells[:MAX_IMAGES]]))
    objects = sum(count for count, _ in cells)
    logger.info("%s: %d objects on %d images are found by %s alone", path, objects, len(cells), better)


def missed_cells(dataset: DetectionDataset, worse: Session, better: Session) -> list[tuple[int, Cell]]:
    """Mark the objects of each image that one session misses and another finds: how many, and the image, if any.

    Args:
        dataset: of the images; its class list becomes that of the sessions.
        worse: misses.
        better: finds.

    Raises:
        DataError: the two know different classes.
    """
    if worse.class_names != better.class_names:
        raise DataError(
            f"--compare: classes {worse.class_names} and {better.class_names}; compare settings with the same"
        )
    dataset.set_class_names(worse.class_names)
    cells = []
    for index in cli.progress(range(len(dataset)), "Comparing", len(dataset)):
        image, annotation = dataset.get_image(index), dataset.annotation(index)
        missed, found = (found_objects(annotation, session.detect(image)) for session in (worse, better))
        chosen = ~missed & found & ~annotation.difficult
        if chosen.any():
            labels = annotation.labels[chosen].tolist()
            captions = [dataset.class_names[label] for label in labels]
            marks = Marks(annotation.boxes[chosen], list(map(color_of, labels)), captions)
            cells.append((int(chosen.sum()), Cell.of(image, marks, dataset.records[index].image_path.name)))
    return cells


def found_objects(annotation: Annotation, detections: Detections) -> np.ndarray:
    """Say of each object whether it is found, (N,) bool: by score, detections take the free object of most overlap."""
    found = np.zeros(len(annotation.labels), bool)
    if not len(found):
        return found
    boxes, labels, scores = map(np.asarray, detections)
    overlaps = iou_of(torch.from_numpy(boxes)[:, None], torch.from_numpy(annotation.boxes)[None]).numpy()
    for place in np.argsort(-scores, kind="stable").tolist():
        if scores[place] < SCORE:
            break
        free = np.where(found | (annotation.labels != labels[place]), 0, overlaps[place])
        if free.max() >= OVERLAP:
            found[free.argmax()] = True
    return found


def main(argv: list[str] | None = None) -> None:
    """Train what is left, then show what there is."""
    args = parse_args(argv)
    cli.setup_logging()
    for path, option in ((args.plot, "--plot"), (args.misses, "--misses")):
        if path is not None:
            cli.check_writable(path.parent, option)
    if args.table_only:
        results = [read_json(path) for path in args.runs.glob(f"*/*/seed*/{FIGURES}")]
        results.sort(key=lambda figures: (figures["dataset"], figures["setting"], figures["seed"]))
        if not results:
            raise DataError(f"--runs={args.runs}: holds no {FIGURES} of a run that is done; leave --table-only out")
    else:
        cli.check_writable(args.runs, "--runs")
        results = perform(plan(args))
    print(table(results))
    if args.plot is not None:
        draw_curves(args.plot, results)
    if args.misses is not None:
        draw_misses(args.misses, results, *args.compare, args.runs)


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
