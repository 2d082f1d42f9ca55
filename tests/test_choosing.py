"""Choosing what to label next: what an image is worth, features of a net, and what people read of it."""

import csv
import json

import numpy as np
import pytest
import torch

from vision.deploy.torch_session import load_net
from vision.evaluation import choosing
from vision.evaluation.choosing import Candidate, Choice, ClassFacts, as_candidate, choose, uncertainty
from vision.report.chosen import chosen_table, class_facts, facts_line, reason
from vision.ssd.features import FeatureRecorder
from vision.structures import Detections

NOTHING_KNOWN = ClassFacts(np.zeros(2), np.full(2, np.nan))


def candidate(name, mass, features):
    mass = np.array(mass, np.float32)
    return Candidate(name, mass, mass.astype(np.int32), np.array(features, np.float32))


def names_of(choices):
    return [choice.name for choice in choices]


def detections(*labels_and_scores):
    labels, scores = zip(*labels_and_scores, strict=True)
    return Detections(torch.zeros(len(labels), 4), torch.tensor(labels), torch.tensor(scores))


def test_scores_at_the_threshold_are_the_least_sure():
    values = uncertainty(np.array([0.0, 0.1, 0.2, 0.6, 1.0]), 0.2)
    np.testing.assert_allclose(values, [0, 0.5, 1, 0.5, 0])


def test_an_image_is_remembered_by_class():
    found = detections((1, 0.25), (1, 0.5), (2, 0.99))
    seen = as_candidate("x", found, np.ones(3), threshold=0.5, num_classes=3)
    np.testing.assert_allclose(seen.mass, [1.5, 0.02, 0], atol=1e-6)
    assert seen.counts.tolist() == [2, 0, 0]
    empty = as_candidate("x", found, np.ones(3), threshold=0.5, num_classes=3, is_empty=True)
    np.testing.assert_allclose(empty.mass, [0.75, 0.99, 0], atol=1e-6)
    assert empty.counts.tolist() == [1, 1, 0]


def directions(*degrees):
    """Features of images that look the more alike the nearer their directions are."""
    return [[np.cos(np.radians(degree)), np.sin(np.radians(degree))] for degree in degrees]


FOUR_WAYS = directions(0, 90, 180, 270)


@pytest.mark.parametrize(
    ("labeled", "ap", "best"),
    [([100, 5], [0.5, 0.5], "second"), ([5, 100], [0.5, 0.5], "first"), ([9, 9], [0.9, 0.3], "second")],
)
def test_rare_and_weak_classes_are_worth_more(labeled, ap, best):
    masses = {"first": [2, 0], "second": [0, 2], "third": [0, 0], "fourth": [0, 0]}
    images = [candidate(name, mass, way) for (name, mass), way in zip(masses.items(), FOUR_WAYS, strict=True)]
    facts = ClassFacts(np.array(labeled, float), np.array(ap))
    chosen = choose(images, 2, facts)
    assert chosen[0].name == best
    assert chosen[0].worth > 1
    assert chosen[0].counts.sum() == 2


def test_typical_images_come_first_and_each_kind_once():
    """Six images that look alike, three of another kind, and one that looks like nothing else and is the least sure."""
    ways = directions(0, 2, 4, 6, 8, 10, 120, 122, 124, 240)
    masses = [[1, 0]] * 9 + [[3, 0]]
    images = [candidate(str(number), mass, way) for number, (mass, way) in enumerate(zip(masses, ways, strict=True))]
    chosen = choose(images, 10, NOTHING_KNOWN)
    assert names_of(chosen)[0] in "012345"
    assert names_of(chosen)[1] in "678"
    assert names_of(chosen)[2] == "9"
    assert chosen[0].stands_for >= 5 / 9
    assert chosen[2].stands_for == 0
    assert sorted(names_of(chosen)) == sorted(map(str, range(10)))


def test_what_looks_like_the_labeled_is_chosen_last():
    images = [candidate(name, [1, 0], way) for name, way in zip("abcd", FOUR_WAYS, strict=True)]
    labeled = np.array(directions(0, 92, 181), np.float32)
    chosen = choose(images, 4, NOTHING_KNOWN, labeled)
    assert names_of(chosen)[0] == "d"
    assert names_of(chosen)[-1] == "a"


