"""Priors: golden, counts, and the sizes beyond 300."""

import numpy as np
import pytest
import torch
from conftest import GOLDEN, golden_json

from vision.boxes.priors import PriorLevel, SSDBoxSizes, generate_ssd_priors
from vision.ssd.config.families import MOBILENETV1, SQUEEZENET, VGG
from vision.ssd.config.ssd_config import SSDConfig

FAMILIES = {"mobilenetv1": MOBILENETV1, "squeezenet": SQUEEZENET, "vgg": VGG}


@pytest.mark.parametrize(
    ("key", "family", "size"),
    [
        ("mb1_300", MOBILENETV1, 300),
        ("mb1_512", MOBILENETV1, 512),
        ("sq_300", SQUEEZENET, 300),
        ("vgg_300", VGG, 300),
    ],
)
def test_golden_priors(key, family, size):
    expected = np.load(GOLDEN / "priors.npz")[key]
    np.testing.assert_allclose(family.at(size).priors.numpy(), expected, rtol=0, atol=1e-6)


def test_golden_specs_at_512():
    levels = golden_json("specs_512.json")["mb1_512"]
    specs = MOBILENETV1.at(512).specs
    assert len(specs) == len(levels)
    for spec, (cells, step, small, large, ratios) in zip(specs, levels, strict=True):
        assert (spec.feature_map_size, spec.shrinkage, list(spec.aspect_ratios)) == (cells, step, ratios)
        assert tuple(spec.box_sizes) == pytest.approx((small, large))


@pytest.mark.parametrize(
    ("family", "counts"),
    [
        ("mobilenetv1", {300: 3000, 512: 8190, 640: 12828, 1024: 32760}),
        ("squeezenet", {300: 2568, 512: 8214, 640: 12792, 1024: 32772}),
        ("vgg", {300: 8732, 512: 24656, 640: 38600, 1024: 99152}),
    ],
)
def test_counts(family, counts):
    for size, count in counts.items():
        priors = FAMILIES[family].at(size).priors
        assert priors.shape == (count, 4)
        assert priors.dtype == torch.float32
        assert priors.min() >= 0
        assert priors.max() <= 1


def test_first_cell_by_hand():
    level = PriorLevel(2, 50, SSDBoxSizes(20, 45), (4,))
    priors = generate_ssd_priors([level], 100)
    assert level.boxes_per_location == 4
    expected = [
        (0.25, 0.25, 0.2, 0.2),
        (0.25, 0.25, 0.3, 0.3),
        (0.25, 0.25, 0.4, 0.1),
        (0.25, 0.25, 0.1, 0.4),
    ]
    torch.testing.assert_close(priors[:4], torch.tensor(expected))
    assert priors[4, :2].tolist() == [0.75, 0.25], "columns come before rows"


def test_clamping_can_be_switched_off():
    level = PriorLevel(1, 100, SSDBoxSizes(90, 110), (4,))
    assert generate_ssd_priors([level], 100, clamp=False).max() > 1
    assert generate_ssd_priors([level], 100).max() == 1


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_squares_stay_square_in_pixels_when_the_input_is_not(family):
    config = family.at((640, 320))
    assert config.width_height == (640, 320)
    first = config.priors[0]
    assert float(first[2]) * 640 == pytest.approx(float(first[3]) * 320)
    assert float(first[2]) * 640 == pytest.approx(32)


def test_a_size_given_as_a_pair_of_equal_sides_is_the_square():
    assert MOBILENETV1.at((300, 300)) == MOBILENETV1.at(300)
    assert MOBILENETV1.at((512, 512)) == MOBILENETV1.at(512)


@pytest.mark.parametrize("size", [300, 512, (512, 288)])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_config_survives_the_way_through_plain_values(family, size):
    config = family.at(size)
    again = SSDConfig.from_dict(config.to_dict())
    assert again == config
    assert torch.equal(again.priors, config.priors)


@pytest.mark.parametrize("size", [267, (300, 200)])
def test_vgg_says_the_least_it_takes(size):
    with pytest.raises(ValueError, match="at least 268"):
        VGG.at(size)
