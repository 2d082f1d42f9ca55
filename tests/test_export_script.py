"""onnx_export.py end to end on a small model: which checkpoint it takes, what it writes and says."""

import json
import re
import shutil

import onnx
import pytest
from conftest import CLASSES, assert_refused

import detect
import eval_ssd
import onnx_export
from vision.engine import checkpoint
from vision.ssd.models import MODELS


def test_export_takes_the_best_and_names_the_command(script, model_dir, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_dir, folder)
    (folder / "mb1-ssd-lite.onnx").unlink()
    (folder / "mb1-ssd-lite.onnx.1.1.8502.GPU.FP16.engine").touch()
    done = script(onnx_export.main, f"--model-dir={folder}")
    assert (done.code, done.err) == (0, "")
    assert "best checkpoint of" in done.out
    command = re.search(r"detectnet --model.*", done.out)[0]
    for word in (
        f"--model={folder}/mb1-ssd-lite.onnx",
        f"--labels={folder}/labels.txt",
        "--input-blob=input_0",
        "--output-cvg=scores",
        "--output-bbox=boxes",
    ):
        assert word in command
    assert "engine was built from an older export" in done.out


def test_a_file_for_other_runtimes_has_no_detectnet_command(script, model_dir, tmp_path):
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}")
    done = script(onnx_export.main, *argv, "--input-norm=raw255")
    assert done.code == 0
    assert "this file is not for it" in done.out
    assert "detectnet --model" not in done.out
    facts = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "x.onnx")).metadata_props}
    assert json.loads(facts["normalisation"])["std"] == 1.0
    assert_refused(script(onnx_export.main, *argv, "--input-norm=bgr"), "--input-norm", "bgr", "raw255")


def test_labels_beside_an_export_are_those_of_the_model(script, model_dir, tmp_path):
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}")
    (tmp_path / "labels.txt").write_text("ball\nboard\ncone\nstar\n")
    done = script(onnx_export.main, *argv)
    assert done.code == 0
    assert (tmp_path / "labels.txt").read_text() == "ball\nboard\ncone\nstar\n"
    assert (tmp_path / "x.labels.txt").read_text().split() == ["BACKGROUND", *CLASSES]
    assert f"--labels={tmp_path}/x.labels.txt" in done.out


def test_the_best_of_a_folder_is_of_the_net_asked_for(script, model_dir, voc_root, tmp_path):
    shutil.copy(next(model_dir.glob("*Epoch-1*")), tmp_path / "mb1-ssd-lite-Epoch-1-Loss-9.0.pth")
    other = MODELS["mb1-ssd"].build(5, config=MODELS["mb1-ssd"].config_at(96))
    other.class_names = ("BACKGROUND", *CLASSES)
    other.save(str(tmp_path / "mb1-ssd-Epoch-0-Loss-0.1.pth"))
    for main, argv in (
        (eval_ssd.main, (f"--model={tmp_path}", f"--data={voc_root}", f"--eval-dir={tmp_path / 'e'}")),
        (detect.main, (f"--model={tmp_path}", f"--input={voc_root}/JPEGImages", f"--output={tmp_path / 'o'}")),
        (onnx_export.main, (f"--input={tmp_path}",)),
    ):
        done = script(main, *argv, "--net=mb1-ssd-lite")
        assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("argv", "written"),
    [
        ((), "ssd-mobilenet.onnx"),
        (("--net=mb1-ssd",), "mb1-ssd.onnx"),
        (("--net=ssd-mobilenet",), "ssd-mobilenet.onnx"),
        (("--output=my.onnx",), "my.onnx"),
        (("--output=sub/my.onnx",), "../sub/my.onnx"),
    ],
)
def test_names_of_exported_files(script, tmp_path, monkeypatch, argv, written):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    net = MODELS["mb1-ssd"].build(2, config=MODELS["mb1-ssd"].config_at(96))
    net.class_names = ("BACKGROUND", "a")
    net.save(str(folder / checkpoint.file_name("mb1-ssd", 0, 1.0)))
    done = script(onnx_export.main, "--model-dir=model", *argv)
    assert (done.code, done.err) == (0, "")
    assert (folder / written).resolve().is_file()


def input_shape(path) -> list[int]:
    return [dim.dim_value for dim in onnx.load(str(path)).graph.input[0].type.tensor_type.shape.dim]


def test_export_options_reach_the_file(script, model_dir, tmp_path):
    source = model_dir / "best.pth"
    for argv, shape in (
        ((), [1, 3, 96, 96]),
        (("--batch-size=2",), [2, 3, 96, 96]),
        (("--width=128", "--height=96"), [1, 3, 96, 128]),
        (("--resolution=128x96",), [1, 3, 96, 128]),
    ):
        done = script(onnx_export.main, f"--input={source}", f"--output={tmp_path / 'x.onnx'}", *argv)
        assert (done.code, done.err) == (0, "")
        assert input_shape(tmp_path / "x.onnx") == shape
    assert "was trained at 96x96" in done.out
    done = script(
        onnx_export.main,
        "--input=best.pth",
        f"--model-dir={model_dir}",
        f"--output={tmp_path / 'y.onnx'}",
        "--net=mb1-lite-ssd",
    )
    assert done.code == 0


def test_export_passes_over_checkpoints_of_other_class_counts(script, model_dir, tmp_path):
    net = MODELS["mb1-ssd-lite"].build(3, config=MODELS["mb1-ssd-lite"].config_at(96))
    net.class_names = ("BACKGROUND", "x", "y")
    net.save(str(tmp_path / "mb1-ssd-lite-Epoch-0-Loss-5.0.pth"))
    shutil.copy(next(model_dir.glob("*Epoch-1*")), tmp_path / "mb1-ssd-lite-Epoch-1-Loss-1.0.pth")
    (tmp_path / "two.txt").write_text("x\ny\n")
    done = script(onnx_export.main, f"--model-dir={tmp_path}", "--labels=two.txt")
    assert (done.code, done.err) == (0, "")
    assert "Loss-5.0" in done.out
