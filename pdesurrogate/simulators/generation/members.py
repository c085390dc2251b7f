"""Blocks whose trajectories are cases: which of them still run, and what is built of all of them before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.cases import CaseOf
from pdesurrogate.simulators.generation.protocols import (
    CaseSimulator,
    Gathering,
    Simulator,
    StoredFrames,
    Varied,
    Varying,
)

Storing = Callable[[CaseSimulator], StoredFrames]


class NoneLeftError(Exception):
    """Every case of a block has dropped out."""


class Members:
    """The cases of one block, of which some may drop out.

    The place of one that drops out is taken by a copy of the first one that is left, whose results nobody keeps. So the
    block stays as large as it was and the results of all others stay the same to the last bit, as long as the simulator
    keeps the members of a batch apart.

    Args:
        simulator: the base case.
        cases: of the block.
        parameters: ``(batch, n)`` in float64, in the order of ``simulator.parameter_names``.
        storing: what archives hold of the states of a simulator.
        device: where to compute.
        dropped: members that are out from the beginning, and why.

    Raises:
        NoneLeftError: if all of them are.
    """

    def __init__(
        self,
        simulator: Varied,
        cases: Sequence[CaseOf],
        parameters: Tensor,
        storing: Storing,
        device: str = "cpu",
        dropped: Mapping[int, str] | None = None,
    ) -> None:
        self.cases = tuple(cases)
        self.dropped: dict[int, str] = {}
        self._base, self._parameters, self._storing, self._device = simulator, parameters, storing, device
        self.drop(dropped or {})

    @property
    def kept(self) -> list[int]:
        """Members that still run."""
        return [member for member in range(len(self.cases)) if member not in self.dropped]

    def drop(self, reasons: Mapping[int, str]) -> Tensor:
        """Take out these members for good, and build the block anew.

        Returns:
            For each place ``(batch,)`` the member whose state belongs there from now on.

        Raises:
            NoneLeftError: if no member is left.
        """
        self.dropped |= reasons
        if not self.kept:
            raise NoneLeftError
        self.source = torch.tensor([m if m not in self.dropped else self.kept[0] for m in range(len(self.cases))])
        self.simulator = self._built(self._parameters[self.source])
        self.stored = self._storing(self.simulator)
        return self.source

    def alone(self, place: int) -> Simulator:
        """The simulator of the one member that is in a place of the batch."""
        return self._built(self._parameters[self.source[place]].unsqueeze(0))

    def _built(self, parameters: Tensor) -> CaseSimulator:
        simulator = self._base.of_cases(parameters)
        if isinstance(simulator, nn.Module):
            simulator.to(self._device)
        return simulator


class GatheredByCase:
    """Statistics of each case on its own, so that those of one that drops out can be left out.

    Args:
        gatherings: empty, one for each place in the batch.
    """

    def __init__(self, gatherings: Sequence[Gathering]) -> None:
        self.gatherings = tuple(gatherings)

    def update(self, state: Tensor) -> None:
        """Count a state ``(batch, channel, *space)``, each member where it belongs."""
        for gathering, member in zip(self.gatherings, state.split(1), strict=True):
            gathering.update(member)

    def state_dict(self) -> dict[str, Any]:
        """Those of all members, in the list ``cases``."""
        return {"cases": [gathering.state_dict() for gathering in self.gatherings]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        for gathering, own in zip(self.gatherings, state["cases"], strict=True):
            gathering.load_state_dict(own)


@dataclass(frozen=True)
class CaseTable:
    """All cases of a data set, each built once on its own, so that one that is refused is known before any work.

    Attributes:
        cases: of each split.
        parameters: ``(cases, n)`` of each split in float64, in the order of ``parameter_names``.
        refused: why cases cannot be simulated, by split and number.
        contexts: of stored frames of each split, batched; what a refused case would have is that of the base case.
        nominal: coordinates ``(n,)`` of the base case.
    """

    cases: dict[str, tuple[CaseOf, ...]]
    parameters: dict[str, Tensor]
    refused: dict[str, dict[int, str]]
    contexts: dict[str, Context]
    nominal: tuple[Tensor, ...]

    @classmethod
    def build(
        cls,
        simulator: Any,
        cases: Mapping[str, Sequence[CaseOf]],
        storing: Storing,
        nominal: tuple[Tensor, ...],
    ) -> CaseTable:
        """Build every case once.

        Args:
            simulator: `Varied`, and the base case.
            cases: of each split.
            storing: what archives hold of the states of cases.
            nominal: coordinates ``(n,)`` of what they hold of the base case.

        Raises:
            ValueError: if what is built is not a set of cases on one grid, at one time step.
        """
        base, names = simulator.parameters_by_name, simulator.parameter_names
        columns = [list(base).index(name) for name in names]
        parameters: dict[str, Tensor] = {}
        refused: dict[str, dict[int, str]] = {}
        contexts: dict[str, Context] = {}
        for split, some in cases.items():
            if not some:
                continue
            rows = [[case.parameters.get(name, base[name]) for name in names] for case in some]
            parameters[split] = torch.tensor(rows, dtype=torch.float64)
            refused[split], built = {}, []
            for number, (case, row) in enumerate(zip(some, parameters[split].unsqueeze(1), strict=True)):
                try:
                    one = simulator.of_cases(row)
                except ValueError as error:
                    refused[split][number] = f"refused when it was built: {error}"
                    built.append(_context_of_refused({**base, **case.parameters}, nominal))
                else:
                    _require_same_times(case, one, simulator)
                    built.append(_context_of(storing(one), base))
            contexts[split] = _joined(built, dict(zip(columns, parameters[split].unbind(1), strict=True)))
        return cls({split: tuple(cases[split]) for split in contexts}, parameters, refused, contexts, nominal)

    def require_none_refused(self) -> None:
        """Refuse cases that cannot be simulated.

        Raises:
            ValueError: naming all of them, and why.
        """
        lines = [
            f"{split} {described(self.cases[split][number], number)}: {reason}"
            for split, reasons in self.refused.items()
            for number, reason in reasons.items()
        ]
        if lines:
            listed = "\n  ".join(lines)
            raise ValueError(
                f"Expected cases that can be simulated but {len(lines)} cannot:\n  {listed}\nChange these cases, or "
                "leave them out with --skip-bad-cases."
            )

    def placed(self, metadata: Metadata) -> Metadata:
        """Metadata whose axes have no common bounds where cases differ in extent."""
        axes = tuple(
            dataclasses.replace(axis, bounds=None) if varies else axis
            for axis, varies in zip(metadata.grid.axes, self._varies, strict=True)
        )
        return dataclasses.replace(metadata, grid=dataclasses.replace(metadata.grid, axes=axes))

    def values(self, split: str, numbers: Sequence[int]) -> Tensor:
        """All parameters of cases ``(numbers, P)``, given or not."""
        values = self.contexts[split].parameters
        assert values is not None
        return values[list(numbers)]

    def coordinates(self, split: str, numbers: Sequence[int]) -> list[Tensor] | None:
        """``(numbers, n)`` of each axis; ``None`` if the points of all cases of the set are those of the base case."""
        if not any(self._varies):
            return None
        return [points[list(numbers)] for points in self.contexts[split].coordinates]

    def masks(self, split: str, numbers: Sequence[int]) -> Tensor | None:
        """``(numbers, *space)``; ``None`` if all cases of the set are full of fluid."""
        own = self.contexts[split].mask
        if own is None or not self._masked:
            return None
        return own[list(numbers)]

    def listed(self, split: str, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Number, name and subset of cases in plain values, as `Archive.cases` reads them."""
        cases = self.cases[split]
        return [{"number": number, "name": cases[number].name, "subset": cases[number].subset} for number in numbers]

    @property
    def _masked(self) -> bool:
        """Whether some case that can be simulated is not all fluid."""
        return any(
            context.mask is not None and not bool(context.mask[number].all())
            for split, context in self.contexts.items()
            for number in range(len(self.cases[split]))
            if number not in self.refused[split]
        )

    @property
    def _varies(self) -> tuple[bool, ...]:
        return tuple(
            any(
                # Coordinates may have gone through single precision.
                float((context.coordinates[axis] - points).abs().max()) > 1e-6 * float(points.abs().max())
                for context in self.contexts.values()
            )
            for axis, points in enumerate(self.nominal)
        )


