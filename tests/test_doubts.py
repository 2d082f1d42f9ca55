"""Doubts about labels: each planted fault is found as what it is, and right labels raise none."""

import csv
import re

import numpy as np
import pytest
import torch
from conftest import assert_refused

import eval_ssd
from vision.datasets import ReadingOptions, open_dataset, open_folder
from vision.evaluation import Evaluation
from vision.evaluation.doubts import (
    DOUBLE,
    KINDS,
    MISPLACED,
    NOT_FOUND,
    OVERLOOKED,
    SWAPPED,
    Doubt,
    find_doubts,
    with_suggestions,
)
from vision.report import doubts_page
from vision.report.doubts_page import MAX_PICTURES
from vision.report.drawing import FALSE, HIT
from vision.structures import Annotation, Detections

NAMES = ("BACKGROUND", "apple", "pear")
#: Three objects that do not touch.
BOXES = ((10.0, 10.0, 50.0, 50.0), (60.0, 10.0, 100.0, 50.0), (10.0, 60.0, 50.0, 100.0))
LABELS = (1, 2, 1)


def doubts_of(boxes, labels, found=((*BOXES,), LABELS, (0.9, 0.9, 0.9)), difficult=None):
    """Doubts about one image, beside ten that are right, so that classes are found reliably."""
    difficult = [False] * len(labels) if difficult is None else difficult
    right = Annotation(np.array(BOXES, np.float32), np.array(LABELS), np.zeros(3, bool), (120, 120))
    annotation = Annotation(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(difficult, bool), (120, 120)
    )
    sure = Detections(torch.tensor(BOXES), torch.tensor(LABELS), torch.tensor([0.9, 0.9, 0.9]))
    detections = Detections(
        torch.tensor(found[0], dtype=torch.float32).reshape(-1, 4), torch.tensor(found[1]), torch.tensor(found[2])
    )
    of_images, annotations = [sure] * 10 + [detections], [right] * 10 + [annotation]
    report = Evaluation.of([str(n) for n in range(11)], of_images, annotations, NAMES).report
    doubts = find_doubts(of_images, annotations, NAMES, report)
    assert all(doubt.image == 10 for doubt in doubts)
    return doubts


def test_right_labels_raise_no_doubt():
    assert doubts_of(BOXES, LABELS) == []


def test_an_object_without_a_label_is_overlooked():
    (doubt,) = doubts_of(BOXES[:2], LABELS[:2])
    assert (doubt.kind, doubt.labeled, doubt.found, doubt.object) == (OVERLOOKED, "", "apple", -1)
    assert doubt.box == BOXES[2]
    assert doubt.score == pytest.approx(0.9, abs=1e-6)


def test_a_label_of_another_class_is_swapped():
    (doubt,) = doubts_of(BOXES, (1, 1, 1))
    assert (doubt.kind, doubt.labeled, doubt.found, doubt.object) == (SWAPPED, "apple", "pear", 1)


def test_a_box_beside_what_is_found_is_misplaced():
    moved = (BOXES[0], (78.0, 10.0, 118.0, 50.0), BOXES[2])
    (doubt,) = doubts_of(moved, LABELS)
    assert (doubt.kind, doubt.object, doubt.found_box) == (MISPLACED, 1, BOXES[1])
    assert doubt.box == moved[1]


def test_a_label_of_nothing_is_not_found():
    (doubt,) = doubts_of((*BOXES, (60.0, 60.0, 100.0, 100.0)), (*LABELS, 2))
    assert (doubt.kind, doubt.labeled, doubt.found, doubt.found_box, doubt.object) == (NOT_FOUND, "pear", "", None, 3)


def test_a_weak_box_does_not_hide_that_a_label_is_of_nothing():
    place = (60.0, 60.0, 100.0, 100.0)
    found = ((*BOXES, place), (*LABELS, 1), (0.9, 0.9, 0.9, 0.02))
    (doubt,) = doubts_of((*BOXES, place), (*LABELS, 2), found)
    assert (doubt.kind, doubt.object) == (NOT_FOUND, 3)


