"""Pictures on disk: finding them by name, what their files are, and decoding them."""

from __future__ import annotations

import hashlib
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from vision.structures import IMAGE_SUFFIXES, DataError

#: EXIF's tag for the orientation.
_EXIF_ORIENTATION = 0x0112

#: Orientation -> (swap rows and columns, then mirror left to right, then upside down), EXIF 2.3 section 4.6.4.
_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}

#: Suffix -> formats, as Pillow names them, that may stand behind it.
_FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg"), ("JPEG", "MPO")),
    ".png": ("PNG",),
    ".bmp": ("BMP", "DIB"),
    ".webp": ("WEBP",),
    **dict.fromkeys((".tif", ".tiff"), ("TIFF",)),
}

#: Bytes that are read at three places of a file to tell it from others.
_SAMPLE = 1 << 14

#: How the two usual formats end; a file that ends so was written to its end.
_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class PictureFacts(NamedTuple):
    """What a picture's file says of itself.

    Attributes:
        width: in pixels, as stored, before EXIF's orientation.
        height: likewise.
        orientation: EXIF's, 1 to 8; 1 is upright.
        format: as Pillow names it.
        mode: as Pillow names it: RGB, L, P, RGBA, ...
        bits: per channel.
        error: why it cannot be used, None if nothing was found.
        digest: of the file, a large one by samples: the same for copies under other names.
    """

    width: int
    height: int
    orientation: int
    format: str
    mode: str
    bits: int
    error: str | None
    digest: str = ""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in pixels after turning it upright."""
        swap = _TURNS[self.orientation][0]
        return (self.height, self.width) if swap else (self.width, self.height)

    def suffix_fits(self, path: Path) -> bool:
        """Tell whether the file's name promises what the file is."""
        return self.format in _FORMATS.get(path.suffix.lower(), (self.format,))


def picture_facts(path: Path) -> PictureFacts:
    """Read a picture's header, and look whether the file was written to its end; never raises for a bad file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures, odd EXIF: not what is asked here
            with Image.open(path) as image:
                width, height = image.size
                bits = 16 if "16" in str(image.tile[:1]) or image.mode.startswith("I") else 8
                # Pillow decodes a whole PNG in search of EXIF behind its pixels, where hardly anybody puts it.
                has_exif = image.format != "PNG" or "exif" in image.info
                orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if has_exif else 1
                facts = PictureFacts(
                    width,
                    height,
                    orientation if orientation in _TURNS else 1,
                    image.format or "",
                    image.mode,
                    1 if image.mode == "1" else bits,
                    None,
                    _digest(path),
                )
                ending = _ENDINGS.get(facts.format)
                if ending is None or not _ends_with(path, ending):
                    image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EOFError) as err:
        return PictureFacts(0, 0, 1, "", "", 0, _what_is_wrong(path, err))
    return facts


def _digest(path: Path) -> str:
    """Digest a file's size and content, of a large one beginning, middle and end."""
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    with open(path, "rb") as file:
        for start in sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _ends_with(path: Path, ending: bytes) -> bool:
    with open(path, "rb") as file:
        file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
        return file.read().rstrip(b"\0").endswith(ending)


def _what_is_wrong(path: Path, err: Exception) -> str:
    size = os.path.getsize(path)
    if size == 0:
        return "the file is empty"
    if "truncated" in str(err):
        return f"truncated after {size} bytes"
    if isinstance(err, Image.UnidentifiedImageError):
        return f"not a picture of any known format ({size} bytes)"
    return f"cannot be decoded ({err})"


def decoding_error(path: Path) -> str | None:
    """Decode a picture whole, both with Pillow, which notices damage, and as training does; say what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                image.load()
        read_image(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EOFError) as err:
        return _what_is_wrong(path, err)
    return None


def read_image(path: Path, orientation: int = 1) -> np.ndarray:
    """Decode a picture to (H, W, 3) uint8 RGB.

    OpenCV's builds differ in which formats' EXIF they heed, so it is told to heed none and we turn by ourselves.

    Args:
        path: of the file.
        orientation: EXIF's, 1 to 8, by which to turn it upright; see `PictureFacts`.

    Raises:
        DataError: it does not decode.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    image = _read_with_pillow(path) if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return turn(image, orientation)


def _read_with_pillow(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such picture") from err
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, EOFError) as err:
        raise DataError(f"{path}: {_what_is_wrong(path, err)}; replace the file or take it out of the dataset") from err


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture (H, W, 3) upright, as its EXIF orientation says."""
    swap, mirror, flip = _TURNS[orientation]
    if swap:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if flip else 1, :: -1 if mirror else 1])


def turn_boxes(boxes: np.ndarray, orientation: int, upright_size: tuple[int, int]) -> np.ndarray:
    """Turn boxes (N, 4), corner form in pixels of the stored picture, as `turn` turns its pixels."""
    swap, mirror, flip = _TURNS[orientation]
    width, height = upright_size
    x1, y1, x2, y2 = boxes.T[[1, 0, 3, 2]] if swap else boxes.T
    if mirror:
        x1, x2 = width - x2, width - x1
    if flip:
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], axis=1)


def files_below(folder: Path, suffixes: Iterable[str]) -> Iterator[str]:
    """Give paths relative to a folder, with / between, of files with these suffixes; sorted, nothing hidden."""
    wanted = tuple(suffixes)
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = PurePosixPath(Path(base).relative_to(folder).as_posix())
        for name in sorted(names):
            if name.lower().endswith(wanted) and not name.startswith("."):
                yield str(relative / name)


def spellings(path: str) -> tuple[str, ...]:
    """Give the names under which a file may be listed: whole path, without suffix, name, stem."""
    whole, _, _ = path.rpartition(".")
    name = path.rpartition("/")[2]
    return path, whole or path, name, name.rpartition(".")[0] or name


class FileIndex:
    """Finds files below a folder by path or name, with or without suffix.

    The exact spelling comes before any other; then letters of any case and Unicode's composed and decomposed
    accents are the same. Of files with the same name in several folders the first counts.

    Args:
        folder: is searched with all folders in it, hidden ones apart.
        suffixes: of the files that count, in lower case.
    """

    def __init__(self, folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> None:
        self.folder = folder
        self.paths = list(files_below(folder, suffixes))
        self._exact: dict[str, str] = {}
        self._folded: dict[str, str] = {}
        for rank in range(4):  # a whole path goes before another file's mere name
            for path in self.paths:
                self._exact.setdefault(spellings(path)[rank], path)
        for spelling, path in self._exact.items():
            self._folded.setdefault(_fold(spelling), path)

    def __len__(self) -> int:
        return len(self.paths)

    def find(self, name: str) -> Path | None:
        """Give the path of a file, None if there is none."""
        path = self._exact.get(name) or self._folded.get(_fold(name))
        return None if path is None else self.folder / path


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def other_suffixes(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[str]:
    """List the suffixes of files below a folder that are not looked for: a hint why a picture is missing."""
    found = {Path(path).suffix.lower() for path in files_below(folder, ("",))}
    return sorted(found - set(suffixes) - {"", ".xml", ".txt", ".json", ".csv", ".yaml", ".yml"})
