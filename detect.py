#!/usr/bin/env python3
"""Find objects in images, videos and camera streams, draw them, and list them as JSON.

python3 detect.py --model=models/fruit/ssd-mobilenet.onnx --input="images/*.jpg" --output=out/
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import sys

from vision import console
from vision.options.common import check_postprocess_options
from vision.options.detection import make_parser

if __name__ == "__main__":
    console.answer_help(make_parser, sys.argv[1:])  # at once: what is imported below takes seconds

import argparse
import logging
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from statistics import mean, median
from time import perf_counter

import cv2
import numpy as np

from vision import cli
from vision.datasets import WRITERS
from vision.datasets.images import read_image_info, read_upright
from vision.datasets.yolo import relative_text
from vision.deploy.media import VIDEO_CODECS, Frame, FrameThinning, Sink, Source
from vision.deploy.session import NETWORK, POST_PROCESSING, RESIZING, OnnxSession, Session
from vision.report.drawing import draw_detections
from vision.report.sheet import Sheet
from vision.report.suggestions import Suggestions
from vision.structures import IMAGE_SUFFIXES, DataError, Detections
from vision.utils.files import JsonListFile, write_text
from vision.utils.prefetch import WriteBehind, read_ahead
from vision.utils.timer import Stages

logger = logging.getLogger(__name__)

WINDOW = "detections (q ends)"
SHEET_NAME, RESULTS_NAME, CHOSEN_NAME = "sheet.png", "detections.json", "chosen.csv"

#: Tried in a process of its own, since OpenCV ends the process where it cannot open a window; that leaves no core file.
TRY_WINDOW = """
import contextlib
with contextlib.suppress(ImportError):
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import cv2
cv2.namedWindow("try")
cv2.destroyAllWindows()
"""
#: Seconds after which a display counts as one that cannot be reached.
MAX_DISPLAY_WAIT = 20

#: Stages, besides those of detecting.
READING, DRAWING, WRITING = "read", "draw", "write"
DETECTING = (RESIZING, NETWORK, POST_PROCESSING)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = make_parser()
    args = parser.parse_args(argv)
    check_postprocess_options(parser, args)
    check_choosing_options(parser, args)
    if args.top_k is not None and args.postprocess == cli.DETECTNET:
        parser.error("--top-k: detectNet has no such limit; leave it out, or --postprocess=detectnet")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Detect."""
    args = parse_args(argv)
    cli.setup_logging()
    if args.show:
        check_display()
    began = perf_counter()
    _, session, class_names = cli.open_model(args.model, args.labels, args)
    loading = perf_counter() - began
    threshold = cli.choose_threshold(args.threshold, session.threshold)
    args.threshold = threshold.value
    logger.info("%s", threshold)
    wanted = wanted_labels(args.classes, class_names)
    source = Source(args.input, read_upright, left_out=args.output)
    check_choosable(session, source, args)
    cli.check_writable(args.output if not args.output.suffix else args.output.parent, "--output")

    counts: Counter[str] = Counter()
    stages = session.stages
    sink = Sink(args.output, source)
    results = JsonListFile(sink.folder / RESULTS_NAME) if args.save_json else None
    window = Window(waits=not source.is_video) if args.show else None
    sheet_file = sheet_path(sink, source) if args.sheet else None
    sheet = Sheet(class_names, args.threshold) if args.sheet else None
    suggestions = open_suggestions(args, sink, class_names)
    takes = thinning(source, args, was_chosen=args.choose is not None)
    log_earlier_files(sink, source, args)

    def finish(frame: Frame, found: Detections) -> np.ndarray:
        with stages(DRAWING):
            drawn = draw_detections(frame.image, found, class_names)
        with stages(WRITING):
            sink.write(frame, drawn)
            write_annotations(args, sink, suggestions, takes, frame, found)
        return drawn

    began = first_ended = perf_counter()
    images = 0
    try:
        with (
            cli.sigterm_interrupts(),
            suggestions or nullcontext(),  # first: where it refuses to begin, what an earlier run left stays
            results or nullcontext(),
            sink,
            WriteBehind(finish) as finish_soon,
        ):
            if args.choose is not None:
                choose(session, source, sink.folder, class_names, wanted, args)
            for frame in cli.progress(reading(source, stages), f"{source.unit.capitalize()}s", source.total):
                found = cli.detect(session, frame.image, args, score_threshold=args.threshold, top_k=args.top_k or -1)
                found = within(only(found, wanted), frame.image)
                images += 1
                counts.update(class_names[label] for label in found.labels.tolist())
                if sheet is not None:
                    sheet.add(frame.image, found, frame.name)
                if results is not None:
                    results.add(entry(frame, found, class_names))
                if window is None:
                    finish_soon(frame, found)
                elif not window.show(finish(frame, found)):
                    break
                if images == 1:
                    first_ended = perf_counter()
    except KeyboardInterrupt:
        logger.info("interrupted; what was found so far is kept")
    finally:  # an image that cannot be written ends the run, but does not lose what was found
        ended = perf_counter()
        if sheet is not None and sheet_file is not None and images:
            sheet.write(sheet_file)
            logger.info("Saved %s", sheet_file)
    if source.unreadable:
        logger.warning(unreadable_line(source))
    summary = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "nothing"
    detecting = sum(mean(without_first(stages.seconds[stage])) for stage in DETECTING if stages.seconds.get(stage))
    logger.info("%s, found: %s; %.1f ms per %s", counted(images, source.unit), summary, 1000 * detecting, source.unit)
    logger.info("Saved to %s", sink.output)
    if args.benchmark:
        print("\n".join(stage_lines(stages, source.unit)))
        print(rate_line(images, source.unit, loading, first_ended - began, ended - first_ended))


