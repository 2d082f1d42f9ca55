"""What people see of a run: lines of the log and their file, bars, the pace, and the words at the end."""

import html
import json
import logging
import math
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, train_argv

import eval_ssd
import train_ssd
from vision import console
from vision.engine import model_folder
from vision.engine.loop import EpochResult, MeanLosses, StepResult
from vision.evaluation import Evaluation, findings
from vision.options.training import Options
from vision.report.lines import pace_text
from vision.report.pace import Pace
from vision.report.summary import MAX_CLASSES, RunSummary, advice_on_epochs
from vision.ssd.description import Results
from vision.structures import Annotation, Detections

LOSSES = MeanLosses(1.0, 2.0)
SIZE = (300, 300)


def on_terminal(*argv: object) -> str:
    """Run the training script on a terminal of its own; gives all that it shows."""
    leader, follower = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(leader, 1 << 16)
            except OSError:  # nobody writes any more
                return
            if not part:
                return
            shown.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "LINES": "40"}
    command = [sys.executable, "train_ssd.py", *map(str, argv)]
    done = subprocess.run(command, cwd=ROOT, env=env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    reader.join()
    os.close(leader)
    text = b"".join(shown).decode()
    assert done.returncode == 0, text
    return text


def rows_of(lines: list[str]) -> list[str]:
    return [line for line in lines if re.match(r"\s+\d+\s+\d+\.\d{4}\s", line)]


def test_a_terminal_shows_one_row_an_epoch(voc_root, tmp_path):
    text = on_terminal(*train_argv(voc_root, tmp_path / "m", "--epochs=2", "--debug-steps=1"))
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    assert len(rows_of(lines)) == 2
    assert sum(line.startswith("epoch ") for line in lines) == 1, "heads once"
    assert not [line for line in lines if "Avg Loss" in line or line.startswith(("Epoch:", "Saved model"))]
    assert not [line for line in lines if re.match(r"\d{4}-\d\d-\d\d ", line)], "no date"
    kept = (tmp_path / "m" / "log.txt").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d - ", line) for line in kept)
    for contents in ("Epoch: 1, Step: 1/", "Epoch: 1, Training Loss: ", "Saved model ", "Task done"):
        assert any(contents in line for line in kept), "the file has everything"


def test_debug_shows_all_lines_on_a_terminal(voc_root, tmp_path):
    text = on_terminal(*train_argv(voc_root, tmp_path / "m", "--epochs=1", "--log-level=debug"))
    assert "Epoch: 0, Training Loss: " in text
    assert "Namespace(" in text


def test_a_pipe_gets_the_documented_lines_with_the_pace(script, voc_root, tmp_path):
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path / "m", "--epochs=1", "--debug-steps=1"))
    steps = [line for line in done.out.splitlines() if "Avg Loss" in line]
    pattern = r"\S+ \S+ - Epoch: 0, Step: \d+/\d+, Avg Loss: [\d.]+, Avg Regression Loss [\d.]+, "
    pattern += r"Avg Classification Loss: [\d.]+, [\d.]+ images/s, [\d.]+ (s|min|h) left"
    assert steps
    assert all(re.fullmatch(pattern, line) for line in steps)


def test_the_log_says_what_was_typed_and_little_else(script, voc_root, tmp_path):
    argv = train_argv(voc_root, tmp_path / "m", "--epochs=1")
    done = script(train_ssd.main, *argv)
    first, second = done.out.splitlines()[:2]
    assert first.endswith(" ".join(map(str, argv)))
    assert "mb1-ssd-lite at " in second
    assert "Namespace(" not in done.out
    assert json.loads((tmp_path / "m" / "args.json").read_text())["arguments"]["clip_grad"] is not None


def test_the_log_file_goes_on_with_the_run_and_has_its_error(script, voc_root, tmp_path):
    folder = tmp_path / "m"
    script(train_ssd.main, *train_argv(voc_root, folder, "--epochs=1"))
    before = (folder / "log.txt").read_text()
    script(train_ssd.main, *train_argv(voc_root, folder, "--epochs=2", "--resume"))
    after = (folder / "log.txt").read_text()
    assert after.startswith(before)
    assert after.count("Task done") == 2
    script(train_ssd.main, *train_argv(voc_root, folder, "--epochs=1"))
    assert (folder / "log.txt").read_text().count("Task done") == 1, "another run replaces the files of the one before"


