"""How large a net is: parameters, multiply-accumulates and activations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vision.ssd.ssd import SSD, evaluating


class Complexity(NamedTuple):
    """What one image costs.

    Attributes:
        parameters: weights, the statistics of batch norm not counted.
        macs: multiply-accumulates of convolutions and matrix products, by PyTorch's counter, which counts two
            operations (FLOPs) each; element-wise work is not counted.
        activation_bytes: outputs, in float32, of all layers without parts of their own, but for those that write into
            their input; summed over the net, which is about what training keeps.
        priors: boxes that the net answers for.
    """

    parameters: int
    macs: int
    activation_bytes: int
    priors: int

    def __str__(self) -> str:
        return (
            f"{self.parameters / 1e6:.2f} M parameters, {self.macs / 1e9:.2f} G multiply-accumulates "
            f"({2 * self.macs / 1e9:.2f} GFLOPs), {self.activation_bytes / 2**20:.1f} MiB of activations, "
            f"{self.priors} priors"
        )


def complexity_of(net: SSD) -> Complexity:
    """Count a net's costs by running it on a blank image of its size."""
    width, height = net.config.width_height
    device = next(net.parameters()).device
    activations = 0

    def add(_: nn.Module, __: object, output: Tensor) -> None:
        nonlocal activations
        activations += output.numel() * torch.finfo(torch.float32).bits // 8

    leaves = [m for m in net.modules() if not list(m.children()) and not getattr(m, "inplace", False)]
    hooks = [module.register_forward_hook(add) for module in leaves]
    try:
        with evaluating(net, is_test=False), torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, 3, height, width, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    parameters = sum(parameter.numel() for parameter in net.parameters())
    return Complexity(parameters, counter.get_total_flops() // 2, activations, len(net.priors))
