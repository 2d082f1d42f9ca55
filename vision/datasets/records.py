"""From what a file says of an image to a record that can be trained on, with everything wrong named on the way."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from vision.datasets.defects import Defect
from vision.datasets.images import POINTER_ERROR, ImageInfo, orient_boxes, read_image, reductions_of
from vision.datasets.names import first_few, shorten

T = TypeVar("T")

#: A box with a side below this, in pixels, has no area: float32 could not tell its corners apart later.
MIN_SIDE = 0.01

#: How far, in pixels, a box may reach out of its image by rounding alone.
_ROUNDING = 0.5


class RawObject(NamedTuple):
    """An object as its file has it.

    Attributes:
        where: what it is called there: "object 3", "line 7", "annotation 12".
        name: of its class; None without.
        box: corner form; None if it has no four numbers.
        difficult: counts neither for nor against a detector.
        written: the box as it stands there, for messages.
        line: what it is, if it is no area: a point, a polyline.
        crowd: whether the box is around several objects; such a box is difficult, too.
    """

    where: str
    name: str | None
    box: tuple[float, float, float, float] | None
    difficult: bool = False
    written: str = ""
    line: str = ""
    crowd: bool = False


class RawImage(NamedTuple):
    """An image as its files have it.

    Attributes:
        image_id: its name.
        image_path: None if it was not found.
        source: the annotation file, or the list that names the image.
        objects: on it.
        size: (width, height) as the annotation says, which may be (0, 0); None where formats need not say it.
        defects: what the format's reader found; any that leaves the image out has `images` 1.
        relative: whether its boxes are fractions of the image, where those of the format are in pixels.
        first_pixel: what this annotation calls the first pixel, where it differs from its format.
    """

    image_id: str
    image_path: Path | None
    source: Path
    objects: Sequence[RawObject] = ()
    size: tuple[int, int] | None = None
    defects: Sequence[Defect] = ()
    relative: bool = False
    first_pixel: int | None = None


class LeftOut(NamedTuple):
    """An object that is not used though its file says where it is.

    Attributes:
        kind: of the defect, a key of `KINDS`.
        name: of its class, "" without.
        box: corner form in pixels of the upright image; it may lie outside, and have no area.
    """

    kind: str
    name: str
    box: tuple[float, ...]


class Record(NamedTuple):
    """One image on disk with its objects, all of which can be trained on."""

    image_id: str
    image_path: Path
    size: tuple[int, int]  # (width, height) in pixels, upright
    boxes: np.ndarray  # (N, 4) float32, corner form in pixels of the upright image, inside it, with an area
    names: tuple[str, ...]
    difficult: tuple[bool, ...]
    orientation: int = 1  # EXIF's, by which the stored pixels are turned upright
    source: Path = Path()  # where its objects are written
    places: tuple[str, ...] = ()  # what each object is called there
    digest: str = ""  # of the image's file
    crowds: tuple[bool, ...] = ()  # whether each box is around several objects; empty if none is
    left_out: tuple[LeftOut, ...] = ()  # what is written on the image besides, as far as it has a place there
    picture: str = ""  # digest of what the image looks like; "" where it was not decoded
    listed_in: Path = Path()  # the file or folder that says which split the image is of

    @property
    def reductions(self) -> tuple[int, ...]:
        """What the image's sides can be divided by in decoding."""
        return reductions_of(self.image_path, self.size)

    def shape(self, reduction: int = 1) -> tuple[int, int, int]:
        """Shape (H, W, 3) of the decoded image."""
        width, height = self.size
        return height // reduction, width // reduction, 3

    def read(self, reduction: int = 1) -> np.ndarray:
        """Decode the image, upright; see `read_image`."""
        return read_image(self.image_path, self.orientation, reduction)

    def only(self, indices: Sequence[int]) -> Record:
        """Keep some of the objects."""

        def pick(values: tuple[T, ...]) -> tuple[T, ...]:
            return tuple(values[index] for index in indices) if values else ()

        return self._replace(
            boxes=self.boxes[list(indices)],
            names=pick(self.names),
            difficult=pick(self.difficult),
            places=pick(self.places),
            crowds=pick(self.crowds),
        )


class BoxFormat(NamedTuple):
    """How a format writes boxes.

    Attributes:
        relative: to the image, else in pixels.
        first_pixel: what the format calls the first pixel, 0 or 1.
        states_size: whether annotations say the image's size.
        whole_pixels: whether boxes are expected to end at whole pixels.
    """

    relative: bool = False
    first_pixel: int = 0
    states_size: bool = False
    whole_pixels: bool = False


