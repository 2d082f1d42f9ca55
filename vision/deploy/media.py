"""Images and videos, files and cameras: where detection reads from, and writes to."""

from __future__ import annotations

import errno
import glob
import logging
import os
import shutil
import sys
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np

from vision.structures import IMAGE_SUFFIXES, DataError
from vision.utils.errors import error_line
from vision.utils.files import replacing

logger = logging.getLogger(__name__)

#: Suffix of a video to be written -> its codec.
VIDEO_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".avi": "MJPG", ".mkv": "MJPG", ".mov": "mp4v", ".webm": "VP80"}
#: Suffixes of what is not written, though a name that ends so is not meant for a folder.
_OTHER_SUFFIXES = frozenset(
    [
        ".gif",
        ".apng",
        ".avif",
        ".heic",
        ".heif",
        ".jp2",
        ".ppm",
        ".tga",
        ".svg",
        ".pdf",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".flv",
        ".3gp",
        ".ogv",
        ".ts",
        ".mts",
        ".m2ts",
        ".vob",
        ".json",
        ".txt",
        ".csv",
        ".xml",
        ".html",
        ".zip",
    ]
)
#: What a video gets that does not state a rate, or one that no camera has, in slow motion or time lapse either.
_CAMERA_FRAME_RATE, _LEAST_FRAME_RATE, _MOST_FRAME_RATE = 30.0, 0.01, 1000.0
#: Free bytes with which a video can still be completed: what closes the file grows with its frames.
_LEAST_FREE = 16 << 20
#: Reads in a row that fail where a stream has ended; damaged frames alone fail less often.
_FAILED_READS = 10
#: The same before the stated number of frames was asked for, so that a header that states any number does not hold up.
_MOST_FAILED_READS = 10_000
#: Seconds after which failing reads end a live source: some wait long for each.
_SILENCE = 10.0
#: First frames of a live source, by which the rate of its video is found out.
_FRAMES_TIMED = 12


#: Side of the gray thumbnails that tell near-twins, and the mean difference of their pixels (of 255) below which two
#: frames are near-twins: that of the noise of a camera that does not move.
_TWIN_SIDE, _TWIN_DIFFERENCE = 32, 3.0

#: Inputs that a message names, and what it says of those that were expected.
_INPUTS_NAMED = 3
_EXPECTED = f"an image ({', '.join(IMAGE_SUFFIXES)}), a folder, a glob or a video"


class Frame(NamedTuple):
    """An image to look at."""

    name: str  # of the file; of a video's frame also its number
    image: np.ndarray  # (H, W, 3) uint8 RGB

    @property
    def number(self) -> int:
        """Of a video's frame, from 0."""
        return int(self.name.rpartition("#")[2])


