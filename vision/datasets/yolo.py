"""YOLO's layout: a text file of `class cx cy width height` lines per image, relative to it, and `data.yaml`."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vision.datasets.class_lists import find_class_list, folders_around, is_usual_name, names_in, other_lists
from vision.datasets.defects import Defect, ambiguous_image
from vision.datasets.file_cache import FileCache
from vision.datasets.file_index import files_below
from vision.datasets.folder import SPLIT_NAMES, SPLITS, DatasetReader, ReadingOptions, SplitImages, may_be_of, splits_of
from vision.datasets.labels import LabelList, check_labels, read_lines, read_text, written_names
from vision.datasets.names import EXAMPLES, did_you_mean, first_few
from vision.datasets.records import BoxFormat, RawImage, RawObject
from vision.datasets.text_pairs import Pairs, pair, places_of
from vision.datasets.tree import Tree, try_to
from vision.datasets.writer import AnnotationWriter, FilePerImageWriter, WrittenImage, write_class_list
from vision.structures import IMAGE_SUFFIXES, DataError

CONFIG_FILES = ("data.yaml", "data.yml", "dataset.yaml")
#: Darknet's settings, `key = value` a line: where its tools put them, and what its keys are called in `data.yaml`.
_DARKNET_FILES = ("obj.data", "data/obj.data", "cfg/obj.data")
_DARKNET_KEYS = {"train": "train", "valid": "val", "test": "test", "names": "names"}
#: How YAML writes that a setting has no value.
_NOTHING = ("", "~", "null", "Null", "NULL")
#: What settings of any name have.
_SETTINGS = {"names", "train"}
#: Settings below the dataset's folder that are looked into.
_MAX_SETTINGS = 50

#: A line of an object: the number of its class, then at least four numbers.
_LINE = re.compile(r"\s*\d+(\s+-?[\d.]+([eE][-+]?\d+)?){4,}\s*$")
_USUAL_FOLDERS = ("images/train", "train/labels")
#: Images below this folder have predictions as texts, as Ultralytics' programs write them.
_PREDICTED = re.compile(r"(.*/)?runs/")
#: Texts that are no annotations, by the beginnings of their names in lower case.
_OTHER_TEXTS = ("readme", "license", "requirements")


class _Member(NamedTuple):
    """An image of a part of the dataset, that may not be there, with its text."""

    image_id: str
    image: Path | None
    text: Path  # where its objects are; where they would be if `has_text` is false
    has_text: bool
    defects: Sequence[Defect] = ()


class _Part(NamedTuple):
    """Images that a folder or a list puts together."""

    title: str
    source: Path
    members: list[_Member]
    is_list: bool = False


class YoloReader(DatasetReader):
    """A dataset in YOLO layout: `images/train` with `labels/train`, or `train/images` with `train/labels`.

    The classes are those of `data.yaml` (`names`), else of a list such as `classes.txt`, wherever tools put it.
    Polygons become the boxes around them. An image without a text file has no objects.
    """

    name = "yolo"
    form = BoxFormat(relative=True)
    own_files = True

    def __init__(self, root: Path, cache: FileCache | None = None, options: ReadingOptions | None = None) -> None:
        super().__init__(root, cache, options)
        self.tree = Tree(root)
        self.pairs = _pairs_of(self.tree)
        self.config_path, self.config = _settings_of(root)
        self.numbered_names, self.labels = self._read_names()

    @staticmethod
    def recognizes(root: Path) -> bool:
        """Whether a folder looks like this format."""
        has_names = (root / "obj.names").is_file()
        has_folders = any((root / name).is_dir() for name in _USUAL_FOLDERS)
        return _config_of(root) is not None or has_names or has_folders or _is_flat(root)

    @staticmethod
    def begins_at(folder: Path) -> bool:
        """See `DatasetReader.begins_at`."""
        return _config_of(folder) is not None

    @classmethod
    def annotated_images(cls, tree: Tree) -> int:
        """See `DatasetReader.annotated_images`."""
        return tree.count_by_sample(sorted(set(_pairs_of(tree).text_of.values())), _fits(tree))

    def listing(self, split: str) -> SplitImages | None:
        """Read the images below the folders of a split, or those that text files of the split list."""
        part = self._chosen(split)
        if part is None:
            return None
        listing = self._read(part)
        defects = [*self._lost_paths(split, part.title), *self._passed_over(split, part), *listing.defects]
        if split == "train":
            if self._chosen("test") is None:
                defects += self._lost_paths("test", "a share of the training images")
            listed = {member.image for other in self._parts.values() for member in other.members}
            defects += [*self._not_used(listed, "are of no split"), *self._repeated_texts()]
        return listing._replace(defects=defects)

    def all_images(self) -> SplitImages:
        """Read all images below `images` if any of them has a text, else all that lie where others with texts do."""
        images = {path: path.rpartition("/")[0] for path in self._images}
        with_texts = {images[path] for path in self.pairs.text_of}
        below = self.root / "images"
        usual = [path for path in images if path.startswith("images/")]
        chosen = usual if any(path in self.pairs.text_of for path in usual) or not with_texts else []
        if not chosen:
            chosen = [path for path in images if images[path] in with_texts or not with_texts]
            chosen = [path for path in chosen if not _PREDICTED.match(path)] or chosen
        place = below if chosen == usual and below.is_dir() else self.root
        listing = self._read(_Part(str(place), place, [self._member(path, place) for path in chosen]))
        defects = self._lost_paths("train", "all annotated images")
        if self._chosen("test") is None:
            defects += self._lost_paths("test", "a share of all images")
        unused = self._not_used({self.root / path for path in chosen}, f"lie elsewhere than those of {place}")
        return listing._replace(defects=[*defects, *listing.defects, *unused, *self._repeated_texts()])

    def written_labels(self) -> LabelList:
        """Read the names of `data.yaml`, or of a list of classes."""
        return self.labels

    def all_names(self) -> Iterator[str]:
        """Return the names of the classes that occur in any text file."""
        texts = {self.root / text for text in self.pairs.text_of.values()}
        texts.update(member.text for part in self._parts.values() for member in part.members if member.has_text)
        for path in sorted(texts):
            for line in filter(str.split, self._lines(path)[0]):
                item = self._object(1, line)
                if item.name and item.box:
                    yield item.name

    # Classes.

    def _read_names(self) -> tuple[list[str], LabelList]:
        """Names by number, and as a list of classes; they differ where a name is repeated or a background."""
        folders = folders_around((*self.pairs.text_of, *self.pairs.text_of.values()))
        names, path = self._names_of_settings()
        if names and path is not None:
            labels = check_labels(names, path)
            others = [] if path != self.config_path else other_lists(self.tree, folders, names)
            message = "holds other names, or others in their order, than {}, which is taken"
            defects = [Defect("label-lists", other, message.format(path.name)) for other in others]
            return names, labels._replace(defects=(*labels.defects, *defects))
        if self.options.labels_from_data:
            return [], LabelList(())
        found = find_class_list(self.tree, {""}, _fits(self.tree)) if self._has_list_at_root() else None
        if found is None:
            self._refuse_settings_below()
            found = find_class_list(self.tree, folders, _fits(self.tree))
        if found is None:
            raise DataError(
                f"{self.config_path or self.root}: no class names; expected `names:` in data.yaml, or classes.txt with "
                "a name a line, the first for number 0"
            )
        names = written_names(found)
        return names, check_labels(names, found)

    def _names_of_settings(self) -> tuple[list[str], Path | None]:
        """The names that the settings have or lead to, and the file that they stand in."""
        names, path = self.config.get("names"), self.config_path
        if isinstance(names, dict):
            try:
                by_number = {int(key): str(name) for key, name in names.items()}
            except (TypeError, ValueError) as err:
                raise DataError(f"{path}: `names:` has keys that are no numbers ({err})") from err
            names = [by_number.get(number, f"class {number}") for number in range(max(by_number, default=-1) + 1)]
        elif isinstance(names, str):
            place = self._place(names)
            if place is not None and place.is_file():
                names, path = list(names_in(place) or ()), place
            else:
                looks_like_a_path = "/" in names or "\\" in names or "." in names
                names = [] if looks_like_a_path else names.split(",")
        return [str(name).strip() for name in names or ()] if isinstance(names, list) else [], path

    def _has_list_at_root(self) -> bool:
        return any(is_usual_name(path) and names_in(self.root / path) for path in self.tree.paths if "/" not in path)

    def _refuse_settings_below(self) -> None:
        """Refuse a folder without settings or a list of classes where settings lie further down.

        Raises:
            DataError: names them, and the folder that would work.
        """
        if self.config_path is not None:
            return
        paths = sorted(self.tree.ending(".yaml", ".yml"), key=lambda path: (path.count("/"), path))[:_MAX_SETTINGS]
        below = [path for path in paths if _SETTINGS.issubset(try_to(_read_yaml, self.root / path) or ())]
        of_data = [path for path in below if self._all_lie_below(path.rpartition("/")[0] + "/")]
        if of_data:
            path = self.root / of_data[-1]
            raise DataError(f"{self.root}: no class names here, but in {path}; use --data={path.parent}")
        if below and not any(is_usual_name(path) for path in self.tree.paths):
            named = ", ".join(str(self.root / path) for path in below[:EXAMPLES])
            raise DataError(f"{self.root}: no class names here; {named} has some: copy it to {self.root / 'data.yaml'}")

    def _all_lie_below(self, folder: str) -> bool:
        return bool(self.pairs.text_of) and all(path.startswith(folder) for path in self.pairs.text_of)

    # Which images are in which part.

    @functools.cached_property
    def _images(self) -> dict[str, None]:
        return dict.fromkeys(self.tree.ending(*IMAGE_SUFFIXES))

    @functools.cached_property
    def _places_of_settings(self) -> dict[str, tuple[list[Path], list[str]]]:
        """Where the settings say that the images of a split are, and what leads nowhere."""
        found = {}
        for name in SPLIT_NAMES:
            written = self.config.get(name)
            items = [str(item) for item in (written if isinstance(written, list) else [written]) if item]
            places = [(item, self._place(item)) for item in items]
            if items:
                found[name] = (
                    [place for _, place in places if place is not None],
                    [item for item, place in places if place is None],
                )
        return found

    @functools.cached_property
    def _parts(self) -> dict[str, _Part]:
        """The parts of the dataset by the names of splits; those that the settings name come first."""
        found = {}
        for name, (places, _) in self._places_of_settings.items():
            if places:
                parts = [self._part_of(place) for place in places]
                title = " + ".join(part.title for part in parts)
                members = [member for part in parts for member in part.members]
                found[name] = _Part(title, places[0], members, any(part.is_list for part in parts))
        for name in SPLIT_NAMES:
            if name not in found and (part := self._usual_part(name)) is not None:
                found[name] = part
        return found

    def _chosen(self, split: str) -> _Part | None:
        """The part that stands for a split: the first with a text, as a test set may have been published without."""
        parts = [part for name, part in self._parts.items() if name in SPLITS[split]]
        wanted = [self._parts[name] for name in SPLITS[split] if name in self._parts]
        if any(self._places_of_settings.get(name, ([],))[0] for name in SPLITS[split]):
            wanted = sorted(wanted, key=parts.index)
        with_texts = [part for part in wanted if any(member.has_text for member in part.members)]
        return next(iter((*with_texts, *wanted)), None)

    def _usual_part(self, name: str) -> _Part | None:
        """The images that a folder or list of a usual name says to be of a split."""
        for usual in (f"images/{name}", f"{name}/images", f"{name}.txt", f"obj_{name}_data", name):
            place = self.root / usual
            is_asked_for = "/" in usual and name == "train"  # one for validation may be empty, as in a repository
            if place.is_file() or (place.is_dir() and (is_asked_for or self._below(place))):
                return self._part_of(place)
        deeper = set(self.tree.ending(f"/{name}.txt")).difference(self.pairs.text_of.values())
        for path in sorted(deeper, key=lambda path: (path.count("/"), path)):
            part = self._part_of(self.root / path)
            if any(member.image is not None for member in part.members):
                return part
        with_texts = {path.rpartition("/")[0] for path in self.pairs.text_of}
        mine = [path for path in self._images if path.rpartition("/")[0] in with_texts]
        mine = [path for path in mine if name in splits_of(path, by_name=False)]
        if not mine:
            return None
        common = os.path.commonpath([path.rpartition("/")[0] for path in mine])
        place = self.root / common
        return _Part(str(place), place, [self._member(path, place) for path in mine])

    def _part_of(self, place: Path) -> _Part:
        if place.is_file():
            lines = [line.strip() for line in read_text(place, "an image's path a line").splitlines()]
            return _Part(str(place), place, [self._listed(line, place) for line in lines if line], is_list=True)
        below = self._below(place)
        if below:
            return _Part(str(place), place, [self._member(path, place) for path in below])
        members = [self._member_elsewhere(place / path, place) for path in files_below(place, IMAGE_SUFFIXES)]
        return _Part(str(place), place, members)

    def _below(self, place: Path) -> list[str]:
        """The images of the dataset's folder below a folder of it."""
        if not place.is_relative_to(self.root):
            return []
        folder = place.relative_to(self.root).as_posix()
        return list(self._images) if folder == "." else [path for path in self._images if path.startswith(f"{folder}/")]

    def _place(self, written: str) -> Path | None:
        """Find a path of the settings; exporters write paths from elsewhere, what counts is where the folder is now.

        A path that says a split is never shortened to one that does not: `train/images` is not `images`.
        """
        written, base = (str(text or "").replace("\\", "/") for text in (written, self.config.get("path")))
        direct = [place for place in (self.root / base / written, self.root / written) if self._is_there(place)]
        for place in direct:
            if self._inside(place) is not None or Path(base).is_absolute() or Path(written).is_absolute():
                return self._inside(place) or place
        for whole in (f"{base}/{written}", written):
            parts = [part for part in whole.split("/") if part not in ("..", ".", "")]
            says_split = bool(splits_of("/".join(parts), by_name=True))
            for start in range(len(parts)):
                place = self.root.joinpath(*parts[start:])
                if place.exists() and (not says_split or splits_of("/".join(parts[start:]), by_name=True)):
                    return place
        return next(iter(direct), None)

    def _is_there(self, place: Path) -> bool:
        """Whether there is such a file or folder; takes note of one outside of the dataset's folder."""
        found = place.exists()
        if ".." in place.parts or not place.is_relative_to(self.root):
            self.is_certain &= not found or self._inside(place) is not None
            if not found:
                self.absent.add(str(place))
        return found

    def _inside(self, place: Path) -> Path | None:
        """A path below the dataset's folder that leads to the same; None if it lies elsewhere."""
        for resolved in (os.path.normpath, os.path.realpath):
            root, path = Path(resolved(self.root)), Path(resolved(place))
            if path.is_relative_to(root):
                return self.root / path.relative_to(root)
        return None

    def _listed(self, line: str, place: Path) -> _Member:
        """Find a listed image: from the root, from the list, or by the end of its path."""
        written = line.replace("\\", "/")
        parts = [part for part in written.split("/") if part not in ("", ".", "..")]
        path = next((tail for start in range(len(parts)) if (tail := "/".join(parts[start:])) in self._images), None)
        beside = place.parent / written
        if written.startswith("./") and (inside := self._inside(beside)) is not None and inside.is_file():
            path = inside.relative_to(self.root).as_posix()
        if path is not None:
            return self._member(path, self.root)
        if self._is_there(beside) and beside.is_file():
            inside = self._inside(beside)
            known = "" if inside is None else inside.relative_to(self.root).as_posix()
            return self._member(known, self.root) if known in self._images else self._member_elsewhere(beside, place)
        wanted = splits_of(written, by_name=False)
        found = self.tree.images.find(written, fits=partial(may_be_of, wanted))
        if found is None:
            image_id = "/".join(parts).rpartition(".")[0] or line
            message = f"image {'/'.join(parts) or line} left out: no image of that name in {self.root}"
            return _Member(image_id, None, place, False, [Defect("image-missing", place, message, images=1)])
        member = self._member(found.path.relative_to(self.root).as_posix(), self.root)
        return member._replace(defects=ambiguous_image(found, place))

    def _member(self, path: str, place: Path) -> _Member:
        text = self.pairs.text_of.get(path)
        image = self.root / path
        image_id = (image.relative_to(place).as_posix() if place != self.root else path).rpartition(".")[0]
        if text is not None:
            return _Member(image_id, image, self.root / text, True)
        folder, _, name = path.rpartition("/")
        expected = self.root / places_of(f"{folder}/" if folder else "")[0] / name
        return _Member(image_id, image, expected.with_suffix(".txt"), False)

    def _member_elsewhere(self, image: Path, place: Path) -> _Member:
        """An image that lies outside of the dataset's folder, or is seen there through a link."""
        below = image.relative_to(place) if image.is_relative_to(place) else Path(image.name)
        texts = [Path(folder) / f"{image.stem}.txt" for folder in places_of(f"{image.parent.as_posix()}/")]
        text = next((text for text in texts if text.is_file()), texts[0])
        return _Member(below.as_posix().rpartition(".")[0], image, text, text.is_file())

    # Reading.

    def _read(self, part: _Part) -> SplitImages:
        """Read the texts of a part.

        Raises:
            DataError: it has no image, or all objects are of classes that are not in the list.
        """
        if not part.members:
            raise DataError(f"{part.source}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
        images = [self._image(member) for member in part.members]
        defects = [] if part.is_list else self._texts_of_nothing(part)
        images, unknown = self._without_unknown(images, part.source)
        without = [member.image_id for member in part.members if member.image is not None and not member.has_text]
        if without:
            message = f"{len(without)} images have no text file, taken as without objects: {first_few(without)}"
            defects.append(Defect("annotation-absent", part.source, message, things=len(without)))
        return SplitImages(part.title, part.source, images, [*defects, *unknown])

    def _image(self, member: _Member) -> RawImage:
        if not member.has_text:
            return RawImage(member.image_id, member.image, member.text, defects=member.defects)
        lines, error = self._lines(member.text)
        if error is not None:
            defect = Defect(
                "annotation-unreadable", member.text, f"$image left out: {error}", images=1, image_id=member.image_id
            )
            return RawImage(member.image_id, member.image, member.text, defects=[defect])
        objects = [self._object(number, line) for number, line in enumerate(lines, 1) if line.split()]
        return RawImage(member.image_id, member.image, member.text, objects, defects=member.defects)

    def _without_unknown(self, images: list[RawImage], source: Path) -> tuple[list[RawImage], list[Defect]]:
        """Leave out images that have objects, but none of a known class: they would count as background.

        Raises:
            DataError: no image is left.
        """
        if self.options.labels_from_data:
            return images, []
        known = set(self.numbered_names)
        kept: list[RawImage] = []
        left_out: list[RawImage] = []
        for raw in images:
            boxes = [item for item in raw.objects if item.box]
            is_unknown = boxes and raw.image_path is not None and not any(item.name in known for item in boxes)
            (left_out if is_unknown else kept).append(raw)
        if not left_out:
            return images, []
        names = sorted({str(item.name) for raw in left_out for item in raw.objects if item.box})
        first = ", ".join(str(raw.source) for raw in left_out[:EXAMPLES])
        classes = (
            f"{first_few(names)}, not in the list {list(self.labels.names)}{did_you_mean(names[0], self.labels.names)}"
        )
        if not kept:
            raise DataError(
                f"{source}: none of its {len(images)} images can be used, all objects are of {classes}; complete the "
                f"list, the first class has number 0; first: {first}"
            )
        objects = sum(len(raw.objects) for raw in left_out)
        message = f"{len(left_out)} images left out, all of their {objects} objects are of {classes}; first: {first}"
        return kept, [Defect("class-unknown", source, message, objects, len(left_out))]

    def _lines(self, path: Path) -> tuple[list[str], str | None]:
        """Read a text file's lines, and why it cannot be read; an image without one has no objects."""
        try:
            lines, error = self.cache.get("yolo", path, partial(read_lines, expected="a line per object"))
        except FileNotFoundError:
            return [], None
        return lines, error

    def _object(self, number: int, line: str) -> RawObject:
        """Read an object of a line that is not blank; one that cannot be read has no box."""
        where, words = f"line {number}", line.split()
        try:
            label = int(float(words[0]))
            known = 0 <= label < len(self.numbered_names)
            name = self.numbered_names[label] if known else f"class {label}"
        except (ValueError, OverflowError):
            name = words[0]
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        if self.config.get("kpt_shape"):  # points of a pose follow the box
            values = values[:4]
        if len(values) < 4 or (len(values) > 5 and len(values) % 2):
            return RawObject(where, name, None, written=repr(line))
        if len(values) > 5:  # a polygon; five are a box with a confidence
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            x, y, width, height = values[:4]
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return RawObject(where, name, box, written=repr(line))

    # What is not used.

    def _lost_paths(self, split: str, instead: str) -> list[Defect]:
        """Paths of the settings for a split that lead nowhere."""
        defects = []
        for name in SPLITS[split]:
            places, lost = self._places_of_settings.get(name, ([], []))
            for item in lost:
                message = f"says that images for {name} are in {item}, which is not there"
                message += "; its other paths are taken" if places else f"; taken instead: {instead}"
                defects.append(Defect("path-missing", self.config_path or self.root, message))
        return defects

    def _passed_over(self, split: str, part: _Part) -> list[Defect]:
        """Parts that would stand for a split before this one, but have no text."""
        names = [name for name in SPLITS[split] if name in self._parts]
        before = names[: next(place for place, name in enumerate(names) if self._parts[name] is part)]
        defects = []
        for other in (self._parts[name] for name in before):
            if other.members and not any(member.has_text for member in other.members):
                message = f"{len(other.members)} images are not used: none has a text file; {part.title} is taken"
                defects.append(Defect("image-unannotated", other.source, message, things=len(other.members)))
        return defects

    def _not_used(self, used: set[Path | None], why: str) -> list[Defect]:
        """Images of the dataset's folder that are not among those used; `why` is of those with a text."""
        rest = [path for path in self._images if self.root / path not in used]
        annotated = [path for path in rest if path in self.pairs.text_of]
        others = [path for path in rest if path not in self.pairs.text_of]
        defects = []
        if annotated:
            message = f"{len(annotated)} annotated images {why}, and are not used: {first_few(annotated)}"
            defects.append(Defect("image-unlisted", self.root, message, things=len(annotated)))
        if others:
            message = f"{len(others)} images have no annotation and are not used: {first_few(others)}"
            defects.append(Defect("image-unannotated", self.root, message, things=len(others)))
        return defects

    def _repeated_texts(self) -> list[Defect]:
        if not self.pairs.repeated:
            return []
        message = f"{len(self.pairs.repeated)} texts are not used, images of these names have other texts: "
        return [
            Defect(
                "annotation-repeats",
                self.root,
                message + first_few(self.pairs.repeated),
                things=len(self.pairs.repeated),
            )
        ]

    def _texts_of_nothing(self, part: _Part) -> list[Defect]:
        """Texts with objects for which no image is found, where those of a part are."""
        folders = {member.text.parent for member in part.members}
        if part.source.is_relative_to(self.root):
            below = part.source.relative_to(self.root).as_posix()
            folders.update(self.root / folder for folder in places_of("" if below == "." else f"{below}/"))
        defects = []
        for path in (self.root / text for text in self.pairs.single):
            if folders.isdisjoint(path.parents):
                continue
            lines, _ = self._lines(path)
            objects = [line for line in lines if line.split()]
            if all(self._object(1, line).box for line in objects):
                message = f"its {len(objects)} objects left out: no image of that name in {part.source}"
                defects.append(Defect("image-missing", path, message, len(objects)))
        return defects


def _pairs_of(tree: Tree) -> Pairs:
    return pair(tree, _fits(tree), _is_other_text)


def _is_other_text(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return is_usual_name(path) or name in {f"{split}.txt" for split in SPLIT_NAMES} or name.startswith(_OTHER_TEXTS)


def _fits(tree: Tree) -> Callable[[str], bool | None]:
    """Make what says whether most lines of a text are objects, by its path; None where it has no line."""

    def fits(path: str) -> bool | None:
        lines = try_to(lambda file: read_text(file, "").splitlines(), tree.root / path)
        lines = [line for line in lines or () if line.strip()]
        return 2 * sum(_is_object(line) for line in lines) > len(lines) if lines else None

    return fits


def _is_object(line: str) -> bool:
    """Whether a line is a class with at least four numbers, the class a number or the numbers fractions."""
    if _LINE.match(line):
        return True
    _, *words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        return False
    return len(values) >= 4 and all(0 <= value <= 1 for value in values[:4])


def _config_of(root: Path) -> Path | None:
    """Find the settings: by a usual name, else any YAML file with classes and places of images."""
    usual = next((path for name in CONFIG_FILES if (path := root / name).is_file()), None)
    if usual is not None:
        return usual
    others = sorted(path for path in root.iterdir() if path.suffix.lower() in (".yaml", ".yml") and path.is_file())
    return next((path for path in others if _SETTINGS.issubset(try_to(_read_yaml, path) or ())), None)


def _settings_of(root: Path) -> tuple[Path | None, dict[str, Any]]:
    """Find and read the settings, of Darknet's where there are no others."""
    path = _config_of(root)
    if path is not None:
        return path, _read_yaml(path)
    path = next((path for name in _DARKNET_FILES if (path := root / name).is_file()), None)
    if path is None:
        return None, {}
    pairs = [line.partition("=") for line in read_text(path, "`key = value` a line").splitlines()]
    values = {key.strip(): value.strip() for key, _, value in pairs}
    return path, {_DARKNET_KEYS[key]: value for key, value in values.items() if key in _DARKNET_KEYS and value}


def _is_flat(root: Path) -> bool:
    """Whether images and texts lie in `images` and `labels`, or beside each other with a list of classes."""
    if (root / "images").is_dir() and next((root / "labels").glob("*.txt"), None) is not None:
        return True
    return any(
        is_usual_name(path.name) and path.name != "labels.txt" and path.is_file() for path in root.iterdir()
    ) and any(path.with_suffix(".txt").is_file() for path in root.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Read settings, all values as the texts that stand there; a setting without a value is None."""
    try:
        import yaml
    except ImportError as err:
        raise DataError(f"{path}: needs PyYAML to be read; pip install pyyaml") from err

    class TextLoader(yaml.SafeLoader):
        """Leaves all plain values as they are written: `on`, `010`, `null` and `12:30` may be names of classes."""

        yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # merging of mappings alone

    text = read_text(path, "YAML")
    try:
        content = yaml.load(text, TextLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as err:
        raise DataError(f"{path}: cannot be read as YAML ({' '.join(str(err).split())})") from err
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no settings; expected `names:` with the classes")
    return {key: None if value in _NOTHING else value for key, value in content.items()}


class YoloWriter(FilePerImageWriter):
    """Writes `images` and `labels` with `classes.txt`, as LabelImg has them. The format has no room for scores."""

    name = "yolo"

    def __enter__(self) -> AnnotationWriter:
        super().__enter__()
        write_class_list(self.root / "labels" / "classes.txt", self.class_names)
        return self

    def annotation_path(self, name: PurePosixPath) -> Path:
        """Say where the annotation of an image belongs."""
        return self.root / "labels" / name.with_suffix(".txt")

    def text_of(self, image: WrittenImage) -> str:
        """Write the annotation of an image."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return "".join(f"{numbers[name]} {relative_text(box, image.size)}\n" for name, box, _ in image.objects())


def relative_text(box: Sequence[float], size: tuple[int, int]) -> str:
    """Write a box as YOLO does: relative center, width and height.

    Args:
        box: corner form in pixels.
        size: (width, height) of the image in pixels.
    """
    x1, y1, x2, y2 = box
    width, height = size
    return f"{(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}"
