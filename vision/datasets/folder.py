"""A dataset's folder: which lists it has, which pictures they name, and how it is split where it has none.

A format is a subclass that reads its files into `RawPicture`s; everything that formats share is here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vision.datasets.facts import FileFacts
from vision.datasets.labels import LabelList, with_background
from vision.datasets.pictures import PictureFacts, decoding_error, picture_facts
from vision.datasets.records import Defect, Form, RawPicture, Record, make_record, some
from vision.structures import DataError
from vision.utils.progress import ProgressBar, no_progress

logger = logging.getLogger(__name__)

#: Share of the pictures that is held out for validation where nothing says which.
VAL_SPLIT = 0.2

#: What may stand for a split, in the order in which it is looked for.
SPLITS = {"train": ("train",), "test": ("test", "val", "valid", "validation")}


@dataclass(frozen=True)
class ReadingOptions:
    """How datasets are read.

    Attributes:
        val_split: share of the training pictures to hold out for validation, whatever lists there are; None to take
            the lists, and to hold out `VAL_SPLIT` where there is none for validation.
        labels_from_data: the classes are the names found in the annotations, whatever lists of classes there are.
        include_depictions: train on drawings and sculptures of things as on the things (Open Images).
        cache: remember between runs what was read from files.
        decode: decode every picture, to leave out those that are damaged inside.
    """

    val_split: float | None = None
    labels_from_data: bool = False
    include_depictions: bool = False
    cache: bool = True
    decode: bool = False


class Listing(NamedTuple):
    """Pictures that a dataset puts together."""

    title: str  # in words, which pictures
    source: Path  # the file or folder that says so
    pictures: list[RawPicture]
    defects: list[Defect]


class Contents(NamedTuple):
    """What reading a listing gave."""

    title: str  # of the listing
    source: Path  # likewise
    records: list[Record]
    defects: list[Defect]
    pictures_listed: int
    objects_written: int  # as far as the files could be read

    @property
    def origin(self) -> dict[str, Any]:
        """What a `DetectionDataset` is told of where it comes from."""
        return {
            "title": self.title,
            "source": self.source,
            "pictures_listed": self.pictures_listed,
            "objects_written": self.objects_written,
        }


class Folder:
    """A dataset on disk.

    Args:
        root: its folder.
        facts: what is known about files.
        options: how to read.

    Raises:
        DataError: there is no such folder.
    """

    #: The name of the format, as in --dataset-type.
    name = ""
    #: How its boxes are written.
    form = Form()
    #: Whether each picture has an annotation file of its own.
    own_files = False

    def __init__(self, root: Path, facts: FileFacts | None = None, options: ReadingOptions | None = None) -> None:
        self.root = root
        self.facts = facts or FileFacts()
        self.options = options or ReadingOptions()
        check_folder(root)

    @staticmethod
    def recognises(root: Path) -> bool:
        """Tell whether a folder looks like this format."""
        raise NotImplementedError

    def listing(self, split: str) -> Listing | None:
        """Read the pictures of "train" or "test"; None if nothing says which these are."""
        raise NotImplementedError

    def everything(self) -> Listing:
        """Read all annotated pictures.

        Raises:
            DataError: there are none; the message says what a folder of this format looks like.
        """
        raise NotImplementedError

    def written_labels(self) -> LabelList | None:
        """Read the list of classes; None if the dataset has none."""
        raise NotImplementedError

    def all_names(self) -> Iterable[str]:
        """Give the class names of all objects in all splits, in any order, some or all repeated."""
        raise NotImplementedError

    # What all formats share.

    def split(self, name: str) -> Listing:
        """Read the pictures of "train" or "test"; see `splits`."""
        if name == "test" and self.options.val_split is None and (listing := self.listing(name)) is not None:
            return listing
        return self.splits()[name == "test"]

    def splits(self) -> tuple[Listing, Listing]:
        """Read training and validation pictures; holds some out where nothing says which.

        Raises:
            DataError: there are no pictures, or too few.
        """
        train, test = self.listing("train"), self.listing("test")
        share = self.options.val_split
        if train is None:
            whole = self.everything()
            if test is None:
                train = whole._replace(title=f"no list of pictures, all annotated ones in {whole.title}")
            else:
                known = {raw.image_path for raw in test.pictures}
                rest = [raw for raw in whole.pictures if raw.image_path not in known]
                train = whole._replace(title=f"all annotated pictures but those of {test.title}", pictures=rest)
                if not rest:
                    raise DataError(
                        f"{test.source}: names all annotated pictures for validation, none is left to train on; "
                        "take some out, or write a list for training"
                    )
        if test is not None and share is None:
            return train, test
        share = VAL_SPLIT if share is None else share
        kept, held_out = hold_out(train.pictures, share)
        if not held_out:
            raise DataError(f"{train.title}: its {len(kept)} pictures are too few to hold some out for validation")
        return (
            train._replace(title=f"{train.title}, less what is held out", pictures=kept),
            train._replace(
                title=f"{train.title}, {share:.0%} of it held out by a hash of the names", pictures=held_out, defects=[]
            ),
        )

    @functools.cached_property
    def label_list(self) -> LabelList:
        """The classes, for all splits alike: those that the dataset lists, else the names found."""
        written = None if self.options.labels_from_data else self.written_labels()
        return LabelList(tuple(sorted(set(self.all_names())))) if written is None else written

    def class_names(self) -> tuple[str, ...]:
        """Give the class list, BACKGROUND first."""
        return with_background(self.label_list.names)

    def read(self, listing: Listing, progress: ProgressBar = no_progress) -> Contents:
        """Check pictures and objects, and make what can be trained on.

        Raises:
            DataError: no picture is left.
        """
        records: list[Record] = []
        pictures, repeated = self._once(listing)
        named = [*listing.defects, *repeated]
        defects = list(named)
        if self.options.decode:
            self._decode_all(pictures, progress)
        for raw in progress(pictures, f"Reading {self.root}", len(pictures)):
            record, found = make_record(raw, self._picture_facts(raw.image_path), self.form)
            defects += found
            if record is not None:
                records.append(record)
        if not records:
            raise DataError(f"{listing.title}: {_why_nothing(pictures, defects)}")
        on_disk = sum(len(raw.objects) for raw in pictures) + sum(defect.objects for defect in named)
        return Contents(listing.title, listing.source, records, defects, len(pictures), on_disk)

    def _picture_facts(self, path: Path | None) -> PictureFacts | None:
        if path is None:
            return None
        try:
            facts = PictureFacts(*self.facts.get("picture", path, picture_facts))
        except FileNotFoundError:
            return None
        except OSError as err:  # not kept: it may work the next time
            return PictureFacts(0, 0, 1, "", "", 0, f"cannot be read ({err.strerror})")
        decoding = self.facts.known("decoding", path) if facts.error is None else None
        return facts._replace(error=decoding) if decoding else facts

    def _decode_all(self, pictures: Sequence[RawPicture], progress: ProgressBar) -> None:
        """Decode pictures on all cores; what is wrong with them is a fact from then on."""

        def decode(path: Path) -> None:
            with contextlib.suppress(OSError):
                self.facts.get("decoding", path, decoding_error)

        paths = [raw.image_path for raw in pictures if raw.image_path is not None]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in progress(pool.map(decode, paths), f"Decoding {self.root}", len(paths)):
                pass

    def _once(self, listing: Listing) -> tuple[list[RawPicture], list[Defect]]:
        """Give each picture once, and name what is there again: names in a list, or annotations of one picture."""
        by_path: dict[Path, RawPicture] = {}
        by_source: dict[Path, RawPicture] = {}
        pictures: list[RawPicture] = []
        repeated: list[str] = []
        defects: list[Defect] = []
        for raw in listing.pictures:
            path = raw.image_path or Path(raw.image_id)
            first = by_path.setdefault(path, raw)
            if first is raw:
                owner = (
                    by_source.setdefault(raw.source, raw) if self.own_files and raw.objects and raw.image_path else raw
                )
                if owner is raw:
                    pictures.append(raw)
                else:
                    message = (
                        f"picture {path.name} left out: {raw.source.name} is the annotation of {owner.image_path.name}"
                    )
                    defects.append(Defect("annotation-repeats", raw.source, message, 0, 1))
            elif first.source == raw.source or first.objects == raw.objects:
                repeated.append(raw.image_id)
            else:
                count = len(raw.objects)
                message = f"its {count} objects left out: picture {raw.image_id} has its annotation in {first.source}"
                defects.append(Defect("annotation-repeats", raw.source, message, count))
        if repeated:
            message = f"{len(repeated)} names are listed again, each counts once: {some(repeated)}"
            defects.append(Defect("list-repeats", listing.source, message))
        return pictures, defects


def _why_nothing(pictures: Sequence[RawPicture], defects: Sequence[Defect]) -> str:
    if not pictures:
        return "names no picture; write a picture's name a line, or hold some out with --val-split=0.2"
    first_of_kind = {defect.kind: str(defect) for defect in reversed(defects) if defect.pictures}
    return f"none of its {len(pictures)} pictures can be used; first: {'; '.join(reversed(first_of_kind.values()))}"


def check_folder(root: Path) -> None:
    """Raise DataError if a path is not a folder."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}; --data names the folder of a dataset")


def hold_out(pictures: Sequence[RawPicture], share: float) -> tuple[list[RawPicture], list[RawPicture]]:
    """Split pictures by a hash of their names.

    The answer depends on the names alone, not on order, folder or run, and another picture more or less moves at most
    one other. Each part gets at least one picture where there are two.

    Args:
        pictures: to split.
        share: of them that is held out.

    Returns:
        the rest and the held out, both in their order.
    """
    keys = [(raw.image_id, str(raw.image_path)) for raw in pictures]
    ranked = sorted(set(keys), key=lambda key: (_rank(key[0]), key))
    count = min(max(round(len(ranked) * share), 1), max(len(ranked) - 1, 0))
    chosen = set(ranked[:count])
    pairs = list(zip(keys, pictures, strict=True))
    return [raw for key, raw in pairs if key not in chosen], [raw for key, raw in pairs if key in chosen]


def _rank(image_id: str) -> bytes:
    return hashlib.blake2b(image_id.encode(errors="surrogateescape"), digest_size=8).digest()
