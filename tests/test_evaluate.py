"""Average precision: golden, and the devkit's rules on known answers."""

import math

import numpy as np
import pytest
import torch
from conftest import golden_json

from vision.engine.evaluate import OVERLAPS, evaluate
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


@pytest.mark.parametrize(("right", "share"), [(10.0, 1.0), (7.2, 0.5), (5.0, 0.0), (9.76, 1.0), (9.4, 0.9)])
def test_a_box_counts_at_the_overlaps_that_it_exceeds(right, share):
    report = evaluate([detections([[0, 0, right, 10]], [1], [0.9])], [annotation([BOX], [1])], NAMES)
    assert report.mean_ap_50_95 == pytest.approx(share)
    assert math.isnan(report.classes[1].ap_50_95)


def slowly(found, truth, label, threshold) -> float:
    """Area AP by the devkit's description, a detection at a time."""
    ranked = sorted(
        (
            (-float(score), image, place)
            for image, f in enumerate(found)
            for place, score in enumerate(f.scores)
            if f.labels[place] == label
        )
    )
    taken, precision, recall, hits, count = set(), [], [], 0, 0
    objects = sum(int(((a.labels == label) & ~a.difficult).sum()) for a in truth)
    for _, image, place in ranked:
        x1, y1, x2, y2 = found[image].boxes[place].tolist()
        best, overlap = None, threshold
        for index, (a1, b1, a2, b2) in enumerate(truth[image].boxes.tolist()):
            if truth[image].labels[index] != label:
                continue
            shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            iou = shared / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared)
            if iou > overlap:
                best, overlap = index, iou
        if best is not None and truth[image].difficult[best]:
            continue
        if best is not None and (image, best) not in taken:
            taken.add((image, best))
            hits += 1
        count += 1
        precision.append(hits / count)
        recall.append(hits / objects)
    return compute_average_precision(np.array(precision), np.array(recall))


@pytest.mark.parametrize("seed", range(5))
def test_many_detections_against_the_rules_one_by_one(seed):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corners = rng.integers(0, 40, (count, 2))
        return np.concatenate([corners, corners + rng.integers(10, 40, (count, 2))], axis=1).astype(float)

    truth, found = [], []
    for _ in range(6):
        count = int(rng.integers(0, 5))
        truth.append(annotation(boxes(count), rng.integers(1, 3, count), rng.random(count) < 0.3))
        near = np.repeat(truth[-1].boxes, 6, axis=0) + rng.uniform(-5, 5, (6 * count, 4))
        strays = boxes(5)
        labels = np.concatenate([np.repeat(truth[-1].labels, 6), rng.integers(1, 3, 5)])
        scores = rng.permutation(len(labels)) / 100 + len(found) / 1000  # no two alike
        found.append(detections(np.concatenate([near, strays]).tolist(), labels.tolist(), scores.tolist()))
    report = evaluate(found, truth, NAMES)
    for label, result in enumerate(report.classes, start=1):
        assert result.objects > 0
        by_overlap = [slowly(found, truth, label, overlap) for overlap in OVERLAPS]
        assert result.ap_area == pytest.approx(by_overlap[0], abs=1e-9)
        assert result.ap_50_95 == pytest.approx(np.mean(by_overlap), abs=1e-9)
        assert 0 < result.ap_50_95 < result.ap_area < 1
