"""Which cases are for training, validation and testing; by case, before any window is cut."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from pdesurrogate.data.adapters.cfdbench.published import SUBSETS

Rounding = Literal["round", "truncate"]


class CaseFolder(NamedTuple):
    """A case of a tree: its subset and the name of its folder."""

    subset: str
    folder: str

    def __str__(self) -> str:
        return f"{self.subset}/{self.folder}"


Assignment = dict[str, list[CaseFolder]]


class SplitRule(Protocol):
    """Says which case belongs to which split; cases that are left out later are among those given."""

    def assign(self, names: Sequence[CaseFolder]) -> Assignment:
        """Cases of ``train``, ``val`` and ``test``, none in two of them; ``names`` are sorted."""
        ...


@dataclass(frozen=True)
class ShuffledSplit:
    """A share of every subset to each split, shuffled within the subset.

    A case's split does not depend on which other subsets are read, so that models trained on one subset and on all can
    be compared. Subsets of three cases or more have one at least in every split whose share is not zero.

    Raises:
        ValueError: if a share is negative, or nothing is left for training.

    Example:
        >>> names = [CaseFolder("bc", f"case{number:04d}") for number in range(10)]
        >>> {split: len(cases) for split, cases in ShuffledSplit().assign(names).items()}
        {'train': 8, 'val': 1, 'test': 1}
    """

    val: float = 0.1
    test: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _require_shares(self.val, self.test)

    def assign(self, names: Sequence[CaseFolder]) -> Assignment:
        """See the class."""
        splits: Assignment = {"train": [], "val": [], "test": []}
        for subset in SUBSETS:
            own = _shuffled([name for name in names if name.subset == subset], f"{self.seed} {subset}")
            val, test = (_share(len(own), share) for share in (self.val, self.test))
            splits["train"] += own[val + test :]
            splits["val"] += own[:val]
            splits["test"] += own[val : val + test]
        return splits


@dataclass(frozen=True)
class UnseenSubset:
    """One whole subset for testing, and a share of the others for validation: what was never varied in training.

    Raises:
        ValueError: for another subset, a share that is negative, or if no case is left to train on.

    Example:
        >>> names = [CaseFolder("bc", "case0"), CaseFolder("bc", "case1"), CaseFolder("geo", "case2")]
        >>> [str(name) for name in UnseenSubset("geo").assign(names)["test"]]
        ['geo/case2']
    """

    test: Literal["bc", "prop", "geo"] = "geo"
    val: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.test not in SUBSETS:
            raise ValueError(f"Expected a subset among {SUBSETS} for testing but got {self.test!r}.")
        _require_shares(self.val, 0.0)

    def assign(self, names: Sequence[CaseFolder]) -> Assignment:
        """See the class."""
        seen = [name for name in names if name.subset != self.test]
        if not seen or len(seen) == len(names):
            raise ValueError(
                f"Expected cases of {self.test!r} to test on and of other subsets to train on but got "
                f"{sorted({name.subset for name in names})}; read more subsets."
            )
        within = ShuffledSplit(val=self.val, test=0.0, seed=self.seed).assign(seen)
        return within | {"test": [name for name in names if name.subset == self.test]}


@dataclass(frozen=True)
class ReferenceSplit:
    """The authors' own: subsets put together as prop, bc, geo, shuffled with seed 0, cut after 80 and 90 percent.

    The split of all subsets is not the union of those of each; models of the two must not be compared.

    Args:
        rounding: ``round`` in the authors' classes for the cavity and those of frames for tube and dam, ``truncate`` in
            the others; see `reference_rounding`.

    Example:
        >>> names = [CaseFolder("prop", f"case{number}") for number in range(84)]
        >>> {split: len(cases) for split, cases in ReferenceSplit("round").assign(names).items()}
        {'train': 67, 'val': 8, 'test': 9}
    """

    rounding: Rounding = "round"

    def __post_init__(self) -> None:
        if self.rounding not in ("round", "truncate"):
            raise ValueError(f"Expected rounding 'round' or 'truncate' but got {self.rounding!r}.")

    def assign(self, names: Sequence[CaseFolder]) -> Assignment:
        """See the class."""
        # A generator of its own draws what random.seed(0); random.shuffle(...) would, and leaves the global one alone.
        cases = _shuffled([name for subset in SUBSETS for name in names if name.subset == subset], 0)
        whole = round if self.rounding == "round" else int
        train, val = whole(len(cases) * 0.8), whole(len(cases) * 0.1)
        return {"train": cases[:train], "val": cases[train : train + val], "test": cases[train + val :]}


@dataclass(frozen=True)
class ListedSplit:
    """Cases by name, such as ``bc/case0003``; those that are not listed belong to no split.

    Raises:
        ValueError: if a case is listed twice or is not in the tree.
    """

    train: Sequence[str] = ()
    val: Sequence[str] = ()
    test: Sequence[str] = ()

    def __post_init__(self) -> None:
        listed = [*self.train, *self.val, *self.test]
        twice = sorted({name for name in listed if listed.count(name) > 1})
        if twice:
            raise ValueError(f"Expected each case in one split only but {', '.join(twice)} is listed twice.")

    def assign(self, names: Sequence[CaseFolder]) -> Assignment:
        """See the class."""
        known = {str(name): name for name in names}
        unknown = [name for name in (*self.train, *self.val, *self.test) if name not in known]
        if unknown:
            raise ValueError(
                f"Expected cases of the tree, such as {next(iter(known), 'bc/case0000')}, but {unknown[:3]} are not in "
                "it; check subset and folder."
            )
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {split: [known[name] for name in listed] for split, listed in splits.items()}


def reference_rounding(problem: str, task: Literal["pairs", "frames"]) -> Rounding:
    """How the authors' class of a problem and a task cuts its list.

    Example:
        >>> reference_rounding("tube", "frames"), reference_rounding("tube", "pairs")
        ('round', 'truncate')
    """
    return "round" if problem == "cavity" or (problem in ("tube", "dam") and task == "frames") else "truncate"


def _shuffled(names: list[CaseFolder], seed: int | str) -> list[CaseFolder]:
    random.Random(seed).shuffle(names)
    return names


def _share(total: int, share: float) -> int:
    return max(round(total * share), 1) if share > 0 and total >= 3 else 0


def _require_shares(val: float, test: float) -> None:
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise ValueError(f"Expected shares >= 0 that leave something for training but got val {val} and test {test}.")
