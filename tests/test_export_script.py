"""onnx_export.py end to end on a small model: which checkpoint it takes, what it writes and says."""

import csv
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from conftest import CLASSES, assert_refused
from test_export import net_for

import detect
import eval_ssd
import onnx_export
from vision.datasets import synthetic
from vision.datasets.images import read_upright
from vision.deploy import jetson_commands, quantization
from vision.deploy.accuracy_check import AccuracyCheck, count_alike
from vision.deploy.export import ExportOptions, ExportRejected, write
from vision.deploy.jetpack import JETPACKS
from vision.deploy.session import OnnxSession, Session
from vision.deploy.torch_session import TorchSession, load_net
from vision.deploy.verification import image_like
from vision.engine import checkpoint
from vision.ssd.models import MODELS
from vision.ssd.weights import description_of, read_weights
from vision.structures import Annotation, DataError, Detections

NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))


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
    assert "removed" in done.out
    assert "engine: it was built from an older export" in done.out
    assert not list(folder.glob("*.engine"))


def test_the_threshold_that_a_run_measured_is_used_everywhere_unless_one_is_typed(
    script, model_dir, voc_root, tmp_path, monkeypatch
):
    measured = next(csv.DictReader(io.StringIO((model_dir / "results.csv").read_text())))["Best Threshold/val"]
    first = next(model_dir.glob("*Epoch-0*.pth"))
    assert description_of(read_weights(first))["threshold"] == float(measured)

    net = load_net(model_dir / "best.pth")
    net.threshold = 0.37
    net.save(str(tmp_path / "known.pth"))
    done = script(onnx_export.main, f"--input={tmp_path / 'known.pth'}", "--output=x.onnx", "--deepstream")
    assert (done.code, done.err) == (0, "")
    said = "threshold 0.37: the mean F1 was highest there when the model's run was validated"
    assert re.search(r"detectnet --model.* --threshold=0.37 INPUT OUTPUT\n\n\(" + re.escape(said), done.out)
    assert f"for DeepStream, {said}" in done.out
    text = (tmp_path / "x.deepstream.txt").read_text()
    assert f"# {said.partition(': ')[2]}\npre-cluster-threshold=0.37\n" in text

    used = []
    monkeypatch.setattr(Session, "detect", lambda *_, score_threshold, **__: used.append(score_threshold) or NOTHING)
    argv = (f"--input={next((voc_root / 'JPEGImages').iterdir())}", f"--output={tmp_path / 'out'}", "--device=cpu")
    for model in ("known.pth", "x.onnx"):
        done = script(detect.main, f"--model={tmp_path / model}", *argv)
        assert (done.code, used.pop()) == (0, 0.37)
        assert said in done.out
        done = script(detect.main, f"--model={tmp_path / model}", *argv, "--threshold=0.2")
        assert (done.code, used.pop()) == (0, 0.2)
        assert "threshold 0.2: as --threshold says" in done.out
    done = script(detect.main, f"--model={tmp_path / 'known.pth'}", "--resolution=128", *argv)
    assert (done.code, used.pop()) == (0, 0.5)
    assert "threshold 0.5: the default, as the model does not know which suits it" in done.out


def test_detectnet_is_told_a_threshold_that_was_typed_then_measured():
    net = net_for("mb1-ssd-lite")
    trial = SimpleNamespace(device_options=["--threshold=0.4", "--clustering=0.45"], of_new_images=True)
    typed, not_typed = (onnx_export.parse_args(argv) for argv in (["--threshold=0.2"], []))
    assert onnx_export.device_options(not_typed, net, None)[0] == []
    net.threshold = 0.3
    assert onnx_export.device_options(not_typed, net, None)[0] == ["--threshold=0.3"]
    options, why = onnx_export.device_options(not_typed, net, trial)
    assert (options, "on the images of --data" in why) == (trial.device_options, True)
    assert onnx_export.device_options(typed, net, trial)[0] == ["--threshold=0.2", "--clustering=0.45"]
    trial.of_new_images = False
    options, why = onnx_export.device_options(not_typed, net, trial)
    assert (options, "when the model's run was validated" in why) == (["--threshold=0.3", "--clustering=0.45"], True)
    assert onnx_export.device_options(typed, net, None) == (["--threshold=0.2"], "threshold 0.2: as --threshold says")


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
        (("--output=my",), "my.onnx"),
        (("--output=sub/",), "../sub/ssd-mobilenet.onnx"),
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
        (("--batch-size=2", "--input-norm=train"), [2, 3, 96, 96]),
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


