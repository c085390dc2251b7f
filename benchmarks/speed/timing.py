"""How contestants are timed: taking turns within every round, in CPU time of the process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from torch import Tensor

Contestants = dict[str, Callable[[], object]]


def alternate(contestants: Contestants, rounds: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of one call, ``rounds`` of them for each contestant, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, function in contestants.items():
            start = time.process_time()
            for _ in range(repeats):
                function()
            if round_number:
                seconds[name].append((time.process_time() - start) / repeats)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> str:
    """Median and range of the ratios of single rounds."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f})"


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest difference in units of the largest value."""
    return float((a - b).abs().max() / b.abs().max())
