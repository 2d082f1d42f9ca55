"""eval_ssd.py end to end on a few small images: scores, reports, options, where class names come from."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import CLASSES, assert_refused

import detect
import eval_ssd
import onnx_export
from vision.ssd.models import MODELS


def test_evaluation_prints_both_aps_and_writes_reports(script, model_dir, voc_root, tmp_path):
    done = script(eval_ssd.main, f"--trained_model={model_dir}", f"--dataset={voc_root}", f"--eval-dir={tmp_path}")
    assert (done.code, done.err) == (0, "")
    assert "Average Precision Per-class:\nball: " in done.out
    assert re.search(r"^Average Precision Across All Classes: \S+$", done.out, re.M)
    assert re.search(r"class +objects +AP \(11-point\) +AP \(area\)", done.out)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [entry["name"] for entry in report["classes"]] == list(CLASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["report.json", *(f"det_test_{name}.txt" for name in CLASSES)]
    )


def headline(done) -> float:
    return float(re.search(r"Across All Classes: (\S+)", done.out)[1])


def test_evaluation_options_have_effects(script, model_dir, voc_root, tmp_path, monkeypatch):
    seen = []

    def record(self, image, **options):
        seen.append((options["nms_method"], options["iou_threshold"]))
        return type(self).detect_really(self, image, **options)

    from vision.deploy.session import TorchSession

    monkeypatch.setattr(TorchSession, "detect_really", TorchSession.detect, raising=False)
    monkeypatch.setattr(TorchSession, "detect", record)
    thresholds = []
    real = eval_ssd.evaluate

    def evaluate(found, annotations, names, iou_threshold):
        thresholds.append(iou_threshold)
        report = real(found, annotations, names, iou_threshold)
        faked = [replace(c, ap_2007=0.25, ap_area=0.75) for c in report.classes]
        return type(report)(tuple(faked))

    monkeypatch.setattr(eval_ssd, "evaluate", evaluate)
    argv = (f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", "--device=cpu")
    assert headline(script(eval_ssd.main, *argv)) == 0.25
    assert headline(script(eval_ssd.main, *argv, "--use-2007-metric=false", "--iou-threshold=0.7")) == 0.75
    assert thresholds == [0.5, 0.7]
    script(eval_ssd.main, *argv, "--nms-method=soft", "--nms-iou-threshold=0.3")
    assert seen[0] == ("hard", 0.45)
    assert seen[-1] == ("soft", 0.3)


def test_the_onnx_file_scores_what_its_checkpoint_scores(script, model_dir, voc_root, tmp_path):
    maps = [
        headline(script(eval_ssd.main, f"--model={model}", f"--data={voc_root}", f"--eval-dir={tmp_path}"))
        for model in (model_dir / "best.pth", model_dir / "mb1-ssd-lite.onnx")
    ]
    assert maps[0] == pytest.approx(maps[1], abs=0.002)


def test_a_checkpoint_copied_away_alone_needs_no_options(script, model_dir, voc_root, tmp_path):
    alone = tmp_path / "alone" / "copied.pth"
    alone.parent.mkdir()
    shutil.copy(model_dir / "best.pth", alone)
    image = next((voc_root / "JPEGImages").iterdir())
    for main, argv in (
        (eval_ssd.main, (f"--model={alone}", f"--data={voc_root}", f"--eval-dir={tmp_path / 'eval'}")),
        (onnx_export.main, (f"--input={alone}",)),
        (detect.main, (f"--model={alone}", f"--input={image}", f"--output={tmp_path / 'out'}")),
    ):
        done = script(main, *argv)
        assert (done.code, done.err) == (0, "")
    assert (alone.parent / "mb1-ssd-lite.onnx").is_file()
    assert (alone.parent / "labels.txt").read_text().split() == ["BACKGROUND", *CLASSES]


def test_a_file_of_upstreams_kind_takes_labels_beside_it_or_named(script, model_dir, voc_root, tmp_path):
    net = MODELS["mb1-ssd-lite"].build(5, config=MODELS["mb1-ssd-lite"].config_at(96))
    torch.save(dict(net.state_dict()), tmp_path / "plain.pth")
    argv = (
        f"--model={tmp_path / 'plain.pth'}",
        f"--data={voc_root}",
        f"--eval-dir={tmp_path / 'e'}",
        "--resolution=96",
    )
    assert_refused(script(eval_ssd.main, *argv), "labels.txt")
    (tmp_path / "names.txt").write_text("a\nb\n")
    assert_refused(
        script(eval_ssd.main, *argv, f"--labels={tmp_path / 'names.txt'}"),
        "names 3 classes",
        "the model has 5",
    )
    shutil.copy(voc_root / "labels.txt", tmp_path / "names.txt")
    assert script(eval_ssd.main, *argv, f"--label-file={tmp_path / 'names.txt'}").code == 0
    shutil.copy(model_dir / "labels.txt", tmp_path / "labels.txt")
    assert script(eval_ssd.main, *argv).code == 0


def test_names_in_a_file_yield_to_those_in_the_checkpoint(script, model_dir, voc_root, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
    done = script(
        eval_ssd.main,
        f"--model={model_dir}",
        f"--data={voc_root}",
        f"--eval-dir={tmp_path}",
        f"--labels={tmp_path / 'names.txt'}",
    )
    assert "using the model's" in done.out
    assert "\nball: " in done.out