def check_choosing_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error if options disagree with --choose, which implies --save-annotations."""
    if args.choose is None:
        if args.without_objects:
            parser.error("--without-objects: says what --choose looks at; add --choose=N, or leave it out")
        return
    if args.save_txt and args.without_objects:
        parser.error("--save-txt: would list what --without-objects calls wrong; leave one of them out")
    if args.postprocess == cli.DETECTNET:
        parser.error("--choose: needs scores below detectNet's threshold; leave --postprocess out")
    if args.benchmark:
        parser.error("--benchmark: --choose looks at the images twice; measure in a run without --choose")
    args.save_annotations = args.save_annotations or "voc"


def check_choosable(session: Session, source: Source, args: argparse.Namespace) -> None:
    """Check that --choose, if it is asked for, can look at the input with the model.

    Raises:
        DataError: it cannot.
    """
    if args.choose is None:
        return
    if isinstance(session, OnnxSession):
        raise DataError("--choose: an .onnx file does not give its features; name the model folder or its .pth")
    if source.is_live:
        raise DataError(f"--choose: {source.text} cannot be looked at twice; record a video, and choose from that")


def choose(
    session: Session,
    source: Source,
    folder: Path,
    class_names: Sequence[str],
    wanted: set[int],
    args: argparse.Namespace,
) -> None:
    """Look at all images, list in `folder` those to label next, and let the source give only them.

    Raises:
        DataError: the model was trained on all of them.
    """
    from vision.deploy.choosing import look_at  # loads PyTorch, which an .onnx file does without
    from vision.evaluation.choosing import choose as choose_candidates
    from vision.report.chosen import class_facts, facts_line, write_chosen

    takes = thinning(source, args, was_chosen=False)
    frames = cli.progress(read_ahead(source), "Looking", source.total)
    trained_on = session.trained_on
    paths = source.paths if trained_on is not None else []
    digests = [read_image_info(path).digest for path in cli.progress(paths, "Comparing", len(paths))]
    # All at once: each question would read the list of what was trained on again.
    was_seen = dict(zip(map(str, paths), trained_on.has(digests) if trained_on is not None else [], strict=True))

    looked = look_at(
        filter(takes, frames),
        session,
        lambda image, score: only(cli.detect(session, image, args, score_threshold=score), wanted),
        args.threshold,
        lambda frame: bool(was_seen.get(frame.name)),
        args.without_objects,
    )
    if source.unreadable:
        logger.warning(unreadable_line(source))
    labeled = len(looked.labeled_features)
    if not looked.candidates:
        raise DataError(f"--choose: the model was trained on all {labeled} images of --input; name others")
    logger.info(
        "%s to choose from%s",
        counted(len(looked.candidates), source.unit),
        f"; {labeled} more are left out, as the model was trained on them" if labeled else "",
    )
    facts = class_facts(args.model if args.model.is_dir() else args.model.parent, class_names[1:])
    if not args.without_objects:
        logger.info(facts_line(facts, class_names[1:]))
    choices = choose_candidates(looked.candidates, args.choose, facts, looked.labeled_features if labeled else None)
    write_chosen(folder / CHOSEN_NAME, choices, class_names[1:], args.without_objects)
    logger.info("Saved %s: %s to label next, with reasons", folder / CHOSEN_NAME, counted(len(choices), source.unit))
    source.keep({choice.name for choice in choices})


def thinning(source: Source, args: argparse.Namespace, was_chosen: bool) -> Callable[[Frame], bool]:
    """Say which frames are worth an annotation: all images, and all that were chosen; of a video as --save-fps says."""
    if not source.is_video or was_chosen:
        return lambda _: True
    return FrameThinning(args.save_fps, source.frame_rate).takes


def reading(source: Source, stages: Stages) -> Iterator[Frame]:
    """Read ahead, but from a camera: what it gave before it was asked for would be shown late."""
    frames = stages.each(READING, source)
    return frames if source.is_live else read_ahead(frames)


def log_earlier_files(sink: Sink, source: Source, args: argparse.Namespace) -> None:
    """Say how many files as this script writes them are in a folder for output before a run, if there are any."""
    if sink.output != sink.folder:
        return
    pictures = set(sink.image_paths.values()) if sink.video_path is None else {sink.video_path}
    texts = {path.with_suffix(".txt") for path in sink.image_paths.values()} if args.save_txt else set()
    results = {sink.folder / RESULTS_NAME} if args.save_json else set()
    sheets = {sink.folder / SHEET_NAME} if args.sheet else set()
    sources = {path.resolve() for path in (source.paths or [Path(source.text)])}
    is_output = (sink.folder / RESULTS_NAME).is_file()  # any other folder may hold all of a disk
    below = [Path(parent) for parent, _, _ in os.walk(sink.folder)] if is_output else []
    there = {
        path
        for folder in {sink.folder, *below, *(path.parent for path in pictures)}
        if folder.is_dir()
        for path in folder.iterdir()
        if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_CODECS, ".txt") or path.name == RESULTS_NAME
        if path.resolve() not in sources
    }
    if there:
        replaced = len(there & (pictures | texts | results | sheets))
        logger.info(
            "%s: holds %s from before this run: %d will be replaced, %d stay; another --output keeps runs apart",
            sink.folder,
            counted(len(there), "file"),
            replaced,
            len(there) - replaced,
        )


def counted(count: int, unit: str) -> str:
    """Write a number of things."""
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def unreadable_line(source: Source) -> str:
    """Say what was left out."""
    if not source.is_video:
        return f"{source.unreadable} of {source.total} images could not be read"
    if not source.total:
        return f"{source.text}: {source.unreadable} frames could not be read"
    return (
        f"{source.text}: {source.unreadable} of the {source.total} frames that it states could not be read; is the "
        "file damaged or cut off?"
    )


def without_first(times: Iterable[float]) -> list[float]:
    """Leave out what the first image took, which loads and plans, unless it is the only one."""
    first, *others = times
    return others or [first]


def stage_lines(stages: Stages, unit: str) -> list[str]:
    """Lay out how long each stage takes for an image or frame."""
    lines = [f"{'stage':20}  {'median':>9}  {'mean':>9}  per {unit}, without the first, which loads and plans"]
    for stage in (READING, *DETECTING, DRAWING, WRITING):
        if stages.seconds.get(stage):
            times = without_first(stages.seconds[stage])
            lines.append(f"{stage:20}  {1000 * median(times):6.2f} ms  {1000 * mean(times):6.2f} ms")
    return lines


def rate_line(images: int, unit: str, loading: float, first: float, others: float) -> str:
    """Say how many images or frames a second go through.

    Args:
        images: that went through, or frames.
        unit: "image" or "frame".
        loading: seconds that the model took.
        first: seconds that the first took, with what it waited for.
        others: seconds of all after it; less than the sum of the stages, as reading and writing go on meanwhile.
    """
    left_out = f"loading the model ({loading:.2f} s) and the first {unit} ({first:.2f} s), which warms up, are left out"
    if images < 2:
        return f"no {unit}s/s: {left_out}; more {unit}s are needed"
    timed = images - 1
    return f"{counted(timed, unit)} in {others:.2f} s, {timed / others:.1f} {unit}s/s; {left_out}"


def wanted_labels(text: str | None, class_names: Sequence[str]) -> set[int]:
    """Read --classes."""
    if text is None:
        return set(range(1, len(class_names)))
    labels = {name: label for label, name in enumerate(class_names) if label}
    parts, wanted, unknown = text.split(","), set(), []
    while parts:
        for end in range(len(parts), 0, -1):  # the longest name that fits, as names may have commas
            name = ",".join(parts[:end]).strip()
            if name in labels:
                wanted.add(labels[name])
                break
        else:
            unknown += [name] if name else []
        del parts[:end]
    if unknown or not wanted:
        raise DataError(
            f"--classes={text}: {', '.join(unknown) or 'nothing'} is not among {', '.join(class_names[1:])}"
        )
    return wanted


def only(found: Detections, labels: set[int]) -> Detections:
    """Keep the detections of some classes."""
    kept = [place for place, label in enumerate(found.labels.tolist()) if label in labels]
    return Detections(found.boxes[kept], found.labels[kept], found.scores[kept])


def within(found: Detections, image: np.ndarray) -> Detections:
    """Cut boxes to their image (H, W, 3), as detectNet does."""
    height, width = image.shape[:2]
    return found._replace(boxes=np.clip(np.asarray(found.boxes), 0, np.array([width, height] * 2, np.float32)))


def entry(frame: Frame, found: Detections, class_names: Sequence[str]) -> dict:
    """Convert an image's detections for JSON; boxes are x1 y1 x2 y2 in pixels."""
    height, width = frame.image.shape[:2]
    return {
        "image": frame.name,
        "width": width,
        "height": height,
        "detections": [
            {
                "class": class_names[label],
                "class_id": label,
                "score": round(score, 6),
                "box": [round(v, 2) for v in box],
            }
            for label, score, box in zip(
                found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
            )
        ],
    }


