"""What is trained, and how fast: parameter groups, freezing, optimizers, rates over the iterations, averaging."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from vision.options.training import (
    EPOCHS_PER_REPEAT,
    OPTIMIZERS,
    SCHEDULERS,
    TARGET_STEPS,
    WARMUP_FRACTION,
    WARMUP_ITERATIONS,
    OptimOptions,
    ScheduleOptions,
)
from vision.ssd.ssd import HEADS, SSD
from vision.structures import DataError


def freeze_net_layers(net: nn.Module) -> None:
    """Stop the training of all of a module's parameters."""
    for parameter in net.parameters():
        parameter.requires_grad = False


def parts(net: SSD) -> dict[str, list[nn.Module]]:
    """Modules of the three parts that have learning rates of their own."""
    return {
        "base_net": [net.base_net],
        "extra_layers": [part for part in (net.source_layer_add_ons, net.pyramid, net.extras) if part is not None],
        "heads": [getattr(net, name) for name in HEADS],
    }


def trained_parts(net: SSD, options: OptimOptions) -> dict[str, float]:
    """Rates of the parts that are trained; freezing is being absent here."""
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
    """Parameter groups for an optimizer: name, params, lr, weight_decay and, for the schedule, initial_lr."""
    modules = parts(net)
    groups = []
    for name, rate in trained_parts(net, options).items():
        parameters = [parameter for module in modules[name] for parameter in module.parameters()]
        kinds = {name: (parameters, options.weight_decay)}
        if not options.bias_decay:
            # Weights of convolutions have more than one axis, biases and batch norms do not.
            kinds = {
                name: ([p for p in parameters if p.ndim > 1], options.weight_decay),
                f"{name} without decay": ([p for p in parameters if p.ndim <= 1], 0.0),
            }
        groups += [
            {"name": kind, "params": params, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for kind, (params, decay) in kinds.items()
        ]
    return groups


def make_optimizer(net: SSD, options: OptimOptions) -> torch.optim.Optimizer:
    """Make the optimizer; fused where PyTorch has it, which is several times faster for many small tensors.

    Raises:
        ValueError: there is no such optimizer.
    """
    groups = param_groups(net, options)
    fused = True if next(net.parameters()).device.type in ("cpu", "cuda") else None
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum, fused=fused)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if options.optimizer not in kinds:
        raise ValueError(f"unknown optimizer {options.optimizer!r}, expected one of {', '.join(OPTIMIZERS)}")
    return kinds[options.optimizer](groups, lr=options.lr, betas=(options.momentum, 0.999), fused=fused)


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over what an optimizer had gathered; rates, momentum and weight decay stay as they were asked for now.

    Raises:
        DataError: it trained other parts of the net.
    """
    then = [group["name"] for group in state["param_groups"]]
    now = [group["name"] for group in optimizer.param_groups]
    if then != now:
        raise DataError(
            f"--resume: that run trained {', '.join(then)}, this one {', '.join(now)}; give the same "
            "--freeze-base-net, --freeze-net and --no-bias-decay, or start a new run with --pretrained-ssd"
        )
    gathered = {key for values in state["state"].values() for key in values}
    if gathered and ("exp_avg" in gathered) != isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        raise DataError(
            "--resume: that run had another --optimizer; give the same, or start a new run with --pretrained-ssd"
        )
    asked = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, asked, strict=True):
        group.update(options)


def scale_rates(options: OptimOptions, images_per_step: int) -> OptimOptions:
    """Multiply rates by images per step / `auto_lr`, where that is given (linear scaling rule, arXiv 1706.02677)."""
    if options.auto_lr is None:
        return options
    scale = images_per_step / options.auto_lr
    return replace(
        options,
        lr=options.lr * scale,
        base_net_lr=options.base_net_lr * scale,
        extra_layers_lr=None if options.extra_layers_lr is None else options.extra_layers_lr * scale,
        auto_lr=None,
    )


def repeats_for(steps: int, epochs: int) -> int:
    """How many times an epoch should go through the images, so that a run has about `TARGET_STEPS`.

    Args:
        steps: of the run, if an epoch goes through them once.
        epochs: of the run.
    """
    return max(1, min(round(TARGET_STEPS / steps), epochs // EPOCHS_PER_REPEAT))


def warmup_iterations(options: ScheduleOptions, steps_per_epoch: int) -> int:
    """Return the number of iterations in which rates rise."""
    if options.warmup_epochs is not None:
        return round(options.warmup_epochs * steps_per_epoch)
    if options.warmup_iters is not None:
        return options.warmup_iters
    return min(WARMUP_ITERATIONS, int(options.epochs * steps_per_epoch * WARMUP_FRACTION))


def lr_factor(iteration: int, steps_per_epoch: int, options: ScheduleOptions) -> float:
    """Factor of the initial rates in an iteration (counted from 0 over the whole run).

    Linear warm-up, times cosine (SGDR, arXiv 1608.03983, equation 5, without restarts) or steps.
    """
    warmup = warmup_iterations(options, steps_per_epoch)
    first = 1 / (warmup + 1) if options.warmup_factor is None else options.warmup_factor
    warm = first + (1 - first) * iteration / warmup if iteration < warmup else 1.0
    if options.scheduler == "cosine":
        period = (options.t_max or options.epochs) * steps_per_epoch
        return warm * (1 + math.cos(math.pi * iteration / period)) / 2
    if options.scheduler == "multi-step":
        epoch = iteration // steps_per_epoch
        return warm * options.gamma ** sum(milestone <= epoch for milestone in options.milestones)
    raise ValueError(f"unknown scheduler {options.scheduler!r}, expected one of {', '.join(SCHEDULERS)}")


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's rate to its initial one times a factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


class ModelEma:
    """An exponential moving average of a net's weights and batch-norm statistics.

    The decay rises to `DECAY`, so that the first weights are soon forgotten.

    Args:
        net: whose weights are averaged.
    """

    DECAY = 0.9998
    RAMP = 2000.0

    def __init__(self, net: SSD) -> None:
        self.net = copy.deepcopy(net).eval()
        freeze_net_layers(self.net)
        self.updates = 0

    @torch.no_grad()
    def update(self, net: SSD) -> None:
        """Take in the net's weights as they are now."""
        self.updates += 1
        weight = 1 - self.DECAY * (1 - math.exp(-self.updates / self.RAMP))
        averages, weights = self.net.state_dict(), net.state_dict()
        floating = [key for key, value in averages.items() if value.is_floating_point()]
        torch._foreach_lerp_([averages[key] for key in floating], [weights[key] for key in floating], weight)
        for key in averages.keys() - set(floating):
            averages[key].copy_(weights[key])

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"weights": self.net.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where that state was made."""
        self.net.load_state_dict(state["weights"])
        self.updates = state["updates"]
