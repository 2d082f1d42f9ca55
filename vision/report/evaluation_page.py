"""One page that shows an evaluation, without a network: text, tables and pictures in a single HTML file."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from vision.evaluation import Evaluation
from vision.evaluation.coco import FIGURE_NAMES
from vision.evaluation.curves import Point
from vision.report.drawing import FALSE, HIT, IGNORED, MISSED, Color
from vision.utils.files import write_text

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
tr.total td { font-weight: 600; border-top: 2px solid #666; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
.figures div { border: 1px solid #ccc; border-radius: .5rem; padding: .5rem 1rem; min-width: 7rem; }
.figures b { display: block; font-size: 1.5rem; }
.wide { overflow-x: auto; } img { max-width: 100%; height: auto; }
.key span { display: inline-block; padding: 0 .5rem; margin-right: .7rem; border: 3px solid; }
dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def write_page(
    path: Path, title: str, facts: Mapping[str, str], evaluation: Evaluation, pictures: Mapping[str, Path]
) -> None:
    """Write the page.

    Args:
        path: of the .html file.
        title: its heading.
        facts: what was evaluated and how, in words.
        evaluation: the figures.
        pictures: PNG and JPEG files by their headings, in the order of the page.
    """
    report, threshold = evaluation.report, evaluation.threshold
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items()) + "</dl>",
        _headline(evaluation),
        "<h2>Classes</h2>",
        _class_table(evaluation),
        "<p>P, R and F1 are precision, recall and F1: where F1 is highest for the class, and at the one threshold "
        f"{threshold:g} for all.</p>",
        "<h2>COCO's figures</h2>",
        _table([FIGURE_NAMES, [_number(value) for value in report.coco]]),
    ]
    for heading, picture in pictures.items():
        parts += [f"<h2>{escape(heading)}</h2>", _key() if "Images" in heading else "", _image(picture, heading)]
    write_text(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n",
    )


def _headline(evaluation: Evaluation) -> str:
    report = evaluation.report
    point = report.mean_at(evaluation.threshold)
    figures = {
        "mAP, 11-point": report.mean_ap_2007,
        "mAP, area": report.mean_ap_area,
        "COCO AP": report.coco.ap,
        "COCO AP50": report.coco.ap_50,
        f"F1 at {evaluation.threshold:g}": point.f1,
        "precision": point.precision,
        "recall": point.recall,
    }
    cells = "".join(f"<div>{escape(name)}<b>{_number(value)}</b></div>" for name, value in figures.items())
    return f'<div class="figures">{cells}</div>'


def _class_table(evaluation: Evaluation) -> str:
    report, threshold = evaluation.report, evaluation.threshold
    heads = ["class", "objects", "AP 11-point", "AP area", *FIGURE_NAMES[:3], "best threshold", "P", "R", "F1"]
    rows: list[Sequence[str]] = [[*heads, *(f"{name} at {threshold:g}" for name in ("P", "R", "F1"))]]
    for result in report.classes:
        values = [result.ap_2007, result.ap_area, *result.coco]
        rows.append(
            [result.name, str(result.objects), *map(_number, values)]
            + _points(result.curve.best(), result.curve.at(threshold))
        )
    coco = report.coco
    values = [report.mean_ap_2007, report.mean_ap_area, coco.ap, coco.ap_50, coco.ap_75]
    objects = sum(result.objects for result in report.classes)
    best = report.mean_at(report.best_threshold)
    means = ["all", str(objects), *map(_number, values), *_points(best, report.mean_at(threshold))]
    return _table([*rows, means], total=True)


def _points(best: Point, at: Point) -> list[str]:
    threshold = "" if math.isnan(best.threshold) else f"{best.threshold:g}"
    return [threshold, *map(_number, best[1:]), *map(_number, at[1:])]


def _table(rows: Iterable[Sequence[str]], total: bool = False) -> str:
    """Write a table whose first row is its head, and whose last is that of all."""
    head, *body = ([escape(cell) for cell in row] for row in rows)
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    for number, row in enumerate(body, start=1):
        kind = ' class="total"' if total and number == len(body) else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    return '<div class="wide"><table>' + "\n".join(lines) + "</table></div>"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _image(path: Path, alt: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    kind = {".png": "png", ".jpg": "jpeg"}[path.suffix]
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'


def _key() -> str:
    """Say what the colours of boxes mean."""
    kinds: dict[str, Color] = {"hit": HIT, "false": FALSE, "missed": MISSED, "difficult object, not counted": IGNORED}
    cells = "".join(f'<span style="border-color: rgb{color}">{name}</span>' for name, color in kinds.items())
    return f'<p class="key">{cells}</p>'
