"""What a run leaves for people and tools: log lines, a table of its epochs, its arguments, curves for TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vision import __version__
from vision.engine.loop import EpochResult, StepResult
from vision.report.lines import log_epoch, log_row, log_steps, pace_text, row_of, scalars_of
from vision.report.pace import Pace
from vision.report.run_pictures import TRAIN_BATCH, VAL_BATCH, RunPictures
from vision.report.summary import RunSummary
from vision.ssd.description import Results
from vision.utils.files import write_text
from vision.utils.progress import NoStepBar, StepBar

logger = logging.getLogger(__name__)

TABLE = "results.csv"

#: Names of the folders that hold a run's curves for TensorBoard.
_RUN_FOLDERS = "[0-9]" * 8 + "_" + "[0-9]" * 6


class ResultsTable:
    """`results.csv`: a row for each epoch; written as a whole each time, so that it is never cut off.

    Args:
        path: of the file.
        earlier: table of the run that goes on, None for none.
        first_epoch: of the run; rows of it and of later epochs, which a resumed run trains again, are dropped.
    """

    def __init__(self, path: Path, earlier: Path | None = None, first_epoch: int = 0) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if earlier is not None and earlier.is_file():
            with open(earlier, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self.rows = [
                row for row in rows if (row.get("epoch") or "").isdecimal() and int(row["epoch"]) < first_epoch
            ]

    def add(self, row: Mapping[str, Any]) -> None:
        """Write another row; a cell is empty where a column is new later, or its number is not defined."""
        self.rows.append(dict(row))
        columns = list(dict.fromkeys(column for row in self.rows for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for cells in self.rows:  # of earlier versions' tables, too
            writer.writerow({key: "" if str(value) == "nan" else value for key, value in cells.items()})
        write_text(self.path, text.getvalue())


def write_arguments(path: Path, argv: Sequence[str], arguments: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Write `args.json`: the command, its arguments, versions, and what the run found out.

    Args:
        path: of the file.
        argv: arguments of the command line.
        arguments: all options with their values.
        facts: seed, device, fingerprints of the data and the like.
    """
    record = {
        "command": shlex.join([Path(sys.argv[0]).name, *argv]),
        "arguments": arguments,
        **facts,
        "versions": {
            "ssd-retrain": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "system": platform.platform(),
        },
    }
    write_text(path, json.dumps(record, indent=2, default=str) + "\n")


class Scalars:
    """Curves and pictures for TensorBoard, in one folder for a run; without the package a warning, once.

    Args:
        folder: that holds a folder for each run.
        earlier: the same of the run that goes on, None for none. Its newest folder goes on, too, in a copy if it is of
            another model folder.
        first_epoch: of the run; curves of a run that goes on are cut there, as a killed one may have written more.
    """

    def __init__(self, folder: Path, earlier: Path | None = None, first_epoch: int = 0) -> None:
        self._earlier = None if earlier is None else max(filter(Path.is_dir, earlier.glob(_RUN_FOLDERS)), default=None)
        name = datetime.now().strftime("%Y%m%d_%H%M%S") if self._earlier is None else self._earlier.name
        self.folder, self._first_epoch = folder / name, first_epoch

    def __enter__(self) -> Scalars:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as err:
            logger.warning("no curves for TensorBoard: %s (pip install tensorboard)", err)
            self.writer = None
            return self
        if self._earlier is not None and not self.folder.exists():
            shutil.copytree(self._earlier, self.folder)
        first = None if self._earlier is None else self._first_epoch
        self.writer = SummaryWriter(str(self.folder), purge_step=first)
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write an epoch's numbers by their names."""
        if self.writer is None:
            return
        for name, value in values.items():
            if not math.isnan(value):  # a curve has no place for what is not defined
                self.writer.add_scalar(name, value, epoch)
        self.writer.flush()

    def write_picture(self, epoch: int, path: Path) -> None:
        """Write a JPEG file as it is, which takes a fraction of what an array would; nothing where there is no file."""
        if self.writer is None or not path.is_file():
            return
        from torch.utils.tensorboard.summary import Summary

        with Image.open(path) as image:
            width, height = image.size
        shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
        summary = Summary(value=[Summary.Value(tag=path.stem, image=shown)])
        assert self.writer.file_writer is not None  # until it is closed
        self.writer.file_writer.add_summary(summary, epoch)


class RunRecorder:
    """Logs the results of a run as they come, adds those of epochs to `results.csv` and TensorBoard, and draws them.

    A context.

    Args:
        table: of the epochs.
        scalars: curves for TensorBoard.
        pace: measures how fast the run goes.
        summary: says at the end what came out; None for no word.
        pictures: draws results; None for nothing drawn.
        step_bar: makes the bar of an epoch.
    """

    def __init__(
        self,
        table: ResultsTable,
        scalars: Scalars,
        pace: Pace,
        summary: RunSummary | None = None,
        pictures: RunPictures | None = None,
        step_bar: Callable[[str, int], StepBar] = NoStepBar,
    ) -> None:
        self._table, self._scalars, self._pace, self._summary = table, scalars, pace, summary
        self._pictures, self._new_step_bar = pictures, step_bar
        self._step_bar: StepBar | None = None

    def __enter__(self) -> RunRecorder:
        self._scalars.__enter__()
        if not self._table.rows and self._pictures is not None:
            self._scalars.write_picture(0, self._pictures.folder / TRAIN_BATCH)
        self._epoch_began = time.monotonic()
        self._is_first_row = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._close_step_bar()
        self._scalars.__exit__(*exception)

    def log(self, result: StepResult | EpochResult) -> None:
        """Log a result, or show it on the epoch's bar."""
        if isinstance(result, EpochResult):
            self._close_step_bar()
            self._pace.count_epoch(result)
            log_epoch(result)
            return
        self._pace.count_step(result)
        note = ""
        if result.losses is not None:
            left = self._pace.seconds_left(result.epoch, result.step)
            note = pace_text(self._pace.images_per_second(), left)
            log_steps(result, note)
            note = f"loss {result.losses.total:.3f}, {note}"
        if self._step_bar is None:
            what = f"Epoch {result.epoch} ({result.epoch + 1} of {self._pace.epochs})"
            self._step_bar = self._new_step_bar(what, result.steps)
        self._step_bar.show(result.step, note)
        if result.step == result.steps:
            self._close_step_bar()

    def _close_step_bar(self) -> None:
        if self._step_bar is not None:
            self._step_bar.close()
            self._step_bar = None

    def write(self, result: EpochResult, is_best: bool) -> None:
        """Write an epoch's results; its time includes validation and checkpoint."""
        rates = {f"Learning Rate/{name}": rate for name, rate in result.learning_rates.items()}
        self._scalars.write(result.epoch, {**scalars_of(result), **rates})
        row = row_of(result, time.monotonic() - self._epoch_began)
        self._table.add(row)
        left = self._pace.seconds_left(result.epoch + 1, 0)
        log_row(row, with_heads=self._is_first_row, is_best=is_best, seconds_left=left)
        self._is_first_row = False
        if is_best and self._summary is not None:
            self._summary.take_best(result)
        if self._pictures is not None:
            self._pictures.draw(result, self._table.rows)
            if result.report is not None:
                self._scalars.write_picture(result.epoch, self._pictures.folder / VAL_BATCH)
        self._epoch_began = time.monotonic()

    def finish(self, best: Results | None) -> None:
        """Say at the end of a run what came out."""
        if self._summary is not None:
            self._summary.log(best, self._table.rows, self._pace.epochs)
