"""Laws of the box geometry."""

import math

import numpy as np
import pytest
import torch

from vision.boxes.coding import convert_boxes_to_locations, convert_locations_to_boxes
from vision.boxes.forms import area_of, center_form_to_corner_form, corner_form_to_center_form, iou_of
from vision.boxes.overlaps import iou_of_arrays


def random_corner_form_boxes(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    low = torch.rand(count, 2, generator=generator)
    return torch.cat([low, low + 0.01 + torch.rand(count, 2, generator=generator)], dim=1)


@pytest.mark.parametrize("count", [0, 1, 50])
def test_forms_are_inverse(count):
    boxes = random_corner_form_boxes(count)
    there_and_back = center_form_to_corner_form(corner_form_to_center_form(boxes))
    assert there_and_back.shape == (count, 4)
    torch.testing.assert_close(there_and_back, boxes)


def test_center_form_of_known_box():
    assert corner_form_to_center_form(torch.tensor([1.0, 2.0, 5.0, 4.0])).tolist() == [3.0, 3.0, 4.0, 2.0]


@pytest.mark.parametrize("with_batch_axis", [False, True])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_decoding_undoes_encoding(count, with_batch_axis):
    boxes = corner_form_to_center_form(random_corner_form_boxes(count))
    priors = corner_form_to_center_form(random_corner_form_boxes(count + 100)[:count])
    boxes = boxes[None].expand(3, -1, -1) if with_batch_axis else boxes
    locations = convert_boxes_to_locations(boxes, priors, 0.1, 0.2)
    torch.testing.assert_close(convert_locations_to_boxes(locations, priors, 0.1, 0.2), boxes, atol=1e-5, rtol=1e-5)


def test_encoding_of_known_box():
    prior = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.52, 0.46, 0.4, 0.4]])
    expected = [0.02 / 0.2 / 0.1, -0.04 / 0.4 / 0.1, math.log(2) / 0.2, 0.0]
    torch.testing.assert_close(convert_boxes_to_locations(box, prior, 0.1, 0.2)[0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("box", "overlap"),
    [
        ((0, 0, 2, 2), 1.0),
        ((5, 5, 6, 6), 0.0),
        ((2, 0, 4, 2), 0.0),
        ((0, 0, 1, 1), 0.25),
        ((1, 1, 3, 3), 1 / 7),
        ((1, 1, 1, 1), 0.0),
    ],
    ids=["equal", "disjoint", "touching", "nested", "crossing", "empty"],
)
def test_iou_of_known_boxes(box, overlap):
    one = torch.tensor([0.0, 0.0, 2.0, 2.0])
    assert float(iou_of(one, torch.tensor(box, dtype=torch.float32))) == pytest.approx(overlap, abs=1e-5)


def test_iou_broadcasts_and_takes_no_boxes():
    assert iou_of(torch.zeros(0, 1, 4), torch.zeros(7, 4)).shape == (0, 7)


def test_reversed_box_has_no_area():
    assert float(area_of(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 5.0]))) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_overlaps_of_arrays_are_those_of_tensors_to_the_last_bit(dtype, eps):
    """Equal, empty and reversed boxes and those without end included; as pairs, and each with each."""
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 3, (90, 4)).astype(dtype)
    boxes[:60, 2:] += 2
    boxes[:30] = boxes[:30].round()
    boxes[70] = np.inf
    boxes[71, 2] = np.nan
    tensors = torch.from_numpy(boxes)
    pairs = iou_of_arrays(boxes, boxes[::-1], eps)
    np.testing.assert_array_equal(pairs, iou_of(tensors, tensors.flip(0), eps).numpy())
    all_with_all = iou_of_arrays(boxes[:, None], boxes[None], eps)
    np.testing.assert_array_equal(all_with_all, iou_of(tensors[:, None], tensors[None], eps).numpy())
    assert all_with_all.dtype == dtype
    assert iou_of_arrays(boxes[:0, None], boxes[None], eps).shape == (0, 90)
