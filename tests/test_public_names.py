"""Names that scripts out there import: each in a fresh interpreter, called with the stated signature."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

FACTORIES = {
    "vgg_ssd": "create_vgg_ssd",
    "mobilenetv1_ssd": "create_mobilenetv1_ssd",
    "mobilenetv1_ssd_lite": "create_mobilenetv1_ssd_lite",
    "mobilenet_v2_ssd_lite": "create_mobilenetv2_ssd_lite",
    "squeezenet_ssd_lite": "create_squeezenet_ssd_lite",
}

SNIPPETS = {
    **{
        module: f"""
from vision.ssd.{module} import {name}, {name}_predictor
import numpy as np, torch, tempfile
net = {name}(3, is_test=True)
assert net.is_test and net.num_classes == 3
predictor = {name}_predictor(net, candidate_size=200, nms_method=None, sigma=0.5, device=None)
with tempfile.TemporaryDirectory() as folder:
    other = {name}(3)
    other.init()
    other.save(folder + "/a.pth")
    net.load(folder + "/a.pth")
boxes, labels, probs = predictor.predict(np.zeros((60, 80, 3), np.uint8), 2, 0.3)
assert boxes.dtype == torch.float32 and boxes.shape[1] == 4 and labels.dtype == torch.int64 and len(probs) == len(labels)
assert torch.equal(next(predictor.net.parameters()), next(other.parameters())), "the predictor holds the net itself"
"""
        for module, name in FACTORIES.items()
    },
    "mobilenetv3": """
