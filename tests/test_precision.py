"""Mixed precision gives the gradients that it should, whatever lay in memory before."""

import platform
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import TorchDispatchMode
from train_steps import PRECISIONS

from vision.engine.precision import Precision, is_depthwise, is_slow_in_16_bits, kernel_exceeds_map
from vision.ssd.choices import NET_NAMES
from vision.ssd.models import MODELS
from vision.ssd.ssd import move_net

#: At the first sizes maps are 1x1 before the last layers are reached; the last is the published size.
SIZES = (96, 128, 144, 160, 300)


#: One net for each choice of convolutions: those of vgg16-ssd-l2 are vgg16-ssd's.
NETS = tuple(name for name in NET_NAMES if name != "vgg16-ssd-l2")


def poison_freed_memory() -> None:
    """Fill memory that the next allocations will get with NaN."""
    del [torch.full((1 << power,), torch.nan) for power in range(4, 21) for _ in range(4)][:]


def gradients_of(net: nn.Module, images: torch.Tensor, precision: Precision) -> dict[str, torch.Tensor]:
    """Name -> gradient, of the parameters that have one."""
    net.zero_grad(set_to_none=True)
    with precision.autocast():
        confidences, locations = net(images)
    poison_freed_memory()
    (confidences.float().square().mean() + locations.float().square().mean()).backward()
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters() if parameter.grad is not None}


def net_and_images(name: str, size: int) -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    spec = MODELS[name]
    net = move_net(spec.build(2, config=spec.config_at(size)), "cpu", channels_last=True).train()
    net.init()
    images = torch.randn(2, 3, size, size, generator=generator)
    return net, images


def sizes_of(name: str) -> list[int]:
    """The sizes of the test that a net can take."""
    return [size for size in SIZES if size >= MODELS[name].family.minimum_side]


def keep_in_float32(module: nn.Module) -> None:
    """Let a module compute in float32 and without gradients, whatever autocast says."""
    forward = module.forward

    def in_float32(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            return forward(images.float())

    module.forward = in_float32


@pytest.mark.parametrize("amp", PRECISIONS)
@pytest.mark.parametrize(("name", "size"), [(name, size) for name in NETS for size in sizes_of(name)])
def test_gradients_do_not_depend_on_what_lay_in_memory(name, size, amp):
    """Batch norm's statistics move in between, but gradients in training mode do not depend on them."""
    net, images = net_and_images(name, size)
    if size == SIZES[-1]:  # its maps in the backbone are large, and slow where 16 bits are emulated
        for module in net.base_net:
            keep_in_float32(module)
    poison_freed_memory()
    first = gradients_of(net, images, PRECISIONS[amp])
    second = gradients_of(net, images, PRECISIONS[amp])
    for key, gradient in first.items():
        assert gradient.isfinite().all(), key
        assert torch.equal(gradient, second[key]), key


class Convolutions(TorchDispatchMode):
    """Takes down of each convolution, forward and backward, whether it is in 16 bits, and should be in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool, bool]] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("convolution", "convolution_backward"):
            images, weight = args[:2] if name == "convolution" else args[1:3]
            stride, _, dilation = args[3:6] if name == "convolution" else args[4:7]
            slow_or_wrong = is_slow_in_16_bits(images, weight, stride=stride)
            slow_or_wrong |= kernel_exceeds_map(images, weight, dilation=dilation)
            self.seen.append((name, images.dtype != torch.float32, slow_or_wrong))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "machine"), [*((name, "x86_64") for name in NETS), ("mb3-ssd-lite", "aarch64"), ("mb1-ssd", "aarch64")]
)
def test_slow_kernels_and_those_larger_than_their_map_compute_in_float32_and_all_others_in_16_bits(
    name, machine, monkeypatch
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    net, images = net_and_images(name, sizes_of(name)[0])
    if name.startswith("vgg16"):
        for module in net.base_net[:-5]:  # large maps, slow where 16 bits are emulated
            keep_in_float32(module)
    with Convolutions() as convolutions:
        gradients_of(net, images, PRECISIONS["bf16"])
    assert {seen[0] for seen in convolutions.seen} == {"convolution", "convolution_backward"}
    assert not any(in_16_bits for _, in_16_bits, slow_or_wrong in convolutions.seen if slow_or_wrong)
    assert {slow_or_wrong for *_, slow_or_wrong in convolutions.seen} == {False, True}
    rest = [
        in_16_bits
        for name, in_16_bits, slow_or_wrong in convolutions.seen
        if name == "convolution" and not slow_or_wrong
    ]
    assert all(rest[-4:]), "the heads of larger maps, which come last, gain from 16 bits"


@pytest.mark.parametrize(
    ("machine", "groups", "kernel", "stride", "slow"),
    [
        ("x86_64", 8, 3, 1, False),
        ("AMD64", 8, 3, (1, 1), False),
        ("x86_64", 8, 3, [2, 2], True),
        ("x86_64", 8, 3, (1, 2), True),
        ("x86_64", 8, 5, 1, True),
        ("aarch64", 8, 3, 1, True),
        ("aarch64", 1, 3, 2, False),
    ],
)
def test_what_is_slow_in_16_bits(machine, groups, kernel, stride, slow, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    images, weight = torch.zeros(1, 8, 9, 9), torch.zeros(8, 8 // groups, kernel, kernel)
    assert is_slow_in_16_bits(images, weight, None, stride) == slow
    assert is_slow_in_16_bits(input=images, weight=weight, stride=stride) == slow


def test_what_is_depthwise():
    images = torch.zeros(1, 8, 5, 5)
    for groups, depthwise in ((1, False), (4, False), (8, True)):
        assert is_depthwise(images, torch.zeros(8, 8 // groups, 3, 3)) == depthwise
    assert not is_depthwise(images[:, :1], torch.zeros(8, 1, 3, 3))


@pytest.mark.parametrize(
    ("side", "kernel", "dilation", "exceeds"),
    [
        ((1, 1), 1, 1, False),
        ((1, 1), 3, 1, True),
        ((2, 2), 3, 1, True),
        ((3, 3), 3, 1, False),
        ((9, 2), 3, 1, True),
        ((12, 12), 3, 6, True),
        ((13, 13), 3, (6, 6), False),
    ],
)
def test_when_a_kernel_exceeds_its_map(side, kernel, dilation, exceeds):
    images, weight = torch.zeros(1, 4, *side), torch.zeros(4, 4, kernel, kernel)
    assert kernel_exceeds_map(images, weight, dilation=dilation) == exceeds


def test_arguments_may_be_named():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    with PRECISIONS["bf16"].autocast():
        found = nn.functional.conv2d(input=torch.ones(1, 2, 1, 1), weight=conv.weight, bias=conv.bias, padding=1)
    torch.testing.assert_close(found, conv(torch.ones(1, 2, 1, 1)))


def test_a_gpu_has_autocast_alone(monkeypatch):
    """Its 16-bit kernels are right."""
    entered = []
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: entered.append((args, options)) or nullcontext())
    with Precision("cuda", torch.float16).autocast():
        assert not _get_current_function_mode_stack()
    assert entered == [(("cuda",), {"dtype": torch.float16})]


def test_float32_is_left_as_it_is():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    with PRECISIONS["off"].autocast():
        assert conv(torch.zeros(1, 2, 1, 1)).dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
    with PRECISIONS["bf16"].autocast():
        assert conv(torch.zeros(1, 2, 1, 1)).dtype == torch.float32
        assert conv(torch.zeros(1, 2, 3, 3)).dtype == torch.bfloat16
