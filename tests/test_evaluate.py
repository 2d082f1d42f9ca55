"""Average precision: golden, and the devkit's rules on known answers."""

import math

import numpy as np
import pytest
import torch
from conftest import golden_json

from vision.engine.evaluate import evaluate
from vision.structures import Annotation, Detections
from vision.utils.measurements import compute_average_precision, compute_voc2007_average_precision

NAMES = ("BACKGROUND", "cat", "dog")


@pytest.mark.parametrize("case", golden_json("average_precision.json"))
def test_golden(case):
    hits = np.cumsum(case["true_positive"])
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / case["num_ground_truth"]
    assert compute_voc2007_average_precision(precision, recall) == pytest.approx(case["ap_2007"], abs=1e-9)
    assert compute_average_precision(precision, recall) == pytest.approx(case["ap_area"], abs=1e-9)


def annotation(boxes, labels, difficult=None) -> Annotation:
    difficult = [False] * len(labels) if difficult is None else difficult
    return Annotation(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(difficult, bool),
        (100, 100),
    )


def detections(boxes, labels, scores) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.int64),
        torch.tensor(scores),
    )


NOTHING = detections([], [], [])
BOX, OTHER = [0, 0, 10, 10], [50, 50, 60, 60]


def ap(found, truth, name="cat", **options) -> float:
    report = evaluate(found, truth, NAMES, **options)
    return next(result.ap_area for result in report.classes if result.name == name)


def test_empty_cases():
    report = evaluate([], [], NAMES)
    assert all(math.isnan(result.ap_2007) for result in report.classes)
    assert math.isnan(report.mean_ap_2007)
    assert ap([NOTHING], [annotation([BOX], [1])]) == 0
    assert math.isnan(ap([NOTHING], [annotation([BOX], [1])], "dog"))
    assert ap([detections([BOX], [1], [0.9])], [annotation([], [])]) != 0, "nan: no objects"


def test_classes_without_objects_are_left_out_of_the_mean():
    report = evaluate([detections([BOX, BOX], [1, 2], [0.9, 0.9])], [annotation([BOX], [1])], NAMES)
    assert report.mean_ap_2007 == report.mean_ap_area == pytest.approx(1.0)
    assert [result.objects for result in report.classes] == [1, 0]


def test_a_second_hit_on_an_object_is_a_false_alarm():
    found = detections([BOX, BOX, OTHER], [1, 1, 1], [0.9, 0.8, 0.7])
    # Hits by score: yes, no, yes; recall 1/2 at precision 1, recall 1 at 2/3.
    assert ap([found], [annotation([BOX, OTHER], [1, 1])]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_hit_on_a_difficult_object_does_not_count():
    truth = [annotation([BOX, OTHER], [1, 1], [True, False])]
    assert ap([detections([BOX, BOX, OTHER], [1, 1, 1], [0.9, 0.85, 0.8])], truth) == pytest.approx(1.0)
    assert evaluate([NOTHING], truth, NAMES).classes[0].objects == 1


@pytest.mark.parametrize(("bottom", "expected"), [(5.0, 0.0), (5.01, 1.0)])
def test_overlap_must_exceed_the_threshold(bottom, expected):
    assert ap([detections([[0, 0, 10, bottom]], [1], [0.9])], [annotation([BOX], [1])]) == pytest.approx(expected)


def test_the_threshold_is_an_option():
    found, truth = [detections([[0, 0, 10, 4]], [1], [0.9])], [annotation([BOX], [1])]
    assert ap(found, truth) == 0
    assert ap(found, truth, iou_threshold=0.3) == pytest.approx(1.0)


def test_scores_are_ranked_over_all_images():
    found = [detections([OTHER], [1], [0.95]), detections([BOX], [1], [0.9])]
    truth = [annotation([BOX], [1]), annotation([BOX], [1])]
    assert ap(found, truth) == pytest.approx(0.5 * 0.5)


def test_classes_do_not_mix():
    found = [detections([BOX], [2], [0.9])]
    assert ap(found, [annotation([BOX], [1])]) == 0


def test_images_must_agree_in_number():
    with pytest.raises(ValueError, match="1 images .* 0 annotations"):
        evaluate([NOTHING], [], NAMES)