def test_difficult_objects_may_lie_on_others():
    labels, boxes = (*LABELS, 1), (*BOXES, (11.0, 10.0, 50.0, 50.0))
    assert doubts_of(boxes, labels, difficult=[False, False, False, True]) == []


def test_a_class_that_is_never_found_raises_no_doubt_about_its_labels():
    """The net knows nothing of it."""
    annotation = Annotation(np.array(BOXES[:1], np.float32), np.array([2]), np.zeros(1, bool), (120, 120))
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    report = Evaluation.of(["x"], [nothing], [annotation], NAMES).report
    assert find_doubts([nothing], [annotation], NAMES, report) == []


def test_an_object_with_two_labels_is_double():
    doubts = doubts_of((*BOXES, (11.0, 10.0, 50.0, 50.0)), (*LABELS, 1))
    assert [(doubt.kind, doubt.object) for doubt in doubts if doubt.kind == DOUBLE] == [(DOUBLE, 3)]


def test_difficult_objects_raise_none_and_explain_what_is_found():
    assert doubts_of(BOXES, (1, 1, 1), difficult=[False, True, False]) == []


def test_the_surest_come_first():
    found = ((*BOXES, (60.0, 60.0, 100.0, 100.0)), (*LABELS, 2), (0.9, 0.6, 0.9, 0.75))
    doubts = doubts_of(BOXES[:1] + BOXES[2:], (1, 1), found)
    assert [(doubt.kind, round(doubt.score, 2)) for doubt in doubts] == [(OVERLOOKED, 0.75), (OVERLOOKED, 0.6)]


def test_one_place_is_overlooked_once():
    found = ((*BOXES, (61.0, 10.0, 100.0, 50.0)), (*LABELS, 1), (0.9, 0.9, 0.9, 0.5))
    (doubt,) = doubts_of(BOXES[:1] + BOXES[2:], (1, 1), found)
    assert (doubt.found, round(doubt.score, 2)) == ("pear", 0.9)


