"""The conversion of TensorFlow's detector, against the answers that the original gives."""

import numpy as np
import pytest
import torch
from conftest import SHARED

from benchmarks import convert_ssdlite
from vision.boxes.forms import iou_of
from vision.ssd.data_preprocessing import PredictionTransform
from vision.ssd.models import MODELS
from vision.ssd.weights import read_weights

WEIGHTS = SHARED / "weights" / "ssdlite_mobilenet_v2_coco.pth"
ANSWERS = SHARED / "golden" / "ssdlite_mobilenet_v2_coco.npz"


@pytest.fixture(scope="module")
def answers():
    if not (WEIGHTS.is_file() and ANSWERS.is_file()):
        pytest.skip(f"{WEIGHTS} or {ANSWERS} is not there")
    return np.load(ANSWERS)


@pytest.fixture(scope="module")
def images(answers):
    transform = PredictionTransform(300, 127.0, 128.0)
    return [transform(np.ascontiguousarray(pixels.transpose(1, 2, 0))) for pixels in answers["images_rgb_uint8"]]


def test_the_surest_objects_of_the_original_are_found(answers, images, tmp_path, script):
    net = convert_ssdlite.convert(read_weights(WEIGHTS), images)
    net.is_test = True
    with torch.no_grad():
        scores, boxes = net(torch.stack(images))
    for number in range(len(images)):
        original = answers["scores_of_90_classes"][number]
        for prior in np.argsort(-original.max(axis=1))[:5]:
            category = int(original[prior].argmax()) + 1
            box = torch.tensor(answers["boxes_corner_form_relative"][number, prior])
            near = iou_of(boxes[number], box[None]) > 0.5
            assert original[prior].max() > 0.7
            assert scores[number, near, category].max() > 0.5
    assert net.class_names[19] == "horse" and net.class_names[90] == "coco-90"


def test_calibration_changes_statistics_and_not_what_the_net_computes():
    torch.manual_seed(0)
    net = MODELS["mb2-ssd-lite"].build(2, config=MODELS["mb2-ssd-lite"].config_at(96)).eval()
    images = list(torch.rand(3, 3, 96, 96))
    with torch.no_grad():
        before = net(images[0][None])
        convert_ssdlite.calibrate(net, images)
        after = net(images[0][None])
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert net.extras[0].conv[1].running_var.sub(1).abs().min() > 0, "they are the images' own now"


def test_priors_are_read_from_the_anchors():
    levels = MODELS["mb2-ssd-lite"].config_at(300).specs
    anchors = torch.rand(sum(level.feature_map_size**2 for level in levels), 4)
    anchors[-1] = torch.tensor([0.2, 0.1, 0.8, 0.9])
    last = convert_ssdlite.cell_priors(anchors, levels, [1] * 6)[-1]
    ((width, height, left, _),) = last.cell_priors
    assert (width, height) == (pytest.approx(240), pytest.approx(180))
    assert left == pytest.approx(-(1 + 2 + 8 + 32) / 300)
