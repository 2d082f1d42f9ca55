"""What is trained, and by which optimizer: parts of a net, freezing, parameter groups."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vision.options.training import OPTIMIZERS, OptimOptions
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