def make_record(
    raw: RawImage, info: ImageInfo | None, form: BoxFormat, class_names: Collection[str] | None = None
) -> tuple[Record | None, list[Defect]]:
    """Check an image and its objects, clip boxes to the real image, and name what is wrong.

    Args:
        raw: as the files have it.
        info: about the image's file; None if there is none.
        form: how its boxes are written.
        class_names: objects of others are going to be left out, so that nothing is said of their boxes; None for all.

    Returns:
        the record, None if the image must be left out; and the defects.
    """
    defects = [defect if defect.image_id else defect._replace(image_id=raw.image_id) for defect in raw.defects]
    if any(defect.images for defect in defects):
        return None, defects
    lost = len(raw.objects)
    if raw.image_path is None or info is None:
        detail = "$image left out: no such file"
        defects.append(Defect("image-missing", raw.source, detail, lost, 1, image_id=raw.image_id))
        return None, defects
    if info.error is not None:
        kind = "image-truncated" if info.is_truncated else "image-undecodable"
        if info.error == POINTER_ERROR:
            kind = "image-pointer"
        detail = f"image left out: {info.error}; replace the file or take it out of the dataset"
        defects.append(Defect(kind, raw.image_path, detail, lost, 1, image_id=raw.image_id))
        return None, defects
    defects += [defect._replace(image_id=raw.image_id) for defect in _about_the_file(raw.image_path, info)]
    stored = _boxes_are_of_the_stored_image(raw, info)
    defects += _about_the_size(raw, info, form, stored)
    size = (info.width, info.height) if stored else info.upright_size
    boxes, names, kept = [], [], []
    left_out: list[LeftOut] = []
    if raw.relative:
        detail = "boxes of $image are fractions of it, where pixels are usual; taken as that"
        defects.append(Defect("box-relative", raw.source, detail, image_id=raw.image_id))
        form = form._replace(relative=True, first_pixel=0)
    elif raw.first_pixel is not None:
        form = form._replace(first_pixel=raw.first_pixel)
    elif form.whole_pixels:
        fractions = [item.where for item in raw.objects if item.box and any(value % 1 > 0 for value in item.box)]
        if fractions:
            detail = f"$image has fractions of pixels in its boxes: {first_few(fractions)}"
            defects.append(Defect("box-fraction", raw.source, detail, image_id=raw.image_id))
    for item in raw.objects:
        box, found = _check(item, raw, size, form)
        if box is None or class_names is None or item.name in class_names:
            defects += found
        if box is not None and item.name:  # without a name there is no box
            boxes.append(box)
            names.append(item.name)
            kept.append(item)
        else:
            left_out += _left_out(item, found[-1].kind, size, form)
    if len(raw.objects) == 1 and defects and defects[-1].kind == "box-not-finite":
        detail = "$image has nothing but an object without numbers, and counts as one without objects"
        defects.append(Defect("negative-mark", raw.source, detail, image_id=raw.image_id))
    array = np.array(boxes, np.float32).reshape(-1, 4)
    if stored:
        array = orient_boxes(array, info.orientation, info.upright_size)
        left_out = _turned(left_out, info)
    record = Record(
        raw.image_id,
        raw.image_path,
        info.upright_size,
        array,
        tuple(names),
        tuple(item.difficult for item in kept),
        info.orientation,
        raw.source,
        tuple(item.where for item in kept),
        info.digest,
        tuple(item.crowd for item in kept) if any(item.crowd for item in kept) else (),
        tuple(left_out),
        info.picture,
    )
    return record, defects


def _about_the_file(path: Path, info: ImageInfo) -> list[Defect]:
    found = []
    if not info.suffix_fits(path):
        found.append(Defect("image-suffix", path, f"is {info.format}, whatever its name says; read as that"))
    if info.doubt is not None:
        found.append(Defect("image-doubtful", path, f"its decoder says {info.doubt!r}; look whether it is whole"))
    if info.orientation != 1:
        width, height = info.upright_size
        message = f"turned upright to {width}x{height}, EXIF orientation {info.orientation}"
        if info.upright_size == (info.width, info.height):
            message += "; sizes cannot tell whether its annotation was made for it upright, as is assumed"
        found.append(Defect("image-rotated", path, message))
    if info.mode in ("1", "L", "LA") or info.mode.startswith("I"):
        found.append(Defect("image-grey", path, "is grey, taken as RGB"))
    if info.mode in ("RGBA", "LA", "PA", "RGBa"):
        found.append(Defect("image-alpha", path, "has transparency, which is dropped"))
    if info.mode in ("P", "PA"):
        found.append(Defect("image-palette", path, "has a palette, taken as RGB"))
    if info.mode == "CMYK":
        found.append(Defect("image-cmyk", path, "is CMYK, taken as RGB"))
    if info.bits == 16:
        found.append(Defect("image-16-bit", path, "has 16 bits a channel, taken as 8"))
    return found


def _boxes_are_of_the_stored_image(raw: RawImage, info: ImageInfo) -> bool:
    """Whether an annotation ignores EXIF: its size is the stored one, and not the upright one."""
    return raw.size == (info.width, info.height) != info.upright_size


