#!/usr/bin/env python3
"""Measure how well a detector finds the objects of a dataset, and show what it misses.

python3 eval_ssd.py --model=models/fruit --data=data/fruit
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import sys

from vision import console
from vision.options.common import check_postprocess_options
from vision.options.evaluation import make_parser

if __name__ == "__main__":
    console.answer_help(make_parser, sys.argv[1:])  # at once: what is imported below takes seconds

import argparse
import itertools
import logging
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from vision import cli
from vision.boxes.nms import DEFAULT_SCORE_THRESHOLD, DEFAULT_SIGMA
from vision.datasets import WRITERS, DetectionDataset, open_dataset, open_listed
from vision.datasets.defects import log_defects
from vision.datasets.writer import WrittenImage
from vision.deploy import detectnet
from vision.deploy.session import Session
from vision.deploy.torch_session import TorchSession
from vision.evaluation import Evaluation, ap_text, evaluate, findings, number_text
from vision.evaluation.coco import FIGURE_NAMES
from vision.evaluation.doubts import Doubt, find_doubts, with_suggestions
from vision.evaluation.metrics import PRINTED, aligned, class_table
from vision.report.doubts_page import MAX_PICTURES, write_doubts
from vision.report.doubts_page import PAGE as DOUBTS_PAGE
from vision.report.doubts_page import TABLE as DOUBTS_TABLE
from vision.report.evaluation_files import write_files, write_voc_files
from vision.report.evaluation_images import WORST, draw_worst, show_images
from vision.report.evaluation_page import write_page
from vision.report.evaluation_plots import PLOTS, draw_plots
from vision.report.suggestions import Suggestions
from vision.ssd import complexity
from vision.ssd.models import spec_of
from vision.ssd.ssd import SSD
from vision.ssd.trained_images import TrainedCounts
from vision.structures import Annotation, DataError, Detections
from vision.utils.prefetch import read_ahead

logger = logging.getLogger(__name__)

NOTHING_FOUND = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))

#: The page of an evaluation, in --eval-dir.
PAGE = "report.html"

#: An image of a dataset.
Place = tuple[DetectionDataset, int]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser()
    args = parser.parse_args(argv)
    check_postprocess_options(parser, args)
    if args.save_annotations is not None and not args.doubts:
        parser.error("--save-annotations: writes what doubts suggest; add --doubts, or leave it out")
    if args.postprocess == cli.DETECTNET and args.threshold is None:
        args.threshold = detectnet.DEFAULT_THRESHOLD  # what it does not report cannot be judged
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate."""
    args = parse_args(argv)
    cli.setup_logging()
    for folder, option in ((args.eval_dir, "--eval-dir"), (args.show_dir, "--show-dir")):
        if folder is not None:
            cli.check_writable(folder, option)
    model, session, class_names = cli.open_model(args.trained_model, args.label_file, args)
    costs = complexity_of(session, model) if args.complexity else None
    datasets, trained = open_datasets(args, class_names, session)
    places = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    annotations = [dataset.annotation(index) for dataset, index in places]
    if not any(len(annotation.labels) for annotation in annotations):
        raise DataError(
            f"{', '.join(args.dataset)}: no object is of a class that the model knows: {list(class_names[1:])}"
            f"{cli.hint_at_left_out(trained)}"
        )
    evaluation = Evaluation.of(
        ids_of(datasets),
        detect_all(session, places, args),
        annotations,
        class_names,
        args.iou_threshold,
        inclusive=args.inclusive_boxes,
        threshold=args.threshold,
        cut_off=args.threshold if args.postprocess == cli.DETECTNET else 0.0,
    )
    print_report(evaluation, args.use_2007_metric)
    found = findings.find(evaluation.report, evaluation.matches, session.size).lines()
    if found:
        print("", *found, sep="\n")
    facts, described = facts_of(args, model, session), describe(args, model, session, datasets)
    facts["trained_images"] = None if trained is None else trained._asdict()
    if trained is not None:
        described["images trained on"] = str(trained)
    described["threshold"] = f"{evaluation.threshold:g}, {why_threshold(args, evaluation)}"
    if session.threshold is not None:
        described["threshold"] += f"; at the validation of the model's run it was {session.threshold:g}"
    logger.info("threshold: %s", described["threshold"])
    if costs is not None:
        print(f"{model.name}, an image of {session.size[0]}x{session.size[1]}: {costs}")
        facts["complexity"], described["complexity"] = costs._asdict(), str(costs)
    write_files(args.eval_dir, evaluation, facts)
    pages = [PAGE, DOUBTS_PAGE, DOUBTS_TABLE, *(name for name, _ in PLOTS.values()), *WORST.values()]
    for name in pages:  # of other figures, they would contradict these
        (args.eval_dir / name).unlink(missing_ok=True)
    if args.plots:
        draw(args, described, places, evaluation, found)
    if args.doubts:
        save_doubts(args, evaluation, places, trained)
    if args.show_dir is not None:
        indices = cli.progress(range(len(places)), "Drawing", len(places))
        show_images(args.show_dir, evaluation, reader_of(places), indices)


