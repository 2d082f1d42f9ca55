"""Plots, sheets and the page of odd evaluations: what they show can be read, and nothing warns."""

import itertools

import cv2
import numpy as np
import pytest
import torch

from vision.evaluation import Evaluation
from vision.report import evaluation_images, evaluation_plots
from vision.report.drawing import FALSE, HIT, IGNORED, MISSED, TRUTH, match_marks
from vision.report.evaluation_images import draw_worst
from vision.report.evaluation_page import write_page
from vision.report.evaluation_plots import draw_plots, most_confused
from vision.structures import Annotation, DataError, Detections

SIZE = (64, 48)


def annotation(boxes, labels, difficult=None) -> Annotation:
    difficult = [False] * len(labels) if difficult is None else difficult
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Annotation(boxes, np.array(labels, np.int64), np.array(difficult, bool), SIZE)


def detections(boxes, labels, scores) -> Detections:
    return Detections(torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(labels).long(), torch.tensor(scores))


def evaluation(found, truth, names) -> Evaluation:
    return Evaluation.of([f"image {i}" for i in range(len(truth))], found, truth, ("BACKGROUND", *names))


def boxes_of(count: int, rng) -> np.ndarray:
    corners = rng.uniform(0, 30, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(5, 15, (count, 2))], axis=1)


def crowd(classes: int) -> Evaluation:
    """Objects of many classes, of which some are found, some are missed, and some are taken for others."""
    rng = np.random.default_rng(classes)
    truth, found = [], []
    for _ in range(4):
        boxes, labels = boxes_of(3 * classes, rng), rng.integers(1, classes + 1, 3 * classes)
        truth.append(annotation(boxes, labels))
        taken_for = np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(1, classes + 1, len(labels)))
        found.append(detections(boxes[::2], taken_for[::2], rng.random(len(labels[::2])).astype(np.float32)))
    return evaluation(found, truth, [f"class {i}" for i in range(classes)])


BOX = [10, 10, 30, 30]
ODD = {
    "a class without objects": evaluation([detections([BOX], [2], [0.9])], [annotation([BOX], [1])], ["a", "b"]),
    "nothing found": evaluation([detections([], [], [])], [annotation([BOX], [1])], ["a"]),
    "difficult objects alone": evaluation([detections([BOX], [1], [0.9])], [annotation([BOX], [1], [True])], ["a"]),
    "an image without objects": evaluation(
        [detections([BOX], [1], [0.3]), detections([BOX], [1], [0.9])],
        [annotation([], []), annotation([BOX], [1])],
        ["a"],
    ),
    "signs of HTML and mathematics in a name": evaluation(
        [detections([BOX], [1], [0.9])], [annotation([BOX], [1])], ["<a>$x_{"]
    ),
    "ten classes": crowd(10),
    "eighty classes": crowd(80),
}


def blank(_: int) -> np.ndarray:
    return np.full((SIZE[1], SIZE[0], 3), 127, np.uint8)


@pytest.mark.parametrize("name", ODD)
def test_everything_is_drawn(name, tmp_path):
    pictures = draw_plots(tmp_path, ODD[name]) | draw_worst(tmp_path, ODD[name], blank)
    for path in pictures.values():
        image = cv2.imread(str(path))
        assert image is not None, path
        assert image.std() > 3, f"{path} is blank"
    write_page(tmp_path / "page.html", "A <page>", {"model": "m & n"}, ODD[name], pictures)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == len(pictures)
    assert "A &lt;page&gt;" in page
    assert "m &amp; n" in page
    assert "nan" not in page.partition("<img")[0]
    assert "<a>" not in page


def test_worst_images_come_first_and_show_what_is_wrong(tmp_path):
    """One image with a missed object, one with two, one with a false detection, one without fault."""
    second = [35, 10, 55, 30]
    truth = [annotation([BOX], [1]), annotation([BOX, second], [1, 1]), annotation([], []), annotation([BOX], [1])]
    found = [detections([], [], [])] * 2 + [detections([BOX], [1], [0.95]), detections([BOX], [1], [0.9])]
    of_all = evaluation(found, truth, ["a"])
    assert of_all.missed_and_false.tolist() == [[1, 0], [2, 0], [0, 1], [0, 0]]
    seen = []

    def read(index: int) -> np.ndarray:
        seen.append(index)
        return blank(index)

    sheets = draw_worst(tmp_path, of_all, read)
    assert seen == [1, 0, 2]
    assert list(sheets) == ["Images with most missed objects", "Images with most false alarms"]
    for (title, path), (there, absent) in zip(sheets.items(), (([MISSED], [FALSE]), ([FALSE], [MISSED])), strict=True):
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
        pixels = pixels[np.flatnonzero((np.abs(pixels - 127) < 9).all(axis=2).sum(axis=1) > 100)]  # below the legend
        for color in there:
            assert (np.abs(pixels - color).sum(axis=2) < 60).any(), (title, color)
        for color in (*absent, HIT):
            assert not (np.abs(pixels - color).sum(axis=2) < 60).any(), (title, color)


