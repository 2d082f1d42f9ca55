"""Priors fitted to boxes: which sizes are chosen, where they go, and what stays for objects unlike those."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from vision.boxes.forms import center_form_to_corner_form, iou_of
from vision.boxes.prior_fitting import MAX_CLUSTERS, cluster_sides, fair_weights, fit_priors, fit_sides
from vision.boxes.priors import CellPrior, FreePriorLevel, generate_ssd_priors
from vision.ssd.choices import COCO_PRIORS, FITTED_PRIORS, NET_NAMES, UPSTREAM_PRIORS
from vision.ssd.config.families import MOBILENETV1
from vision.ssd.models import MODELS
from vision.ssd.prior_choice import config_with_priors, with_fitted_priors


def sides_like(*groups: tuple[int, float, float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of about (width, height), so many of each group, which is a class."""
    rng = np.random.default_rng(seed)
    sides = [np.array([width, height]) * rng.uniform(0.9, 1.1, (count, 2)) for count, width, height in groups]
    labels = [np.full(count, label + 1) for label, (count, _, _) in enumerate(groups)]
    return np.float32(np.concatenate(sides)), np.concatenate(labels)


def nearest(found: np.ndarray, width: float, height: float) -> float:
    return float(np.abs(np.log(found / [width, height])).max(axis=1).min())


def test_finds_the_sizes_that_are_there():
    found = fit_sides(*sides_like((500, 20, 24), (300, 50, 60), (100, 200, 100)))
    assert len(found) == 3
    for size in ((20, 24), (50, 60), (200, 100)):
        assert nearest(found, *size) < 0.03
    assert (np.diff(found.prod(axis=1)) > 0).all(), "from small to large"


def test_a_rare_class_is_not_lost_among_many():
    sides, labels = sides_like((2000, 100, 100), (20, 20, 60))
    assert nearest(fit_sides(sides, labels), 20, 60) < 0.1
    weights = fair_weights(sides, labels)
    assert weights.sum() == pytest.approx(1)
    assert weights[labels == 2].sum() > 0.15, "of 1 % of the boxes"


def test_an_odd_box_among_many_gets_no_priors_of_its_own():
    sides, labels = sides_like((500, 50, 50), (2, 10, 290))
    assert nearest(fit_sides(sides, labels), 10, 290) > 0.5


@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_few_boxes_are_enough(count):
    found = fit_sides(*sides_like((count, 40, 30)))
    assert 1 <= len(found) <= count
    assert nearest(found, 40, 30) < 0.1


def test_what_cannot_be_seen_is_left_out_and_nothing_gives_nothing():
    assert fit_sides(np.float32([[3, 50], [0, 0]]), np.array([1, 1])).shape == (0, 2)
    assert fit_sides(np.zeros((0, 2), np.float32), np.zeros(0, np.int64)).shape == (0, 2)


def test_boxes_all_alike_are_one_cluster():
    centers, owners = cluster_sides(np.full((50, 2), 32.0), np.ones(50), 5)
    np.testing.assert_allclose(centers, [[32, 32]])
    assert set(owners) == {0}


def test_the_same_boxes_give_the_same_priors_and_their_number_is_bounded():
    rng = np.random.default_rng(3)
    sides, labels = np.float32(rng.uniform(8, 300, (9000, 2))), rng.integers(1, 4, 9000)
    found = fit_sides(sides, labels)
    assert len(found) <= MAX_CLUSTERS
    assert np.array_equal(found, fit_sides(sides.copy(), labels.copy()))


def test_clusters_go_to_maps_of_the_backbone_whose_cells_suit_them():
    levels = MOBILENETV1.at(300).specs
    fitted = fit_priors(*sides_like((100, 20, 24), (100, 100, 120), (100, 280, 280)), levels, trained_levels=2)
    assert [isinstance(level, FreePriorLevel) for level in fitted] == [True, True, False, False, False, False]
    assert fitted[2:] == levels[2:]
    fine, coarse = (
        set(level.cell_priors) - set(general.cell_priors) for level, general in zip(fitted, levels[:2], strict=False)
    )
    assert {(prior.offset_x, prior.offset_y) for prior in fine if prior.height < 30} == {
        (x, y) for x in (-0.25, 0.25) for y in (-0.25, 0.25)
    }
    assert all(prior.offset_x == prior.offset_y == 0 for prior in coarse)
    assert max(prior.width for prior in coarse) > 250, "not to an extra map, which has seen no image before"


