"""Starting from torchvision's classifiers, which have random weights here, as published ones cannot be fetched in a test."""

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from conftest import assert_refused, train_argv
from test_backbones import torchvision_model

import eval_ssd
import train_ssd
from vision.engine import pretrained
from vision.ssd.data_preprocessing import Preprocess, normalize
from vision.ssd.models import MODELS, describe_weights
from vision.ssd.weights import read_weights
from vision.structures import DataError

CLASSIFIERS = {
    "mb2-ssd-lite": "mobilenet_v2",
    "mb3-ssd-lite": "mobilenet_v3_large",
    "sq-ssd-lite": "squeezenet1_1",
    "vgg16-ssd": "vgg16",
}


def imagenet_path(net: str, folder: Path) -> Path:
    return pretrained.torchvision_path(pretrained.IMAGENET, net, folder)


def state_of(model: torch.nn.Module) -> dict:
    """State_dict of a model of `torchvision_model`; what has no numbers gets zeros that take no room in files."""
    return {
        key: torch.zeros(()).expand(value.shape) if value.is_meta else value
        for key, value in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def written_models(tmp_path_factory):
    """Write a file for each net, and give the folder and torchvision's models by net."""
    folder = tmp_path_factory.mktemp("imagenet") / "models"
    folder.mkdir()
    models = {net: torchvision_model(name) for net, name in CLASSIFIERS.items()}
    for net, model in models.items():
        torch.save(state_of(model), imagenet_path(net, folder))
    return folder, models


@pytest.fixture
def models_folder(written_models, monkeypatch):
    """Work in a folder whose `models` hold a file for each net."""
    folder, _ = written_models
    monkeypatch.chdir(folder.parent)
    return folder


def test_files_are_named_as_ever():
    assert {
        net: imagenet_path(net, Path("models")).as_posix() for net in pretrained.TORCHVISION[pretrained.IMAGENET]
    } == {
        "mb2-ssd-lite": "models/mobilenet_v2-7ebf99e0.pth",
        "mb2-ssd-fpnlite": "models/mobilenet_v2-7ebf99e0.pth",
        "mb3-ssd-lite": "models/mobilenet_v3_large-5c1a4163.pth",
        "sq-ssd-lite": "models/squeezenet1_1-b8a52dc0.pth",
        "vgg16-ssd": "models/vgg16-397923af.pth",
        "vgg16-ssd-l2": "models/vgg16-397923af.pth",
    }


@pytest.mark.parametrize(
    ("name", "modules", "side"),
    [("mb2-ssd-lite", 19, 96), ("mb3-ssd-lite", 13, 96), ("sq-ssd-lite", 13, 127), ("vgg16-ssd", 30, 64)],
)
def test_a_net_sees_what_torchvisions_sees_borders_included(written_models, name, modules, side):
    """Each with its own normalization of the same pixels; sides as in test_backbones."""
    folder, models = written_models
    net = MODELS[name].build(2)
    pretrained.initialize(net, pretrained.WeightsSource(pretrained.IMAGENET, str(imagenet_path(name, folder))))
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    normalized = torchvision.transforms.functional.normalize(images / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        ours = net.base_net.eval()[:modules](Preprocess(net.config.image_mean, net.config.image_std)(images))
        theirs = models[name].features[:modules](normalized)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))
    assert theirs.std() > 1e-3


@pytest.mark.parametrize(
    ("name", "left", "unused"),
    [
        ("mb2-ssd-lite", 0, "2 of classifier"),
        ("mb3-ssd-lite", 48, "4 of classifier, 48 of features"),  # the projection of module 13 and all that follows
        ("sq-ssd-lite", 0, "2 of classifier"),
        ("vgg16-ssd", 4, "6 of classifier"),
    ],
)
def test_what_matched_and_what_did_not_is_said_in_three_lines(written_models, caplog, name, left, unused):
    net = MODELS[name].build(2, config=MODELS[name].config_at(300))
    folder, _ = written_models
    path = imagenet_path(name, folder)
    with caplog.at_level("INFO"):
        pretrained.initialize(net, pretrained.WeightsSource(pretrained.IMAGENET, str(path)))
    counts = Counter(key.partition(".")[0] for key in net.state_dict() if not key.endswith("tracked"))
    matched = counts.pop("base_net") - left
    counts |= {"base_net": left} if left else {}
    anew = ", ".join(f"{count} of {part}" for part, count in sorted(counts.items()))
    assert [record.getMessage() for record in caplog.records] == [
        f"Init from {path}, with torchvision's normalization: {matched} of {matched + sum(counts.values())} weights",
        f"newly initialized (not in the file, or of other classes): {anew}",
        f"not used of the file: {unused}",
    ]


