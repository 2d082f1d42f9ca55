"""What a folder holds that is no dataset of a known format, and the way out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from vision.datasets.records import some
from vision.datasets.tree import Tree, load_json, try_to

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")

#: Files of annotations are looked for among these.
_TEXTS = (".json", ".jsonl", ".xml", ".csv", ".tsv", ".txt", ".yaml", ".yml")

#: Files of a kind that are looked into.
_LOOKED_INTO = 3


def what_is_there(tree: Tree) -> str:
    """Say in one line what a folder holds, and what to do with it."""
    counts = Counter(Path(path).suffix.lower() for path in tree.paths)
    images, archives = len(tree.images), tree.ending(*_ARCHIVES)
    texts = [f"{counts[suffix]} {suffix} files" for suffix in _TEXTS if counts[suffix]]
    if archives:
        return f"holds {some(archives)}: unpack the archive, and name the folder that comes out"
    if not tree.paths:
        return "is empty; --data names the folder of a dataset"
    if not images and not texts:
        return f"holds neither images nor annotations ({some(tree.paths)}); --data names the folder of a dataset"
    if images and not texts:
        return f"holds {images} images and no annotation: label them first, and export as VOC, COCO or YOLO"
    tool = _tool_of(tree)
    looks = f", that look like {tool}'s" if tool else ""
    what = f"holds {images} images, {', '.join(texts)}{looks}; no annotation in it is read here"
    if not images:
        return f"holds no image, but {', '.join(texts)}{looks}; put the images into the folder, too"
    return f"{what}, or none names an image that is there; export as VOC, COCO or YOLO" + (
        f" from {tool}" if tool else ""
    )


def _tool_of(tree: Tree) -> str | None:
    """Name the tool that wrote a folder's JSON or CSV files, where it is known but not read."""
    for path in tree.ending(".json")[:_LOOKED_INTO]:
        tool = _writer_of(try_to(load_json, tree.root / path))
        if tool:
            return tool
    for path in tree.ending(".csv")[:_LOOKED_INTO]:
        head = try_to(lambda file: file.read_text(errors="replace")[:500], tree.root / path) or ""
        if "region_shape_attributes" in head:
            return "VIA"
    return None


def _writer_of(content: Any) -> str | None:
    if isinstance(content, list) and content:
        keys = set(content[0]) if isinstance(content[0], dict) else set()
        if {"annotations", "data"} <= keys or {"completions", "data"} <= keys:
            return "Label Studio"
        if "Labeled Data" in keys:
            return "Labelbox"
    if not isinstance(content, dict):
        return None
    if "_via_img_metadata" in content or any(
        isinstance(value, dict) and "regions" in value for value in content.values()
    ):
        return "VIA"
    if "objects" in content and "tags" in content:
        return "Supervisely"
    if "asset" in content and "regions" in content:
        return "VoTT"
    return None
