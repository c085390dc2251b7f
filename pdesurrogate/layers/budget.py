"""How wide a network may be with a given number of parameters."""

from __future__ import annotations

from collections.abc import Callable

# A multiplier is settled to this precision, far finer than the steps that whole numbers of channels make.
RESOLUTION = 1e-9


def multiplier_for(
    budget: int, count: Callable[[float], int], lowest: float = 1.0, highest: float = 8.0, tolerance: float = 0.005
) -> float:
    """The width multiplier from ``lowest`` to ``highest`` whose network comes closest to ``budget`` parameters.

    The number of parameters is a staircase that rises with the multiplier, because levels have whole numbers of
    channels. The middle of a stair is given, away from where rounding could change a level's channels.

    Args:
        budget: parameters.
        count: parameters of the network with a multiplier.
        lowest: multiplier.
        highest: multiplier.
        tolerance: by which part of the budget the number may miss it.

    Raises:
        ValueError: if the closest number misses the budget by more.

    Example:
        >>> round(multiplier_for(1010, lambda multiplier: 100 * int(4 * multiplier), tolerance=0.01), 6)
        2.625
    """
    ends = lowest, highest
    below, above = (count(end) for end in _edge(budget, count, ends))
    closest = min(below, above, key=lambda number: abs(number - budget))
    if abs(closest - budget) > tolerance * budget:
        raise ValueError(
            f"Expected a budget that a multiplier from {lowest:.3g} to {highest:g} meets within {tolerance:.1%} but "
            f"the closest to {budget:,} parameters is {closest:,}; change the budget or the width."
        )
    return (_edge(closest, count, ends)[1] + _edge(closest + 1, count, ends)[0]) / 2


def _edge(number: int, count: Callable[[float], int], ends: tuple[float, float]) -> tuple[float, float]:
    """Neighboring multipliers, the first with fewer parameters than ``number``, the second not; or an end twice."""
    low, high = ends
    if count(low) >= number:
        return low, low
    if count(high) < number:
        return high, high
    while high - low > RESOLUTION:
        middle = (low + high) / 2
        low, high = (low, middle) if count(middle) >= number else (middle, high)
    return low, high
