"""Heads of a detector in a net of other classes and other priors."""

from dataclasses import replace

import pytest
import torch

from vision.boxes.coding import convert_locations_to_boxes
from vision.boxes.priors import CellPrior, FreePriorLevel, generate_ssd_priors
from vision.engine.heads import load_heads, match_cell_priors
from vision.ssd.models import MODELS

#: With plain heads, with separable ones, and with batch norm in them.
NETS = ("mb1-ssd", "mb1-ssd-lite", "mb2-ssd-lite")
SIZE = 96


def detector(name, class_names, specs=None):
    config = MODELS[name].config_at(SIZE)
    net = MODELS[name].build(len(class_names), config=config if specs is None else replace(config, specs=specs))
    net.class_names = tuple(class_names)
    net.init()
    return net.eval()


def other_specs(name):
    """Priors of other shapes, places and order, and one fewer on the first map."""
    levels = []
    for level in MODELS[name].config_at(SIZE).specs:
        priors = [CellPrior(w * 1.3, h * 0.8, 0.1, -0.2) for w, h, _, _ in reversed(level.cell_priors)]
        levels.append(FreePriorLevel(level.feature_map_size, level.shrinkage, tuple(priors[not levels :])))
    return tuple(levels)


def filled(name, source, class_names):
    """A net of other classes and priors with all weights of a source."""
    net = detector(name, class_names, other_specs(name))
    own = net.state_dict()
    for key, value in source.state_dict().items():
        if not key.startswith(("classification_headers", "regression_headers")):
            own[key].copy_(value)
    kept = load_heads(net, source.state_dict(), source.config.specs, source.class_names)
    return net, kept


def by_cell(values, net, level):
    """Numbers of one level of a net, (cells, priors, numbers)."""
    counts = [spec.feature_map_size**2 * spec.boxes_per_location for spec in net.config.specs]
    start = sum(counts[:level])
    return values[0, start : start + counts[level]].reshape(
        -1, net.config.specs[level].boxes_per_location, values.shape[2]
    )


@pytest.mark.parametrize("name", NETS)
def test_each_prior_predicts_the_box_and_scores_of_the_most_similar_prior(name):
    torch.manual_seed(0)
    source = detector(name, ("BACKGROUND", "ant", "bee", "cat"))
    net, kept = filled(name, source, ("BACKGROUND", "cat", "new"))
    assert kept == ["cat"]
    with torch.no_grad():
        image = torch.rand(1, 3, SIZE, SIZE)
        (their_scores, their_locations), (scores, locations) = source(image), net(image)
    boxes, their_boxes = (
        convert_locations_to_boxes(found, generate_ssd_priors(of.config.specs, SIZE, clamp=False), 0.1, 0.2)
        for found, of in ((locations, net), (their_locations, source))
    )
    for level, (target, origin) in enumerate(zip(net.config.specs, source.config.specs, strict=True)):
        indices = match_cell_priors(target, origin, 0.1, 0.2).indices
        expected = by_cell(their_boxes, source, level)[:, indices]
        torch.testing.assert_close(by_cell(boxes, net, level), expected, rtol=1e-4, atol=1e-4)
        found, theirs = by_cell(scores, net, level), by_cell(their_scores, source, level)[:, indices]
        torch.testing.assert_close(found[..., :2], theirs[..., [0, 3]])
        torch.testing.assert_close(found[..., 2], theirs[..., 1:].mean(dim=-1))


def test_the_same_priors_and_classes_give_the_same_heads():
    source = detector("mb2-ssd-lite", ("BACKGROUND", "ant", "bee"))
    net = detector("mb2-ssd-lite", ("BACKGROUND", "ant", "bee"))
    assert load_heads(net, source.state_dict(), source.config.specs, source.class_names) == ["ant", "bee"]
    for key, value in net.state_dict().items():
        if key.startswith(("classification_headers", "regression_headers")):
            assert torch.equal(value, source.state_dict()[key]), key


def test_the_most_similar_prior_is_the_one_that_overlaps_most_in_pixels():
    source = FreePriorLevel(4, 16, (CellPrior(20.0, 20.0), CellPrior(20.0, 20.0, 0.5, 0.0), CellPrior(60.0, 30.0)))
    target = FreePriorLevel(
        8, 16, (CellPrior(58.0, 33.0), CellPrior(22.0, 20.0, 0.4, 0.0), CellPrior(18.0, 20.0, -0.3))
    )
    match = match_cell_priors(target, source, 0.1, 0.2)
    assert match.indices.tolist() == [2, 1, 0]
    # A prediction of exactly the source's prior, as the target's prior encodes it.
    assert match.shift[1, 0].item() == pytest.approx((0.5 - 0.4) * 16 / 22 / 0.1)
    assert match.scale[1].tolist() == pytest.approx([20 / 22, 1, 1, 1])