def text_lines(found: Detections, image: np.ndarray) -> str:
    """Write an image's detections as YOLO does: class number from 0, relative box, score."""
    height, width = image.shape[:2]
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return "".join(f"{label - 1} {relative_text(box, (width, height))} {score:.6f}\n" for label, score, box in rows)


def open_suggestions(args: argparse.Namespace, sink: Sink, class_names: Sequence[str]) -> Suggestions | None:
    """Open the dataset that --save-annotations asks for; None without the option."""
    if args.save_annotations is None:
        return None
    root = sink.folder / args.save_annotations
    writer = WRITERS[args.save_annotations](root, class_names[1:], writes_empty=args.without_objects)
    return Suggestions(writer, class_names)


def write_annotations(
    args: argparse.Namespace,
    sink: Sink,
    suggestions: Suggestions | None,
    takes: Callable[[Frame], bool],
    frame: Frame,
    found: Detections,
) -> None:
    """Write what was found in an image or frame as --save-txt and --save-annotations ask for it."""
    if args.save_txt:
        write_text(text_path(sink, frame, sink.source), text_lines(found, frame.image))
    if suggestions is None or not takes(frame):
        return
    found = nothing_of(found) if args.without_objects else found
    if sink.source.is_video:
        # Those of a camera are other ones each time.
        session = f"_{suggestions.began:%Y%m%d_%H%M%S}" if sink.source.is_live else ""
        name = PurePosixPath(f"{sink.path_of(frame).stem}{session}_{frame.number:06d}.jpg")
        suggestions.add_frame(name, frame.image, found)
    else:
        relative = sink.image_paths[frame.name].relative_to(sink.folder)
        suggestions.add_image(PurePosixPath(relative), Path(frame.name), frame.image, found)