def open_datasets(
    args: argparse.Namespace, class_names: Sequence[str], session: Session
) -> tuple[list[DetectionDataset], TrainedCounts | None]:
    """Open the datasets, with the model's classes, and leave out what it was trained on; logs their defects.

    Training images that were asked for, by --split or by name, stay.
    """
    options = cli.reading_options(args)
    if args.image_list is not None:
        datasets = open_listed(args.dataset_type, args.dataset, args.image_list, options, cli.progress)
    else:
        datasets = [open_dataset(args.dataset_type, path, args.split, options, cli.progress) for path in args.dataset]
    measures_all = args.include_trained or args.split == "train" or args.image_list is not None
    trained = cli.leave_out_trained_images(datasets, session.trained_on, measures_all)
    for dataset in datasets:
        dataset.set_class_names(class_names)
        dataset.ignore_small(args.min_object, session.size)
        log_defects([*dataset.defects, *dataset.class_defects("the images measured")])
        logger.info("%s: %s", dataset.title, dataset.summary())
    if not any(len(dataset) for dataset in datasets):
        raise DataError(f"{', '.join(args.dataset)}: no image to evaluate on")
    return datasets, trained


def ids_of(datasets: Sequence[DetectionDataset]) -> list[str]:
    """Ids of all images; where several datasets have one of the same id, with the dataset's number before each."""
    ids = [name for dataset in datasets for name in dataset.ids]
    if len(set(ids)) == len(ids):
        return ids
    logger.warning("the datasets share ids of images: the number of the dataset, from 1, goes before each in the files")
    return [f"{number}_{name}" for number, dataset in enumerate(datasets, start=1) for name in dataset.ids]


def detect_all(session: Session, places: Sequence[Place], args: argparse.Namespace) -> list[Detections]:
    """Detect in all images."""
    images = read_ahead(itertools.starmap(image_or_none, places))
    return [
        NOTHING_FOUND if image is None else cli.detect(session, image, args)
        for image in cli.progress(images, "Detecting", len(places))
    ]


def image_or_none(dataset: DetectionDataset, index: int) -> np.ndarray | None:
    """Read an image; None, with a word, if it cannot be read."""
    try:
        return dataset.get_image(index)
    except DataError as err:
        logger.warning("%s; it counts as an image on which nothing was found", err)
        return None


def why_threshold(args: argparse.Namespace, evaluation: Evaluation) -> str:
    """Say where the threshold of an evaluation is from."""
    if args.threshold is not None:
        return (
            "as --threshold says" if args.postprocess == cli.NMS else "as --threshold says, or by detectNet's default"
        )
    if math.isnan(evaluation.report.best_threshold):
        return "the default, as nothing is hit"
    return "where the mean F1 on these images is highest"


def facts_of(args: argparse.Namespace, model: Path, session: Session) -> dict[str, Any]:
    """What decides the figures, for `metrics.json`."""
    return {
        "model": str(model),
        "data": args.dataset,
        "split": args.split if args.image_list is None else str(args.image_list),
        "postprocess": postprocess_of(args),
        "threshold_of_run": session.threshold,
        "iou_threshold": args.iou_threshold,
        "min_object": args.min_object,
        "inclusive_boxes": args.inclusive_boxes,
    }


def postprocess_of(args: argparse.Namespace) -> dict[str, Any]:
    """The post-processing with its settings."""
    if args.postprocess == cli.DETECTNET:
        clustering = detectnet.DEFAULT_CLUSTERING if args.clustering is None else args.clustering
        return {"kind": args.postprocess, "threshold": args.threshold, "clustering": clustering}
    if args.nms_method == "soft":
        return {"kind": args.postprocess, "method": args.nms_method, "sigma": DEFAULT_SIGMA}
    agnostic = {"class_agnostic": True} if args.class_agnostic else {}
    return {"kind": args.postprocess, "method": args.nms_method, "overlap": args.nms_iou_threshold, **agnostic}


