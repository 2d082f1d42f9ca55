"""What a folder holds that is no dataset of a known format, and the way out."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vision.datasets.images import LFS_PULL, is_pointer
from vision.datasets.labels import read_text
from vision.datasets.names import first_few, shorten
from vision.datasets.tree import ARCHIVES, Tree, load_json, parse_xml, try_to
from vision.structures import IMAGE_SUFFIXES

#: What may hold annotations; other files say nothing.
_TEXTS = (".json", ".jsonl", ".ndjson", ".xml", ".csv", ".tsv", ".txt", ".yaml", ".yml", ".labels", ".manifest")
_RECORDS = {
    ".tfrecord": "TensorFlow's records",
    ".record": "TensorFlow's records",
    ".parquet": "a table of Hugging Face's",
    ".arrow": "a table of Hugging Face's",
}

#: Files of a kind that are looked into.
_LOOKED_INTO = 3

#: A line of Keras' YOLO: an image, then x1,y1,x2,y2,class for each object.
_KERAS_LINE = re.compile(r"\S.*\.\w+( \d+,\d+,\d+,\d+,\d+)+\s*$")


def what_is_there(tree: Tree, tool: str | None) -> str:
    """Say in one line what a folder holds, and what to do with it.

    Args:
        tree: the folder.
        tool: see `tool_of`.
    """
    counts = Counter(Path(path).suffix.lower() for path in tree.paths)
    images, archives = len(tree.images), tree.ending(*ARCHIVES)
    texts = [
        f"{counts[suffix]} {suffix} file{'s'[: counts[suffix] > 1]}"
        for suffix in (*_TEXTS, *_RECORDS)
        if counts[suffix]
    ]
    if pointer := pointer_in(tree):
        return f"{pointer} is a Git LFS pointer in the place of a file; {LFS_PULL}"
    if archives:
        return f"holds {first_few(archives)}: unpack the archive, and name the folder that comes out"
    if not tree.paths:
        return "is empty; --data names the folder of a dataset"
    if not images and (pulled := tree.ending(".dvc")):
        return f"holds {first_few(pulled)} in the place of data; run `dvc pull` in the repository that they come from"
    if not images and not texts:
        return f"holds neither images nor annotations ({first_few(tree.paths)}); --data names the folder of a dataset"
    if images and not texts:
        others = first_few([path for path in tree.paths if not path.lower().endswith(IMAGE_SUFFIXES)])
        besides = f" (besides {others})" if others else ""
        return f"holds {images} images and no annotation{besides}: label them first, and export as VOC, COCO or YOLO"
    begins = _first_of_table(tree)
    looks = f", that look like {tool}" if tool else f" ({begins})" if begins else ""
    if not images and any(counts[suffix] for suffix in _RECORDS):
        return f"holds {', '.join(texts)}{looks}; export as VOC, COCO or YOLO, with images as files"
    if not images:
        return f"holds no image, but {', '.join(texts)}{looks}; put the images into the folder, too"
    return (
        f"holds {images} images, {', '.join(texts)}{looks}; no annotation in it is read here, or none names an image "
        "that is there; export as VOC, COCO or YOLO"
    )


def tool_of(tree: Tree) -> str | None:
    """Say whose files a folder holds, where that is known but not read."""
    for suffix, read in _READERS.items():
        for path in tree.ending(suffix)[:_LOOKED_INTO]:
            content = try_to(read, tree.root / path)
            tool = None if content is None else _tool_of(content)
            if tool:
                return tool
    return next((what for suffix, what in _RECORDS.items() if tree.ending(suffix)), None)


def pointer_in(tree: Tree) -> str | None:
    """Find a Git LFS pointer among the first files of each kind."""
    looked_into: Counter[str] = Counter()
    for path in tree.paths:
        suffix = Path(path).suffix.lower()
        looked_into[suffix] += 1
        if looked_into[suffix] <= _LOOKED_INTO and try_to(is_pointer, tree.root / path):
            return path
    return None


def _first_line(path: Path) -> str:
    return next((line for line in read_text(path, "").splitlines() if line.strip()), "")


def _root_of_xml(path: Path) -> str:
    return f"<{parse_xml(path).tag}>"


def _first_object(path: Path) -> Any:
    return json.loads(_first_line(path))


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ".json": load_json,
    ".labels": load_json,
    **dict.fromkeys((".jsonl", ".ndjson", ".manifest"), _first_object),
    **dict.fromkeys((".csv", ".txt"), _first_line),
    ".xml": _root_of_xml,
}


def _first_of_table(tree: Tree) -> str:
    """Quote how a table begins that is none of objects."""
    path = next(iter(tree.ending(".csv", ".tsv")), None)
    begins = None if path is None else try_to(_first_line, tree.root / path)
    return f"{path} begins with {shorten(begins)!r}, which names no image, class and box" if begins else ""


#: Whose a file is by the keys of its object, or of the first in its list: all of a set are there. The first that fits.
_BY_KEYS: tuple[tuple[set[str], str], ...] = (
    ({"annotations", "data"}, "Label Studio's"),
    ({"completions", "data"}, "Label Studio's"),
    ({"Labeled Data"}, "Labelbox's"),
    ({"data_row", "projects"}, "Labelbox's"),
    ({"_via_img_metadata"}, "VIA's"),
    ({"regions", "filename"}, "VIA's"),
    ({"objects", "tags"}, "Supervisely's"),
    ({"classes", "tags"}, "Supervisely's"),
    ({"asset", "regions"}, "VoTT's"),
    ({"assets", "sourceConnection"}, "VoTT's"),
    ({"items", "categories"}, "Datumaro's"),
    ({"classes", "labels"}, "FiftyOne's"),
    ({"boundingBoxes"}, "Edge Impulse's"),
    ({"source-ref"}, "SageMaker Ground Truth's"),
    ({"file_name", "objects"}, "Hugging Face's"),
    ({"image", "prefix", "suffix"}, "those of a language model with vision"),
    ({"name", "labels"}, "BDD100K's"),
    ({"frames"}, "BDD100K's"),
    ({"item", "annotations"}, "V7's Darwin"),
    ({"image", "annotations", "dataset"}, "V7's Darwin"),
    ({"label_hash", "data_units"}, "Encord's"),
    ({"export_format_version"}, "Hasty's"),
)


def _tool_of(content: Any) -> str | None:
    if isinstance(content, str):
        if "region_shape_attributes" in content:
            return "VIA's"
        if content == "<dataset>":
            return "those of dlib's imglab"
        return "YOLO's for Keras" if _KERAS_LINE.match(content) else None
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        return None
    # VIA has its images as keys of their own, each with the same keys below.
    values = [value for value in content.values() if isinstance(value, dict)]
    for one in (content, *values[:1]):
        for keys, tool in _BY_KEYS:
            if keys <= one.keys():
                return tool
    return None
