"""What is in a dataset and what is wrong with it, to look at: an image of all, and a page with each defect."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from vision.datasets import DetectionDataset
from vision.datasets.audit import Audit, box_sides
from vision.datasets.defects import INFO, KINDS, LEFT_OUT, REPAIRED, SUSPECT, Defect, count_things
from vision.report.drawing import color_of, draw_annotation
from vision.report.page import facts_list, figure_boxes, picture, picture_of, table, write_html
from vision.report.plots import figure_file, plain_text
from vision.report.sheet import SHEET_COLUMNS, THUMBNAIL, contact_sheet, thumbnail
from vision.structures import Annotation, DataError

logger = logging.getLogger(__name__)

#: Rows of the contact sheet.
_SHEET_ROWS = 3

#: Defects of a kind that the page lists.
_MOST_LISTED = 2000

#: More classes than that are left out of the legend, and bars have no names.
_MOST_NAMES = 40


def save_audit_page(
    path: Path, train_set: DetectionDataset, audit: Audit, network_size: tuple[int, int], center_form_priors: Tensor
) -> None:
    """Draw the audit of a dataset, and write a page of it; without matplotlib a warning in the place of the drawing.

    Args:
        path: of a .png to write; the page has the same name, but for its suffix.
        train_set: of which images are shown.
        audit: of it.
        network_size: (width, height) in pixels.
        center_form_priors: (P, 4) relative, of which the shapes are shown.
    """
    chosen = np.unique(np.linspace(0, len(train_set) - 1, SHEET_COLUMNS * _SHEET_ROWS).astype(int)).tolist()
    shapes = torch.unique(center_form_priors[:, 2:], dim=0).numpy() * np.asarray(network_size, np.float32)
    try:
        draw_audit(
            path,
            {"train": audit.train.objects_per_class, "validation": audit.validation.objects_per_class},
            *box_sides(train_set, network_size),
            shapes,
            network_size,
            [(train_set.get_image(index), train_set.annotation(index)) for index in chosen],
            train_set.class_names,
        )
    except ImportError as err:
        logger.warning("%s: not drawn, %s (pip install matplotlib)", path, err)
        path.unlink(missing_ok=True)  # one of other data would contradict the page
    else:
        logger.info("Saved %s", path)
    write_defects(path.with_suffix(".html"), train_set, audit, path if path.is_file() else None)
    logger.info("Saved %s", path.with_suffix(".html"))


def write_defects(path: Path, train_set: DetectionDataset, audit: Audit, drawing: Path | None) -> None:
    """Write a page with the totals, every kind of defect with its files and objects, and images concerned.

    Args:
        path: of the .html file.
        train_set: whose images are shown.
        audit: of it.
        drawing: of the whole, if there is one.
    """
    splits = {"train": audit.train, "validation": audit.validation}
    rows = [["", "images used", "of", "without objects", "objects used", "of", "difficult"]]
    for name, split in splits.items():
        counts = (split.images, split.images_listed, split.negatives, split.objects, split.objects_written)
        rows.append([name, *map(str, counts), str(split.difficult)])
    effects = (LEFT_OUT, REPAIRED, SUSPECT, INFO)
    parts = [
        facts_list({name: split.title for name, split in splits.items()}),
        figure_boxes({effect: str(audit.count(effect)) for effect in effects}),
        table(rows),
    ]
    by_kind: dict[str, list[Defect]] = {}
    for defect in audit.defects:
        by_kind.setdefault(defect.kind, []).append(defect)
    for effect in effects:
        for kind, found in by_kind.items():
            if KINDS[kind].effect == effect:
                parts += _section(kind, found, train_set)
    if drawing is not None:
        parts += ["<h2>All of it</h2>", picture(drawing, "objects per class, sizes of boxes, images")]
    write_html(path, "What the data hold", parts)


def _section(kind: str, found: Sequence[Defect], train_set: DetectionDataset) -> list[str]:
    effect, title, _ = KINDS[kind]
    items = "".join(f"<li>{escape(str(defect))}</li>" for defect in found[:_MOST_LISTED])
    if len(found) > _MOST_LISTED:
        items += f"<li>... and {len(found) - _MOST_LISTED} more, in audit.json</li>"
    head = f"<h2>{escape(title)}: {count_things(found)} ({effect})</h2>"
    parts = [head, f"<details><summary>which</summary><ul>{items}</ul></details>"]
    shown = [] if effect == INFO else _images_of(found, train_set)
    if shown:
        drawn = contact_sheet([draw_annotation(*_smaller(*one), train_set.class_names) for one in shown])
        encoded, content = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        if encoded:
            parts.append(
                picture_of(content.tobytes(), "jpeg", f"images concerned, with the boxes that are used: {title}")
            )
    return parts


def _images_of(defects: Sequence[Defect], train_set: DetectionDataset) -> list[tuple[np.ndarray, Annotation]]:
    """Read the first few images that defects are about: those of their ids or their file."""
    by_source: dict[Path, list[int]] = {}
    first = {record.image_path: index for index, record in reversed(list(enumerate(train_set.records)))}  # some repeat
    for path, index in first.items():
        by_source.setdefault(train_set.records[index].source, []).append(index)
        by_source.setdefault(path, []).append(index)
    chosen: dict[int, None] = {}
    for defect in defects:
        places = by_source.get(defect.source, [])
        named = [index for index in places if train_set.ids[index] == defect.image_id]
        chosen |= dict.fromkeys(named or (places if len(places) == 1 else []))
        if len(chosen) >= SHEET_COLUMNS:
            break
    shown = []
    for index in list(chosen)[:SHEET_COLUMNS]:
        with contextlib.suppress(DataError):  # named already
            shown.append((train_set.get_image(index), train_set.annotation(index)))
    return shown


def draw_audit(
    path: Path,
    objects_per_class: Mapping[str, Mapping[str, int]],
    sides: np.ndarray,
    labels: np.ndarray,
    prior_sides: np.ndarray,
    network_size: tuple[int, int],
    images: Sequence[tuple[np.ndarray, Annotation]],
    class_names: Sequence[str],
) -> None:
    """Write the image.

    Args:
        path: of a .png to write.
        objects_per_class: split -> class name -> objects.
        sides: (N, 2) width and height of boxes in pixels at the network's size.
        labels: (N,) class of each box.
        prior_sides: (K, 2) width and height of the shapes of priors.
        network_size: (width, height) in pixels.
        images: for the contact sheet, with their objects.
        class_names: BACKGROUND first.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with figure_file(path, 15, 17) as figure:
        grid = figure.add_gridspec(2, 2, height_ratios=(5, 11))
        _draw_counts(figure.add_subplot(grid[0, 0]), objects_per_class, class_names[1:])
        _draw_sizes(figure.add_subplot(grid[0, 1]), sides, labels, prior_sides, network_size, class_names)
        sheet = figure.add_subplot(grid[1, :])
        sheet.set_title("training images with their boxes")
        thumbnails = [_smaller(image, annotation) for image, annotation in images]
        sheet.imshow(contact_sheet([draw_annotation(*thumbnail, class_names) for thumbnail in thumbnails]))
        sheet.set_axis_off()


