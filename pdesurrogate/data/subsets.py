"""Subsets of a data set of cases: what varies from case to case, such as boundary conditions, fluid or geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench
from pdesurrogate.data.archive import Archive, CaseName
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Trajectory


@singledispatch
def cases_of(adapter: Adapter, split: str) -> list[CaseName]:
    """Name and subset of each trajectory of a split, in their order.

    Each class of data sets that has them says so by ``@cases_of.register``.

    Raises:
        ValueError: if the split is not there, or trajectories belong to no subset.
    """
    raise ValueError(
        f"Expected a data set whose trajectories belong to subsets but a {type(adapter).__name__} has none; "
        "take all of its trajectories."
    )


def has_cases(adapter: Adapter) -> bool:
    """Whether `cases_of` knows this kind of data set."""
    return cases_of.dispatch(type(adapter)) is not cases_of.dispatch(object)


@cases_of.register
def _(adapter: Archive, split: str) -> list[CaseName]:
    cases, numbers = adapter.cases(split), adapter.numbers(split)
    nameless = [number for number in numbers if number not in cases]
    if nameless:
        raise ValueError(
            f"Expected a subset for each trajectory of {split!r} in the attribute 'cases' of {adapter.path} but "
            f"numbers {nameless[:4]} have none; take all of its trajectories, or generate the data from a recipe of "
            "cases."
        )
    return [cases[number] for number in numbers]


@cases_of.register
def _(adapter: CfdBench, split: str) -> list[CaseName]:
    return [CaseName(case.name.folder, case.name.subset) for case in adapter.cases(split)]


@dataclass(frozen=True)
class Subset:
    """The trajectories of one subset, in the splits that they have in the whole set; an `Adapter`.

    Attributes:
        whole: a data set that `cases_of` knows the cases of.
        name: of the subset.
    """

    whole: Adapter
    name: str

    @property
    def metadata(self) -> Metadata:
        """Of the whole set."""
        return self.whole.metadata

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with at least one trajectory of the subset."""
        return tuple(split for split in self.whole.splits if any(self._of(split)))

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        """Lazy trajectories of a split.

        Raises:
            ValueError: if none belongs to the subset, naming the subsets that are there; or as `cases_of`.
        """
        own = self._of(split)
        if not any(own):
            there = ", ".join(sorted({case.subset for case in cases_of(self.whole, split)}))
            raise ValueError(f"Expected one of the subsets {there} of {split!r} but got {self.name!r}.")
        every = self.whole.trajectories(split)
        return [trajectory for trajectory, chosen in zip(every, own, strict=True) if chosen]

    def _of(self, split: str) -> list[bool]:
        return [case.subset == self.name for case in cases_of(self.whole, split)]


@cases_of.register
def _(adapter: Subset, split: str) -> list[CaseName]:
    return [case for case in cases_of(adapter.whole, split) if case.subset == adapter.name]