def _about_the_size(raw: RawImage, info: ImageInfo, form: BoxFormat, stored: bool) -> list[Defect]:
    width, height = info.upright_size
    if not form.states_size or raw.size == (width, height):
        return []
    said = "" if raw.size is None else f"{raw.size[0]}x{raw.size[1]}"
    if raw.size is None:
        kind, detail = "size-missing", f"does not say the size of $image; it is {width}x{height}"
    elif min(raw.size) <= 0:
        kind, detail = "size-zero", f"says $image is {said}; it is {width}x{height}"
    elif stored:
        kind, detail = "box-turned", f"boxes turned with $image: they were made for {said}, without its EXIF"
    else:
        fit = "boxes are taken as they are, look whether they fit"
        kind, detail = "size-differs", f"says $image is {said}, it is {width}x{height}; {fit}"
    return [Defect(kind, raw.source, detail, image_id=raw.image_id)]


def _check(
    item: RawObject, raw: RawImage, size: tuple[int, int], form: BoxFormat
) -> tuple[tuple[float, ...] | None, list[Defect]]:
    """Return an object's box in pixels counted from 0, inside the image; None if the object must be left out."""

    def written() -> str:
        return shorten(item.written or str(None if item.box is None else [round(value, 6) for value in item.box]))

    def defect(kind: str, detail: str, objects: int = 0) -> Defect:
        detail = f"$object {detail}"
        name = item.name or ""
        return Defect(kind, raw.source, detail, objects, image_id=raw.image_id, where=item.where, class_name=name)

    if not item.name:
        return None, [defect("name-missing", "left out: it has no name", 1)]
    if item.line:
        return None, [defect("shape-no-box", f"left out: a {item.line.removesuffix('s')} has no area", 1)]
    if item.box is None:
        return None, [defect("box-missing", f"left out: its box is {written()}, expected four numbers", 1)]
    x1, y1, x2, y2 = item.box
    if not all(map(math.isfinite, item.box)):
        return None, [defect("box-not-finite", f"left out: its box {written()} is not finite", 1)]
    found = []
    if x1 > x2 or y1 > y2:
        found.append(defect("box-reversed", f"repaired: the corners of its box {written()} were swapped"))
        x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    width, height = size
    left, top, right, bottom = _corners((x1, y1, x2, y2), size, form)
    clipped = (
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )
    if clipped[2] - clipped[0] < MIN_SIDE or clipped[3] - clipped[1] < MIN_SIDE:
        message = f"left out: its box {written()} has no area within {width}x{height}"
        return None, [defect("box-no-area", message, 1)]
    # The numbers in the file are judged: where pixels count from 1, a 0 is common and harmless, anything else is not.
    if form.first_pixel:
        reaches_out = x2 > width or y2 > height
        one_over = reaches_out and x2 <= width + 1 and y2 <= height + 1
        outside = min(x1, y1) < 0 or (reaches_out and not one_over)
        from_zero = not outside and min(x1, y1) < form.first_pixel
    else:
        outside = min(left, top) < -_ROUNDING or right > width + _ROUNDING or bottom > height + _ROUNDING
        one_over = from_zero = False
    if one_over and not outside:
        found.append(defect("box-one-over", f"ends one pixel outside {width}x{height}: its box is {written()}"))
    if outside:
        found.append(defect("box-outside", f"repaired: its box {written()} is cut to the image's {width}x{height}"))
    if from_zero:
        found.append(defect("box-from-zero", f"has 0 in its box {written()}, where pixels count from 1"))
    return clipped, found


def _left_out(item: RawObject, kind: str, size: tuple[int, int], form: BoxFormat) -> list[LeftOut]:
    """Say where an object lies that is left out, if its numbers say so."""
    if item.box is None or not all(map(math.isfinite, item.box)):
        return []
    return [LeftOut(kind, item.name or "", _corners(item.box, size, form))]


def _turned(left_out: Sequence[LeftOut], info: ImageInfo) -> list[LeftOut]:
    """Turn objects of the stored image upright."""
    corners = np.array([item.box for item in left_out], np.float32).reshape(-1, 4)
    boxes = orient_boxes(corners, info.orientation, info.upright_size).tolist()
    return [item._replace(box=tuple(box)) for item, box in zip(left_out, boxes, strict=True)]


def _corners(
    box: tuple[float, float, float, float], size: tuple[int, int], form: BoxFormat
) -> tuple[float, float, float, float]:
    """Corners of a box in pixels counted from 0, in the order in which they are written."""
    x1, y1, x2, y2 = box
    scale_x, scale_y, shift = (*size, 0) if form.relative else (1, 1, form.first_pixel)
    return x1 * scale_x - shift, y1 * scale_y - shift, x2 * scale_x - shift, y2 * scale_y - shift


def has_box(item: RawObject) -> bool:
    """Whether an object is written with an area: not a point or line, nor without numbers."""
    return not item.line and item.box is not None and all(map(math.isfinite, item.box))


def are_fractions(objects: Sequence[RawObject]) -> bool:
    """Whether boxes are fractions of their image: all corners between 0 and 1, and not all of them whole numbers.

    A box at the corner of an image, 0 0 1 1, is none by itself.
    """
    values = [value for item in objects if item.box is not None for value in item.box]
    return bool(values) and all(0 <= value <= 1 for value in values) and any(value % 1 for value in values)