def test_a_general_prior_does_not_stay_beside_a_fitted_one_that_is_like_it():
    level = MOBILENETV1.at(300).specs[0]
    square = level.cell_priors[0].width
    fitted = fit_priors(np.full((50, 2), square), np.ones(50, int), [level], trained_levels=1)[0].cell_priors
    assert fitted == (CellPrior(square, square), *level.cell_priors[1:])
    small = fit_priors(np.full((50, 2), 20.0), np.ones(50, int), [level], trained_levels=1)[0].cell_priors
    assert small[4:] == level.cell_priors, "beside four fitted ones"


@pytest.mark.parametrize("size", [300, (512, 288)])
@pytest.mark.parametrize("name", NET_NAMES)
def test_every_net_finds_more_of_small_and_odd_objects(name, size):
    spec = MODELS[name]
    general = config_with_priors(spec, size, FITTED_PRIORS)
    width, height = general.width_height
    sides, labels = sides_like((200, width / 15, height / 13), (100, width / 1.5, height / 9))
    config = with_fitted_priors(spec, general, sides, labels)
    net = spec.build(3, config=config).eval().to("meta")  # shapes without numbers
    confidences, _ = net(torch.empty(1, 3, height, width, device="meta"))
    assert confidences.shape[1] == len(config.priors)

    centers = np.random.default_rng(1).uniform(0.2, 0.8, sides.shape)
    relative = sides / np.float32([width, height])
    boxes = torch.from_numpy(np.concatenate([centers - relative / 2, centers + relative / 2], axis=1)).float()

    def recall(priors):
        return (iou_of(boxes[:, None], center_form_to_corner_form(priors)).amax(dim=1) >= 0.5).float().mean()

    assert recall(config.priors) >= 0.9
    assert recall(config.priors) > recall(spec.config_at(size).priors)


def test_upstreams_priors_are_the_published_ones_and_cocos_begin_smaller():
    spec = MODELS["mb1-ssd"]
    assert config_with_priors(spec, 300, UPSTREAM_PRIORS) == spec.config_at(300)
    coco = config_with_priors(spec, 300, COCO_PRIORS)
    assert len(coco.priors) == len(spec.config_at(300).priors)
    assert float(coco.priors[:, 2].min()) * 300 == pytest.approx(21 / np.sqrt(3), abs=0.01)


def test_priors_off_the_middle_of_their_cells():
    moved = FreePriorLevel(2, 50, (CellPrior(20, 10, offset_x=0.25, offset_y=-0.5),))
    priors = generate_ssd_priors([moved], 100)
    torch.testing.assert_close(priors[0], torch.tensor([0.375, 0.0, 0.2, 0.1]))
    torch.testing.assert_close(priors[3], torch.tensor([0.875, 0.5, 0.2, 0.1]))


def test_at_another_size_fitted_priors_cover_the_same_shares_and_others_follow_their_rules():
    spec = MODELS["mb1-ssd"]
    fitted = with_fitted_priors(spec, spec.config_at(300), *sides_like((50, 20, 24)))
    other = spec.config_like(replace(fitted, image_mean=(1.0, 2.0, 3.0)), (600, 300))
    assert (other.width_height, other.image_mean) == ((600, 300), (1.0, 2.0, 3.0))
    for old, new in zip(fitted.specs[0].cell_priors, other.specs[0].cell_priors, strict=True):
        assert (new.width, new.height) == pytest.approx((2 * old.width, old.height))
        assert (new.offset_x, new.offset_y) == (old.offset_x, old.offset_y)
    assert [level.feature_map_size for level in other.specs] == [
        level.feature_map_size for level in spec.config_at((600, 300)).specs
    ]
    for rule in (spec.config_at, spec.coco_config_at):
        assert spec.config_like(rule(300), 512) == rule(512)
    assert spec.config_like(fitted, 300) is fitted
