"""`benchmarks/accuracy.py`: one call that trains two seeds, and what later calls make of its files."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import assert_refused, write_small_voc

from benchmarks import accuracy
from vision.datasets import open_dataset, open_splits
from vision.structures import Annotation, Detections

COMMON = "--net=sq-ssd-lite --resolution=32 --epochs=1 --pretrained-ssd=none --augmentation=none --device=cpu --amp=off --workers=0 --no-plots"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset whose list for training names the test images, too."""
    root = write_small_voc(tmp_path_factory.mktemp("data") / "small", train=6, test=3)
    lists = root / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "test.txt").read_text())
    return root


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("accuracy") / "runs"


@pytest.fixture(scope="module")
def argv(data, runs):
    return (
        f"--runs={runs}",
        "--data",
        f"small={data}",
        "--seeds",
        "1",
        "2",
        f"--common={COMMON}",
        "--exclude-test-images",
    )


@pytest.fixture(scope="module")
def trained(argv, runs):
    """The folder of all runs, after two seeds of one setting."""
    accuracy.main([*argv, "--setting", "plain=--batch-size=3"])
    return runs


def results_of(runs):
    return [json.loads(path.read_text()) for path in sorted(runs.glob("*/*/seed*/ap.json"))]


def copy_setting(source, runs):
    """Copy a folder of runs, and its setting under another name, with figures that differ."""
    shutil.copytree(source, runs, symlinks=True)
    for folder in sorted((runs / "small" / "plain").iterdir()):
        other = runs / "small" / "other" / folder.name
        shutil.copytree(folder, other)
        figures = json.loads((other / "ap.json").read_text())
        figures |= {"setting": "other", "curve": [[0, 0.25], [1, 0.25 * figures["seed"]]]}
        (other / "ap.json").write_text(json.dumps(figures))


def test_the_table_has_mean_least_and_most_of_the_seeds(trained, script):
    one, two = results_of(trained)
    assert (one["seed"], two["seed"]) == (1, 2)
    assert one["command"].startswith("train_ssd.py ") and "--seed=1" in one["command"]
    assert (one["torch"], one["threads"], one["images"]) == (torch.__version__, torch.get_num_threads(), 3)
    assert [epoch for epoch, _ in one["curve"]] == [0]
    done = script(accuracy.main, f"--runs={trained}", "--table-only")
    assert done.code == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.out.splitlines() if line.startswith("|")]
    figures = [
        {"AP50": f["AP50"], "AP": f["AP"]} | {f"AP50 {k}": v for k, v in f["AP50 per class"].items()}
        for f in (one, two)
    ]
    expected = {"setting": "plain", "seeds": "1 2", "seconds": f"{(one['seconds'] + two['seconds']) / 2:.0f}"}
    for name in figures[0]:
        values = [of_seed[name] for of_seed in figures]
        expected[name] = f"{sum(values) / 2:.3f} ({min(values):.3f}..{max(values):.3f})"
    assert dict(zip(rows[0], rows[2], strict=True)) == expected


def test_the_same_command_again_trains_nothing(trained, argv, script, monkeypatch):
    monkeypatch.setattr(accuracy, "train", lambda run: pytest.fail(f"{run.folder} is trained again"))
    done = script(accuracy.main, *argv, "--setting", "plain=--batch-size=3")
    assert done.code == 0
    assert "2 of 2 runs are done" in done.out
    assert done.out.endswith(accuracy.table(results_of(trained)) + "\n")


def test_a_killed_run_goes_on(trained, argv, tmp_path, monkeypatch):
    """The trained one, less its figures, is what a run is that was killed after its last epoch."""
    shutil.copytree(trained, tmp_path / "runs", symlinks=True)
    folder = tmp_path / "runs" / "small" / "plain" / "seed1"
    (folder / "ap.json").unlink()
    begun = []
    monkeypatch.setattr(accuracy, "train", lambda *run: begun.append(run))
    accuracy.main([f"--runs={tmp_path / 'runs'}", *argv[1:], "--setting", "plain=--batch-size=3"])
    ((begun_folder, begun_argv),) = begun
    assert begun_folder == folder
    assert "--auto-resume" in begun_argv
    again, before = (results_of(root)[0] for root in (tmp_path / "runs", trained))
    for key in ("AP", "AP50", "AP50 per class", "seconds", "curve"):
        assert again[key] == before[key]


def test_another_command_for_the_same_folder_is_refused(trained, argv, script):
    done = script(accuracy.main, *argv, "--setting", "plain=--batch-size=2")
    assert_refused(
        done, str(trained / "small" / "plain" / "seed1"), "--batch-size=3", "--batch-size=2", "remove the folder"
    )


