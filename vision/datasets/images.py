"""Images on disk: what their files are, and decoding them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps

from vision.structures import DataError
from vision.utils.native_words import catch_words

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

#: What the sides of a JPEG can be divided by while it is decoded, in less time; its transform is one of 8 x 8 pixels.
_REDUCTIONS = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,  # with the flag for color as well it is not grey
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

#: Divisor of a JPEG's sides -> how it is decoded as it is stored, to see whether it is whole.
_GREY = {
    reduction: flag | cv2.IMREAD_IGNORE_ORIENTATION
    for reduction, flag in {1: cv2.IMREAD_GRAYSCALE, **_REDUCTIONS}.items()
}

#: Cells of a side of a picture's digest, each the mean brightness there, and sides of what it is made of.
PICTURE_CELLS, _MIN_SIDE, _MAX_SIDE = 16, 48, 128

#: OpenCV's flag for RGB instead of BGR, None before 4.11.
_AS_RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)

#: Suffixes of images that Pillow decodes: OpenCV turns some by their tags whatever it is told.
_LEFT_TO_PILLOW = (".tif", ".tiff")

#: What the decoders behind OpenCV and OpenCV itself say on standard error, up to the end of a line.
_WORDS_OF_JPEG = (
    r"(?:Corrupt JPEG data|Premature end of JPEG|Invalid SOS|Inconsistent progression|Unknown Adobe|Warning: unknown)"
)
_OF_JPEG = re.compile(_WORDS_OF_JPEG)
_WORDS = re.compile(
    rf"(?:{_WORDS_OF_JPEG}|libpng (?:warning|error):|\[ *(?:WARN|ERROR)[^\]]*\] global (?:grfmt_|loadsave))"
    r"[^\r\n]*[\r\n]*".encode()
)

#: What libjpeg says where it makes up pixels, besides that data end early; where it skips bytes all may be there.
_LOST_PIXELS = ("bad Huffman code", "bad arithmetic code", "instead of RST")

#: How Pillow names pixels of unsigned 16 bits, whose range is known; wider, narrower and signed ones have other names.
_UNSIGNED_16_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I;16R")

#: How Git LFS begins what it leaves in the place of a file, what is said of an image that is one, and the way out.
LFS_POINTER = b"version https://git-lfs.github.com/"
POINTER_ERROR = "is a Git LFS pointer in the place of an image"
LFS_PULL = "run `git lfs pull` in the repository that it comes from"

#: How the errors of files that end early begin.
_TRUNCATED = "truncated"

#: How the two usual formats end; a file that ends so was written to its end.
_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class ImageInfo(NamedTuple):
    """What an image's file says of itself.

    Attributes:
        width: in pixels, as stored, before EXIF's orientation.
        height: in pixels, as stored.
        orientation: EXIF's, 1 to 8; 1 is upright.
        format: as Pillow names it.
        mode: as Pillow names it: RGB, L, P, RGBA, ...
        bits: per channel.
        error: why it cannot be used, None if nothing was found.
        digest: of the file, a large one by samples: the same for copies under other names.
        doubt: what its decoder said of it, though it gave an image.
        picture: digest of what it looks like, see `digest_picture`; "" of an image that was not decoded.
    """

    width: int
    height: int
    orientation: int
    format: str
    mode: str
    bits: int
    error: str | None
    digest: str = ""
    doubt: str | None = None
    picture: str = ""

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) in pixels after turning it upright."""
        swap = _TURNS[self.orientation][0]
        return (self.height, self.width) if swap else (self.width, self.height)

    @property
    def is_truncated(self) -> bool:
        """Whether its error is that the file ends early."""
        return self.error is not None and self.error.startswith(_TRUNCATED)

    def suffix_fits(self, path: Path) -> bool:
        """Whether the file's name promises what the file is."""
        return self.format in _FORMATS.get(path.suffix.lower(), (self.format,))


