"""Which images were chosen to be labeled next, and why, for people; and what a model folder says of its classes."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vision.evaluation.choosing import Choice, ClassFacts
from vision.report.run_comparison import ComparedRun
from vision.utils.files import write_text

logger = logging.getLogger(__name__)

#: Classes that a reason names, and the share of the other images from which it says how many look alike.
_CLASSES_NAMED, _MIN_SHARE = 3, 0.005


def class_facts(folder: Path, class_names: Sequence[str]) -> ClassFacts:
    """Read from a model folder how many objects of each class were labeled, and how well each is found.

    Args:
        folder: of a run; what it lacks is not known.
        class_names: without the background.
    """
    labeled = dict.fromkeys(class_names, 0)
    ap = dict.fromkeys(class_names, float("nan"))
    if (audit := folder / "audit.json").is_file():
        try:
            labeled |= json.loads(audit.read_text(encoding="utf-8"))["train"]["objects_per_class"]
        except (ValueError, LookupError, TypeError) as err:
            logger.warning("%s: cannot be read (%r); how many objects are labeled is not known", audit, err)
    if (results := folder / "results.csv").is_file():
        rows = list(csv.DictReader(results.read_text(encoding="utf-8").splitlines()))
        run = ComparedRun(folder.name, rows) if rows else None
        for name in class_names if run else ():
            value = run.at_best(f"Class Average Precision/{name}")  # type: ignore[union-attr]  # see above
            ap[name] = float("nan") if value is None else value
    return ClassFacts(
        np.array([labeled[name] for name in class_names], float), np.array([ap[name] for name in class_names], float)
    )


def facts_line(facts: ClassFacts, class_names: Sequence[str]) -> str:
    """Say what choosing goes by, the classes worth most first."""
    each = facts.weights / (1 + facts.labeled)
    parts = [
        f"{class_names[place]} ({facts.labeled[place]:.0f} objects labeled, AP "
        f"{'not known' if np.isnan(facts.ap[place]) else f'{facts.ap[place]:.3f}'})"
        for place in np.argsort(-each, kind="stable").tolist()
    ]
    return f"an object is worth most where few are labeled and the net is weak: {', '.join(parts)}"


def reason(choice: Choice, class_names: Sequence[str], is_empty: bool) -> str:
    """Say why an image was chosen.

    Args:
        choice: of the image.
        class_names: without the background.
        is_empty: whether it is known to hold no object.
    """
    order = [place for place in np.argsort(-choice.counts, kind="stable").tolist() if choice.counts[place]]
    named = ", ".join(f"{choice.counts[place]} {class_names[place]}" for place in order[:_CLASSES_NAMED])
    if is_empty:
        found = f"false alarms: {named}" if named else "no false alarm from the threshold on"
    else:
        found = f"unsure of {named}" if named else "nothing found that is near the threshold"
    if choice.stands_for < _MIN_SHARE:
        return f"{found}; looks like no other"
    return f"{found}; looks like {choice.stands_for:.0%} of the others"


def chosen_table(choices: Sequence[Choice], class_names: Sequence[str], is_empty: bool) -> str:
    """Write the choices as CSV, the best first; arguments as of `reason`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "image", "worth against the mean", "reason"])
    for rank, choice in enumerate(choices, start=1):
        writer.writerow([rank, choice.name, f"{choice.worth:.2f}", reason(choice, class_names, is_empty)])
    return text.getvalue()


def write_chosen(path: Path, choices: Sequence[Choice], class_names: Sequence[str], is_empty: bool) -> None:
    """Write `chosen_table` to a file."""
    write_text(path, chosen_table(choices, class_names, is_empty))
