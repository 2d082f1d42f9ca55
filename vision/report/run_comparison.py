"""Several runs side by side: what they reach and cost, and what differs between them. Loads no torch."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

from vision.report.page import picture, table, write_html
from vision.report.training_plots import Rows, number_of

logger = logging.getLogger(__name__)

#: How far below the best AP a smaller run may be to be named.
AP_TOLERANCE = 0.01

#: Columns of `results.csv` by which a run's best epoch is chosen, as `best.pth` is, and which way is better.
_CHOOSING = (("COCO AP/val", 1), ("Mean Average Precision/val", 1), ("Loss/val", -1))
_OF_CLASS = "Class Average Precision/"

#: Of `args.json`: what is no setting, and settings that say nothing beside the others.
_NO_SETTINGS = ("command", "arguments", "fingerprints", "versions")
_NOT_SHOWN = ("model_dir", "net_by_default")

UNKNOWN = "-"


@dataclass(frozen=True)
class ComparedRun:
    """What is known of a run.

    Attributes:
        name: in tables.
        rows: of its `results.csv`.
        settings: options, versions and the like by their names, of its `args.json`; empty where nobody knows.
        fingerprints: of its "training" and "validation" images; empty where nobody knows.
        model_bytes: size of `best.pth`, None without one.
        disk_bytes: size of all files of its folder, None without a folder.
        milliseconds: that an image takes, None where that was not measured.
    """

    name: str
    rows: Rows
    settings: Mapping[str, Any] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    model_bytes: int | None = None
    disk_bytes: int | None = None
    milliseconds: float | None = None

    @property
    def best(self) -> Mapping[str, Any]:
        """The row of the best epoch; of equal ones the last."""
        for column, sign in _CHOOSING:
            values = [(place, number_of(row.get(column))) for place, row in enumerate(self.rows)]
            known = [(sign * value, place) for place, value in values if value is not None]
            if known:
                return self.rows[max(known)[1]]
        return self.rows[-1]

    def at_best(self, column: str) -> float | None:
        """A number of the best epoch."""
        return number_of(self.best.get(column))

    @property
    def ap(self) -> float | None:
        """COCO's AP at the best epoch."""
        return self.at_best("COCO AP/val")

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Width and height of the net's input in pixels."""
        sides = self.settings.get("resolution")
        if isinstance(sides, int):
            return sides, sides
        return (sides[0], sides[1]) if isinstance(sides, (list, tuple)) and len(sides) == 2 else None


def summarize(name: str, rows: Rows, folder: Path | None) -> ComparedRun:
    """Collect what is known of a run.

    Args:
        name: in tables.
        rows: of its `results.csv`, or of a text log.
        folder: its model folder, None for a log alone.
    """
    if folder is None:
        return ComparedRun(name, rows)
    record = _read_arguments(folder / "args.json")
    settings = {
        **record.get("arguments", {}),
        **{key: value for key, value in record.items() if key not in _NO_SETTINGS},
        **{f"version of {key}": value for key, value in record.get("versions", {}).items()},
    }
    best = folder / "best.pth"
    return ComparedRun(
        name,
        rows,
        settings,
        record.get("fingerprints", {}),
        best.stat().st_size if best.is_file() else None,
        disk_use(folder),
    )


