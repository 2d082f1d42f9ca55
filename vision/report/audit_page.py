"""What is in a dataset and what is wrong with it, to look at: an image of all, and a page with each defect."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from vision.datasets import DetectionDataset
from vision.datasets.audit import Audit, box_sides
from vision.datasets.defects import INFO, KINDS, LEFT_OUT, REPAIRED, SUSPECT, Defect, count_things
from vision.datasets.images import read_image
from vision.report.drawing import FALSE, Color, Marks, annotation_marks, color_of
from vision.report.page import facts_list, figure_boxes, picture_of, table, write_html
from vision.report.plots import COLORS, GREY, figure_file, in_pixels, legend_below, legend_beside, plain_text
from vision.report.run_pictures import distinct_images, spread_over_classes
from vision.report.sheet import MAX_CELLS, SHEET_WIDTH, Cell, contact_sheet, write_image
from vision.structures import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

#: Defects of a kind that the page lists, and images of them that it shows.
_MAX_LISTED, _MAX_SHOWN = 2000, 4

#: Classes with a bar each, and classes with a color each among the sizes; of more, those at both ends, or the largest.
_MAX_BARS, _MAX_COLORS = 30, 8

#: Least side of a mark for an object that is left out, by the longer side of its image: those without area are seen.
_MIN_MARK = 0.035

#: Headings of the page.
_EFFECTS: Mapping[str, str] = MappingProxyType(
    {LEFT_OUT: "Left out", REPAIRED: "Repaired", SUSPECT: "Worth a look", INFO: "Good to know"}
)

#: What a kind of defect counts, by how its name begins; the first that fits.
_THINGS: Mapping[str, str] = MappingProxyType(
    {
        "annotation-unreadable": "file",
        "annotation-repeats": "annotation",
        "box-turned": "image",
        "box-relative": "image",
        "box-fraction": "image",
        "name-differs": "image",
        "label-lists": "list",
        "list-repeats": "name",
        "path-missing": "path",
        "row-unreadable": "row",
        "class-empty": "class",
        "label": "class",
        **dict.fromkeys(("image", "annotation", "size", "negative", "overlap"), "image"),
    }
)

#: Why an object is left out, in a word or two for a caption.
_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "name-missing": "has no name",
        "shape-no-box": "is a point or line",
        "box-no-area": "has no area",
        "class-unknown": "class not in the list",
    }
)

_LEFT_OUT_KEY: Mapping[str, Color] = MappingProxyType({"dashed: left out, with the reason": FALSE})


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
    shapes = torch.unique(center_form_priors[:, 2:], dim=0).numpy() * np.asarray(network_size, np.float32)
    counts = {"train": audit.train.objects_per_class, "validation": audit.validation.objects_per_class}
    sheet = _sheet_of(train_set, spread_over_classes(train_set, MAX_CELLS), "training images with their objects")
    pictures = {} if sheet is None else {"Training images with their objects": _encoded(sheet, ".jpg")}
    try:
        draw_audit_plots(path, counts, *box_sides(train_set, network_size), shapes, network_size, train_set.class_names)
    except ImportError as err:
        logger.warning("%s: not drawn, %s (pip install matplotlib)", path, err)
        path.unlink(missing_ok=True)  # one of other data would contradict the page
    else:
        plots = read_image(path)
        pictures = {"Objects of each class, and their sizes": path.read_bytes(), **pictures}
        write_image(path, plots if sheet is None else _below_each_other(plots, sheet))
        logger.info("Saved %s", path)
    write_defects(path.with_suffix(".html"), train_set, audit, pictures)
    logger.info("Saved %s", path.with_suffix(".html"))


def write_defects(path: Path, train_set: DetectionDataset, audit: Audit, pictures: Mapping[str, bytes]) -> None:
    """Write a page with the totals, pictures of the whole, every kind of defect with its files, and images concerned.

    Args:
        path: of the .html file.
        train_set: whose images are shown.
        audit: of it.
        pictures: encoded, of the whole, by their headings.
    """
    splits = {"training": audit.train, "validation": audit.validation}
    rows = [
        ["", "images listed", "images used", "images without objects", "objects", "objects used", "difficult objects"]
    ]
    for name, split in splits.items():
        counts = (split.images_listed, split.images, split.negatives, split.objects_written, split.objects)
        rows.append([name, *map(str, counts), str(split.difficult)])
    by_effect = {effect: [defect for defect in audit.defects if defect.effect == effect] for effect in _EFFECTS}
    parts = [
        facts_list({f"{name} images": split.title for name, split in splits.items()}),
        figure_boxes({_EFFECTS[effect]: _things(found) for effect, found in by_effect.items()}),
        table(rows),
    ]
    for heading, content in pictures.items():
        kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
        parts += [f"<h2>{escape(heading)}</h2>", picture_of(content, kind, heading)]
    for effect, found in by_effect.items():
        parts += [f"<h2>{_EFFECTS[effect]}</h2>"] if found else []
        by_kind: dict[str, list[Defect]] = {}
        for defect in found:
            by_kind.setdefault(defect.kind, []).append(defect)
        for kind, of_kind in by_kind.items():
            parts += _section(kind, of_kind, train_set)
    write_html(path, "What is in the dataset", parts)


def _things(defects: Iterable[Defect], separator: str = "\n") -> str:
    """Count what defects are about, in things: "4 images", "7 objects"."""
    counts: Counter[str] = Counter()
    for defect in defects:
        thing = next((thing for begin, thing in _THINGS.items() if defect.kind.startswith(begin)), "object")
        counts[thing] += defect.things
    plural = {thing: thing + ("es" if thing.endswith("s") else "s") for thing in counts}
    parts = [f"{count} {thing if count == 1 else plural[thing]}" for thing, count in counts.most_common()]
    return separator.join(parts) or "nothing"


def _section(kind: str, found: Sequence[Defect], train_set: DetectionDataset) -> list[str]:
    effect, title, _ = KINDS[kind]
    items = "".join(f"<li>{escape(str(defect))}</li>" for defect in found[:_MAX_LISTED])
    if len(found) > _MAX_LISTED:
        items += f"<li>... and {count_things(found[_MAX_LISTED:])} more, in audit.json</li>"
    parts = [
        f"<h3>{escape(title[:1].upper() + title[1:])}: {_things(found)}</h3>",
        f"<details><summary>Where, and what was found</summary><ul>{items}</ul></details>",
    ]
    if effect != INFO and (indices := _indices_of(found, train_set)):
        sheet = _sheet_of(train_set, indices, "images concerned, with the objects that are used")
        if sheet is not None:
            parts.append(picture_of(_encoded(sheet, ".jpg"), "jpeg", f"images concerned: {title}"))
    return parts


def _indices_of(defects: Sequence[Defect], train_set: DetectionDataset) -> list[int]:
    """Find the first few images that defects are about: with such objects, of their file, or whose name they give."""
    kind, effect = defects[0].kind, defects[0].effect
    images = distinct_images(train_set)
    marked = (index for index in images if any(item.kind == kind for item in train_set.left_out(index)))
    if effect == LEFT_OUT and (shown := list(itertools.islice(marked, _MAX_SHOWN))):
        return shown
    ids, *places_of = (train_set.records.texts(column) for column in ("image_id", "source", "image_path"))
    by_source: dict[str, list[int]] = {}
    for index in images:
        for paths in places_of:
            by_source.setdefault(paths[index], []).append(index)
    chosen: dict[int, None] = {}
    for defect in defects:
        places = by_source.get(str(defect.source), [])
        named = [index for index in places if ids[index] == defect.image_id]
        chosen |= dict.fromkeys(named or (places if len(places) == 1 else []))
        if len(chosen) >= _MAX_SHOWN:
            break
    return list(chosen)[:_MAX_SHOWN]


def _sheet_of(train_set: DetectionDataset, indices: Sequence[int], what: str) -> np.ndarray | None:
    """Lay images of a dataset out with their objects, and those that are left out; None if none can be read."""
    cells = []
    any_left_out = False
    for index in indices:
        with contextlib.suppress(DataError):  # the audit names it
            marks = _all_marks(train_set, index)
            cells.append(Cell.of(train_set.get_image(index), marks, train_set.records[index].image_path.name))
            any_left_out |= any(marks.dashed)
    texts = [f"{len(cells)} of {len(distinct_images(train_set))} images: {what}"]
    return contact_sheet(cells, texts, _LEFT_OUT_KEY if any_left_out else {}) if cells else None


def _all_marks(train_set: DetectionDataset, index: int) -> Marks:
    """Mark the objects of an image that are used, and with dashes those that are left out."""
    annotation = train_set.annotation(index)
    used, left_out = annotation_marks(annotation, train_set.class_names), train_set.left_out(index)
    corners = np.array([item.box for item in left_out], np.float32).reshape(-1, 4)
    size = np.array(annotation.size, np.float32)
    least = _MIN_MARK * size.max()
    low, high = (np.clip(function(corners[:, :2], corners[:, 2:]), 0, size) for function in (np.minimum, np.maximum))
    missing = np.maximum(least - (high - low), 0) / 2
    low = np.clip(low - missing, 0, size - least)  # a box beyond the image is marked at the image's end
    marks = np.concatenate([low, np.maximum(high + missing, low + least)], axis=1)
    return Marks(
        np.concatenate([used.boxes, marks]),
        [*used.colors, *[FALSE] * len(left_out)],
        [*used.captions, *(f"{item.name} {_REASONS[item.kind]}".strip() for item in left_out)],
        [*[False] * len(used.boxes), *[True] * len(left_out)],
    )


def _encoded(rgb_image: np.ndarray, suffix: str) -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(rgb_image, cv2.COLOR_RGB2BGR))[1].tobytes()


def _below_each_other(*images: np.ndarray) -> np.ndarray:
    """Put images (H, W, 3) below each other, on white."""
    width = max(image.shape[1] for image in images)
    pads = [((0, 0), (0, width - image.shape[1]), (0, 0)) for image in images]
    return np.concatenate([np.pad(image, pad, constant_values=255) for image, pad in zip(images, pads, strict=True)])


def draw_audit_plots(
    path: Path,
    objects_per_class: Mapping[str, Mapping[str, int]],
    sides: np.ndarray,
    labels: np.ndarray,
    prior_sides: np.ndarray,
    network_size: tuple[int, int],
    class_names: Sequence[str],
) -> None:
    """Plot how many objects each class has, and how large they are beside the priors.

    Args:
        path: of a .png to write.
        objects_per_class: split -> class name -> objects.
        sides: (N, 2) width and height of boxes in pixels at the network's size.
        labels: (N,) class of each box.
        prior_sides: (K, 2) width and height of the shapes of priors.
        network_size: (width, height) in pixels.
        class_names: BACKGROUND first.

    Raises:
        ImportError: matplotlib is not installed.
    """
    bars = min(len(class_names) - 1, _MAX_BARS) * len(objects_per_class)
    with figure_file(path, SHEET_WIDTH / 100, max(5.5, 1.5 + 0.17 * bars)) as figure:
        left, right = figure.subplots(1, 2)
        _draw_counts(left, objects_per_class, class_names[1:])
        _draw_sizes(right, sides, labels, prior_sides, network_size, class_names)


def _draw_counts(axes: Axes, objects_per_class: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> None:
    title = "objects of each class"
    if len(names) > _MAX_BARS:
        totals = Counter({name: sum(counts[name] for counts in objects_per_class.values()) for name in names})
        ranked = [name for name, _ in totals.most_common()]
        names = ranked[: _MAX_BARS // 2] + ranked[-_MAX_BARS // 2 :]
        half, left_out = _MAX_BARS // 2, len(ranked) - len(names)
        title = f"objects of the {half} largest and {half} smallest classes\n({left_out} classes between are left out)"
    height = 0.8 / max(len(objects_per_class), 1)
    places = np.arange(len(names))
    for number, ((split, counts), color) in enumerate(zip(objects_per_class.items(), COLORS, strict=False)):
        bars = axes.barh(places + number * height, [counts[name] for name in names], height, label=split, color=color)
        axes.bar_label(bars, fontsize=8, padding=2)
    axes.set_title(title)
    axes.set_yticks(places + height * (len(objects_per_class) - 1) / 2, list(map(plain_text, names)))
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.set_xlabel("objects")
    legend_below(axes)


def _draw_sizes(
    axes: Axes,
    sides: np.ndarray,
    labels: np.ndarray,
    prior_sides: np.ndarray,
    network_size: tuple[int, int],
    class_names: Sequence[str],
) -> None:
    counts = Counter(labels.tolist())
    colored = sorted(label for label, _ in counts.most_common(_MAX_COLORS))
    others = ~np.isin(labels, colored)
    if others.any():
        name = f"{len(counts) - len(colored)} other classes"
        axes.scatter(sides[others, 0], sides[others, 1], s=6, alpha=0.5, color=GREY, label=name)
    for label in colored:
        color, mine = np.array(color_of(label)) / 255, sides[labels == label]
        axes.scatter(mine[:, 0], mine[:, 1], s=6, alpha=0.5, color=color, label=plain_text(class_names[label]))
    axes.scatter(prior_sides[:, 0], prior_sides[:, 1], s=70, marker="+", color="black", label="priors")
    in_pixels(axes, np.concatenate([sides, prior_sides]))
    axes.set_title(f"sizes of objects at {network_size[0]}x{network_size[1]}, in pixels")
    axes.set_xlabel("width in pixels")
    axes.set_ylabel("height in pixels")
    axes.set_aspect("equal", anchor="N")
    axes.grid(alpha=0.3)
    legend_beside(axes, markerscale=2)
