#!/usr/bin/env python3
"""Download images of some classes from Open Images, with their boxes, ready for train_ssd.py.

python3 open_images_downloader.py --class-names="Apple,Orange" --data=data/fruit --max-images=2500
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `run`: Ctrl-C ends the imports without a traceback

import argparse
import logging
import os
import sys
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from vision import console as cli
from vision.datasets import labels
from vision.datasets import open_images_tables as tables
from vision.datasets.open_images import SPLITS
from vision.structures import DataError
from vision.utils.download import DownloadError, Fetcher, alone_in, in_threads
from vision.utils.files import remove_parts

logger = logging.getLogger(__name__)

DESCRIPTIONS = "class-descriptions-boxable.csv"

#: How many of many alike lines are logged.
_EXAMPLES = 5
#: After this many failures in a row it is the server or the network that fails, not an image.
_HOPELESS = 50


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = cli.Parser(description="Download images of some classes from Open Images, with their boxes.")
    parser.add_argument(
        "--class-names",
        type=cli.user_place,
        required=True,
        help="classes with commas between, or a text file with one a line",
    )
    parser.add_argument("--data", "--root", type=cli.user_path, default=Path("data"), help="folder to write to")
    parser.add_argument(
        "--max-images", type=limit, default="-1", help="images in all splits together, shared by their sizes; -1: all"
    )
    parser.add_argument(
        "--max-annotations-per-class",
        type=limit,
        default="-1",
        help="boxes in a split after which a class needs no more images; -1: all",
    )
    parser.add_argument(
        "--stats-only", action="store_true", help="show what would be fetched; reads the tables, 1.1 GB the first time"
    )
    parser.add_argument("--num-workers", type=cli.count, default=10, help="images fetched at the same time")
    parser.add_argument("--retry", type=cli.number(int, 0), default=10, help="how often a failed request is repeated")
    parser.add_argument(
        "--timeout",
        type=cli.number(float, 0, 3600, above=True),
        default=30,
        help="seconds of silence after which a request has failed",
    )
    parser.add_argument("--include-depiction", action="store_true", help="also drawings, toys and the like")
    parser.add_argument(
        "--remove-overlapped", action="store_true", help="no boxes of single objects inside a group's box"
    )
    parser.add_argument(
        "--annotations-url",
        type=web_address,
        default="https://storage.googleapis.com/openimages/2018_04",
        help=f"where {DESCRIPTIONS} and the tables are",
    )
    parser.add_argument(
        "--images-url",
        type=web_address,
        default="https://open-images-dataset.s3.amazonaws.com",
        help="where <split>/<id>.jpg are",
    )
    return parser.parse_args(argv)


def limit(text: str) -> int | None:
    """Read a whole number of at least 1; -1 for no limit, which is None."""
    try:
        return None if text == "-1" else cli.count(text)
    except argparse.ArgumentTypeError as err:
        raise argparse.ArgumentTypeError(f"{err}, or -1 for all") from err


def web_address(text: str) -> str:
    """Check a URL; a slash at its end is dropped."""
    try:
        parts = urllib.parse.urlsplit(text)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and text.isprintable()
    except ValueError:
        fine = False
    if not fine or " " in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no address, expected one such as https://host/folder")
    return text.rstrip("/")


def main(argv: Sequence[str] | None = None) -> None:
    """Download."""
    args = parse_args(argv)
    cli.setup_logging()
    cli.check_writable(args.data, "--data")
    fetcher = Fetcher(args.timeout, args.retry)
    with ExitStack() as stack:
        stack.enter_context(alone_in(args.data))
        tidy(args.data)
        wanted = {split: stack.enter_context(boxes) for split, boxes in open_tables(fetcher, args)}
        say_left_out(wanted, args)
        if not any(boxes.images() for boxes in wanted.values()):
            names = ", ".join(next(iter(wanted.values())).names)
            raise DataError(f"--class-names: there is no box of {names} in any split; {args.data} stays as it is")
        print(statistics("There are", wanted))
        if args.max_annotations_per_class is not None or args.max_images is not None:
            tables.limit(wanted, args.max_annotations_per_class, args.max_images)
            print(statistics("Within the limits", wanted))
        if args.stats_only:
            return
        missing = fetch_images(fetcher, args, wanted)
        write_tables(args.data, wanted)
        if missing:
            raise RuntimeError(missing)


def tidy(root: Path) -> None:
    """Remove what killed runs left; the beginning of a large table is kept, it will be continued."""
    stray = remove_parts(root, "sub-") + sum(remove_parts(root / split) for split in SPLITS)
    if stray:
        logger.info("%s: removed %d temporary files of a run that was interrupted", root, stray)


# Tables.


def open_tables(fetcher: Fetcher, args: argparse.Namespace) -> Iterator[tuple[str, tables.WantedBoxes]]:
    """Fetch the published tables where needed, and read of each split what is wanted."""
    descriptions = args.data / DESCRIPTIONS
    obtain(fetcher, f"{args.annotations_url}/{DESCRIPTIONS}", descriptions)
    classes = tables.choose_classes(wanted_names(args.class_names), descriptions)
    logger.info("classes: %s", ", ".join(dict.fromkeys(classes.values())))
    filters = {"include_depiction": args.include_depiction, "remove_overlapped": args.remove_overlapped}
    for split in SPLITS:
        name = f"{split}-annotations-bbox.csv"
        obtain(fetcher, f"{args.annotations_url}/{split}/{name}", args.data / name)
        logger.info("reading %s", args.data / name)
        yield split, tables.WantedBoxes(args.data / name, classes, **filters)


def wanted_names(text: str) -> Sequence[str]:
    """Read --class-names."""
    return labels.read_labels(text) if os.path.isfile(text) else text.split(",")


def obtain(fetcher: Fetcher, url: str, path: Path) -> None:
    """See to it that a published table is there, as long as the server says it is."""
    try:
        if path.exists():
            size, expected = path.stat().st_size, size_on_server(fetcher, url, path)
            if size and expected in (None, size):
                remove_parts(path.parent, f"{path.name}.")
                return
            logger.warning("%s: has %d bytes, the server's has %s: fetching it again", path, size, expected or "more")
        else:
            logger.info("fetching %s", url)
        fetcher.fetch(url, path, resume=True, progress=cli.progress, note=logger.warning)
    except DownloadError as err:
        if err.permanent:
            raise DataError(f"{err}, expected a table of Open Images; check --annotations-url") from err
        raise RuntimeError(f"{err}; run the same command again to continue") from err


def size_on_server(fetcher: Fetcher, url: str, path: Path) -> int | None:
    """Ask for a table's size; None, and a warning, where the server does not tell."""
    try:
        size = fetcher.size(url, note=logger.warning)
    except DownloadError as err:
        if not err.permanent:
            raise
        logger.warning("%s: used as it is, its size cannot be checked (%s)", path, err)
        return None
    if size is None:
        logger.warning("%s: used as it is, its size cannot be checked (%s does not tell it)", path, url)
    return size


