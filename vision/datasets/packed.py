"""Records in columns: a million boxes are a few arrays, and a record is put together when it is asked for."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np

from vision.datasets.records import LeftOut, Record
from vision.utils.array_file import ArrayFile, can_be_handed_over

#: Texts that each image has.
_TEXTS = ("image_id", "image_path", "digest", "picture")

#: Texts that many images or objects share, which have the number of one.
_TABLES = ("sources", "names", "words", "kinds")

#: Numbers of an image, of an object, and of one that is left out, with their types as `array` calls them. `first` and
#: `first_left` say where the objects of an image begin, and end with the number of all.
_NUMBERS = {
    **{"size": "i", "orientation": "B", "source": "i", "listed_in": "i", "first": "q", "first_left": "q"},
    **{"box": "f", "name": "i", "flags": "B", "word": "i", "number": "i"},
    **{"left_box": "d", "left_kind": "i", "left_name": "i"},
}

#: Shapes of the numbers that are several of each.
_SHAPES = {"size": (-1, 2), "box": (-1, 4), "left_box": (-1, 4)}

#: Bits of an object's flags.
_DIFFICULT, _CROWD = 1, 2

#: Of an object's number where its place does not end with one, and of its word where it has no place.
_NONE = -1

_DIGITS = "0123456789"

#: Digits of the longest number that is kept as one.
_MOST_DIGITS = 9


class _Texts:
    """Many texts in one buffer.

    Args:
        content: bytes (K,) of all texts.
        ends: (N + 1,) where each ends, behind a 0.
    """

    def __init__(self, content: np.ndarray, ends: np.ndarray) -> None:
        self._content, self._ends = content.data, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return str(self._content[self._ends[index] : self._ends[index + 1]], "utf-8", "surrogatepass")

    def all(self) -> list[str]:
        """List all texts."""
        ends = self._ends.tolist()
        content = self._content
        return [str(content[start:stop], "utf-8", "surrogatepass") for start, stop in itertools.pairwise(ends)]


class RecordPacker:
    """Puts records into columns as they come."""

    def __init__(self) -> None:
        self._texts = {column: bytearray() for column in _TEXTS}
        self._ends = {column: array("q", [0]) for column in _TEXTS}
        self._tables: dict[str, dict[str, int]] = {table: {} for table in _TABLES}
        self._numbers: dict[str, array] = {column: array(kind) for column, kind in _NUMBERS.items()}
        self._objects = self._left_out = 0
        self._count()

    def _count(self) -> None:
        self._numbers["first"].append(self._objects)
        self._numbers["first_left"].append(self._left_out)

    def _number_of(self, table: str, text: str) -> int:
        numbers = self._tables[table]
        return numbers.setdefault(text, len(numbers))

    def add(self, record: Record) -> None:
        """Put a record behind those before."""
        numbers = self._numbers
        for column, text in zip(
            _TEXTS, (record.image_id, str(record.image_path), record.digest, record.picture), strict=True
        ):
            self._texts[column] += text.encode("utf-8", "surrogatepass")
            self._ends[column].append(len(self._texts[column]))
        numbers["size"].extend(record.size)
        numbers["orientation"].append(record.orientation)
        numbers["source"].append(self._number_of("sources", str(record.source)))
        numbers["listed_in"].append(self._number_of("sources", str(record.listed_in)))
        numbers["box"].frombytes(np.asarray(record.boxes, np.float32).tobytes())
        numbers["name"].extend([self._number_of("names", name) for name in record.names])
        crowds = record.crowds or (False,) * len(record.names)
        numbers["flags"].extend(
            [_DIFFICULT * hard + _CROWD * crowd for hard, crowd in zip(record.difficult, crowds, strict=True)]
        )
        for place in record.places:
            words = place.rstrip(_DIGITS)
            digits = place[len(words) :]
            is_number = digits and len(digits) <= _MOST_DIGITS and (digits[0] != "0" or digits == "0")
            numbers["word"].append(self._number_of("words", words if is_number else place))
            numbers["number"].append(int(digits) if is_number else _NONE)
        if not record.places:
            numbers["word"].extend([_NONE] * len(record.names))
            numbers["number"].extend([_NONE] * len(record.names))
        for item in record.left_out:
            numbers["left_kind"].append(self._number_of("kinds", item.kind))
            numbers["left_name"].append(self._number_of("names", item.name))
            numbers["left_box"].extend(item.box)
        self._objects += len(record.names)
        self._left_out += len(record.left_out)
        self._count()

    def packed(self) -> Records:
        """Return all records; none can be added afterwards."""
        arrays = {
            column: np.frombuffer(values, values.typecode).reshape(_SHAPES.get(column, -1))
            for column, values in self._numbers.items()
        }
        for column, content in self._texts.items():
            arrays[column] = np.frombuffer(content, np.uint8)
            arrays[f"{column}.ends"] = np.frombuffer(self._ends[column], np.int64)
        for table, texts in self._tables.items():
            contents = [text.encode("utf-8", "surrogatepass") for text in texts]
            arrays[table] = np.frombuffer(b"".join(contents), np.uint8)
            arrays[f"{table}.ends"] = np.cumsum([0, *map(len, contents)], dtype=np.int64)
        return Records([_Part(Columns(arrays))])


class Columns:
    """What is known of images and their objects.

    Args:
        arrays: by the names of the columns.
        file: where they are mapped from, if they are.
        prefix: of their names there.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], file: ArrayFile | None = None, prefix: str = "") -> None:
        self.arrays, self._file, self._prefix = arrays, file, prefix
        self.texts = {column: _Texts(arrays[column], arrays[f"{column}.ends"]) for column in (*_TEXTS, *_TABLES)}
        self.names, self._words, self._kinds = (self.texts[table].all() for table in ("names", "words", "kinds"))
        self._last_paths = {"source": (_NONE, Path()), "listed_in": (_NONE, Path())}

    @classmethod
    def of_file(cls, file: ArrayFile, prefix: str) -> Columns:
        """Take the columns whose names begin so in a file."""
        arrays = {name[len(prefix) :]: found for name, found in file.arrays.items() if name.startswith(prefix)}
        return cls(arrays, file, prefix)

    def __reduce__(self) -> tuple[Callable, tuple]:
        if self._file is not None and can_be_handed_over():
            return Columns.of_file, (self._file, self._prefix)
        return Columns, (dict(self.arrays),)

    def __len__(self) -> int:
        return len(self.arrays["orientation"])

    def all_texts(self, column: str) -> list[str]:
        """List a text of each image."""
        if column in _TEXTS:
            return self.texts[column].all()
        sources = self.texts["sources"].all()
        return [sources[number] for number in self.arrays[column].tolist()]

    def _path(self, column: str, index: int) -> Path:
        """Return a path that mostly is that of the image before."""
        number = int(self.arrays[column][index])
        last, path = self._last_paths[column]
        if number != last:
            path = Path(self.texts["sources"][number])
            self._last_paths[column] = number, path
        return path

    def record(self, index: int, difficult: np.ndarray | None = None) -> Record:
        """Put a record together.

        Args:
            index: of the image.
            difficult: (M,) of all objects, where it is not as they were packed.
        """
        arrays, texts = self.arrays, self.texts
        start, stop = arrays["first"][index : index + 2].tolist()
        flags = arrays["flags"][start:stop].tolist()
        hard = difficult[start:stop].tolist() if difficult is not None else [bool(flag & _DIFFICULT) for flag in flags]
        words, numbers = arrays["word"][start:stop].tolist(), arrays["number"][start:stop].tolist()
        places = [
            self._words[word] if number == _NONE else f"{self._words[word]}{number}"
            for word, number in zip(words, numbers, strict=True)
            if word != _NONE
        ]
        crowds = [bool(flag & _CROWD) for flag in flags]
        width, height = arrays["size"][index].tolist()
        return Record(
            texts["image_id"][index],
            Path(texts["image_path"][index]),
            (width, height),
            arrays["box"][start:stop].copy(),
            tuple([self.names[name] for name in arrays["name"][start:stop].tolist()]),
            tuple(hard),
            int(arrays["orientation"][index]),
            self._path("source", index),
            tuple(places),
            texts["digest"][index],
            tuple(crowds) if any(crowds) else (),
            self._left_out(index),
            texts["picture"][index],
            self._path("listed_in", index),
        )

    def _left_out(self, index: int) -> tuple[LeftOut, ...]:
        start, stop = self.arrays["first_left"][index : index + 2].tolist()
        return tuple(
            LeftOut(
                self._kinds[self.arrays["left_kind"][row]],
                self.names[self.arrays["left_name"][row]],
                tuple(self.arrays["left_box"][row].tolist()),
            )
            for row in range(start, stop)
        )


