"""Files on disk -> pictures with objects. A format is one class and one row of `DATASETS`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from vision.datasets.base import DetectionDataset, join
from vision.datasets.coco import CocoDataset
from vision.datasets.open_images import OpenImagesDataset
from vision.datasets.voc_dataset import VOCDataset
from vision.datasets.yolo import YoloDataset
from vision.structures import DataError

#: Name, as in --dataset-type -> class.
DATASETS: Mapping[str, type[DetectionDataset]] = {
    "voc": VOCDataset,
    "open_images": OpenImagesDataset,
    "coco": CocoDataset,
    "yolo": YoloDataset,
}
AUTO = "auto"

logger = logging.getLogger(__name__)

__all__ = ["AUTO", "DATASETS", "DetectionDataset", "join", "open_dataset"]


def open_dataset(dataset_type: str, root: str | Path, split: str) -> DetectionDataset:
    """Read a split of a dataset.

    Args:
        dataset_type: a key of `DATASETS`, or "auto" to go by what is on disk.
        root: its folder.
        split: "train" or "test".

    Raises:
        DataError: the folder is not of that format, or of none.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data names the folder of a dataset")
    if dataset_type == AUTO:
        fitting = [name for name, cls in DATASETS.items() if cls.recognises(root)]
        if not fitting:
            raise DataError(f"{root}: holds no dataset of a known format ({', '.join(DATASETS)})")
        dataset_type = fitting[0]
        logger.info("%s: looks like %s", root, dataset_type)
    return DATASETS[dataset_type].for_split(root, split)
