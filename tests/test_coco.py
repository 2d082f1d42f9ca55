"""Starting from torchvision's SSDs, which have random weights here, as published ones cannot be fetched in a test."""

import copy
import functools
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torchvision
from conftest import SHARED, assert_refused, train_argv
from torch import nn
from torchvision.models.detection.image_list import ImageList

import train_ssd
from vision.boxes.priors import FreePriorLevel
from vision.datasets import synthetic
from vision.engine import pretrained
from vision.ssd.models import MODELS, describe_weights
from vision.ssd.ssd import evaluating
from vision.ssd.weights import read_weights
from vision.structures import DataError

MAKERS = {"mb3-ssd-lite": "ssdlite320_mobilenet_v3_large", "vgg16-ssd-l2": "ssd300_vgg16"}
NETS = tuple(MAKERS)
BCCD = SHARED / "datasets" / "bccd" / "JPEGImages"


@functools.cache
def random_ssd(net: str) -> nn.Module:
    """Build torchvision's SSD for COCO with random weights and statistics that keep answers moderate."""
    model = torchvision.models.get_model(MAKERS[net], weights=None, weights_backbone=None)
    generator = torch.Generator().manual_seed(3)
    for key, value in model.state_dict().items():
        if key.endswith("tracked"):
            continue
        if value.dim() == 4:  # keeps the maps' deviation from layer to layer, so that they do not fade
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif key.endswith(("bias", "running_mean")):
            value.normal_(0, 0.1, generator=generator)
        else:
            value.mul_(torch.empty_like(value).uniform_(0.5, 1.5, generator=generator))
    with torch.no_grad():
        if net == "vgg16-ssd-l2":  # its input is 128 times as large as the other's
            model.backbone.features[0].weight /= 100
        for module in model.head.regression_head.module_list:
            (module[-1] if isinstance(module, nn.Sequential) else module).weight /= 4
    return model.eval()


def categories_of(net: str) -> list[str]:
    return pretrained.torchvision_weights(pretrained.COCO, net).meta["categories"]


def started(model: nn.Module, net: str, class_names, size=None):
    built = MODELS[net].build(len(class_names), config=MODELS[net].config_at(size))
    built.class_names = tuple(class_names)
    pretrained.load_coco(built, model.state_dict(), "coco.pth")
    return built


