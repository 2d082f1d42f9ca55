"""Pictures of runs: what a run leaves in its folder, and plot_logs.py on results and on logs."""

import csv
import logging
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CLASSES, assert_refused, write_small_voc

import plot_logs
import train_ssd
from vision.report import training_plots
from vision.report.run_pictures import best_epoch
from vision.report.training_plots import KEYS, PANELS, columns_of, draw_runs
from vision.ssd.weights import digest_of, read_weights

#: As upstream writes them, but for the numbers.
UPSTREAMS_LOG = """\
2020-07-10 12:00:00 - Using CUDA...
2020-07-10 12:00:01 - Epoch: 0, Step: 10/100, Avg Loss: 9.0000, Avg Regression Loss 3.0000, Avg Classification Loss: 6.0000
2020-07-10 12:00:02 - Epoch: 0, Step: 20/100, Avg Loss: 7.0000, Avg Regression Loss 3.0000, Avg Classification Loss: 4.0000
2020-07-10 12:00:03 - Epoch: 0, Validation Loss: 5.5000, Validation Regression Loss 2.0000, Validation Classification Loss: 3.5000
2020-07-10 12:00:04 - Saved model models/mb1-ssd-Epoch-0-Loss-5.5.pth
2020-07-10 12:00:05 - Epoch: 1, Training Loss: 4.0000, Training Regression Loss 1.5000, Training Classification Loss: 2.5000
2020-07-10 12:00:06 - Epoch: 1, Validation Loss: nan, Validation Regression Loss nan, Validation Classification Loss: 2.0000
2020-07-10 12:00:07 - Epoch: 1, Mean Average Precision: 0.25
"""


def test_a_run_leaves_pictures(model_dir):
    for name in ("train_batch.jpg", "val_batch.jpg", "results.png"):
        image = cv2.imread(str(model_dir / name))
        assert image is not None, name
        assert image.std() > 10, f"{name} is blank"


def test_nothing_is_drawn_where_that_is_asked_for(script, voc_root, tmp_path):
    for folder, option in (("drawn", ()), ("bare", ("--no-plots",))):
        assert script(train_ssd.main, *argv_of(voc_root, tmp_path / folder, "--epochs=1", *option)).code == 0
    left_out = {path.name for path in (tmp_path / "drawn").iterdir()} - {
        path.name for path in (tmp_path / "bare").iterdir()
    }
    assert left_out == {"train_batch.jpg", "val_batch.jpg", "results.png"}
    bare, drawn = (digest_of(read_weights(tmp_path / folder / "last.pth")) for folder in ("bare", "drawn"))
    assert bare == drawn
    assert script(train_ssd.main, *argv_of(voc_root, tmp_path / "drawn", "--epochs=1", "--no-plots")).code == 0
    assert not left_out & {path.name for path in (tmp_path / "drawn").iterdir()}, "of the run before"


def rewritten(path) -> bytes:
    """Remove a file so that it shows when it is written again."""
    content = path.read_bytes()
    path.unlink()
    return content


def argv_of(root, folder, *more):
    return [
        *("--dataset-type=voc", f"--data={root}", f"--model-dir={folder}", "--net=mb1-ssd-lite", "--resolution=96"),
        *("--pretrained-ssd=none", "--batch-size=4", "--workers=0", "--seed=1", "--device=cpu", *more),
    ]


def test_pictures_are_drawn_at_each_validation_and_the_first_images_once(script, voc_root, tmp_path):
    assert script(train_ssd.main, *argv_of(voc_root, tmp_path, "--epochs=1")).code == 0
    drawn = {name: rewritten(tmp_path / name) for name in ("train_batch.jpg", "val_batch.jpg", "results.png")}
    assert script(train_ssd.main, *argv_of(voc_root, tmp_path, "--epochs=2", "--resume")).code == 0
    assert (tmp_path / "results.png").read_bytes() != drawn["results.png"]
    assert (tmp_path / "val_batch.jpg").is_file()
    assert not (tmp_path / "train_batch.jpg").exists(), "the images of a run that goes on are not its first"
    assert script(train_ssd.main, *argv_of(voc_root, tmp_path / "again", "--epochs=1")).code == 0
    assert (tmp_path / "again" / "train_batch.jpg").read_bytes() == drawn["train_batch.jpg"]


