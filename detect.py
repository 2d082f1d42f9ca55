#!/usr/bin/env python3
"""Find objects in images, videos and camera streams, draw them, and list them as JSON.

python3 detect.py --model=models/fruit/ssd-mobilenet.onnx --input="images/*.jpg" --output=out/
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import cv2
import numpy as np

from vision import cli
from vision.datasets.images import read_upright
from vision.deploy.detectnet import DEFAULT_THRESHOLD
from vision.deploy.media import Frame, Sink, Source
from vision.deploy.session import NETWORK, POST_PROCESSING, RESIZING
from vision.report.drawing import draw_detections
from vision.report.sheet import MAX_CELLS, Sheet
from vision.structures import DataError, Detections
from vision.utils.files import JsonListFile, write_text
from vision.utils.prefetch import WriteBehind, read_ahead
from vision.utils.timer import Stages

logger = logging.getLogger(__name__)

WINDOW = "detections (q ends)"
SHEET_NAME = "sheet.png"

#: Stages, besides those of detecting.
READING, DRAWING, WRITING = "read", "draw", "write"
DETECTING = (RESIZING, NETWORK, POST_PROCESSING)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Find objects in images, videos and camera streams.")
    cli.add_net_options(parser, None)
    parser.add_argument(
        "--model",
        required=True,
        type=cli.user_path,
        help=".pth or .onnx file, or a model folder (its best checkpoint)",
    )
    parser.add_argument("--labels", type=cli.user_path, help="class names, for a model that does not know its own")
    parser.add_argument(
        "--input",
        type=cli.user_place,
        required=True,
        help="image, folder, glob, video, camera (0, /dev/video0), rtsp://...",
    )
    parser.add_argument(
        "--output", type=cli.user_path, default=Path("detections"), help="folder, or an image or video file"
    )
    parser.add_argument(
        "--threshold",
        type=cli.fraction,
        help=f"least score (default: what suited best when the model's run was validated, else {DEFAULT_THRESHOLD})",
    )
    cli.add_postprocess_options(parser)
    parser.add_argument("--top-k", type=cli.count, help="detections per class and image (default: all)")
    parser.add_argument("--classes", help="show only these, with commas between (default: all)")
    parser.add_argument(
        "--save-json", action=argparse.BooleanOptionalAction, default=True, help="write detections.json"
    )
    parser.add_argument(
        "--save-txt", action="store_true", help="write <image>.txt, a line `class score x1 y1 x2 y2` each"
    )
    parser.add_argument(
        "--sheet", action="store_true", help=f"write {SHEET_NAME}, too: up to {MAX_CELLS} drawn images in a grid"
    )
    parser.add_argument("--show", action="store_true", help="show a window, too; q ends, any key goes on")
    parser.add_argument("--benchmark", action="store_true", help="print the time of each stage, and images per second")
    cli.add_device_options(parser)
    cli.add_resolution_option(parser, None, " (default: as trained)")
    args = parser.parse_args(argv)
    cli.check_postprocess_options(parser, args)
    if args.top_k is not None and args.postprocess == cli.DETECTNET:
        parser.error("--top-k: detectNet has no such limit; leave it out, or --postprocess=detectnet")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Detect."""
    args = parse_args(argv)
    cli.setup_logging()
    _, session, class_names = cli.open_model(args.model, args.labels, args)
    threshold = cli.choose_threshold(args.threshold, session.threshold)
    args.threshold = threshold.value
    logger.info("%s", threshold)
    wanted = wanted_labels(args.classes, class_names)
    source = Source(args.input, read_upright)
    cli.check_writable(args.output if not args.output.suffix else args.output.parent, "--output")

    counts: Counter[str] = Counter()
    stages = session.stages
    sink = Sink(args.output, source)
    results = JsonListFile(sink.folder / "detections.json") if args.save_json else None
    window = Window(waits=not source.is_video) if args.show else None
    sheet_file = sheet_path(sink, source) if args.sheet else None
    sheet = Sheet(class_names, args.threshold) if args.sheet else None

    def finish(frame: Frame, found: Detections) -> np.ndarray:
        with stages(DRAWING):
            drawn = draw_detections(frame.image, found, class_names)
        with stages(WRITING):
            sink.write(frame, drawn)
            if args.save_txt:
                write_text(text_path(sink, frame, source), text_lines(found, class_names))
        return drawn

    # What a camera gave before it was asked for would be shown late.
    frames = stages.each(READING, source)
    frames = frames if source.is_live else read_ahead(frames)
    began = perf_counter()
    images = 0
    try:
        with cli.sigterm_interrupts(), results or nullcontext(), sink, WriteBehind(finish) as finish_soon:
            for frame in cli.progress(frames, "Detecting", source.total):
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
    except KeyboardInterrupt:
        logger.info("interrupted; what was found so far is kept")
    finally:  # an image that cannot be written ends the run, but does not lose what was found
        seconds = perf_counter() - began
        if sheet is not None and sheet_file is not None and images:
            sheet.write(sheet_file)
            logger.info("Saved %s", sheet_file)
    if source.unreadable:
        logger.warning(unreadable_line(source))
    summary = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "nothing"
    detecting = sum(mean(without_first(stages.seconds[stage])) for stage in DETECTING if stages.seconds.get(stage))
    logger.info("%d images, found: %s; %.1f ms per image", images, summary, 1000 * detecting)
    logger.info("Saved to %s", sink.output)
    if args.benchmark:
        print("\n".join(stage_lines(stages, images, seconds)))


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


def stage_lines(stages: Stages, images: int, seconds: float) -> list[str]:
    """Lay out how long each stage takes.

    Args:
        stages: with their times.
        images: that went through them.
        seconds: that all of it took; less than the sum of the stages, as reading and writing go on meanwhile.
    """
    lines = [f"{'stage':20}  {'median':>9}  {'mean':>9}  per image, without the first, which loads and plans"]
    for stage in (READING, *DETECTING, DRAWING, WRITING):
        if stages.seconds.get(stage):
            times = without_first(stages.seconds[stage])
            lines.append(f"{stage:20}  {1000 * median(times):6.2f} ms  {1000 * mean(times):6.2f} ms")
    return [*lines, f"{images} images in {seconds:.2f} s, {images / seconds:.1f} images/s"]


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
    return found._replace(boxes=found.boxes.clamp(min=0).minimum(found.boxes.new_tensor([width, height] * 2)))


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


def text_lines(found: Detections, class_names: Sequence[str]) -> str:
    """Write an image's detections as lines."""
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return "".join(
        f"{class_names[label]} {score:.6f} {' '.join(f'{v:.2f}' for v in box)}\n" for label, score, box in rows
    )


def text_path(sink: Sink, frame: Frame, source: Source) -> Path:
    """Say where an image's lines go; a video's frames are numbered."""
    if source.is_video:
        return sink.folder / f"{sink.path_of(frame).stem}_{frame.name.rpartition('#')[2]}.txt"
    return sink.folder / f"{sink.image_paths[frame.name].stem}.txt"


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
