"""The optimisers by name, what they remember from step to step, and the course of the learning rate."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from unet_pipeline.config.sections import Train

AUTO_RATE = 0.001
"""Peak of `learning_rate: auto`: Adam's usual one."""

STARTED_SHARE = 0.2
"""Share of it where a trained model is the start: its weights are near their aim, and large steps would forget it."""


def optimiser(network: nn.Module, options: Train) -> torch.optim.Optimizer:
    """Return the optimiser of section `train`; it decays kernels, but neither biases nor batch normalisation."""
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}]
    rate, momentum = peak_rate(options), options.momentum
    if options.optimiser == "adam":
        return _uncompiled(torch.optim.Adam)(groups, lr=rate, betas=(momentum, 0.999))
    if options.optimiser == "rmsprop":
        return _uncompiled(torch.optim.RMSprop)(groups, lr=rate, momentum=momentum)
    return _uncompiled(torch.optim.SGD)(groups, lr=rate, momentum=momentum)


def _uncompiled(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimiser that does the same without asking for torch's compiler, whose import takes 2 s of a start.

    Torch wraps these three methods, so that a compiler leaves them alone; nothing here compiles a step.
    """
    step, names = inspect.unwrap(kind.step), ("add_param_group", "zero_grad")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {"step": torch.no_grad()(step), **plain})


def buffers(network: nn.Module, chosen: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return what the optimiser remembers of each parameter, mostly of its shape; named as `exp_avg.head.weight`."""
    return {
        f"{what}.{name}": value
        for name, parameter in network.named_parameters()
        for what, value in chosen.state[parameter].items()
        if isinstance(value, torch.Tensor)
    }


def restore(network: nn.Module, chosen: torch.optim.Optimizer, remembered: Mapping[str, torch.Tensor]) -> None:
    """Put back what `buffers` returned: tensors of any shape."""
    parameters = dict(network.named_parameters())
    for key, value in remembered.items():
        what, _, name = key.partition(".")
        parameter = parameters[name]
        # like the parameter in memory format too: sums over another order of elements would differ in the last bit
        same = value.shape == parameter.shape
        chosen.state[parameter][what] = torch.empty_like(parameter).copy_(value) if same else value.clone()


def peak_rate(options: Train, started: bool = False) -> float:
    """Return the number that `train.learning_rate` stands for; `started`: whether a trained model is the start."""
    if isinstance(options.learning_rate, str):
        return AUTO_RATE * (STARTED_SHARE if started else 1)
    return options.learning_rate


def learning_rate(options: Train, step: int) -> float:
    """Return the learning rate of update `step` (from 0): a linear rise over `warmup` steps, then the schedule."""
    peak = peak_rate(options)
    if step < options.warmup:
        return peak * (step + 1) / options.warmup
    if options.schedule == "constant":
        return peak
    share = (step - options.warmup) / (options.steps - options.warmup)
    if options.schedule == "step":
        return peak * float(options.stair_factor ** int(share * options.stairs))
    return peak * 0.5 * (1 + math.cos(math.pi * share))
