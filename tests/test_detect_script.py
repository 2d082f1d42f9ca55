"""detect.py end to end on a few small images and videos: what it draws, lists and writes."""

import csv
import itertools
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import CLASSES, assert_refused
from PIL import Image
from torchvision import ops

import detect
from vision import cli
from vision.datasets import ReadingOptions, open_folder
from vision.datasets.images import read_image_info, read_upright
from vision.deploy import media
from vision.deploy.media import VIDEO_CODECS, Frame, Source
from vision.deploy.session import open_session
from vision.deploy.torch_session import load_net
from vision.engine import checkpoint
from vision.options.kinds import WRITTEN_FORMATS
from vision.report.drawing import draw_boxes
from vision.ssd.trained_images import TrainedImages
from vision.structures import DataError, Detections
from vision.utils.errors import error_line
from vision.utils.files import JsonListFile


def test_detection_draws_and_lists(script, sure_model, voc_root, tmp_path):
    done = script(
        detect.main,
        f"--model={sure_model}",
        f"--input={voc_root}/JPEGImages/test*.jpg",
        f"--output={tmp_path}",
        "--save-txt",
        "--threshold=0.2",
    )
    assert (done.code, done.err) == (0, "")
    entries = json.loads((tmp_path / "detections.json").read_text())
    assert len(entries) == 3
    for entry in entries:
        name = Path(entry["image"]).name
        assert (entry["width"], entry["height"]) == (96, 80)
        assert entry["detections"]
        assert all(d["score"] > 0.2 and d["class"] in CLASSES and len(d["box"]) == 4 for d in entry["detections"])
        drawn, plain = (cv2.imread(str(path)) for path in (tmp_path / name, entry["image"]))
        assert drawn.shape == plain.shape
        assert np.abs(drawn.astype(int) - plain).max() > 60
        lines = (tmp_path / name).with_suffix(".txt").read_text().splitlines()
        assert len(lines) == len(entry["detections"])
        number, *box, score = map(float, lines[0].split())
        first = entry["detections"][0]
        assert (CLASSES[int(number)], score) == (first["class"], pytest.approx(first["score"], abs=1e-5))
        x1, y1, x2, y2 = first["box"]
        assert box == pytest.approx([(x1 + x2) / 192, (y1 + y2) / 160, (x2 - x1) / 96, (y2 - y1) / 80], abs=1e-3)


def test_benchmark_says_what_each_stage_takes(script, sure_model, voc_root, tmp_path):
    argv = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages/test*.jpg", f"--output={tmp_path}")
    stages = ["read", "resize and normalize", "network", "post-processing", "draw", "write"]
    for more in ((), ("--postprocess=detectnet",)):
        done = script(detect.main, *argv, "--benchmark", *more)
        assert (done.code, done.err) == (0, "")
        times = dict(re.findall(r"^([a-z -]+?) {2,}[\d.]+ ms +([\d.]+) ms$", done.out, re.MULTILINE))
        assert list(times) == stages
        assert float(times["network"]) > 0
        assert re.search(
            r"^2 images in [\d.]+ s, [\d.]+ images/s; loading the model \([\d.]+ s\) and the ", done.out, re.M
        )
    assert "network" not in script(detect.main, *argv).out


def test_the_rate_leaves_out_loading_and_warm_up():
    left_out = "loading the model (8.00 s) and the first image (4.00 s), which warms up, are left out"
    assert detect.rate_line(6, "image", 8.0, 4.0, 0.5) == f"5 images in 0.50 s, 10.0 images/s; {left_out}"
    assert detect.rate_line(2, "frame", 8.0, 4.0, 0.5).startswith("1 frame in 0.50 s, 2.0 frames/s; loading")
    for images in (0, 1):
        assert detect.rate_line(images, "image", 8.0, 4.0, 0.0) == f"no images/s: {left_out}; more images are needed"


def test_the_clock_of_the_rate_starts_when_the_first_image_is_done(script, sure_model, voc_root, tmp_path, monkeypatch):
    times = []
    monkeypatch.setattr(detect, "rate_line", lambda *args: times.append(args) or "")
    real = Source.images

    def slow_at_first(source, paths):
        for number, frame in enumerate(real(source, paths)):
            time.sleep(0.3 if number == 0 else 0)
            yield frame

    monkeypatch.setattr(Source, "images", slow_at_first)
    argv = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages/test*.jpg", f"--output={tmp_path}", "--benchmark")
    assert script(detect.main, *argv).code == 0
    ((images, unit, loading, first, others),) = times
    assert (images, unit) == (3, "image")
    assert min(loading, others) > 0
    assert first > 0.3


def test_a_file_that_cannot_be_written_ends_detection(script, sure_model, voc_root, tmp_path, monkeypatch):
    """Files are written in a thread of their own."""

    def refuse(*_) -> None:
        raise DataError("out/a.jpg: cannot be written as .jpg")

    monkeypatch.setattr(detect.Sink, "write", refuse)
    argv = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages/test*.jpg", f"--output={tmp_path}")
    assert_refused(script(detect.main, *argv), "out/a.jpg", "cannot be written")


def found(folder: Path) -> list[dict]:
    return [d for entry in json.loads((folder / "detections.json").read_text()) for d in entry["detections"]]