def nothing_of(found: Detections) -> Detections:
    """Keep none of the detections."""
    return Detections(found.boxes[:0], found.labels[:0], found.scores[:0])


def text_path(sink: Sink, frame: Frame, source: Source) -> Path:
    """Say where an image's lines go; a video's frames are numbered."""
    if source.is_video:
        return sink.folder / f"{sink.path_of(frame).stem}_{frame.name.rpartition('#')[2]}.txt"
    return sink.image_paths[frame.name].with_suffix(".txt")


def sheet_path(sink: Sink, source: Source) -> Path:
    """Say where the sheet goes.

    Raises:
        DataError: an image that is read or written has that name.
    """
    path = sink.folder / SHEET_NAME
    images = [] if source.is_video else [*source.paths, *sink.image_paths.values()]
    if path.resolve() in {image.resolve() for image in images}:
        raise DataError(f"--sheet: {path} is one of the images; give that image another name, or leave --sheet out")
    return path


def check_display() -> None:
    """Check that a window can be opened.

    Raises:
        DataError: it cannot.
    """
    way_out = "leave --show out: drawn images and videos are in --output"
    names = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, names)):
        raise DataError(f"--show: there is no display here (DISPLAY is not set); {way_out}")
    try:
        tried = subprocess.run(
            [sys.executable, "-c", TRY_WINDOW],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=MAX_DISPLAY_WAIT,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"--show: the display does not answer for {MAX_DISPLAY_WAIT} s; {way_out}") from None
    if tried.returncode:
        said = [line for line in tried.stderr.splitlines() if line.strip()] or ["OpenCV does not say why"]
        why = said[-1] if tried.returncode > 0 else said[0]  # an exception comes after its traceback
        raise DataError(f"--show: no window can be opened here ({why.strip()}); {way_out}")


class Window:
    """Shows frames.

    Args:
        waits: for a key after each.
    """

    def __init__(self, waits: bool) -> None:
        self.waits = waits
        self._was_visible = False

    def show(self, drawn: np.ndarray) -> bool:
        """Show a frame, RGB; False when the user wants to end, by q or by closing the window."""
        cv2.imshow(WINDOW, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        while True:
            key = cv2.waitKey(50 if self.waits else 1)
            is_visible = cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1
            was_closed = self._was_visible and not is_visible  # some OpenCVs do not say
            self._was_visible |= is_visible
            if was_closed or key & 0xFF == ord("q"):
                return False
            if key >= 0 or not self.waits:
                return True


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
