"""`benchmarks/few_images.py`: draws of a dataset, trained on and drawn as a curve."""

import cv2
import pytest
from conftest import assert_refused, write_small_voc

from benchmarks import accuracy, few_images
from vision.datasets import open_dataset

COMMON = "--net=sq-ssd-lite --resolution=32 --epochs=1 --pretrained-ssd=none --augmentation=none --device=cpu --amp=off --workers=0 --no-plots --batch-size=2"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_small_voc(tmp_path_factory.mktemp("data") / "small", train=6, test=3)


@pytest.fixture
def argv(data, tmp_path):
    return f"--runs={tmp_path / 'runs'}", "--data", f"small={data}", "--seeds", "1", f"--common={COMMON}"


def lists_of(runs):
    views = sorted((runs / accuracy.VIEWS).iterdir())
    return {view.name: (view / "ImageSets" / "Main" / "trainval.txt").read_text().split() for view in views}


def test_draws_of_a_seed_hold_its_smaller_ones_and_no_test_image(argv, data, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "perform", lambda runs: [])
    argv = [word for word in argv if word not in ("--seeds", "1")]
    few_images.main([*argv, "--seeds", "1", "2", "--images", "2", "4", "--setting", "plain="])
    drawn = lists_of(tmp_path / "runs")
    assert {name: len(images) for name, images in drawn.items()} == {
        "small-2-1": 2,
        "small-2-2": 2,
        "small-4-1": 4,
        "small-4-2": 4,
    }
    for seed in (1, 2):
        assert set(drawn[f"small-2-{seed}"]) < set(drawn[f"small-4-{seed}"])
    assert drawn["small-4-1"] != drawn["small-4-2"]
    train = set(open_dataset("voc", data, "train").ids)
    assert all(set(images) <= train for images in drawn.values())


def test_each_draw_is_trained_on_and_the_curve_drawn(argv, tmp_path, script):
    plot = tmp_path / "curve.png"
    argv = *argv, "--images", "4", "2", "--setting", "plain=", f"--plot={plot}"
    done = script(few_images.main, *argv)
    assert (done.code, done.err) == (0, "")
    logs = {images: (tmp_path / f"runs/small-{images}/plain/seed1/output.txt").read_text() for images in (2, 4)}
    assert all(f"train: {images} of {images} images used" in log for images, log in logs.items())
    assert done.out.index("small-2, 3 test images") < done.out.index("small-4, 3 test images")
    assert cv2.imread(str(plot)).shape == (450, 1200, 3)
    again = script(few_images.main, *argv)
    assert "2 of 2 runs are done" in again.out
    assert again.out.partition("small-2, ")[2] == done.out.partition("small-2, ")[2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--images", "7", "--setting", "plain="), "has 6 images to draw from, asked for are 7"),
        (("--images", "0", "--setting", "plain="), "--images: '0'"),
        (("--images", "2"), "name --data and --setting"),
        (("--images", "2", "--setting", "a=", "a="), "--setting: a name is there twice"),
        (("--images", "2", "--setting", "a=--lr=x"), "--setting a: argument --lr"),
    ],
)
def test_what_cannot_be_done_is_refused(argv, more, said, script):
    assert_refused(script(few_images.main, *argv, *more), said)