def test_the_normalization_stays_with_the_run(script, models_folder, voc_root, tmp_path):
    small = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith(("--net", "--pretrained"))]
    argv = [*small, "--net=mb2-ssd-lite", "--epochs=1"]
    done = script(train_ssd.main, *argv, "--base-net=imagenet")
    assert done.code == 0, done.err
    mean = tuple(255 * value for value in (0.485, 0.456, 0.406))

    def config_of(path):
        return describe_weights(read_weights(path), str(path)).config

    assert config_of(tmp_path / "m/last.pth").image_mean == mean
    assert len(config_of(tmp_path / "m/last.pth").image_std) == 3
    assert script(train_ssd.main, *argv[:-1], "--epochs=2", "--resume").code == 0
    assert config_of(tmp_path / "m/last.pth").image_mean == mean
    other = [argument for argument in argv if not argument.startswith("--model-dir")]
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
    np.testing.assert_allclose(normalize(image, (1, 2, 3), (4.0, 5.0, 6.0))[:, 0, 0], expected, rtol=1e-6)
    batch = Preprocess((1, 2, 3), (4.0, 5.0, 6.0))(torch.from_numpy(image.transpose(2, 0, 1))[None])
    np.testing.assert_allclose(batch[0, :, 0, 0], expected, rtol=1e-6)


def test_files_that_do_not_fit(written_models):
    _, models = written_models
    net = MODELS["sq-ssd-lite"].build(2, config=MODELS["sq-ssd-lite"].config_at(300))
    with pytest.raises(DataError, match="is it another net's file"):
        pretrained.load_imagenet(net, state_of(models["vgg16-ssd"]), "vgg.pth")
    with pytest.raises(DataError, match="has 0 weights below `features`"):
        pretrained.load_imagenet(net, {"classifier.weight": torch.zeros(1)}, "x.pth")


def test_nets_that_torchvision_lacks(script, voc_root, tmp_path):
    done = script(train_ssd.main, *train_argv(voc_root, tmp_path / "m"), "--base-net=imagenet")
    assert done.code == 2
    argv = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith("--pretrained")]
    done = script(train_ssd.main, *argv, "--base-net=imagenet")
    wanted = "torchvision has no backbone of mb1-ssd-lite; use --net=mb2-ssd-lite or mb2-ssd-fpnlite or mb3-ssd-lite"
    assert_refused(done, wanted)


@pytest.mark.parametrize("fits", [True, False])
def test_downloads_are_checked_by_the_hash_in_their_name(models_folder, tmp_path, monkeypatch, fits):
    content = imagenet_path("sq-ssd-lite", models_folder).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8] if fits else "00000000"
    source = tmp_path / f"squeezenet1_1-{digest}.pth"
    source.write_bytes(content)
    monkeypatch.setattr(pretrained, "torchvision_weights", lambda start, net: SimpleNamespace(url=source.as_uri()))
    folder = tmp_path / "models"
    if fits:
        path = pretrained.fetch_torchvision(
            pretrained.IMAGENET, "sq-ssd-lite", folder, lambda items, what, total: items
        )
        assert path.read_bytes() == content
    else:
        with pytest.raises(DataError, match="what came is not the published file"):
            pretrained.fetch_torchvision(pretrained.IMAGENET, "sq-ssd-lite", folder, lambda items, what, total: items)
        assert not list(folder.glob("*"))


def test_a_dry_run_does_not_fetch_it(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith(("--net", "--pretrained"))]
    done = script(train_ssd.main, *small, "--net=mb2-ssd-lite", "--base-net=imagenet", "--dry-run")
    assert_refused(done, "models/mobilenet_v2-7ebf99e0.pth: missing, training would download it")