def test_an_option_that_is_newer_than_a_run_is_no_other_command(trained, argv, tmp_path, script):
    shutil.copytree(trained, tmp_path / "runs", symlinks=True)
    for path in (tmp_path / "runs").glob("small/plain/seed*/asked.json"):
        asked = json.loads(path.read_text())
        assert "plots" not in asked["values"], "it decides no result"
        del asked["values"]["ema"]
        path.write_text(json.dumps(asked))
    argv = [f"--runs={tmp_path / 'runs'}", *argv[1:], "--setting"]
    assert "2 of 2 runs are done" in script(accuracy.main, *argv, "plain=--batch-size=3").out
    for path in (tmp_path / "runs").glob("small/plain/seed*/asked.json"):
        asked = json.loads(path.read_text())
        path.write_text(json.dumps({**asked, "values": {**asked["values"], "ema": "True"}}))
    assert_refused(script(accuracy.main, *argv, "plain=--batch-size=3"), "with ema 'True', asked for is 'False'")


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--setting", "fast=--lr=x"], ["--setting fast: argument --lr", "'x'"]),
        (["--setting", "fast=--seed=3"], ["--setting fast: has --seed", "leave it out"]),
        (["--setting", "../fast="], ["--setting", "'../fast='", "NAME="]),
        (["--setting", "fast=", "fast=--lr=1"], ["--setting", "twice"]),
        (["--setting", "fast=", "--data", "gone=/nowhere"], ["/nowhere", "no such folder"]),
        (["--setting", "fast=", "--compare", "a", "b"], ["--misses and --compare"]),
        ([], ["name --data and --setting"]),
    ],
)
def test_what_cannot_be_run_is_refused_before_training(options, fragments, trained, argv, script):
    assert_refused(script(accuracy.main, *argv, *options), *fragments)
    assert not (trained / "small" / "fast").exists()


def test_training_on_the_images_that_are_measured_is_refused(data, tmp_path, script):
    shutil.copytree(data, tmp_path / "listless")
    shutil.rmtree(tmp_path / "listless" / "ImageSets")
    argv = f"--runs={tmp_path}", "--data", f"one={tmp_path / 'listless'}", "--setting", "held=--val-split=0.5"
    assert_refused(script(accuracy.main, *argv), "listless", "no list of test images", "leave --val-split out")


def test_excluded_images_are_trained_on_no_more(data, tmp_path):
    leaking = open_splits("voc", [data])
    assert set(leaking.validation.ids) < set(leaking.train.ids)
    view = accuracy.without_test_images(data, tmp_path / "view")
    clean = open_splits("voc", [view])
    assert clean.train.ids == [name for name in leaking.train.ids if name not in leaking.validation.ids]
    assert clean.validation.ids == leaking.validation.ids
    assert clean.train.class_names == leaking.train.class_names
    accuracy.without_test_images(data, tmp_path / "view")
    with pytest.raises(ValueError, match="remove .*view"):
        accuracy.without_test_images(write_small_voc(tmp_path / "other", 2, 1), tmp_path / "view")


def test_runs_are_trained_without_the_excluded_images(trained):
    view = trained / accuracy.VIEWS / "small"
    assert all(f"--data={view}" in figures["command"] for figures in results_of(trained))
    assert (view / "ImageSets" / "Main" / "trainval.txt").read_text().split() == [f"train_{n:05d}" for n in range(6)]


def test_curves_and_misses_are_drawn(trained, tmp_path, script):
    copy_setting(trained, tmp_path / "runs")
    plot, misses = tmp_path / "new" / "plot.png", tmp_path / "new" / "misses.png"
    options = f"--plot={plot}", f"--misses={misses}", "--compare", "plain", "other"
    done = script(accuracy.main, f"--runs={tmp_path / 'runs'}", "--table-only", *options)
    assert done.code == 0, done.err
    assert cv2.imread(str(plot)).std() > 0
    assert cv2.imread(str(misses)) is not None
    assert "0 objects on 0 images" in done.out  # both settings are the same net
    done = script(accuracy.main, f"--runs={tmp_path / 'runs'}", "--table-only", *options[:-1], "third")
    assert_refused(done, "--compare plain third", "train them first")


class Oracle:
    """Finds all objects of the first images of a dataset."""

    def __init__(self, dataset, images):
        self.class_names = dataset.class_names
        annotations = [dataset.annotation(index) for index in range(len(dataset))]
        self._answers = [(a, 1.0 if index < images else 0.1) for index, a in enumerate(annotations)]

    def detect(self, image):
        annotation, score = self._answers.pop(0)
        labels = torch.from_numpy(annotation.labels)
        return Detections(torch.from_numpy(annotation.boxes), labels, torch.full(labels.shape, score))


def test_images_with_missed_objects_are_chosen(data):
    dataset = open_dataset("voc", data, "test")
    cells = accuracy.missed_cells(dataset, Oracle(dataset, 1), Oracle(dataset, 3))
    assert [count for count, _ in cells] == [len(dataset.annotation(index).labels) for index in (1, 2)]
    assert all(cell.drawn(60, 60).std() > 0 for _, cell in cells)
    assert accuracy.missed_cells(dataset, Oracle(dataset, 3), Oracle(dataset, 1)) == []


def test_an_object_is_found_once_and_by_its_class():
    box, far = [10, 10, 50, 50], [60, 60, 90, 90]
    boxes = np.array([box, box, far], np.float32)
    annotation = Annotation(boxes, np.array([1, 1, 2]), np.zeros(3, bool), (100, 100))

    def found(*detections):
        boxes, labels, scores = zip(*detections, strict=True)
        detections = Detections(torch.tensor(boxes).float(), torch.tensor(labels), torch.tensor(scores))
        return accuracy.found_objects(annotation, detections).tolist()

    assert found((box, 1, 0.9)) == [True, False, False]
    assert found((box, 1, 0.9), (box, 1, 0.8), (far, 2, 0.7)) == [True, True, True]
    assert found((far, 1, 0.9), (far, 2, 0.4), ([75, 60, 105, 90], 2, 0.9)) == [False, False, False]
