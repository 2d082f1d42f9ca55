"""What is trained, and how fast: parameter groups, freezing, optimizers, rates over the iterations, averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from vision.ssd.ssd import HEADS, SSD
from vision.structures import DataError

SCHEDULERS = ("cosine", "multi-step")

#: Rates of heads and backbone by optimizer.
DEFAULT_RATES: Mapping[str, tuple[float, float]] = {"sgd": (0.03, 0.01), "adam": (1e-3, 3e-4), "adamw": (1e-3, 3e-4)}
OPTIMIZERS = tuple(DEFAULT_RATES)

#: Where nothing else is asked for, warm-up lasts this many iterations, but not more than this share of the run.
WARMUP_ITERATIONS = 500
WARMUP_SHARE = 0.1

#: The batch that the default rates are meant for: the default batch.
REFERENCE_BATCH = 4

#: Steps that new heads need before they are of use, whatever the number of images; and how many epochs a run must have
#: for each time more that an epoch goes through few images, so that a short run stays short.
ENOUGH_STEPS = 1500
EPOCHS_A_REPEAT = 5

#: Presets of the Detectron tables: epochs, milestones, warm-up.
SCHEDULES: Mapping[str, Mapping[str, Any]] = {
    f"{times}x": {
        "epochs": 12 * times,
        "scheduler": "multi-step",
        "milestones": (8 * times, 11 * times),
        "gamma": 0.1,
        "warmup_iters": 500 * times,
        "warmup_factor": 1 / 3,
    }
    for times in (1, 2)
}


@dataclass(frozen=True)
class OptimOptions:
    """Rates, what stands still, and the box loss.

    Attributes:
        lr: of the prediction heads.
        base_net_lr: of the backbone.
        extra_layers_lr: of add-ons, pyramid and extras; None for `lr`.
        optimizer: one of `OPTIMIZERS`.
        momentum: of SGD; Adam's first.
        weight_decay: in Adam part of the gradient, in AdamW apart from it.
        bias_decay: whether biases and batch norms decay like the other weights.
        freeze_base_net: the backbone stands still.
        freeze_net: everything but the heads stands still.
        clip_grad: the largest norm of all gradients together, None for no limit.
        ema: keep an exponential moving average of the weights.
        smooth_l1_beta: of the box loss, see `vision.nn.multibox_loss.MultiboxLoss`.
        auto_lr: images per step that the rates are meant for; None if they are meant as they are.
    """

    lr: float = DEFAULT_RATES["sgd"][0]
    base_net_lr: float = DEFAULT_RATES["sgd"][1]
    extra_layers_lr: float | None = None
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_decay: bool = True
    freeze_base_net: bool = False
    freeze_net: bool = False
    clip_grad: float | None = 10.0
    ema: bool = False
    smooth_l1_beta: float = 0.3
    auto_lr: int | None = None

    def scaled_to(self, images_per_step: int) -> OptimOptions:
        """Options whose rates are multiplied by images per step / `auto_lr` (linear scaling rule, arXiv 1706.02677)."""
        if self.auto_lr is None:
            return self
        scale = images_per_step / self.auto_lr
        extra_layers_lr = None if self.extra_layers_lr is None else self.extra_layers_lr * scale
        return replace(
            self,
            lr=self.lr * scale,
            base_net_lr=self.base_net_lr * scale,
            extra_layers_lr=extra_layers_lr,
            auto_lr=None,
        )


@dataclass(frozen=True)
class ScheduleOptions:
    """How rates change.

    Attributes:
        scheduler: "cosine" or "multi-step".
        epochs: of the run.
        milestones: epochs at whose start multi-step multiplies rates by `gamma`.
        gamma: see milestones.
        t_max: epochs in which cosine falls to zero; None for `epochs`. After it the rate rises again.
        warmup_epochs: how long rates rise linearly at the start; None for what `warmup_iters` says.
        warmup_iters: likewise in iterations; None for `WARMUP_ITERATIONS`, at most `WARMUP_SHARE` of the run.
        warmup_factor: by what rates are multiplied in the first iteration; None for one step of the rise.
    """

    scheduler: str = "cosine"
    epochs: int = 30
    milestones: tuple[int, ...] = (80, 100)
    gamma: float = 0.1
    t_max: float | None = None
    warmup_epochs: float | None = None
    warmup_iters: int | None = None
    warmup_factor: float | None = None

    def warmup(self, steps_per_epoch: int) -> int:
        """Return the number of iterations in which rates rise."""
        if self.warmup_epochs is not None:
            return round(self.warmup_epochs * steps_per_epoch)
        if self.warmup_iters is not None:
            return self.warmup_iters
        return min(WARMUP_ITERATIONS, int(self.epochs * steps_per_epoch * WARMUP_SHARE))


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
            "--freeze-base-net, --freeze-net and --no-bias-decay, or start anew with --pretrained-ssd"
        )
    gathered = {key for values in state["state"].values() for key in values}
    if gathered and ("exp_avg" in gathered) != isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        raise DataError(
            "--resume: that run had another --optimizer; give the same, or start anew with --pretrained-ssd"
        )
    asked = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, options in zip(optimizer.param_groups, asked, strict=True):
        group.update(options)


def repeats_for(steps: int, epochs: int) -> int:
    """How many times an epoch should go through the images, so that a run has about `ENOUGH_STEPS`.

    Args:
        steps: of the run, if an epoch goes through them once.
        epochs: of the run.
    """
    return max(1, min(round(ENOUGH_STEPS / steps), epochs // EPOCHS_A_REPEAT))


def lr_factor(iteration: int, steps_per_epoch: int, options: ScheduleOptions) -> float:
    """Factor of the initial rates in an iteration (counted from 0 over the whole run).

    Linear warm-up, times cosine (SGDR, arXiv 1608.03983, equation 5, without restarts) or steps.
    """
    warmup = options.warmup(steps_per_epoch)
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


class WeightAverage:
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
        mine, theirs = self.net.state_dict(), net.state_dict()
        floating = [key for key, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[key] for key in floating], [theirs[key] for key in floating], weight)
        for key in mine.keys() - set(floating):
            mine[key].copy_(theirs[key])

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"weights": self.net.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where that state was made."""
        self.net.load_state_dict(state["weights"])
        self.updates = state["updates"]