def facts_of(path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def test_a_file_says_which_checkpoint_it_is_from(script, model_dir, tmp_path):
    source = model_dir / "best.pth"
    assert script(onnx_export.main, f"--input={source}", f"--output={tmp_path / 'x.onnx'}").code == 0
    facts = facts_of(tmp_path / "x.onnx")
    assert facts["checkpoint"] == "best.pth"
    assert facts["checkpoint_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert facts["size"] == "96x96"


def test_opset_and_jetpack(script, model_dir, tmp_path):
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}")
    done = script(onnx_export.main, *argv, "--opset=17")
    assert (done.code, done.err) == (0, "")
    assert "--opset=17: JetPack 4.6 will not parse it" in done.out
    assert onnx.load(str(tmp_path / "x.onnx")).opset_import[0].version == 17
    done = script(onnx_export.main, *argv, "--opset=18")
    assert "JetPack 4.6, 5, 6 will not parse it" in done.out
    assert re.findall("trtexec .*# (.*)", done.out) == ["JetPack 7"]
    done = script(onnx_export.main, *argv, "--jetpack=4.6")
    assert (done.code, done.err) == (0, "")
    assert "will not parse" not in done.out
    assert re.findall("trtexec .*", done.out) == [
        "trtexec --onnx=x.onnx --fp16 --workspace=2048 --saveEngine=x.engine   # JetPack 4.6"
    ]
    assert "needs a patch" not in done.out
    assert "needs a patch" in script(onnx_export.main, *argv, "--jetpack=6", "--opset=17").out
    assert_refused(script(onnx_export.main, *argv, "--opset=10"), "--opset", "10")
    assert_refused(script(onnx_export.main, *argv, "--jetpack=8"), "--jetpack", "8", "4.6")
    assert_refused(
        script(onnx_export.main, *argv, "--jetpack=4.6", "--opset=17"), "--opset=17", "TensorRT 8.0", "up to 13"
    )
    assert_refused(script(onnx_export.main, *argv, "--jetpack=5", "--nms"), "--nms", "TensorRT 8.4", "8.5")


def test_operators_that_a_jetpack_lacks(script, tmp_path):
    """MobileNetV3's h-swish is an operator of its own from opset 14 on."""
    spec = MODELS["mb3-ssd-lite"]
    net = spec.build(2, config=spec.config_at(96))
    net.class_names = ("BACKGROUND", "a")
    net.save(str(tmp_path / "mb3.pth"))
    argv = (f"--input={tmp_path / 'mb3.pth'}", f"--output={tmp_path / 'x.onnx'}")
    done = script(onnx_export.main, *argv, "--opset=17")
    assert "JetPack 5 from its start (TensorRT 8.4) has no HardSwish" in done.out
    assert "TensorRT 8.6" not in done.out
    done = script(onnx_export.main, *argv, "--opset=17", "--jetpack=5")
    assert done.code == 1
    assert "TensorRT 8.4 does not document the operators HardSwish" in done.err
    assert "HardSwish" not in script(onnx_export.main, *argv).out


def test_batches_that_detectnet_cannot_read(script, model_dir, tmp_path):
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}")
    assert_refused(script(onnx_export.main, *argv, "--batch-size=4"), "--batch-size", "first image", "train, raw255")
    assert_refused(script(onnx_export.main, *argv, "--batch-size=0"), "--batch-size", "neither dynamic nor")
    for option in ("--int8", "--nms", "--deepstream"):
        done = script(onnx_export.main, *argv, "--batch-size=dynamic", "--input-norm=train", option)
        assert_refused(done, f"{option}: is made for one image a run")
    done = script(onnx_export.main, *argv, "--batch-size=dynamic", "--input-norm=train")
    assert (done.code, done.err) == (0, "")
    assert "trtexec" not in done.out
    assert onnx.load(str(tmp_path / "x.onnx")).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_deepstream_has_no_deviation_per_channel(tmp_path):
    net = SimpleNamespace(config=SimpleNamespace(image_mean=(124.0, 116.0, 104.0), image_std=(58.0, 57.0, 57.5)))
    model = tmp_path / "x.onnx"
    with pytest.raises(DataError, match="--input-norm=train.*use another"):
        onnx_export.write_deepstream_config(
            model, tmp_path / "labels.txt", net, ExportOptions(input_norm="train"), None
        )


