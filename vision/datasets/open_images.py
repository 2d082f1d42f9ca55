"""Open Images as its downloader leaves it: `sub-<split>-annotations-bbox.csv` and `<split>/<ImageID>.jpg`."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vision.datasets.base import DetectionDataset, ImageIndex, Record
from vision.datasets.labels import with_background
from vision.structures import DataError

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
#: Splits that validation and evaluation look for, in this order.
TEST_SPLITS = ("test", "validation")

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = ("ImageID", *_CORNERS, "ClassName")


def _table(root: Path, split: str) -> Path:
    return root / f"sub-{split}-annotations-bbox.csv"


class OpenImagesDataset(DetectionDataset):
    """A dataset in Open Images layout. All splits of a folder share one class list: the sorted names of all tables.

    Args:
        root: the folder of the tables.
        transform: see `DetectionDataset`.
        target_transform: see `DetectionDataset`.
        dataset_type: the split: train, validation or test.
        balance_data: see `DetectionDataset.balance`; drawn from NumPy's global state.

    Raises:
        DataError: folder or table are missing, or a file cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        dataset_type: str = "train",
        balance_data: bool = False,
    ) -> None:
        self.root = Path(root)
        self.dataset_type = dataset_type.lower()
        self.defects = []
        table = _table(self.root, self.dataset_type)
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; --data names the folder of a dataset")
        if not table.is_file():
            found = sorted(path.name for path in self.root.glob("sub-*-annotations-bbox.csv"))
            raise DataError(
                f"{table}: no such file, the picture set of split {self.dataset_type!r}; "
                f"found {', '.join(found) or 'no table of that kind'}"
            )
        rows = {split: list(_rows(_table(self.root, split))) for split in SPLITS if _table(self.root, split).is_file()}
        class_names = with_background(sorted({row["ClassName"].strip() for table in rows.values() for row in table}))
        records = list(self._read(table, rows[self.dataset_type]))
        super().__init__(records, class_names, transform, target_transform, defects=self.defects)
        logger.info("%s (%s)", table, self.summary())
        if balance_data:
            self.balance(np.random.default_rng(np.random.randint(2**31)))

    @classmethod
    def for_split(cls, root: str | Path, split: str) -> OpenImagesDataset:
        """Read the split "train" or "test" (validation where there is no test)."""
        present = [name for name in TEST_SPLITS if _table(Path(root), name).is_file()]
        return cls(root, dataset_type=next(iter(present), TEST_SPLITS[0]) if split == "test" else "train")

    @staticmethod
    def recognises(root: Path) -> bool:
        """Tell whether a folder looks like this format."""
        return any(_table(root, split).is_file() for split in SPLITS)

    def _read(self, table: Path, rows: list[dict[str, str]]) -> Iterator[Record]:
        folder = self.root / self.dataset_type
        images = ImageIndex(folder)
        objects: dict[str, list] = {}
        for line, row in enumerate(rows, start=2):
            try:
                box = [float(row[corner]) for corner in _CORNERS]
            except ValueError as err:
                raise DataError(f"{table}: line {line}: {err}; expected numbers from 0 to 1 in {_CORNERS}") from err
            objects.setdefault(row["ImageID"].strip(), []).append((row["ClassName"].strip(), box, False))
        missing = [image_id for image_id in objects if images.find(image_id) is None]
        if len(missing) == len(objects):
            raise DataError(f"{table}: none of its {len(objects)} ids has a picture in {folder}")
        self._note_missing(table, missing, len(objects), f"no picture in {folder}")
        for image_id, found in objects.items():
            image_path = images.find(image_id)
            if image_path is not None:
                yield self._record(table, image_id, image_path, found, relative=True)


def _rows(table: Path) -> Iterator[dict[str, str]]:
    """Read a table's rows as {column: text}, all needed columns present."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(
                    f"{table}: lacks the columns {', '.join(lacking)}; found {reader.fieldnames}, "
                    "expected a table as open_images_downloader.py writes it"
                )
            for row in reader:
                if any(row[column] is None for column in _COLUMNS):
                    raise DataError(
                        f"{table}: line {reader.line_num} has fewer fields than the header; mend or remove it"
                    )
                yield row
    except (csv.Error, UnicodeDecodeError, OSError) as err:
        raise DataError(f"{table}: cannot be read as CSV ({err})") from err
