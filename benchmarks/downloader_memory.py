#!/usr/bin/env python3
"""Peak memory and time of the downloader on a large table of boxes, served from this machine.

python3 benchmarks/downloader_memory.py
"""

from __future__ import annotations

import argparse
import http.server
import io
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vision.datasets.open_images_tables import SOURCE_COLUMNS  # noqa: E402
from vision.utils.timer import Timer  # noqa: E402

CLASSES = 8
WANTED = 6

#: Title -> boxes of an image, and the share of boxes of wanted classes.
CASES = {
    "eight boxes an image, most of wanted classes": (8, 0.8),
    "worst: each box in an image of its own, all wanted": (1, 1.0),
}


def write_source(folder: Path, size: int, boxes_per_image: int, wanted: float) -> int:
    """Write what the server has: tables, the largest of about `size` bytes. Gives its number of rows."""
    rng = random.Random(0)
    (folder / "class-descriptions-boxable.csv").write_text("".join(f"/m/0{n},Class {n}\n" for n in range(CLASSES)))
    for split in ("train", "validation", "test"):
        (folder / split).mkdir()
        with open(folder / split / f"{split}-annotations-bbox.csv", "w") as file:
            written = file.write(",".join(SOURCE_COLUMNS) + "\n")
            rows = 0
            while written < (size if split == "train" else size // 100):
                # An odd factor scatters ids over all of 64 bits without meeting twice.
                image_id = f"{rows // boxes_per_image * 0x9E3779B97F4A7C15 % (1 << 64):016x}"
                label = rng.randrange(WANTED) if rng.random() < wanted else rng.randrange(WANTED, CLASSES)
                group = int(rng.random() < 0.06)
                left, top = rng.random() / 2, rng.random() / 2
                corners = f"{left:.6f},{left + 0.4:.6f},{top:.6f},{top + 0.4:.6f}"
                written += file.write(f"{image_id},xclick,/m/0{label},1,{corners},0,0,{group},0,0\n")
                rows += 1
        if split == "train":
            most = rows
    return most


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and the same small image under every name."""

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 60)).save(buffer, "JPEG")
    image = buffer.getvalue()

    def do_GET(self) -> None:
        """Answer."""
        if not self.path.endswith(".jpg"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.image)))
        self.end_headers()
        self.wfile.write(self.image)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def measure(argv: Sequence[str]) -> tuple[float, float]:
    """Run the downloader; returns peak resident memory in MB, and seconds.

    A process inherits its parent's peak, so this program must stay small itself: nothing in here loads torch.
    """
    timer = Timer()
    timer.start()
    command = [sys.executable, str(ROOT / "open_images_downloader.py"), *argv]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the downloader ended with code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e6, timer.end()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500, help="size of the table of training boxes")
    parser.add_argument("--max-images", type=int, default=2000, help="images to fetch")
    args = parser.parse_args(argv)
    # Not even a proxy that the environment names stands between.
    os.environ["no_proxy"] = "*"
    for title, (boxes_per_image, wanted) in CASES.items():
        with tempfile.TemporaryDirectory() as name:
            source = Path(name, "source")
            source.mkdir()
            rows = write_source(source, args.megabytes * 1_000_000, boxes_per_image, wanted)
            print(f"{title}: {args.megabytes} MB, {rows} rows", flush=True)

            def handler(*args, source=source):
                return Handler(*args, directory=str(source))

            with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
                threading.Thread(target=server.serve_forever, daemon=True).start()
                address = f"http://127.0.0.1:{server.server_port}"
                common = [
                    f"--class-names={','.join(f'Class {n}' for n in range(WANTED))}",
                    f"--data={Path(name, 'data')}",
                    f"--annotations-url={address}",
                    f"--images-url={address}",
                ]
                for options in (
                    ["--stats-only"],
                    ["--stats-only", "--remove-overlapped"],
                    ["--stats-only", f"--max-annotations-per-class={rows}"],
                    [f"--max-images={args.max_images}"],
                ):
                    memory, seconds = measure([*common, *options])
                    print(f"  {' '.join(options)}: peak {memory:.0f} MB, {seconds:.1f} s", flush=True)
                server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
