#!/usr/bin/env python3
"""Depthwise convolutions of a net in bfloat16 and in float32 on the CPU, forward and backward, side by side.

python3 benchmarks/depthwise.py --net=mb1-ssd
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rounds  # noqa: E402
from vision import cli
from vision.engine.precision import is_depthwise  # noqa: E402
from vision.options import common  # noqa: E402
from vision.ssd.choices import DEFAULT_NET  # noqa: E402
from vision.ssd.models import MODELS  # noqa: E402
from vision.utils.memory import keep_freed_memory  # noqa: E402

BATCH_SIZE = 4


def depthwise_layers(net_name: str, resolution: int) -> list[tuple[nn.Conv2d, tuple[int, ...]]]:
    """Find a net's depthwise convolutions, each with the shape (B, C, H, W) of its input."""
    net = MODELS[net_name].build(4, config=MODELS[net_name].config_at(resolution)).eval()
    found: list[tuple[nn.Conv2d, tuple[int, ...]]] = []

    def note(layer: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        if is_depthwise(inputs[0], layer.weight):
            found.append((layer, (BATCH_SIZE, *inputs[0].shape[1:])))

    hooks = [module.register_forward_pre_hook(note) for module in net.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        net(torch.zeros(1, 3, resolution, resolution))
    for hook in hooks:
        hook.remove()
    return found


def forward_backward(layer: nn.Conv2d, shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], None]:
    """Give a function that runs a layer on a batch in a type, forward and backward, channels last."""
    layer = copy.deepcopy(layer).to(dtype=dtype, memory_format=torch.channels_last).requires_grad_()
    images = torch.randn(shape).to(dtype=dtype, memory_format=torch.channels_last).requires_grad_()

    def call() -> None:
        torch.autograd.grad(layer(images).sum(), (images, layer.weight))

    return call


def main(argv: list[str] | None = None) -> None:
    """Print a table of milliseconds and ratios, medians of several rounds."""
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common.add_net_options(parser, DEFAULT_NET)
    parser.add_argument("--resolution", type=cli.count, default=300)
    rounds.add_options(parser)
    args = parser.parse_args(argv)
    keep_freed_memory()  # as training does
    layers = depthwise_layers(args.net, args.resolution)
    types = {"bfloat16": torch.bfloat16, "float32": torch.float32}
    found = []
    for layer, shape in cli.progress(layers, "Layers", len(layers)):
        calls = {name: forward_backward(layer, shape, dtype) for name, dtype in types.items()}
        found.append(rounds.in_turns(calls, args.rounds))
    milliseconds = 1000 * np.array([list(seconds.values()) for seconds in found])
    figures = [{"shape": shape, "seconds": seconds} for (_, shape), seconds in zip(layers, found, strict=True)]
    rounds.write_figures(args.json, figures)
    print(f"{args.net}, batch {BATCH_SIZE}, forward and backward, ms:\n")
    print("| channels | side | stride | bfloat16 | float32 | ratio |\n|---|---|---|---|---|---|")
    for (layer, shape), (half, single) in zip(layers, milliseconds, strict=True):
        print(f"| {shape[1]} | {shape[2]} | {layer.stride[0]} | {half:.1f} | {single:.1f} | {half / single:.1f} |")
    half, single = milliseconds.sum(axis=0)
    print(f"| all | | | {half:.1f} | {single:.1f} | {half / single:.1f} |")


if __name__ == "__main__":
    cli.run(main, sys.argv[1:])
