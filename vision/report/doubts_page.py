"""Doubts about labels for people: a table, and a page with a picture of each of the first."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from vision.evaluation.doubts import DOUBLE, KINDS, MISPLACED, NOT_FOUND, OVERLOOKED, SWAPPED, Doubt
from vision.report.drawing import FALSE, HIT, draw_boxes
from vision.report.page import facts_list, picture_of, write_html
from vision.structures import DataError
from vision.utils.files import write_text

TABLE, PAGE = "doubts.csv", "doubts.html"

#: Doubts with a picture.
MAX_PICTURES = 100

#: Longest side of a picture, and its margin around the boxes in parts of their size, at least that many pixels.
_SIDE, _MARGIN, _LEAST_MARGIN = 260, 0.6, 24

_MEANINGS = {
    OVERLOOKED: "found where nothing is labeled: is a label missing?",
    SWAPPED: "found as another class than labeled: is the class wrong?",
    MISPLACED: "found beside the label: is the box wrong?",
    NOT_FOUND: "labeled, and never found: is there an object?",
    DOUBLE: "labeled twice: is one label too many?",
}


def write_doubts(
    folder: Path,
    doubts: Sequence[Doubt],
    ids: Sequence[str],
    places: Sequence[Sequence[str]],
    read_image: Callable[[int], np.ndarray],
    note: str,
    indices: Iterable[int] | None = None,
) -> None:
    """Write all doubts as a table, and the first on a page.

    Args:
        folder: to write into.
        doubts: the most worth looking at first.
        ids: of the images.
        places: of each image, what its objects are called in their file.
        read_image: reads an image by its index, (H, W, 3) uint8 RGB; raises DataError.
        note: what the page says above.
        indices: numbers of the doubts with a picture, as a progress bar gives them; None for the first.
    """
    write_text(folder / TABLE, _csv(doubts, ids, places))
    counts = Counter(doubt.kind for doubt in doubts)
    kinds = {kind: f"{counts[kind]} {_MEANINGS[kind]}" for kind in KINDS}
    parts = [f"<p>{escape(note)}</p>", facts_list(kinds), '<div class="doubts">']
    shown = range(min(len(doubts), MAX_PICTURES)) if indices is None else indices
    parts += [_card(number, doubts[number], ids, places, read_image) for number in shown]
    write_html(folder / PAGE, "Doubts about labels", [_STYLE, *parts, "</div>"])


_STYLE = (
    "<style>.doubts{display:flex;flex-wrap:wrap;gap:12px}.doubts figure{margin:0;width:260px;overflow-wrap:anywhere}"
    ".doubts figcaption{font-size:13px}</style>"
)


def _csv(doubts: Sequence[Doubt], ids: Sequence[str], places: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    corners = ("x1", "y1", "x2", "y2")
    found_corners = [f"found {corner}" for corner in corners]
    writer.writerow(["rank", "image", "object", "kind", "score", "labeled", "found", *corners, *found_corners])
    for rank, doubt in enumerate(doubts, start=1):
        place = "" if doubt.object < 0 else places[doubt.image][doubt.object]
        boxes = [f"{value:.1f}" for value in (*doubt.box, *(doubt.found_box or ()))]
        writer.writerow(
            [rank, ids[doubt.image], place, doubt.kind, f"{doubt.score:.3f}", doubt.labeled, doubt.found, *boxes]
        )
    return text.getvalue()


def _card(
    number: int,
    doubt: Doubt,
    ids: Sequence[str],
    places: Sequence[Sequence[str]],
    read_image: Callable[[int], np.ndarray],
) -> str:
    where = ids[doubt.image] + ("" if doubt.object < 0 else f", {places[doubt.image][doubt.object]}")
    said = ", ".join(
        part
        for part in (
            f"labeled {doubt.labeled}" if doubt.labeled else "no label",
            f"found {doubt.found}" if doubt.found else "nothing found",
        )
    )
    caption = f"{number + 1}. {doubt.kind} ({doubt.score:.2f}): {said}"
    try:
        image = read_image(doubt.image)
    except DataError as err:
        shown = f"<p>{escape(str(err))}</p>"
    else:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(_crop(image, doubt), cv2.COLOR_RGB2BGR))
        shown = picture_of(data.tobytes(), "jpeg", caption)
    return f"<figure>{shown}<figcaption>{escape(caption)}<br>{escape(where)}</figcaption></figure>"


def _crop(image: np.ndarray, doubt: Doubt) -> np.ndarray:
    """Cut out what a doubt is about, with the label in one color and what is found in another."""
    boxes, colors, captions = [], [], []
    if doubt.labeled:
        boxes, colors, captions = [doubt.box], [HIT], [f"labeled {doubt.labeled}"]
    if doubt.found_box is not None:
        boxes, colors = [*boxes, doubt.found_box], [*colors, FALSE]
        captions = [*captions, f"found {doubt.found}"]
    corners = np.clip(np.array(boxes, float), 0, [*image.shape[1::-1]] * 2)  # boxes may reach out of their image
    least, most = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(_LEAST_MARGIN, _MARGIN * float((most - least).max()))
    height, width = image.shape[:2]
    left, top = np.maximum(least - margin, 0).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(most + margin, [width, height])).astype(int).tolist()
    cut = image[top:bottom, left:right]
    scale = _SIDE / max(cut.shape[:2])
    size = max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale))
    resized = cv2.resize(cut, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    moved = ((corners - [left, top, left, top]) * scale).astype(np.float32)
    return draw_boxes(resized, moved, colors, captions)