def test_detection_options_have_effects(script, sure_model, voc_root, tmp_path):
    base = (
        f"--model={sure_model}",
        f"--input={voc_root}/JPEGImages/test_00000.jpg",
        f"--output={tmp_path}",
        "--threshold=0.1",
    )

    def run(*argv):
        assert script(detect.main, *base, *argv).code == 0
        return found(tmp_path)

    plain = run()
    assert {d["class"] for d in plain} == {"ball", "board"}
    scores = sorted(d["score"] for d in plain)
    # Between two scores, as those in the file are rounded.
    pairs = itertools.pairwise(scores[len(scores) // 2 :])
    middle = next((low + high) / 2 for low, high in pairs if high - low > 1e-5)
    assert len(run(f"--threshold={middle}")) == sum(d["score"] > middle for d in plain) < len(plain)
    assert len(run("--top-k=1")) == 2
    assert {d["class"] for d in run("--classes=board, cone")} == {"board"}
    assert len(run("--nms-iou-threshold=0.1")) < len(plain) < len(run("--nms-iou-threshold=0.8"))
    soft = {d["score"] for d in run("--nms-method=soft")}
    assert soft != {d["score"] for d in plain}
    (tmp_path / "detections.json").unlink()
    assert script(detect.main, *base, "--no-save-json").code == 0
    assert not (tmp_path / "detections.json").exists()


def test_detectnets_post_processing(script, sure_model, voc_root, tmp_path):
    image = voc_root / "JPEGImages" / "test_00000.jpg"
    argv = (f"--model={sure_model}", f"--input={image}", f"--output={tmp_path}", "--postprocess=detectnet")
    assert script(detect.main, *argv, "--threshold=0.1", "--clustering=0.6").code == 0
    session = open_session(checkpoint.find(sure_model))
    pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    expected = session.detect_as_detectnet(pixels, threshold=0.1, clustering=0.6)
    assert [d["score"] for d in found(tmp_path)] == pytest.approx(expected.scores.tolist(), abs=1e-6)
    assert len(expected.scores) > 0
    assert_refused(script(detect.main, *argv, "--top-k=1"), "--top-k", "--postprocess=detectnet")
    assert_refused(script(detect.main, *argv[:3], "--clustering=0.6"), "--clustering", "--postprocess=detectnet")


def test_show_opens_a_window_until_q(script, sure_model, voc_root, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: ord("q"))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: 1.0)
    monkeypatch.setattr(detect, "check_display", lambda: None)
    argv = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages", f"--output={tmp_path}")
    assert script(detect.main, *argv).code == 0
    assert shown == []
    assert script(detect.main, *argv, "--show").code == 0
    assert shown == [(80, 96, 3)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no DISPLAY")
def test_without_a_display_show_is_one_line(script, sure_model, voc_root, tmp_path, monkeypatch):
    """Before anything is opened or written; OpenCV would end the process."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    argv = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages", f"--output={tmp_path / 'out'}", "--show")
    assert_refused(script(detect.main, *argv), "--show: there is no display", "DISPLAY", "leave --show out")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no DISPLAY")
def test_a_display_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4321")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="^--show: no window can be opened here .*; leave --show out"):
        detect.check_display()
    assert not list(tmp_path.iterdir()), "a core file"


def test_an_image_stays_until_a_key_and_a_closed_window_ends(monkeypatch):
    keys, visible, shown = iter([-1, -1, ord("n"), -1, -1]), iter([0, 1, 1, 1, 0]), []
    monkeypatch.setattr(cv2, "imshow", lambda name, image: shown.append(name))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: next(keys))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: next(visible))
    window, image = detect.Window(waits=True), np.zeros((2, 2, 3), np.uint8)
    assert [window.show(image), window.show(image)] == [True, False]
    monkeypatch.setattr(cv2, "waitKey", lambda wait: -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, which: -1)
    assert detect.Window(waits=False).show(image), "an OpenCV that does not say whether the window is there"
    assert len(shown) == 3


def test_a_terminated_run_keeps_what_it_found(script, sure_model, voc_root, tmp_path, monkeypatch):
    real = JsonListFile.add

    def terminated(file, value):
        real(file, value)
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(JsonListFile, "add", terminated)
    done = script(detect.main, f"--model={sure_model}", f"--output={tmp_path}", f"--input={voc_root}/JPEGImages")
    assert done.code == 0
    assert [entry["image"] for entry in json.loads((tmp_path / "detections.json").read_text())] == [
        f"{voc_root}/JPEGImages/test_00000.jpg"
    ]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_list_is_written_as_json_writes_it(tmp_path):
    for values in ([], [1], [{"a": [1, "x"]}, {}, None]):
        with JsonListFile(tmp_path / "list.json") as file:
            for value in values:
                file.add(value)
        assert (tmp_path / "list.json").read_text() == json.dumps(values, indent=1) + "\n"


def test_names_that_differ_in_case_alone_are_two_files(tmp_path):
    """Of which a file system without case would make one."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for path in ("a/IMG.jpg", "b/img.jpg"):
        cv2.imwrite(str(tmp_path / path), np.zeros((4, 4, 3), np.uint8))
    sink = detect.Sink(tmp_path / "out", Source(f"{tmp_path}/*/*.jpg", read_upright))
    assert [path.name for path in sink.image_paths.values()] == ["IMG.jpg", "img_2.jpg"]


@pytest.mark.parametrize(
    ("frames", "seconds", "expected"),
    [(20, 0.2, 5.0), (20, 0.01, 30.0), (4, 0.5, 2.0), (20, 4.0, 0.25), (1, 0.2, 30.0)],
)
@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_live_video_lasts_as_long_as_what_it_shows(tmp_path, frames, seconds, expected, suffix):
    """Of frames that a slow net has no time for there is nothing, so the camera's rate would be too fast."""
    source = SimpleNamespace(is_video=True, is_live=True, frame_rate=30.0, text="0")
    times = iter([0.0, *(9 + seconds * number for number in range(frames))])
    with detect.Sink(tmp_path / f"live{suffix}", source, clock=lambda: next(times)) as sink:
        for number in range(frames):
            sink.write(Frame(f"0#{number}", None), np.full((48, 64, 3), number, np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / f"live{suffix}"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(expected, rel=0.01)
    assert sum(capture.read()[0] for _ in range(frames + 1)) == frames


def test_a_box_that_ends_where_the_image_does_has_four_sides():
    drawn = draw_boxes(np.zeros((40, 60, 3), np.uint8), np.float32([[0, 0, 60, 40]]), [(255, 0, 0)], [""])
    for side in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (side == [255, 0, 0]).all()


def test_an_error_of_onnxruntime_names_the_file(model_dir):
    session = open_session(model_dir / "mb1-ssd-lite.onnx")

    def fails(*_):
        raise Exception("out of everything")

    session.session = SimpleNamespace(run=fails)
    with pytest.raises(RuntimeError, match=r"mb1-ssd-lite.onnx: onnxruntime cannot run it \(out of everything\)"):
        session.run(np.zeros((1, 3, 96, 96), np.float32))


@pytest.mark.parametrize("stated", [0.0, -1.0, float("nan"), 90000.0, 0.001])
def test_frame_rates_that_no_camera_has(monkeypatch, video, caplog, stated):
    capture = SimpleNamespace(isOpened=lambda: True, get=lambda which: stated if which == cv2.CAP_PROP_FPS else 0)
    monkeypatch.setattr(cv2, "VideoCapture", lambda target: capture)
    assert Source("rtsp://camera", None).frame_rate == 30
    assert not caplog.messages, "the rate of a camera's video is measured"
    assert Source(str(video), None).frame_rate == 30
    assert caplog.messages == [f"{video}: states {stated:g} frames a second; its drawn video will have 30"]


@pytest.mark.parametrize("rate", [0.1, 25.0, 480.0, 1000.0])
@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_slow_motion_and_time_lapse_keep_their_rate(tmp_path, caplog, rate, suffix):
    source = SimpleNamespace(is_video=True, is_live=False, frame_rate=rate, text="in.mp4")
    with detect.Sink(tmp_path / f"v{suffix}", source) as sink:
        for number in range(3):
            sink.write(Frame(f"in.mp4#{number}", None), np.full((48, 64, 3), number, np.uint8))
    read = Source(str(tmp_path / f"v{suffix}"), None)
    assert read.frame_rate == pytest.approx(rate)
    assert len(list(read)) == 3
    assert not caplog.messages


@pytest.fixture
def video(tmp_path, images) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 80))
    for drawing in images["train"]:
        writer.write(cv2.cvtColor(drawing.image, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@pytest.mark.parametrize(("output", "written"), [("out", "out/clip.mp4"), ("drawn.avi", "drawn.avi")])
def test_videos_in_videos_out(script, sure_model, video, tmp_path, output, written):
    done = script(
        detect.main,
        f"--model={sure_model}",
        f"--input={video}",
        f"--output={tmp_path / output}",
        "--save-txt",
    )
    assert (done.code, done.err) == (0, "")
    capture = cv2.VideoCapture(str(tmp_path / written))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    assert sum(capture.read()[0] for _ in range(10)) == 6
    capture.release()
    entries = json.loads(((tmp_path / written).parent / "detections.json").read_text())
    assert [entry["image"].rpartition("#")[2] for entry in entries] == list("012345")
    assert len(list((tmp_path / written).parent.glob("*_[0-5].txt"))) == 6


@pytest.fixture
def stored_video(tmp_path) -> Path:
    """A video of noise, of which each frame takes about as much of the file."""
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (96, 80))
    rng = np.random.default_rng(0)
    for _ in range(20):
        writer.write(rng.integers(0, 255, (80, 96, 3), np.uint8))
    writer.release()
    return tmp_path / "v.mp4"


def test_a_video_is_read_past_its_damaged_frames(script, sure_model, stored_video, tmp_path):
    data = bytearray(stored_video.read_bytes())
    place, length = len(data) // 2, len(data) // 20
    data[place : place + length] = bytes(length)
    stored_video.write_bytes(data)
    done = script(detect.main, f"--model={sure_model}", f"--input={stored_video}", f"--output={tmp_path / 'o'}")
    assert (done.code, done.err) == (0, "")
    numbers = [
        int(entry["image"].rpartition("#")[2]) for entry in json.loads((tmp_path / "o/detections.json").read_text())
    ]
    missing = 20 - len(numbers)
    assert 0 < missing < 5
    assert numbers[0] == 0
    assert numbers[-1] == 19, "the number of a frame counts those that are missing"
    assert f"{stored_video}: {missing} of the 20 frames that it states could not be read" in done.out


def test_a_video_that_is_cut_off_says_what_is_missing(script, sure_model, video, tmp_path):
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    done = script(detect.main, f"--model={sure_model}", f"--input={video}", f"--output={tmp_path / 'o'}")
    assert (done.code, done.err) == (0, "")
    read = len(json.loads((tmp_path / "o/detections.json").read_text()))
    assert 0 < read < 6
    assert f"{video}: {6 - read} of the 6 frames that it states could not be read" in done.out


class Stream:
    """Stands for cv2.VideoCapture: gives a frame for each 1 of a pattern, and nothing for each 0 and after its end."""

    def __init__(self, pattern: str, stated: float) -> None:
        self.pattern, self.stated, self.reads = pattern, stated, 0

    def isOpened(self):
        return True

    def get(self, what):
        return self.stated if what == cv2.CAP_PROP_FRAME_COUNT else 10.0

    def read(self):
        self.reads += 1
        return self.pattern[self.reads - 1 : self.reads] == "1", np.zeros((4, 4, 3), np.uint8)

    def release(self):
        pass


@pytest.mark.parametrize(
    ("pattern", "stated", "found", "unreadable", "most_reads"),
    [
        ("11111", 5, 5, 0, 20),
        ("11011", 5, 4, 1, 20),
        ("1" + "0" * 200 + "1", 202, 2, 200, 220),  # the stated number is not reached
        ("110111", 2, 5, 1, 20),  # a number that is too small
        ("1101", -9.2e16, 3, 1, 20),  # no number, as of Matroska files that are cut off
        ("11", 1e9, 2, 10**9 - 2, 20_000),  # a damaged header
    ],
)
def test_reading_goes_on_as_long_as_frames_may_come(monkeypatch, video, pattern, stated, found, unreadable, most_reads):
    stream = Stream(pattern, stated)
    monkeypatch.setattr(cv2, "VideoCapture", lambda target: stream)
    source = Source(str(video), None)
    assert len(list(source)) == found
    assert source.unreadable == unreadable
    assert stream.reads <= most_reads


def test_a_camera_that_waits_for_each_read_ends(monkeypatch):
    stream, now = Stream("111", 0), itertools.count(step=11)
    monkeypatch.setattr(cv2, "VideoCapture", lambda target: stream)
    assert len(list(Source("rtsp://camera", None, clock=lambda: next(now)))) == 3
    assert stream.reads == 4


@pytest.mark.parametrize("suffix", [".gif", ".GIF", ".mpg", ".json"])
def test_suffixes_that_are_not_written_are_refused_by_name(script, sure_model, video, tmp_path, suffix):
    output = tmp_path / f"res{suffix}"
    argv = (f"--model={sure_model}", f"--input={video}", f"--output={output}")
    assert_refused(script(detect.main, *argv), f"--output={output}: {suffix.lower()} files are not written", ".mp4")
    assert not output.exists()
    (tmp_path / "run.json").mkdir()
    assert detect.Sink(tmp_path / "run.json", Source(str(video), None)).video_path == tmp_path / "run.json/clip.mp4"
    assert detect.Sink(tmp_path / "run.v2", Source(str(video), None)).video_path == tmp_path / "run.v2/clip.mp4"


@pytest.mark.parametrize("suffix", sorted(VIDEO_CODECS))
def test_every_video_that_can_be_named_is_written(tmp_path, video, suffix):
    with detect.Sink(tmp_path / f"out{suffix}", Source(str(video), None)) as sink:
        for number in range(5):
            sink.write(Frame(f"clip#{number}", None), np.full((48, 64, 3), 40 * number, np.uint8))
    assert len(list(Source(str(tmp_path / f"out{suffix}"), None))) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.avi", f"out{suffix}"]


@pytest.fixture
def small_files():
    """Let no file grow beyond 20 kB, as a full disk would, but for OpenCV alone to see."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", sorted(VIDEO_CODECS))
def test_a_video_that_could_not_be_written_whole_is_an_error(tmp_path, video, small_files, suffix):
    """OpenCV says nothing of it, and what it leaves is cut off."""
    output, rng = tmp_path / f"out{suffix}", np.random.default_rng(0)
    output.write_bytes(b"before")
    with pytest.raises(OSError) as caught, detect.Sink(output, Source(str(video), None)) as sink:
        for number in range(8):
            sink.write(Frame(f"clip#{number}", None), rng.integers(0, 255, (80, 96, 3), np.uint8))
    assert re.match(rf"{re.escape(str(output))}: only \d of 8 frames could be written", error_line(caught.value))
    assert output.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.avi", output.name]


def test_a_full_disk_ends_a_video_that_is_whole_so_far(script, sure_model, video, tmp_path, monkeypatch):
    free = itertools.chain([1 << 30] * 4, itertools.repeat(1 << 20))
    monkeypatch.setattr(media.shutil, "disk_usage", lambda folder: SimpleNamespace(free=next(free)))
    done = script(detect.main, f"--model={sure_model}", f"--input={video}", f"--output={tmp_path / 'o.mp4'}")
    assert_refused(done, f"{tmp_path / 'o.mp4'}: no space left on the disk", "the video ends after 4 frames")
    assert "Saved" not in done.out
    assert len(list(Source(str(tmp_path / "o.mp4"), None))) == 4


def test_a_video_that_opencv_cannot_write_leaves_nothing(tmp_path, video, monkeypatch):
    class Writer:
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *_):
            self.isOpened, self.release = (lambda: False), (lambda: None)

    monkeypatch.setattr(cv2, "VideoWriter", Writer)
    sink, refusal = detect.Sink(tmp_path / "o.webm", Source(str(video), None)), "this OpenCV cannot write .webm videos"
    with pytest.raises(DataError, match=rf"o.webm: {refusal}; try .avi"), sink:
        sink.write(Frame("clip#0", None), np.zeros((48, 64, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.avi"]


def test_cameras_are_asked_for_by_index_or_device(monkeypatch):
    asked = []

    class Camera:
        def __init__(self, target):
            asked.append(target)
            self.frames = 3

        def isOpened(self):
            return True

        def get(self, what):
            return 0.0

        def read(self):
            self.frames -= 1
            return self.frames >= 0, np.zeros((4, 4, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(media, "_check_camera", asked.append)
    for text in ("0", "/dev/video1", "rtsp://host/stream"):
        source = Source(text, read_upright)
        assert source.is_video
        assert source.total is None
        assert len(list(source)) == 3
    assert asked == ["0", 0, *["/dev/video1"] * 2, *["rtsp://host/stream"] * 2], "looked for, then opened"


def test_what_cannot_be_read_is_left_out(script, sure_model, voc_root, tmp_path):
    """Names may be of any bytes and of any length that the file system takes."""
    folder = tmp_path / "shots[1]"
    folder.mkdir()
    names = [b"a.jpg", b"caf\xe9.jpg", b"n" * 240 + b".jpg", b"z.jpg"]
    for name in names:
        shutil.copy(voc_root / "JPEGImages/test_00000.jpg", folder / os.fsdecode(name))
    (folder / "b.jpg").write_bytes(b"no image")
    done = script(detect.main, f"--model={sure_model}", f"--input={folder}", f"--output={tmp_path / 'out'}")
    assert (done.code, done.err) == (0, "")
    assert f"{folder / 'b.jpg'}: " in done.out
    assert "it is left out" in done.out
    assert "1 of 5 images could not be read" in done.out
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [os.fsencode(Path(entry["image"]).name) for entry in entries] == names
    assert all((tmp_path / "out" / os.fsdecode(name)).is_file() for name in names)
    (tmp_path / "a.jpg").write_bytes(b"no image")
    done = script(detect.main, f"--model={sure_model}", f"--input={tmp_path / 'a.jpg'}", f"--output={tmp_path / 'out'}")
    assert_refused(done, "a.jpg", "not an image of any known format")


def test_images_that_cannot_be_read_are_counted_anew_each_time(tmp_path):
    """What was left out before does not make the only good image of a few seem bad, too."""
    (tmp_path / "a.jpg").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "b.jpg"), np.zeros((8, 8, 3), np.uint8))
    source = Source(str(tmp_path), read_upright)
    for _ in range(3):
        assert [Path(frame.name).name for frame in source.images(source.paths)] == ["b.jpg"]
    assert source.unreadable == 1


def test_an_image_that_cannot_be_written_does_not_lose_what_was_found(script, sure_model, voc_root, tmp_path):
    (tmp_path / "out" / "test_00001.jpg").mkdir(parents=True)
    argv = (f"--input={voc_root}/JPEGImages/test*.jpg", f"--output={tmp_path / 'out'}", "--sheet")
    done = script(detect.main, f"--model={sure_model}", *argv)
    assert_refused(done, "test_00001.jpg")
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())) >= 2
    assert (tmp_path / "out" / "sheet.png").is_file()


def test_lines_of_images_that_become_a_video(script, sure_model, voc_root, tmp_path):
    argv = (f"--input={voc_root}/JPEGImages/test*.jpg", f"--output={tmp_path / 'a.avi'}", "--save-txt")
    assert script(detect.main, f"--model={sure_model}", *argv).code == 0
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == [f"test_0000{number}.txt" for number in range(3)]


def test_folders_and_patterns(voc_root, tmp_path, monkeypatch):
    deep = tmp_path / "tree" / "a" / "b"
    deep.mkdir(parents=True)
    shutil.copy(voc_root / "JPEGImages/test_00000.jpg", deep / "x.jpg")
    shutil.copy(voc_root / "JPEGImages/test_00000.jpg", tmp_path / "tree" / "y.jpg")
    (tmp_path / "2024").symlink_to(deep)
    monkeypatch.chdir(tmp_path)
    assert Source("tree/**/*.jpg", read_upright).total == 2
    numbered = Source("2024", read_upright)
    assert (numbered.is_live, numbered.total) == (False, 1)


@pytest.fixture
def photos(voc_root, tmp_path) -> Path:
    """Two subfolders with an image of the same name, a hidden one, and a file that is no image."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("x.jpg", "a/x.jpg", "b/x.jpg", "b/c/y.jpg", ".thumbs/x.jpg")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(voc_root / f"JPEGImages/test_0000{number % 3}.jpg", folder / name)
    (folder / "notes.txt").write_text("")
    return folder


def relative_names(source: Source) -> list[str]:
    return [path.as_posix() for path in source.relative_paths.values()]


def test_subfolders_are_read_and_kept(script, sure_model, photos, tmp_path):
    """Those of the output are not looked into: the next run would detect in its own pictures."""
    output, names = photos / "out", ["a/x.jpg", "b/c/y.jpg", "b/x.jpg", "x.jpg"]
    for _ in range(2):
        done = script(detect.main, f"--model={sure_model}", f"--input={photos}", f"--output={output}", "--save-txt")
        assert (done.code, done.err) == (0, "")
        assert "4 images, found" in done.out
        written = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.jpg"))
        assert written == names
        assert sorted(path.relative_to(output).as_posix() for path in output.rglob("*.txt")) == [
            name.replace("jpg", "txt") for name in names
        ]


def test_several_inputs_are_read_once_each(photos, monkeypatch, caplog):
    monkeypatch.chdir(photos)
    assert relative_names(Source(["x.jpg", "b", "a/x.jpg", "./b/x.jpg", "."], read_upright)) == [
        *("x.jpg", "b/c/y.jpg", "b/x.jpg", "x.jpg")
    ]
    everything = ["notes.txt", *sorted(str(path) for path in Path().glob("[ab]*")), "x.jpg"]
    assert relative_names(Source(everything, read_upright)) == ["a/x.jpg", "b/c/y.jpg", "b/x.jpg", "x.jpg"]
    assert caplog.messages == ["left out, as there is no image: notes.txt (a video is read alone)"]
    quoted = Source("*", read_upright)
    assert sorted(relative_names(quoted)) == sorted(relative_names(Source(everything, read_upright))), "as unquoted"
    sink = detect.Sink(Path("out"), Source(["x.jpg", "a/x.jpg", "b", f"{photos}/b"], read_upright))
    assert [path.as_posix() for path in sink.image_paths.values()] == [
        *("out/x.jpg", "out/x_2.jpg", "out/b/c/y.jpg", "out/b/x.jpg")
    ]


def test_one_name_in_one_subfolder_is_numbered(photos, monkeypatch):
    monkeypatch.chdir(photos)
    for name in ("one/s/x.jpg", "two/s/x.jpg"):
        Path(name).parent.mkdir(parents=True)
        shutil.copy("x.jpg", name)
    sink = detect.Sink(Path("out"), Source(["one/s", "two/s", "one/s/.."], read_upright))
    assert [path.as_posix() for path in sink.image_paths.values()] == ["out/s/x.jpg", "out/s/x_2.jpg"]


def test_inputs_that_do_not_go_together_are_one_line(photos, video, tmp_path):
    with pytest.raises(DataError, match="none.jpg: no such image, folder or video; expected an image"):
        Source([str(photos), str(tmp_path / "none.jpg")], read_upright)
    with pytest.raises(DataError, match="^0: a camera or stream is read alone"):
        Source([str(photos), "0"], read_upright)
    with pytest.raises(DataError, match="clip.avi.*holds no image; .*; a video is read alone"):
        Source([str(video), str(photos / "notes.txt")], read_upright)
    assert Source(f"{tmp_path}/*.avi", read_upright).is_video, "a glob that fits one video"
    many = [str(photos / "notes.txt")] * 9
    with pytest.raises(DataError, match="notes.txt and 6 more: holds no image"):
        Source(many, read_upright)


def test_files_of_an_earlier_run_are_counted_and_stay(script, sure_model, voc_root, tmp_path):
    def run(pattern, *more):
        done = script(detect.main, f"--model={sure_model}", f"--input={voc_root}/JPEGImages/{pattern}", output, *more)
        assert done.code == 0
        return re.findall(r"holds .*", done.out)

    output = f"--output={tmp_path / 'o'}"
    assert run("test*.jpg", "--save-txt") == []
    rest = "stay; another --output keeps runs apart"
    assert run("*0000[01].jpg", "--save-txt") == [
        f"holds 7 files from before this run: 5 will be replaced, 2 {rest}"  # two train_*.jpg are new
    ]
    for name in ("plan.pdf", "sub/a.png"):
        (tmp_path / "o" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "o" / name).touch()
    assert run("test_00000.jpg", "--no-save-json") == [
        f"holds 12 files from before this run: 1 will be replaced, 11 {rest}"
    ]
    assert len(list((tmp_path / "o").iterdir())) == 13
    (tmp_path / "o" / "detections.json").unlink()
    assert "holds 10 files" in run("test_00000.jpg", "--no-save-json")[0], "of a folder that is no run's"


def test_a_video_beside_its_output_is_no_file_of_an_earlier_run(script, sure_model, video, tmp_path):
    done = script(detect.main, f"--model={sure_model}", f"--input={video}", f"--output={tmp_path}")
    assert done.code == 0
    assert "holds" not in done.out
    assert "6 frames, found" in done.out
    assert "ms per frame" in done.out


def test_a_terminal_sees_how_long_a_video_will_take(script, sure_model, video, tmp_path, monkeypatch):
    """The bar has a number of frames to count to."""
    shown, image = [], tmp_path / "i.jpg"
    monkeypatch.setattr(cli, "progress", lambda items, *rest: shown.append(rest) or items)
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    for place in (video, image):
        assert script(detect.main, f"--model={sure_model}", f"--input={place}", f"--output={tmp_path / 'o'}").code == 0
    assert shown == [("Frames", 6), ("Images", 1)]


def test_one_suppression_over_all_classes(script, sure_model, voc_root, tmp_path):
    image = voc_root / "JPEGImages/test_00000.jpg"
    argv = (f"--model={sure_model}", f"--input={image}", f"--output={tmp_path}")

    def run(*more):
        assert script(detect.main, *argv, "--threshold=0.1", *more).code == 0
        return found(tmp_path)

    of_each, of_all = run(), run("--class-agnostic")
    assert 0 < len(of_all) < len(of_each)
    expected = open_session(sure_model).detect(read_upright(image), score_threshold=0.1, class_agnostic=True)
    assert [d["score"] for d in of_all] == pytest.approx(expected.scores.tolist(), abs=1e-6)
    boxes = torch.from_numpy(expected.boxes)
    assert (ops.box_iou(boxes, boxes) - torch.eye(len(of_all))).max() <= 0.45 + 1e-5
    assert_refused(script(detect.main, *argv, "--class-agnostic", "--nms-method=soft"), "--class-agnostic", "soft")
    done = script(detect.main, *argv, "--class-agnostic", "--postprocess=detectnet")
    assert_refused(done, "--class-agnostic", "--postprocess=detectnet")


def test_boxes_are_cut_to_their_image():
    found = Detections(np.float32([[-3, 5, 200, 70]]), np.int64([1]), np.ones(1, np.float32))
    assert detect.within(found, np.zeros((60, 100, 3), np.uint8)).boxes.tolist() == [[0, 5, 100, 60]]


def test_names_of_classes_may_have_commas():
    names = ["BACKGROUND", "Mouse", "Mouse, computer", "cat"]
    assert detect.wanted_labels("cat, Mouse, computer", names) == {2, 3}
    assert detect.wanted_labels("Mouse,cat", names) == {1, 3}
    with pytest.raises(DataError, match="--classes=cat,computer: computer is not among"):
        detect.wanted_labels("cat,computer", names)


def test_one_image_to_one_file(script, sure_model, voc_root, tmp_path):
    image = voc_root / "JPEGImages/test_00000.jpg"
    assert (
        script(detect.main, f"--model={sure_model}", f"--input={image}", f"--output={tmp_path / 'drawn.png'}").code == 0
    )
    assert cv2.imread(str(tmp_path / "drawn.png")).shape == (80, 96, 3)
    done = script(
        detect.main,
        f"--model={sure_model}",
        f"--input={image.parent}",
        f"--output={tmp_path / 'drawn.png'}",
    )
    assert_refused(done, "drawn.png", "one image cannot take the many", "name a folder")


def test_originals_are_never_overwritten(script, sure_model, voc_root, video, tmp_path):
    image = tmp_path / "in" / "a.jpg"
    image.parent.mkdir()
    shutil.copy(voc_root / "JPEGImages/test_00000.jpg", image)
    before = {path: path.read_bytes() for path in (image, video)}
    for source, output in (
        (image, image),
        (image, image.parent),
        (image.parent, image.parent),
        (video, video),
    ):
        done = script(detect.main, f"--model={sure_model}", f"--input={source}", f"--output={output}")
        assert_refused(done, "would overwrite the original", "name another folder")
    assert {path: path.read_bytes() for path in before} == before


def test_images_of_one_name_do_not_meet(script, sure_model, voc_root, tmp_path):
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        shutil.copy(voc_root / f"JPEGImages/test_0000{number}.jpg", tmp_path / folder / "x.jpg")
    cv2.imwrite(str(tmp_path / "b" / "x.png"), cv2.imread(str(tmp_path / "b" / "x.jpg")))
    done = script(
        detect.main, f"--model={sure_model}", f"--input={tmp_path}/[ab]/*", f"--output={tmp_path / 'o'}", "--save-txt"
    )
    assert done.code == 0
    written = sorted(path.name for path in (tmp_path / "o").iterdir())
    assert written == ["detections.json", "x.jpg", "x.txt", "x_2.jpg", "x_2.txt", "x_3.png", "x_3.txt"]


def test_the_sheet_shows_the_drawn_images(script, sure_model, voc_root, tmp_path):
    argv = (f"--model={sure_model}", f"--input={voc_root}/JPEGImages/test*.jpg", f"--output={tmp_path}")
    assert script(detect.main, *argv).code == 0
    assert not (tmp_path / "sheet.png").exists()
    done = script(detect.main, *argv, "--sheet", "--threshold=0.2")
    assert (done.code, done.err) == (0, "")
    assert f"Saved {tmp_path}/sheet.png" in done.out
    with_boxes = cv2.imread(str(tmp_path / "sheet.png"))
    assert with_boxes.shape[1] > 3 * (with_boxes.shape[0] - 60), "one row, with the names below and a line above"
    assert script(detect.main, *argv, "--sheet", "--threshold=1").code == 0
    without = cv2.imread(str(tmp_path / "sheet.png"))
    thirds = (np.array_split(sheet[60:], 3, axis=1) for sheet in (with_boxes, without))  # below the line of text
    assert all((one != other).any() for one, other in zip(*thirds, strict=True))


def test_the_sheet_of_a_video_lies_beside_it(script, sure_model, video, tmp_path):
    done = script(
        detect.main, f"--model={sure_model}", f"--input={video}", f"--output={tmp_path / 'o' / 'drawn.avi'}", "--sheet"
    )
    assert (done.code, done.err) == (0, "")
    height, width, _ = cv2.imread(str(tmp_path / "o" / "sheet.png")).shape
    assert width == pytest.approx(2 * height, rel=0.3), "six frames: three and three"


def test_without_images_there_is_no_sheet(script, sure_model, voc_root, tmp_path, monkeypatch):
    (tmp_path / "none").mkdir()
    argv = (f"--model={sure_model}", f"--output={tmp_path / 'o'}", "--sheet")
    assert_refused(script(detect.main, *argv, f"--input={tmp_path / 'none'}"), "holds no image")
    assert not (tmp_path / "o").exists()

    def interrupted(source):
        raise KeyboardInterrupt

    monkeypatch.setattr(Source, "__iter__", interrupted)
    assert script(detect.main, *argv, f"--input={voc_root}/JPEGImages").code == 0
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["detections.json"]


def test_the_sheet_replaces_no_image(script, sure_model, voc_root, tmp_path):
    original = tmp_path / "in" / "sheet.png"
    original.parent.mkdir()
    cv2.imwrite(str(original), cv2.imread(str(voc_root / "JPEGImages/test_00000.jpg")))
    before = original.read_bytes()
    for output in (tmp_path / "o", tmp_path / "in" / "drawn.png"):
        done = script(detect.main, f"--model={sure_model}", f"--input={original}", f"--output={output}", "--sheet")
        assert_refused(done, "--sheet: ", "sheet.png is one of the images", "another name")
    assert original.read_bytes() == before
    assert [path.name for path in original.parent.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize("kind", WRITTEN_FORMATS)
def test_suggestions_are_read_back_as_what_was_found(script, sure_model, photos, tmp_path, kind):
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", f"--save-annotations={kind}")
    done = script(detect.main, *argv, "--threshold=0.2")
    assert (done.code, done.err) == (0, "")
    assert f"Saved 4 images with suggestions for labelling: {tmp_path / 'o' / kind}" in done.out
    entries = json.loads((tmp_path / "o" / "detections.json").read_text())
    assert all(entry["detections"] for entry in entries)
    reader = open_folder("auto", tmp_path / "o" / kind, ReadingOptions(cache=False))
    assert reader.name == kind
    records = {record.digest: record for record in reader.read(reader.listed_or_all("train")).records}
    for entry in entries:
        record = records[read_image_info(Path(entry["image"])).digest]
        assert list(record.names) == [found["class"] for found in entry["detections"]]
        np.testing.assert_allclose(record.boxes, [found["box"] for found in entry["detections"]], atol=1.01)


@pytest.mark.parametrize("kind", WRITTEN_FORMATS)
def test_a_name_that_no_annotation_can_hold_is_left_out_and_said(script, sure_model, photos, tmp_path, kind):
    odd = photos / os.fsdecode(b"\xff.jpg")
    (photos / "x.jpg").rename(odd)
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", f"--save-annotations={kind}")
    done = script(detect.main, *argv, "--threshold=0.2")
    assert (done.code, done.err) == (0, "")
    (line,) = (line for line in done.out.splitlines() if "its name has bytes that are not UTF-8; rename it" in line)
    assert f": left out of {tmp_path / 'o' / kind}, " in line
    assert f"Saved 3 images with suggestions for labelling: {tmp_path / 'o' / kind}" in done.out


def test_a_corrected_annotation_stays_and_is_said(script, sure_model, photos, tmp_path):
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", "--save-annotations=yolo")
    assert script(detect.main, *argv, "--threshold=0.2").code == 0
    (tmp_path / "o/yolo/labels/x.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    done = script(detect.main, *argv, "--threshold=0.2")
    assert "4 annotations were there already, and stay as they are" in done.out
    assert (tmp_path / "o/yolo/labels/x.txt").read_text() == "0 0.5 0.5 0.1 0.1\n"


def test_an_image_that_its_exif_turns_is_written_upright(script, sure_model, voc_root, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(voc_root / "JPEGImages/test_00000.jpg") as image:
        image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    argv = (f"--model={sure_model}", f"--input={tmp_path / 'turned.jpg'}", f"--output={tmp_path / 'o'}")
    assert script(detect.main, *argv, "--save-annotations=voc").code == 0
    written = tmp_path / "o/voc/JPEGImages/turned.jpg"
    info = read_image_info(written)
    assert (info.width, info.height, info.orientation) == (80, 96, 1)


@pytest.mark.parametrize(("fps", "numbers"), [("10", [0, 2, 4]), ("5", [0, 2, 4]), ("2.5", [0, 4])])
def test_frames_for_labelling_are_few_and_differ(script, sure_model, tmp_path, fps, numbers):
    """Of a video of 10 frames a second in which each picture stands for two frames."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 80))
    rng = np.random.default_rng(0)
    for number in range(6):
        if number % 2 == 0:
            picture = cv2.resize(rng.integers(0, 255, (5, 6, 3), np.uint8), (96, 80))
        writer.write(picture)
    writer.release()
    argv = (f"--input={tmp_path / 'clip.avi'}", f"--output={tmp_path / 'o'}", "--save-annotations=coco")
    done = script(detect.main, f"--model={sure_model}", *argv, f"--save-fps={fps}")
    assert (done.code, done.err) == (0, "")
    found = sorted(path.name for path in (tmp_path / "o/coco/images").iterdir())
    assert found == [f"clip_{number:06d}.jpg" for number in numbers]


def test_a_folder_with_annotations_of_all_images_is_refused(script, sure_model, photos, tmp_path):
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", "--save-annotations=coco")
    assert script(detect.main, *argv, "--threshold=0.2").code == 0
    before = (tmp_path / "o" / "detections.json").read_text()
    assert_refused(script(detect.main, *argv), "instances_default.json: is there already", "another --output")
    assert (tmp_path / "o" / "detections.json").read_text() == before


def test_another_picture_of_the_same_name_is_refused(script, sure_model, voc_root, tmp_path):
    """Else boxes of one picture would be written for the other."""
    for number, day in enumerate(("monday", "tuesday")):
        (tmp_path / day).mkdir()
        shutil.copy(voc_root / f"JPEGImages/test_0000{number}.jpg", tmp_path / day / "x.jpg")
    argv = (f"--model={sure_model}", f"--output={tmp_path / 'o'}", "--save-annotations=yolo")
    assert script(detect.main, *argv, f"--input={tmp_path / 'monday'}").code == 0
    done = script(detect.main, *argv, f"--input={tmp_path / 'tuesday'}")
    assert_refused(done, "images/x.jpg: is there already, and is another picture")


def chosen_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "chosen.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_images_to_label_next_are_kept_with_reasons_and_suggestions(script, sure_model, photos, tmp_path):
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", "--choose=2")
    done = script(detect.main, *argv, "--threshold=0.5")
    assert (done.code, done.err) == (0, "")
    assert "4 images to choose from" in done.out
    rows = chosen_rows(tmp_path / "o")
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert all(row["reason"] for row in rows)
    entries = json.loads((tmp_path / "o/detections.json").read_text())
    assert {entry["image"] for entry in entries} == {row["image"] for row in rows}
    written = sorted(path.relative_to(tmp_path / "o/voc/JPEGImages") for path in tmp_path.glob("o/voc/**/*.jpg"))
    assert written == sorted(Path(row["image"]).relative_to(photos) for row in rows)
    first, second = (read_image_info(Path(row["image"])).digest for row in rows)
    assert first != second  # x.jpg and b/c/y.jpg hold the same picture


def test_images_that_the_model_was_trained_on_are_not_chosen(script, sure_model, photos, tmp_path):
    net = load_net(sure_model)
    seen = [photos / "x.jpg", photos / "a/x.jpg"]
    net.trained_on = TrainedImages.of(read_image_info(path).digest for path in seen)
    net.save(str(tmp_path / "seen.pth"))
    argv = (f"--model={tmp_path / 'seen.pth'}", f"--output={tmp_path / 'o'}", "--choose=4")
    done = script(detect.main, *argv, f"--input={photos}")
    assert (done.code, done.err) == (0, "")
    assert "1 image to choose from; 3 more are left out, as the model was trained on them" in done.out
    assert [row["image"] for row in chosen_rows(tmp_path / "o")] == [str(photos / "b/x.jpg")]
    done = script(detect.main, *argv, "--input", *map(str, seen))
    assert_refused(done, "--choose", "trained on all 2 images", "name others")


@pytest.mark.parametrize("kind", WRITTEN_FORMATS)
def test_false_alarms_become_images_without_objects(script, sure_model, photos, tmp_path, kind):
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", f"--save-annotations={kind}")
    done = script(detect.main, *argv, "--choose=3", "--without-objects", "--threshold=0.2")
    assert (done.code, done.err) == (0, "")
    assert all(row["reason"].startswith("false alarms: ") for row in chosen_rows(tmp_path / "o"))
    reader = open_folder("auto", tmp_path / "o" / kind, ReadingOptions(cache=False))
    assert reader.name == kind
    records = reader.read(reader.listed_or_all("train")).records
    assert [len(record.boxes) for record in records] == [0, 0, 0]


def test_frames_of_a_video_are_chosen(script, sure_model, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 80))
    rng = np.random.default_rng(0)
    for _ in range(6):
        writer.write(cv2.resize(rng.integers(0, 255, (5, 6, 3), np.uint8), (96, 80)))
    writer.release()
    argv = (f"--input={tmp_path / 'clip.avi'}", f"--output={tmp_path / 'o'}", "--choose=2", "--save-fps=5")
    done = script(detect.main, f"--model={sure_model}", *argv)
    assert (done.code, done.err) == (0, "")
    assert "3 frames to choose from" in done.out
    numbers = sorted(int(row["image"].rpartition("#")[2]) for row in chosen_rows(tmp_path / "o"))
    assert len(numbers) == 2
    assert set(numbers) < {0, 2, 4}
    found = sorted(path.name for path in (tmp_path / "o/voc/JPEGImages").iterdir())
    assert found == [f"clip_{number:06d}.jpg" for number in numbers]
    assert "2 frames, found: " in done.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--choose=2", "--postprocess=detectnet"], "--choose: needs scores below detectNet's threshold"),
        (["--choose=2", "--benchmark"], "--benchmark: --choose looks at the images twice"),
        (["--without-objects"], "--without-objects: says what --choose looks at"),
        (
            ["--choose=2", "--without-objects", "--save-txt"],
            "--save-txt: would list what --without-objects calls wrong",
        ),
        (["--choose=0"], "--choose"),
    ],
)
def test_options_that_choosing_does_not_go_with_are_refused(script, sure_model, photos, options, said):
    assert_refused(script(detect.main, f"--model={sure_model}", f"--input={photos}", *options), said)


def test_an_exported_file_cannot_choose(script, model_dir, photos, tmp_path):
    argv = (f"--model={model_dir / 'mb1-ssd-lite.onnx'}", f"--input={photos}", f"--output={tmp_path / 'o'}")
    assert_refused(script(detect.main, *argv, "--choose=2"), "--choose: an .onnx file", ".pth")
    assert not (tmp_path / "o").exists()


def test_a_damaged_image_is_named_and_others_are_chosen(script, sure_model, photos, tmp_path):
    (photos / "b/x.jpg").write_bytes(b"no image")
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", "--choose=9")
    done = script(detect.main, *argv)
    assert done.code == 0
    assert done.out.count("b/x.jpg") == 1
    assert "1 of 4 images could not be read" in done.out
    assert len(chosen_rows(tmp_path / "o")) == 3


def test_createml_images_lie_beside_their_file(script, sure_model, photos, tmp_path):
    argv = (f"--model={sure_model}", f"--input={photos}", f"--output={tmp_path / 'o'}", "--save-annotations=createml")
    assert script(detect.main, *argv, "--threshold=0.2").code == 0
    folder = tmp_path / "o/createml"
    entries = json.loads((folder / "_annotations.createml.json").read_text())
    assert sorted(entry["image"] for entry in entries) == ["a_x.jpg", "b_c_y.jpg", "b_x.jpg", "x.jpg"]
    assert {path.name for path in folder.glob("*.jpg")} == {entry["image"] for entry in entries}
