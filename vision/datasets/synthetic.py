"""Draws images with objects and writes them as a dataset in VOC layout: the demo's data, and the tests'.

The classes differ in shape and texture; colors are drawn at random and tell nothing. Everything follows from a seed.

    python3 -m vision.datasets.synthetic data/demo
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from vision.datasets.labels import BACKGROUND, store_labels
from vision.utils.files import write_text

#: Objects are drawn this many times larger and then shrunk, for soft edges.
_OVERSAMPLING = 2
_MAX_OVERLAP = 0.1
_TRIALS = 20

#: The demo's options for `draw`: at 300 x 300 such an object is matched by ten priors of mb1-ssd on average, and by two
#: at the least. At smaller resolutions the priors are small for the steps between them, and most objects overlap none
#: by half: too few positives for a net that starts from scratch and has minutes.
DEMO: Mapping[str, Any] = {"size": (300, 300), "objects": (4, 6), "size_range": (0.27, 0.36)}


class Drawing(NamedTuple):
    """An image and what is on it."""

    image: np.ndarray  # (H, W, 3) uint8 RGB
    boxes: np.ndarray  # (N, 4) float32, corner form in pixels
    names: tuple[str, ...]


def _grid(side: int, rng: np.random.Generator, most_degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates from -1 to 1, turned at random to either side."""
    axis = np.linspace(-1, 1, side)
    x, y = np.meshgrid(axis, axis)
    angle = np.deg2rad(rng.uniform(-most_degrees, most_degrees))
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _ringed_disc(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, side)
    radius = np.hypot(*np.meshgrid(axis, axis * rng.uniform(1.0, 1.25)))
    return np.where(radius < 0.95, 255, 0).astype(np.uint8), np.mod(radius * 2.1, 1) < 0.5


