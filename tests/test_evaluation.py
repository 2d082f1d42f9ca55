"""Figures of an evaluation: golden, known answers, the devkit's rules one by one, and pycocotools."""

import contextlib
import io
import math

import numpy as np
import pytest
import torch
from conftest import golden_json
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from vision.evaluation import evaluate
from vision.evaluation.coco import CocoFigures, coco_figures, ground_truth
from vision.evaluation.curves import Curve, best_threshold
from vision.evaluation.image_matches import NONE, confusion_matrix, match_image
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


def test_a_class_of_which_nothing_is_found_counts_as_0_and_one_without_objects_not_at_all():
    names = ("BACKGROUND", "found", "half", "never found", "absent", "absent, too")
    truth = [annotation([BOX], [label]) for label in (1, 2, 3)]
    found = [detections([BOX], [1], [0.9]), detections([BOX, OTHER], [2, 2], [0.6, 0.7]), detections([BOX], [4], [0.8])]
    report = evaluate(found, truth, names)
    assert [result.name for result in report.with_objects] == ["found", "half", "never found"]
    assert report.mean_at(0.5) == (0.5, (1 + 1 / 2 + 0) / 3, 2 / 3, pytest.approx((1 + 2 / 3 + 0) / 3))
    assert report.mean_at(0.8) == (0.8, 1 / 3, 1 / 3, 1 / 3)
    assert report.mean_at_own_thresholds()[1:] == pytest.approx((0.5, 2 / 3, 5 / 9))
    for result in report.classes[3:]:
        assert all(map(math.isnan, [*result.curve.best(), *result.curve.at(0.1)[1:]])), result.name
    assert math.isnan(evaluate([NOTHING], [annotation([], [])], NAMES).mean_at(0.5).precision)


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


@pytest.mark.parametrize(("right", "share"), [(10.0, 1.0), (7.2, 0.5), (4.9, 0.0), (9.76, 1.0), (9.4, 0.9)])
def test_a_box_counts_at_the_overlaps_that_it_reaches(right, share):
    report = evaluate([detections([[0, 0, right, 10]], [1], [0.9])], [annotation([BOX], [1])], NAMES)
    assert report.coco.ap == report.classes[0].coco.ap == pytest.approx(share)
    assert report.coco.ap_75 == report.classes[0].coco.ap_75 == pytest.approx(float(right > 7.5))
    assert all(math.isnan(value) for value in report.classes[1].coco)


def test_sizes_are_those_of_pixels_of_the_image():
    truth = [annotation([[0, 0, 31, 31], [0, 0, 60, 60], [0, 0, 99, 99]], [1, 1, 1])]
    found = [detections([[0, 0, 60, 60]], [1], [0.9])]
    coco = evaluate(found, truth, NAMES).coco
    assert (coco.ap_small, coco.ap_medium, coco.ap_large) == pytest.approx((0, 1, 0))
    assert (coco.ar_small, coco.ar_medium, coco.ar_large) == pytest.approx((0, 1, 0))
    assert coco.ar_1 == coco.ar_100 == pytest.approx(1 / 3)


def test_inclusive_areas_are_a_pixel_wider_and_higher():
    # 9 x 9 of 19 x 9 overlap by 0.47, as areas of 10 x 10 and 20 x 10 by exactly a half: one pixel more is over it.
    truth, found = [annotation([[0, 0, 19, 9]], [1])], [detections([[0, 0, 9.1, 9]], [1], [0.9])]
    assert ap(found, truth) == 0
    assert ap(found, truth, inclusive=True) == 1


def slowly(found, truth, label, last_pixel=0.0) -> tuple[float, float]:
    """11-point and area AP by the devkit's description, a detection and a recall level at a time."""
    ranked = sorted(
        (-float(score), image, place)
        for image, f in enumerate(found)
        for place, score in enumerate(f.scores)
        if f.labels[place] == label
    )
    taken, precision, recall, hits, count = set(), [], [], 0, 0
    objects = sum(int(((a.labels == label) & ~a.difficult).sum()) for a in truth)
    if not objects:
        return math.nan, math.nan
    for _, image, place in ranked:
        x1, y1, x2, y2 = found[image].boxes[place].tolist()
        best, overlap = None, 0.5
        for index, (a1, b1, a2, b2) in enumerate(truth[image].boxes.tolist()):
            if truth[image].labels[index] != label:
                continue
            width, height = min(x2, a2) - max(x1, a1) + last_pixel, min(y2, b2) - max(y1, b1) + last_pixel
            if width <= 0 or height <= 0:
                continue
            areas = [(x2 - x1 + last_pixel) * (y2 - y1 + last_pixel), (a2 - a1 + last_pixel) * (b2 - b1 + last_pixel)]
            iou = width * height / (sum(areas) - width * height)
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
    levels = [
        max((p for p, r in zip(precision, recall, strict=True) if r >= t), default=0) for t in np.arange(0, 1.1, 0.1)
    ]
    area, before = 0.0, 0.0
    for place, value in enumerate(recall):
        area += (value - before) * max(precision[place:])
        before = value
    return sum(levels) / 11, area