class _Part(NamedTuple):
    """Columns, and what was decided about their objects since."""

    columns: Columns
    left_out: frozenset[str] = frozenset()  # names of classes
    difficult: np.ndarray | None = None  # (M,) bool of all objects; None as they were packed

    def record(self, index: int) -> Record:
        """Put a record together."""
        record = self.columns.record(index, self.difficult)
        if not self.left_out:
            return record
        kept = [place for place, name in enumerate(record.names) if name not in self.left_out]
        if len(kept) == len(record.names):
            return record
        unknown = [
            LeftOut("class-unknown", name, tuple(box))
            for name, box in zip(record.names, record.boxes.tolist(), strict=True)
            if name in self.left_out
        ]
        return record.only(kept)._replace(left_out=(*record.left_out, *unknown))

    def is_difficult(self) -> np.ndarray:
        """Whether each object is difficult, (M,) bool."""
        return (self.columns.arrays["flags"] & _DIFFICULT) > 0 if self.difficult is None else self.difficult


class Objects(NamedTuple):
    """The objects of records, side by side."""

    record: np.ndarray  # (K,) int64, number of the record, rising
    number: np.ndarray  # (K,) int64, of the object in its record
    boxes: np.ndarray  # (K, 4) float32, corner form in pixels
    name: np.ndarray  # (K,) int64, index into `names`
    difficult: np.ndarray  # (K,) bool
    names: tuple[str, ...]  # of classes, each once

    def only(self, chosen: np.ndarray) -> Objects:
        """Keep some: by a mask (K,), or by their indices."""
        return self._replace(**{column: getattr(self, column)[chosen] for column in self._fields[:-1]})

    def is_of(self, names: Collection[str]) -> np.ndarray:
        """Whether each object is of one of the classes, (K,) bool."""
        return np.array([name in names for name in self.names], bool)[self.name]


