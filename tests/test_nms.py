"""Suppression: golden, known answers, and all classes of an image against the published functions, one class at a time."""

import math

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from torchvision import ops

from vision.boxes.forms import IOU_EPSILON, iou_of
from vision.boxes.nms import hard_nms, multiclass_nms, nms, soft_nms
from vision.boxes.suppression import suppress_hard

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


def random_answer(priors: int = 400, classes: int = 5, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(priors, 2, generator=generator) * 0.7
    boxes = torch.cat([low, low + 0.05 + 0.3 * torch.rand(priors, 2, generator=generator)], dim=1)
    return torch.randn(priors, classes, generator=generator).mul(3).softmax(dim=1), boxes


@pytest.mark.parametrize("method", ["hard", "soft"])
@pytest.mark.parametrize(
    "options", [{}, {"top_k": 3}, {"candidate_size": 10}, {"iou_threshold": 0.2, "score_threshold": 0.3}]
)
def test_all_classes_are_each_class_alone(method, options):
    scores, boxes = random_answer()
    boxes = boxes * 300  # in pixels the published epsilon counts for nothing
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


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"iou_threshold": 0.2, "score_threshold": 0.3}])
def test_class_agnostic_is_torchvisions_suppression_of_all_boxes_together(options):
    scores, boxes = random_answer()
    prior, number = (scores[:, 1:] > options.get("score_threshold", 0.01)).nonzero(as_tuple=True)
    all_scores = scores[prior, number + 1]
    kept = ops.nms(boxes[prior], all_scores, options.get("iou_threshold", 0.45))
    assert 10 < len(kept) < len(multiclass_nms(scores, boxes, **{**options, "top_k": -1})[1])
    found_boxes, labels, found_scores = multiclass_nms(
        scores, boxes, candidate_size=400, class_agnostic=True, **options
    )
    assert labels.tolist() == sorted(labels.tolist())
    for label in range(1, scores.shape[1]):
        expected = kept[number[kept] + 1 == label][: options.get("top_k")]
        assert torch.equal(found_scores[labels == label], all_scores[expected])
        assert torch.equal(found_boxes[labels == label], boxes[prior[expected]])


def test_class_agnostic_takes_the_best_candidates_of_each_class():
    scores, boxes = random_answer()
    rows = [ranked(scores, boxes, label)[:10] for label in range(1, scores.shape[1])]
    together = torch.cat(rows)
    expected = together[ops.nms(together[:, :4], together[:, 4], 0.45), 4]
    _, _, found = multiclass_nms(scores, boxes, candidate_size=10, class_agnostic=True)
    assert torch.equal(found.sort(descending=True).values, expected)
    with pytest.raises(ValueError, match="soft suppression is of one class at a time"):
        multiclass_nms(scores, boxes, nms_method="soft", class_agnostic=True)
    assert multiclass_nms(scores, boxes, score_threshold=1.0, class_agnostic=True)[0].shape == (0, 4)


@pytest.mark.parametrize("method", ["hard", "soft"])
def test_nothing_above_the_threshold(method):
    scores, boxes = random_answer()
    found_boxes, labels, found_scores = multiclass_nms(scores, boxes, nms_method=method, score_threshold=1.0)
    assert found_boxes.shape == (0, 4)
    assert labels.dtype == torch.int64
    assert found_scores.shape == (0,)


def plain_greedy(box_scores: torch.Tensor, iou_threshold: float, eps: float) -> torch.Tensor:
    """Indices of the kept rows (N, 5), which are by falling score; each is compared with those kept before it."""
    kept: list[int] = []
    for index, row in enumerate(box_scores):
        if not (iou_of(box_scores[kept, :4], row[:4], eps) > iou_threshold).any():
            kept.append(index)
    return torch.tensor(kept)


