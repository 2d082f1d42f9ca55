"""What a checkpoint knows of the images it was trained on, and what is measured by that."""

import hashlib
import json
import math
import re
import shutil

import pytest
import torch
from conftest import train_argv

import eval_ssd
import onnx_export
import train_ssd
from vision.datasets import ReadingOptions, open_dataset, synthetic
from vision.deploy.session import OnnxSession
from vision.deploy.torch_session import load_net
from vision.ssd import trained_images
from vision.ssd.models import MODELS
from vision.ssd.trained_images import TrainedImages
from vision.ssd.weights import read_weights


def digests(count: int, start: int = 0) -> list[str]:
    return [hashlib.blake2b(str(number).encode(), digest_size=12).hexdigest() for number in range(start, start + count)]


def test_images_are_known_by_what_is_in_their_files():
    known = TrainedImages.of([*digests(1000), *digests(3), ""])
    assert known.has([*digests(1002, 998), ""]) == [True] * 2 + [False] * 1000 + [None]
    assert known == TrainedImages.of(reversed(digests(1000))), "in any order"
    assert len(known.digests) < 11 * 1000
    nothing = TrainedImages.of([])
    assert nothing.has(digests(2)) == [False, False]
    assert nothing.joined(None) == nothing
    both = known.joined(TrainedImages.of(digests(10, 5000)))
    assert both.has(digests(1, 5)) == both.has(digests(1, 5005)) == [True]
    assert both.has(digests(1, 3000)) == [False]
    assert json.loads(json.dumps(both._asdict())) == both._asdict()


def test_of_very_many_images_a_fair_sample_is_kept_and_it_says_of_which_it_does_not_know(monkeypatch):
    monkeypatch.setattr(trained_images, "MAX_IMAGES", 500)
    known = TrainedImages.of(digests(1000))
    assert not known.complete
    assert len(known.digests) == 4 * math.ceil(500 * 8 / 3)
    trained, new = known.has(digests(1000)), known.has(digests(1000, 1000))
    assert (trained.count(True), trained.count(False), trained.count(None)) == (500, 0, 500)
    assert new.count(True) == 0
    assert 400 < new.count(False) < 600, "of about half of them it knows"
    for others in (digests(100, 5000), digests(2000, 3000)):
        other = TrainedImages.of(others)
        both = known.joined(other)
        assert not both.complete
        assert both == other.joined(known)
        assert False not in both.has([*digests(1000), *others])
        assert both.has(digests(1000)).count(True) > 100
        assert True not in both.has(digests(900, 6000))


def run_argv(data, folder, *more):
    return train_argv(data, folder, "--epochs=1", "--repeat=1", "--batch-size=8", *more)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """25 images without lists."""
    root = tmp_path_factory.mktemp("data") / "voc"
    synthetic.write_voc(root, {"train": synthetic.drawings(25, 1, size=(48, 40), objects=(2, 3))})
    shutil.rmtree(root / "ImageSets")
    return root


@pytest.fixture(scope="module")
def run_folder(data, tmp_path_factory):
    """After a run that held one image out."""
    folder = tmp_path_factory.mktemp("run")
    train_ssd.main(list(run_argv(data, folder, "--val-split=0.05", "--resolution=48")))
    return folder


def digests_of(data, split="test", **options):
    return [record.digest for record in open_dataset("voc", data, split, ReadingOptions(**options)).records]


