"""The loss: golden, and batches in which there is nothing to find."""

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from vision.nn.multibox_loss import VIRTUAL_POSITIVES, MultiboxLoss

LOSS = np.load(GOLDEN / "multibox_loss.npz")


def tensors() -> list[torch.Tensor]:
    return [torch.from_numpy(LOSS[name]) for name in ("confidence", "predicted_locations", "labels", "gt_locations")]


def test_golden():
    losses = MultiboxLoss(neg_pos_ratio=3)(*tensors())
    assert float(losses.regression) == pytest.approx(float(LOSS["regression_loss"]), rel=1e-4)
    assert float(losses.classification) == pytest.approx(float(LOSS["classification_loss"]), rel=1e-4)
    assert float(losses.total) == pytest.approx(float(losses.regression + losses.classification))
    regression, classification = losses
    assert (regression, classification) == (losses.regression, losses.classification)


@pytest.mark.parametrize(
    ("beta", "loss"), [(1.0, 0.02 + 0.02 + 0.5 + 2.5), (0.3, 0.2**2 / 0.6 * 2 + 0.85 + 2.85), (0.0, 4.4)]
)
def test_beta_is_where_squares_end(beta, loss):
    """Errors 0.2, -0.2, 1 and 3 of one positive: x^2 / (2 beta) below beta, |x| - beta / 2 above."""
    locations, labels = torch.zeros(1, 2, 4), torch.tensor([[1, 0]])
    targets = torch.tensor([[[0.2, -0.2, 1.0, 3.0], [9.0, 9.0, 9.0, 9.0]]])
    losses = MultiboxLoss(beta=beta)(torch.zeros(1, 2, 3), locations, labels, targets)
    assert losses.regression.item() == pytest.approx(loss)


def test_takes_the_arguments_of_old():
    loss = MultiboxLoss(torch.zeros(3, 4), 0.5, 3, 0.1, 0.2, torch.device("cpu"))
    assert float(loss(*tensors()).total) == pytest.approx(float(MultiboxLoss()(*tensors()).total))


def test_inputs_are_not_written_to():
    before = [t.clone() for t in tensors()]
    given = [t.clone() for t in before]
    MultiboxLoss()(*given)
    assert all(torch.equal(one, other) for one, other in zip(before, given, strict=True))


def test_images_without_objects_teach():
    confidence = torch.randn(2, 50, 3, requires_grad=True)
    locations = torch.randn(2, 50, 4, requires_grad=True)
    labels = torch.zeros(2, 50, dtype=torch.int64)
    losses = MultiboxLoss(neg_pos_ratio=3)(confidence, locations, labels, torch.full((2, 50, 4), -torch.inf))
    assert losses.regression.item() == 0
    assert 0 < losses.classification.item() < 100
    losses.total.backward()
    touched = (confidence.grad.abs().sum(dim=2) > 0).sum(dim=1)
    assert touched.tolist() == [3 * VIRTUAL_POSITIVES] * 2
    assert torch.isfinite(locations.grad).all()


def test_an_empty_image_beside_others_adds_its_negatives_and_its_weight():
    generator = torch.Generator().manual_seed(0)
    confidence, locations = (
        torch.randn(2, 50, 3, generator=generator),
        torch.randn(2, 50, 4, generator=generator),
    )
    labels = torch.zeros(2, 50, dtype=torch.int64)
    labels[0, :8] = 1
    targets = torch.zeros(2, 50, 4)
    both = MultiboxLoss()(confidence, locations, labels, targets)
    alone = MultiboxLoss()(confidence[:1], locations[:1], labels[:1], targets[:1])
    empty = MultiboxLoss()(confidence[1:], locations[1:], labels[1:], targets[1:])
    weights = 8, VIRTUAL_POSITIVES
    expected = (alone.classification * weights[0] + empty.classification * weights[1]) / sum(weights)
    assert float(both.classification) == pytest.approx(float(expected), rel=1e-5)


def test_infinite_targets_of_background_priors_do_not_spoil_the_loss():
    confidence, locations = torch.zeros(1, 10, 3), torch.zeros(1, 10, 4, requires_grad=True)
    labels = torch.zeros(1, 10, dtype=torch.int64)
    labels[0, 0] = 2
    targets = torch.full((1, 10, 4), torch.nan)
    targets[0, 0] = 1.0
    losses = MultiboxLoss()(confidence, locations, labels, targets)
    assert losses.regression.item() == pytest.approx(4 * 0.5)
    losses.total.backward()
    assert torch.isfinite(locations.grad).all()


def test_no_images_divide_by_nothing():
    losses = MultiboxLoss()(
        torch.zeros(1, 0, 3), torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, 4)
    )
    assert float(losses.total) == 0