def read_image_info(path: Path) -> ImageInfo:
    """Read an image's header, and look whether the file was written to its end; a bad file becomes an `error`.

    Raises:
        OSError: the system could not read the file, which says nothing about what is in it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large images, odd EXIF: not what is asked here
            with Image.open(path) as image:
                info = ImageInfo(
                    image.width,
                    image.height,
                    _orientation(image),
                    image.format or "",
                    image.mode,
                    _bits(image),
                    None,
                    _digest(path),
                )
                if (refusal := _refusal(image)) is not None:
                    return info._replace(error=refusal)
                ending = _ENDINGS.get(info.format)
                if ending is None or not _ends_with(path, ending):
                    image.load()
    except Exception as err:  # decoders of damaged files may stumble over anything
        return ImageInfo(0, 0, 1, "", "", 0, _what_is_wrong(path, err))
    return info


def _orientation(image: Image.Image) -> int:
    # Pillow decodes a whole PNG in search of EXIF behind its pixels, where hardly anybody puts it.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    if image.format == "TIFF":  # Pillow turns these by itself, and `read_image` leaves them to it
        return 1
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # the image itself may well be whole
        return 1
    return orientation if orientation in _TURNS else 1


def _bits(image: Image.Image) -> int:
    if image.mode == "1":
        return 1
    return 16 if "16" in _layout(image) or image.mode.startswith("I") else 8


def _layout(image: Image.Image) -> str:
    """How Pillow names the pixels in the file of an image that is not loaded yet."""
    tiles = getattr(image, "tile", ())  # of images that come from files
    layout = tiles[0][3] if tiles else ""
    return layout if isinstance(layout, str) else str(layout[0]) if layout else ""


def _refusal(image: Image.Image) -> str | None:
    """Say why the pixels of an image that is not loaded yet are none to look at; None if they are."""
    if image.mode == "F":
        return "has floating-point pixels, whose range nobody knows"
    if image.mode.startswith("I") and _layout(image) not in _UNSIGNED_16_BITS:
        return f"has whole numbers ({_layout(image)}) that are not unsigned 8 or 16 bits, whose range nobody knows"
    return None


def _digest(path: Path) -> str:
    """Digest a file's size and content, of a large one beginning, middle and end."""
    size = os.path.getsize(path)
    digest = hashlib.blake2b(str(size).encode(), digest_size=12)
    with open(path, "rb") as file:
        for start in sorted({0, max(0, size // 2 - _SAMPLE // 2), max(0, size - _SAMPLE)}):
            file.seek(start)
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def is_pointer(path: Path) -> bool:
    """Whether Git LFS has left a pointer in the place of a file.

    Raises:
        OSError: the system could not read the file.
    """
    with open(path, "rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def _ends_with(path: Path, ending: bytes) -> bool:
    with open(path, "rb") as file:
        file.seek(-min(64, os.path.getsize(path)), os.SEEK_END)
        return file.read().rstrip(b"\0").endswith(ending)


def _what_is_wrong(path: Path, err: Exception) -> str:
    """Put a decoder's error into words.

    Raises:
        OSError: it is the system's, not the decoder's.
    """
    if isinstance(err, OSError) and err.errno is not None:
        raise err
    size = os.path.getsize(path)
    if size == 0:
        return "the file is empty"
    if isinstance(err, Image.DecompressionBombError):
        return f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels, the most that is read"
    if "truncated" in str(err):
        return f"{_TRUNCATED} after {size} bytes"
    if isinstance(err, Image.UnidentifiedImageError):
        if is_pointer(path):
            return POINTER_ERROR
        return f"not an image of any known format ({size} bytes)"
    return f"cannot be decoded ({' '.join(str(err).split())})"


class DecodingFacts(NamedTuple):
    """What decoding an image gave.

    Attributes:
        error: why it cannot be used, see `ImageInfo.error`; None for nothing.
        doubt: what its decoder said of it otherwise; None for nothing.
        picture: see `ImageInfo.picture`.
    """

    error: str | None
    doubt: str | None
    picture: str = ""


def try_decoding(path: Path, size: tuple[int, int] | None = None) -> DecodingFacts:
    """Decode an image; a large JPEG at an eighth of its size, for which all of its data are needed.

    Args:
        path: of the file.
        size: (width, height) in pixels, as stored; None to read it from the file.

    Raises:
        OSError: the system could not read the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image, words, reduction = None, "", 1
            if _is_jpeg(path):
                size = _size_of(path) if size is None else size
                reduction = next((by for by in (8, 4, 2) if min(size) >= by * _MIN_SIDE), 1)
                image, words = _decode(path, _GREY[reduction])
            if image is None or size is None:
                with Image.open(path) as opened:  # Pillow notices more damage than OpenCV
                    opened.load()
                picture = digest_picture(cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY))
            else:
                picture = digest_picture(image, (size[1] / reduction, size[0] / reduction))
    except Exception as err:  # decoders of damaged files may stumble over anything
        return DecodingFacts(_what_is_wrong(path, err), None)
    damage = _damage(words)
    return DecodingFacts(None, words or None, picture) if damage is None else DecodingFacts(damage, None)


def _size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def digest_picture(grey: np.ndarray, extent: tuple[float, float] | None = None) -> str:
    """Digest what a picture looks like, in text; `vision.datasets.same_pictures` compares such digests.

    The weights of a cell fall to 0 at the middles of its neighbors, so that little depends on where the pixels of a
    reduced picture begin and end.

    Args:
        grey: (H, W) uint8.
        extent: height and width that the picture fills, where its last row and column are partly beyond it.
    """
    extent = grey.shape if extent is None else extent
    if max(grey.shape) > _MAX_SIDE:
        height, width = (min(side, _MAX_SIDE) for side in grey.shape)
        scales = height / grey.shape[0], width / grey.shape[1]
        extent = extent[0] * scales[0], extent[1] * scales[1]
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    rows, columns = (_weights_of_cells(pixels, filled) for pixels, filled in zip(grey.shape, extent, strict=True))
    cells = np.rint(rows @ grey.astype(np.float32) @ columns.T).astype(np.uint8)
    return base64.b64encode(cells.tobytes()).decode()


def _weights_of_cells(pixels: int, filled: float) -> np.ndarray:
    """Weights (K, pixels) that pixels in a row have in each of the cells of the part that is filled."""
    places = (np.arange(pixels, dtype=np.float32) + 0.5) * (PICTURE_CELLS / filled)
    middles = np.arange(PICTURE_CELLS, dtype=np.float32)[:, None] + 0.5
    weights = (1 - np.abs(places - middles)).clip(0)
    return weights / weights.sum(axis=1, keepdims=True)


def _is_jpeg(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\xff\xd8"


def _decode(path: Path, flags: int) -> tuple[np.ndarray | None, str]:
    """Decode with OpenCV; None if it cannot. Also return what its decoder of JPEGs said, which names no file."""
    # Not imread: it takes names that are no UTF-8 badly, and on Windows any beyond ASCII.
    with contextlib.suppress(cv2.error, OSError):
        content = np.fromfile(path, dtype=np.uint8)
        image, words = catch_words(lambda: cv2.imdecode(content, flags), _WORDS)
        return image, words if _OF_JPEG.match(words) else ""
    return None, ""


def _damage(words: str) -> str | None:
    """Say what is wrong with an image of which a decoder said this, if pixels are lost."""
    if "premature end" in words.lower():
        return f"{_TRUNCATED} or damaged within ({words})"
    return f"damaged within ({words})" if any(lost in words for lost in _LOST_PIXELS) else None


def reductions_of(path: Path, size: tuple[int, int]) -> tuple[int, ...]:
    """List what `read_image` may divide an image's sides by with a gain in time: 1 first.

    Args:
        path: of the file.
        size: (width, height) in pixels; only divisors leave a pixel that covers as many as all others.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return (1,)
    return (1, *(reduction for reduction in _REDUCTIONS if not any(side % reduction for side in size)))


def read_image(path: Path, orientation: int = 1, reduction: int = 1) -> np.ndarray:
    """Decode an image to (H, W, 3) uint8 RGB.

    OpenCV's builds differ in which formats' EXIF they apply, so it is told to ignore EXIF and we turn by ourselves.

    Args:
        path: of the file.
        orientation: EXIF's, 1 to 8, by which to turn it upright; see `ImageInfo`.
        reduction: what to divide its sides by, one of `reductions_of`.

    Raises:
        DataError: it does not decode.
    """
    image = None
    flags = (_AS_RGB or cv2.IMREAD_COLOR) | _REDUCTIONS.get(reduction, 0) | cv2.IMREAD_IGNORE_ORIENTATION
    if path.suffix.lower() not in _LEFT_TO_PILLOW:
        image, words = _decode(path, flags)
        if (damage := _damage(words)) is not None:
            raise _unreadable(path, damage)
    if image is None:
        image = _read_with_pillow(path)
        height, width = image.shape[:2]
        if reduction > 1:
            image = cv2.resize(image, (width // reduction, height // reduction), interpolation=cv2.INTER_AREA)
    elif _AS_RGB is None:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return apply_exif_orientation(image, orientation)


def read_upright(path: Path) -> np.ndarray:
    """Decode an image of which nothing is known to (H, W, 3) uint8 RGB, and turn it as its EXIF says.

    Raises:
        DataError: it does not decode.
    """
    orientation, refusal = 1, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                orientation, refusal = _orientation(image), _refusal(image)
    except Image.DecompressionBombError as err:  # OpenCV would read it
        refusal = _what_is_wrong(path, err)
    except Exception:  # what is wrong with it is said below
        pass
    if refusal is not None:
        raise _unreadable(path, refusal)
    return read_image(path, orientation)


def _read_with_pillow(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if (refusal := _refusal(image)) is not None:
                    raise _unreadable(path, refusal)
                upright = ImageOps.exif_transpose(image) if image.format == "TIFF" else image
                if upright.mode.startswith("I"):  # 16 bits, which Pillow would cut off instead of scaling
                    grey = (np.asarray(upright, dtype=np.int64) // 257).clip(0, 255).astype(np.uint8)
                    return np.repeat(grey[..., None], 3, axis=2)
                return np.array(upright.convert("RGB"))
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such image") from err
    except DataError:
        raise
    except Exception as err:  # decoders of damaged files may stumble over anything
        try:
            what = _what_is_wrong(path, err)
        except OSError as system:
            what = f"cannot be read ({system.strerror})"
        raise _unreadable(path, what) from err


def _unreadable(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; replace the file or take it out of the dataset")


def apply_exif_orientation(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image (H, W, 3) upright, as its EXIF orientation says."""
    swap, mirror, flip = _TURNS[orientation]
    if swap:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if flip else 1, :: -1 if mirror else 1])


def orient_boxes(boxes: np.ndarray, orientation: int, upright_size: tuple[int, int]) -> np.ndarray:
    """Turn boxes (N, 4), corner form in pixels of the stored image, as `apply_exif_orientation` turns its pixels."""
    swap, mirror, flip = _TURNS[orientation]
    width, height = upright_size
    x1, y1, x2, y2 = boxes.T[[1, 0, 3, 2]] if swap else boxes.T
    if mirror:
        x1, x2 = width - x2, width - x1
    if flip:
        y1, y2 = height - y2, height - y1
    return np.stack([x1, y1, x2, y2], axis=1)