def say_left_out(wanted: Mapping[str, tables.WantedBoxes], args: argparse.Namespace) -> None:
    """Log what the filters do."""
    depictions = sum(boxes.depictions for boxes in wanted.values())
    overlapped = sum(boxes.overlapped for boxes in wanted.values())
    if depictions:
        logger.info("left out: %d boxes on depictions (--include-depiction keeps them)", depictions)
    if args.remove_overlapped:
        logger.info("left out: %d boxes inside a group's box (--remove-overlapped)", overlapped)


def statistics(title: str, wanted: Mapping[str, tables.WantedBoxes]) -> str:
    """Write a table of images and boxes per class and split."""
    columns = {split: boxes.per_class() for split, boxes in wanted.items()}
    rows = [("class", *(split for split in columns), "all")]
    for name in next(iter(columns.values())):
        counts = [column[name] for column in columns.values()]
        counts.append(tables.ClassCount(*map(sum, zip(*counts, strict=True))))
        rows.append((name, *(f"{count.images} / {count.boxes}" for count in counts)))
    totals = [tables.ClassCount(boxes.images(), boxes.boxes()) for boxes in wanted.values()]
    totals.append(tables.ClassCount(*map(sum, zip(*totals, strict=True))))
    rows.append(("all", *(f"{count.images} / {count.boxes}" for count in totals)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{title} (images / boxes):"]
    for name, *texts in rows:
        cells = [f"{text:>{width}}" for text, width in zip(texts, widths[1:], strict=True)]
        lines.append("   ".join([f"  {name:<{widths[0]}}", *cells]))
    return "\n".join(lines)


def write_tables(root: Path, wanted: Mapping[str, tables.WantedBoxes]) -> None:
    """Write, for each split, the boxes of the images that are there, with those of earlier runs."""
    for split, boxes in wanted.items():
        path = root / f"sub-{split}-annotations-bbox.csv"
        if not boxes.images():
            consequence = f"{path} stays as it is" if path.exists() else "no table written"
            logger.info("%s: no image chosen, %s", split, consequence)
            continue
        merged = tables.merge_table(path, boxes.table_rows(), root / split)
        ours, earlier = merged.lost
        if ours:
            logger.warning("%s: %d boxes left out, their images are missing", path, ours)
        if earlier:
            logger.warning("%s: %d boxes of earlier runs left out, their images are no longer there", path, earlier)
        if merged.boxes:
            logger.info("Saved %s (%d boxes in %d images)", path, merged.boxes, merged.images)
        else:
            logger.warning("%s: none of its images is there, no table written", split)


# Images.


class Job(NamedTuple):
    """An image to get."""

    split: str
    image_id: str


class Outcome(NamedTuple):
    """What became of it, and why if that is not plain."""

    kind: str
    why: str = ""


FETCHED, REPAIRED, THERE, GONE, FAILED = "fetched", "repaired", "there", "gone", "failed"


def fetch_images(fetcher: Fetcher, args: argparse.Namespace, wanted: Mapping[str, tables.WantedBoxes]) -> str | None:
    """Fetch the images that are not there as a whole.

    Returns:
        None if all of them are there now, else a line that says which are not, and what to do.
    """

    def get(job: Job) -> Outcome:
        path = args.data / job.split / f"{job.image_id}.jpg"
        defect = tables.image_defect(path) if path.exists() else None
        if path.exists() and defect is None:
            return Outcome(THERE)
        try:
            url = f"{args.images_url}/{job.split}/{urllib.parse.quote(path.name)}"
            fetcher.fetch(url, path, check=tables.image_defect)
        except DownloadError as err:
            return Outcome(GONE if err.permanent else FAILED, str(err))
        return Outcome(FETCHED) if defect is None else Outcome(REPAIRED, f"{path} {defect}")

    images = sum(boxes.images() for boxes in wanted.values())
    jobs = (Job(split, image_id) for split, boxes in wanted.items() for image_id in boxes.image_ids())
    counts: Counter[str] = Counter()
    reasons: dict[str, list[str]] = {REPAIRED: [], GONE: [], FAILED: []}
    in_a_row = 0
    try:
        with closing(in_threads(get, jobs, args.num_workers)) as outcomes:
            for _, (kind, why) in cli.progress(outcomes, "Images", images):
                counts[kind] += 1
                if why and len(reasons[kind]) < _EXAMPLES:
                    reasons[kind].append(why)
                in_a_row = in_a_row + 1 if kind == FAILED else 0
                if in_a_row == _HOPELESS:
                    logger.warning("%d images in a row failed: giving up", in_a_row)
                    break
    finally:
        fetcher.stop()
    missing = images - counts[FETCHED] - counts[REPAIRED] - counts[THERE]
    if counts[REPAIRED]:
        logger.warning(
            "fetched again, as what was there was not whole: %s", first_few(reasons[REPAIRED], counts[REPAIRED])
        )
    logger.info(
        "images: %d wanted, %d fetched, %d were there, %d missing",
        images,
        counts[FETCHED] + counts[REPAIRED],
        counts[THERE],
        missing,
    )
    if not missing:
        return None
    explanations = []
    if counts[GONE]:
        few = first_few(reasons[GONE], counts[GONE])
        explanations.append(f"{counts[GONE]} are refused, running again will not help: {few}")
    if counts[FAILED]:
        few = first_few(reasons[FAILED], counts[FAILED])
        explanations.append(f"{counts[FAILED]} failed, running the same command again may help: {few}")
    if untried := images - counts.total():
        explanations.append(f"{untried} were not tried, run the same command again")
    return f"{missing} of {images} images are missing, their boxes are left out; {'; '.join(explanations)}"


def first_few(texts: Sequence[str], count: int) -> str:
    """List the first few of `count`."""
    more = f", and {count - len(texts)} more" if count > len(texts) else ""
    return ", ".join(texts) + more


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
