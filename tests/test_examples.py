"""The programs in examples/ find what detect.py finds."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from conftest import ROOT

import detect
from benchmarks.exports import conditioned_net
from vision.datasets import synthetic
from vision.datasets.labels import store_labels
from vision.deploy.export import ExportOptions, write

#: Random weights amplify the last digits of a runtime's arithmetic.
SCORE_TOLERANCE, PIXEL_TOLERANCE = 1e-3, 0.1

PYTHON = ROOT / "examples" / "detect_opencv.py"
NAMES = ("BACKGROUND", "red apple", "Größe", "c")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Ten images of several shapes."""
    folder = tmp_path_factory.mktemp("images")
    sizes = [(96, 96), (120, 90), (64, 100), (301, 200), (96, 40)]
    drawings = [drawing for number, size in enumerate(sizes) for drawing in synthetic.drawings(2, number, size=size)]
    paths = [folder / f"{number}.png" for number in range(len(drawings))]
    for path, drawing in zip(paths, drawings, strict=True):
        cv2.imwrite(str(path), drawing.image[..., ::-1])
    return paths


@pytest.fixture(scope="module", params=["detectnet", "train"])
def model(request, tmp_path_factory) -> Path:
    """An export whose net answers different images differently, of each way to write a normalization."""
    net = conditioned_net("mb1-ssd", 96)
    with torch.no_grad():
        for head in net.regression_headers:  # on images of another kind its boxes would be larger than any number
            head.weight *= 0.1
    net.config = dataclasses.replace(net.config, image_mean=(120.0, 125.0, 130.0), image_std=(64.0, 62.0, 60.0))
    net.class_names, net.threshold = NAMES, 0.6
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    write(net, path, ExportOptions(input_norm=request.param))
    store_labels(path.with_name("labels.txt"), ("BACKGROUND", "names", "of", "another"))
    store_labels(path.with_name("net.labels.txt"), NAMES)
    return path


@pytest.fixture
def expected(model, images, script, tmp_path) -> list[tuple]:
    done = script(detect.main, f"--model={model}", f"--input={images[0].parent}", f"--output={tmp_path}/found")
    assert done.code in (None, 0), done.err
    entries = json.loads((tmp_path / "found" / "detections.json").read_text())
    return [(entry["image"], d["class"], d["score"], *d["box"]) for entry in entries for d in entry["detections"]]


def check(command: list, model: Path, images: list[Path], expected: list[tuple]) -> None:
    """Run an example, and compare what it prints."""
    argv = [*command, model, *images]
    done = subprocess.run(argv, capture_output=True, text=True, encoding="utf-8", check=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert {row[1] for row in rows} == set(NAMES[1:])
    assert [tuple(row[:2]) for row in rows] == [row[:2] for row in expected]
    for (_, _, score, *box), (_, _, expected_score, *expected_box) in zip(rows, expected, strict=True):
        assert float(score) == pytest.approx(expected_score, abs=SCORE_TOLERANCE)
        assert [float(side) for side in box] == pytest.approx(expected_box, abs=PIXEL_TOLERANCE)


def test_python(model, images, expected):
    check([sys.executable, PYTHON], model, images, expected)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The C++ example, compiled."""
    compiler, about = shutil.which("g++"), shutil.which("pkg-config")
    if not compiler or not about or subprocess.run([about, "--exists", "opencv4"]).returncode:
        pytest.skip("needs g++, pkg-config and OpenCV's headers: apt-get install g++ pkg-config libopencv-dev")
    found = subprocess.run([about, "--cflags", "--libs", "opencv4"], capture_output=True, text=True, check=True)
    flags = found.stdout.replace("-I", "-isystem ").split()  # warnings of OpenCV's own headers are not ours
    source, program = ROOT / "examples" / "detect_opencv.cpp", tmp_path_factory.mktemp("program") / "detect_opencv"
    subprocess.run([compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", source, "-o", program, *flags], check=True)
    return program


def test_cpp(model, images, expected, program):
    check([program], model, images, expected)


def refused(command: list, *argv: object) -> str:
    """Run an example on what it cannot use; gives its one line."""
    done = subprocess.run([*command, *argv], capture_output=True, text=True)
    assert done.returncode
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("model", ["train"], indirect=True)
@pytest.mark.parametrize("language", ["python", "cpp"])
def test_what_is_no_export_or_no_image_is_named(language, request, model, images):
    command = [sys.executable, PYTHON] if language == "python" else [request.getfixturevalue("program")]
    assert "onnx_export.py" in refused(command, images[0], images[0])
    assert f"{model}: cannot be read as an image" in refused(command, model, model)
