"""eval_ssd.py end to end on a few small images: scores, reports, options, where class names come from."""

import contextlib
import csv
import io
import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import CLASSES, assert_refused
from matplotlib.axes import Axes
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import detect
import eval_ssd
import onnx_export
import plot_logs
import vision.evaluation.report
from vision.datasets import open_dataset
from vision.deploy import session
from vision.deploy.session import GPU_PROVIDERS, open_runtime, open_session
from vision.engine.loop import EpochResult, MeanLosses
from vision.evaluation import Evaluation
from vision.evaluation.metrics import COLUMNS, CURVES, METRICS, PRINTED, class_table
from vision.report.evaluation_files import write_files, write_voc_files
from vision.report.evaluation_page import write_page
from vision.report.evaluation_plots import draw_thresholds
from vision.report.lines import log_epoch, log_row, row_of
from vision.report.pace import Pace
from vision.report.records import ResultsTable, RunRecorder, Scalars
from vision.ssd.models import MODELS
from vision.ssd.weights import read_weights
from vision.structures import Annotation, Detections


def test_evaluation_prints_both_aps_and_writes_reports(script, model_dir, voc_root, tmp_path):
    done = script(eval_ssd.main, f"--trained_model={model_dir}", f"--dataset={voc_root}", f"--eval-dir={tmp_path}")
    assert (done.code, done.err) == (0, "")
    assert "Average Precision Per-class:\nball: " in done.out
    assert re.search(r"^Average Precision Across All Classes: \S+$", done.out, re.M)
    assert re.search(r"class +objects +AP \(11-point\) +AP \(area\)", done.out)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["name"] for entry in metrics["classes"]] == list(CLASSES)
    assert metrics["images"] == len((tmp_path / "ground_truth.json").read_text().split('"file_name"')) - 1
    written = {path.name for path in tmp_path.iterdir()} - {"worst_missed.jpg", "worst_false.jpg"}
    assert written == {
        *("metrics.json", "per_class.csv", "detections.json", "ground_truth.json", "report.html"),
        *("pr_curves.png", "thresholds.png", "confusion_matrix.png", "scores.png"),
        *(f"det_test_{name}.txt" for name in CLASSES),
    }


def test_the_evaluation_of_the_parent_repositorys_readme_runs(script, model_dir, voc_root, tmp_path):
    options = ("--net", "mb1-ssd-lite", "--dataset", str(voc_root))
    files = ("--trained_model", str(model_dir / "best.pth"), "--label_file", str(model_dir / "labels.txt"))
    done = script(eval_ssd.main, *options, *files, "--eval_dir", str(tmp_path), "--no-plots")
    assert (done.code, done.err) == (0, "")
    assert headline(done) == headline(
        script(eval_ssd.main, *files[:2], *options[2:], f"--eval-dir={tmp_path}", "--no-plots")
    )


def test_a_file_for_each_class_whatever_its_name_and_none_of_another_evaluation(tmp_path):
    (tmp_path / "det_test_old.txt").touch()
    found = Detections(torch.tensor([[1.0, 2, 3, 4]] * 3), torch.tensor([1, 2, 2]), torch.ones(3))
    write_voc_files(tmp_path, ["x"], [found], ["BACKGROUND", "a/b", "a_b"])
    lines = {path.name: len(path.read_text().splitlines()) for path in tmp_path.iterdir()}
    assert lines == {"det_test_a_b.txt": 1, "det_test_a_b_2.txt": 2}


def headline(done) -> float:
    return float(re.search(r"Across All Classes: (\S+)", done.out)[1])


