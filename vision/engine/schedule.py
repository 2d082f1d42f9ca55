"""Learning rates over the iterations of a run, and how many iterations a run should have."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from vision.options.training import (
    EPOCHS_PER_REPEAT,
    SCHEDULERS,
    TARGET_STEPS,
    WARMUP_FRACTION,
    WARMUP_ITERATIONS,
    OptimOptions,
    ScheduleOptions,
)


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


def repeats_for(steps: int, epochs: int) -> int:
    """How many times an epoch should go through the images, so that a run has about `TARGET_STEPS`.

    Args:
        steps: of the run, if an epoch goes through them once.
        epochs: of the run.
    """
    return max(1, min(round(TARGET_STEPS / steps), epochs // EPOCHS_PER_REPEAT))