@st.composite
def scenes(draw):
    """Images with objects and detections: few places and scores, so that ties and duplicates abound."""
    coordinate, side = st.integers(0, 4), st.integers(1, 3)

    def boxes(most):
        rows = draw(st.lists(st.tuples(coordinate, coordinate, side, side, st.integers(1, 2)), max_size=most))
        return [[4 * x, 4 * y, 4 * (x + w), 4 * (y + h)] for x, y, w, h, _ in rows], [row[4] for row in rows]

    truth, found = [], []
    for _ in range(draw(st.integers(1, 3))):
        corners, labels = boxes(4)
        truth.append(annotation(corners, labels, [draw(st.booleans()) for _ in labels]))
        corners, labels = boxes(8)
        shift = draw(st.sampled_from([0, 0, 1, 2]))
        corners = [[x + shift, y, right + shift, bottom] for x, y, right, bottom in corners]
        found.append(detections(corners, labels, [draw(st.sampled_from([0.25, 0.5, 0.75])) for _ in labels]))
    return found, truth


@settings(max_examples=200, deadline=None, derandomize=True)
@given(scenes(), st.booleans())
def test_voc_figures_are_those_of_the_devkits_description(scene, inclusive):
    found, truth = scene
    report = evaluate(found, truth, NAMES, inclusive=inclusive)
    for label, result in enumerate(report.classes, start=1):
        ap_2007, ap_area = slowly(found, truth, label, float(inclusive))
        assert result.ap_2007 == pytest.approx(ap_2007, abs=1e-9, nan_ok=True)
        assert result.ap_area == pytest.approx(ap_area, abs=1e-9, nan_ok=True)


def by_pycocotools(found, truth) -> tuple[list[float], np.ndarray]:
    """The twelve figures, and AP per class; -1 without objects."""
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = ground_truth(truth, len(NAMES))
        objects.createIndex()
        rows = []
        for image, of_image in enumerate(found):
            for (x1, y1, x2, y2), label, score in zip(*(values.tolist() for values in of_image), strict=True):
                box = [x1, y1, x2 - x1, y2 - y1]
                rows.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
        evaluation = COCOeval(objects, objects.loadRes(rows) if rows else COCO(), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist(), evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=(0, 1))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(scenes())
def test_coco_figures_are_those_of_pycocotools(scene):
    whole, of_classes = coco_figures(*scene, len(NAMES))
    stats, per_class = by_pycocotools(*scene)
    assert np.nan_to_num(whole, nan=-1).tolist() == pytest.approx(stats, abs=1e-6)
    assert [-1 if math.isnan(c.ap) else c.ap for c in of_classes] == pytest.approx(per_class.tolist(), abs=1e-6)