def _draw_counts(axes, objects_per_class: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> None:
    width = 0.8 / max(len(objects_per_class), 1)
    places = np.arange(len(names))
    for number, (split, counts) in enumerate(objects_per_class.items()):
        bars = axes.bar(places + number * width, [counts[name] for name in names], width, label=split)
        if len(names) <= _MOST_NAMES / 2:
            axes.bar_label(bars, fontsize=8)
    axes.set_title("objects per class")
    axes.set_xticks(places + width * (len(objects_per_class) - 1) / 2)
    axes.set_xticklabels(list(map(plain_text, names)) if len(names) <= _MOST_NAMES else [], rotation=45, ha="right")
    axes.legend()


def _draw_sizes(axes, sides, labels, prior_sides, network_size, class_names) -> None:
    for label, name in enumerate(class_names[1:], start=1):
        mine = sides[labels == label]
        shown = plain_text(name) if len(class_names) <= _MOST_NAMES else None
        axes.scatter(*mine.T, s=6, alpha=0.5, color=np.array(color_of(label)) / 255, label=shown)
    axes.scatter(*prior_sides.T, s=70, marker="+", color="black", label="priors")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_title(f"boxes at {network_size[0]}x{network_size[1]}, in pixels")
    axes.set_xlabel("width")
    axes.set_ylabel("height")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)


def _smaller(image: np.ndarray, annotation: Annotation) -> tuple[np.ndarray, Annotation]:
    """Shrink an image with its objects to a thumbnail."""
    resized, scale = thumbnail(image, THUMBNAIL)
    height, width = resized.shape[:2]
    boxes = (annotation.boxes * np.tile(scale, 2)).astype(np.float32)
    return resized, Annotation(boxes, annotation.labels, annotation.difficult, (width, height))
