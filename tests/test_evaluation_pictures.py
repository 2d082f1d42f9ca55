"""Plots, sheets and the page of odd evaluations: what they show can be read, and nothing warns."""

import cv2
import numpy as np
import pytest
import torch

from vision.evaluation import Evaluation
from vision.report.drawing import FALSE, HIT, MISSED
from vision.report.evaluation_images import draw_worst
from vision.report.evaluation_page import write_page
from vision.report.evaluation_plots import draw_plots
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
    assert list(sheets) == ["Images with most missed objects", "Images with most false detections"]
    for (title, path), (there, absent) in zip(sheets.items(), (([MISSED], [FALSE]), ([FALSE], [MISSED])), strict=True):
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
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
    assert one.shape[0] == one.shape[1], "one image, not two"
