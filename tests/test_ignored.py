"""Objects that are neither to be found nor background: difficult ones, crowds and groups, small ones."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import train_argv

import eval_ssd
import train_ssd
from vision.boxes import matching
from vision.boxes.forms import center_form_to_corner_form
from vision.boxes.matching import find_ignored_priors, hard_negative_mining
from vision.datasets import open_dataset
from vision.datasets.loading import pad
from vision.engine.step import TrainingModel
from vision.nn.multibox_loss import MultiboxLoss
from vision.ssd.config.families import MOBILENETV1
from vision.ssd.data_preprocessing import Preprocess, TestTransform, TrainAugmentation
from vision.ssd.models import MODELS
from vision.structures import CROWD, IGNORED, Sample
from vision.transforms.windows import Window

PRIORS = center_form_to_corner_form(MOBILENETV1.at(300).priors)
WHOLE = [0.0, 0.0, 1.0, 1.0]


def ignored_by(boxes, labels, priors=PRIORS):
    labels = torch.tensor([labels])
    return find_ignored_priors(torch.tensor([boxes]), labels == IGNORED, labels == CROWD, priors, 0.5)[0]


def test_an_ignored_object_takes_the_priors_that_would_have_been_its_own():
    boxes = [[0.3, 0.3, 0.6, 0.7], [0.11, 0.11, 0.13, 0.13]]
    _, labels = matching.assign_priors(torch.tensor(boxes), torch.tensor([1, 1]), PRIORS, 0.5)
    found = ignored_by(boxes, [IGNORED, IGNORED])
    assert torch.equal(found, labels > 0)
    assert found.sum() > 2, "the tiny one has a best prior alone, the other has more"


def test_a_crowd_takes_the_priors_of_which_it_covers_half():
    priors = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.39, 0.0, 0.59, 0.2], [0.45, 0.0, 0.65, 0.2], [-0.3, 0.0, 0.1, 0.1]])
    crowd = [0.0, 0.0, 0.5, 1.0]
    assert ignored_by([crowd], [CROWD], priors).tolist() == [True, True, False, True], (
        "of the last the part inside counts"
    )
    assert ignored_by([crowd], [0], priors).tolist() == [False] * 4, "padding"


@pytest.mark.parametrize("pairs_at_once", [1, 1000, matching.PAIRS_AT_ONCE])
def test_a_whole_image_under_one_crowd_has_no_negatives(pairs_at_once, monkeypatch):
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", pairs_at_once)
    priors = PRIORS[::7]
    assert ignored_by([WHOLE], [CROWD], priors).all()
    labels = torch.full((1, len(priors)), IGNORED)
    labels[0, 5] = 3
    chosen = hard_negative_mining(torch.rand(1, len(priors)), labels, 3)
    assert chosen.nonzero().tolist() == [[0, 5]]


def test_no_ignored_objects_ignore_nothing():
    none = torch.zeros(2, 0, dtype=torch.bool)
    assert find_ignored_priors(torch.zeros(2, 0, 4), none, none, PRIORS, 0.5).shape == (2, len(PRIORS))
    assert not ignored_by([WHOLE], [0]).any()


def test_the_loss_does_not_depend_on_ignored_priors():
    torch.manual_seed(1)
    labels = torch.zeros(2, 50, dtype=torch.int64)
    labels[0, 3], labels[:, 10:40] = 2, IGNORED
    scores, locations = torch.randn(2, 50, 4), torch.randn(2, 50, 4)
    scores[:, 10:40, 0] = -9  # hard as background
    scores.requires_grad_()
    losses = MultiboxLoss()(scores, locations, labels, torch.zeros(2, 50, 4))
    losses.total.backward()
    assert (scores.grad[:, 10:40] == 0).all()
    assert (scores.grad.abs().sum(dim=2) > 0).sum() == 1 + 3 + 12, "a positive, its three negatives, twelve without one"


def batch_of(*labels):
    image = torch.zeros(3, 96, 96, dtype=torch.uint8)
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5], WHOLE])[: len(labels)]
    return pad([Sample(image, boxes, torch.tensor(labels)), Sample(image, boxes[:1], torch.tensor([1]))])


def test_a_batch_keeps_ignored_objects_apart():
    batch = batch_of(1, CROWD)
    assert batch.labels.tolist() == [[1], [1]]
    assert batch.ignored_labels.tolist() == [[CROWD], [0]]
    assert batch.ignored_boxes[0].tolist() == [WHOLE]
    assert batch_of(1, 2).ignored_boxes is None


def test_targets_of_a_net():
    spec = MODELS["mb1-ssd-lite"]
    net = spec.build(3, config=spec.config_at(96))
    model = TrainingModel(net, Preprocess(127, 128), MultiboxLoss())
    _, with_crowd = model.targets(batch_of(1, CROWD))
    _, without = model.targets(batch_of(1))
    assert torch.equal(with_crowd > 0, without > 0), "an object inside a crowd stays one"
    assert set(with_crowd[0].tolist()) == {IGNORED, 1}
    assert torch.equal(with_crowd[1], without[1])


def test_augmentation_carries_them_along_and_is_not_decided_by_them():
    boxes = np.float32([[10, 10, 40, 60], [0, 0, 90, 90], [70, 70, 80, 80]])
    labels = np.array([1, CROWD, IGNORED])
    augmentation = TrainAugmentation(96)
    cut = 0
    for seed in range(200):
        every = augmentation.plan((100, 100), boxes, labels, np.random.default_rng(seed))
        alone = augmentation.plan((100, 100), boxes[:1], labels[:1], np.random.default_rng(seed))
        assert every.window == alone.window
        np.testing.assert_array_equal(every.boxes[every.labels > 0], alone.boxes)
        assert (every.boxes >= 0).all() and (every.boxes <= 1).all()
        cut += CROWD in every.labels and every.window.size != (100, 100)
    assert cut > 50


def test_what_is_visible_of_an_ignored_object_stays_though_its_center_is_cut_off():
    boxes, labels = np.float32([[0, 0, 60, 60]] * 3 + [[80, 80, 90, 90]]), np.array([1, IGNORED, CROWD, IGNORED])
    moved, kept = Window(40, 40, 70, 70).map_boxes(boxes, labels)
    assert kept.tolist() == [IGNORED, CROWD]
    assert moved.tolist() == [[0, 0, 20, 20]] * 2


def test_validation_ignores_them_too():
    view = TestTransform(96).plan((100, 100), np.float32([[0, 0, 90, 90]]), np.array([CROWD]), None)
    assert view.labels.tolist() == [CROWD]


# Formats


def write_coco(root):
    (root / "annotations").mkdir(parents=True)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "ball"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [20, 20, 30, 15], "iscrowd": 1},
        ],
    }
    (root / "annotations" / "instances_test.json").write_text(json.dumps(content))
    write_image(root / "test" / "a.png")
    return open_dataset("coco", root, "test")


def write_open_images(root):
    header = ["ImageID", "XMin", "YMin", "XMax", "YMax", "ClassName", "IsGroupOf", "IsDepiction"]
    rows = [["a", 0.1, 0.1, 0.3, 0.3, "ball", 0, 0], ["a", 0.4, 0.4, 0.9, 0.9, "ball", 1, 0]]
    rows.append(["a", 0.5, 0.1, 0.8, 0.2, "ball", 0, 1])
    root.mkdir(parents=True)
    with open(root / "sub-test-annotations-bbox.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    write_image(root / "test" / "a.png")
    return open_dataset("open_images", root, "test")


def write_image(path):
    import cv2

    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), np.full((40, 60, 3), 99, np.uint8))


def test_crowds_of_coco(tmp_path):
    dataset = write_coco(tmp_path / "coco")
    assert dataset.targets(0)[1].tolist() == [1, CROWD]
    assert dataset.annotation(0).difficult.tolist() == [False, True]
    assert dataset[0][2].tolist() == [1], "scripts get what they always got"


def test_groups_and_depictions_of_open_images(tmp_path):
    dataset = write_open_images(tmp_path / "oi")
    assert dataset.targets(0)[1].tolist() == [1, CROWD, IGNORED]
    dataset.ignores_difficult = False
    assert dataset.targets(0)[1].tolist() == [1]


def test_crowds_of_classes_that_are_not_known_go_with_them(tmp_path):
    dataset = write_coco(tmp_path / "coco")
    record = dataset.records[0]
    dataset.records = [record._replace(names=("ball", "gone"))]
    assert dataset.targets(0)[1].tolist() == [1]
    dataset.drop_unknown()
    assert (dataset.records[0].crowds, dataset.targets(0)[1].tolist()) == ((False,), [1])


def make_difficult(root):
    """Mark the first object of each training image of a VOC folder as difficult; returns how many."""
    names = (root / "ImageSets" / "Main" / "train.txt").read_text().split()
    for name in names:
        path = root / "Annotations" / f"{name}.xml"
        path.write_text(path.read_text().replace("<difficult>0<", "<difficult>1<", 1))
    return len(names)


def test_difficult_objects_of_voc_in_a_run(own_voc, tmp_path, script, monkeypatch):
    count = make_difficult(own_voc)
    seen = {}
    targets = TrainingModel.targets

    def watch(self, batch):
        found = targets(self, batch)
        seen.setdefault(treatment, []).append(int((found[1] == IGNORED).sum()))
        return found

    monkeypatch.setattr(TrainingModel, "targets", watch)
    for treatment in ("ignore", "background"):
        done = script(
            train_ssd.main, *train_argv(own_voc, tmp_path / treatment, "--epochs=1", f"--difficult={treatment}")
        )
        assert done.code == 0, done.err
        assert f"({count} difficult)" in done.out
    assert sum(seen["ignore"]) > 0
    assert sum(seen["background"]) == 0
    assert train_ssd.parse_args(["--recipe=upstream"]).difficult == "background"


def test_an_image_with_difficult_objects_alone_counts_as_one_without(own_voc, tmp_path):
    for path in (own_voc / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace("<difficult>0<", "<difficult>1<"))
    dataset = open_dataset("voc", own_voc, "train")
    assert not len(dataset.objects_to_learn().record)
    dataset.drop_negatives()
    assert len(dataset) == 0


# --min-object


def test_small_objects_become_difficult(own_voc):
    dataset = open_dataset("voc", own_voc, "train")
    sides = np.concatenate([(r.boxes[:, 2:] - r.boxes[:, :2]) * np.divide((300, 200), r.size) for r in dataset.records])
    limit = float(np.median(sides.max(axis=1)))
    expected = int((sides < limit).all(axis=1).sum())
    assert 0 < expected < len(sides)
    assert dataset.ignore_small(limit, (300, 200)) == expected
    assert sum(sum(r.difficult) for r in dataset.records) == expected
    assert dataset.ignore_small(limit, (300, 200)) == 0, "they are already"


def test_min_object_in_training_and_evaluation(own_voc, model_dir, tmp_path, script):
    records = open_dataset("voc", own_voc, "test").records
    sides = np.concatenate([(r.boxes[:, 2:] - r.boxes[:, :2]) * np.divide((96, 96), r.size) for r in records])
    limit = round(float(np.median(sides.max(axis=1))), 1)
    done = script(train_ssd.main, *train_argv(own_voc, tmp_path / "run", f"--min-object={limit}", "--dry-run"))
    assert done.code == 0, done.err
    assert f"smaller than {limit:g} pixels at 96x96 and ignored (--min-object)" in done.out
    shutil.copy(model_dir / "best.pth", tmp_path / "best.pth")
    argv = [f"--model={tmp_path / 'best.pth'}", f"--data={own_voc}", "--no-plots", f"--eval-dir={tmp_path / 'eval'}"]
    counts = []
    for more in ((), (f"--min-object={limit}",)):
        done = script(eval_ssd.main, *argv, *more)
        assert done.code == 0, done.err
        counts.append(json.loads((tmp_path / "eval" / "metrics.json").read_text())["classes"])
    objects = [sum(row["objects"] for row in rows) for rows in counts]
    assert 0 < objects[1] < objects[0]
