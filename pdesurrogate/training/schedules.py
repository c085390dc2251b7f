"""Learning-rate schedules as small objects that are told the number of steps when training starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR


class Schedule(Protocol):
    """Builds a scheduler that is stepped after every optimizer step."""

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """The scheduler for ``total_steps`` steps from the optimizer's own learning rate."""
        ...


class WarmupCosine:
    """Linear rise, then half a cosine down.

    Args:
        warmup_fraction: share of the steps spent rising.
        final_fraction: last learning rate as a share of the highest.
    """

    def __init__(self, warmup_fraction: float = 0.05, final_fraction: float = 0.0) -> None:
        if not (0 <= warmup_fraction < 1 and 0 <= final_fraction <= 1):
            raise ValueError(f"Expected fractions within [0, 1) but got {warmup_fraction} and {final_fraction}.")
        self.warmup_fraction = warmup_fraction
        self.final_fraction = final_fraction

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """Factor of the learning rate by step."""
        warmup = max(1, round(self.warmup_fraction * total_steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
            return self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * done))

        return LambdaLR(optimizer, factor)


class EpochWarmupCosine:
    """SineNet's schedule: one learning rate an epoch, a linear rise from almost nothing, then half a cosine down.

    As `LinearWarmupCosineAnnealingLR` of lightning-bolts, stepped once an epoch (Zhang et al., arXiv:2403.19507, code
    in divelab/AIRS). The first epoch runs at ``first_rate`` throughout and learns nothing; `WarmupCosine` rises from
    step to step instead. Where training is limited to fewer steps than ``epochs`` have, all are shortened alike.

    Args:
        epochs: of the fit, as ``trainer.max_epochs`` says.
        warmup_epochs: epochs spent rising, at least 2.
        first_rate: learning rate of the first epoch.
        final_rate: learning rate that an epoch after the last one would have.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> [float(f"{EpochWarmupCosine().rate(epoch, highest=2e-4):.2e}") for epoch in (0, 2, 4, 5, 49)]
        [1e-07, 0.0001, 0.0002, 0.0002, 3.43e-07]
    """

    def __init__(
        self, epochs: int = 50, warmup_epochs: int = 5, first_rate: float = 1e-7, final_rate: float = 1e-7
    ) -> None:
        if not 2 <= warmup_epochs < epochs:
            raise ValueError(f"Expected 2 <= warmup_epochs < epochs but got {warmup_epochs} and {epochs}.")
        if first_rate < 0 or final_rate < 0:
            raise ValueError(f"Expected rates of at least 0 but got {first_rate} and {final_rate}.")
        self.epochs = epochs
        self.warmup_epochs = warmup_epochs
        self.first_rate = first_rate
        self.final_rate = final_rate

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """One rate for each epoch, a step's being ``step * epochs // total_steps``."""

        def factor_of(highest: float) -> Callable[[int], float]:
            return lambda step: self.rate(min(step, total_steps) * self.epochs // total_steps, highest) / highest

        return LambdaLR(optimizer, [factor_of(float(group["lr"])) for group in optimizer.param_groups])

    def rate(self, epoch: int, highest: float) -> float:
        """Learning rate of an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return self.first_rate + epoch * (highest - self.first_rate) / (self.warmup_epochs - 1)
        done = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        return self.final_rate + 0.5 * (highest - self.final_rate) * (1 + math.cos(math.pi * done))


class StepDecay:
    """IFactFormer's schedule: one learning rate for a few epochs, then a fraction of it for as many, and so on.

    As torch's `StepLR`, stepped once an epoch (Yang et al., arXiv:2412.18840, as released). Where training is limited
    to fewer steps than ``epochs`` have, all are shortened alike.

    Args:
        epochs: of the fit, as ``trainer.max_epochs`` says.
        step_epochs: epochs with one and the same rate.
        factor: of the next rate.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> [float(f"{StepDecay().rate(epoch, highest=5e-4):.2e}") for epoch in (0, 4, 5, 29)]
        [0.0005, 0.0005, 0.00035, 8.4e-05]
    """

    def __init__(self, epochs: int = 30, step_epochs: int = 5, factor: float = 0.7) -> None:
        if min(epochs, step_epochs) < 1:
            raise ValueError(f"Expected epochs and step_epochs of at least 1 but got {epochs} and {step_epochs}.")
        if not 0 < factor <= 1:
            raise ValueError(f"Expected a factor within (0, 1] but got {factor}.")
        self.epochs = epochs
        self.step_epochs = step_epochs
        self.factor = factor

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """One rate for each epoch, a step's being ``step * epochs // total_steps``."""
        return LambdaLR(optimizer, lambda step: self.rate(min(step, total_steps) * self.epochs // total_steps, 1.0))

    def rate(self, epoch: int, highest: float) -> float:
        """Learning rate of an epoch, counted from 0."""
        return highest * self.factor ** (epoch // self.step_epochs)


class OneCycle:
    """PyTorch's one-cycle policy (Smith & Topin, arXiv:1708.07120); the learning rate given is the highest."""

    def __init__(self, rising_fraction: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4) -> None:
        self.rising_fraction = rising_fraction
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """The cycle over all steps."""
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=total_steps,
            pct_start=self.rising_fraction,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
        )


class Constant:
    """The learning rate as given, throughout."""

    def build(self, optimizer: Optimizer, total_steps: int) -> LRScheduler:
        """A factor of one."""
        return LambdaLR(optimizer, lambda step: 1.0)