def reader_of(places: Sequence[Place]) -> Any:
    """Reads the images by their number."""
    return lambda number: places[number][0].get_image(places[number][1])


def complexity_of(session: Session, model: Path) -> complexity.Complexity:
    """Count what a net costs.

    Raises:
        DataError: the model is no .pth.
    """
    if not isinstance(session, TorchSession):
        raise DataError(f"--complexity: {model} is no .pth file, of which layers can be counted; name the checkpoint")
    return complexity.complexity_of(session.net)


def describe(
    args: argparse.Namespace, model: Path, session: Session, datasets: Sequence[DetectionDataset]
) -> dict[str, str]:
    """What was evaluated and how, in words."""
    width, height = session.size
    return {
        "model": f"{model} ({session.net_name or 'unknown net'}, {width}x{height})",
        "data": "; ".join(f"{dataset.title}: {dataset.summary()}" for dataset in datasets),
        "overlap of a hit": f"above {args.iou_threshold:g}",
        "post-processing": ", ".join(f"{name} {value}" for name, value in postprocess_of(args).items()),
    }


def draw(
    args: argparse.Namespace,
    facts: dict[str, str],
    places: Sequence[Place],
    evaluation: Evaluation,
    found: Sequence[str],
) -> None:
    """Draw the plots and the worst images, and put all on a page; without matplotlib a warning."""
    try:
        pictures = draw_plots(args.eval_dir, evaluation)
    except ImportError as err:
        logger.warning("%s: no plots and no %s, %s (pip install matplotlib)", args.eval_dir, PAGE, err)
        return
    names = [dataset.records[index].image_path.name for dataset, index in places]
    pictures |= draw_worst(args.eval_dir, evaluation, reader_of(places), names)
    write_page(args.eval_dir / PAGE, "Evaluation", facts, evaluation, pictures, found)
    logger.info("Saved %s", args.eval_dir / PAGE)


def save_doubts(
    args: argparse.Namespace, evaluation: Evaluation, places: Sequence[Place], trained: TrainedCounts | None
) -> None:
    """Write what the labels and the net disagree about, see --doubts."""
    parts = evaluation.detections, evaluation.annotations, evaluation.class_names
    doubts = find_doubts(*parts, evaluation.report)
    note = f"{len(doubts)} doubts about the labels of {len(evaluation.ids)} images, the most worth looking at first."
    if trained is not None and trained.trained_on:
        note += (
            f" The net was trained on {trained.trained_on} of these images, and may have learnt their errors; on "
            "images that it has not seen it doubts more of them."
        )
    indices = cli.progress(range(min(len(doubts), MAX_PICTURES)), "Drawing doubts", min(len(doubts), MAX_PICTURES))
    names = [dataset.places(index) for dataset, index in places]
    write_doubts(args.eval_dir, doubts, evaluation.ids, names, reader_of(places), note, indices)
    logger.info("Saved %s: %s", args.eval_dir / DOUBTS_PAGE, note)
    if args.save_annotations is not None:
        save_suggestions(args, doubts[:MAX_PICTURES], evaluation, places)


def save_suggestions(
    args: argparse.Namespace, doubts: Sequence[Doubt], evaluation: Evaluation, places: Sequence[Place]
) -> None:
    """Write the images of doubts as a dataset with what the net suggests in place, see --save-annotations."""
    by_image: dict[int, list[Doubt]] = {}
    for doubt in doubts:
        by_image.setdefault(doubt.image, []).append(doubt)
    names, read_image = evaluation.class_names, reader_of(places)
    left_out = sum(len(dataset.left_out(index)) for dataset, index in map(places.__getitem__, by_image))
    if left_out:
        logger.warning(
            "--save-annotations: %d labels of these images are not written: the model does not know their classes, or "
            "their boxes are unusable; do not copy the annotations over yours",
            left_out,
        )
    writer = WRITERS[args.save_annotations](args.eval_dir / f"doubts_{args.save_annotations}", names[1:])
    with Suggestions(writer, names) as suggestions:
        for image, of_image in cli.progress(by_image.items(), "Writing suggestions", len(by_image)):
            annotation = evaluation.annotations[image]
            boxes, labels, scores, difficult = with_suggestions(annotation, of_image, names)
            dataset, index = places[image]
            path = dataset.records[index].image_path
            name = PurePosixPath(evaluation.ids[image].removesuffix(path.suffix) + path.suffix)
            classes = [names[label] for label in labels]
            written = WrittenImage(name, annotation.size, boxes, classes, scores.tolist(), difficult.tolist())
            suggestions.add_labels(path, read_image(image), written)