def test_without_matplotlib_a_run_goes_on(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = script(train_ssd.main, *argv_of(voc_root, tmp_path, "--epochs=2"))
    assert done.code == 0
    assert done.out.count("results.png: not drawn") == 1
    assert (tmp_path / "val_batch.jpg").is_file()


def test_without_detections_there_are_curves_alone(script, voc_root, tmp_path):
    done = script(train_ssd.main, *argv_of(voc_root, tmp_path, "--epochs=1", "--no-validation-mean-ap"))
    assert done.code == 0
    assert (tmp_path / "results.png").is_file()
    assert not (tmp_path / "val_batch.jpg").exists()
    (row,) = [line for line in done.out.splitlines() if line.endswith("best so far")]
    assert " -  " in row, "the table has a dash for what was not computed"


def test_the_training_picture_shows_the_objects_of_its_samples(voc_root, tmp_path, script):
    """A wrong label must be seen: the same images with other classes give another picture."""
    for name in "ab":
        write_small_voc(tmp_path / name, 8, 4)
    for path in (tmp_path / "b" / "Annotations").iterdir():
        path.write_text(path.read_text().replace(CLASSES[0], CLASSES[1]))
    for name in "ab":
        assert script(train_ssd.main, *argv_of(tmp_path / name, tmp_path / name / "m", "--epochs=1")).code == 0
    one, other = (cv2.imread(str(tmp_path / name / "m" / "train_batch.jpg")) for name in "ab")
    assert one.shape == other.shape
    assert (one != other).any()


def test_an_epoch_is_a_row_of_a_table(script, voc_root, tmp_path):
    done = script(train_ssd.main, *argv_of(voc_root, tmp_path, "--epochs=2"))
    lines = [line.partition(" - ")[2].split() for line in done.out.splitlines()]
    heads = [line for line in lines if line[:1] == ["epoch"]]
    assert heads == [["epoch", "loss", "val", "loss", "mAP", "COCO", "AP", "AP50", "seconds", "left"]]
    rows = [line for line in lines if len(line) >= 9 and line[0] in ("0", "1")]
    assert [row[7:9] for row in rows][-1] == ["0", "s"]
    with open(tmp_path / "results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row[4] for row in rows] == [f"{float(row['COCO AP/val']):.4f}" for row in table]


def write_results(folder, rows):
    folder.mkdir(parents=True)
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture
def runs(tmp_path):
    columns = [column.replace("*", "x") for panel in (*PANELS, *KEYS.values()) for column in panel.columns]
    rows = [{"epoch": epoch, **{column: 1 / (epoch + 1) for column in columns}} for epoch in range(3)]
    log = tmp_path / "upstream.log"
    log.write_text(UPSTREAMS_LOG)
    return write_results(tmp_path / "one", rows), write_results(tmp_path / "two", rows[:2]), log


def test_upstreams_log_is_read(runs):
    rows = plot_logs.read_run(runs[2])
    assert rows[0] == {
        "epoch": 0,
        "Loss/train": 8.0,
        "Loss/val": 5.5,
        "Regression Loss/val": 2.0,
        "Classification Loss/val": 3.5,
    }
    assert (rows[1]["Loss/train"], rows[1]["Mean Average Precision/val"]) == (4.0, 0.25)
    assert np.isnan(rows[1]["Loss/val"])


def test_our_own_log_says_what_results_csv_says(script, voc_root, tmp_path):
    done = script(train_ssd.main, *argv_of(voc_root, tmp_path, "--epochs=2"))
    (tmp_path / "log.txt").write_text(done.out)
    from_table, from_log = plot_logs.read_run(tmp_path), plot_logs.read_run(tmp_path / "log.txt")
    for row, logged in zip(from_table, from_log, strict=True):
        for column in ("Loss/train", "Loss/val", "Classification Loss/val", "Mean Average Precision/val"):
            assert float(row[column]) == pytest.approx(logged[column], abs=1e-4)


@pytest.mark.parametrize("key", [*KEYS, "Loss/val"])
def test_every_key_draws_a_plot(script, runs, tmp_path, key):
    done = script(plot_logs.main, *runs[:2], f"--keys={key}", f"--output={tmp_path / 'c.png'}")
    assert (done.code, done.err) == (0, "")
    assert cv2.imread(str(tmp_path / "c.png")).std() > 10


def test_several_runs_and_keys(script, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script(plot_logs.main, *runs, "--keys", "loss", "mAP").code == 0
    both = cv2.imread("curves.png")
    assert script(plot_logs.main, runs[2]).code == 0  # a log has no AP, which is left out of the usual plots
    assert cv2.imread("curves.png").shape == both.shape
    assert script(plot_logs.main, *runs, "--keys", "loss").code == 0
    assert both.shape[1] > cv2.imread("curves.png").shape[1], "a plot for each key"


def test_what_cannot_be_drawn_is_one_line(script, runs, tmp_path):
    output = f"--output={tmp_path / 'c.png'}"
    assert_refused(script(plot_logs.main, tmp_path / "nothing", output), "nothing", "no such file", "results.csv")
    (tmp_path / "empty.log").write_text("hello\n")
    assert_refused(script(plot_logs.main, tmp_path / "empty.log", output), "empty.log", "no epoch")
    assert_refused(script(plot_logs.main, runs[2], output, "--keys=speed"), "--keys", "'speed'", "AP50", "Loss/val")
    assert_refused(script(plot_logs.main, runs[0], runs[0], output), "named twice")
    assert_refused(script(plot_logs.main, runs[0], "--output=c.jpg"), "--output", ".png", ".html")


def test_runs_of_the_same_name_have_as_much_of_their_paths_as_it_takes(tmp_path):
    paths = [tmp_path / "a" / "model", tmp_path / "b" / "model"]
    assert plot_logs.names_of(paths) == ["a/model", "b/model"]
    assert plot_logs.names_of([*paths, tmp_path / "c" / "b" / "model"]) == [
        *(f"{tmp_path.name}/{name}/model" for name in "ab"),
        "c/b/model",
    ]
    assert plot_logs.names_of([Path(".")]) == ["."]
    assert plot_logs.names_of([Path("results.csv"), Path("a")]) == [".", "a"]
    assert plot_logs.names_of([paths[0], tmp_path / "b" / "other" / "results.csv"]) == ["model", "other"]


def test_panels_without_numbers_are_left_out(tmp_path, caplog):
    rows = [{"epoch": "0", "Loss/train": "1.5", "COCO AP/val": "nan", "rate heads": ""}]
    assert [columns_of(panel, {"run": rows}) for panel in PANELS] == [["Loss/train"], [], [], []]
    with caplog.at_level(logging.WARNING):
        draw_runs(tmp_path / "r.png", {"run": rows}, PANELS)
    assert cv2.imread(str(tmp_path / "r.png")).shape[:2] == (450, 800)
    assert not caplog.records


def test_the_plot_of_a_run_names_it_and_marks_its_best_epoch(tmp_path, figures_of):
    figures = figures_of(training_plots)
    aps = (0.1, 0.4, 0.3)
    rows = [
        {"epoch": n, "Loss/val": 1.0, "Mean Average Precision/val": ap, "COCO AP/val": ap, "rate heads": 0.1}
        for n, ap in enumerate(aps)
    ]
    assert best_epoch(rows) == 1
    draw_runs(tmp_path / "r.png", {"fruit": rows}, PANELS, best_epoch(rows))
    assert figures[0].get_suptitle() == "fruit"
    marks = {axes.get_title(): [line.get_label() for line in axes.lines] for axes in figures[0].axes}
    assert ["best epoch: 1" in labels for labels in marks.values()] == [True, True, False]