def _listed(names: Sequence[str]) -> str:
    """Name the first of several in a message."""
    more = len(names) - _INPUTS_NAMED
    return ", ".join(names[:_INPUTS_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_image(path: str | Path) -> bool:
    """Whether a path has the suffix of an image."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def _is_live(text: str) -> bool:
    """Whether an input is a camera or a stream."""
    is_there = os.path.isdir(text) or os.path.isfile(text)
    return not is_there and (text.isdecimal() or text.startswith("/dev/") or "://" in text)


def _check_camera(text: str) -> None:
    """Look whether Linux has a camera, before OpenCV says in several lines of its own that it has none.

    Args:
        text: an input that is live; a stream passes.

    Raises:
        DataError: there is no such device.
    """
    device = f"/dev/video{int(text)}" if text.isdecimal() else text
    if not device.startswith("/dev/") or not sys.platform.startswith("linux") or os.path.exists(device):
        return
    there = ", ".join(sorted(glob.glob("/dev/video[0-9]*"))) or "none"
    raise DataError(f"{text}: there is no such camera (no {device}); cameras here: {there}")


def _places_of(text: str) -> list[str]:
    """Turn an input into paths: a glob into all that it fits, as a shell does; all else is as it stands.

    Raises:
        DataError: nothing is there.
    """
    if os.path.exists(text) or _is_live(text):
        return [text]
    found = sorted(glob.glob(text, recursive=True), key=Path)
    if not found:
        raise DataError(f"{text}: no such image, folder or video; expected {_EXPECTED}")
    return found


def _images_below(folder: Path, left_out: Path | None) -> list[Path]:
    """Find the images in a folder and its subfolders, except hidden subfolders and one that is left out."""
    avoided = None if left_out is None else left_out.resolve()
    found = []
    for parent, folders, files in os.walk(folder, onerror=lambda err: logger.warning("%s", error_line(err))):
        folders[:] = [name for name in folders if name[0] != "." and Path(parent, name).resolve() != avoided]
        found += [Path(parent, name) for name in files if _is_image(name) and Path(parent, name).is_file()]
    return sorted(found)


class Source:
    """A stream of frames.

    Args:
        inputs: one or several: images, folders with their subfolders, globs; or alone a video file, a camera (`0`,
            `/dev/video0`) or a network stream.
        read_image: decodes a file to (H, W, 3) uint8 RGB, upright, or raises DataError.
        clock: gives seconds.
        left_out: a folder that is not looked into where it lies in another, as that of the output may.

    Attributes:
        text: the inputs, for messages.
        is_video: whether frames belong together.
        is_live: whether they come by themselves, from a camera or a network.
        unit: what it gives, "image" or "frame".
        frame_rate: of a video, per second.
        total: how many frames there will be, None where nobody knows.
        relative_paths: for each image where it lies in the folder that was named, else its name; none of a video.
        unreadable: images, or frames of those that a video states, that were left out the last time, as they do not
            decode or are not there.

    Raises:
        DataError: there is nothing to read there, or a camera or stream is one of several inputs; while reading, that
            no image of all decodes.
    """

    def __init__(
        self,
        inputs: str | Sequence[str],
        read_image: Callable[[Path], np.ndarray],
        clock: Callable[[], float] = perf_counter,
        left_out: Path | None = None,
    ) -> None:
        texts = [inputs] if isinstance(inputs, str) else inputs
        self.text = _listed(texts)
        self.read_image, self._clock = read_image, clock
        self.unreadable = 0
        self.frame_rate = _CAMERA_FRAME_RATE
        self.total: int | None = None
        self._stated_frames: int | None = None  # of a video
        self.relative_paths: dict[Path, Path] = {}
        places = [place for text in texts for place in _places_of(text)]
        live = [place for place in places if _is_live(place)]
        if live and len(places) > 1:
            raise DataError(f"{live[0]}: a camera or stream is read alone; name no other input beside it")
        self.is_live = bool(live)
        is_file = len(places) == 1 and Path(places[0]).is_file() and not _is_image(places[0])
        self.is_video = self.is_live or is_file
        if self.is_video:
            self.text = places[0]
            if self.is_live:
                _check_camera(self.text)
            self._open_video(int(self.text) if self.is_live and self.text.isdecimal() else self.text)
            if self.is_live:
                self.total = self._stated_frames = None
        else:
            self.relative_paths = self._find_images(list(map(Path, places)), left_out)
            self.total = len(self.relative_paths)
        self.paths = list(self.relative_paths)
        self._frames_kept: frozenset[str] | None = None  # names of a video's frames; None for all
        self.unit = "frame" if self.is_video else "image"

    def keep(self, names: Collection[str]) -> None:
        """Give only some of the images or frames from now on.

        Args:
            names: of the frames, as they were given before.
        """
        self.unreadable = 0
        if self.is_video:
            self._frames_kept = frozenset(names)
            self._open_video(self.text)  # from its beginning
            self.total = len(names)
            return
        self.paths = [path for path in self.paths if str(path) in names]
        self.total = len(self.paths)

    def _find_images(self, places: Sequence[Path], left_out: Path | None) -> dict[Path, Path]:
        """Find the images, with their relative paths; what is named twice is taken once."""
        found: dict[str, tuple[Path, Path]] = {}
        others = []
        for place in places:
            images: list[tuple[Path, Path]] = []
            if place.is_dir():
                top = Path(place.resolve().name) if len(places) > 1 else Path()
                images = [(image, top / image.relative_to(place)) for image in _images_below(place, left_out)]
            elif _is_image(place):
                images = [(place, Path(place.name))]
            for image, relative in images:
                found.setdefault(os.path.abspath(image), (image, relative))
            if not images:
                others.append(str(place))
        if not found:
            alone = "; a video is read alone" if len(places) > 1 else ""
            raise DataError(f"{self.text}: holds no image; expected {_EXPECTED}{alone}")
        if others:
            logger.warning("left out, as there is no image: %s (a video is read alone)", _listed(others))
        return dict(found.values())

    def _open_video(self, target: str | int) -> None:
        self.is_video = True
        self.capture = cv2.VideoCapture(target)
        if not self.capture.isOpened():
            raise DataError(f"{self.text}: cannot be opened as an image, video or camera")
        stated = self.capture.get(cv2.CAP_PROP_FPS)  # streams may say 90000, -1 or nan
        if _LEAST_FRAME_RATE <= stated <= _MOST_FRAME_RATE:
            self.frame_rate = stated
        elif not self.is_live:  # the rate of others is measured
            logger.warning(
                "%s: states %g frames a second; its drawn video will have %g", self.text, stated, _CAMERA_FRAME_RATE
            )
        frames = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.total = self._stated_frames = frames if frames > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        if self.is_video:
            yield from self._video_frames() if self._frames_kept is None else self._kept_frames(self._frames_kept)
            return
        yield from self.images(self.paths)

    def images(self, paths: Sequence[Path]) -> Iterator[Frame]:
        """Read some of the images; those that do not decode are left out with a word.

        Raises:
            DataError: none of them decodes.
        """
        self.unreadable = 0
        for path in paths:
            try:
                image = self.read_image(path)
            except DataError as err:
                self.unreadable += 1
                if self.unreadable == len(paths):
                    raise
                logger.warning("%s; it is left out", err)
            else:
                yield Frame(str(path), image)

    def _kept_frames(self, names: frozenset[str]) -> Iterator[Frame]:
        """Read some of a video's frames, no further than the last of them."""
        left = len(names)
        with closing(self._video_frames()) as frames:
            for frame in frames if left else ():
                if frame.name in names:
                    yield frame
                    left -= 1
                    if not left:
                        return

    def _video_frames(self) -> Generator[Frame]:
        """Read frames, past those that do not decode; the number of a frame counts these, too."""
        self.unreadable = number = found = failed = 0
        came = self._clock()
        try:
            while not self._has_ended(number, failed, came):
                arrived, image = self.capture.read()
                if arrived:
                    yield Frame(f"{self.text}#{number}", cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
                    found, failed, came = found + 1, 0, self._clock()
                else:
                    failed += 1
                number += 1
        finally:
            self.capture.release()
        if found == 0:
            raise DataError(f"{self.text}: gives no frame; is it a video, is the camera free?")
        self.unreadable = max((self._stated_frames or 0) - found, number - failed - found)

    def _has_ended(self, number: int, failed: int, came: float) -> bool:
        """Whether no more frames are to be expected.

        Args:
            number: of reads.
            failed: the last of them, in a row.
            came: when the last frame came.
        """
        if self.is_live and failed and self._clock() - came > _SILENCE:
            return True
        still_to_come = number < (self._stated_frames or 0)
        return failed >= (_MOST_FAILED_READS if still_to_come else _FAILED_READS)


class FrameThinning:
    """Takes frames of a video that are some time apart, and leaves out those that look like the one taken before.

    Args:
        frames_per_second: highest number of frames taken of a second of video.
        frame_rate: of the video.
    """

    def __init__(self, frames_per_second: float, frame_rate: float) -> None:
        self._frames_between = frame_rate / frames_per_second
        self._next_frame = 0.0
        self._last_thumbnail: np.ndarray | None = None

    def takes(self, frame: Frame) -> bool:
        """Whether a frame is taken; frames come in their order."""
        number = frame.number
        if number < self._next_frame:
            return False
        side = (_TWIN_SIDE, _TWIN_SIDE)
        gray = cv2.cvtColor(cv2.resize(frame.image, side, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        thumbnail = gray.astype(np.float32)
        last, self._next_frame = self._last_thumbnail, number + self._frames_between
        if last is not None and np.abs(thumbnail - last).mean() < _TWIN_DIFFERENCE:
            return False
        self._last_thumbnail = thumbnail
        return True


def _distinct_paths(folder: Path, relative_paths: Mapping[Path, Path]) -> dict[str, Path]:
    """Path in a folder for each image, with its subfolder; those of one name in one subfolder are numbered."""
    paths, taken = {}, set()
    for source, relative in relative_paths.items():
        without_suffix, number = relative.with_suffix(""), 1
        while (key := str(without_suffix).casefold()) in taken:  # one file where case does not count
            number += 1
            without_suffix = relative.with_name(f"{relative.stem}_{number}")
        taken.add(key)
        paths[str(source)] = folder / without_suffix.with_name(without_suffix.name + source.suffix)
    return paths


class Sink:
    """Takes drawn frames: a folder, one image, or a video file; use it in a `with` statement.

    Args:
        output: a file with the suffix of an image or a video, else a folder.
        source: where the frames come from.
        clock: gives seconds.

    Attributes:
        folder: where further files about the frames belong.
        image_paths: a name of its own in the folder for each image, by the frame's name; none of a video's frames.

    Raises:
        DataError: many images are to go into one file, or the suffix is of a kind that is not written.
    """

    def __init__(self, output: Path, source: Source, clock: Callable[[], float] = perf_counter) -> None:
        suffix = output.suffix.lower()
        self._clock = clock
        self._first: list[tuple[float, np.ndarray]] = []  # frames of a live source, with the time they came at
        self.output, self.source = output, source
        self.writer: cv2.VideoWriter | None = None
        self._contexts = ExitStack()  # of the temporary name that a video has until it is complete
        self._frames = 0  # of the video
        self.video_path: Path | None = None
        self.image_paths: dict[str, Path] = {}
        if suffix in VIDEO_CODECS:
            self.folder, self.video_path = output.parent, output
            self.image_paths = {} if source.is_video else _distinct_paths(output.parent, source.relative_paths)
        elif suffix in IMAGE_SUFFIXES:
            if source.is_video or source.total != 1:
                raise DataError(f"--output={output}: one image cannot take the many of {source.text}; name a folder")
            self.folder = output.parent
            self.image_paths = {str(source.paths[0]): output}
        elif suffix in _OTHER_SUFFIXES and not output.is_dir():
            raise DataError(
                f"--output={output}: {suffix} files are not written; name a folder, a video "
                f"({', '.join(VIDEO_CODECS)}) or an image ({', '.join(IMAGE_SUFFIXES)})"
            )
        else:
            self.folder = output
            if source.is_video:
                stem = Path(source.text).stem if "://" not in source.text else "stream"
                self.video_path = output / f"{stem or 'camera'}.mp4"
            else:
                self.image_paths = _distinct_paths(output, source.relative_paths)
        self._refuse_to_overwrite()

    def _refuse_to_overwrite(self) -> None:
        """Raise DataError if a frame would be written over what it was read from."""
        sources = (
            {Path(self.source.text).resolve()} if self.source.is_video else set(map(Path.resolve, self.source.paths))
        )
        for path in [self.video_path] if self.video_path else self.image_paths.values():
            if path.resolve() in sources:
                raise DataError(
                    f"--output={self.output}: {path} would overwrite the original; name another folder or file"
                )

    def __enter__(self) -> Sink:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        with self._contexts:
            try:
                if self._first:
                    self._write_first()
            finally:
                if self.writer is not None:
                    self.writer.release()
            if self._frames:
                self._check_written()

    def _check_written(self) -> None:
        """Raise OSError unless all frames are in the file, since OpenCV does not say when one could not be written."""
        found = _count_frames(self._temporary, self._frames)
        if found < self._frames:
            raise OSError(
                errno.EIO,
                f"only {found} of {self._frames} frames could be written, so the file is not kept; is there space, are "
                "files of that size allowed?",
                str(self.video_path),
            )

    def path_of(self, frame: Frame) -> Path:
        """Say where a frame goes."""
        if self.video_path is not None:
            return self.video_path
        return self.image_paths[frame.name]

    def write(self, frame: Frame, drawn: np.ndarray) -> None:
        """Write a drawn frame, RGB."""
        bgr = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
        path = self.path_of(frame)
        if self.video_path is None:
            encoded, data = cv2.imencode(path.suffix, bgr)
            if not encoded:
                raise DataError(f"{path}: cannot be written as {path.suffix}")
            with replacing(path) as temporary:
                temporary.write_bytes(data.tobytes())
            return
        if self.writer is None and self.source.is_live:
            self._first.append((self._clock(), bgr))
            if len(self._first) == _FRAMES_TIMED:
                self._write_first()
            return
        self._write_video(bgr, self.source.frame_rate)

    def _write_first(self) -> None:
        """Write the first frames of a live source at the rate they came at, less than its own if the net is slow."""
        times = [time for time, _ in self._first][1:]  # the first frame waits for the net to be loaded and planned
        came = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0
        rate = min(came or self.source.frame_rate, self.source.frame_rate)
        for _, bgr in self._first:
            self._write_video(bgr, rate)
        self._first.clear()

    def _write_video(self, bgr: np.ndarray, frame_rate: float) -> None:
        height, width = bgr.shape[:2]
        if shutil.disk_usage(self.folder).free < _LEAST_FREE:
            raise OSError(
                errno.ENOSPC,
                f"no space left on the disk (less than {_LEAST_FREE >> 20} MiB); the video ends after {self._frames} "
                "frames",
                str(self.video_path),
            )
        if self.writer is None:
            path: Path = self.video_path  # type: ignore[assignment]  # this is called for videos alone
            suffix = path.suffix
            codec = cv2.VideoWriter.fourcc(*VIDEO_CODECS[suffix.lower()])
            self._temporary = self._contexts.enter_context(replacing(path, keep_suffix=True))
            self.writer = cv2.VideoWriter(str(self._temporary), codec, frame_rate, (width, height))
            self.size = (width, height)
            if not self.writer.isOpened():
                with self._contexts:  # which removes the temporary file
                    raise DataError(
                        f"{self.video_path}: this OpenCV cannot write {suffix} videos; try .avi, or a folder of images "
                        "as input"
                    )
        if (width, height) != self.size:  # a folder of images of many sizes
            bgr = cv2.resize(bgr, self.size)
        self.writer.write(bgr)
        self._frames += 1


def _count_frames(path: Path, expected: int) -> int:
    """Count the frames of a video; where it states as many as expected, and the last one decodes, it has them."""
    capture = cv2.VideoCapture(str(path))
    is_whole = capture.get(cv2.CAP_PROP_FRAME_COUNT) == expected
    is_whole = is_whole and capture.set(cv2.CAP_PROP_POS_FRAMES, expected - 1) and capture.grab()
    capture.release()
    if is_whole:
        return expected
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.grab():
        count += 1
    capture.release()
    return count