def test_all_files_measured_on_a_dataset(script, model_dir, voc_root, tmp_path):
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", f"--data={voc_root}")
    done = script(
        onnx_export.main,
        *argv,
        "--fp16",
        "--int8",
        "--nms",
        "--deepstream",
        "--calib-images=3",
        "--int8-max-drop=1",
        "--int8-exclude",
        "base_net.0",
        "regression_headers.1",
    )
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.txt",
        "x.deepstream.onnx",
        "x.deepstream.txt",
        "x.fp16.onnx",
        "x.int8.onnx",
        "x.nms.onnx",
        "x.onnx",
    ]
    table = [line.split("  ") for line in done.out.split("On the test images:\n")[1].splitlines()[1:7]]
    suited = re.fullmatch(r"x.onnx, as detectnet (--threshold=0.\d+ )?--clustering=0.45", table[3][0])
    assert suited, table
    names = ["checkpoint", "x.onnx", "x.onnx, as detectnet", suited[0], "fp16", "int8"]
    assert [line[0] for line in table if line[0]] == names
    assert "detections of the checkpoint" in done.out
    assert "finding the range of values on 3 images" in done.out
    assert "onnxruntime on images of" in done.out
    layers = quantization.layers_of(tmp_path / "x.onnx")
    left = quantization.matching(layers, ["base_net.0", "regression_headers.1"])
    assert quantization.check_quantized(tmp_path / "x.int8.onnx", left) == len(layers) - len(left)
    assert f"{len(layers) - len(left)} of {len(layers)} convolutions in 8 bits" in done.out
    assert "libnvds_infercustomparser.so" in (tmp_path / "x.deepstream.txt").read_text()
    assert "trtexec --onnx=x.int8.onnx --int8 --fp16" in done.out
    for name in ("fp16", "int8"):
        assert f"trtexec --onnx=x.{name}.onnx --saveEngine=x.{name}.engine   # TensorRT 11\n" in done.out


def test_8_bits_for_a_cpu_are_measured(script, voc_root, model_dir, tmp_path):
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", f"--data={voc_root}", "--int8=cpu")
    done = script(onnx_export.main, *argv, "--calib-images=4", "--int8-max-drop=1", "--int8-exclude", "base_net.0")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^int8-cpu +[\d.]+ ", done.out, re.MULTILINE)
    assert "trtexec --onnx=x.int8" not in done.out
    assert not (tmp_path / "x.int8.onnx").exists()
    file, plain = tmp_path / "x.int8-cpu.onnx", tmp_path / "x.onnx"
    assert file.stat().st_size < 0.6 * plain.stat().st_size
    model = onnx.load(str(file))
    zero_points = {tensor.name: onnx.numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer}
    activations = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {str(zero_points[node.input[2]]) for node in activations} == {"uint8"}
    convolutions = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    in_float = [name for name, node in convolutions.items() if made_by.get(node.input[1]) != "DequantizeLinear"]
    assert in_float == [name for name in convolutions if "base_net.0/" in name]
    exact, found = OnnxSession(plain), OnnxSession(file)
    assert (found.class_names, found.size) == (exact.class_names, exact.size)
    image = read_upright(voc_root / "JPEGImages/test_00000.jpg")
    inputs = exact.transform(image)[None]
    assert np.abs(exact.run(inputs)[0] - found.run(inputs)[0]).mean() < 0.05


def test_eight_bits_without_a_dataset_to_measure_on(script, model_dir, voc_root, tmp_path):
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", "--int8")
    done = script(onnx_export.main, *argv, f"--calib-data={voc_root / 'JPEGImages'}", "--calib-images=2")
    assert (done.code, done.err) == (0, "")
    assert "what it costs is not known" in done.out
    done = script(onnx_export.main, *argv, f"--calib-data={voc_root}", "--calib-images=1")
    assert (done.code, done.err) == (0, "")
    before = (tmp_path / "x.onnx").read_bytes()
    (tmp_path / "empty").mkdir()
    (tmp_path / "clip.avi").touch()
    for name, why in (
        ("empty", "holds no image"),
        ("none", "no such image"),
        ("clip.avi", "cannot be opened"),
    ):
        assert_refused(script(onnx_export.main, *argv, f"--calib-data={tmp_path / name}"), name, why)
    shutil.copytree(voc_root / "JPEGImages", tmp_path / "some")
    (tmp_path / "some" / "a.jpg").write_bytes(b"no image")
    done = script(onnx_export.main, *argv, f"--calib-data={tmp_path / 'some'}", "--calib-images=4")
    assert (done.code, done.err) == (0, "")
    assert "a.jpg: not an image of any known format" in done.out
    assert (tmp_path / "x.onnx").read_bytes() == before
    assert_refused(script(onnx_export.main, *argv), "--int8: needs images", "--calib-data")
    assert_refused(script(onnx_export.main, *argv, f"--data={voc_root}", "--opset=11"), "--int8: needs opset 13")
    done = script(onnx_export.main, *argv, f"--data={voc_root}", "--calib-images=1", "--int8-exclude", "backbone")
    assert_refused(done, "--int8-exclude", "'backbone' is in no layer's name", "/Conv")
    for option in ("--calib-data=x", "--calib-images=3", "--int8-exclude=x", "--int8-max-drop=0.1"):
        name = option.partition("=")[0]
        assert_refused(script(onnx_export.main, *argv[:2], option), f"{name}: belongs to --int8")


