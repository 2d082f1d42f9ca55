"""Starting from torchvision's classifiers; a stand-in takes the place of what cannot be fetched in a test."""

import hashlib
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import assert_refused, train_words

import eval_ssd
import train_ssd
from vision.engine import pretrained
from vision.ssd.config import SSDConfig
from vision.ssd.data_preprocessing import Normaliser, normalise
from vision.ssd.models import MODELS, describe_weights
from vision.ssd.weights import read_weights
from vision.structures import DataError

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def stand_in(net_name: str) -> dict:
    """Weights in the order and below the names of torchvision's, with a classifier; VGG lacks our last two layers."""
    generator = torch.Generator().manual_seed(3)
    own = MODELS[net_name].build(2).base_net.state_dict()
    keys = [key for key in own if not (net_name == "vgg16-ssd" and key.startswith(("31.", "33.")))]
    weights = {
        f"features.{number}.{key.rpartition('.')[2]}": (
            own[key] if key.endswith("tracked") else torch.rand(own[key].shape, generator=generator) * 0.1
        )
        for number, key in enumerate(keys)
    }
    return {**weights, "classifier.1.weight": torch.zeros(3, 3), "classifier.1.bias": torch.zeros(3)}


@pytest.fixture
def models_folder(tmp_path, monkeypatch):
    """Work in a folder whose `models` hold a stand-in for each net."""
    (tmp_path / "models").mkdir()
    for net, url in pretrained.TORCHVISION.items():
        torch.save(stand_in(net), tmp_path / "models" / url.rpartition("/")[2])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "models"


