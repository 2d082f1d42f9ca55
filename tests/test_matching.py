"""Matching and mining: golden, and cases that golden leaves out."""

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from torch.utils._python_dispatch import TorchDispatchMode

from vision.boxes import matching
from vision.boxes.forms import center_form_to_corner_form, iou_of
from vision.boxes.matching import assign_priors, hard_negative_mining, match_batch
from vision.ssd.config.families import MOBILENETV1
from vision.ssd.ssd import MatchPrior

MATCHING = np.load(GOLDEN / "matching_mb1_300.npz")
CASES = sorted({key.split("/")[0] for key in MATCHING.files})


@pytest.mark.parametrize("case", CASES)
def test_golden_targets(case):
    match = MatchPrior(MOBILENETV1.at(300).priors, 0.1, 0.2, 0.5)
    boxes, labels = MATCHING[f"{case}/boxes"], MATCHING[f"{case}/labels"]
    locations, matched = match(boxes, labels)
    np.testing.assert_array_equal(matched.numpy(), MATCHING[f"{case}/prior_labels"])
    np.testing.assert_allclose(locations.numpy(), MATCHING[f"{case}/prior_locations"], rtol=1e-5, atol=1e-5)


def test_a_padded_batch_gives_what_each_image_gives_alone():
    priors = center_form_to_corner_form(MOBILENETV1.at(300).priors)
    sets = [(torch.tensor(MATCHING[f"{c}/boxes"]), torch.tensor(MATCHING[f"{c}/labels"])) for c in CASES]
    sets.append((torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    boxes = torch.nn.utils.rnn.pad_sequence([b.float() for b, _ in sets], batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence([label for _, label in sets], batch_first=True)
    batch_boxes, batch_labels = match_batch(boxes, labels, priors, 0.5)
    for place, (own_boxes, own_labels) in enumerate(sets):
        expected_boxes, expected_labels = assign_priors(own_boxes.float(), own_labels, priors, 0.5)
        assert torch.equal(batch_labels[place], expected_labels)
        positive = expected_labels > 0
        assert torch.equal(batch_boxes[place][positive], expected_boxes[positive])


# Three priors in a row, each a unit wide.
PRIORS = torch.tensor([[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 2.0, 1.0], [2.0, 0.0, 3.0, 1.0]])


def test_no_objects_give_background_only():
    boxes, labels = assign_priors(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), PRIORS, 0.5)
    assert boxes.shape == (3, 4)
    assert labels.tolist() == [0, 0, 0]


def test_an_object_takes_its_best_prior_below_the_threshold():
    _, labels = assign_priors(torch.tensor([[1.8, 0.0, 2.2, 0.3]]), torch.tensor([7]), PRIORS, 0.5)
    assert labels.tolist() == [0, 7, 0], "of two equal overlaps the first counts"


def test_of_two_objects_that_want_one_prior_the_later_wins():
    objects = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5]])
    boxes, labels = assign_priors(objects, torch.tensor([1, 2]), PRIORS, 0.5)
    assert labels.tolist() == [2, 0, 0]
    assert boxes[0].tolist() == [0.0, 0.0, 0.5, 0.5]


def test_equal_objects_contest_and_the_later_wins():
    objects = torch.tensor([[1.0, 0.0, 2.0, 1.0]] * 3)
    _, labels = assign_priors(objects, torch.tensor([1, 2, 3]), PRIORS, 0.5)
    assert labels.tolist() == [0, 3, 0]


@pytest.mark.parametrize(("threshold", "expected"), [(0.49, [1, 1, 0]), (0.51, [1, 0, 0])])
def test_a_prior_at_the_threshold_counts(threshold, expected):
    _, labels = assign_priors(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), torch.tensor([1]), PRIORS, threshold)
    assert labels.tolist() == expected


def plain_match(boxes, labels, priors, threshold):
    """The rules, spelt out for one image; gives boxes (P, 4) and labels (P,)."""
    present = [row for row, label in enumerate(labels.tolist()) if label > 0]
    overlaps = iou_of(boxes[:, None], priors).tolist()
    row_of_prior, matched = [], []
    for prior in range(len(priors)):
        best = 0
        if present:
            best = max(present, key=lambda row: overlaps[row][prior])  # max() gives the first of equal ones
        row_of_prior.append(best)
        matched.append(labels[best].item() if present and overlaps[best][prior] >= threshold else 0)
    for row in present:
        prior = max(range(len(priors)), key=lambda prior: overlaps[row][prior])
        row_of_prior[prior], matched[prior] = row, labels[row].item()
    return boxes[row_of_prior], torch.tensor(matched)