from vision.ssd.mobilenetv3_ssd_lite import create_mobilenetv3_large_ssd_lite, create_mobilenetv3_small_ssd_lite
from vision.ssd.mobilenetv3_ssd_lite import create_mobilenetv3_ssd_lite_predictor
from vision.nn.mobilenetv3 import MobileNetV3_Large, MobileNetV3_Small
import numpy as np, torch
for make, classifier, modules in (
    (create_mobilenetv3_large_ssd_lite, MobileNetV3_Large, 21), (create_mobilenetv3_small_ssd_lite, MobileNetV3_Small, 17)
):
    net = make(3, width_mult=1.0, use_batch_norm=True, onnx_compatible=False, is_test=True)
    net.init()
    boxes, labels, probs = create_mobilenetv3_ssd_lite_predictor(net, candidate_size=200).predict(np.zeros((60, 80, 3), np.uint8), 2, 0.3)
    assert boxes.shape[1] == 4 and len(labels) == len(probs)
    whole = classifier(num_classes=7).eval()
    assert len(whole.features) == modules and whole(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    try:
        make(3, width_mult=0.5)
    except ValueError:
        pass
    else:
        raise AssertionError('another width')
""",
    "mobilenet_v2_options": """
from vision.ssd.mobilenet_v2_ssd_lite import create_mobilenetv2_ssd_lite
net = create_mobilenetv2_ssd_lite(3, width_mult=0.5, use_batch_norm=True, onnx_compatible=True, is_test=False)
assert net.base_net[1].conv[0].weight.shape[0] == 16
""",
    "ssd": """
from vision.ssd.ssd import SSD, MatchPrior, GraphPath
from vision.ssd.config import mobilenetv1_ssd_config as config
import torch
match = MatchPrior(config.priors, config.center_variance, config.size_variance, 0.5)
locations, labels = match(torch.tensor([[.1, .1, .5, .5]]), torch.tensor([1]))
assert locations.shape == (3000, 4) and labels.max() == 1
assert GraphPath(14, 'conv', 3) == (14, 'conv', 3)
assert tuple(GraphPath._fields) == ('s0', 'name', 's1')
from vision.ssd.mobilenetv1_ssd import create_mobilenetv1_ssd
net = create_mobilenetv1_ssd(3)
for part in ('base_net', 'source_layer_add_ons', 'extras', 'classification_headers', 'regression_headers'):
    assert isinstance(getattr(net, part), torch.nn.Module)
again = SSD(3, net.base_net, [12, 14], net.extras, net.classification_headers, net.regression_headers, is_test=True, config=config, device='cpu')
assert again.eval()(torch.zeros(1, 3, 300, 300))[1].shape == (1, 3000, 4)
""",
    "predictor": """
from vision.ssd.predictor import Predictor
from vision.ssd.mobilenetv1_ssd_lite import create_mobilenetv1_ssd_lite
import inspect, numpy as np, torch
assert str(inspect.signature(Predictor)).replace('"', "'").startswith('(net')
parameters = inspect.signature(Predictor).parameters
defaults = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
assert list(parameters) == ['net', 'size', 'mean', 'std', 'nms_method', 'iou_threshold', 'filter_threshold', 'candidate_size', 'sigma', 'device']
assert defaults == dict(mean=0.0, std=1.0, nms_method=None, iou_threshold=.45, filter_threshold=.01, candidate_size=200, sigma=.5, device=None)
net = create_mobilenetv1_ssd_lite(2).train()
predictor = Predictor(net, 300, np.array([127, 127, 127]), 128.0, nms_method='soft', device=torch.device('cpu'))
boxes, labels, probs = predictor.predict(np.zeros((30, 40, 3), np.uint8), top_k=-1, prob_threshold=1.0)
assert boxes.shape == (0, 4) and labels.dtype == torch.int64 and probs.dtype == torch.float32
assert net.training and not net.is_test
""",
    "config": """
import importlib
from vision.ssd.config import mobilenetv1_ssd_config, vgg_ssd_config, squeezenet_ssd_config
import vision.ssd.config.mobilenetv1_ssd_config as dotted
from vision.ssd.config.vgg_ssd_config import priors
assert dotted is mobilenetv1_ssd_config is importlib.import_module('vision.ssd.config.mobilenetv1_ssd_config')
assert len(priors) == 8732 and len(squeezenet_ssd_config.priors) == 2568
config = mobilenetv1_ssd_config
assert (config.image_size, list(config.image_mean), config.image_std) == (300, [127] * 3, 128)
assert (config.iou_threshold, config.center_variance, config.size_variance) == (.45, .1, .2)
assert config.specs[0].box_sizes.min == 60 and config.specs[0].shrinkage == 16
before = config.priors.clone()
config.set_image_size(512)
assert config.image_size == 512 and len(config.priors) == 8190
from vision.ssd.mobilenetv1_ssd import create_mobilenetv1_ssd, create_mobilenetv1_ssd_predictor
net = create_mobilenetv1_ssd(2)
assert len(net.priors) == 8190
import numpy as np
assert create_mobilenetv1_ssd_predictor(net).transform.size == (512, 512)
assert len(vgg_ssd_config.priors) == 8732
config.set_image_size(300, min_ratio=20, max_ratio=90)
assert (config.priors == before).all()
try:
    config.no_such_thing
except AttributeError:
    pass
else:
    raise AssertionError
""",
    "data_preprocessing": """
from vision.ssd.data_preprocessing import TrainAugmentation, TestTransform, PredictionTransform
import numpy as np, torch
image, boxes, labels = np.zeros((50, 70, 3), np.uint8), np.float32([[5, 5, 30, 40]]), np.int64([1])
for cls in TrainAugmentation, TestTransform:
    a, b, c = cls(300, np.array([127, 127, 127]), 128.0)(image, boxes, labels)
    assert a.shape == (3, 300, 300) and a.dtype == torch.float32 and b.max() <= 1 and list(c) == [1]
assert PredictionTransform(300, 127, 128.0)(image).shape == (3, 300, 300)
""",
    "multibox_loss": """
from vision.nn.multibox_loss import MultiboxLoss
from vision.ssd.config import mobilenetv1_ssd_config as config
import torch
criterion = MultiboxLoss(config.priors, iou_threshold=0.5, neg_pos_ratio=3, center_variance=0.1, size_variance=0.2, device=torch.device('cpu'))
labels = torch.zeros(1, 3000, dtype=torch.int64); labels[0, 5] = 1
regression, classification = criterion(torch.zeros(1, 3000, 2), torch.zeros(1, 3000, 4), labels, torch.zeros(1, 3000, 4))
assert regression == 0 and classification > 0
""",
    "backbones": """
from vision.nn.mobilenet import MobileNetV1
from vision.nn.mobilenet_v2 import MobileNetV2, InvertedResidual
from vision.nn.squeezenet import SqueezeNet
import torch
x = torch.zeros(1, 3, 64, 64)
assert MobileNetV1(num_classes=10).eval()(x).shape == (1, 10) and len(MobileNetV1().model) == 14 and MobileNetV1().fc.out_features == 1024
net = MobileNetV2(n_class=7, input_size=224, width_mult=0.5, dropout_ratio=0.2, use_batch_norm=True, onnx_compatible=False).eval()
assert net(x).shape == (1, 7) and len(net.features) == 19 and net.classifier is not None
assert InvertedResidual(8, 8, 1, 6, use_batch_norm=True, onnx_compatible=False).conv(torch.zeros(1, 8, 4, 4)).shape == (1, 8, 4, 4)
assert len(InvertedResidual(8, 8, 1, 1).conv) == 5
assert SqueezeNet(5).eval()(x).shape == (1, 5)
for bad in (lambda: InvertedResidual(8, 8, 3, 6), lambda: MobileNetV2(input_size=100)):
    try:
        bad()
    except ValueError:
        continue
    raise AssertionError
""",
    "misc": """
from vision.utils.misc import Timer, freeze_net_layers, store_labels, str2bool
import tempfile, torch
from pathlib import Path
timer = Timer(); timer.start('a'); assert timer.end('a') >= 0
try:
    timer.end('a')
except KeyError:
    pass
else:
    raise AssertionError
layer = torch.nn.Linear(1, 1); freeze_net_layers(layer); assert not any(p.requires_grad for p in layer.parameters())
with tempfile.TemporaryDirectory() as folder:
    store_labels(folder + '/l.txt', ['a', 'b']); assert Path(folder, 'l.txt').read_text() == 'a\\nb\\n'
assert [str2bool(t) for t in ('true', 'True', '1', '0', 'no', 'false')] == [True, True, True, False, False, False]
""",
    "box_utils": """
from vision.utils.box_utils import *
from vision.utils.box_utils import (SSDSpec, SSDBoxSizes, generate_ssd_priors, convert_locations_to_boxes, convert_boxes_to_locations,
    area_of, iou_of, assign_priors, hard_negative_mining, center_form_to_corner_form, corner_form_to_center_form, hard_nms, nms, soft_nms)
import torch
from vision.boxes import forms, coding, matching
from vision.boxes.nms import hard_nms as home
assert hard_nms is home and iou_of is forms.iou_of and assign_priors is matching.assign_priors and convert_boxes_to_locations is coding.convert_boxes_to_locations
priors = generate_ssd_priors([SSDSpec(feature_map_size=2, shrinkage=150, box_sizes=SSDBoxSizes(min=60, max=105), aspect_ratios=[2, 3])], 300, clamp=True)
assert priors.shape == (24, 4)
rows = torch.tensor([[0., 0, 1, 1, .9]])
assert nms(rows, nms_method='hard', score_threshold=None, iou_threshold=.5, sigma=.5, top_k=-1, candidate_size=200).shape == (1, 5)
assert hard_nms(rows, 0.5, top_k=-1, candidate_size=200).shape == soft_nms(rows, .1, sigma=.5, top_k=-1).shape
assert hard_negative_mining(torch.zeros(1, 3), torch.tensor([[0, 1, 0]]), 1).sum() == 2
assert area_of(torch.zeros(2), torch.ones(2)) == 1 and iou_of(rows[:, :4], rows[:, :4], eps=1e-5) > .99
boxes = center_form_to_corner_form(corner_form_to_center_form(rows[:, :4]))
locations = convert_boxes_to_locations(boxes, boxes, .1, .2)
assert convert_locations_to_boxes(locations, boxes, .1, .2).shape == (1, 4)
assert assign_priors(boxes, torch.tensor([1]), boxes, .5)[1].tolist() == [1]
""",
    "measurements": """
from vision.utils.measurements import compute_average_precision, compute_voc2007_average_precision
import numpy as np
assert abs(compute_average_precision(np.array([1.0]), np.array([1.0])) - 1) < 1e-12
assert abs(compute_voc2007_average_precision(np.array([1.0]), np.array([1.0])) - 1) < 1e-12
""",
    "transforms": """
from vision.transforms.transforms import (Compose, Lambda, ConvertFromInts, SubtractMeans, ToAbsoluteCoords, ToPercentCoords, Resize,
    RandomSaturation, RandomHue, RandomLightingNoise, ConvertColor, RandomContrast, RandomBrightness, ToCV2Image, ToTensor,
    RandomSampleCrop, Expand, RandomMirror, PhotometricDistort, SwapChannels, intersect, jaccard_numpy)
import numpy as np
augment = Compose([ConvertFromInts(), PhotometricDistort(), Expand(np.array([127, 127, 127])), RandomSampleCrop(), RandomMirror(),
    ToPercentCoords(), Resize(300), SubtractMeans(np.array([127, 127, 127])), lambda img, boxes=None, labels=None: (img / 128.0, boxes, labels), ToTensor()])
for _ in range(20):
    image, boxes, labels = augment(np.full((60, 80, 3), 90, np.uint8), np.float32([[5, 5, 40, 50]]), np.int64([1]))
    assert image.shape == (3, 300, 300) and boxes.shape == (1, 4) and 0 <= boxes.min() and boxes.max() <= 1
RandomSaturation(.5, 1.5), RandomHue(18.0), RandomContrast(.5, 1.5), RandomBrightness(32)
""",
    "datasets": """
import sys
from vision.datasets.voc_dataset import VOCDataset
from vision.datasets.open_images import OpenImagesDataset
voc = VOCDataset(sys.argv[1], transform=None, target_transform=None, is_test=False, keep_difficult=False, label_file=None)
images = OpenImagesDataset(sys.argv[2], transform=None, target_transform=None, dataset_type="train", balance_data=False)
for dataset in voc, images:
    assert dataset.class_names[0] == 'BACKGROUND' and dataset.class_dict['ball'] == dataset.class_names.index('ball')
    assert len(dataset.ids) == len(dataset) == 6 and isinstance(dataset.ids[0], str)
    image_id, (boxes, labels, is_difficult) = dataset.get_annotation(0)
    assert image_id == dataset.ids[0] and boxes.shape[1] == 4
    assert dataset.get_image(0).shape[2] == 3 and len(dataset[0]) == 3
""",
    "export_of_scripts": """
import warnings
warnings.simplefilter('default')
from vision.ssd.mobilenetv1_ssd_lite import create_mobilenetv1_ssd_lite
import contextlib, io, onnx, tempfile, torch
net = create_mobilenetv1_ssd_lite(3, is_test=True); net.eval()
with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
    torch.onnx.export(net, torch.randn(1, 3, 300, 300), folder + '/a.onnx', verbose=True, input_names=['input_0'], output_names=['scores', 'boxes'])
    assert [output.name for output in onnx.load(folder + '/a.onnx').graph.output] == ['scores', 'boxes']
""",
    "eval_ssd": """
import math, sys, tempfile, torch
from eval_ssd import MeanAPEvaluator
from vision.datasets.voc_dataset import VOCDataset
from vision.ssd.mobilenetv1_ssd_lite import create_mobilenetv1_ssd_lite
dataset = VOCDataset(sys.argv[1], is_test=True)
net = create_mobilenetv1_ssd_lite(len(dataset.class_names)).train()
with tempfile.TemporaryDirectory() as folder:
    evaluator = MeanAPEvaluator(dataset, net, arch='mb1-ssd-lite', eval_dir=folder + '/deep/er', nms_method='hard', iou_threshold=0.5, use_2007_metric=True, device=torch.device('cpu'))
    mean_ap, class_ap = evaluator.compute()
    evaluator.log_results(mean_ap, class_ap, prefix='Epoch 1 ')
    import os
    assert 'det_test_ball.txt' in os.listdir(folder + '/deep/er')
assert isinstance(mean_ap, float) and len(class_ap) == len(dataset.class_names) - 1
assert net.training and not net.is_test
""",
}


#: Runs each snippet in a fork of an interpreter that has loaded other people's packages only, which takes seconds.
FORKS = """
import json, os, sys, tempfile, traceback, warnings
import cv2, numpy, torch
found = {}
for name, code in json.load(sys.stdin).items():
    with tempfile.TemporaryFile() as errors:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons warn of forking beside threads
            child = os.fork()
        if not child:
            os.dup2(errors.fileno(), 2)
            status = 1
            try:
                exec(compile(code, name, "exec"), {"__name__": "__main__"})
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        found[name] = [status, errors.read().decode()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def outcomes(voc_root, open_images_root) -> dict[str, list]:
    """Of each snippet: exit status and standard error."""
    command = [sys.executable, "-W", "error", "-c", FORKS, str(voc_root), str(open_images_root)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(SNIPPETS), capture_output=True, text=True, env=one_thread)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", SNIPPETS)
def test_in_a_fresh_interpreter(name, outcomes):
    assert outcomes[name] == [0, ""]