def _checkered_board(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = _grid(side, rng, 12)
    inside = (abs(x) < 0.9) & (abs(y) < 0.36)
    return np.where(inside, 255, 0).astype(np.uint8), (np.floor(x / 0.36) + np.floor(y / 0.36)) % 2 == 0


def _striped_cone(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = _grid(side, rng, 12)
    inside = (abs(y) < 0.9) & (abs(x) < 0.2 * (y + 1))
    return np.where(inside, 255, 0).astype(np.uint8), np.mod(y * 2.2, 1) < 0.5


def _dotted_star(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = _grid(side, rng, 180)
    angles = rng.uniform(0, 2 * np.pi) + np.arange(10) * np.pi / 5
    reach = np.tile([0.97, 0.4], 5) * side / 2
    points = side / 2 + np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)
    mask = np.zeros((side, side), dtype=np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    return mask, np.hypot(np.mod(x * 2.4, 1) - 0.5, np.mod(y * 2.4, 1) - 0.5) < 0.34


#: Class name -> draws (mask uint8, texture bool), both (side, side).
SHAPES: dict[str, Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]] = {
    "ball": _ringed_disc,
    "board": _checkered_board,
    "cone": _striped_cone,
    "star": _dotted_star,
}


def _background(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of several scales, and lines and ellipses that are no objects."""
    image = np.zeros((height, width, 3), dtype=np.float32)
    for cells in (3, 8, 24):
        noise = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 30 / np.sqrt(cells)
    image += rng.uniform(70, 185, 3) + rng.normal(0, 5, image.shape)
    canvas = image.clip(0, 255).astype(np.uint8)
    for _ in range(rng.integers(2, 6)):
        start, end = rng.uniform(0, 1, (2, 2)) * (width, height)
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.line(
            canvas,
            start.astype(int).tolist(),
            end.astype(int).tolist(),
            color,
            int(rng.integers(1, 4)),
            cv2.LINE_AA,
        )
    for _ in range(rng.integers(0, 3)):
        center, axes = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0.03, 0.2, 2) * (width, height)
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.ellipse(canvas, (center.tolist(), (axes * 2).tolist(), float(rng.uniform(0, 180))), color, 2, cv2.LINE_AA)
    return canvas


def _overlaps(box: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
    for other in others:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
        if width > 0 and height > 0 and width * height > _MAX_OVERLAP * smaller:
            return True
    return False


def draw(
    rng: np.random.Generator,
    size: tuple[int, int] = (192, 192),
    class_names: Sequence[str] = tuple(SHAPES),
    objects: tuple[int, int] = (5, 8),
    size_range: tuple[float, float] = (0.22, 0.36),
) -> Drawing:
    """Draw an image.

    Args:
        rng: decides everything.
        size: (width, height) in pixels.
        class_names: among the keys of `SHAPES`.
        objects: (minimum, maximum) per image; fewer if there is no room.
        size_range: of the objects' sides, relative to the shorter side of the image.
    """
    width, height = size
    canvas = _background(width, height, rng)
    boxes: list[list[float]] = []
    names: list[str] = []
    for _ in range(rng.integers(objects[0], objects[1] + 1)):
        name = class_names[int(rng.integers(len(class_names)))]
        side = int(rng.uniform(*size_range) * min(width, height))
        big_mask, texture = SHAPES[name](side * _OVERSAMPLING, rng)
        mask = cv2.resize(big_mask, (side, side), interpolation=cv2.INTER_AREA)
        columns, rows = np.flatnonzero(mask.max(axis=0) > 127), np.flatnonzero(mask.max(axis=1) > 127)
        for _ in range(_TRIALS):
            left, top = int(rng.uniform(1, width - side - 1)), int(rng.uniform(1, height - side - 1))
            box = [left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1]
            if not _overlaps(box, boxes):
                break
        else:
            continue
        dark, light = rng.uniform(0, 90, 3), rng.uniform(165, 255, 3)
        if rng.random() < 0.5:
            dark, light = light, dark
        shade = cv2.resize(texture.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)[..., None]
        colors = dark * shade + light * (1 - shade) + rng.normal(0, 4, (side, side, 3))
        alpha = mask[..., None] / 255
        part = canvas[top : top + side, left : left + side]
        part[:] = (part * (1 - alpha) + colors * alpha).clip(0, 255).astype(np.uint8)
        boxes.append(box)
        names.append(name)
    return Drawing(canvas, np.array(boxes, np.float32).reshape(-1, 4), tuple(names))


def drawings(count: int, seed: int, **options) -> list[Drawing]:
    """Draw `count` images, each from a generator of its own; options as for `draw`."""
    return [draw(np.random.default_rng((seed, number)), **options) for number in range(count)]


def voc_xml(
    file_name: str,
    drawing: Drawing,
    difficult: Sequence[bool] | None = None,
    *,
    number: str = "g",
    head: str = "",
    before_box: str = "",
    after_box: str = "",
) -> str:
    """Write an annotation as VOC does, pixels counted from 1.

    Args:
        file_name: of the image.
        drawing: what is on it.
        difficult: of each object.
        number: format of coordinates; tools differ.
        head: lines behind the file's name; tools differ.
        before_box: lines of each object before its box.
        after_box: and behind it.
    """
    height, width = drawing.image.shape[:2]
    difficult = [False] * len(drawing.names) if difficult is None else difficult
    objects = "".join(
        f"  <object>\n    <name>{name}</name>\n{before_box}    <difficult>{int(hard)}</difficult>\n    <bndbox>\n"
        + "".join(
            f"      <{tag}>{value + 1:{number}}</{tag}>\n"
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        + f"    </bndbox>\n{after_box}  </object>\n"
        for name, box, hard in zip(drawing.names, drawing.boxes.tolist(), difficult, strict=True)
    )
    return (
        f"<annotation>\n  <filename>{file_name}</filename>\n{head}  <size>\n    <width>{width}</width>\n"
        f"    <height>{height}</height>\n    <depth>3</depth>\n  </size>\n{objects}</annotation>\n"
    )


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an RGB image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: cannot be written")


def write_voc(root: Path, splits: dict[str, list[Drawing]], class_names: Sequence[str] = tuple(SHAPES)) -> None:
    """Write drawings in VOC layout, a list per split, and `labels.txt`."""
    for split, images in splits.items():
        ids = [f"{split}_{number:05d}" for number in range(len(images))]
        for image_id, drawing in zip(ids, images, strict=True):
            write_image(root / "JPEGImages" / f"{image_id}.jpg", drawing.image)
            write_text(root / "Annotations" / f"{image_id}.xml", voc_xml(f"{image_id}.jpg", drawing))
        write_text(root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{image_id}\n" for image_id in ids))
    store_labels(root / "labels.txt", [name for name in class_names if name != BACKGROUND])


def main(argv: Sequence[str] | None = None) -> None:
    """Write the demo's dataset, drawn as `DEMO` says."""
    parser = argparse.ArgumentParser(description="Draw a small dataset in VOC layout.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=600, help="images to train on")
    parser.add_argument("--test", type=int, default=60, help="images held out")
    parser.add_argument("--seed", type=int, default=0, help="of the training images; held-out ones have another")
    args = parser.parse_args(argv)
    counts_and_seeds = {"train": (args.train, args.seed), "test": (args.test, args.seed + 1)}
    write_voc(args.folder, {split: drawings(*which, **DEMO) for split, which in counts_and_seeds.items()})
    print(f"{args.folder}: {args.train} + {args.test} images with {', '.join(SHAPES)}")


if __name__ == "__main__":
    main()