def test_doubts_are_written_as_a_table_and_a_page(script, sure_model, own_voc, tmp_path):
    """One label of each training image is taken away; the model has seen them all."""
    for path in (own_voc / "Annotations").glob("train*.xml"):
        path.write_text(re.sub(r"<object>.*?</object>", "", path.read_text(), count=1, flags=re.DOTALL))
    argv = (f"--model={sure_model}", f"--data={own_voc}", "--split=train", "--doubts", f"--eval-dir={tmp_path / 'e'}")
    done = script(eval_ssd.main, *argv)
    assert (done.code, done.err) == (0, "")
    with open(tmp_path / "e" / "doubts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert {row["kind"] for row in rows} <= set(KINDS)
    assert OVERLOOKED in {row["kind"] for row in rows}
    page = (tmp_path / "e" / "doubts.html").read_text()
    assert page.count("<figure>") == min(len(rows), MAX_PICTURES)
    assert all(row["image"] in page for row in rows[:MAX_PICTURES])
    assert f"Saved {tmp_path / 'e' / 'doubts.html'}: {len(rows)} doubts" in done.out
    assert not (tmp_path / "e/doubts_voc").exists()


def test_suggestions_stand_in_place_of_doubtful_labels():
    boxes = np.array([*BOXES, (61.0, 10.0, 101.0, 50.0)], np.float32)
    annotation = Annotation(boxes, np.array([1, 1, 1, 2]), np.array([True, False, False, False]), (120, 120))
    elsewhere = (14.0, 64.0, 54.0, 104.0)
    doubts = [
        Doubt(0, SWAPPED, 0.8, BOXES[1], "apple", "pear", BOXES[1], 1),
        Doubt(0, MISPLACED, 0.6, BOXES[2], "apple", "apple", elsewhere, 2),
        Doubt(0, DOUBLE, 0.9, tuple(boxes[3]), "pear", "apple", BOXES[1], 3),
        Doubt(0, NOT_FOUND, 0.7, BOXES[0], "apple", "", None, 0),
        Doubt(0, OVERLOOKED, 0.5, (0.0, 0.0, 9.0, 9.0), "", "pear", (0.0, 0.0, 9.0, 9.0)),
    ]
    suggested = with_suggestions(annotation, doubts, NAMES)
    np.testing.assert_allclose(suggested.boxes, [BOXES[0], BOXES[1], elsewhere, (0, 0, 9, 9)])
    assert suggested.labels.tolist() == [1, 2, 1, 2]
    assert suggested.scores.tolist() == [1, 0.8, 0.6, 0.5]
    assert suggested.difficult.tolist() == [True, False, False, False]
    unchanged = with_suggestions(annotation, [], NAMES)
    np.testing.assert_array_equal(unchanged.boxes, boxes)
    assert annotation.labels.tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_doubts_are_written_for_a_labelling_tool(script, sure_model, own_voc, tmp_path, kind):
    xml = own_voc / "Annotations/train_00000.xml"
    text = xml.read_text()
    xml.write_text(re.sub("<difficult>0", "<difficult>1", text, count=1))
    argv = (f"--model={sure_model}", f"--data={own_voc}", "--split=train", f"--eval-dir={tmp_path / 'e'}")
    done = script(eval_ssd.main, *argv, "--doubts", f"--save-annotations={kind}")
    assert (done.code, done.err) == (0, "")
    with open(tmp_path / "e" / "doubts.csv", newline="") as file:
        rows = list(csv.DictReader(file))[:MAX_PICTURES]
    added = {row["image"]: [] for row in rows}
    for row in rows:
        if row["kind"] == OVERLOOKED:
            added[row["image"]].append(row["found"])
    folder = tmp_path / "e" / f"doubts_{kind}"
    reader = open_folder("auto", folder, ReadingOptions(cache=False))
    assert reader.name == kind
    records = {record.image_path.stem: record for record in reader.read(reader.listed_or_all("train")).records}
    assert set(records) == set(added)
    originals = {record.image_id: record for record in open_dataset("voc", own_voc, "train").records}
    for image, record in records.items():
        original = originals[image]
        assert len(record.names) <= len(original.names) + len(added[image])
        assert [name for name in added[image] if name not in record.names] == []
        assert record.digest == original.digest
        if kind == "voc":
            assert sum(record.difficult) == sum(original.difficult)
    assert any(sum(originals[image].difficult) for image in records)


def test_labels_of_unknown_classes_that_are_not_written_are_counted(script, sure_model, own_voc, tmp_path):
    for path in (own_voc / "Annotations").glob("train*.xml"):
        path.write_text(path.read_text().replace("<name>ball</name>", "<name>comet</name>", 1))
    argv = (f"--model={sure_model}", f"--data={own_voc}", "--split=train", f"--eval-dir={tmp_path / 'e'}")
    done = script(eval_ssd.main, *argv, "--doubts", "--save-annotations=voc")
    assert done.code == 0
    assert re.search(r"--save-annotations: [1-9]\d* labels of these images are not written", done.out)


def test_annotations_without_doubts_are_refused(script, sure_model, own_voc):
    argv = (f"--model={sure_model}", f"--data={own_voc}", "--save-annotations=voc")
    assert_refused(script(eval_ssd.main, *argv), "--save-annotations", "add --doubts")


def test_a_crop_shows_the_label_and_what_is_found():
    image = np.full((100, 200, 3), 255, np.uint8)
    doubt = Doubt(0, MISPLACED, 0.5, (20.0, 20.0, 60.0, 60.0), "apple", "apple", (40.0, 20.0, 80.0, 60.0), 0)
    crop = doubts_page._crop(image, doubt)
    assert max(crop.shape[:2]) == doubts_page._SIDE
    colors = {tuple(color) for color in crop.reshape(-1, 3).tolist()}
    assert {tuple(HIT), tuple(FALSE)} <= colors