def ranked(scores: torch.Tensor, boxes: torch.Tensor, label: int) -> torch.Tensor:
    """The candidates (N, 5) of a class by falling score."""
    rows = torch.cat([boxes, scores[:, label, None]], dim=1)[scores[:, label] > 0.01]
    return rows[rows[:, 4].argsort(descending=True, stable=True)]


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_the_first_difference_from_the_published_rule_is_within_the_reach_of_its_epsilon(scale):
    """The smaller the boxes, the more the epsilon weighs; differences behind the first may follow from it."""
    threshold, differences = 0.45, []
    for seed in range(4):
        scores, boxes = random_answer(200, 4, seed)
        boxes = boxes * scale
        _, labels, found = multiclass_nms(scores, boxes)
        for label in range(1, 4):
            candidates = ranked(scores, boxes, label)
            published = plain_greedy(candidates, threshold, IOU_EPSILON)
            assert torch.equal(hard_nms(candidates, threshold), candidates[published])
            exact = plain_greedy(candidates.double(), threshold, 0.0)
            assert torch.equal(found[labels == label], candidates[exact, 4])
            differing = set(published.tolist()) ^ set(exact.tolist())
            differences.append(len(differing))
            if differing:
                first = min(differing)
                box, better = candidates[first, :4].double(), candidates[exact[exact < first], :4].double()
                assert ((iou_of(better, box, 0.0) > threshold) & (iou_of(better, box) <= threshold)).any()
    assert sum(differences) > 0 if scale < 1 else 0 in differences


@pytest.mark.parametrize("shift", [-40.0, 0.0, 1000.0])
def test_classes_do_not_meet_wherever_boxes_lie(shift):
    """The same boxes in ninety classes, within and far outside the image."""
    _, boxes = random_answer(60)
    boxes = boxes + shift
    scores = torch.linspace(0.9, 0.1, 60)[:, None].expand(60, 91)
    found, labels, _ = multiclass_nms(scores, boxes)
    kept = boxes[plain_greedy(torch.cat([boxes, scores[:, :1]], dim=1), 0.45, 0.0)]
    assert 1 < len(kept) < 60
    assert torch.equal(found, kept.repeat(90, 1))
    assert torch.equal(labels, torch.arange(1, 91).repeat_interleave(len(kept)))


def test_equal_scores_are_taken_in_the_order_of_the_priors():
    boxes = torch.arange(8.0)[:, None] * 10 + torch.tensor([0.0, 0, 1, 1])
    scores = torch.tensor([0.3, 0.5, 0.3, 0.3, 0.5, 0.3, 0.3, 0.3])[:, None].expand(8, 2)
    found, _, _ = multiclass_nms(scores, boxes, candidate_size=4)
    assert torch.equal(found, boxes[[1, 4, 0, 2]])


def tied_boxes(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes on a coarse grid, so that many are equal, empty, reversed, or overlap by just the threshold, and their scores."""
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 8, (count, 4)).astype(np.float32)
    boxes[rng.random(count) < 0.7, 2:] += 8
    boxes[rng.random(count) < 0.02] = np.inf
    boxes[rng.random(count) < 0.02, 3] = np.nan
    return torch.from_numpy(boxes), torch.from_numpy(rng.integers(1, 9, count).astype(np.float32) / 10)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.45, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 7, 300, 900])
def test_hard_suppression_is_torchvisions_to_the_last_bit(count, threshold):
    """Equal scores and overlaps of just the threshold included, and more boxes than are compared at a time."""
    for seed in range(4):
        tied, tied_scores = tied_boxes(seed, count)
        random_scores, random_boxes = random_answer(count, 2, seed)
        for boxes, scores in (
            (tied, tied_scores),
            (tied / 300, random_scores[:, 1]),
            (random_boxes, random_scores[:, 1]),
        ):
            order = scores.argsort(descending=True, stable=True)
            kept = order[suppress_hard(boxes[order].numpy(), threshold)]
            assert kept.tolist() == ops.nms(boxes, scores, threshold).tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    scores, boxes = (values.to(dtype) for values in random_answer())
    found = multiclass_nms(scores, boxes)
    expected = multiclass_nms(scores.double(), boxes.double(), score_threshold=float(torch.tensor(0.01, dtype=dtype)))
    assert found[0].dtype == found[2].dtype == dtype
    assert all(torch.equal(mine.double(), theirs.double()) for mine, theirs in zip(found, expected, strict=True))
    assert len(found[1]) > 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA is not available")
@pytest.mark.parametrize("method", ["hard", "soft"])
def test_cuda_gives_what_the_cpu_gives(method):
    scores, boxes = random_answer()
    found = multiclass_nms(scores.cuda(), boxes.cuda(), nms_method=method)
    expected = multiclass_nms(scores, boxes, nms_method=method)
    assert all(mine.is_cuda for mine in found)
    assert all(torch.equal(mine.cpu(), theirs) for mine, theirs in zip(found, expected, strict=True))
