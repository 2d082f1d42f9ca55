"""Matching and mining: golden, and cases that golden leaves out."""

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from vision.boxes.forms import center_form_to_corner_form
from vision.boxes.matching import assign_priors, hard_negative_mining, match_batch
from vision.ssd.config import MOBILENETV1
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


def test_a_padded_batch_gives_what_each_picture_gives_alone():
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


def test_mining_keeps_positives_and_the_hardest_negatives_of_each_picture():
    loss = torch.tensor([[0.9, 0.1, 0.8, 0.3, 0.2], [0.1, 0.2, 0.3, 0.4, 0.5]])
    labels = torch.tensor([[0, 3, 0, 0, 0], [1, 0, 0, 0, 2]])
    before = loss.clone()
    mask = hard_negative_mining(loss, labels, 1)
    assert mask.tolist() == [[True, True, False, False, False], [True, False, True, True, True]]
    assert torch.equal(loss, before), "inputs are not written to"


def test_mining_of_a_picture_without_positives():
    loss, labels = torch.tensor([[0.3, 0.1, 0.2]]), torch.zeros(1, 3, dtype=torch.int64)
    assert hard_negative_mining(loss, labels, 3).sum() == 0
    assert hard_negative_mining(loss, labels, 3, negatives_when_empty=2).tolist() == [[True, False, True]]
