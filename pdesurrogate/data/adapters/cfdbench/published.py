"""What is published about CFDBench: cases, frames, intervals, constants, Reynolds numbers.

Luo, Chen & Zhang, *CFDBench: A Large-Scale Benchmark for Machine Learning Methods in Fluid Dynamics*,
arXiv:2310.05963, table 6, and the authors' loaders. Where they contradict each other both are here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Of the dam: the left face of the barrier, and the height up to which water enters at the left.
DAM_BARRIER_LEFT = 0.5
DAM_INLET_HEIGHT = 0.1
# Velocity, length and a factor in the Reynolds number; the dam's length is a constant.
_SCALES = {
    "cavity": ("lid_velocity", "width", 1.0),
    "tube": ("inlet_velocity", "height", 1.0),
    "dam": ("inlet_velocity", "", DAM_INLET_HEIGHT),
    "step": ("inlet_velocity", "height", 1.0),
    "cylinder": ("inlet_velocity", "radius", 2.0),
}
# The order in which the authors put the subsets together before they shuffle.
SUBSETS = ("prop", "bc", "geo")
# The order in which numbers of cases run on over the subsets.
NUMBERED_SUBSETS = ("bc", "prop", "geo")
# Cells along x and y of every published frame.
PUBLISHED_CELLS = (64, 64)


class PublishedProblem(NamedTuple):
    """One problem of the published set.

    Attributes:
        cases: in each subset. Numbers run on over bc, prop and geo; said of ``dam`` by the authors, none contradicts.
        frames: in all cases together.
        frame_interval: between stored frames in seconds, by the paper and the generating scripts.
        loader_interval: what the authors' loader of pairs takes it for.
    """

    cases: Mapping[str, int]
    frames: int
    frame_interval: float
    loader_interval: float

    def subset_of(self, number: int) -> str:
        """Subset of a case by its number.

        Raises:
            ValueError: if there is no such case.

        Example:
            >>> [PUBLISHED["dam"].subset_of(number) for number in (69, 70, 219)]
            ['bc', 'prop', 'geo']
        """
        first = 0
        for subset in NUMBERED_SUBSETS:
            if first <= number < first + self.cases[subset]:
                return subset
            first += self.cases[subset]
        raise ValueError(f"Expected the number of a case, 0 to {first - 1}, but got {number}.")


PUBLISHED = {
    "cavity": PublishedProblem({"bc": 50, "prop": 84, "geo": 25}, 34_582, 0.1, 0.1),
    # The class that the authors train on says 0.1; the paper and the scripts 0.01.
    "tube": PublishedProblem({"bc": 50, "prop": 100, "geo": 25}, 39_553, 0.01, 0.1),
    "dam": PublishedProblem({"bc": 70, "prop": 100, "geo": 50}, 21_916, 0.1, 0.1),
    "cylinder": PublishedProblem({"bc": 50, "prop": 115, "geo": 20}, 205_620, 0.001, 0.001),
}


def normalized_density(density: float) -> float:
    """As the authors' networks are given it; the constants are those of the cavity, for all problems.

    Example:
        >>> normalized_density(1000.0)
        248.75
    """
    return (density - 5) / 4


def normalized_viscosity(viscosity: float) -> float:
    """As the authors' networks are given it; 0.00238 is the mean of the cavity's seven viscosities.

    Example:
        >>> viscosities = (1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2)
        >>> round(normalized_viscosity(sum(viscosities) / 7), 12)
        0.0
    """
    return (viscosity - 0.00238) / 0.005


def normalized_velocity(velocity: float) -> float:
    """The driving velocity as the authors' networks are given it.

    Example:
        >>> normalized_velocity(50.0)
        0.5
    """
    return velocity / 50 - 0.5


def reynolds_number(problem: str, parameters: Mapping[str, float]) -> float:
    """Of a case by the names of our parameters: about the width, the height, the inlet or the diameter.

    Args:
        problem: ``cavity``, ``tube``, ``dam``, ``step`` or ``cylinder``.
        parameters: as in `CfdBench`.

    Raises:
        ValueError: for another problem.

    Example:
        >>> base = {"density": 10.0, "dynamic_viscosity": 1e-3}
        >>> round(reynolds_number("cylinder", {"inlet_velocity": 1.0, "radius": 0.01, **base}))
        200
    """
    if problem not in _SCALES:
        raise ValueError(f"Expected a problem among {', '.join(_SCALES)} but got {problem!r}.")
    velocity, length, factor = _SCALES[problem]
    scale = factor * (parameters[length] if length else 1.0)
    return parameters["density"] * parameters[velocity] * scale / parameters["dynamic_viscosity"]