def test_calibration_feeds_what_the_device_feeds(monkeypatch, script, model_dir, voc_root, tmp_path):
    seen = []
    quantize = quantization.quantize
    monkeypatch.setattr(
        quantization, "quantize", lambda a, b, inputs: quantize(a, b, seen.extend(i := list(inputs)) or i)
    )
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", "--int8", "--calib-images=2")
    for norm, largest in (("detectnet", 1), ("raw255", 255)):
        seen.clear()
        done = script(onnx_export.main, *argv, f"--calib-data={voc_root}", f"--input-norm={norm}")
        assert done.code == 0
        assert [values.shape for values in seen] == [(1, 3, 96, 96)] * 2
        assert largest / 2 < max(np.abs(values).max() for values in seen) <= largest


def test_a_file_that_loses_accuracy_is_rejected(monkeypatch, script, model_dir, voc_root, tmp_path):
    """Also where parity has not seen it."""
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", f"--data={voc_root}")
    monkeypatch.setattr(onnx_export, "AP_TOLERANCE", -0.5)  # this net has no accuracy to lose
    done = script(onnx_export.main, *argv)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "x.onnx has an AP50 of" in done.err
    assert "x.onnx.rejected, do not use it" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx.rejected"]


def test_what_is_lost_is_of_the_checkpoint():
    boxes, labels = np.float32([[10, 10, 50, 50]]), np.int64([1])
    image = np.zeros((60, 60, 3), np.uint8)
    net = MODELS["mb1-ssd-lite"].build(2, config=MODELS["mb1-ssd-lite"].config_at(96))
    net.class_names = ("BACKGROUND", "a")
    trial = AccuracyCheck(lambda: [(image, Annotation(boxes, labels, np.array([False]), (60, 60)))] * 2, 2, net)
    found = Detections(torch.from_numpy(boxes), torch.from_numpy(labels), torch.ones(1))
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    once = iter([found, nothing])
    trial.measure({"checkpoint": lambda _: found, "same": lambda _: found, "worse": lambda _: next(once)})
    trial.hold("same", 0.0)
    lost = 1 - trial.reports["worse"].coco.ap_50
    assert 0.4 < lost < 0.6
    shifted = Detections(found.boxes + torch.tensor([0.0, 0, 8, 0]), found.labels, found.scores)  # an overlap of 0.83
    trial.measure({"shifted": lambda _: shifted})
    assert trial.reports["shifted"].coco.ap_50 == 1
    with pytest.raises(ExportRejected, match=r"an AP50 of 1.0000 and an AP of 0\.7000, the checkpoint has 1"):
        trial.hold("shifted", 0.2)
    trial.hold("worse", lost + 0.01)
    with pytest.raises(
        ExportRejected,
        match=r"worse has an AP50 of 0\.\d+ and .*, the checkpoint has 1\.0000 and 1\.0000; allowed .* 0\.3",
    ):
        trial.hold("worse", 0.3)
    assert [line.split()[:2] for line in trial.table()[1:3]] == [["checkpoint", "1.0000"], ["same", "1.0000"]]
    assert trial.pixels(5).shape == (2, 3, 96, 96)
    with pytest.raises(DataError, match="--data: none of its test images can be read"):
        AccuracyCheck(lambda: [], 2, net).pixels(5)


