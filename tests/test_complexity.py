"""What a net counts, against sums made by hand."""

import pytest
import torch
from torch import nn

from vision.ssd.choices import NET_NAMES
from vision.ssd.complexity import complexity_of
from vision.ssd.models import MODELS


def built(name: str, size: int = 96):
    return MODELS[name].build(3, config=MODELS[name].config_at(size))


def test_counts_of_every_layer_add_up():
    """A convolution has K*K*C_in/groups multiply-accumulates an output, and each layer keeps its output."""
    net = built("mb1-ssd-lite").eval()
    macs, outputs = [], []

    def note(module, inputs, output):
        outputs.append(4 * output.numel())
        if isinstance(module, nn.Conv2d):
            macs.append(output.numel() * module.weight[0].numel())

    for module in net.modules():
        if not list(module.children()) and not getattr(module, "inplace", False):
            module.register_forward_hook(note)
    with torch.no_grad():
        net(torch.zeros(1, 3, 96, 96))
    counted = complexity_of(built("mb1-ssd-lite"))
    assert counted.macs == sum(macs)
    assert counted.activation_bytes == sum(outputs)
    assert counted.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert counted.priors == len(net.priors)


@pytest.mark.parametrize("name", [name for name in NET_NAMES if "vgg" not in name])
def test_four_times_the_pixels_are_about_four_times_the_work(name):
    small, large = complexity_of(built(name, 160)), complexity_of(built(name, 320))
    assert small.parameters == large.parameters
    assert 3.2 < large.macs / small.macs < 4.6
    assert 3.2 < large.activation_bytes / small.activation_bytes < 4.6


def test_a_net_is_as_it_was_after_counting():
    net = built("mb1-ssd-lite").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    complexity_of(net)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_the_number_of_mobilenet_v1_is_the_published_one():
    """MobileNetV1 has 569 M multiply-accumulates at 224 x 224 (arXiv 1704.04861, table 4), 1.0 M of them in the classifier."""
    from torch.utils.flop_counter import FlopCounterMode

    net = built("mb1-ssd-lite", 224).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        x = torch.zeros(1, 3, 224, 224)
        for layer in net.base_net:
            x = layer(x)
    assert counter.get_total_flops() / 2 == pytest.approx(568e6, rel=0.01)