@pytest.mark.parametrize("name", pretrained.TORCHVISION)
def test_the_first_layer_sees_what_it_saw_there_borders_included(models_folder, name):
    net = MODELS[name].build(2, config=MODELS[name].config_at(300))
    weights = read_weights(pretrained.imagenet_path(name, models_folder))
    pretrained.take_imagenet(net, weights, "x.pth")
    images = torch.randint(0, 256, (1, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    ours = net.base_net[0](Normaliser(net.config.image_mean, net.config.image_std)(images))
    first = net.base_net[0][0] if isinstance(net.base_net[0], torch.nn.Sequential) else net.base_net[0]
    theirs = (images.double() / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    layer = torch.nn.functional.conv2d(theirs, weights["features.0.weight"].double(), None, first.stride, first.padding)
    if first.bias is not None:
        layer = layer + weights["features.1.bias"].double().view(-1, 1, 1)
    if first is not net.base_net[0]:  # batch norm and ReLU6 behind it
        layer = net.base_net[0][1:].double()(layer)
    torch.testing.assert_close(ours.double(), layer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "left"), [("mb2-ssd-lite", 0), ("sq-ssd-lite", 0), ("vgg16-ssd", 4)])
def test_what_matched_and_what_did_not_is_said_in_three_lines(models_folder, caplog, name, left):
    net = MODELS[name].build(2, config=MODELS[name].config_at(300))
    path = pretrained.imagenet_path(name, models_folder)
    with caplog.at_level("INFO"):
        pretrained.initialise(net, pretrained.StartingFiles(imagenet=path))
    counts = Counter(key.partition(".")[0] for key in net.state_dict() if not key.endswith("tracked"))
    matched = counts.pop("base_net") - left
    counts |= {"base_net": left} if left else {}
    anew = ", ".join(f"{count} of {part}" for part, count in sorted(counts.items()))
    assert [record.getMessage() for record in caplog.records] == [
        f"Init from {path}, with torchvision's normalisation: {matched} of {matched + sum(counts.values())} weights",
        f"not in the file or of its classes, start anew: {anew}",
        "not used of the file: 2 of classifier",
    ]


def test_the_normalisation_stays_with_the_run(script, models_folder, voc_root, tmp_path):
    small = [word for word in train_words(voc_root, tmp_path / "m") if not word.startswith(("--net", "--pretrained"))]
    words = [*small, "--net=mb2-ssd-lite", "--epochs=1"]
    done = script(train_ssd.main, *words, "--base-net=imagenet")
    assert done.code == 0, done.err
    mean = tuple(255 * value for value in (0.485, 0.456, 0.406))

    def config_of(path):
        return SSDConfig.from_dict(describe_weights(read_weights(path), str(path))["config"])

    assert config_of(tmp_path / "m/last.pth").image_mean == mean
    assert len(config_of(tmp_path / "m/last.pth").image_std) == 3
    assert script(train_ssd.main, *words[:-1], "--epochs=2", "--resume").code == 0
    assert config_of(tmp_path / "m/last.pth").image_mean == mean
    other = [word for word in words if not word.startswith("--model-dir")]
    last = tmp_path / "m/last.pth"
    assert script(train_ssd.main, *other, f"--model-dir={tmp_path / 'n'}", f"--pretrained-ssd={last}").code == 0
    assert config_of(tmp_path / "n/last.pth").image_mean == mean
    done = script(
        eval_ssd.main, f"--model={last}", f"--data={voc_root}", f"--eval-dir={tmp_path / 'e'}", "--device=cpu"
    )
    assert done.code == 0, done.err


def test_three_deviations_are_one_per_channel():
    image = np.full((2, 2, 3), 100, np.uint8)
    expected = [(100 - m) / s for m, s in zip((1, 2, 3), (4, 5, 6), strict=True)]
    np.testing.assert_allclose(normalise(image, (1, 2, 3), (4.0, 5.0, 6.0))[:, 0, 0], expected, rtol=1e-6)
    batch = Normaliser((1, 2, 3), (4.0, 5.0, 6.0))(torch.from_numpy(image.transpose(2, 0, 1))[None])
    np.testing.assert_allclose(batch[0, :, 0, 0], expected, rtol=1e-6)


def test_files_that_do_not_fit(models_folder):
    net = MODELS["sq-ssd-lite"].build(2, config=MODELS["sq-ssd-lite"].config_at(300))
    with pytest.raises(DataError, match="is it another net's file"):
        pretrained.take_imagenet(net, stand_in("vgg16-ssd"), "vgg.pth")
    with pytest.raises(DataError, match="has 0 weights below `features`"):
        pretrained.take_imagenet(net, {"classifier.weight": torch.zeros(1)}, "x.pth")


def test_nets_that_torchvision_lacks(script, voc_root, tmp_path):
    done = script(train_ssd.main, *train_words(voc_root, tmp_path / "m"), "--base-net=imagenet")
    assert done.code == 2
    words = [word for word in train_words(voc_root, tmp_path / "m") if not word.startswith("--pretrained")]
    done = script(train_ssd.main, *words, "--base-net=imagenet")
    assert_refused(done, "torchvision has no backbone of mb1-ssd-lite; use --net=mb2-ssd-lite or sq-ssd-lite")


def test_downloads_are_checked_by_the_hash_in_their_name(tmp_path, monkeypatch):
    source = tmp_path / "published.pth"
    torch.save(stand_in("sq-ssd-lite"), source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:8]
    for name, fits in ((f"squeezenet1_1-{digest}.pth", True), ("squeezenet1_1-00000000.pth", False)):
        (tmp_path / name).write_bytes(source.read_bytes())
        monkeypatch.setitem(pretrained.TORCHVISION, "sq-ssd-lite", (tmp_path / name).as_uri())
        folder = tmp_path / str(fits)
        if fits:
            path = pretrained.fetch_imagenet("sq-ssd-lite", folder, lambda items, what, total: items)
            assert path.read_bytes() == source.read_bytes()
        else:
            with pytest.raises(DataError, match="what came is not the published file"):
                pretrained.fetch_imagenet("sq-ssd-lite", folder, lambda items, what, total: items)
            assert not list(folder.glob("*"))


def test_a_dry_run_does_not_fetch_it(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [word for word in train_words(voc_root, tmp_path / "m") if not word.startswith(("--net", "--pretrained"))]
    done = script(train_ssd.main, *small, "--net=mb2-ssd-lite", "--base-net=imagenet", "--dry-run")
    assert_refused(done, "models/mobilenet_v2-7ebf99e0.pth: missing, training would download it")