def test_evaluation_options_have_effects(script, model_dir, voc_root, tmp_path, monkeypatch):
    seen, agnostic = [], []

    def record(self, image, **options):
        seen.append((options["nms_method"], options["iou_threshold"]))
        agnostic.append(options["class_agnostic"])
        return type(self).detect_really(self, image, **options)

    from vision.deploy.torch_session import TorchSession

    monkeypatch.setattr(TorchSession, "detect_really", TorchSession.detect, raising=False)
    monkeypatch.setattr(TorchSession, "detect", record)
    thresholds = []
    real = vision.evaluation.report.evaluate

    def evaluate(found, annotations, names, iou_threshold, **options):
        thresholds.append(iou_threshold)
        report = real(found, annotations, names, iou_threshold, **options)
        faked = [replace(c, ap_2007=0.25, ap_area=0.75) for c in report.classes]
        return replace(report, classes=tuple(faked))

    monkeypatch.setattr(vision.evaluation.report, "evaluate", evaluate)
    argv = (f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", "--device=cpu", "--no-plots")
    assert headline(script(eval_ssd.main, *argv)) == 0.25
    assert headline(script(eval_ssd.main, *argv, "--use-2007-metric=false", "--iou-threshold=0.7")) == 0.75
    assert thresholds == [0.5, 0.7]
    script(eval_ssd.main, *argv, "--nms-iou-threshold=0.3")
    assert (seen[0], seen[-1]) == (("hard", 0.45), ("hard", 0.3))
    script(eval_ssd.main, *argv, "--nms-method=soft")
    assert seen[-1][0] == "soft"
    written = json.loads((tmp_path / "metrics.json").read_text())["postprocess"]
    assert written == {"kind": "nms", "method": "soft", "sigma": 0.5}
    done = script(eval_ssd.main, *argv, "--nms-method=soft", "--nms-iou-threshold=0.3")
    assert_refused(done, "--nms-iou-threshold: soft suppression has no such limit")
    script(eval_ssd.main, *argv, "--class-agnostic")
    assert [*dict.fromkeys(agnostic)] == [False, True]
    assert json.loads((tmp_path / "metrics.json").read_text())["postprocess"]["class_agnostic"] is True
    old = ("report.html", "pr_curves.png", "worst_false.jpg")
    for name in old:
        (tmp_path / name).touch()
    script(eval_ssd.main, *argv)
    assert not any((tmp_path / name).exists() for name in old), "of other figures"


@pytest.fixture
def perfect(monkeypatch):
    """Make a session that finds what it is told to; returns the function that tells it."""
    from vision.deploy.torch_session import TorchSession

    def find(*found):
        answers = iter(found)
        monkeypatch.setattr(TorchSession, "detect", lambda *_, **__: next(answers))

    return find


def annotations_of(root, split="test"):
    dataset = open_dataset("voc", root, split)
    return dataset.ids, [dataset.annotation(index) for index in range(len(dataset))]


def exactly(annotation, score=0.9, labels=None) -> Detections:
    labels = torch.from_numpy(annotation.labels if labels is None else labels)
    return Detections(torch.from_numpy(annotation.boxes), labels, torch.full((len(labels),), score))


def test_files_say_what_was_found(script, model_dir, voc_root, tmp_path, perfect):
    """The first image's objects are all taken for balls, the last's are missed, the others' found."""
    ids, truth = annotations_of(voc_root)
    found = [exactly(annotation, 0.7 + 0.01 * place) for place, annotation in enumerate(truth)]
    found[0] = exactly(truth[0], 0.8, np.ones_like(truth[0].labels))
    found[-1] = eval_ssd.NOTHING_FOUND
    perfect(*found)
    argv = (f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", f"--show-dir={tmp_path / 'show'}")
    done = script(eval_ssd.main, *argv, "--threshold=0.4")
    assert done.code == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    matrix = np.array(metrics["confusion_matrix"]["counts"])
    expected = np.zeros_like(matrix)
    for annotation in truth[1:-1]:
        np.add.at(expected, (annotation.labels, annotation.labels), 1)
    np.add.at(expected, (truth[0].labels, 1), 1)
    np.add.at(expected, (truth[-1].labels, 0), 1)
    assert matrix.tolist() == expected.tolist()
    assert metrics["threshold"]["score"] == 0.4
    for label, of_class in enumerate(metrics["classes"], start=1):
        recall = matrix[label, label] / matrix[label].sum()
        precision = matrix[label, label] / matrix[:, label].sum()
        assert of_class["threshold"]["recall"] == pytest.approx(recall)
        assert of_class["threshold"]["precision"] == pytest.approx(precision)
        assert of_class["best_threshold"]["f1"] >= of_class["threshold"]["f1"]
    with open(tmp_path / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert [float(row["AP"]) for row in rows] == pytest.approx(
        [of_class["coco"]["AP"] for of_class in metrics["classes"]]
    )
    results = json.loads((tmp_path / "detections.json").read_text())
    assert len(results) == sum(len(detections.labels) for detections in found)
    objects = json.loads((tmp_path / "ground_truth.json").read_text())
    assert [image["file_name"] for image in objects["images"]] == list(ids)
    assert {result["image_id"] for result in results} <= {image["id"] for image in objects["images"]}
    assert len(list((tmp_path / "show").glob("*.jpg"))) == len(ids)
    assert (tmp_path / "worst_missed.jpg").is_file()
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page.replace("data:image", ""), "opened without a network"
    assert page.count("<img ") == 6
    assert f"<td>{metrics['coco']['AP']:.3f}</td>" in page


def test_what_programs_of_coco_read_from_the_files_gives_the_same_figures(script, model_dir, voc_root, tmp_path):
    script(eval_ssd.main, f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", "--no-plots")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "ground_truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "detections.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    figures = [-1 if value is None else value for value in metrics["coco"].values()]
    assert figures == pytest.approx(evaluation.stats.tolist(), abs=1e-6)


def test_the_table_shows_names_as_they_are_and_dashes_for_what_is_not_defined(voc_root):
    truth = [replace(annotations_of(voc_root)[1][0])]
    found = [exactly(truth[0])]
    names = ("BACKGROUND", "banana", *(f"nan {label}" for label in range(2, 6)))
    rows = class_table(Evaluation.of(["a"], found, truth, names).report, 0.5, PRINTED, ".4f")
    assert [row[0] for row in rows] == ["class", *names[1:], "mean"]
    absent = rows[5]
    assert absent[1:] == ["0", *["-"] * 8]


@pytest.fixture
def uneven():
    """Of five classes one is found, one half, one never; two have no objects, and one of these has a detection."""
    box, other = [10, 10, 30, 30], [40, 10, 60, 30]
    truth = [Annotation(np.float32([box]), np.int64([label]), np.array([False]), (64, 48)) for label in (1, 2, 3)]
    boxes, labels, scores = ([box], [box, other], [box]), ([1], [2, 2], [4]), ([0.9], [0.6, 0.7], [0.8])
    found = [
        Detections(torch.tensor(b).float(), torch.tensor(n), torch.tensor(s))
        for b, n, s in zip(boxes, labels, scores, strict=True)
    ]
    names = ("BACKGROUND", "found", "half", "never found", "absent", "not there")
    return Evaluation.of(["x", "y", "z"], found, truth, names)


def test_means_are_over_the_classes_with_objects_wherever_they_stand(uneven, tmp_path, capsys, monkeypatch):
    eval_ssd.print_report(uneven, True)
    out = capsys.readouterr().out
    assert "nan" not in out
    assert "\nnever found: 0.0\nabsent: no objects\nnot there: no objects\n" in out
    assert "\nAverage Precision Across All Classes: 0.5\n" in out
    rows = class_table(uneven.report, uneven.threshold, PRINTED, ".4f")
    columns = list(zip(*rows[1:], strict=True))
    assert rows[0][6] == "best threshold"
    assert columns[6] == ("0.4", "0.3", "-", "-", "-", "-")
    for column in (*columns[2:6], *columns[7:]):
        *of_classes, mean = column
        assert of_classes[3:] == ["-", "-"]
        assert float(mean) == pytest.approx(np.mean([float(value) for value in of_classes[:3]]), abs=1e-4)
    note = "means are over the classes that have objects to find, 3 of 5"
    assert note in out
    point = "precision 0.5000, recall 0.6667, F1 0.5556"
    assert f"At a threshold of 0.3 for all classes: {point} (means)" in out

    write_files(tmp_path, uneven, {})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert note in metrics["means"]
    for name in ("own_thresholds", "best_threshold"):
        figures = {key: pytest.approx(value) for key, value in (("precision", 0.5), ("recall", 2 / 3), ("f1", 5 / 9))}
        assert metrics[name] == {"score": 0.3 if name == "best_threshold" else None, **figures}
    assert metrics["classes"][3]["threshold"] == {"score": 0.3, "precision": None, "recall": None, "f1": None}
    with open(tmp_path / "per_class.csv", newline="") as file:
        absent = list(csv.reader(file))[4]
    assert absent == ["absent", "0", *[""] * (len(absent) - 2)]

    write_page(tmp_path / "report.html", "Evaluation", {}, uneven, {})
    page = (tmp_path / "report.html").read_text()
    assert note in page
    assert "nan" not in page
    cells = [re.findall("<td>(.*?)</td>", row) for row in page.split("</tr>") if "<td>absent" in row or ">mean<" in row]
    assert cells[0][2:] == ["-"] * 12
    assert cells[1][7:] == ["-", "0.500", "0.667", "0.556", "0.500", "0.667", "0.556"]

    drawn = {}
    plot = Axes.plot

    def record(axes, *args, **options):
        if options.get("label") == "mean":
            drawn[axes] = args
        return plot(axes, *args, **options)

    monkeypatch.setattr(Axes, "plot", record)
    draw_thresholds(tmp_path / "thresholds.png", uneven)
    for (thresholds, means), name in zip(drawn.values(), ("precision", "recall", "f1"), strict=True):
        for place in (0, 150, 375, 450, 500):
            assert means[place] == pytest.approx(getattr(uneven.report.mean_at(thresholds[place]), name)), name


def test_every_metric_has_its_place_in_all_tables_and_files(uneven, tmp_path, capsys):
    write_files(tmp_path, uneven, {})
    of_class = json.loads((tmp_path / "metrics.json").read_text())["classes"][1]
    for metric in METRICS:
        value = of_class
        for key in metric.key.split("."):
            value = value[key]
        assert value == pytest.approx(metric.of_class(uneven.report.classes[1], uneven.threshold)), metric.key
    titles = [metric.title.format(threshold=uneven.threshold) for metric in COLUMNS]
    with open(tmp_path / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "objects", *titles]
    assert titles == [
        *("AP (11-point)", "AP (area)", "AP", "AP50", "AP75", "best threshold"),
        *("precision at it", "recall at it", "F1 at it", "precision at 0.3", "recall at 0.3", "F1 at 0.3"),
    ]
    write_page(tmp_path / "report.html", "Evaluation", {}, uneven, {})
    page = (tmp_path / "report.html").read_text()
    assert all(f">{title}<" in page for title in titles)
    eval_ssd.print_report(uneven, True)
    heads = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("class "))
    assert heads.split("  ")[-1] == "F1 at it"
    assert [title in heads for title in titles] == [metric in PRINTED for metric in COLUMNS[:-3]] + [False] * 3
    losses = MeanLosses(1.0, 2.0)
    row = row_of(EpochResult(1, losses, losses, uneven.report), 1.0)
    for metric in CURVES:
        assert row[f"{metric.curve}/half"] == metric.of_class(uneven.report.classes[1], 0.5)


def test_the_log_of_a_run_has_dashes_for_classes_without_objects(uneven, tmp_path, caplog):
    caplog.set_level("INFO")
    losses = MeanLosses(1.0, 2.0)
    result = EpochResult(1, losses, losses, uneven.report)
    (tmp_path / "results.csv").write_text("epoch,Class Average Precision/absent\n0,nan\n")
    table = ResultsTable(tmp_path / "results.csv", tmp_path / "results.csv", first_epoch=1)
    with RunRecorder(table, Scalars(tmp_path), Pace(2, 1, 4)) as recorder:
        recorder.log(result)
        recorder.write(result, is_best=True)
    assert "Epoch: 1, Average Precision never found: 0.0000" in caplog.messages
    assert "Epoch: 1, Average Precision absent: no objects" in caplog.messages
    assert "Epoch: 1, Mean Average Precision: 0.5000" in caplog.messages
    assert "nan" not in caplog.text
    text = (tmp_path / "results.csv").read_text()
    assert "nan" not in text
    earlier, row = csv.DictReader(io.StringIO(text))
    assert (earlier["epoch"], earlier["Class Average Precision/absent"]) == ("0", "")
    assert (row["Class Average Precision/absent"], row["Class Best F1/never found"]) == ("", "0.0")
    nobody = Evaluation.of(
        ["x"],
        [eval_ssd.NOTHING_FOUND],
        [replace(uneven.annotations[0], difficult=np.array([True]))],
        ("BACKGROUND", "a"),
    )
    caplog.clear()
    log_epoch(EpochResult(0, losses, losses, nobody.report))
    log_row(row_of(EpochResult(0, losses, losses, nobody.report), 1.0), with_heads=False, is_best=False)
    assert "Epoch: 0, Mean Average Precision: -" in caplog.messages
    assert "nan" not in caplog.text
    (entry,) = plot_logs.read_log("\n".join(caplog.messages[:-1]))
    assert "Mean Average Precision/val" not in entry


def test_nothing_found_is_a_result(script, model_dir, voc_root, tmp_path, perfect):
    _, truth = annotations_of(voc_root)
    perfect(*[eval_ssd.NOTHING_FOUND] * len(truth))
    done = script(eval_ssd.main, f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}")
    assert (done.code, done.err) == (0, "")
    assert headline(done) == 0
    assert "highest mean F1" not in done.out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["best_threshold"]["score"] is None
    assert metrics["threshold"] == {"score": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert "worst_false" not in " ".join(path.name for path in tmp_path.iterdir())


def test_without_matplotlib_there_are_figures_but_no_page(script, model_dir, voc_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = script(eval_ssd.main, f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}")
    assert done.code == 0
    assert "no plots and no report.html" in done.out
    assert (tmp_path / "metrics.json").is_file()
    assert not (tmp_path / "report.html").exists()


def ids_evaluated(tmp_path) -> list[str]:
    return [image["file_name"] for image in json.loads((tmp_path / "ground_truth.json").read_text())["images"]]


def test_a_list_may_name_images_of_several_datasets_whose_ids_stay_apart(script, model_dir, voc_root, tmp_path):
    (one, two, *_), other = list(annotations_of(voc_root, "test")[0]), tmp_path / "other"
    shutil.copytree(voc_root, other)
    for path in (other / "Annotations" / f"{two}.xml", other / "JPEGImages" / f"{two}.jpg"):
        path.rename(path.with_stem("else"))
    out = tmp_path / "out"
    argv = (f"--model={model_dir}", "--dataset", str(voc_root), str(other), f"--eval-dir={out}", "--no-plots")
    chosen = tmp_path / "chosen.txt"
    for names, ids in (([two, "else"], [two, "else"]), ([one], [f"1_{one}", f"2_{one}"]), (["else"], ["else"])):
        chosen.write_text("\n".join(names) + "\n")
        done = script(eval_ssd.main, *argv, f"--image-list={chosen}")
        assert done.code == 0
        assert ids_evaluated(out) == ids
        assert ("share ids of images" in done.out + done.err) == (names == [one])
    chosen.write_text(f"{one}\nnobody\n")
    done = script(eval_ssd.main, *argv, f"--image-list={chosen}")
    assert_refused(done, "chosen.txt: names nobody, no annotated image in", str(voc_root), str(other))


def test_images_are_those_of_a_split_or_of_a_list(script, model_dir, voc_root, tmp_path):
    argv = (f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", "--no-plots")
    train, test = (list(annotations_of(voc_root, split)[0]) for split in ("train", "test"))
    for split, ids in (("train", train), ("test", test), ("val", list(annotations_of(voc_root, "val")[0]))):
        assert script(eval_ssd.main, *argv, f"--split={split}").code == 0
        assert ids_evaluated(tmp_path) == ids
        assert json.loads((tmp_path / "metrics.json").read_text())["split"] == split
    chosen = tmp_path / "chosen.txt"
    chosen.write_text(f"{test[0]}\n\n{train[0]}.jpg\n{test[0]}\n")
    assert script(eval_ssd.main, *argv, f"--image-list={chosen}").code == 0
    assert ids_evaluated(tmp_path) == [test[0], train[0]]
    chosen.write_text("nobody\n")
    assert_refused(script(eval_ssd.main, *argv, f"--image-list={chosen}"), "chosen.txt", "nobody", "file name")
    chosen.write_text("\n")
    assert_refused(script(eval_ssd.main, *argv, f"--image-list={chosen}"), "chosen.txt", "names no image")
    assert_refused(script(eval_ssd.main, *argv, f"--image-list={tmp_path / 'no.txt'}"), "no.txt")
    assert_refused(script(eval_ssd.main, *argv, "--split=holdout"), "--split", "holdout", "train, test, val")


def test_detectnets_post_processing_is_that_of_a_device(script, model_dir, voc_root, tmp_path, monkeypatch):
    """The figures are those of what the session gives by detectNet's arithmetic, with the settings asked for."""
    session = open_session(model_dir / "best.pth")
    dataset = open_dataset("voc", voc_root, "test")
    argv = (f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", "--no-plots", "--device=cpu")
    seen, cut_off = [], []
    real = eval_ssd.Evaluation.of
    monkeypatch.setattr(
        eval_ssd.Evaluation, "of", lambda *args, **options: cut_off.append(options["cut_off"]) or real(*args, **options)
    )
    for more in ((), ("--threshold=0.2",), ("--threshold=0.2", "--clustering=0.3")):
        done = script(eval_ssd.main, *argv, "--postprocess=detectnet", *more)
        assert done.code == 0
        settings = json.loads((tmp_path / "metrics.json").read_text())["postprocess"]
        options = {"threshold": settings["threshold"], "clustering": settings["clustering"]}
        found = [session.detect_as_detectnet(dataset.get_image(i), **options) for i in range(len(dataset))]
        written = json.loads((tmp_path / "detections.json").read_text())
        assert [result["score"] for result in written] == pytest.approx([s for f in found for s in f.scores.tolist()])
        seen.append((*options.values(), len(written)))
    assert [entry[:2] for entry in seen] == [(0.5, 0.75), (0.2, 0.75), (0.2, 0.3)]
    script(eval_ssd.main, *argv, "--threshold=0.2")
    assert cut_off == [0.5, 0.2, 0.2, 0.0], "below nothing was measured, and no threshold is recommended"
    assert seen[0][2] < seen[2][2] < seen[1][2], "a lower threshold reports more, a lower overlap joins more"


def test_options_of_one_post_processing_are_refused_with_the_other(script, model_dir, voc_root):
    argv = (f"--model={model_dir}", f"--data={voc_root}")
    assert_refused(script(eval_ssd.main, *argv, "--clustering=0.5"), "--clustering", "--postprocess=detectnet")
    for option in ("--nms-method=soft", "--nms-iou-threshold=0.3"):
        name = option.partition("=")[0]
        assert_refused(script(eval_ssd.main, *argv, "--postprocess=detectnet", option), name, "does not suppress")


def test_complexity_counts_the_net(script, model_dir, voc_root, tmp_path):
    argv = (f"--data={voc_root}", f"--eval-dir={tmp_path}", "--complexity")
    done = script(eval_ssd.main, f"--model={model_dir}", *argv)
    counts = json.loads((tmp_path / "metrics.json").read_text())["complexity"]
    weights = read_weights(model_dir / "best.pth")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    expected = sum(value.numel() for key, value in weights.items() if not key.endswith(statistics))
    assert counts["parameters"] == expected
    line = f"{expected / 1e6:.2f} M parameters"
    assert line in done.out
    assert line in (tmp_path / "report.html").read_text()
    assert_refused(script(eval_ssd.main, f"--model={model_dir / 'mb1-ssd-lite.onnx'}", *argv), "--complexity", ".pth")


def test_inclusive_boxes_count_the_last_pixel(script, model_dir, voc_root, tmp_path, perfect):
    _, truth = annotations_of(voc_root)
    # Half of each object exactly, but for the pixels at the border.
    halves = []
    for annotation in truth:
        boxes = annotation.boxes.copy()
        boxes[:, 3] = (boxes[:, 1] + boxes[:, 3]) / 2
        halves.append(exactly(replace(annotation, boxes=boxes)))
    argv = (f"--model={model_dir}", f"--data={voc_root}", f"--eval-dir={tmp_path}", "--no-plots")
    perfect(*halves)
    assert headline(script(eval_ssd.main, *argv)) == 0
    perfect(*halves)
    assert headline(script(eval_ssd.main, *argv, "--inclusive-boxes")) > 0.5


def test_an_onnx_file_is_run_by_what_onnxruntime_has(script, model_dir, voc_root, tmp_path, monkeypatch):
    """Whatever torch finds on the machine."""
    argv = (f"--data={voc_root}", f"--eval-dir={tmp_path}", f"--model={model_dir / 'mb1-ssd-lite.onnx'}", "--no-plots")
    done = script(eval_ssd.main, *argv)
    assert done.code == 0
    provider = re.search(r"device: onnxruntime's (\w+)ExecutionProvider", done.out)[1]
    assert (provider == "CPU") == (not set(GPU_PROVIDERS) & set(onnxruntime.get_available_providers()))
    assert "onnxruntime's CPUExecutionProvider" in script(eval_ssd.main, *argv, "--device=cpu").out
    assert "onnxruntime's CPUExecutionProvider" in script(eval_ssd.main, *argv, "--no-cuda").out
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    done = script(eval_ssd.main, *argv, "--device=cuda")
    assert_refused(done, "--device=cuda: this onnxruntime has CPUExecutionProvider only", "--device=cpu")
    assert_refused(script(eval_ssd.main, *argv, "--device=cuda", "--no-cuda"), "contradict each other")
    if set(GPU_PROVIDERS) & set(onnxruntime.get_available_providers()):
        return
    # One that is built in, but finds no card: onnxruntime would go on with the CPU without a word.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(session, "open_runtime", lambda path, providers: open_runtime(path))
    done = script(eval_ssd.main, *argv, "--device=cuda")
    assert_refused(done, "--device=cuda: onnxruntime could not start CUDAExecutionProvider")


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