def test_a_checkpoint_knows_its_training_images_and_loads_strictly_elsewhere(data, run_folder):
    for name in ("best.pth", "last.pth"):
        net = load_net(run_folder / name)
        assert net.trained_on.has(digests_of(data, "train", val_split=0.05)) == [True] * 24
        assert net.trained_on.has(digests_of(data, "test", val_split=0.05)) == [False]
    weights = torch.load(run_folder / "best.pth", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    plain = torch.nn.Module.load_state_dict(net, weights, strict=True)
    assert (plain.missing_keys, plain.unexpected_keys) == ([], [])
    state = torch.load(run_folder / "last.state", weights_only=True)
    assert state["description"]["trained_on"] == net.trained_on._asdict()


@pytest.mark.parametrize("option", ["--resume", "--pretrained-ssd"])
def test_the_images_of_a_run_before_are_not_forgotten(data, run_folder, tmp_path, option):
    """Where its weights are gone on with, on other images."""
    synthetic.write_voc(tmp_path / "other", {"train": synthetic.drawings(6, 9, size=(48, 40))})
    argv = run_argv(
        tmp_path / "other", tmp_path / "m", "--resolution=48", "--epochs=2", f"{option}={run_folder / 'best.pth'}"
    )
    train_ssd.main([word for word in argv if word != "--pretrained-ssd=none"])
    known = load_net(tmp_path / "m" / "last.pth").trained_on
    assert known.has(digests_of(data, "train", val_split=0.05)) == [True] * 24
    assert set(known.has(digests_of(tmp_path / "other", "train"))) == {True}
    assert set(known.has(digests_of(tmp_path / "other", "test"))) == {False}


def evaluated(script, model, data, out, *more):
    argv = (f"--model={model}", f"--data={data}", f"--eval-dir={out}", "--device=cpu", *more)
    done = script(eval_ssd.main, *argv)
    assert (done.code, done.err) == (0, "")
    metrics = json.loads((out / "metrics.json").read_text())
    return done, metrics


def test_evaluation_leaves_training_images_out_and_says_so(script, data, run_folder, tmp_path):
    done, metrics = evaluated(script, run_folder, data, tmp_path)
    said = "the model was trained on none of the 1 images measured; 4 more are left out, as it was trained on them"
    assert f"{said} (--include-trained" in done.out
    assert said in (tmp_path / "report.html").read_text()
    counts = {"measured": 1, "trained_on": 0, "unknown": 0, "left_out": 4, "unknown_left_out": 0}
    assert (metrics["images"], metrics["trained_images"]) == (1, counts)
    for more, images, trained in (
        (("--include-trained",), 5, 4),
        (("--split=train",), 20, 20),
        (("--val-split=0.05",), 1, 0),
    ):
        done, metrics = evaluated(script, run_folder, data, tmp_path, "--no-plots", *more)
        assert f"the model was trained on {trained or 'none'} of the {images} images measured" in done.out
        assert ("that says little about new images" in done.out) == bool(trained)
        assert metrics["trained_images"] == {**counts, "measured": images, "trained_on": trained, "left_out": 0}


def test_images_are_measured_where_the_model_was_trained_on_all_or_knows_nothing(script, data, run_folder, tmp_path):
    net = load_net(run_folder / "best.pth")
    net.trained_on = TrainedImages.of([*digests_of(data, "train"), *digests_of(data, "test")])
    net.save(str(tmp_path / "all.pth"))
    done, metrics = evaluated(script, tmp_path / "all.pth", data, tmp_path / "e", "--no-plots")
    assert "the model was trained on 5 of the 5 images measured; that says little about new images" in done.out
    assert metrics["trained_images"]["trained_on"] == metrics["images"] == 5
    net.trained_on = None
    net.save(str(tmp_path / "older.pth"))
    done, metrics = evaluated(script, tmp_path / "older.pth", data, tmp_path / "e", "--no-plots")
    assert "trained on" not in done.out
    assert (metrics["trained_images"], metrics["images"]) == (None, 5)


def test_an_export_is_measured_on_new_images_and_knows_them(script, data, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "AP_TOLERANCE", 1.0)  # one image, and a net that has learnt next to nothing
    argv = (f"--input={run_folder / 'best.pth'}", f"--output={tmp_path / 'x.onnx'}", f"--data={data}")
    for more, images in (((), 1), (("--include-trained",), 5)):
        done = script(onnx_export.main, *argv, *more)
        assert (done.code, done.err) == (0, "")
        assert re.search(rf": {images} images, objects: ", done.out)
        assert f"the model was trained on {4 * (images > 1) or 'none'} of the {images} images measured" in done.out
    assert OnnxSession(tmp_path / "x.onnx").trained_on == load_net(run_folder / "best.pth").trained_on
    done, metrics = evaluated(script, tmp_path / "x.onnx", data, tmp_path / "e", "--no-plots")
    assert metrics["trained_images"]["left_out"] == 4


def test_a_net_made_by_hand_says_nothing(tmp_path):
    net = MODELS["mb1-ssd-lite"].build(3)
    assert not {"trained_on", "threshold"} & net.description().to_dict().keys()
    net.save(str(tmp_path / "x.pth"))
    assert load_net(tmp_path / "x.pth").trained_on is None
    assert "base_net.0.0.weight" in read_weights(tmp_path / "x.pth")