def answers_of(model: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Torchvision's logits (1, P, 91) and relative corner-form boxes (1, P, 4) of uint8 pixels, before it selects any."""
    images = torchvision.transforms.functional.normalize(
        pixels / 255, model.transform.image_mean, model.transform.image_std
    )
    maps = list(model.backbone(images).values())
    answer = model.head(maps)
    height, width = images.shape[-2:]
    (anchors,) = model.anchor_generator(ImageList(images, [(height, width)]), maps)
    boxes = model.box_coder.decode_single(answer["bbox_regression"][0], anchors)
    return answer["cls_logits"], boxes[None] / torch.tensor([width, height, width, height])


def image_of(source: str) -> np.ndarray:
    if source == "synthetic":
        return synthetic.drawings(1, 4, size=(200, 160))[0].image
    return cv2.imread(str(BCCD / source))[:, :, ::-1].copy()


SOURCES = [
    "synthetic",
    *(
        pytest.param(name, marks=pytest.mark.skipif(not BCCD.is_dir(), reason="needs the shared datasets"))
        for name in ("BloodImage_00301.jpg", "BloodImage_00379.jpg")
    ),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("net", NETS)
def test_every_prior_has_torchvisions_score_and_box(net, source):
    """With torchvision's own classes, in capitals; numbers without a class are left out of its scores."""
    categories = categories_of(net)
    rows = [row for row, name in enumerate(categories) if name != "N/A"]
    ours = started(random_ssd(net), net, ("BACKGROUND", *(categories[row].upper() for row in rows[1:])))
    predictor = MODELS[net].predictor(ours)
    image = image_of(source)
    size = ours.config.width_height
    pixels = torch.from_numpy(cv2.resize(image, size).transpose(2, 0, 1)[None].copy())
    with torch.inference_mode(), evaluating(ours.double()):  # these weights blow roundings of float32 up
        logits, their_boxes = answers_of(copy.deepcopy(random_ssd(net)).double(), pixels.double())
        scores, boxes = ours(predictor.transform(image)[None].double())
    assert scores.shape[1] == len(ours.priors) == {"mb3-ssd-lite": 3234, "vgg16-ssd-l2": 8732}[net]
    torch.testing.assert_close(scores, logits[..., rows].softmax(dim=2), rtol=0, atol=1e-4)
    torch.testing.assert_close(boxes, their_boxes, rtol=0, atol=1e-4)
    assert scores.std(dim=1).max() > 1e-2, "answers that do not depend on the place would prove little"
    sides = (boxes[..., 2:] - boxes[..., :2]) / ours.priors[:, 2:]
    assert 1.1 < sides.max() < 1000 / 16, "beyond that torchvision cuts"


@pytest.mark.parametrize("net", NETS)
def test_other_sizes_keep_torchvisions_proportions(net):
    model, config = random_ssd(net), MODELS[net].config_at(512)
    maps = [torch.empty(1, 1, level.feature_map_size, level.feature_map_size) for level in config.specs]
    anchors = model.anchor_generator(ImageList(torch.empty(1, 3, 512, 512), [(512, 512)]), maps)[0] / 512
    sizes = anchors[:, 2:] - anchors[:, :2]
    torch.testing.assert_close(config.priors[:, 2:], sizes, rtol=0, atol=1e-6)
    if net == "mb3-ssd-lite":  # the other's steps are fixed in torchvision, whatever the size
        torch.testing.assert_close(config.priors[:, :2], (anchors[:, :2] + anchors[:, 2:]) / 2, rtol=0, atol=1e-6)


def test_classes_of_the_same_names_keep_their_rows_and_others_start_from_the_mean(caplog):
    model, net = random_ssd("mb3-ssd-lite"), "mb3-ssd-lite"
    with caplog.at_level("INFO"):
        ours = started(model, net, ("BACKGROUND", "N/A", "Traffic Light", "gadget"))
    rows = ours.classification_headers[0][-1].weight.reshape(6, 4, -1)
    theirs = model.head.classification_head.module_list[0][-1].weight.reshape(6, 91, -1)
    assert torch.equal(rows[:, 0], theirs[:, 0])
    assert torch.equal(rows[:, 2], theirs[:, categories_of(net).index("traffic light")])
    for label in (1, 3):
        torch.testing.assert_close(rows[:, label], theirs[:, 1:].mean(dim=1))
    assert torch.equal(ours.regression_headers[5][-1].weight, model.head.regression_head.module_list[5][-1].weight)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[1:] == [
        "newly initialized (not in the file, or of other classes): nothing",
        "not used of the file: nothing",
        "classes that the file knows: Traffic Light; new classes, which start from its mean over classes: N/A, gadget",
    ]


def test_other_priors_take_the_rows_of_the_most_similar_ones():
    model, row = random_ssd("mb3-ssd-lite"), MODELS["mb3-ssd-lite"]
    config = row.config_at()
    first = config.specs[0]
    fitted = FreePriorLevel(first.feature_map_size, first.shrinkage, first.cell_priors[:4])
    ours = row.build(2, config=replace(config, specs=(fitted, *config.specs[1:])))
    ours.class_names = ("BACKGROUND", "person")
    pretrained.load_coco(ours, model.state_dict(), "coco.pth")
    assert torch.equal(ours.extras[3][0].weight, model.backbone.extra[3][0][0].weight)
    last = model.head.regression_head.module_list[0][-1].weight
    assert torch.equal(ours.regression_headers[0][-1].weight, last[: 4 * 4])
    pretrained.load_coco(ours, model.state_dict(), "coco.pth", new_heads=True)
    assert not torch.equal(ours.regression_headers[0][-1].weight, last[: 4 * 4])


def test_a_run_starts_from_it_and_its_files_stand_alone(script, voc_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    path = pretrained.torchvision_path(pretrained.COCO, "mb3-ssd-lite", tmp_path / "models")
    assert path.name == "ssdlite320_mobilenet_v3_large_coco-a79551df.pth"
    torch.save(random_ssd("mb3-ssd-lite").state_dict(), path)
    small = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith(("--net", "--pretrained"))]
    argv = [*small, "--net=mb3-ssd-lite", "--batch-size=3"]
    done = script(train_ssd.main, *argv, "--pretrained-ssd=coco", "--epochs=1")
    assert done.code == 0, done.err
    assert f"Init from models/{path.name}" in done.out
    description = describe_weights(read_weights(tmp_path / "m/last.pth"), "last.pth")
    assert description.config.image_mean == (127.5,) * 3
    assert description.config.specs[0].box_sizes == pytest.approx([0.2 * 96, 0.35 * 96])
    assert script(train_ssd.main, *argv, "--epochs=2", "--resume").code == 0


@pytest.mark.parametrize(
    ("net", "fragment"),
    [
        ("mb1-ssd", "--pretrained-ssd=coco: torchvision has no SSD of mb1-ssd; use --net=mb3-ssd-lite or vgg16-ssd-l2"),
        ("mb3-ssd-lite", "models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth: missing, training would download it"),
        ("vgg16-ssd-l2", "a dry run needs the file, or --pretrained-ssd left out"),
    ],
)
def test_a_dry_run_does_not_fetch_it(script, voc_root, tmp_path, monkeypatch, net, fragment):
    monkeypatch.chdir(tmp_path)
    left_out = ("--net", "--pretrained", "--resolution")
    small = [word for word in train_argv(voc_root, tmp_path / "m") if not word.startswith(left_out)]
    assert_refused(script(train_ssd.main, *small, f"--net={net}", "--pretrained-ssd=coco", "--dry-run"), fragment)


def test_files_that_do_not_fit():
    with pytest.raises(DataError, match="coco.pth: has 71 weights, expected 406 for mb3-ssd-lite; is it another net's"):
        started(random_ssd("vgg16-ssd-l2"), "mb3-ssd-lite", ("BACKGROUND", "a"))
    weights = random_ssd("vgg16-ssd-l2").state_dict()
    weights["backbone.features.2.weight"] = torch.zeros(64, 3, 3, 3)
    net = MODELS["vgg16-ssd-l2"].build(2)
    net.class_names = ("BACKGROUND", "a")
    with pytest.raises(
        DataError, match=r"backbone.features.2.weight is \(64, 3, 3, 3\), expected \(64, 64, 3, 3\) for"
    ):
        pretrained.load_coco(net, weights, "coco.pth")


def test_vggs_start_from_coco_is_the_form_that_torchvision_trained():
    argv = ["--net=vgg16-ssd", "--pretrained-ssd=coco"]
    assert train_ssd.parse_args(argv).net == "vgg16-ssd-l2"
    assert train_ssd.parse_args([*argv, "--resume"]).net == "vgg16-ssd-l2"
    assert train_ssd.parse_args(argv[:1]).net == "vgg16-ssd"
