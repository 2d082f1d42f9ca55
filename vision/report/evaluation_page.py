"""One page that shows an evaluation, without a network: text, tables and pictures in a single HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from vision.evaluation import Evaluation, number_text
from vision.evaluation.coco import FIGURE_NAMES
from vision.evaluation.metrics import COLUMNS, class_table
from vision.report.page import facts_list, figure_boxes, picture, table, write_html


def write_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    evaluation: Evaluation,
    pictures: Mapping[str, Path],
    findings: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        path: of the .html file.
        title: its heading.
        facts: what was evaluated and how, in words.
        evaluation: the figures.
        pictures: PNG and JPEG files by their headings, in the order of the page.
        findings: what stands out, a sentence each.
    """
    report, threshold = evaluation.report, evaluation.threshold
    parts = [
        facts_list(facts),
        _headline(evaluation),
        _list_of("What stands out", findings),
        "<h2>Classes</h2>",
        table(class_table(report, threshold, COLUMNS, ".3f"), total=True),
        "<p>Precision, recall and F1 are first at each class's best threshold, where its F1 is highest, then at the "
        f"one threshold {threshold:g} for all. The last row has the means of the rows above, and how many "
        f"objects there are: {report.means_note}.</p>",
        "<h2>COCO's figures</h2>",
        table([FIGURE_NAMES, [_number(value) for value in report.coco]]),
    ]
    for heading, file in pictures.items():
        parts += [f"<h2>{escape(heading)}</h2>", picture(file, heading)]
    write_html(path, title, parts)


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
    return figure_boxes({name: _number(value) for name, value in figures.items()})


def _list_of(heading: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{heading}</h2><ul>{items}</ul>" if lines else ""


def _number(value: float) -> str:
    return number_text(value, ".3f")
