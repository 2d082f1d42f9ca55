"""Benchmarks run, and write the figures that they print; what the figures are is nobody's business here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import (
    bench_eval,
    bench_onnx,
    bench_pipeline,
    bench_postprocess,
    bench_train,
    depthwise,
    growth,
    nets,
    rounds,
    runtime_worker,
    runtimes,
)
from vision.structures import DataError

SMALL = ("--resolution=64", "--rounds=1")


def figures_of(script, main, path: Path, *argv) -> tuple[str, list[dict]]:
    """Run a benchmark; returns what it prints and the figures in its file."""
    done = script(main, *argv, f"--json={path}")
    assert (done.code or 0, done.err) == (0, "")
    written = json.loads(path.read_text())
    assert written["machine"].keys() == {"processor", "cores", "torch"}
    return done.out, written["figures"]


def test_samples(script, voc_root, tmp_path):
    out, figures = figures_of(
        script, bench_pipeline.main, tmp_path / "f.json", f"--data={voc_root}", "--scale-to=128x160", *SMALL
    )
    assert [figure["augmentation"] for figure in figures] == ["ssd", "light"]
    for figure in figures:
        assert figure["size"] == "128x160"
        assert min(figure["seconds"].values()) > 0
        assert len(figure["seconds"]) == 4
        plain, sample = figure["seconds"]["imread and resize"], figure["seconds"]["sample"]
        assert f"| {1000 * plain:.2f} ms | {1000 * sample:.2f} ms ({sample / plain:.2f}) |" in out


def test_training(script, voc_root, tmp_path):
    argv = (f"--data={voc_root}", "--batch-size=2", "--workers=1", "--net=sq-ssd-lite", "--augment-on=device", *SMALL)
    out, figures = figures_of(script, bench_train.main, tmp_path / "f.json", *argv)
    layouts, freed, whole, loss, memory = figures
    assert layouts["images/s"].keys() == {"contiguous", "channels last"}
    assert freed["images/s"].keys() == {"given back", "kept"}
    assert whole["images/s"].keys() == {"resident", "end to end"}
    assert whole["augment on"] == "device"
    assert 0 < loss["seconds"]["loss"] < loss["seconds"]["step"]
    assert memory["peak bytes"] > 50 << 20
    assert len(re.findall(r"ratio [\d.]+$", out, re.MULTILINE)) == 3


def test_the_rest(script, tmp_path, monkeypatch):
    path = tmp_path / "f.json"
    monkeypatch.setattr(bench_postprocess, "SIZES", ((100, 3),))
    _, (figure,) = figures_of(script, bench_postprocess.main, path, "--rounds=1")
    assert figure["seconds"].keys() == {"ours", "plain loop", "published"}
    argv = ("--images=3", "--threads", "1", *SMALL)
    _, (figure,) = figures_of(script, bench_onnx.main, path, "--net=sq-ssd-lite", *argv)
    assert figure["seconds"].keys() == {"resize and normalize", "network", "post-processing", "all"}
    argv = ("--nets", "sq-ssd-lite", "--threads", "1", *SMALL)
    _, (figure,) = figures_of(script, nets.main, path, *argv)
    assert figure["step"] > figure["latency"]["1"] > 0
    out, layers = figures_of(script, depthwise.main, path, "--net=mb1-ssd", *SMALL)
    assert len(layers) == 13
    assert "| all |" in out


def test_evaluation_ends_with_an_error_where_figures_differ(script, tmp_path, monkeypatch):
    argv = ("--images", "4", "--detections=5", "--classes=2", "--rounds=1")
    _, (figure,) = figures_of(script, bench_eval.main, tmp_path / "f.json", *argv)
    assert figure["largest difference"] < 1e-6
    right = bench_eval.by_pycocotools
    monkeypatch.setattr(bench_eval, "by_pycocotools", lambda *scene: right(*scene) + 1e-5)
    assert script(bench_eval.main, *argv).code == 1


def test_medians_are_taken_in_turns():
    calls, times = [], iter([0, 0, *(0, 5), *(0, 1), *(0, 3), *(0, 2), *(0, 4), *(0, 9)])
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = rounds.in_turns(functions, 3, clock=lambda: next(times))
    assert "".join(calls) == "abababab"
    assert found == {"a": pytest.approx(4), "b": pytest.approx(2)}


def test_growth_is_measured_and_drawn(script, voc_root, tmp_path, monkeypatch):
    for name, values in (
        ("IMAGES_AT_START", (10,)),
        ("RESOLUTIONS", (64, 96)),
        ("WORKERS", (0,)),
        ("RESOLUTION", 64),
    ):
        monkeypatch.setattr(growth, name, values)
    monkeypatch.setattr(growth, "IMAGES_EVALUATED", (2, 4))
    monkeypatch.setattr(growth, "CLASSES", (2, 3))
    monkeypatch.setattr(growth, "NETS", ("sq-ssd-lite",))
    monkeypatch.setattr(growth.startup, "SETTLING_SECONDS", 0)
    argv = (f"--plot={tmp_path / 'g.png'}", f"--data={voc_root}", "--rounds=1")
    out, figures = figures_of(script, growth.main, tmp_path / "f.json", *argv)
    assert len(figures) == 6
    for figure in figures:
        assert f"{figure['title']}, {figure['unit']} by {figure['grows']}" in out
        for line in figure["lines"].values():
            assert len(line) == (1 if figure["title"].startswith(("start", "training, ")) else 2)
            assert min(line.values()) > 0
    assert cv2.imread(str(tmp_path / "g.png")).shape == (750, 1300, 3)


#: Runtimes that take part, with versions; nobody knows the last one.
ENTRANTS = (("onnxruntime", "1"), ("OpenCV", "2"), ("none", "3"))


def test_runtimes_are_compared_and_those_that_fail_are_named(script, tmp_path, monkeypatch):
    monkeypatch.setattr(
        runtimes, "installed", lambda pythons: [runtimes.Installed(sys.executable, *one) for one in ENTRANTS]
    )
    argv = ("--nets", "sq-ssd-lite", "--images=2", "--threads", "1", "--resolution=96", "--rounds=1")
    out, (reference, opencv, unknown) = figures_of(script, runtimes.main, tmp_path / "f.json", *argv)
    assert (reference["runtime"], reference["weights"]) == ("onnxruntime 1", "random")
    assert opencv["scores"] < 1e-3
    assert 0 < opencv["alike"] == opencv["total"]
    assert min(reference["seconds"]["1"], opencv["seconds"]["1"]) > 0
    assert "KeyError" in unknown["failed"]
    assert unknown["seconds"] == {}
    assert re.search(r"\| `sq-ssd-lite` \(random\) \| [\d.e, /-]+ \| failed: KeyError: 'none' \|", out)
    assert re.search(r"\| `sq-ssd-lite` \| [\d.]+ \(1.00\) \| [\d.]+ \([\d.]+\) \|  \|", out)
    assert "left out: OpenVINO, OpenVINO, own precision, ncnn" in out


def test_interpreters_say_which_runtimes_they_have():
    found = runtimes.installed([sys.executable, sys.executable])
    assert [one.runtime for one in found] == [
        name for name in runtime_worker.RUNTIMES if name in runtime_worker.versions()
    ]
    assert {"onnxruntime", "OpenCV"} <= {one.runtime for one in found}
    with pytest.raises(DataError, match="--python=.*nothing: cannot run runtime_worker.py"):
        runtimes.installed(["/nothing"])


def test_answers_that_differ_are_seen():
    """A box that moves by a hundredth of its side, or another class, is no agreement; a runtime that ends is named."""
    scores = np.float32([[[0.1, 0.9, 0.0], [0.1, 0.0, 0.9]]])
    boxes = np.float32([[[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]]])
    assert runtimes.compare([(scores, boxes)], [(scores, boxes)]) == (0, 0, 2, 2)
    moved, other = boxes + np.float32([[[0.0, 0, 0.01, 0], [0, 0, 0, 0]]]), scores[..., [0, 2, 1]]
    assert runtimes.compare([(scores, boxes)], [(scores, moved)]) == (0, pytest.approx(0.01), 1, 2)
    assert runtimes.compare([(scores, boxes)], [(other, boxes)]) == (pytest.approx(0.9), 0, 0, 2)
    worker = runtimes.Worker.__new__(runtimes.Worker)
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    worker._process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"], **pipe)
    with pytest.raises(runtimes.RuntimeFailed, match="ended by signal 11"):
        worker.run(boxes)
    worker.close()
