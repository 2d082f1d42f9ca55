"""Pascal VOC's layout: `Annotations/<id>.xml`, `JPEGImages/<id>.<suffix>`, `ImageSets/Main/<list>.txt`."""

from __future__ import annotations

import logging
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

from vision.datasets.base import DetectionDataset, ImageIndex, Record, names_found
from vision.datasets.labels import read_labels
from vision.structures import DataError

logger = logging.getLogger(__name__)

#: Lists that are looked for, in this order.
TRAINING_LISTS = ("trainval", "train", "default")
TEST_LISTS = ("test", "val", "default")

#: Files of class names that are looked for, in this order; the second is CVAT's.
LABEL_FILES = ("labels.txt", "labelmap.txt")

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TRUE = ("1", "true")


class VOCDataset(DetectionDataset):
    """A dataset in VOC layout.

    The classes are those of `labels.txt` or CVAT's `labelmap.txt`; without these, the names found in all annotations.

    Args:
        root: the folder with `Annotations`, `JPEGImages` and `ImageSets`.
        transform: see `DetectionDataset`.
        target_transform: see `DetectionDataset`.
        is_test: read the first of the lists test, val, default; else of trainval, train, default.
        keep_difficult: see `DetectionDataset`.
        label_file: class names, in the place of `labels.txt`.

    Raises:
        DataError: folder or lists are missing, or a file cannot be read.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
        is_test: bool = False,
        keep_difficult: bool = False,
        label_file: str | Path | None = None,
    ) -> None:
        self.root = Path(root)
        self.defects = []
        list_path = self._find_list(TEST_LISTS if is_test else TRAINING_LISTS)
        records = list(self._read(list_path))
        if label_file is None:
            label_file = next((path for name in LABEL_FILES if (path := self.root / name).is_file()), None)
        class_names = names_found(self._all_names()) if label_file is None else read_labels(label_file)
        super().__init__(records, class_names, transform, target_transform, keep_difficult, self.defects)
        logger.info("%s (%s)", list_path, self.summary())

    @classmethod
    def for_split(cls, root: str | Path, split: str) -> VOCDataset:
        """Read the split "train" or "test"."""
        return cls(root, is_test=split == "test")

    @staticmethod
    def recognises(root: Path) -> bool:
        """Tell whether a folder looks like this format."""
        return (root / "ImageSets" / "Main").is_dir() or (root / "Annotations").is_dir()

    def _find_list(self, wanted: tuple[str, ...]) -> Path:
        folder = self.root / "ImageSets" / "Main"
        for name in wanted:
            if (folder / f"{name}.txt").is_file():
                return folder / f"{name}.txt"
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; --data names the folder of a dataset")
        found = sorted(path.name for path in folder.glob("*.txt"))
        raise DataError(
            f"{folder}: no picture set; expected one of {', '.join(f'{name}.txt' for name in wanted)}, "
            f"found {', '.join(found) or 'none'}; write one with a picture's name a line"
        )

    def _read(self, list_path: Path) -> Iterator[Record]:
        images = ImageIndex(self.root / "JPEGImages")
        try:
            lines = list_path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as err:
            raise DataError(f"{list_path}: cannot be read as UTF-8 text ({err}); expected an id a line") from err
        ids = [line.strip() for line in lines if line.strip()]
        if not ids:
            raise DataError(f"{list_path}: lists no picture; expected a picture's name a line")
        without_image, without_annotation = [], []
        for image_id in ids:
            image_path = images.find(image_id)
            annotation_path = self._annotation_of(image_id, image_path)
            if image_path is None:
                without_image.append(image_id)
            elif not annotation_path.is_file():
                without_annotation.append(image_id)
            else:
                yield self._record(annotation_path, image_id, image_path, self._objects(annotation_path), first_pixel=1)
        self._note_missing(list_path, without_image, len(ids), f"no picture in {self.root / 'JPEGImages'}")
        self._note_missing(list_path, without_annotation, len(ids), f"no XML in {self.root / 'Annotations'}")
        if len(without_image) + len(without_annotation) == len(ids):
            raise DataError(
                f"{list_path}: none of its {len(ids)} ids has a picture in {self.root / 'JPEGImages'} and an XML in "
                f"{self.root / 'Annotations'}; first: {ids[0]}"
            )

    def _annotation_of(self, image_id: str, image_path: Path | None) -> Path:
        """Name the annotation of an id, which may have been listed with its picture's suffix."""
        path = self.root / "Annotations" / f"{image_id}.xml"
        return path if path.is_file() or image_path is None else path.with_name(f"{image_path.stem}.xml")

    def _objects(self, path: Path) -> Iterator[tuple[str, list[float], bool]]:
        """Read (name, corners in pixels counted from 1, difficult) of each object."""
        for number, element in enumerate(_parse(path).iter("object"), start=1):
            name = (element.findtext("name") or "").strip()
            corners = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
            if not name:
                self._note(path, f"object {number} left out: it has no <name>")
                continue
            try:
                box = [float(corner) for corner in corners]
            except (TypeError, ValueError):
                self._note(
                    path,
                    f"object {number} {name!r} left out: its <bndbox> is {corners}, expected four numbers",
                )
                continue
            difficult = (element.findtext("difficult") or "").strip().lower() in _TRUE
            yield name, box, difficult

    def _all_names(self) -> Iterator[Record]:
        """Give records of names only, of every annotation there is."""
        for path in sorted((self.root / "Annotations").glob("*.xml")):
            try:
                objects = list(_parse(path).iter("object"))
            except DataError as err:  # one that is listed was refused before
                if not path.name.startswith("."):
                    logger.warning("not read for class names: %s", err)
                continue
            names = tuple((element.findtext("name") or "").strip() for element in objects)
            yield Record(path.stem, path, (0, 0), None, names, ())


def _parse(path: Path) -> ET.Element:
    try:
        return ET.parse(path).getroot()
    except (ET.ParseError, OSError, ValueError) as err:
        raise DataError(f"{path}: not readable as XML ({err}); mend the file or take its id out of the list") from err