def print_report(evaluation: Evaluation, use_2007_metric: bool) -> None:
    """Print the documented lines, all figures per class side by side, and the threshold that suits best."""
    report = evaluation.report
    print("Average Precision Per-class:")
    for of_class in report.classes:
        print(f"{of_class.name}: {ap_text(of_class.ap_2007 if use_2007_metric else of_class.ap_area, '')}")
    mean = report.mean_ap_2007 if use_2007_metric else report.mean_ap_area
    print(f"\nAverage Precision Across All Classes: {number_text(mean, '')}\n")
    for row in aligned(class_table(report, evaluation.threshold, PRINTED, ".4f")):
        print(row)
    print(f"\nEach class is at its own threshold of highest F1, and the row of means, too; {report.means_note}.\n")
    print(", ".join(f"{name} {number_text(value)}" for name, value in zip(FIGURE_NAMES, report.coco, strict=True)))
    point = report.mean_at(evaluation.threshold)
    print(
        f"At a threshold of {evaluation.threshold:g} for all classes: precision {number_text(point.precision)}, recall "
        f"{number_text(point.recall)}, F1 {number_text(point.f1)} (means)"
    )
    best = report.mean_at(report.best_threshold)
    if not math.isnan(best.threshold):
        print(f"The highest mean F1 is {best.f1:.4f}, at --threshold={best.threshold:g}")


class MeanAPEvaluator:
    """Mean average precision of a net on a dataset, for scripts.

    Args:
        dataset: has `class_names`, `ids`, `get_image(i)` and `get_annotation(i)`.
        net: any `SSD`; its mode is put back after use.
        arch: name of the net, for the preprocessing of a net that has no config.
        eval_dir: where `det_test_<class>.txt` files are written.
        nms_method: "hard" or "soft".
        iou_threshold: overlap above which a detection is a hit.
        use_2007_metric: 11-point AP, else the area under the curve.
        device: moves the net there, if given.
    """

    def __init__(
        self,
        dataset,
        net: SSD,
        arch: str = "mb1-ssd",
        eval_dir: str | Path = "models/eval_results",
        nms_method: str = "hard",
        iou_threshold: float = 0.5,
        use_2007_metric: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        self.dataset = dataset
        self.net = net
        self.predictor = spec_of(arch).predictor(net, nms_method=nms_method, device=device)
        self.eval_dir = Path(eval_dir)
        self.iou_threshold = iou_threshold
        self.use_2007_metric = use_2007_metric

    def compute(self) -> tuple[float, list[float]]:
        """Detect and compare.

        Returns:
            the mean over classes that have objects, and the AP of each of `class_names[1:]`, nan without objects.
        """
        ids, found, annotations = [], [], []
        for index in range(len(self.dataset)):
            image = self.dataset.get_image(index)
            image_id, (boxes, labels, difficult) = self.dataset.get_annotation(index)
            size = (image.shape[1], image.shape[0])
            annotations.append(
                Annotation(
                    np.asarray(boxes, np.float32),
                    np.asarray(labels, np.int64),
                    np.asarray(difficult, bool),
                    size,
                )
            )
            ids.append(image_id)
            found.append(self.predictor.predict(image, prob_threshold=DEFAULT_SCORE_THRESHOLD))
        report = evaluate(found, annotations, self.dataset.class_names, self.iou_threshold)
        write_voc_files(self.eval_dir, ids, found, self.dataset.class_names)
        if self.use_2007_metric:
            return report.mean_ap_2007, [result.ap_2007 for result in report.classes]
        return report.mean_ap_area, [result.ap_area for result in report.classes]

    def log_results(self, mean_ap: float, class_ap: Sequence[float], prefix: str = "") -> None:
        """Log what `compute` gave."""
        logger.info("%sAverage Precision Per-class:", prefix)
        for name, value in zip(self.dataset.class_names[1:], class_ap, strict=True):
            logger.info("    %s: %s", name, ap_text(value, ""))
        logger.info("%sMean Average Precision: %s", prefix, number_text(mean_ap, ""))


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
