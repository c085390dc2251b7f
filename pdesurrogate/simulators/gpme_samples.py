"""Functions of a conservation law with random parameters, observed at random points: data of the ProbConserv paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pdesurrogate.fields.point_set import PointSet
from pdesurrogate.physics.gpme import ExactConservationLaw, lattice

_SPLITS = ("train", "val", "test")


class GpmeSamples:
    """Draws functions of an `ExactConservationLaw` as Hansen et al., ICML 2023, arXiv:2302.11002, do.

    Context times are one uniform draw in each of ``times`` equal parts of the time range; target times are sorted
    uniform draws; places are sorted uniform draws from the box, the same at all times of a function, drawn anew for the
    targets. Points are in order of time, then place. Coordinates and parameters are rounded to float32 first, and the
    solution is evaluated there in float64, so that it is exact beside a jump as well.

    Function ``i`` of a split follows from ``(seed, split, i)`` alone, whatever is drawn beside it; splits with one seed
    are independent of each other.

    Args:
        equation: what the functions solve.
        functions: their number, for each parameter where those are given.
        split: ``"train"``, ``"val"`` or ``"test"``.
        parameters: of the functions, first ``functions`` of the first one and so on; without, one for each function
            drawn uniformly from the equation's range of training.
        times: in context and targets alike.
        positions: places at each of them.
        seed: of all splits.

    Raises:
        ValueError: if a number is not positive, the seed is negative, or a split or parameter is not one.

    Example:
        >>> from pdesurrogate.physics.gpme import PorousMedium
        >>> points = GpmeSamples(PorousMedium(), functions=50, split="test", parameters=[1, 3, 6]).points()
        >>> points.context_points.shape, points.context_values.shape, points.parameters[50].item()
        (torch.Size([150, 100, 2]), torch.Size([150, 100, 1]), 3.0)
    """

    def __init__(
        self,
        equation: ExactConservationLaw,
        functions: int,
        split: Literal["train", "val", "test"] = "train",
        parameters: Sequence[float] | None = None,
        times: int = 10,
        positions: int = 10,
        seed: int = 0,
    ) -> None:
        if min(functions, times, positions) < 1 or seed < 0:
            raise ValueError(
                "Expected functions, times and positions >= 1 and seed >= 0 but got "
                f"{functions}, {times}, {positions} and {seed}."
            )
        if split not in _SPLITS:
            raise ValueError(f"Expected a split among {_SPLITS} but got {split!r}.")
        if parameters is not None:
            if not parameters:
                raise ValueError("Expected at least one parameter but got none; leave the argument out to draw them.")
            equation.valid_until(torch.tensor(parameters, dtype=torch.float64))  # refuses what is out of bounds
        self.equation = equation
        self.functions = functions
        self.split = split
        self.parameters = None if parameters is None else tuple(parameters)
        self.times = times
        self.positions = positions
        self.seed = seed

    def __len__(self) -> int:
        return self.functions * (1 if self.parameters is None else len(self.parameters))

    def points(self) -> PointSet:
        """All functions, float32."""
        return self.draw(range(len(self)))

    def draw(self, numbers: Sequence[int]) -> PointSet:
        """Functions of these numbers, float32; bit-equal whichever are drawn together.

        Raises:
            ValueError: if there are no such functions.
        """
        if not numbers or min(numbers) < 0 or max(numbers) >= len(self):
            raise ValueError(f"Expected numbers of functions between 0 and {len(self) - 1} but got {list(numbers)}.")
        parts = (1, self.times, self.positions, self.times, self.positions)
        parameter, *coordinates = torch.stack([self._uniform(number, sum(parts)) for number in numbers]).split(parts, 1)
        context_t, context_x, target_t, target_x = coordinates
        strata = torch.arange(self.times, dtype=torch.float64)
        parameter = (
            _scaled(parameter, self.equation.parameter_range)
            if self.parameters is None
            else torch.tensor([[self.parameters[number // self.functions]] for number in numbers])
        ).float()
        context = self._lattice((strata + context_t) / self.times, context_x)
        target = self._lattice(target_t.sort(-1).values, target_x)
        return PointSet(context, self._values(context, parameter), target, self._values(target, parameter), parameter)

    def _uniform(self, number: int, count: int) -> Tensor:
        """Draws of one function; all that is random about it."""
        seeds = np.random.SeedSequence([self.seed, _SPLITS.index(self.split), number])
        return torch.from_numpy(np.random.default_rng(seeds).random(count))

    def _lattice(self, times: Tensor, positions: Tensor) -> Tensor:
        t = _scaled(times, self.equation.time_range)
        x = _scaled(positions.sort(-1).values, self.equation.space_range)
        return lattice(t, x).float()

    def _values(self, points: Tensor, parameter: Tensor) -> Tensor:
        # Powers of contiguous tensors: torch computes others by another code, which depends on the batch.
        t, x = (column.contiguous() for column in points.double().unbind(-1))
        return self.equation.solution(t, x, parameter.double().expand_as(t).contiguous()).float().unsqueeze(-1)


def _scaled(fractions: Tensor, ends: tuple[float, float]) -> Tensor:
    low, high = ends
    return low + (high - low) * fractions
