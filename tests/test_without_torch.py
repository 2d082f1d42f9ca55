"""detect.py where PyTorch is not installed: what it loads, finds and writes, and what it says of what is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from conftest import ROOT

import detect
from vision.deploy import export
from vision.deploy.torch_session import load_net
from vision.utils import processors

#: Runs detect.py as a script for each list of arguments, in a process without some packages; prints exit codes and what
#: went to standard error.
RUNS = """
import contextlib, io, json, runpy, sys
missing, *runs = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(missing))
ended = []
for argv in runs:
    sys.argv = ["detect.py", *argv]
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path("detect.py", run_name="__main__")
        except SystemExit as stop:
            ended.append([stop.code, out.getvalue(), err.getvalue()])
print(json.dumps(ended))
"""

#: Prints the packages that do not come with Python and were loaded.
LOADED = """
import sys
sys.modules["torch"] = None
import detect, vision.deploy.session, vision.evaluation.doubts, vision.report.evaluation_images
from vision.datasets import WRITERS
print(*sorted({
    name.partition(".")[0]
    for name, module in list(sys.modules.items())
    if "site-packages" in (getattr(module, "__file__", None) or "")
}))
"""


def without(missing, *runs):
    """Run detect.py without some packages: exit code, standard output and standard error of each run."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS, json.dumps([missing, *runs])], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sure_export(sure_model, tmp_path_factory) -> Path:
    """The net that sees balls everywhere, as an .onnx file."""
    path = tmp_path_factory.mktemp("export") / "sure.onnx"
    export.write(load_net(sure_model), path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A video of three frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 80))
    rng = np.random.default_rng(0)
    for _ in range(3):
        writer.write(cv2.resize(rng.integers(0, 255, (5, 6, 3), np.uint8), (96, 80)))
    writer.release()
    return path


def test_detecting_loads_nothing_that_a_device_has_no_room_for():
    done = subprocess.run([sys.executable, "-c", LOADED], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = (ROOT / "requirements-detect.txt").read_text().splitlines()
    required = {line.partition(">")[0] for line in lines if not line.startswith("#")}
    loaded = set(done.stdout.split()) - {"_distutils_hack", "_virtualenv"}
    names = {"cv2": "opencv-python", "PIL": "pillow"}
    assert {names.get(name, name) for name in loaded} == required - {"onnxruntime"}, "that is loaded with a file"


def test_the_packages_of_a_device_are_among_those_of_the_whole():
    whole = (ROOT / "requirements.txt").read_text().splitlines()
    assert set((ROOT / "requirements-detect.txt").read_text().splitlines()[1:]) < set(whole)


def test_what_is_found_and_written_is_the_same(script, sure_export, voc_root, clip, tmp_path):
    """Images, texts, JSON, annotations, sheet and video, to the last byte."""
    images = [f"--input={voc_root}/JPEGImages/test*.jpg", "--threshold=0.2"]
    runs = {
        "hard": [*images, "--save-txt", "--save-annotations=coco", "--sheet", "--benchmark"],
        "soft": [*images, "--nms-method=soft", "--top-k=20", "--save-annotations=voc"],
        "agnostic": [*images, "--class-agnostic", "--classes=board"],
        "detectnet": [*images, "--postprocess=detectnet", "--clustering=0.6"],
        "video": [f"--input={clip}", "--save-txt", "--threshold=0.2", "--save-annotations=yolo"],
    }
    model = [f"--model={sure_export}", "--device=cpu"]
    for name, argv in runs.items():
        assert script(detect.main, *model, *argv, f"--output={tmp_path / 'with' / name}").code == 0
    of_runs = [[*model, *argv, f"--output={tmp_path / 'without' / name}"] for name, argv in runs.items()]
    ended = without(["torch", "torchvision", "yaml", "matplotlib", "onnx"], *of_runs)
    assert [(code, err) for code, _, err in ended] == [(0, "")] * len(runs)
    assert "post-processing" in ended[0][1], "--benchmark"
    expected, found = (
        {
            path.relative_to(tmp_path / kind): path.read_bytes()
            for path in (tmp_path / kind).rglob("*")
            if path.is_file()
        }
        for kind in ("with", "without")
    )
    assert len(expected) > 30
    assert found == expected
    for name in runs:
        entries = json.loads((tmp_path / "without" / name / "detections.json").read_text())
        assert len(entries) == 3 and all(entry["detections"] for entry in entries), name


def test_what_is_missing_or_broken_is_one_line(sure_model, sure_export, voc_root, tmp_path):
    whole = sure_export.read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["images"], ["output0"])],
        "of another program",
        [value("images", onnx.TensorProto.FLOAT, [1, 3, 640, 640])],
        [value("output0", onnx.TensorProto.FLOAT, [1, 3, 640, 640])],
    )
    opsets = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=7), str(tmp_path / "foreign.onnx"))
    image = f"--input={voc_root}/JPEGImages/test_00000.jpg"
    output = f"--output={tmp_path / 'o'}"
    cases = [
        ([f"--model={sure_model}", image], ["sure.pth: needs PyTorch", ".onnx", "pip install torch torchvision"]),
        ([f"--model={sure_model.parent}", image], ["needs PyTorch", ".onnx"]),
        ([f"--model={tmp_path / 'half.onnx'}", image], ["half.onnx: cannot be read as an ONNX model"]),
        (
            [f"--model={tmp_path / 'foreign.onnx'}", image],
            ["foreign.onnx: has inputs ['images']", "expected ['input_0']"],
        ),
        ([f"--model={tmp_path / 'none.onnx'}", image], ["none.onnx: no such file"]),
        (
            [f"--model={sure_export}", "--input=/dev/video98"],
            ["/dev/video98: there is no such camera", "cameras here: "],
        ),
        ([f"--model={sure_export}", "--input=98"], ["98: there is no such camera (no /dev/video98)"]),
        ([f"--model={sure_export}", image, "--device=cuda"], ["--device=cuda", "--device=cpu"]),
    ]
    ended = without(["torch"], *([*argv, output] for argv, _ in cases))
    ended += without(["torch", "onnxruntime"], [f"--model={sure_export}", image, output])
    cases.append(([], ["sure.onnx: needs onnxruntime to run; pip install onnxruntime"]))
    for (code, _, err), (argv, fragments) in zip(ended, cases, strict=True):
        assert (code, err.count("\n")) == (2, 1), (argv, err)
        assert err.startswith("detect.py: error: ")
        assert all(fragment in err for fragment in fragments), err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("4,2", 4), ("", 2), ("many", 2), ("0", 2)])
def test_threads_are_those_asked_for_else_the_cores_that_may_be_used(monkeypatch, tmp_path, asked, threads):
    """Two threads of one core count once."""
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(processors, "_CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert processors.usable_processors() == threads


def test_threads_where_the_system_says_less(monkeypatch, tmp_path):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processors, "_CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    assert processors.usable_processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert processors.usable_processors() == 6
