"""Open Images as its downloader leaves it: `sub-<split>-annotations-bbox.csv` and `<split>/<ImageID>.jpg`."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vision.datasets.base import DetectionDataset
from vision.datasets.defects import Defect, log_defects, unannotated
from vision.datasets.file_cache import FileCache
from vision.datasets.file_index import FileIndex
from vision.datasets.folder import DatasetReader, ReadingOptions, SplitImages
from vision.datasets.labels import LabelList
from vision.datasets.records import BoxFormat, RawImage, RawObject
from vision.datasets.tree import Tree
from vision.structures import DataError

#: Split -> tables that are looked for, in this order.
TABLES = {"train": ("train",), "test": ("test", "validation"), "val": ("validation", "test")}
SPLITS = ("train", "validation", "test")

#: Rows of a table that are looked at to tell the format.
_PEEKED_ROWS = 500

_CORNERS = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = ("ImageID", *_CORNERS, "ClassName")


class OpenImagesReader(DatasetReader):
    """A dataset in Open Images layout. All splits of a folder share one class list: the sorted names of all tables.

    Boxes around groups (`IsGroupOf`) and, unless asked for, around depictions (`IsDepiction`) count as difficult:
    they are neither trained on nor held against a detector.
    """

    name = "open_images"
    form = BoxFormat(relative=True)

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, cache, options)
        self._names: dict[str, set[str]] = {}  # of classes, per table that was read

    @staticmethod
    def recognizes(root: Path) -> bool:
        """Whether a folder looks like this format."""
        return any(_table(root, split).is_file() for split in SPLITS)

    @staticmethod
    def begins_at(folder: Path) -> bool:
        """See `DatasetReader.begins_at`."""
        return OpenImagesReader.recognizes(folder)

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """See `DatasetReader.annotated_images`; by the first rows of the tables, as these may be large."""
        names: dict[str, None] = {}
        for path in (path for split in SPLITS if (path := _table(tree.root, split)).is_file()):
            with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
                names |= {
                    row.get("ImageID") or "": None for row in itertools.islice(csv.DictReader(file), _PEEKED_ROWS)
                }
        held = sum(map(tree.holds, names))
        return round(len(tree.images) * held / len(names)) if names else 0

    def listing(self, split: str) -> SplitImages | None:
        """Read the table of a split; validation is that of test, else of validation."""
        present = [name for name in TABLES[split] if _table(self.root, name).is_file()]
        return self.table_listing(present[0]) if present else None

    def all_images(self) -> SplitImages:
        """Read all tables."""
        listings = [self.table_listing(split) for split in SPLITS if _table(self.root, split).is_file()]
        if not listings:
            raise DataError(f"{_table(self.root, 'train')}: no such file; found {self._found()}")
        images = [raw for listing in listings for raw in listing.images]
        defects = [defect for listing in listings for defect in listing.defects]
        return SplitImages(str(self.root), self.root, images, defects)

    def table_listing(self, table_split: str) -> SplitImages:
        """Read the table of "train", "validation" or "test".

        Raises:
            DataError: it is not there or not a table.
        """
        table = _table(self.root, table_split)
        if not table.is_file():
            raise DataError(f"{table}: no such file, the image set of split {table_split!r}; found {self._found()}")
        defects: list[Defect] = []
        objects: dict[str, list[RawObject]] = {}
        special: dict[str, dict[str, list[str]]] = {}
        names: set[str] = set()
        for line, row in enumerate(_rows(table), start=2):
            image_id = (row["ImageID"] or "").strip()
            if not image_id or row[None]:
                what = "has more fields than the header" if row[None] else "names no image"
                defects.append(Defect("row-unreadable", table, f"line {line} left out: it {what}", 1))
                continue
            where = f"line {line}"
            is_group, is_depiction = _is_set(row, "IsGroupOf"), _is_set(row, "IsDepiction")
            ignored = is_group or (is_depiction and not self.options.include_depictions)
            if ignored:
                kind = "group" if is_group else "depiction"
                special.setdefault(image_id, {}).setdefault(kind, []).append(where)
            written = [row[corner] for corner in _CORNERS]
            box: tuple[float, float, float, float] | None
            try:
                x1, y1, x2, y2 = map(float, written)
                box = (x1, y1, x2, y2)
            except (TypeError, ValueError):
                box = None
            name = (row["ClassName"] or "").strip()
            names.add(name)
            objects.setdefault(image_id, []).append(RawObject(where, name, box, ignored, str(written), crowd=is_group))
        self._names[table_split] = names
        files = FileIndex(self.root / table_split)
        images = []
        for image_id, found in objects.items():
            image = files.find(image_id)
            image_path = None if image is None else image.path
            own = [
                Defect(kind, table, f"$image: {', '.join(places)} neither trained on nor counted", image_id=image_id)
                for kind, places in special.get(image_id, {}).items()
            ]
            if image_path is None:
                detail = f"$image left out: no image of that name in {files.folder}"
                own = [Defect("image-missing", table, detail, len(found), 1, image_id=image_id)]
            images.append(RawImage(image_id, image_path, table, found, defects=own))
        used = {raw.image_path for raw in images}
        free = [path for path in files.paths if files.folder / path not in used]
        defects += unannotated(free, files.folder, len(files) - len(free))
        return SplitImages(str(table), table, images, defects)

    def written_labels(self) -> LabelList | None:
        """Open Images has no list of classes."""
        return None

    def all_names(self) -> Iterator[str]:
        """Return the names of all rows of all tables."""
        for split in SPLITS:
            table = _table(self.root, split)
            if split not in self._names and table.is_file():
                self._names[split] = {(row["ClassName"] or "").strip() for row in _rows(table) if not row[None]}
            yield from filter(None, self._names.get(split, ()))

    def _found(self) -> str:
        found = sorted(path.name for path in self.root.glob("sub-*-annotations-bbox.csv"))
        return ", ".join(found) or "no table of that kind"


class OpenImagesDataset(DetectionDataset):
    """A split of a dataset in Open Images layout.

    Args:
        root: the folder of the tables.
        transform: see `DetectionDataset`.
        target_transform: see `DetectionDataset`.
        dataset_type: the split: train, validation or test.
        balance_data: see `DetectionDataset.balance`; drawn from NumPy's global state.

    Raises:
        DataError: folder or table are missing or cannot be read, or no image of it can be used.
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
        folder = OpenImagesReader(self.root)
        contents = folder.read(folder.table_listing(self.dataset_type))
        super().__init__(
            contents.records,
            folder.class_names(),
            transform,
            target_transform,
            False,
            contents.defects,
            **contents.origin,
        )
        log_defects([*self.defects, *self.class_defects()])
        if balance_data:
            self.balance(np.random.default_rng(np.random.randint(2**31)))


def _table(root: Path, split: str) -> Path:
    return root / f"sub-{split}-annotations-bbox.csv"


def _is_set(row: Mapping[Any, Any], column: str) -> bool:
    return (row.get(column) or "").strip() == "1"


def _rows(table: Path) -> Iterator[dict[str | None, Any]]:
    """Read a table's rows as {column: text}; fields that a row lacks are None, those too many stand under None."""
    wanted = (*_COLUMNS, "IsGroupOf", "IsDepiction", None)
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
                yield {column: row.get(column) for column in wanted}
    except (csv.Error, UnicodeDecodeError, OSError) as err:
        raise DataError(f"{table}: cannot be read as CSV ({err})") from err
