"""Learning-rate schedules as small objects that are told the number of steps when training starts."""

from __future__ import annotations

import math
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