def test_a_threshold_that_spares_false_boxes_is_suggested(tmp_path, monkeypatch):
    """AP hardly sees them: those below the objects' scores cost it nothing."""
    net = net_for("mb1-ssd-lite")
    write(net, tmp_path / "net.onnx")
    image = np.zeros((100, 100, 3), np.uint8)
    annotation = Annotation(np.float32([[10, 10, 50, 50]]), np.int64([1]), np.array([False]), (100, 100))
    boxes = torch.tensor([[10.0, 10, 50, 50], [60, 60, 70, 70], [80, 80, 95, 95]])
    all_found = Detections(boxes, torch.ones(3, dtype=torch.int64), torch.tensor([0.9, 0.57, 0.55]))
    given = []

    def detect(self, image, threshold=0.5, **options):
        given.append(options)
        kept = all_found.scores >= threshold
        return Detections(*(values[kept] for values in all_found))

    for session in (OnnxSession, TorchSession):
        monkeypatch.setattr(session, "detect_as_detectnet", detect)
    trial = AccuracyCheck(lambda: [(image, annotation)], 1, net)
    trial.measure({"checkpoint": lambda _: all_found, "net.onnx": lambda _: all_found})
    trial.measure_on_device(tmp_path / "net.onnx", "net.onnx")
    assert trial.device_options == ["--threshold=0.7", "--clustering=0.45"]
    f1s = [line.split()[-2:] for line in trial.table()[1:]]
    assert f1s == [["1.0000", "0.70"], ["1.0000", "0.70"], ["0.5000", "0.50"], ["1.0000", "0.70"]]
    trial.measure_on_device(tmp_path / "net.onnx", "net.onnx", across_classes=True)
    assert [options.get("across_classes", False) for options in given] == [False] * 3 + [True] * 3


def test_options_that_find_more_on_the_device(tmp_path, monkeypatch):
    """Boxes that detectNet's own settings leave side by side count as false; joined they do not."""
    net = net_for("mb1-ssd-lite")
    write(net, tmp_path / "net.onnx")
    image = np.zeros((100, 100, 3), np.uint8)
    annotation = Annotation(np.float32([[10, 10, 50, 50]]), np.int64([1]), np.array([False]), (100, 100))
    box = torch.tensor([[10.0, 10, 50, 50]])
    once, twice = (
        Detections(b, torch.ones(len(b), dtype=torch.int64), torch.ones(len(b)) * 0.9)
        for b in (box, box.repeat(2, 1) + torch.tensor([[40.0, 0, 40, 0], [0, 0, 0, 0]]))
    )
    for found, expected in ((twice, ["--threshold=0.4", "--clustering=0.45"]), (once, [])):
        trial = AccuracyCheck(lambda: [(image, annotation)], 1, net)
        trial.measure({"checkpoint": lambda _: once, "net.onnx": lambda _: once})
        given = []

        def detect(self, image, found=found, given=given, **options):
            given.append(options)
            return once if options else found

        for session in (OnnxSession, TorchSession):
            monkeypatch.setattr(session, "detect_as_detectnet", detect)
        trial.measure_on_device(tmp_path / "net.onnx", "net.onnx")
        assert given == [{}, {"threshold": 0.4, "clustering": 0.45}, {}]
        assert trial.device_options == expected
        command = jetson_commands.detectnet_command(
            tmp_path / "net.onnx", tmp_path / "labels.txt", trial.device_options
        )
        assert ("--clustering" in command) == bool(expected)


def test_detections_that_are_alike():
    boxes = torch.tensor([[0.0, 0, 100, 100], [50, 50, 90, 90], [200, 200, 240, 240]])
    expected = Detections(boxes, torch.tensor([1, 2, 1]), torch.ones(3))
    moved = boxes + torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [4, 0, 0, 0]])
    assert count_alike(Detections(moved, torch.tensor([1, 2, 1]), torch.ones(3)), expected) == 2
    assert count_alike(Detections(boxes, torch.tensor([1, 1, 1]), torch.ones(3)), expected) == 2
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert count_alike(nothing, expected) == count_alike(expected, nothing) == 0


def test_vgg_on_a_device_needs_its_normalization(tmp_path):
    """Its plain export, as it was always made, sees a grey image instead; the check has to tell."""
    net = net_for("vgg16-ssd")
    pixels = [image.permute(1, 2, 0).numpy().copy() for image in image_like(2, (200, 160))]
    annotation = Annotation(np.float32([[10, 10, 50, 50]]), np.int64([1]), np.array([False]), (200, 160))
    trial = AccuracyCheck(lambda: [(image, annotation) for image in pixels], 2, net)
    write(net, tmp_path / "net.onnx")
    trial.measure_plain(tmp_path / "net.onnx", "net.onnx")
    alike, total = trial.measure_on_device(tmp_path / "net.onnx", "net.onnx")
    assert alike == total > 10
    write(net, tmp_path / "naive.onnx", ExportOptions(input_norm="train"))
    trial.measure_plain(tmp_path / "naive.onnx", "naive.onnx")
    with pytest.raises(ExportRejected, match=f"of {total} detections .* naive.onnx has "):
        trial.measure_on_device(tmp_path / "naive.onnx", "naive.onnx")