def _read_arguments(path: Path) -> dict[str, Any]:
    """Read `args.json`; without one, or of a damaged one, nothing."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        logger.warning("%s: cannot be read (%s); the settings of the run are not shown", path, err)
        return {}
    return record if isinstance(record, dict) else {}


def disk_use(folder: Path) -> int:
    """Bytes of all files in a folder and its subfolders; a file of several names counts once."""
    sizes = {}
    for parent, _, files in os.walk(folder):
        for name in files:
            found = os.lstat(os.path.join(parent, name))
            sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


def comparability(runs: Sequence[ComparedRun]) -> list[str]:
    """Say why the figures of runs cannot be compared, or not without care; nothing where they can."""
    said = []
    if groups := _groups(runs, "validation"):
        said.append(f"The figures cannot be compared: validated on different images or labels were {groups}.")
    if groups := _groups(runs, "training"):
        said.append(
            f"Trained on different images or labels were {groups}: a difference may come from these instead of the "
            "settings."
        )
    unknown = [run.name for run in runs if not run.fingerprints]
    if unknown:
        said.append(f"Not known is which images were used by {', '.join(unknown)}: compare with care.")
    return said


def _groups(runs: Sequence[ComparedRun], which: str) -> str:
    """Name the runs by what they have in common; "" where all that is known is the same."""
    groups: dict[str, list[str]] = {}
    for run in runs:
        if which in run.fingerprints:
            groups.setdefault(run.fingerprints[which], []).append(run.name)
    return " / ".join(", ".join(names) for names in groups.values()) if len(groups) > 1 else ""


def verdict(runs: Sequence[ComparedRun]) -> list[str]:
    """Say which run has the best AP, which is nearly as good and smaller or faster, and which is the fastest."""
    said = []
    ranked = [(run.ap, run) for run in runs if run.ap is not None]
    if _groups(runs, "validation"):
        said.append("Which run has the best AP cannot be said.")
    elif ranked:
        best_ap, best = max(ranked, key=lambda pair: pair[0])
        said.append(f"{best.name} has the best AP: {best_ap:.4f}, at epoch {best.best['epoch']}.")
        near = [run for ap, run in ranked if run is not best and round(best_ap - ap, 6) <= AP_TOLERANCE]
        for word, cost, text in _COSTS:
            limit = cost(best)
            if limit is None or len(ranked) < 2:
                continue
            cheaper = [(value, run) for run in near if (value := cost(run)) is not None and value < limit]
            if cheaper:
                value, run = min(cheaper, key=lambda pair: pair[0])
                said.append(
                    f"{run.name} is within {AP_TOLERANCE} AP of it ({run.ap:.4f}) and {word}: {text(value)} instead of "
                    f"{text(limit)}."
                )
            else:
                said.append(f"No {word} one is within {AP_TOLERANCE} AP of it.")
    timed = sorted((run.milliseconds, run.name) for run in runs if run.milliseconds is not None)
    if len(timed) > 1:
        (least, fastest), (most, slowest) = timed[0], timed[-1]
        said.append(
            f"{fastest} is the fastest: {_milliseconds(least)} an image; {slowest} takes {_milliseconds(most)}."
        )
    return said


def figures_table(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """Lay out what runs reach at their best epoch, and what they cost; heads first."""
    heads = ["run", "AP", "AP50", "mAP", "best epoch", "epochs", "s/epoch", "input", "best.pth", "folder", "ms/image"]
    return [heads, *(_figures(run) for run in runs)]


def _figures(run: ComparedRun) -> list[str]:
    columns = ("COCO AP/val", "COCO AP50/val", "Mean Average Precision/val")
    seconds = [value for row in run.rows if (value := number_of(row.get("seconds"))) is not None]
    size = run.input_size
    return [
        run.name,
        *(_text(run.at_best(column), ".4f") for column in columns),
        str(run.best["epoch"]),
        str(len(run.rows)),
        _text(median(seconds) if seconds else None, ".1f"),
        UNKNOWN if size is None else f"{size[0]}x{size[1]}",
        _megabytes(run.model_bytes),
        _megabytes(run.disk_bytes),
        _text(run.milliseconds, ".1f"),
    ]


def settings_table(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """Lay out the settings that differ, a row each; heads first, and alone where none does.

    A run that does not say, of an earlier version or a log alone, makes no difference.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in _NOT_SHOWN)
    rows = [["", *(run.name for run in runs)]]
    for name in names:
        texts = [_setting_text(run.settings[name]) if name in run.settings else UNKNOWN for run in runs]
        if len(set(texts) - {UNKNOWN}) > 1:
            rows.append([name.replace("_", " "), *texts])
    return rows


def class_table(runs: Sequence[ComparedRun]) -> list[list[str]]:
    """Lay out the 11-point AP of each class at the best epoch, a row each, the mean last; heads first."""
    columns = dict.fromkeys(column for run in runs for column in run.best if column.startswith(_OF_CLASS))
    rows = [["class", *(run.name for run in runs)]]
    for column, name in [*((column, column.removeprefix(_OF_CLASS)) for column in columns), (_CHOOSING[1][0], "mean")]:
        rows.append([name, *(_text(run.at_best(column), ".4f") for run in runs)])
    return rows


def write_comparison(path: Path, runs: Sequence[ComparedRun], curves: Path | None) -> None:
    """Write all of it as a page.

    Args:
        path: of the .html file.
        runs: to compare.
        curves: picture of them, None for none.
    """
    differing = settings_table(runs)
    parts = [f"<p><strong>{escape(line)}</strong></p>" for line in comparability(runs)]
    parts += [f"<p>{escape(line)}</p>" for line in verdict(runs)]
    parts += [
        "<h2>At the best epoch</h2>",
        table(figures_table(runs)),
        "<p>AP is COCO's, over overlaps from 0.5 to 0.95, AP50 at 0.5, mAP the mean 11-point AP at 0.5. The best epoch "
        "is that of best.pth: the one with the highest AP. s/epoch is the median, with validation. ms/image is the "
        "time of the net alone on this CPU, measured with --time.</p>",
        "<h2>Settings that differ</h2>",
        table(differing) if len(differing) > 1 else "<p>None that is known.</p>",
        "<h2>11-point AP of each class</h2>",
        table(class_table(runs), total=True),
    ]
    if curves is not None:
        parts += ["<h2>Curves</h2>", picture(curves, "curves of the runs over their epochs")]
    write_html(path, "Runs side by side", parts)


def _text(number: float | None, form: str) -> str:
    return UNKNOWN if number is None else format(number, form)


def _megabytes(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / 1e6:.1f} MB"


def _milliseconds(time: float) -> str:
    return f"{time:.1f} ms"


#: By what a run may be cheaper than the best: a word, the cost, and how it is written.
_COSTS: tuple[tuple[str, Callable[[ComparedRun], float | None], Callable[[Any], str]], ...] = (
    ("smaller", attrgetter("model_bytes"), _megabytes),
    ("faster", attrgetter("milliseconds"), _milliseconds),
)


def _setting_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "default" if value is None else str(value)
