"""From what a file says of an image to a record that can be trained on, with everything wrong named on the way."""

from __future__ import annotations

import difflib
import logging
import math
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from vision.datasets.images import (
    LFS_PULL,
    POINTER_ERROR,
    FileMatch,
    ImageInfo,
    orient_boxes,
    read_image,
    reductions_of,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: What a kind of defect does to the data. The first three are defects for --strict, the last is not.
LEFT_OUT, REPAIRED, SUSPECT, INFO = "left out", "repaired", "suspect", "noted"

#: A box with a side below this, in pixels, has no area: float32 could not tell its corners apart later.
MIN_SIDE = 0.01

#: How far, in pixels, a box may reach out of its image by rounding alone.
_ROUNDING = 0.5

#: How many names of many a message lists.
EXAMPLES = 5

#: How many defects of a kind the log shows, and how many lines of examples in all; above that it is one a kind.
_SHOWN_PER_KIND, _MOST_SHOWN = 3, 30


class Kind(NamedTuple):
    """A kind of defect.

    Attributes:
        effect: what it does to the data.
        title: what such defects are, in the plural.
        way_out: what to do where hardly anything else is found; "" where the title says enough.
    """

    effect: str
    title: str
    way_out: str = ""


#: Everything that is looked for, by the name it has in audit.json.
KINDS: Mapping[str, Kind] = {
    "image-missing": Kind(
        LEFT_OUT,
        "images that are not there",
        "put the images into the folder, under the names that the annotations give them",
    ),
    "image-pointer": Kind(LEFT_OUT, "images that are Git LFS pointers", LFS_PULL),
    "image-undecodable": Kind(LEFT_OUT, "images that cannot be decoded"),
    "image-truncated": Kind(LEFT_OUT, "images that are cut off"),
    "image-doubtful": Kind(SUSPECT, "images of which their decoder warned, used all the same"),
    "image-ambiguous": Kind(SUSPECT, "images of which there are several of one name"),
    "image-unannotated": Kind(INFO, "images without any annotation, which are not used"),
    "image-mostly-unannotated": Kind(
        SUSPECT, "images without any annotation, more than are annotated, which are not used"
    ),
    "image-unlisted": Kind(SUSPECT, "annotated images that are of no split, which are not used"),
    "image-suffix": Kind(INFO, "images of another format than their suffix"),
    "image-rotated": Kind(INFO, "images turned upright, as their EXIF says"),
    "image-grey": Kind(INFO, "grey images, taken as RGB"),
    "image-alpha": Kind(INFO, "images with transparency, which is dropped"),
    "image-palette": Kind(INFO, "images with a palette, taken as RGB"),
    "image-cmyk": Kind(INFO, "CMYK images, taken as RGB"),
    "image-16-bit": Kind(INFO, "images of 16 bits, taken as 8"),
    "annotation-missing": Kind(
        LEFT_OUT,
        "images without an annotation file",
        "put the annotation files where the message says, or list other images",
    ),
    "annotation-repeats": Kind(LEFT_OUT, "annotations of what is annotated already"),
    "annotation-absent": Kind(
        INFO,
        "images without a text file, taken as without objects",
        "put the text files beside the images, or into the folder of labels",
    ),
    "annotation-mostly-absent": Kind(
        SUSPECT,
        "images without a text file, more than have one, taken as without objects",
        "put the text files beside the images, or into the folder of labels",
    ),
    "annotation-unreadable": Kind(
        LEFT_OUT, "annotation files that cannot be read", "export the annotations again, or repair the files"
    ),
    "annotation-contradicts": Kind(SUSPECT, "copies of a picture within the training images, annotated in another way"),
    "size-missing": Kind(INFO, "annotations that do not say the image's size"),
    "size-zero": Kind(INFO, "annotations that say the image has size 0"),
    "size-differs": Kind(SUSPECT, "annotations made for an image of another size"),
    "name-differs": Kind(
        INFO, "images that are called otherwise in spaces, case or Unicode form than where they are named"
    ),
    "name-missing": Kind(LEFT_OUT, "objects without a name", "give each object a class"),
    "class-unknown": Kind(
        LEFT_OUT,
        "objects of classes that are not in the list",
        "correct the list of classes, or take the names found with --labels-from-data",
    ),
    "shape-no-box": Kind(
        LEFT_OUT,
        "points and lines, which have no box",
        "label the objects with boxes or polygons; points and lines are no boxes",
    ),
    "box-missing": Kind(LEFT_OUT, "objects without a box of four numbers", "label the objects with boxes or polygons"),
    "box-not-finite": Kind(
        LEFT_OUT, "boxes with numbers that are not finite", "export the annotations again, with boxes in numbers"
    ),
    "box-no-area": Kind(
        LEFT_OUT,
        "boxes without area",
        "look whether the boxes were made for other images, or are counted in other units than the format's",
    ),
    "box-reversed": Kind(REPAIRED, "boxes with swapped corners"),
    "box-one-over": Kind(
        INFO,
        "boxes that end one pixel outside the image and were cut (harmless; if there are many, the tool counts from 1)",
    ),
    "box-outside": Kind(REPAIRED, "boxes that reach out of the image, cut to it"),
    "box-turned": Kind(REPAIRED, "boxes turned with their image, as EXIF and size say"),
    "box-from-zero": Kind(INFO, "boxes that begin at 0 where pixels count from 1"),
    "box-relative": Kind(INFO, "annotations whose boxes are fractions of the image, taken as that"),
    "box-fraction": Kind(INFO, "boxes with fractions of pixels"),
    "negative-mark": Kind(INFO, "objects without numbers, alone on their images: a way to mark images without objects"),
    "difficult-missing": Kind(INFO, "objects that do not say whether they are difficult, taken as not"),
    "crowd-usual": Kind(INFO, "objects with `iscrowd` 1 where most are, taken as single objects"),
    "group": Kind(INFO, "boxes around groups, neither trained on nor counted"),
    "depiction": Kind(INFO, "boxes around depictions, neither trained on nor counted"),
    "row-unreadable": Kind(LEFT_OUT, "rows that cannot be read"),
    "path-missing": Kind(SUSPECT, "paths in a dataset's settings that lead nowhere"),
    "list-repeats": Kind(REPAIRED, "names that a list repeats, each taken once"),
    "label-background": Kind(INFO, "lists of classes with a background, which was removed"),
    "label-repeats": Kind(REPAIRED, "classes that a list repeats, each taken once"),
    "label-lists": Kind(SUSPECT, "lists of classes that differ from the one that is taken"),
    "label-alike": Kind(SUSPECT, "classes whose names differ by case or spaces only"),
    "overlap": Kind(SUSPECT, "images both trained and validated on"),
    "class-empty": Kind(SUSPECT, "classes without an object in a split"),
    "class-doubtful": Kind(SUSPECT, "classes with a single object, or with few and a name like another's"),
    "class-few": Kind(INFO, "classes with few objects"),
    "class-rare": Kind(INFO, "classes with at most a tenth of the objects of the most frequent one, and at most 100"),
    "class-small": Kind(INFO, "classes of which most objects are small for the network"),
    "box-small": Kind(INFO, "boxes too small for the network"),
    "box-unreached": Kind(INFO, "boxes that no prior overlaps enough"),
}


class Defect(NamedTuple):
    """Something about the files that was left out, repaired, or deserves a look.

    Attributes:
        kind: a key of `KINDS`.
        source: the file.
        message: what it is and what became of it, in one line; names the object.
        objects: how many objects were left out because of it.
        images: how many images were left out because of it.
        things: how many things of its kind it stands for.
    """

    kind: str
    source: Path
    message: str
    objects: int = 0
    images: int = 0
    things: int = 1

    @property
    def effect(self) -> str:
        """What it did to the data."""
        return KINDS[self.kind].effect

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


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

    def what(self, place: str, name: str) -> str:
        """Name an object of the image, for messages behind the name of its file."""
        return _what(self.source, self.image_id, place, name)


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
    defects = list(raw.defects)
    if any(defect.images for defect in defects):
        return None, defects
    lost = len(raw.objects)
    if raw.image_path is None or info is None:
        defects.append(Defect("image-missing", raw.source, f"image {raw.image_id} left out: no such file", lost, 1))
        return None, defects
    if info.error is not None:
        kind = "image-truncated" if info.error.startswith("truncated") else "image-undecodable"
        if info.error == POINTER_ERROR:
            kind = "image-pointer"
        message = f"image left out: {info.error}; replace the file or take it out of the dataset"
        defects.append(Defect(kind, raw.image_path, message, lost, 1))
        return None, defects
    defects += _about_the_file(raw.image_path, info)
    stored = _boxes_are_of_the_stored_image(raw, info)
    defects += _about_the_size(raw, info, form, stored)
    size = (info.width, info.height) if stored else info.upright_size
    boxes, names, kept = [], [], []
    if raw.relative:
        message = f"boxes of image {raw.image_id} are fractions of it, where pixels are usual; taken as that"
        defects.append(Defect("box-relative", raw.source, message))
        form = form._replace(relative=True, first_pixel=0)
    elif raw.first_pixel is not None:
        form = form._replace(first_pixel=raw.first_pixel)
    elif form.whole_pixels:
        fractions = [item.where for item in raw.objects if item.box and any(value % 1 > 0 for value in item.box)]
        if fractions:
            message = f"image {raw.image_id} has fractions of pixels in its boxes: {first_few(fractions)}"
            defects.append(Defect("box-fraction", raw.source, message))
    for item in raw.objects:
        box, found = _check(item, raw, size, form)
        if box is None or class_names is None or item.name in class_names:
            defects += found
        if box is not None and item.name:  # without a name there is no box
            boxes.append(box)
            names.append(sys.intern(item.name))
            kept.append(item)
    if len(raw.objects) == 1 and defects and defects[-1].kind == "box-not-finite":
        message = f"image {raw.image_id} has nothing but an object without numbers, and counts as one without objects"
        defects.append(Defect("negative-mark", raw.source, message))
    array = np.array(boxes, np.float32).reshape(-1, 4)
    if stored:
        array = orient_boxes(array, info.orientation, info.upright_size)
    record = Record(
        raw.image_id,
        raw.image_path,
        info.upright_size,
        array,
        tuple(names),
        tuple(item.difficult for item in kept),
        info.orientation,
        raw.source,
        tuple(sys.intern(item.where) for item in kept),
        info.digest,
        tuple(item.crowd for item in kept) if any(item.crowd for item in kept) else (),
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
    image = f"image {raw.image_id}"
    if not form.states_size or raw.size == (width, height):
        return []
    if raw.size is None:
        return [Defect("size-missing", raw.source, f"does not say the size of {image}; it is {width}x{height}")]
    if min(raw.size) <= 0:
        said = f"{raw.size[0]}x{raw.size[1]}"
        return [Defect("size-zero", raw.source, f"says {image} is {said}; it is {width}x{height}")]
    if stored:
        message = f"boxes turned with {image}: they were made for {raw.size[0]}x{raw.size[1]}, without its EXIF"
        return [Defect("box-turned", raw.source, message)]
    message = (
        f"says {image} is {raw.size[0]}x{raw.size[1]}, it is {width}x{height}; boxes are taken as they are, "
        "look whether they fit"
    )
    return [Defect("size-differs", raw.source, message)]


def _check(
    item: RawObject, raw: RawImage, size: tuple[int, int], form: BoxFormat
) -> tuple[tuple[float, ...] | None, list[Defect]]:
    """Return an object's box in pixels counted from 0, inside the image; None if the object must be left out."""
    written = shorten(item.written or str(None if item.box is None else [round(value, 6) for value in item.box]))

    def defect(kind: str, message: str, objects: int = 0) -> Defect:
        what = _what(raw.source, raw.image_id, item.where, item.name)
        return Defect(kind, raw.source, f"{what} {message}", objects)

    if not item.name:
        return None, [defect("name-missing", "left out: it has no name", 1)]
    if item.line:
        return None, [defect("shape-no-box", f"left out: a {item.line.removesuffix('s')} has no area", 1)]
    if item.box is None:
        return None, [defect("box-missing", f"left out: its box is {written}, expected four numbers", 1)]
    x1, y1, x2, y2 = item.box
    if not all(map(math.isfinite, item.box)):
        return None, [defect("box-not-finite", f"left out: its box {written} is not finite", 1)]
    found = []
    if x1 > x2 or y1 > y2:
        found.append(defect("box-reversed", f"repaired: the corners of its box {written} were swapped"))
        x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    width, height = size
    scale_x, scale_y, shift = (width, height, 0) if form.relative else (1, 1, form.first_pixel)
    left, right = x1 * scale_x - shift, x2 * scale_x - shift
    top, bottom = y1 * scale_y - shift, y2 * scale_y - shift
    clipped = (
        min(max(left, 0.0), width),
        min(max(top, 0.0), height),
        min(max(right, 0.0), width),
        min(max(bottom, 0.0), height),
    )
    if clipped[2] - clipped[0] < MIN_SIDE or clipped[3] - clipped[1] < MIN_SIDE:
        message = f"left out: its box {written} has no area within {width}x{height}"
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
        found.append(defect("box-one-over", f"ends one pixel outside {width}x{height}: its box is {written}"))
    if outside:
        found.append(defect("box-outside", f"repaired: its box {written} is cut to the image's {width}x{height}"))
    if from_zero:
        found.append(defect("box-from-zero", f"has 0 in its box {written}, where pixels count from 1"))
    return clipped, found


def _what(source: Path, image_id: str, place: str, name: str | None) -> str:
    """Name an object; its image too, unless the file is called the same."""
    named = f"{place} {name!r}" if name else place
    return named if source.stem == image_id.rpartition("/")[2] else f"{named} of image {image_id}"


def ambiguous_image(found: FileMatch, source: Path) -> list[Defect]:
    """Say that an annotation's image may be one of several."""
    if not found.others:
        return []
    message = f"its image may be {found.path.name} or {', '.join(found.others)}; the first is taken"
    return [Defect("image-ambiguous", source, message)]


def unannotated(paths: Sequence[str], folder: Path, annotated: int) -> list[Defect]:
    """Note images of a folder that no annotation is about; more than there are annotated ones are suspect.

    Args:
        paths: of the images.
        folder: that they lie in.
        annotated: how many others there are.
    """
    if not paths:
        return []
    if len(paths) > annotated:
        message = (
            f"{len(paths)} of {len(paths) + annotated} images have no annotation and are not used: {first_few(paths)}"
        )
        return [Defect("image-mostly-unannotated", folder, message, things=len(paths))]
    message = f"{len(paths)} images have no annotation and are not used: {first_few(paths)}"
    return [Defect("image-unannotated", folder, message, things=len(paths))]


def joined(defects: Sequence[Defect]) -> list[Defect]:
    """Put what one command puts right, Git LFS pointers in the place of images, into one defect."""
    pointers = [defect for defect in defects if defect.kind == "image-pointer"]
    if not pointers:
        return list(defects)
    message = f"{len(pointers)} images left out: they are Git LFS pointers in the place of images; {LFS_PULL}"
    objects, images = (sum(getattr(defect, field) for defect in pointers) for field in ("objects", "images"))
    one = Defect("image-pointer", pointers[0].source.parent, message, objects, images, len(pointers))
    return [*(defect for defect in defects if defect.kind != "image-pointer"), one]


def weighed(defect: Defect, images: int) -> Defect:
    """Make a defect suspect that is harmless where it is about a few of the images, and is about most.

    Args:
        defect: of any kind.
        images: how many are listed.
    """
    most = 2 * defect.things > images > 1
    return defect._replace(kind="annotation-mostly-absent") if defect.kind == "annotation-absent" and most else defect


def way_out_of(defects: Iterable[Defect]) -> str:
    """Say what to do about the kind of defect that costs most things; "" where none is known."""
    counts: Counter[str] = Counter()
    for defect in defects:
        if KINDS[defect.kind].way_out:
            counts[defect.kind] += max(defect.things, defect.objects, defect.images)
    return KINDS[counts.most_common(1)[0][0]].way_out if counts else ""


def count_things(defects: Iterable[Defect]) -> int:
    """Count what defects are about: one may stand for many images or objects."""
    return sum(defect.things for defect in defects)


def differing_name(found: FileMatch, name: str, source: Path) -> list[Defect]:
    """Note an image that is called what an annotation says but for spaces, case or Unicode form."""
    if not found.loosely:
        return []
    message = (
        f"names {shorten(name)!r}; {found.path.name!r} is taken, the one image called so but for spaces or the like"
    )
    return [Defect("name-differs", source, message)]


def has_box(item: RawObject) -> bool:
    """Whether an object is written with an area: not a point or line, nor without numbers."""
    return not item.line and item.box is not None and all(map(math.isfinite, item.box))


def are_fractions(objects: Sequence[RawObject]) -> bool:
    """Whether boxes are fractions of their image: all corners between 0 and 1, and not all of them whole numbers.

    A box at the corner of an image, 0 0 1 1, is none by itself.
    """
    values = [value for item in objects if item.box is not None for value in item.box]
    return bool(values) and all(0 <= value <= 1 for value in values) and any(value % 1 for value in values)


def log_defects(defects: Sequence[Defect], all_in: str = "") -> None:
    """Log defects on a screen: the first few of each kind, and what is merely worth knowing in a line a kind.

    Args:
        defects: in any order.
        all_in: where all of them stand, if anywhere.
    """
    by_kind: dict[str, list[Defect]] = {}
    for defect in defects:
        by_kind.setdefault(defect.kind, []).append(defect)
    wanted = sum(min(len(found), _SHOWN_PER_KIND) for kind, found in by_kind.items() if KINDS[kind].effect != INFO)
    most = _SHOWN_PER_KIND if wanted <= _MOST_SHOWN else 1
    for kind, (effect, title, _) in KINDS.items():
        found = by_kind.get(kind, [])
        if effect == INFO:
            if kind.startswith(("class-", "label-")):  # each says all in a sentence
                for defect in found:
                    logger.info("%s", defect)
            elif found:
                logger.info("%s: %d; first: %s", title, count_things(found), found[0])
            continue
        for defect in found[:most]:
            logger.warning("%s", defect)
        if len(found) > most:
            rest = f" ({all_in} has all)" if all_in else ""
            logger.warning("... and %d more %s%s", count_things(found[most:]), title, rest)


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return ", did you mean 'x'?" for the name that is nearest; "" if none is near."""
    near = nearest_name(name, known)
    return "" if near is None else f", did you mean {near!r}?"


def nearest_name(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that is nearest to another, case and spaces apart; None if none is near."""
    by_folded = {fold_name(other): other for other in known}
    near = difflib.get_close_matches(fold_name(name), by_folded, n=1, cutoff=0.7)
    return by_folded[near[0]] if near else None


def fold_name(name: str) -> str:
    """Reduce a class name to what is the same in any case and with any spaces, hyphens or underscores."""
    return "".join(name.casefold().replace("_", " ").replace("-", " ").split())


def shorten(text: str, most: int = 120) -> str:
    """Cut a text that a file may have made very long."""
    return text if len(text) <= most else f"{text[:most]}..."


def first_few(names: Iterable[object], most: int = EXAMPLES) -> str:
    """List the first few names."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