class Records(Sequence[Record]):
    """Records in columns, in any order.

    Args:
        parts: what they are taken from.
        order: (N,) numbers of images, counted over all parts; None for each once.
    """

    def __init__(self, parts: Sequence[_Part], order: np.ndarray | None = None) -> None:
        self._parts = tuple(parts)
        self._starts = [0, *itertools.accumulate(len(part.columns) for part in self._parts)]
        self._order = order

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """Pack records that are not yet."""
        if isinstance(records, Records):
            return records
        packer = RecordPacker()
        for record in records:
            packer.add(record)
        return packer.packed()

    @classmethod
    def joined(cls, several: Iterable[Records]) -> Records:
        """Put records behind one another, without copying them."""
        parts: list[_Part] = []
        orders, start = [np.zeros(0, np.int64)], 0
        for records in several:
            parts += records._parts
            orders.append(records._numbers() + start)
            start += records._starts[-1]
        return cls(parts, np.concatenate(orders))

    @classmethod
    def of_file(cls, file: ArrayFile, prefix: str) -> Records:
        """Take the records that were written under a prefix, see `columns`."""
        return cls([_Part(Columns.of_file(file, prefix))])

    def columns(self, prefix: str) -> dict[str, np.ndarray]:
        """Return, of records as they were packed, what a file must hold."""
        (part,) = self._parts
        return {prefix + name: values for name, values in part.columns.arrays.items()}

    def _numbers(self) -> np.ndarray:
        return np.arange(self._starts[-1]) if self._order is None else self._order

    def __len__(self) -> int:
        return self._starts[-1] if self._order is None else len(self._order)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Records: ...

    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return Records(self._parts, self._numbers()[index])
        number = range(len(self))[index]
        if self._order is not None:
            number = int(self._order[number])
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            if number < stop:
                return part.record(number - start)
        raise IndexError(index)

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def take(self, indices: Iterable[int]) -> Records:
        """Keep the records with these indices, in this order."""
        return Records(self._parts, self._numbers()[np.fromiter(indices, np.int64)])

    def repeated(self, times: int) -> Records:
        """Put all records behind themselves."""
        return Records(self._parts, np.tile(self._numbers(), times))

    def without(self, names: Collection[str]) -> Records:
        """Leave out the objects of classes."""
        parts = [part._replace(left_out=part.left_out.union(names)) for part in self._parts]
        return Records(parts, self._order)

    def with_difficult(self, is_difficult: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Records:
        """Mark further objects as difficult.

        Args:
            is_difficult: says it (M,), given boxes (M, 4) in pixels and (width, height) (M, 2) of their images.
        """
        parts = []
        for part in self._parts:
            arrays = part.columns.arrays
            sizes = np.repeat(arrays["size"], np.diff(arrays["first"]), axis=0)
            parts.append(part._replace(difficult=part.is_difficult() | is_difficult(arrays["box"], sizes)))
        return Records(parts, self._order)

    def texts(self, column: str) -> list[str]:
        """List a text of each record: image_id, image_path, digest, picture, source, listed_in."""
        found = list(itertools.chain.from_iterable(part.columns.all_texts(column) for part in self._parts))
        return found if self._order is None else [found[number] for number in self._order.tolist()]

    @property
    def sizes(self) -> np.ndarray:
        """(width, height) of each image in pixels, (N, 2) int64."""
        return np.concatenate([part.columns.arrays["size"] for part in self._parts]).astype(np.int64)[self._numbers()]

    def objects(self) -> Objects:
        """Put the objects of all records side by side."""
        order = self._numbers()
        names: dict[str, int] = {}
        found: list[tuple[np.ndarray, ...]] = []
        for part, start, stop in zip(self._parts, self._starts, self._starts[1:], strict=False):
            arrays = part.columns.arrays
            mine = np.flatnonzero((order >= start) & (order < stop))
            first = arrays["first"][order[mine] - start]
            counts = arrays["first"][order[mine] - start + 1] - first
            record = np.repeat(mine, counts)
            rows = np.arange(len(record)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
            if part.left_out:
                kept = np.array([name not in part.left_out for name in part.columns.names], bool)
                chosen = kept[arrays["name"][rows]]
                record, rows = record[chosen], rows[chosen]
            numbers = np.array([names.setdefault(name, len(names)) for name in part.columns.names], np.int64)
            found.append((record, arrays["box"][rows], numbers[arrays["name"][rows]], part.is_difficult()[rows]))
        record, boxes, name, difficult = (np.concatenate(values) for values in zip(*found, strict=True))
        if len(self._parts) > 1:
            rising = np.argsort(record, kind="stable")
            record, boxes, name, difficult = (values[rising] for values in (record, boxes, name, difficult))
        number = np.arange(len(record)) - np.searchsorted(record, record)
        return Objects(record, number, boxes, name, difficult, tuple(names))