def described(case: CaseOf, number: int) -> str:
    """A case in words.

    Example:
        >>> described(CaseOf("case0007", "geo", {}), 3)
        'case0007 (number 3, geo)'
    """
    return f"{case.name} (number {number}, {case.subset})"


def _require_same_times(case: CaseOf, one: Simulator, base: Simulator) -> None:
    for what in ("steps_per_frame", "frame_interval", "shape"):
        if getattr(one, what) != getattr(base, what):
            raise ValueError(
                f"Expected {what} {getattr(base, what)} of all cases but {case.name} has {getattr(one, what)}."
            )


def _context_of(stored: StoredFrames, base: Mapping[str, float]) -> Context:
    if not isinstance(stored, Varying):
        raise ValueError(
            f"Expected stored frames that say where those of each case lie but {type(stored).__name__} has no context."
        )
    parameters = stored.context.parameters
    if parameters is None or parameters.shape != (1, len(base)):
        found = None if parameters is None else tuple(parameters.shape)
        raise ValueError(f"Expected the parameters {tuple(base)} of a case, {(1, len(base))}, but got {found}.")
    return stored.context


def _context_of_refused(parameters: Mapping[str, float], nominal: tuple[Tensor, ...]) -> Context:
    """What a file says of a case that has no simulator: its parameters, and points of the base case without fluid."""
    return Context(
        tuple(points.unsqueeze(0) for points in nominal),
        torch.tensor([list(parameters.values())], dtype=torch.float64),
        torch.zeros(1, *(len(points) for points in nominal), dtype=torch.bool),
    )


def _joined(contexts: Sequence[Context], exact: Mapping[int, Tensor]) -> Context:
    """One batch of all; where some have a mask, the others are full of fluid.

    Args:
        contexts: of one case each.
        exact: columns of the parameters as they were given; a context may hold them in single precision.
    """
    masks = [
        torch.ones(1, *(points.shape[-1] for points in context.coordinates), dtype=torch.bool)
        if context.mask is None
        else context.mask
        for context in contexts
    ]
    values = torch.cat([context.parameters for context in contexts if context.parameters is not None]).to(torch.float64)
    for column, given in exact.items():
        values[:, column] = given
    return Context(
        tuple(torch.cat(points) for points in zip(*(context.coordinates for context in contexts), strict=True)),
        values,
        torch.cat(masks),
    )
