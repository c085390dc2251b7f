"""How contestants are timed: taking turns within every round, in CPU time of the process."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
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


def print_section(compare: Callable[[bool, int | None], list[str]], description: str | None) -> None:
    """Run one comparison by itself, on one thread, with the options that these scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="first case, few rounds")
    parser.add_argument("--rounds", type=int, help="how often each takes its turn; 9, or 3 with --quick")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join(compare(arguments.quick, arguments.rounds)))
