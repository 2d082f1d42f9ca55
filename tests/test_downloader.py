"""The downloader against a real server on loopback that fails in every way: complete folders, or a word and a code."""

import contextlib
import csv
import functools
import hashlib
import http.server
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import ROOT, heed_interrupts

import open_images_downloader as downloader
from vision import cli
from vision.datasets import open_images_tables as tables
from vision.datasets.open_images import SPLITS, OpenImagesDataset
from vision.utils import download
from vision.utils.download import DownloadError, Fetcher

pytestmark = pytest.mark.network

#: Seconds after which a wait for something that must happen has failed.
SOON = 300

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
DESCRIPTIONS = "/m/01,Apple\n/m/02,Orange\n/m/03,Traffic light\n/m/04,Banana\n/m/05,Kiwi\n"
APPLE, ORANGE, LIGHT, BANANA = "/m/01", "/m/02", "/m/03", "/m/04"


def image_id(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()[:16]


def row(image: str, label: str, box=(0.125, 0.75, 0.25, 0.5), group=0, depiction=0) -> str:
    """A line of a table; the box is XMin, XMax, YMin, YMax as there."""
    corners = ",".join(f"{value:.6f}" for value in box)
    return f"{image},xclick,{label},1,{corners},0,0,{group},{depiction},0"


A, B, C, D, E, F, G, H, I, J, K = (image_id(number) for number in range(11))  # noqa: E741
NOT_HEX = "scan_7.b-2"

ROWS = {
    "train": [
        row(A, APPLE),
        row(A, APPLE, (0.1, 0.3, 0.1, 0.3)),
        row(A, ORANGE),
        row(B, APPLE),
        row(B, BANANA),
        row(C, ORANGE),
        # A crowd, with one of its members, one of another class, and one that stands apart.
        row(D, ORANGE, (0.1, 0.9, 0.1, 0.9), group=1),
        row(D, ORANGE, (0.2, 0.4, 0.2, 0.4)),
        row(D, APPLE, (0.2, 0.4, 0.2, 0.4)),
        row(D, ORANGE, (0.05, 0.4, 0.2, 0.4)),
        row(E, APPLE, depiction=1),
        row(F, BANANA),
        row(NOT_HEX, APPLE),
    ],
    "validation": [row(G, APPLE), row(H, APPLE), row(H, ORANGE, depiction=1), row(I, BANANA)],
    "test": [row(J, ORANGE), row(K, LIGHT)],
}
#: What "Apple, Orange" is, depictions left out.
FRUIT = {"train": {A, B, C, D, NOT_HEX}, "validation": {G, H}, "test": {J}}


def jpeg(name: str) -> bytes:
    """A small image that no other name has."""
    seed = int.from_bytes(hashlib.md5(name.encode()).digest()[:4], "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def table(rows, header: str = HEADER) -> bytes:
    return "".join(f"{line}\n" for line in (header, *rows)).encode()


def world(rows=ROWS) -> dict[str, bytes]:
    """What the server has: {path: content}."""
    files = {"/a/class-descriptions-boxable.csv": DESCRIPTIONS.encode()}
    for split, lines in rows.items():
        files[f"/a/{split}/{split}-annotations-bbox.csv"] = table(lines)
        for image in {line.partition(",")[0] for line in lines}:
            files[f"/i/{split}/{image}.jpg"] = jpeg(image)
    return files


TRAIN_CSV = "/a/train/train-annotations-bbox.csv"


# Faults: given the handler and the content, answer in some other way.


def status(code):
    return lambda handler, content: handler.answer(code, b"")


def dropped(handler, content):
    """Close the connection without a word, by RST."""
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


def half(handler, content):
    """Close the connection halfway; all headers are those of the whole."""
    handler.answer(200, content[: len(content) // 2], length=len(content), headers=handler.validators(content))


def page(handler, content):
    handler.answer(200, b"<html>please log in</html>")


def empty(handler, content):
    handler.answer(200, b"")


def unsized(handler, content):
    handler.answer(200, content, length=None)


def half_unsized(handler, content):
    handler.answer(200, content[: len(content) // 2], length=None)


def blocked(handler, content):
    """Say nothing until the test is over, or releases the server."""
    handler.server.is_blocking.set()
    handler.server.release.wait(SOON)
    with contextlib.suppress(OSError):
        handler.answer(200, content)


def half_blocked(handler, content):
    """Send one half, and the other when the server is released."""
    half(handler, content)
    handler.server.is_blocking.set()
    handler.server.release.wait(SOON)


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = SOON

    def do_HEAD(self):
        self.respond()

    def do_GET(self):
        self.respond()

    def respond(self):
        server = self.server
        asked_range = self.headers.get("Range")
        with server.lock:
            server.requests.append((self.command, self.path, asked_range))
            faults = server.faults.get((self.command, self.path), [])
            fault = faults[0] if faults else None
            if len(faults) > 1 or (faults and faults[-1] is None):
                faults.pop(0)
        content = server.files.get(self.path)
        if fault is not None:
            fault(self, content)
        elif content is None:
            self.answer(404, b"")
        elif asked_range and server.ranges and self.headers["If-Range"] in (None, *self.validators(content).values()):
            start = int(asked_range.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.answer(416, b"")
            else:
                place = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
                self.answer(206, content[start:], headers=place | self.validators(content))
        else:
            self.answer(200, content, headers=self.validators(content))

    def validators(self, content):
        return {"ETag": f'"{hashlib.md5(content).hexdigest()}"'} if self.server.etags else {}

    def answer(self, code, body, length=-1, headers=None):
        self.send_response(code)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length == -1 else length))
        for name, value in (headers if headers is not None else self.validators(body)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `faults` are used up in turn, the last one for ever unless it is None."""

    daemon_threads = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.files = world()
        self.faults = {}
        self.requests = []
        self.ranges = self.etags = True
        self.is_blocking, self.release = threading.Event(), threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests

    def fail(self, path, *faults, method="GET"):
        self.faults[method, path] = list(faults)

    def asked(self, path, method="GET"):
        """How often a path was asked for."""
        return sum(request[:2] == (method, path) for request in self.requests)


@pytest.fixture
def server(monkeypatch):
    # Not even a proxy that the environment names stands between.
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


def download_argv(server, root, *more):
    """A command line; later options win."""
    urls = f"--annotations-url={server.address}/a", f"--images-url={server.address}/i"
    return ["--class-names=Apple,Orange", f"--data={root}", *urls, "--num-workers=4", "--retry=3", *map(str, more)]


@pytest.fixture
def run(server, tmp_path, capsys, monkeypatch):
    """Run main as the shell would, with hardly a pause between attempts: gives exit code, output and errors."""
    monkeypatch.setattr(downloader, "Fetcher", functools.partial(Fetcher, first_pause=0.001))

    def run(*more, root=tmp_path / "data") -> SimpleNamespace:
        with pytest.raises(SystemExit) as stop:
            cli.run(downloader.main, download_argv(server, root, *more))
        out, err = capsys.readouterr()
        assert err.count("\n") <= 1
        return SimpleNamespace(code=stop.value.code, out=out, err=err, root=root)

    return run


def contents(root: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones included."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def images(root: Path) -> dict[str, set[str]]:
    return {split: {path.name.removesuffix(".jpg") for path in (root / split).glob("*")} for split in SPLITS}


def rows_of(root: Path, split: str) -> list[dict[str, str]]:
    path = root / f"sub-{split}-annotations-bbox.csv"
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ids_of(root: Path) -> dict[str, set[str]]:
    """The images in the tables; each of them is there."""
    ids = {split: {row["ImageID"] for row in rows_of(root, split)} for split in SPLITS}
    assert all((root / split / f"{name}.jpg").is_file() for split, names in ids.items() for name in names)
    return ids


def dataset_of(root: Path, split: str) -> OpenImagesDataset:
    return OpenImagesDataset(root, dataset_type=split)


# A whole run.


def test_a_run_leaves_a_dataset(run, server):
    done = run()
    assert (done.code, done.err) == (0, "")
    assert images(done.root) == ids_of(done.root) == FRUIT
    files = contents(done.root)
    for split, names in FRUIT.items():
        for name in names:
            assert files[f"{split}/{name}.jpg"] == server.files[f"/i/{split}/{name}.jpg"]
        assert files[f"{split}-annotations-bbox.csv"] == server.files[f"/a/{split}/{split}-annotations-bbox.csv"]
    assert len(files) == 8 + 4 + 3
    assert files["sub-test-annotations-bbox.csv"].decode().splitlines() == [
        f"{HEADER},id,ClassName",
        f"{row(J, ORANGE)},/m/02,Orange",
    ]
    train = rows_of(done.root, "train")
    assert len(train) == 10
    assert [(line["ImageID"], line["LabelName"]) for line in train] == sorted(
        (line["ImageID"], line["LabelName"]) for line in train
    )
    assert "images: 8 wanted, 8 fetched, 0 were there, 0 missing" in done.out
    assert "Saved " in done.out and "(10 boxes in 5 images)" in done.out
    assert "left out: 2 boxes on depictions" in done.out


def test_the_result_can_be_trained_on(run):
    root = run().root
    dataset = dataset_of(root, "train")
    assert dataset.class_names == ("BACKGROUND", "Apple", "Orange")
    assert len(dataset) == 5
    assert dataset.class_counts() == {"Apple": 5, "Orange": 5}
    place = dataset.ids.index(C)
    boxes, labels = dataset.targets(place)
    assert dataset.get_image(place).shape == (12, 16, 3)
    assert boxes.tolist() == [[2, 3, 12, 6]] and labels.tolist() == [2]


def test_running_again_fetches_nothing(run, server):
    before = contents(run().root)
    server.requests.clear()
    done = run()
    assert contents(done.root) == before
    assert {method for method, _, _ in server.requests} == {"HEAD"}
    assert "images: 8 wanted, 0 fetched, 8 were there, 0 missing" in done.out


def test_the_order_of_rows_changes_nothing(run, server, tmp_path):
    options = ("--max-images=4", "--max-annotations-per-class=3", "--remove-overlapped")
    first = contents(run(*options).root)
    server.files = world({split: lines[::-1] for split, lines in ROWS.items()})
    second = contents(run(*options, root=tmp_path / "other").root)
    ours = [name for name in first if name.startswith("sub-") or name.endswith(".jpg")]
    assert ours and {name: first[name] for name in ours} == {
        name: text for name, text in second.items() if name.startswith("sub-") or name.endswith(".jpg")
    }


# Options.


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("Apple", ("Apple",)),
        ("apple,  BANANA ,apple", ("Apple", "Banana")),
        (" traffic   LIGHT", ("Traffic light",)),
        ("BACKGROUND,Apple", ("Apple",)),
    ],
)
def test_class_names_match_in_any_case_and_spacing(run, typed, names):
    done = run(f"--class-names={typed}")
    assert done.code == 0
    found = {line["ClassName"] for split in SPLITS for line in rows_of(done.root, split)}
    assert found == set(names)


def test_class_names_may_come_from_a_file(run, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("BACKGROUND\nbanana\n\nTraffic light\n")
    done = run(f"--class-names={path}")
    assert ids_of(done.root) == {"train": {B, F}, "validation": {I}, "test": {K}}


def test_many_class_names_are_no_file_name(run):
    assert run(f"--class-names={'Apple,' * 2000}").code == 0


def test_a_name_of_two_classes_means_both(run, server):
    server.files["/a/class-descriptions-boxable.csv"] = DESCRIPTIONS.replace("Orange", "Apple").encode()
    assert ids_of(run("--class-names=Apple").root) == FRUIT


def test_unknown_classes_are_named_with_their_neighbors(run):
    done = run("--class-names=aple,Orange,Trafic light,xyz")
    assert done.code == 2
    assert "--class-names: unknown class 'aple', did you mean Apple?; unknown class 'Trafic light'" in done.err
    assert "did you mean Traffic light?; unknown class 'xyz'; expected names as in" in done.err
    assert list(contents(done.root)) == ["class-descriptions-boxable.csv"]


@pytest.mark.parametrize("typed", ["", " , ", "background"])
def test_no_class_at_all_is_refused(run, typed):
    done = run(f"--class-names={typed}")
    assert done.code == 2 and "--class-names: names no class" in done.err


def test_a_class_without_boxes_is_refused(run):
    done = run("--class-names=Kiwi")
    assert done.code == 2 and "--class-names: there is no box of Kiwi in any split" in done.err


def test_root_is_another_name_for_data_and_underscores_will_do(run, tmp_path):
    done = run(f"--root={tmp_path / 'deep' / 'folder'}", "--max_images=2")
    assert done.code == 0
    assert sum(map(len, ids_of(tmp_path / "deep" / "folder").values())) == 2


@pytest.mark.parametrize(
    ("most", "parts"), [(1, (1, 0, 0)), (3, (2, 1, 0)), (4, (3, 1, 0)), (7, (4, 2, 1)), (8, (5, 2, 1)), (99, (5, 2, 1))]
)
def test_max_images_is_shared_by_size(run, most, parts):
    done = run(f"--max-images={most}")
    assert done.code == 0
    assert tuple(len(names) for names in ids_of(done.root).values()) == parts
    assert sum(map(len, images(done.root).values())) == min(most, 8)


def test_fewer_images_are_a_part_of_more(run, tmp_path):
    few = ids_of(run("--max-images=3", root=tmp_path / "few").root)
    more = ids_of(run("--max-images=5", root=tmp_path / "more").root)
    assert all(few[split] <= more[split] for split in few)


def test_a_split_without_images_gets_no_table(run):
    done = run("--max-images=1")
    assert not (done.root / "sub-test-annotations-bbox.csv").exists()
    assert "test: no image chosen, no table written" in done.out


def test_minus_one_is_no_limit(run):
    assert ids_of(run("--max-images", "-1", "--max-annotations-per-class", "-1").root) == FRUIT


def test_max_annotations_takes_images_while_a_class_is_short(run, server):
    lines = [row(image_id(n), ORANGE) for n in range(20)] + [row(image_id(n), APPLE) for n in range(3)]
    server.files = world({"train": lines, "validation": [], "test": []})
    done = run("--max-annotations-per-class=5")
    train = rows_of(done.root, "train")
    counts = {name: sum(line["ClassName"] == name for line in train) for name in ("Apple", "Orange")}
    assert counts["Apple"] == 3, "of a rare class all is taken"
    assert 5 <= counts["Orange"] <= 8, "above the limit only as far as images are taken for another class"
    assert len(images(done.root)["train"]) == counts["Orange"]


def test_max_images_comes_after_max_annotations(run):
    done = run("--max-annotations-per-class=2", "--max-images=3")
    assert sum(map(len, ids_of(done.root).values())) == 3


def test_stats_only_shows_and_leaves_alone(run, server):
    done = run("--stats-only", "--max-images=4")
    assert (done.code, done.err) == (0, "")
    assert not any("/i/" in path for _, path, _ in server.requests)
    assert not list(done.root.glob("sub-*")) and not list(done.root.rglob("*.jpg"))
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    begin = lines.index("There are (images / boxes):")
    assert lines[begin + 1 : begin + 5] == [
        "class train validation test all",
        "Apple 4 / 5 2 / 2 0 / 0 6 / 7",
        "Orange 3 / 5 0 / 0 1 / 1 4 / 6",
        "all 5 / 10 2 / 2 1 / 1 8 / 13",
    ]
    within = lines.index("Within the limits (images / boxes):")
    assert re.fullmatch(r"all 3 / \d+ 1 / 1 0 / 0 4 / \d+", lines[within + 4])


def test_stats_say_what_is_fetched(run):
    done = run("--max-images=4")
    boxes = sum(len(rows_of(done.root, split)) for split in SPLITS)
    assert [line.split()[-3:] for line in done.out.splitlines() if line.startswith("  all")][1] == [
        "4",
        "/",
        str(boxes),
    ]


@pytest.mark.parametrize("workers", [1, 3])
def test_num_workers_is_how_many_are_fetched_at_once(run, server, workers):
    together = threading.Barrier(workers, timeout=SOON)
    at_work, most = [], []

    def meeting(handler, content):
        with server.lock:
            at_work.append(handler)
            most.append(len(at_work))
        together.wait()
        with server.lock:
            at_work.remove(handler)
        handler.answer(200, content)

    lines = [row(image_id(n), APPLE) for n in range(6)]
    server.files = world({"train": lines, "validation": [], "test": []})
    for path in server.files:
        if path.startswith("/i/"):
            server.fail(path, meeting)
    assert run(f"--num-workers={workers}").code == 0
    assert max(most) == workers


def test_retry_is_how_often_a_request_is_repeated(run, server):
    path = f"/i/train/{C}.jpg"
    server.fail(path, status(500), status(503), None)
    assert run("--retry=1").code == 1
    server.requests.clear()
    server.fail(path, status(500), status(503), None)
    done = run("--retry=2")
    assert done.code == 0 and server.asked(path) == 3
    assert ids_of(done.root) == FRUIT


def test_timeout_ends_a_silence(run, server):
    path = f"/i/train/{C}.jpg"
    server.fail(path, blocked)
    done = run("--timeout=0.2", "--retry=0")
    assert done.code == 1
    assert f"{server.address}{path}: no answer within 0.2 s" in done.err


def test_a_slow_answer_is_asked_for_again(run, server):
    server.fail(f"/i/train/{C}.jpg", half_blocked, None)
    done = run("--timeout=0.2", "--retry=1")
    assert (done.code, ids_of(done.root)) == (0, FRUIT)


def test_include_depiction(run):
    done = run("--include-depiction")
    assert ids_of(done.root)["train"] == FRUIT["train"] | {E}
    assert "left out" not in done.out


def test_remove_overlapped(run, tmp_path):
    def boxes(root):
        rows = [line for line in rows_of(root, "train") if line["ImageID"] == D]
        return {(line["ClassName"], line["XMin"], line["IsGroupOf"]) for line in rows}

    everything = boxes(run(root=tmp_path / "all").root)
    done = run("--remove-overlapped", root=tmp_path / "some")
    assert everything - boxes(done.root) == {("Orange", "0.200000", "0")}
    assert boxes(done.root) == {("Orange", "0.100000", "1"), ("Apple", "0.200000", "0"), ("Orange", "0.050000", "0")}
    assert "left out: 1 boxes inside a group's box" in done.out


@pytest.mark.parametrize(
    ("box", "covered"),
    [
        ((0.1, 0.9, 0.2, 0.8), True),
        ((0.3, 0.5, 0.3, 0.5), True),
        ((0.099999, 0.9, 0.2, 0.8), False),
        ((0.1, 0.900001, 0.2, 0.8), False),
        ((0.1, 0.9, 0.199999, 0.8), False),
        ((0.1, 0.9, 0.2, 0.800001), False),
    ],
)
def test_what_lies_inside_a_group_edges_included(run, server, box, covered):
    group = (0.1, 0.9, 0.2, 0.8)
    # Of two groups, either may cover; a group in a group stays.
    lines = [row(A, APPLE, box), row(A, APPLE, (0.1, 0.2, 0.2, 0.3), group=1), row(A, APPLE, group, group=1)]
    server.files = world({"train": lines, "validation": [], "test": []})
    assert len(rows_of(run("--remove-overlapped").root, "train")) == (2 if covered else 3)


def test_a_group_on_a_depiction_covers_nothing(run, server):
    lines = [row(A, APPLE, (0.0, 1.0, 0.0, 1.0), group=1, depiction=1), row(A, APPLE)]
    server.files = world({"train": lines, "validation": [], "test": []})
    assert len(rows_of(run("--remove-overlapped").root, "train")) == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--max-images=0", "--max-images: '0' is not a whole number of at least 1, or -1 for all"),
        ("--max-images=many", "--max-images: 'many' is not a whole number"),
        ("--max-annotations-per-class=-2", "--max-annotations-per-class: '-2' is not a whole number of at least 1"),
        ("--num-workers=0", "--num-workers: '0' is not a whole number of at least 1"),
        ("--retry=-1", "--retry: '-1' is not a whole number of at least 0"),
        ("--timeout=0", "--timeout: '0' is not a number above 0"),
        ("--annotations-url=ftp://host/x", "--annotations-url: 'ftp://host/x' is no address, expected one such as"),
        ("--images-url=host/x", "--images-url: 'host/x' is no address"),
        ("--images-url=http://host:many/x", "--images-url: 'http://host:many/x' is no address"),
        ("--images-url=http://ho st/x", "--images-url: 'http://ho st/x' is no address"),
    ],
)
def test_bad_options_are_named(run, word, message):
    done = run(word)
    assert done.code == 2 and message in done.err


def test_the_documented_defaults():
    assert vars(downloader.parse_args(["--class-names=Apple"])) == {
        "class_names": "Apple",
        "data": Path("data"),
        "max_images": None,
        "max_annotations_per_class": None,
        "stats_only": False,
        "num_workers": 10,
        "retry": 10,
        "timeout": 30,
        "include_depiction": False,
        "remove_overlapped": False,
        "annotations_url": "https://storage.googleapis.com/openimages/2018_04",
        "images_url": "https://open-images-dataset.s3.amazonaws.com",
    }


def test_class_names_are_required(capsys):
    with pytest.raises(SystemExit) as stop:
        downloader.main([])
    assert stop.value.code == 2 and "--class-names" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(run, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(root=tmp_path / "file" / "data")
    assert done.code == 2 and f"--data={tmp_path / 'file' / 'data'}: cannot be made" in done.err


def test_a_file_in_the_place_of_a_folder_of_images_is_named(run, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").write_text("")
    done = run()
    assert done.code == 2 and str(tmp_path / "data" / "train") in done.err


def test_ids_with_letters_of_other_alphabets(run, server):
    server.files = world({"train": [row("größe_1", APPLE)], "validation": [], "test": []})
    server.files[f"/i/train/{urllib.parse.quote('größe_1')}.jpg"] = server.files.pop("/i/train/größe_1.jpg")
    done = run()
    assert done.code == 0 and ids_of(done.root)["train"] == {"größe_1"}


# Images that do not come.


@pytest.mark.parametrize(
    ("fault", "reason", "advice"),
    [
        (status(404), "the server answers 404 (Not Found)", "1 are refused, running again will not help"),
        (status(410), "the server answers 410 (Gone)", "1 are refused, running again will not help"),
        (status(500), "the server answers 500", "1 failed, running the same command again may help"),
        (status(429), "the server answers 429", "1 failed, running the same command again may help"),
        (dropped, "", "1 failed, running the same command again may help"),
        (half, "the connection ended after", "1 failed, running the same command again may help"),
        (page, "what came is no JPEG (it begins with b'<html>", "1 failed"),
        (empty, "what came is empty", "1 failed"),
        (half_unsized, "what came is only the beginning of a JPEG", "1 failed"),
    ],
)
def test_an_image_that_does_not_come_is_named_and_its_boxes_left_out(run, server, fault, reason, advice):
    path = f"/i/train/{A}.jpg"
    server.fail(path, fault)
    done = run()
    assert done.code == 1
    assert "1 of 8 images are missing, their boxes are left out" in done.err
    assert f"{server.address}{path}: {reason}" in done.err and advice in done.err
    assert ids_of(done.root) == FRUIT | {"train": FRUIT["train"] - {A}}
    assert images(done.root) == ids_of(done.root), "and nothing else lies about"
    assert "3 boxes left out, their images are missing" in done.out
    assert server.asked(path) == (1 if "refused" in advice else 4)
    server.faults.clear()
    assert run().code == 0
    assert ids_of(done.root) == FRUIT


@pytest.mark.parametrize("fault", [status(500), status(408), status(429), dropped, half, page, empty, half_unsized])
def test_what_passes_leaves_no_trace(run, server, tmp_path, fault):
    whole = contents(run(root=tmp_path / "whole").root)
    for path in server.files:
        if "/i/" in path or fault not in (page, empty, half_unsized):
            server.fail(path, fault, None)
    done = run(root=tmp_path / "late")
    assert (done.code, done.err) == (0, "")
    assert contents(done.root) == whole


def test_an_answer_without_a_length_will_do(run, server, tmp_path):
    whole = contents(run(root=tmp_path / "whole").root)
    for path in server.files:
        server.fail(path, unsized)
    done = run(root=tmp_path / "unsized")
    assert (done.code, contents(done.root)) == (0, whole)


def test_all_images_of_a_split_missing(run, server):
    server.fail(f"/i/test/{J}.jpg", status(404))
    done = run()
    assert done.code == 1
    assert not (done.root / "sub-test-annotations-bbox.csv").exists()
    assert "test: none of its images is there, no table written" in done.out


def test_of_many_missing_images_a_few_are_named(run, server):
    lines = [row(image_id(n), APPLE) for n in range(9)]
    server.files = world({"train": [*lines, row(image_id(9), APPLE)], "validation": [], "test": []})
    for n in range(9):
        del server.files[f"/i/train/{image_id(n)}.jpg"]
    done = run()
    assert "9 of 10 images are missing" in done.err
    assert done.err.count("404 (Not Found)") == 5 and "and 4 more" in done.err


def test_a_dead_server_is_given_up(run, server, monkeypatch):
    monkeypatch.setattr(downloader, "_HOPELESS", 3)
    server.files = world({"train": [row(image_id(n), APPLE) for n in range(40)], "validation": [], "test": []})
    for path in server.files:
        if path.startswith("/i/"):
            server.fail(path, status(500))
    done = run("--retry=0", "--num-workers=1")
    assert done.code == 1
    assert "3 images in a row failed: giving up" in done.out
    assert "40 of 40 images are missing" in done.err and "37 were not tried, run the same command again" in done.err
    assert len([path for _, path, _ in server.requests if path.startswith("/i/")]) < 10


# Tables that do not come.


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (
            status(404),
            2,
            "the server answers 404 (Not Found), expected a table of Open Images; check --annotations-url",
        ),
        (status(500), 1, "the server answers 500 (Internal Server Error); run the same command again to continue"),
        (dropped, 1, "run the same command again to continue"),
        (half, 1, "the connection ended after"),
    ],
)
@pytest.mark.parametrize("path", ["/a/class-descriptions-boxable.csv", TRAIN_CSV])
def test_a_table_that_does_not_come_is_named(run, server, path, fault, code, message):
    server.fail(path, fault)
    # The rest of a truncated table never comes, either.
    server.ranges = False
    done = run("--retry=1")
    assert done.code == code
    assert f"{server.address}{path}: " in done.err and message in done.err
    assert not (done.root / Path(path).name).exists()
    assert server.asked(path) == (1 if code == 2 else 2)


def test_nobody_there_is_said(run, server):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        done = run(f"--annotations-url={address}", "--retry=1")
    assert done.code == 1 and f"{address}/class-descriptions-boxable.csv: " in done.err and "refused" in done.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the columns ImageID, Source"),
        (b"<html>\n<body>moved</body>\n</html>\n", "lacks the columns ImageID, Source"),
        (table(ROWS["train"], HEADER.replace("IsGroupOf", "Crowd")), "lacks the columns IsGroupOf; found 'ImageID,"),
        (table([row(A, APPLE), "half a line"]), "line 3: 1 fields, expected 13 like the header"),
        (table([row(A, APPLE), row(A, APPLE)[:-20]]), "line 3: 7 fields, expected 13"),
        (table([row(A, APPLE).replace("0.750000", "wide")]), "line 2: the corners are ['0.125000', '0.250000', 'wide'"),
        (table([row(A, APPLE).replace("0.750000", "nan")]), "line 2: the corners are"),
        (table([row("../../secret", APPLE)]), "line 2: '../../secret' is no id of an image"),
        (table([row(".hidden", APPLE)]), "line 2: '.hidden' is no id of an image"),
        (table([row(A, APPLE)]) + b"\xff\xfe\x00\x81" * 100, "cannot be read as CSV"),
        (table(['"' + row(A, APPLE)]), "cannot be read as CSV"),
    ],
)
def test_a_table_of_garbage_is_named(run, server, content, message):
    server.files[TRAIN_CSV] = content
    done = run()
    assert done.code == 2
    assert f"{done.root / 'train-annotations-bbox.csv'}: " in done.err and message in done.err
    assert not list(done.root.rglob("*.jpg")) and not list(done.root.glob("sub-*"))


def test_a_list_of_classes_of_garbage_is_named(run, server):
    server.files["/a/class-descriptions-boxable.csv"] = b"Apple\nOrange\n"
    done = run()
    assert done.code == 2
    assert "class-descriptions-boxable.csv: line 1: 1 fields, expected a class's id and its name" in done.err


def test_more_columns_in_another_order_with_mark_and_crlf_are_fine(run, server):
    reader = csv.reader(io.StringIO(table(ROWS["train"]).decode()))
    turned = [",".join([*reversed(fields), "more"]) for fields in reader]
    server.files[TRAIN_CSV] = b"\xef\xbb\xbf" + "\r\n".join([*turned, "", ""]).encode()
    done = run()
    assert ids_of(done.root) == FRUIT
    assert (done.root / "sub-train-annotations-bbox.csv").read_text().splitlines()[1:] == sorted(
        (done.root / "sub-train-annotations-bbox.csv").read_text().splitlines()[1:]
    )


# Files that others left.


@pytest.mark.parametrize("content", [b"", jpeg(A)[:200], b"<html>", jpeg(A)[:-2]])
def test_half_images_are_fetched_again(run, server, tmp_path, content):
    path = tmp_path / "data" / "train" / f"{A}.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    done = run()
    assert done.code == 0
    assert path.read_bytes() == server.files[f"/i/train/{A}.jpg"]
    assert f"fetched again, as what was there was not whole: {path} is" in done.out


def test_a_half_image_that_cannot_be_mended_is_not_trusted(run, server, tmp_path):
    path = tmp_path / "data" / "train" / f"{A}.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(jpeg(A)[:200])
    server.fail(f"/i/train/{A}.jpg", status(404))
    done = run()
    assert done.code == 1
    assert ids_of(done.root)["train"] == FRUIT["train"] - {A}


def test_an_image_that_ends_in_zeros_is_whole(run, server, tmp_path):
    path = tmp_path / "data" / "train" / f"{A}.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(jpeg(A) + bytes(100))
    assert run().code == 0
    assert server.asked(f"/i/train/{A}.jpg") == 0


@pytest.mark.parametrize("name", ["class-descriptions-boxable.csv", "train-annotations-bbox.csv"])
def test_half_tables_are_fetched_again(run, server, tmp_path, name):
    path = tmp_path / "data" / name
    path.parent.mkdir()
    whole = next(content for url, content in server.files.items() if url.endswith(name))
    path.write_bytes(whole[: len(whole) // 2])
    done = run()
    assert (done.code, path.read_bytes()) == (0, whole)
    assert f"{path}: has {len(whole) // 2} bytes, the server's has {len(whole)}: fetching it again" in done.out


def test_a_table_is_measured_without_head_too(run, server, tmp_path):
    path = tmp_path / "data" / "train-annotations-bbox.csv"
    path.parent.mkdir()
    path.write_bytes(server.files[TRAIN_CSV][:300])
    server.fail(TRAIN_CSV, status(501), method="HEAD")
    assert run().code == 0
    assert path.read_bytes() == server.files[TRAIN_CSV]


@pytest.mark.parametrize("fault", [status(404), unsized])
def test_a_table_that_cannot_be_measured_is_used(run, server, fault):
    run()
    server.fail(TRAIN_CSV, fault, method="HEAD")
    done = run()
    assert done.code == 0
    assert f"{done.root / 'train-annotations-bbox.csv'}: used as it is, its size cannot be checked" in done.out
    (done.root / "train-annotations-bbox.csv").write_bytes(b"")
    assert run().code == 0
    assert (done.root / "train-annotations-bbox.csv").read_bytes() == server.files[TRAIN_CSV]


def test_a_table_is_not_trusted_while_the_server_fails(run, server):
    run()
    server.fail(TRAIN_CSV, status(500), method="HEAD")
    done = run()
    assert done.code == 1 and f"{server.address}{TRAIN_CSV}: the server answers 500" in done.err


def test_temporary_files_of_killed_runs_are_removed(run, tmp_path):
    root = tmp_path / "data"
    for name in (f"train/.{A}.jpg.part", "test/.gone.jpg.part", ".sub-train-annotations-bbox.csv.x1.part"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"half")
    (root / "train" / ".keep").write_bytes(b"")
    done = run()
    assert "removed 3 temporary files" in done.out
    assert [name for name in contents(root) if "/." in f"/{name}"] == ["train/.keep"]


def test_the_beginning_of_a_table_goes_when_the_table_is_there(run):
    root = run().root
    (root / ".train-annotations-bbox.csv.eA.part").write_bytes(b"half")
    before = contents(root)
    assert run().code == 0
    assert set(before) - set(contents(root)) == {".train-annotations-bbox.csv.eA.part"}


def test_two_runs_do_not_share_a_folder(run, tmp_path):
    (tmp_path / "data").mkdir()
    with download.alone_in(tmp_path / "data"):
        done = run()
    assert done.code == 2 and f"{tmp_path / 'data'}: another download works in this folder" in done.err
    assert run().code == 0


# Interrupted runs.


def start(server, root, *more) -> subprocess.Popen:
    command = [sys.executable, ROOT / "open_images_downloader.py", *download_argv(server, root, *more)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, preexec_fn=heed_interrupts)


def interrupt(server, process, number, part=None) -> tuple[int, str]:
    """Send a signal when the server has begun to block and the temporary file (folder, bytes) is there.

    Gives exit code and standard error.
    """
    assert server.is_blocking.wait(SOON)
    end = time.monotonic() + SOON
    while part and [path.stat().st_size for path in part[0].glob(".*.part")] != [part[1]]:
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=SOON)
    return process.returncode, err


def test_a_run_killed_among_images_ends_as_if_undisturbed(run, server, tmp_path):
    options = ("--max-images=6", "--max-annotations-per-class=4")
    whole = contents(run(*options, root=tmp_path / "whole").root)
    last = sorted(name for name in whole if name.endswith(".jpg"))[-1]
    server.fail(f"/i/{last}", half_blocked, None)
    process = start(server, tmp_path / "data", *options, "--num-workers=1")
    code, _ = interrupt(server, process, signal.SIGKILL, (tmp_path / "data" / last.partition("/")[0], 0))
    assert code == -signal.SIGKILL
    halfway = contents(tmp_path / "data")
    assert any(name.endswith(".jpg") for name in halfway) and last not in halfway
    done = run(*options)
    assert (done.code, contents(done.root)) == (0, whole)


def test_a_run_killed_in_a_table_continues_there(run, server, tmp_path):
    filler = [row(image_id(n), BANANA) for n in range(20_000)]
    server.files[TRAIN_CSV] = table([*ROWS["train"], *filler])
    whole = contents(run(root=tmp_path / "whole").root)
    server.fail(TRAIN_CSV, half_blocked, None)
    size = len(server.files[TRAIN_CSV]) // 2 // download._CHUNK * download._CHUNK
    code, _ = interrupt(server, start(server, tmp_path / "data"), signal.SIGKILL, (tmp_path / "data", size))
    assert code == -signal.SIGKILL
    server.requests.clear()
    done = run()
    assert ("GET", TRAIN_CSV, f"bytes={size}-") in server.requests
    assert f"continuing at byte {size}" in done.out
    assert (done.code, contents(done.root)) == (0, whole)


def test_a_run_that_ends_between_two_tables_is_continued(run, monkeypatch, tmp_path):
    whole = contents(run(root=tmp_path / "whole").root)

    def interrupted(path, *others):
        if "validation" in path.name:
            raise KeyboardInterrupt
        return merge_table(path, *others)

    merge_table = tables.merge_table
    with monkeypatch.context() as patch:
        patch.setattr(tables, "merge_table", interrupted)
        done = run()
    assert done.code == 130 and {path.name for path in done.root.glob("sub-*")} == {"sub-train-annotations-bbox.csv"}
    assert run().code == 0
    assert contents(done.root) == whole


def test_ctrl_c_ends_quickly_and_the_folder_can_be_continued(run, server, tmp_path):
    whole = contents(run(root=tmp_path / "whole").root)
    server.fail(f"/i/validation/{G}.jpg", blocked, None)
    # Far longer than the test waits: nobody may wait for the silent connection.
    process = start(server, tmp_path / "data", "--timeout=3000")
    assert interrupt(server, process, signal.SIGINT) == (130, "open_images_downloader.py: interrupted\n")
    done = run()
    assert (done.code, contents(done.root)) == (0, whole)


@pytest.mark.parametrize(
    ("name", "most"), [("/.train-annotations-bbox.csv.", 900), (": a temporary file cannot be written", 100)]
)
def test_a_full_disk_is_named(run, server, name, most):
    """A limit on file sizes stands in for the full disk: first a download meets it, then a temporary file."""
    root = run("--stats-only").root
    if "train" in name:
        (root / "train-annotations-bbox.csv").unlink()
    code = (
        "import sys, resource, signal, open_images_downloader as script;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}));"
        "script.cli.run(script.main, sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *download_argv(server, root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"error: {root}{name}" in done.stderr and done.stderr.count("\n") == 1, done.stderr


# Several runs in one folder.


def test_runs_with_other_classes_add_up_in_any_order(run, server, tmp_path):
    at_once = run("--class-names=Apple,Orange,Traffic light", root=tmp_path / "at once")
    for order in (("Apple", "Orange", "Traffic light"), ("Traffic light", "Orange", "Apple")):
        root = tmp_path / order[0]
        server.requests.clear()
        for name in order:
            assert run(f"--class-names={name}", root=root).code == 0
        assert contents(root) == contents(at_once.root)
        assert server.asked(TRAIN_CSV) == 1, "the large tables are fetched once"
    assert dataset_of(at_once.root, "test").class_names == ("BACKGROUND", "Apple", "Orange", "Traffic light")


def test_tables_as_pandas_writes_them_are_merged(run, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "train").mkdir()
    (root / "train" / f"{F}.jpg").write_bytes(jpeg(F))
    kept = f"{F},xclick,/m/04,1,0.125,0.75,0.25,0.5,0,0,0,0,0,/m/04,Banana"
    known = f"{C},xclick,/m/02,1,0.125,0.75,0.25,0.5,0,0,0,0,0,/m/02,Orange"
    (root / "sub-train-annotations-bbox.csv").write_text(f"{HEADER},id,ClassName\n{kept}\n{known}\n")
    done = run()
    train = [",".join(line.values()) for line in rows_of(done.root, "train")]
    assert kept in train
    assert len(train) == 11, "a box counts once, however its numbers are written"


def test_boxes_of_earlier_runs_go_with_their_images(run):
    root = run("--class-names=Banana").root
    (root / "train" / f"{F}.jpg").unlink()
    (root / "train" / f"{B}.jpg").write_bytes(jpeg(B)[:100])
    done = run("--class-names=Orange")
    assert "1 boxes of earlier runs left out, their images are no longer there" not in done.out
    assert "2 boxes of earlier runs left out, their images are no longer there" in done.out
    assert ids_of(root)["train"] == {A, C, D}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ImageID,XMin,YMin,XMax,YMax,ClassName\n", "its columns are 'ImageID,XMin"),
        (f"{HEADER},id,ClassName\n{row(A, APPLE)}\n", "line 2: "),
        (f"{HEADER},id,ClassName\n{row(A, APPLE).replace('0.75', 'x')},/m/01,Apple\n", "line 2: "),
    ],
)
def test_a_table_of_another_kind_is_not_overwritten(run, tmp_path, text, message):
    path = tmp_path / "data" / "sub-train-annotations-bbox.csv"
    path.parent.mkdir()
    path.write_text(text)
    done = run()
    assert done.code == 2 and f"{path}: {message}" in done.err and "away" in done.err
    assert path.read_text() == text


# Resumption and patience, closer up.


BODY = bytes(range(256)) * 4096


@pytest.fixture
def big(server):
    """A server with one file of four chunks."""
    assert len(BODY) == 4 * download._CHUNK
    server.files["/big"] = BODY
    return server


@pytest.fixture
def fetcher():
    return Fetcher(timeout=SOON, retries=2, first_pause=0.001)


def ranges_asked(server):
    return [asked_range for method, path, asked_range in server.requests if path == "/big"]


@pytest.mark.parametrize("resumed_by", ["the same call", "another process"])
def test_what_was_dropped_is_continued(big, fetcher, tmp_path, resumed_by):
    big.fail("/big", half, None)
    if resumed_by == "another process":
        with pytest.raises(DownloadError, match="the connection ended after 524288 of 1048576 bytes"):
            Fetcher(retries=0).fetch(f"{big.address}/big", tmp_path / "big", resume=True)
        assert [path.stat().st_size for path in tmp_path.iterdir()] == [len(BODY) // 2]
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert ranges_asked(big) == [None, "bytes=524288-"]
    assert contents(tmp_path) == {"big": BODY}


def test_a_server_that_ignores_ranges_is_fine(big, fetcher, tmp_path):
    big.ranges = False
    big.fail("/big", half, None)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert ranges_asked(big) == [None, "bytes=524288-"]
    assert contents(tmp_path) == {"big": BODY}


def test_a_file_that_changed_meanwhile_is_started_over(big, fetcher, tmp_path):
    def changing(handler, content):
        half(handler, content)
        big.files["/big"] = BODY[::-1]

    big.fail("/big", changing, None)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert contents(tmp_path) == {"big": BODY[::-1]}


def test_a_changed_file_of_a_server_that_ignores_if_range_is_started_over(big, fetcher, tmp_path):
    def changing(handler, content):
        half(handler, content)
        big.files["/big"] = BODY[::-1]

    def careless(handler, content):
        place = {"Content-Range": f"bytes 524288-1048575/{len(content)}"}
        handler.answer(206, content[524288:], headers=place | handler.validators(content))

    big.fail("/big", changing, careless, None)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert ranges_asked(big) == [None, "bytes=524288-", None]
    assert contents(tmp_path) == {"big": BODY[::-1]}


def test_a_part_from_the_wrong_place_is_refused(big, fetcher, tmp_path):
    def misplaced(handler, content):
        handler.answer(206, content, headers={"Content-Range": "bytes 0-9/10"} | handler.validators(content))

    big.fail("/big", half, misplaced, None)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert contents(tmp_path) == {"big": BODY}


def test_a_file_that_became_shorter_is_started_over(big, fetcher, tmp_path):
    big.fail("/big", half, status(416), None)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert ranges_asked(big) == [None, "bytes=524288-", None]
    assert contents(tmp_path) == {"big": BODY}


@pytest.mark.parametrize("validators", [{}, {"ETag": 'W/"weak"'}])
def test_a_file_without_a_firm_name_is_started_over(big, fetcher, tmp_path, validators):
    def nameless(handler, content):
        handler.answer(200, content[: len(content) // 2], length=len(content), headers=validators)

    big.fail("/big", nameless, None)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert ranges_asked(big) == [None, None]
    assert contents(tmp_path) == {"big": BODY}


def test_a_date_will_do_as_a_name(big, fetcher, tmp_path):
    dated = {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}

    def first(handler, content):
        handler.answer(200, content[: len(content) // 2], length=len(content), headers=dated)

    def rest(handler, content):
        assert handler.headers["If-Range"] == dated["Last-Modified"]
        place = {"Content-Range": f"bytes 524288-1048575/{len(content)}"}
        handler.answer(206, content[524288:], headers=place | dated)

    big.fail("/big", first, rest)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert contents(tmp_path) == {"big": BODY}


def test_a_very_long_etag_only_means_starting_over(big, fetcher, tmp_path):
    def first(handler, content):
        headers = {"ETag": f'"{"x" * 500}"'}
        handler.answer(200, content[: len(content) // 2], length=len(content), headers=headers)

    big.fail("/big", first, None)
    fetcher.fetch(f"{big.address}/big", tmp_path / "big", resume=True)
    assert contents(tmp_path) == {"big": BODY}


def test_an_older_file_stays_until_the_new_one_is_whole(big, tmp_path):
    (tmp_path / "big").write_bytes(b"old")
    big.fail("/big", half)
    big.ranges = False
    with pytest.raises(DownloadError):
        Fetcher(retries=0).fetch(f"{big.address}/big", tmp_path / "big")
    assert contents(tmp_path) == {"big": b"old"}


def test_pauses_grow_up_to_a_bound_and_each_is_said(big, tmp_path):
    fetcher = Fetcher(retries=5, first_pause=1, longest_pause=6)
    pauses, notes = [], []
    fetcher._stopped.wait = pauses.append
    big.fail("/big", status(500))
    with pytest.raises(DownloadError) as caught:
        fetcher.fetch(f"{big.address}/big", tmp_path / "big", note=lambda text, *args: notes.append(text % args))
    assert pauses == [1, 2, 4, 6, 6]
    assert notes[1] == f"{caught.value}; trying again in 2 s (2 of 5)"
    assert caught.value.status == 500 and not caught.value.permanent


def test_stopping_ends_pauses_and_transfers(big, tmp_path):
    fetcher = Fetcher(timeout=SOON, retries=10, first_pause=1000, longest_pause=1000)
    big.fail("/big", status(500))
    paused = threading.Event()
    errors = []

    def work():
        try:
            fetcher.fetch(f"{big.address}/big", tmp_path / "big", note=lambda *args: paused.set())
        except DownloadError as err:
            errors.append(str(err))

    thread = threading.Thread(target=work)
    thread.start()
    assert paused.wait(SOON)
    fetcher.stop()
    thread.join(SOON)
    assert errors == [f"{big.address}/big: stopped"]
    assert not contents(tmp_path)


def test_progress_gets_chunks_and_their_number(big, fetcher, tmp_path):
    seen = []

    def progress(chunks, what, total):
        seen.append((what, total))
        for chunk in chunks:
            seen.append(len(chunk))
            yield chunk

    fetcher.fetch(f"{big.address}/big", tmp_path / "big", progress=progress)
    assert seen == [("Download", 4), *[len(BODY) // 4] * 4]


def test_threads_hand_over_results_and_errors():
    done = dict(download.in_threads(lambda n: n * n, range(50), 3))
    assert done == {n: n * n for n in range(50)}
    with pytest.raises(ZeroDivisionError):
        list(download.in_threads(lambda n: 1 // n, [3, 2, 1, 0], 2))


def test_items_are_drawn_as_needed():
    drawn = []

    def items():
        for n in range(100):
            drawn.append(n)
            yield n

    with contextlib.closing(download.in_threads(lambda n: n, items(), 2)) as results:
        next(results)
        assert len(drawn) <= 4


# Choosing, against a plain way of doing the same.


def some_boxes(count: int, images: int, classes: int):
    rng = np.random.default_rng(0)
    for image, number in zip(rng.integers(0, images, count), rng.integers(0, classes, count), strict=True):
        yield f"{image:x}", int(number)


def wanted_boxes(path, classes, boxes, **filters):
    """Boxes of a published table that has these: (id of an image, number of a class)."""
    path.write_bytes(table(row(image, f"/m/{number}") for image, number in boxes))
    return tables.WantedBoxes(path, classes, **{"include_depiction": False, "remove_overlapped": False, **filters})


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_boxes_are_counted_and_chosen(tmp_path, classes):
    boxes = list(some_boxes(300, 60, classes))
    names = {f"/m/{number}": f"class {number}" for number in range(classes)}
    by_image = {}
    for image, number in boxes:
        by_image.setdefault(image, []).append(number)
    order = sorted(by_image, key=lambda image: hashlib.blake2b(image.encode(), digest_size=8).digest())

    def expect(limit, images):
        with wanted_boxes(tmp_path / "table.csv", names, boxes) as wanted:
            limit(wanted)
            assert wanted.images() == len(images)
            assert list(wanted.image_ids()) == [image for image in by_image if image in images]
            assert wanted.boxes() == sum(len(by_image[image]) for image in images)
            kept = [(image, f"/m/{number}") for image, number in boxes if image in images]
            assert [(row[0], row[2]) for row in wanted.table_rows()] == kept
            for number, name in enumerate(names.values()):
                counts = [by_image[image].count(number) for image in images]
                assert wanted.per_class()[name] == (sum(count > 0 for count in counts), sum(counts))

    expect(lambda wanted: None, order)
    for most in (0, 1, 10, len(order) - 1, len(order), 1000):
        expect(lambda wanted, most=most: wanted.limit_images(most), order[:most])
    for limit in (1, 20, 1000):
        taken, counts = [], [0] * classes
        for image in order:
            if any(counts[number] < limit for number in by_image[image]):
                taken.append(image)
                for number in by_image[image]:
                    counts[number] += 1
        expect(lambda wanted, limit=limit: wanted.limit_boxes(limit), taken)


def test_a_table_without_a_wanted_box(tmp_path):
    with wanted_boxes(tmp_path / "table.csv", {APPLE: "Apple"}, ()) as wanted:
        assert (wanted.images(), wanted.boxes(), wanted.per_class()) == (0, 0, {"Apple": (0, 0)})
        tables.limit({"train": wanted}, 3, 3)
        assert wanted.images() == 0


@pytest.mark.parametrize(
    ("total", "sizes", "parts"),
    [
        (10, (80, 15, 5), [8, 2, 0]),
        (10, (70, 24, 6), [7, 2, 1]),
        (1, (5, 5, 5), [1, 0, 0]),
        (7, (0, 0, 9), [0, 0, 7]),
        (100, (3, 2, 1), [3, 2, 1]),
        (0, (3, 2, 1), [0, 0, 0]),
    ],
)
def test_shares(total, sizes, parts):
    assert tables.share(total, sizes) == parts


def test_memory_does_not_grow_with_the_table(tmp_path):
    """All boxes wanted, each in an image of its own."""

    def peak(count):
        tracemalloc.start()
        try:
            boxes = ((image_id(n), "apple") for n in range(count))
            with wanted_boxes(tmp_path / "t.csv", {"/m/apple": "Apple"}, boxes, remove_overlapped=True) as wanted:
                tracemalloc.reset_peak()
                assert wanted.per_class() == {"Apple": (count, count)}
                wanted.limit_boxes(count)
                assert sum(1 for _ in wanted.image_ids()) == sum(1 for _ in wanted.table_rows()) == count
                assert sum(1 for _ in tables._in_order(wanted.table_rows(), tmp_path)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(10_000) < peak(1_000) + 50_000


def test_nothing_is_left_of_the_database_however_a_program_ends(tmp_path):
    with wanted_boxes(tmp_path / "table.csv", {APPLE: "Apple"}, [("a", "1")]):
        assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
