"""Suppression: golden, known answers, and all classes at once against one at a time."""

import math

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from vision.boxes.nms import hard_nms, multiclass_nms, nms, soft_nms

NMS = np.load(GOLDEN / "nms.npz")
CASES = sorted({key.split("/")[0] for key in NMS.files})


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    box_scores = torch.from_numpy(NMS[f"{case}/box_scores"])
    before = box_scores.clone()
    hard = hard_nms(box_scores, float(NMS[f"{case}/iou_threshold"]), candidate_size=200)
    np.testing.assert_array_equal(hard.numpy(), NMS[f"{case}/hard_candidate_200"])
    soft = soft_nms(box_scores, 0.1, sigma=0.5)
    np.testing.assert_allclose(soft.numpy(), NMS[f"{case}/soft_sigma_0.5_score_0.1"], rtol=0, atol=1e-6)
    assert torch.equal(box_scores, before), "inputs are not written to"


ROWS = torch.tensor(
    [
        [0.0, 0.0, 1.0, 1.0, 0.9],
        [0.0, 0.0, 1.0, 0.9, 0.8],
        [0.0, 0.0, 1.0, 0.5, 0.7],
        [5.0, 5.0, 6.0, 6.0, 0.6],
    ]
)


@pytest.mark.parametrize("function", [lambda rows: hard_nms(rows, 0.5), lambda rows: soft_nms(rows, 0.1)])
def test_nothing_in_nothing_out(function):
    assert function(torch.zeros(0, 5)).shape == (0, 5)


def test_hard_drops_above_the_threshold_only():
    # The third overlaps the first by 0.5 less the guard against empty boxes: not above 0.5.
    assert hard_nms(ROWS, 0.5)[:, 4].tolist() == pytest.approx([0.9, 0.7, 0.6])


def test_a_dropped_box_suppresses_nothing():
    # b overlaps a and is dropped; c overlaps b alone and stays.
    rows = torch.tensor([[0.0, 0, 10, 10, 0.9], [4.0, 0, 14, 10, 0.8], [8.0, 0, 18, 10, 0.7]])
    assert hard_nms(rows, 0.4)[:, 4].tolist() == pytest.approx([0.9, 0.7])


def test_top_k_and_candidates():
    assert len(hard_nms(ROWS, 0.5, top_k=2)) == 2
    assert hard_nms(ROWS, 0.5, candidate_size=2)[:, 4].tolist() == pytest.approx([0.9])
    assert len(soft_nms(ROWS, 0.01, top_k=1)) == 1


def test_soft_decays_by_the_gaussian():
    rows = torch.tensor([[0.0, 0, 1, 1, 0.9], [0.0, 0, 1, 0.5, 0.8]])
    found = soft_nms(rows, 0.01, sigma=0.5)
    assert float(found[1, 4]) == pytest.approx(0.8 * math.exp(-(0.5**2) / 0.5), rel=1e-4)


def test_soft_keeps_its_first_pick_whatever_its_score():
    assert len(soft_nms(torch.tensor([[0.0, 0, 1, 1, 0.001]]), 0.5)) == 1


def test_nms_chooses_the_method():
    assert torch.equal(nms(ROWS, None, iou_threshold=0.5), hard_nms(ROWS, 0.5))
    assert torch.equal(nms(ROWS, "soft", score_threshold=0.2, sigma=0.3), soft_nms(ROWS, 0.2, 0.3))
    with pytest.raises(ValueError, match="median.*hard, soft"):
        nms(ROWS, "median")


def random_answer(priors: int = 400, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(priors, 2, generator=generator) * 0.7
    boxes = torch.cat([low, low + 0.05 + 0.3 * torch.rand(priors, 2, generator=generator)], dim=1)
    return torch.randn(priors, classes, generator=generator).mul(3).softmax(dim=1), boxes


@pytest.mark.parametrize("method", ["hard", "soft"])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 3}, {"candidate_size": 10}, {"iou_threshold": 0.2, "score_threshold": 0.3}]
)
def test_all_classes_at_once_are_each_class_alone(method, options):
    scores, boxes = random_answer()
    threshold = options.get("score_threshold", 0.01)
    expected_rows, expected_labels = [], []
    for label in range(1, scores.shape[1]):
        above = scores[:, label] > threshold
        rows = nms(
            torch.cat([boxes[above], scores[above, label, None]], dim=1),
            method,
            score_threshold=threshold,
            iou_threshold=options.get("iou_threshold", 0.45),
            top_k=options.get("top_k", -1),
            candidate_size=options.get("candidate_size", 200),
        )
        expected_rows.append(rows)
        expected_labels += [label] * len(rows)
    found_boxes, labels, found_scores = multiclass_nms(scores, boxes, nms_method=method, **options)
    assert labels.tolist() == expected_labels
    assert len(labels) > 10
    torch.testing.assert_close(torch.cat([found_boxes, found_scores[:, None]], dim=1), torch.cat(expected_rows))


@pytest.mark.parametrize("method", ["hard", "soft"])
def test_nothing_above_the_threshold(method):
    scores, boxes = random_answer()
    found_boxes, labels, found_scores = multiclass_nms(scores, boxes, nms_method=method, score_threshold=1.0)
    assert found_boxes.shape == (0, 4)
    assert labels.dtype == torch.int64
    assert found_scores.shape == (0,)