def test_a_dataset_of_other_classes_cannot_measure(script, model_dir, tmp_path, voc_root):
    other = tmp_path / "data"
    shutil.copytree(voc_root, other)
    for path in (other / "Annotations").iterdir():
        path.write_text(re.sub("<name>.*?</name>", "<name>zebra</name>", path.read_text()))
    (other / "labels.txt").unlink(missing_ok=True)
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", f"--data={other}")
    assert_refused(script(onnx_export.main, *argv), "no object is of a class that the model knows")


def test_traps_of_labels():
    assert jetson_commands.label_traps(("BACKGROUND", "newspaper", "n0", "cat", "a void")) == []
    traps = jetson_commands.label_traps(("BACKGROUND", "newspaper stand", "void", "x" * 512))
    assert len(traps) == 3
    assert "'newspaper stand': detectnet shows it as 'stand'" in traps[0]
    assert "'void': detectnet never reports it" in traps[1]
    assert "longer than the 510 bytes" in traps[2]


def test_labels_that_detectnet_misreads_are_named(script, tmp_path):
    net = MODELS["mb1-ssd-lite"].build(2, config=MODELS["mb1-ssd-lite"].config_at(96))
    net.class_names = ("BACKGROUND", "newspaper stand")
    net.save(str(tmp_path / "x.pth"))
    done = script(onnx_export.main, f"--input={tmp_path / 'x.pth'}")
    assert done.code == 0
    assert "'newspaper stand': detectnet shows it as 'stand'" in done.out


def test_engines_of_older_exports_go(tmp_path):
    model = tmp_path / "a[1].onnx"
    stale = ["a[1].onnx.1.1.8502.GPU.FP16.engine", "a[1].onnx.sha256sum"]
    for name in (*stale, "a1.onnx.1.1.8502.GPU.FP16.engine", "a[1].onnx", "mine.engine"):
        (tmp_path / name).touch()
    assert [path.name for path in jetson_commands.remove_engines(model)] == stale
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a1.onnx.1.1.8502.GPU.FP16.engine",
        "a[1].onnx",
        "mine.engine",
    ]


def test_commands_of_jetpacks_that_are_alike_are_said_once(tmp_path):
    lines = jetson_commands.trtexec_lines(tmp_path / "my net.onnx", list(JETPACKS))
    assert [line.split("# ")[1] for line in lines] == ["JetPack 4.6", "JetPack 5, 6, 7"]
    assert "--onnx='my net.onnx' --fp16" in lines[0]
    assert [jetpack.joins_across_classes for jetpack in JETPACKS.values()] == [True, False, False, False]
    line = jetson_commands.tensorrt_11_line(tmp_path / "my net.fp16.onnx")
    assert line.endswith("/trtexec --onnx='my net.fp16.onnx' --saveEngine='my net.fp16.engine'   # TensorRT 11")


def test_the_command_for_detectnet_names_files_as_they_were_named():
    command = jetson_commands.detectnet_command(Path("models/fruit/a b.onnx"), Path("models/fruit/labels.txt"))
    assert command.startswith("detectnet '--model=models/fruit/a b.onnx' --labels=models/fruit/labels.txt ")


def test_other_kinds_of_files_are_not_written(script, model_dir):
    for name in ("fruit.engine", "best.pth"):
        before = (model_dir / "best.pth").read_bytes()
        done = script(onnx_export.main, f"--model-dir={model_dir}", f"--output={name}")
        assert_refused(done, f"--output={name}", "expected a folder, or the name of an .onnx file")
        assert (model_dir / "best.pth").read_bytes() == before


def test_the_proof_holds_out_the_images_that_the_run_did(script, model_dir, tmp_path):
    synthetic.write_voc(tmp_path / "voc", {"train": synthetic.drawings(10, 0, size=(96, 80))})
    argv = (f"--input={model_dir / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", f"--data={tmp_path / 'voc'}")
    for more, held_out in ((("--val-split=0.5",), 5), ((), 2)):
        assert f" {held_out} images, objects: " in script(onnx_export.main, *argv, *more).out
    for path in (tmp_path / "voc" / "Annotations").iterdir():
        path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    assert_refused(script(onnx_export.main, *argv), "no object is of a class that the model knows and not difficult")