def test_a_spread_of_many_images_stands_for_all(monkeypatch):
    monkeypatch.setattr(choosing, "MAX_OTHERS", 4)
    images = [candidate(str(number), [1, 0], way) for number, way in enumerate(directions(*range(0, 360, 10)))]
    assert len(choose(images, 40, NOTHING_KNOWN)) == 36


def test_images_in_which_nothing_is_found_can_be_chosen():
    images = [candidate("x", [0, 0], FOUR_WAYS[0]), candidate("y", [0, 0], FOUR_WAYS[1])]
    assert sorted(names_of(choose(images, 5, NOTHING_KNOWN))) == ["x", "y"]
    assert choose([], 5, NOTHING_KNOWN) == []


def test_features_are_what_the_heads_see_and_change_nothing(model_dir):
    net = load_net(model_dir / "best.pth").eval()
    width, height = net.config.width_height
    images = torch.rand(2, 3, height, width)
    with torch.inference_mode():
        before = net(images)
        with FeatureRecorder(net) as recorder:
            during = net(images)
            features = recorder.features
        maps = net.feature_maps(images)
    assert all(torch.equal(one, other) for one, other in zip(before, during, strict=True))
    assert not any(head._forward_pre_hooks for head in net.classification_headers)
    expected = [torch.nn.functional.normalize(level.mean(dim=(2, 3)), dim=1) for level in maps]
    torch.testing.assert_close(features, torch.cat(expected, dim=1))


def test_a_model_folder_says_what_is_rare_and_weak(tmp_path):
    unknown = class_facts(tmp_path, ["cat", "dog"])
    assert unknown.labeled.tolist() == [0, 0]
    assert np.isnan(unknown.ap).all()
    audit = {"train": {"objects_per_class": {"dog": 7, "bird": 3}}}
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    with open(tmp_path / "results.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "COCO AP/val", "Class Average Precision/cat", "Class Average Precision/dog"])
        writer.writerows([[0, 0.1, 0.2, 0.3], [1, 0.5, 0.6, 0.25], [2, 0.4, 0.9, 0.9]])
    facts = class_facts(tmp_path, ["cat", "dog"])
    assert (facts.labeled.tolist(), facts.ap.tolist()) == ([0, 7], [0.6, 0.25])
    assert facts_line(facts, ["cat", "dog"]).endswith(
        "cat (0 objects labeled, AP 0.600), dog (7 objects labeled, AP 0.250)"
    )
    assert "AP not known" in facts_line(unknown, ["cat", "dog"])


def test_reasons_name_what_is_there_most():
    classes = ["cat", "dog", "bird", "fish"]
    choice = Choice("x.jpg", np.array([1, 0, 4, 2]), 0.25, 2.5)
    named = "4 bird, 2 fish, 1 cat; looks like 25% of the others"
    assert reason(choice, classes, is_empty=False) == f"unsure of {named}"
    assert reason(choice, classes, is_empty=True) == f"false alarms: {named}"
    nothing = Choice("y.jpg", np.zeros(4, int), 0.0, 0.5)
    unlike = "looks like no other"
    assert reason(nothing, classes, is_empty=False) == f"nothing found that is near the threshold; {unlike}"
    table = chosen_table([choice, nothing], classes, is_empty=True).splitlines()
    assert table[0] == "rank,image,worth against the mean,reason"
    assert table[1].startswith("1,x.jpg,2.50,")
    assert table[2] == f"2,y.jpg,0.50,no false alarm from the threshold on; {unlike}"


@pytest.mark.parametrize("text", ["", "[]", '{"train": {}}'])
def test_an_audit_that_cannot_be_read_is_named(tmp_path, caplog, text):
    (tmp_path / "audit.json").write_text(text)
    assert class_facts(tmp_path, ["cat"]).labeled.tolist() == [0]
    assert "audit.json: cannot be read" in caplog.text
