"""Which cases a data set is made of: fixed lists that a recipe names, split before anything is simulated."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_EVEN = {"from", "to", "count"}


class CaseOf(NamedTuple):
    """One case of a data set.

    Attributes:
        name: such as ``case0012``, once in the whole set.
        subset: what it belongs to, such as ``geo`` where geometry is what varies.
        parameters: by name, in physical units; those that are not named are the simulator's own.
    """

    name: str
    subset: str
    parameters: dict[str, float]


class Sweep:
    """Subsets of cases, each the product of lists of values for some parameters; all others are the simulator's own.

    Cases are numbered consecutively over the subsets in the order given, the first parameter of a subset varying
    slowest, as CFDBench does (arXiv 2310.05963). Each subset is split on its own: it is shuffled and its first cases go
    to the test set, the next ones to validation, the rest into training. The shuffle depends on the seed and on the
    name of the subset alone, so that it is the same on every machine and stays when other subsets come or go. The same
    values may occur in two subsets, as the base case does in CFDBench: it is kept in both, perhaps in different splits.

    Args:
        subsets: by name, for each parameter its values: a list, or ``{from: 0.5, to: 2.0, count: 16}`` for evenly
            spaced ones, both ends counted.
        validation_share: of each subset, rounded; at least one case if the subset has three.
        test_share: likewise.
        split_seed: of the shuffle.

    Raises:
        ValueError: for a subset without parameters, an empty list, values that are not finite or occur twice, or
            shares that leave nothing for training.

    Example:
        >>> sweep = Sweep({"bc": {"speed": [1.0, 2.0, 3.0]}, "geo": {"width": [1.0, 2.0], "height": [1.0, 4.0]}})
        >>> {split: [case.name for case in sweep.of(split)] for split in ("val", "test")}
        {'val': ['case0000', 'case0004'], 'test': ['case0001', 'case0006']}
        >>> sweep.of("train")[-1]
        CaseOf(name='case0005', subset='geo', parameters={'width': 2.0, 'height': 1.0})
        >>> [case.parameters["nu"] for case in Sweep({"prop": {"nu": {"from": 0.1, "to": 0.3, "count": 3}}}).cases]
        [0.1, 0.2, 0.3]
    """

    def __init__(
        self,
        subsets: dict[str, dict[str, list[float] | dict[str, float]]],
        validation_share: float = 0.1,
        test_share: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        if not subsets:
            raise ValueError("Expected at least one subset of cases but got none.")
        if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
            raise ValueError(
                f"Expected shares >= 0 that leave some for training but got {validation_share:g} for validation and "
                f"{test_share:g} for test."
            )
        if split_seed < 0:
            raise ValueError(f"Expected split_seed >= 0 but got {split_seed}.")
        self.cases: list[CaseOf] = []
        self._splits: dict[str, list[CaseOf]] = {"train": [], "val": [], "test": []}
        for subset, lists in subsets.items():
            first = len(self.cases)
            combinations = _combinations(subset, lists)
            cases = [CaseOf(f"case{first + i:04d}", subset, combinations[i]) for i in range(len(combinations))]
            self.cases += cases
            tests, validations = (_count(len(cases), share) for share in (test_share, validation_share))
            order = _shuffled(len(cases), split_seed, subset)
            for split, part in (
                ("test", order[:tests]),
                ("val", order[tests : tests + validations]),
                ("train", order[tests + validations :]),
            ):
                self._splits[split] += [cases[i] for i in sorted(part)]

    def of(self, split: str) -> Sequence[CaseOf]:
        """Cases of ``train``, ``val`` or ``test``, in the order of their numbers."""
        return self._splits[split]


def _combinations(subset: str, lists: Mapping[str, Sequence[float] | Mapping[str, float]]) -> list[dict[str, float]]:
    if not lists:
        raise ValueError(f"Expected at least one parameter to vary in the subset {subset!r} but got none.")
    values = [_values(f"{name!r} in the subset {subset!r}", given) for name, given in lists.items()]
    return [dict(zip(lists, combination, strict=True)) for combination in itertools.product(*values)]


def _values(what: str, given: Sequence[float] | Mapping[str, float]) -> list[float]:
    values = _even(what, given) if isinstance(given, Mapping) else [float(value) for value in given]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"Expected at least one value, all of them finite, of {what} but got {values}.")
    doubled = sorted({value for value in values if values.count(value) > 1})
    if doubled:
        raise ValueError(f"Expected every value of {what} once but {doubled} occur again; leave the others out.")
    return values


def _even(what: str, given: Mapping[str, float]) -> list[float]:
    if set(given) != _EVEN or given["count"] != round(given["count"]) or given["count"] < 2:
        raise ValueError(
            f"Expected a list or {{from: ..., to: ..., count: ...}} with a whole count of at least 2 for {what} but "
            f"got {dict(given)}."
        )
    low, high, count = given["from"], given["to"], round(given["count"])
    # Twelve digits, so that 0.1 + 2 * 0.1 is the 0.3 that was meant.
    return [float(f"{low + (high - low) * i / (count - 1):.12g}") for i in range(count)]


def _count(cases: int, share: float) -> int:
    """Cases of a split that is not training: its share, half rounded up, but one of three cases at least."""
    rounded = math.floor(cases * share + 0.5)
    return max(rounded, 1) if cases >= 3 and share > 0 else rounded


def _shuffled(count: int, seed: int, name: str) -> list[int]:
    # Raw bits of a bit generator are the same in all versions of NumPy, what `Generator` makes of them need not be.
    bits = np.random.PCG64(np.random.SeedSequence([seed, *name.encode()])).random_raw(count)
    return [int(i) for i in np.argsort(bits, kind="stable")]