def test_coco_figures_of_many_detections_are_those_of_pycocotools():
    """More than a hundred an image and class, so that the limit counts."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for _ in range(5):
        corners = rng.uniform(0, 200, (20, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 150, (20, 2))], axis=1)
        truth.append(annotation(boxes, rng.integers(1, 3, 20), rng.random(20) < 0.2))
        near = np.repeat(boxes, 20, axis=0) + rng.normal(0, 8, (400, 4))
        near = np.concatenate([near[:, :2], np.maximum(near[:, 2:], near[:, :2] + 1)], axis=1)
        found.append(detections(near.tolist(), rng.integers(1, 3, 400).tolist(), rng.random(400).tolist()))
    whole, _ = coco_figures(found, truth, len(NAMES))
    assert list(whole) == pytest.approx(by_pycocotools(found, truth)[0], abs=1e-6)
    assert 0 < whole.ap < whole.ap_50 < 1


def test_the_evaluator_says_nothing(capfd):
    evaluate([detections([BOX], [1], [0.9])], [annotation([BOX], [1])], NAMES)
    assert capfd.readouterr() == ("", "")


# Thresholds.


@settings(max_examples=200, deadline=None, derandomize=True)
@given(scenes())
def test_no_other_threshold_has_a_higher_f1(scene):
    report = evaluate(*scene, NAMES)
    tried = [0.0, *np.unique(np.concatenate([f.scores.numpy() for f in scene[0]])), 0.9]
    for result in report.classes:
        best = result.curve.best()
        if not result.objects:
            assert math.isnan(best.f1)
            continue
        assert best.f1 == max(result.curve.at(threshold).f1 for threshold in tried)
        if best.f1:
            assert best == result.curve.at(best.threshold)
            assert best.f1 == pytest.approx(2 / (1 / best.precision + 1 / best.recall))
    with_objects = [result.curve for result in report.classes if result.objects]
    means = [np.mean([curve.at(threshold).f1 for curve in with_objects]) for threshold in tried if with_objects]
    if any(means):
        assert np.mean([c.at(report.best_threshold).f1 for c in with_objects]) == pytest.approx(max(means))
    else:
        assert math.isnan(report.best_threshold)


def test_a_threshold_is_a_short_number_between_two_scores():
    curve = Curve(np.array([0.9, 0.8, 0.437, 0.31, 0.2]), np.array([1, 2, 3, 3, 3]), 3)
    assert curve.best() == (0.4, 1.0, 1.0, 1.0)
    assert curve.at(0.8) == (0.8, 1.0, 2 / 3, 0.8)
    assert curve.at(0.95) == (0.95, 0, 0, 0)
    assert best_threshold([Curve(np.array([0.31, 0.3099]), np.array([1, 1]), 1)]) == 0.31
    assert best_threshold([Curve(np.array([0.3]), np.array([1]), 1)]) == 0.1
    assert best_threshold([Curve(np.array([0.63, 0.58]), np.array([1, 2]), 2, cut_off=0.5)]) == 0.54
    assert best_threshold([Curve(np.array([0.5]), np.array([1]), 2, cut_off=0.5)]) == 0.5
    assert math.isnan(best_threshold([Curve(np.array([0.3]), np.array([0]), 1)]))
    assert math.isnan(best_threshold([]))


# Images.


def test_pairs_prefer_the_same_class_then_the_larger_overlap_and_difficult_objects_come_last():
    truth = annotation([BOX, OTHER, [50, 50, 60, 61]], [1, 2, 2], [False, False, True])
    found = detections(
        [BOX, [0, 0, 10, 9], OTHER, [50, 50, 60, 60.5], [80, 80, 90, 90], BOX], [2, 1, 2, 2, 1, 1], [0.9] * 5 + [0.1]
    )
    match = match_image(found, truth, 0.5)
    assert match.objects.tolist() == [NONE, 0, 1, 2, NONE]
    assert match.hits.tolist() == [False, True, True, False, False]
    assert match.ignored.tolist() == [False, False, False, True, False]
    assert match.false.tolist() == [True, False, False, False, True]
    assert not match.missed.any()
    assert match_image(found, truth, 0.05).objects.tolist() == [NONE, NONE, 1, 2, NONE, 0]


def test_what_is_taken_for_another_class_is_missed_and_false():
    truth = annotation([BOX, OTHER, [0, 50, 10, 60]], [1, 2, 2], [False, False, True])
    match = match_image(detections([BOX, [80, 80, 90, 90]], [2, 1], [0.9, 0.8]), truth, 0.5)
    assert match.missed.tolist() == [True, True, False]
    assert match.false.tolist() == [True, True]
    assert confusion_matrix([match, match], 3).tolist() == [[0, 2, 0], [0, 0, 2], [2, 0, 0]]


def test_an_overlap_of_exactly_the_limit_is_none():
    truth = annotation([[0, 0, 10, 20]], [1])
    assert match_image(detections([BOX], [1], [0.9]), truth, 0.5).missed.all()
    assert match_image(detections([BOX], [1], [0.9]), truth, 0.5, iou_threshold=0.49).hits.all()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(scenes(), st.sampled_from([0.0, 0.5, 0.9]))
def test_every_detection_and_every_object_is_counted_once(scene, threshold):
    matches = [match_image(found, truth, threshold) for found, truth in zip(*scene, strict=True)]
    matrix = confusion_matrix(matches, len(NAMES))
    objects = sum(int((~match.annotation.difficult).sum()) for match in matches)
    assert matrix[1:].sum() == objects
    assert matrix[:, 1:].sum() == sum(int((~match.ignored).sum()) for match in matches)
    hits = sum(int(match.hits.sum()) for match in matches)
    assert np.trace(matrix) == hits == objects - sum(int(match.missed.sum()) for match in matches)
    assert matrix[0, 0] == 0


def test_boxes_without_end_hit_nothing():
    found = detections([[-math.inf, 0, math.inf, 10], [math.nan, 0, 1, 1], BOX], [1, 1, 1], [0.9, 0.8, 0.7])
    report = evaluate([found], [annotation([BOX], [1])], NAMES)
    assert report.coco.ap == report.classes[0].ap_area == pytest.approx(1 / 3)
    assert match_image(found, annotation([BOX], [1]), 0.5).hits.tolist() == [False, False, True]


def test_nothing_found_nothing_to_find_and_a_hundred_thousand_boxes():
    many = detections(np.tile(BOX, (100_000, 1)).tolist(), [1] * 100_000, np.linspace(0, 1, 100_000).tolist())
    cases = {"nothing": NOTHING, "many": many}
    for name, found in cases.items():
        report = evaluate([found, NOTHING], [annotation([BOX], [1]), annotation([], [])], NAMES)
        assert report.classes[0].ap_area == report.coco.ap_50 == float(name == "many")
        assert report.classes[0].curve.best().f1 == float(name == "many")
        assert match_image(found, annotation([BOX], [1]), 0.0).missed.sum() == float(name == "nothing")
    assert all(math.isnan(value) for value in evaluate([], [], NAMES).coco)
    assert len(CocoFigures._fields) == len(evaluate([], [], NAMES).coco)