def random_boxes(generator, *shape, grid=None):
    """Corner-form boxes (*shape, 4), relative; those on a grid of a few lines often tie and contest."""
    corners = torch.rand(*shape, 2, 2, generator=generator, dtype=torch.float64)
    if grid:
        corners = (corners * grid).round() / grid
    return torch.cat([corners.amin(dim=-1), corners.amax(dim=-1)], dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pairs_at_once", [1, 1000, matching.PAIRS_AT_ONCE])
@pytest.mark.parametrize("grid", [None, 3])
def test_any_batch_gives_exactly_what_the_rules_say(monkeypatch, grid, pairs_at_once, dtype):
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", pairs_at_once)
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(generator, 6, 9, grid=grid).to(dtype)
    priors = random_boxes(generator, 70, grid=grid).to(dtype)
    labels = torch.randint(0, 4, (6, 9), generator=generator)  # padding anywhere, with boxes of its own
    labels[4] = 0
    labels[5, 0] = 0
    for threshold in (0.0, 0.3, 0.5):
        batch_boxes, batch_labels = match_batch(boxes, labels, priors, threshold)
        for place in range(len(labels)):
            expected_boxes, expected_labels = plain_match(boxes[place], labels[place], priors, threshold)
            assert torch.equal(batch_boxes[place], expected_boxes)
            assert torch.equal(batch_labels[place], expected_labels)


def test_the_first_of_equal_priors_counts_across_the_parts_compared_at_once(monkeypatch):
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 2)
    _, labels = assign_priors(PRIORS[1:2], torch.tensor([5]), PRIORS[[0, 2, 1, 1, 0, 1]], 1.1)
    assert labels.tolist() == [0, 0, 5, 0, 0, 0]


def test_a_batch_without_images():
    boxes, labels = match_batch(torch.zeros(0, 3, 4), torch.zeros(0, 3, dtype=torch.int64), PRIORS, 0.5)
    assert boxes.shape == (0, 3, 4)
    assert labels.shape == (0, 3)


def test_matching_never_looks_at_values():
    # A tensor without data cannot answer .item(), and shapes cannot follow from it: nothing waits for a GPU.
    boxes, labels = torch.empty(2, 5, 4, device="meta"), torch.empty(2, 5, device="meta", dtype=torch.int64)
    matched_boxes, matched_labels = match_batch(boxes, labels, PRIORS.to("meta"), 0.5)
    assert matched_boxes.shape == (2, 3, 4)
    assert matched_labels.shape == (2, 3)


class Largest(TorchDispatchMode):
    """Notes the most bytes that a tensor which is computed inside keeps in memory."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in results if isinstance(results, (tuple, list)) else [results]:
            if isinstance(result, torch.Tensor):
                self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return results


@pytest.mark.parametrize(("images", "objects"), [(2, 50), (8, 50), (8, 400)])
def test_no_intermediate_grows_with_images_or_objects(monkeypatch, images, objects):
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 8192)
    generator = torch.Generator().manual_seed(0)
    boxes, priors = random_boxes(generator, images, objects).float(), random_boxes(generator, 500).float()
    labels = torch.ones(images, objects, dtype=torch.int64)
    with Largest() as largest:
        match_batch(boxes, labels, priors, 0.5)
    corners, result = 8192 * 2 * 4, images * 500 * 4 * 4
    assert 0 < largest.bytes <= max(corners, result)


def test_mining_keeps_positives_and_the_hardest_negatives_of_each_image():
    loss = torch.tensor([[0.9, 0.1, 0.8, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4, 0.5]])
    labels = torch.tensor([[0, 3, 0, 0, 0], [1, 0, 0, 0, 2]])
    before = loss.clone()
    mask = hard_negative_mining(loss, labels, 1)
    assert mask.tolist() == [[True, True, False, False, False], [True, False, True, True, True]]
    assert torch.equal(loss, before), "inputs are not written to"


def test_mining_of_an_image_without_positives():
    loss, labels = torch.tensor([[0.3, 0.1, 0.2]]), torch.zeros(1, 3, dtype=torch.int64)
    assert hard_negative_mining(loss, labels, 3).sum() == 0
    assert hard_negative_mining(loss, labels, 3, negatives_when_empty=2).tolist() == [[True, False, True]]