def test_an_image_that_cannot_be_read_is_left_out(tmp_path):
    def read(index: int) -> np.ndarray:
        if index == 0:
            raise DataError("gone")
        return blank(index)

    truth = [annotation([BOX], [1])] * 2
    nothing = evaluation([detections([], [], [])] * 2, truth, ["a"])
    sheets = draw_worst(tmp_path, nothing, read)
    one = cv2.imread(str(sheets["Images with most missed objects"]))
    columns = np.flatnonzero((np.abs(one.astype(int) - 127) < 9).all(axis=2).sum(axis=0) > 100)
    assert np.ptp(columns) + 1 == pytest.approx(len(columns), abs=10), "one image, not two"


def test_sheets_have_the_names_of_files_and_what_the_colors_mean(tmp_path, monkeypatch):
    laid_out = []
    sheet = evaluation_images.contact_sheet
    monkeypatch.setattr(evaluation_images, "contact_sheet", lambda *all_of: laid_out.append(all_of) or sheet(*all_of))
    truth = [annotation([BOX], [1])] * 2
    draw_worst(tmp_path, evaluation([detections([], [], [])] * 2, truth, ["a"]), blank, ["one.jpg", "two.png"])
    ((cells, texts, key),) = laid_out
    assert [cell.name for cell in cells] == ["one.jpg: 1", "two.png: 1"]
    assert texts == ["2 of 2 images with missed objects, and how many each has", "threshold 0.5"]
    assert set(key) >= {"truth", "hit", "false alarm", "missed"}


def test_marks_tell_truth_hits_false_alarms_and_missed_objects_apart():
    second, third = [35, 10, 55, 30], [10, 32, 30, 46]
    truth = [annotation([BOX, second, third], [1, 1, 1], [False, False, True])]
    found = [detections([BOX, [50, 35, 60, 45], third], [1, 1, 1], [0.9, 0.8, 0.7])]
    of_all = Evaluation.of(["x"], found, truth, ("BACKGROUND", "a"), threshold=0.5)
    marks = match_marks(of_all.matches[0], of_all.class_names)
    assert list(zip(marks.colors, marks.captions, strict=True)) == [
        (TRUTH, ""),
        (HIT, "a 0.90"),
        (FALSE, "a 0.80"),
        (IGNORED, "a 0.70"),
        (MISSED, "missed a"),
    ]


@pytest.mark.parametrize(("classes", "shown"), [(3, 3), (24, 24), (28, 25), (80, 25)])
def test_a_confusion_matrix_shows_the_most_confused_classes_and_the_rest_as_one(classes, shown):
    rng = np.random.default_rng(0)
    matrix = np.diag(np.arange(classes + 1)) * 10
    matrix[7 % classes + 1, 1] = matrix[0, 2] = 99
    matrix[rng.integers(1, classes + 1, 50), rng.integers(1, classes + 1, 50)] += 1
    reduced, names = most_confused(matrix, ["BACKGROUND", *(f"class {n}" for n in range(1, classes + 1))])
    assert reduced.sum() == matrix.sum(), "nothing is lost"
    assert reduced.shape == (shown + 1, shown + 1)
    assert len(names) == shown + 1
    assert {f"class {7 % classes + 1}", "class 1", "class 2", "nothing"} <= set(names)
    assert reduced[names.index(f"class {7 % classes + 1}"), names.index("class 1")] >= 99
    assert (names[-1] == f"{classes - 24} other classes") == (classes > 24)


@pytest.mark.parametrize("name", ["a class without objects", "ten classes", "eighty classes"])
def test_no_legend_lies_over_data_and_no_names_over_names(name, tmp_path, figures_of):
    figures = figures_of(evaluation_plots)
    draw_plots(tmp_path, ODD[name])
    assert len(figures) == 4
    for figure in figures:
        renderer = figure.canvas.get_renderer()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                labels = [tick for tick in axis.get_ticklabels() if tick.get_text()]
                turned = any(tick.get_rotation() for tick in labels)
                extents = [] if turned else [tick.get_window_extent(renderer) for tick in labels]
                assert not any(one.overlaps(other) for one, other in itertools.pairwise(extents))
            if axes.get_legend() is not None:
                legend = axes.get_legend().get_window_extent(renderer)
                assert not any(legend.overlaps(other.get_window_extent(renderer)) for other in figure.axes)
                assert figure.bbox.contains(*legend.min)
                assert figure.bbox.contains(*legend.max)
