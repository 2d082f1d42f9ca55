"""What is trained, and how fast: parameter groups, freezing, SGD, learning rate over the iterations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vision.ssd.ssd import HEADS, SSD
from vision.structures import DataError

SCHEDULERS = ("cosine", "multi-step")

#: Warm-up lasts this many iterations, but not more than this share of the run.
WARMUP_ITERATIONS = 500
WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class OptimOptions:
    """Rates and what stands still.

    Attributes:
        lr: of the prediction heads.
        base_net_lr: of the backbone.
        extra_layers_lr: of add-ons and extras; None for `lr`.
        momentum: of SGD.
        weight_decay: of SGD.
        freeze_base_net: the backbone stands still.
        freeze_net: everything but the heads stands still.
    """

    lr: float = 0.01
    base_net_lr: float = 0.001
    extra_layers_lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    freeze_base_net: bool = False
    freeze_net: bool = False


@dataclass(frozen=True)
class ScheduleOptions:
    """How rates change.

    Attributes:
        scheduler: "cosine" or "multi-step".
        epochs: of the run.
        milestones: epochs at whose start multi-step multiplies rates by `gamma`.
        gamma: see milestones.
        t_max: epochs in which cosine falls to zero; None for `epochs`. After it the rate rises again.
    """

    scheduler: str = "cosine"
    epochs: int = 30
    milestones: tuple[int, ...] = (80, 100)
    gamma: float = 0.1
    t_max: float | None = None


def freeze_net_layers(net: nn.Module) -> None:
    """Stop the training of all of a module's parameters."""
    for parameter in net.parameters():
        parameter.requires_grad = False


def parts(net: SSD) -> dict[str, list[nn.Module]]:
    """Name the three parts that have learning rates of their own."""
    return {
        "base_net": [net.base_net],
        "extra_layers": [net.source_layer_add_ons, net.extras],
        "heads": [getattr(net, name) for name in HEADS],
    }


def trained_parts(net: SSD, options: OptimOptions) -> dict[str, float]:
    """Name the parts that are trained, with their rates; freezing is being absent here."""
    rates = {"heads": options.lr}
    if not options.freeze_net:
        rates["extra_layers"] = options.lr if options.extra_layers_lr is None else options.extra_layers_lr
        if not options.freeze_base_net:
            rates["base_net"] = options.base_net_lr
    return rates


def freeze(net: SSD, options: OptimOptions) -> list[nn.Module]:
    """Freeze the parameters of all parts that are not trained.

    Returns:
        those parts; they must stay in eval mode, or their batch norm would move all the same.
    """
    trained = trained_parts(net, options)
    frozen = [module for name, modules in parts(net).items() if name not in trained for module in modules]
    for module in frozen:
        freeze_net_layers(module)
    return frozen


def param_groups(net: SSD, options: OptimOptions) -> list[dict[str, Any]]:
    """Give the parameter groups for an optimizer: name, params, lr and, for the schedule, initial_lr."""
    modules = parts(net)
    return [
        {
            "name": name,
            "params": [parameter for module in modules[name] for parameter in module.parameters()],
            "lr": rate,
            "initial_lr": rate,
        }
        for name, rate in trained_parts(net, options).items()
    ]


def sgd(net: SSD, options: OptimOptions) -> torch.optim.SGD:
    """Make the optimizer; fused where PyTorch has it, which is several times faster for many small tensors."""
    device = next(net.parameters()).device.type
    return torch.optim.SGD(
        param_groups(net, options),
        lr=options.lr,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        fused=True if device in ("cpu", "cuda") else None,
    )


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what an optimizer had gathered; rates, momentum and weight decay stay as they were asked for now.

    Raises:
        DataError: it trained other parts of the net.
    """
    then = [group["name"] for group in state["param_groups"]]
    now = [group["name"] for group in optimizer.param_groups]
    if then != now:
        raise DataError(
            f"--resume: that run trained {', '.join(then)}, this one {', '.join(now)}; give the same --freeze-base-net "
            "and --freeze-net, or start anew with --pretrained-ssd"
        )
    asked = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, asked, strict=True):
        group.update(options)


def rate_factor(iteration: int, steps_per_epoch: int, options: ScheduleOptions) -> float:
    """Say by what the initial rates are multiplied in an iteration (counted from 0 over the whole run).

    Linear warm-up, times cosine (SGDR, arXiv 1608.03983, equation 5, without restarts) or steps.
    """
    total = steps_per_epoch * options.epochs
    warmup = min(WARMUP_ITERATIONS, int(total * WARMUP_SHARE))
    warm = min(1.0, (iteration + 1) / (warmup + 1))
    if options.scheduler == "cosine":
        period = (options.t_max or options.epochs) * steps_per_epoch
        return warm * (1 + math.cos(math.pi * iteration / period)) / 2
    if options.scheduler == "multi-step":
        epoch = iteration // steps_per_epoch
        return warm * options.gamma ** sum(milestone <= epoch for milestone in options.milestones)
    raise ValueError(f"unknown scheduler {options.scheduler!r}, expected one of {', '.join(SCHEDULERS)}")


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to its initial one times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
