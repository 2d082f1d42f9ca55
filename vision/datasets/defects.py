"""Defects: everything that can be wrong with a dataset, what each kind does to the data, and how it is told."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vision.datasets.file_index import FileMatch
from vision.datasets.images import LFS_PULL
from vision.datasets.names import first_few, shorten

logger = logging.getLogger(__name__)

#: What a kind of defect does to the data. The first three are defects for --strict, the last is not.
LEFT_OUT, REPAIRED, SUSPECT, INFO = "left out", "repaired", "suspect", "noted"

#: How many defects of a kind the log shows, and how many lines of examples in all; above that it is one a kind.
_SHOWN_PER_KIND, _MOST_SHOWN = 3, 30

#: What stands in a defect's detail for the image and the object that it is about.
_FIELDS = re.compile(r"\$(image|object)\b")


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
        detail: what it is and what became of it, in one line; `$image` and `$object` stand for those it is about.
        objects: how many objects were left out because of it.
        images: how many images were left out because of it.
        things: how many things of its kind it stands for.
        image_id: of the image that it is about; "" if it is not about a single image.
        where: what the object that it is about is called in the file: "object 3", "line 7".
        class_name: of the object or class that it is about.
    """

    kind: str
    source: Path
    detail: str
    objects: int = 0
    images: int = 0
    things: int = 1
    image_id: str = ""
    where: str = ""
    class_name: str = ""

    @property
    def message(self) -> str:
        """What it is and what became of it, in one line that names image and object."""
        return _FIELDS.sub(self._name_field, self.detail)

    def _name_field(self, field: re.Match[str]) -> str:
        image = f"image {self.image_id}"
        if field[1] == "image":
            return image
        named = f"{self.where} {self.class_name!r}" if self.class_name else self.where
        # The file may be called as the image is.
        return named if self.source.stem == self.image_id.rpartition("/")[2] else f"{named} of {image}"

    @property
    def effect(self) -> str:
        """What it did to the data."""
        return KINDS[self.kind].effect

    def __str__(self) -> str:
        return f"{self.source}: {self.message}"


def ambiguous_image(found: FileMatch, source: Path) -> list[Defect]:
    """Say that an annotation's image may be one of several."""
    if not found.others:
        return []
    message = f"its image may be {found.path.name} or {', '.join(found.others)}; the first is taken"
    return [Defect("image-ambiguous", source, message)]


def differing_name(found: FileMatch, name: str, source: Path) -> list[Defect]:
    """Note an image that is called what an annotation says but for spaces, case or Unicode form."""
    if not found.loosely:
        return []
    message = (
        f"names {shorten(name)!r}; {found.path.name!r} is taken, the one image called so but for spaces or the like"
    )
    return [Defect("name-differs", source, message)]


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
