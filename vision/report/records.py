"""What a run leaves for people and tools: a table of its epochs, its arguments, curves for TensorBoard."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from vision.utils.files import write_text

logger = logging.getLogger(__name__)


class ResultsTable:
    """`results.csv`: a row for each epoch; written anew as a whole each time, so that it is never cut off.

    Args:
        path: of the file.
        first_epoch: of the run; rows of it and of later epochs, which a resumed run trains again, are dropped.
    """

    def __init__(self, path: Path, first_epoch: int = 0) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if first_epoch and path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            self.rows = [
                row for row in rows if (row.get("epoch") or "").isdecimal() and int(row["epoch"]) < first_epoch
            ]

    def add(self, row: Mapping[str, Any]) -> None:
        """Write another row; a column that earlier rows lack is empty there."""
        self.rows.append(dict(row))
        columns = list(dict.fromkeys(column for row in self.rows for column in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


def write_arguments(path: Path, facts: Mapping[str, Any]) -> None:
    """Write `args.json`: the command, its arguments, versions, seed, and what the data were."""
    write_text(path, json.dumps(facts, indent=2, default=str) + "\n")


class Scalars:
    """Curves for TensorBoard, in a folder of the run's own; without the package a warning, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / datetime.now().strftime("%Y%m%d_%H%M%S")

    def __enter__(self) -> Scalars:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as err:
            logger.warning("no curves for TensorBoard: %s (pip install tensorboard)", err)
            self.writer = None
        else:
            self.writer = SummaryWriter(str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, epoch: int, values: Mapping[str, float]) -> None:
        """Write an epoch's numbers by their names."""
        if self.writer is None:
            return
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()