def test_a_run_that_does_not_begin_leaves_no_log(script, tmp_path):
    (tmp_path / "empty").mkdir()
    assert script(train_ssd.main, *train_argv(tmp_path / "empty", tmp_path / "m")).code == 2
    assert not (tmp_path / "m").exists()


def test_an_error_within_a_run_is_in_its_log(tmp_path):
    with pytest.raises(ValueError, match="the disk"), console.LogFile() as log_file:
        logging.getLogger().warning("before it is opened")
        log_file.open(tmp_path / "log.txt")
        raise ValueError("the disk is gone")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.partition(" - ")[2] for line in lines] == ["before it is opened", "error: the disk is gone"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_file_without_room_ends_nothing(caplog):
    with console.LogFile() as log_file:
        log_file.open(Path("/dev/full"))
        logging.getLogger().warning("lost in the file")
    assert caplog.messages == ["lost in the file"]


@pytest.mark.parametrize(
    ("speed", "left", "text"),
    [(21.4, 720, "21 images/s, 12 min left"), (3.25, 40, "3.2 images/s, 40 s left"), (8.0, math.nan, "8.0 images/s")],
)
def test_pace_in_words(speed, left, text):
    assert pace_text(speed, left) == text


def test_time_left_counts_steps_and_validations():
    clock = [0.0]
    pace = Pace(epochs=5, validation_epochs=2, images_per_step=8, clock=lambda: clock[0])
    assert math.isnan(pace.seconds_left(0, 0))
    for epoch in range(2):
        for step in range(1, 11):
            clock[0] += 2.0
            pace.count_step(StepResult(epoch, step, 10, None))
        assert pace.images_per_second() == pytest.approx(4.0)
        assert pace.seconds_left(epoch, 10) == pytest.approx((4 - epoch) * 20.0), "no validation is known yet"
        clock[0] += 7.0 if epoch else 0.0
        pace.count_epoch(EpochResult(epoch, LOSSES, LOSSES if epoch else None, None))
    # Three epochs are left, and validations after the fourth and the last.
    assert pace.seconds_left(2, 0) == pytest.approx(3 * 20.0 + 2 * 7.0)
    assert pace.seconds_left(2, 5) == pytest.approx(2.5 * 20.0 + 2 * 7.0)
    assert pace.seconds_left(5, 0) == 0.0


def boxes_at(count: int, side: float) -> np.ndarray:
    """Boxes that do not touch, (N, 4) in pixels."""
    corners = np.array([[(number % 10) * 30.0, (number // 10) * 30.0] for number in range(count)])
    return np.concatenate([corners, corners + side], axis=1).astype(np.float32).reshape(-1, 4)


def evaluation_of(true: list[int], found: list[int], side: float = 24.0, score: float = 0.9) -> Evaluation:
    """One image of 300 x 300 with an object for each label of `true`, found as the one in `found`; 0 for not found."""
    boxes = boxes_at(len(true), side)
    labels = np.array(true)
    annotation = Annotation(boxes, labels, np.zeros(len(labels), bool), SIZE)
    kept = [number for number, label in enumerate(found) if label]
    detections = Detections(
        torch.from_numpy(boxes[kept]), torch.tensor([found[number] for number in kept]), torch.full((len(kept),), score)
    )
    names = ("BACKGROUND", "red", "green", "blue")
    return Evaluation.of(["x"], [detections], [annotation], names, threshold=0.5)


def findings_of(evaluation: Evaluation, **training_objects: int) -> findings.Findings:
    return findings.find(evaluation.report, evaluation.matches, SIZE, training_objects or None)


def test_a_good_net_has_no_findings():
    true = [1] * 20 + [2] * 20 + [3] * 20
    assert findings_of(evaluation_of(true, true), red=300, green=300, blue=300).lines() == []


def test_a_class_with_few_objects_is_weak_for_that():
    true = [1] * 20 + [2] * 20 + [3] * 12
    (weak,) = findings_of(evaluation_of(true, [1] * 20 + [2] * 20 + [0] * 12), red=300, green=280, blue=7).weak
    assert weak.name == "blue"
    assert weak.reasons[0].startswith("few: 7 objects to train on, the median class has 280")
    assert "12 of 12 objects are not found" in weak.reasons[-1]


def test_small_objects_are_named_with_their_size():
    true = [1] * 20 + [2] * 20
    (weak,) = findings_of(evaluation_of(true, [1] * 20 + [0] * 20, side=12.0), red=300, green=300, blue=300).weak
    assert weak.reasons[0].startswith("small: half of its objects are below 12 pixels at 300x300")


def test_a_class_that_is_taken_for_another_is_named_with_it():
    true = [1] * 20 + [2] * 20 + [3] * 20
    found = [1] * 20 + [2] * 20 + [1] * 14 + [3] * 6
    result = findings_of(evaluation_of(true, found), red=300, green=300, blue=300)
    (weak,) = result.weak
    assert (weak.name, weak.reasons) == ("blue", ("14 of 20 objects are taken for red",))
    assert result.swapped == (), "it is no swap: red is not taken for blue"


def test_false_alarms_of_a_class_are_a_reason():
    true = [1] * 30 + [2] * 12
    evaluation = evaluation_of(true, true)
    nothing = boxes_at(42, 24.0)[20:42] + np.array([0, 120, 0, 120], np.float32)
    (detections,) = evaluation.detections
    more = Detections(
        torch.cat([torch.from_numpy(nothing), detections.boxes]),
        torch.cat([torch.full((len(nothing),), 2), detections.labels]),
        torch.cat([torch.full((len(nothing),), 0.95), detections.scores]),
    )
    evaluation = Evaluation.of(["x"], [more], evaluation.annotations, evaluation.class_names, threshold=0.5)
    (weak,) = findings_of(evaluation, red=300, green=300, blue=300).weak
    assert (weak.name, weak.reasons[-1].partition(":")[0]) == ("green", "found 22 times where nothing is labeled")


def test_swapped_labels_are_found_where_the_net_is_as_sure():
    true = [1] * 40 + [2] * 40
    found = [2] * 4 + [1] * 36 + [1] * 4 + [2] * 36
    (swapped,) = findings_of(evaluation_of(true, found)).swapped
    assert (swapped.names, swapped.counts) == (("red", "green"), (4, 4))
    assert "4 red found as green" in str(swapped)


def test_a_net_that_has_learnt_little_gets_one_line():
    true = [1] * 20 + [2] * 20
    (line,) = findings_of(evaluation_of(true, [1, 2, *[0] * 38]), red=300, green=300, blue=300).lines()
    assert "all 2 classes" in line


@pytest.mark.parametrize(
    ("aps", "losses", "fragments"),
    [
        ([0.1, 0.2, 0.3, 0.35], [4, 3, 2, 2], ["still rose by 0.050 in the last quarter; --epochs=8"]),
        ([0.3, 0.4, 0.4, 0.4], [4, 3, 3, 3], ["no more than 0.01"]),
        ([0.3, 0.4, 0.4, 0.4], [4, 2, 3, 4], ["no more than 0.01", "rose by 100% after epoch 1"]),
        ([0.0, 0.0, 0.0, 0.0], [2, 3, 3, 4], ["no more than 0.01", "rose by 100% after epoch 0 "]),
        ([math.nan] * 4, [4, 3, 2, 1], []),
    ],
)
def test_advice_on_epochs(aps, losses, fragments):
    rows = [
        {"epoch": epoch, "COCO AP/val": ap, "Loss/val": float(loss), "Loss/train": 5.0 - epoch}
        for epoch, (ap, loss) in enumerate(zip(aps, losses, strict=True))
    ]
    of_file = [{column: "" if math.isnan(value) else str(value) for column, value in row.items()} for row in rows]
    for lines in (advice_on_epochs(rows, 4), advice_on_epochs(of_file, 4)):
        assert len(lines) == len(fragments)
        assert all(fragment in line for fragment, line in zip(fragments, lines, strict=True))


@pytest.mark.parametrize("program", ["somewhere/train_ssd.py", "bin/ssd-train"])
def test_the_end_says_what_came_out_and_what_now(script, voc_root, tmp_path, monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program])
    folder = tmp_path / "m"
    done = script(train_ssd.main, *train_argv(voc_root, folder, "--epochs=2"))
    lines = [line.partition(" - ")[2] for line in done.out.splitlines()]
    last = lines[next(number for number, line in enumerate(lines) if line.startswith("best: epoch ")) :]
    assert re.fullmatch(rf"best: epoch [01] of 0 to 1, mAP [\d.]+, COCO AP [\d.]+: {folder}/best.pth", last[0])
    assert last[1].split() == [
        "class",
        "objects",
        "trained",
        "on",
        "validated",
        "on",
        "AP",
        "AP50",
        "best",
        "threshold",
    ]
    evaluate, export = (
        ("python3 somewhere/eval_ssd.py", "python3 somewhere/onnx_export.py")
        if program.endswith(".py")
        else ("ssd-eval", "ssd-export")
    )
    assert any(line.endswith(f": {evaluate} --model={folder} --dataset-type=voc --data={voc_root}") for line in last)
    assert any(line.endswith(f": {export} --model-dir={folder}") for line in last)
    assert last[-1] == "Task done, exiting program."


def test_many_classes_are_cut_to_the_weakest(caplog):
    caplog.set_level("INFO")
    names = ["BACKGROUND", *(f"class{number}" for number in range(1, 31))]
    labels = np.arange(1, 31)
    annotation = Annotation(boxes_at(30, 24.0), labels, np.zeros(30, bool), SIZE)
    found = Detections(torch.from_numpy(annotation.boxes[:20]), torch.from_numpy(labels[:20]), torch.full((20,), 0.9))
    report = Evaluation.of(["x"], [found], [annotation], names).report
    summary = RunSummary(Path("best.pth"), {name: 100 for name in names[1:]}, [annotation], SIZE, {})
    summary.take_best(EpochResult(0, LOSSES, LOSSES, report, detections=[found]))
    summary.log(Results(0, 3.0, 0.5, 0.4), [], 1)
    table = [line for line in caplog.messages if re.match(r"class\d+ ", line)]
    assert len(table) == MAX_CLASSES
    assert {f"class{number}" for number in range(21, 31)} <= {line.split()[0] for line in table}


def test_an_evaluation_says_what_stands_out(script, model_dir, voc_root, tmp_path):
    argv = (f"--model={model_dir}", f"--data={voc_root}", "--include-trained", f"--eval-dir={tmp_path}")
    done = script(eval_ssd.main, *argv)
    (line,) = [line for line in done.out.splitlines() if line.startswith("weak: ")]
    assert line in html.unescape((tmp_path / "report.html").read_text())


@pytest.mark.parametrize(
    ("options", "size", "kept"),
    [
        (Options(epochs=10), "1.4 GB", 10),  # besides the checkpoints of epochs best, last, weights and momentum
        (Options(epochs=10, validation_epochs=4), "700 MB", 3),
        (Options(epochs=10, keep_checkpoints=2, optimizer="adam", ema=True), "800 MB", 2),
    ],
)
def test_the_disk_that_a_run_takes_is_said(monkeypatch, tmp_path, options, size, kept):
    monkeypatch.setattr(model_folder.shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000_000_000))
    net = torch.nn.Linear(1000, 25_000, bias=False)  # 100 MB
    line, is_enough = model_folder.describe_disk(tmp_path, net, options, 0)
    assert line.startswith(f"disk: about {size} for {kept} checkpoints and the state, 2.0 GB free")
    assert is_enough
    monkeypatch.setattr(model_folder.shutil, "disk_usage", lambda folder: SimpleNamespace(free=300_000_000))
    line, is_enough = model_folder.describe_disk(tmp_path, net, options, 0)
    assert "300 MB free" in line
    assert not is_enough
    assert ("--keep-checkpoints=3" in line) == (kept > 3)
