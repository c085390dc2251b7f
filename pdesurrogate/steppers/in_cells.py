"""A solver of staggered plane flows on data that hold velocities in cells, such as trees in CFDBench's layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Channel, Metadata
from pdesurrogate.fields.staggered_box import cell_velocity
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.steppers.own_state import OwnState
from pdesurrogate.steppers.regridded import Regridded


class Continuity(Protocol):
    """A batch of cases, which knows what velocities their sides and bodies allow."""

    def without_divergence(self, state: Tensor) -> Tensor:
        """The nearest velocity that continuity allows; ``(batch, channel, x, y)``."""
        ...


class CaseFlows(Protocol):
    """A family of flows on the grid of the data."""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """In the order of ``parameters``."""
        ...

    @property
    def parameters_by_name(self) -> dict[str, float]:
        """Of the family's own case."""
        ...

    def of_cases(self, parameters: Tensor) -> Continuity:
        """A batch of cases with ``parameters (batch, n)``."""
        ...


class InCells(nn.Module):
    """Steps velocities in cells, each the mean of those on the two faces of a cell, by a solver of those on faces.

    What is given has lost something: a mean of two faces has more than one origin. Faces between cells get the mean of
    their two cells, and then the nearest velocity is taken that sides, bodies and continuity allow. A frame that this
    stepper gave itself is not brought back so: the solver goes on from the faces that it was made from. Pressure begins
    at zero; `EnclosedFlow` does not look at what it was.

    Args:
        stepper: of velocities on faces, and of whatever lives in cells beside them.
        flows: the same family of flows, on the grid of the data.
        parameters: names of the parameters in the contexts of the data; what the solver has beyond them is its own.
        high_end: what is at the high end of x.

    Raises:
        ValueError: in use, for other fields than two velocities, or contexts of other parameters.
    """

    history_frames = 1

    def __init__(
        self, stepper: Regridded, flows: CaseFlows, parameters: tuple[str, ...], high_end: Literal["wall", "outlet"]
    ) -> None:
        super().__init__()
        self.stepper = stepper
        self.parameters_given = parameters
        self.high_end: Literal["wall", "outlet"] = high_end
        self._flows = flows
        self._own = OwnState()

    @property
    def metadata(self) -> Metadata:
        """As the solver has it, velocities in cells alone."""
        found = self.stepper.metadata
        first, second = (Channel(c.name, c.units, c.long_name, "cell", c.vector) for c in found.channels[:2])
        return replace(found, channels=(first, second))

    def step(self, history: Tensor, context: Context) -> Tensor:
        """The next frame ``(batch, 1, 2, x, y)``.

        Raises:
            ValueError: if fields or parameters are not those of the data.
        """
        if history.ndim != 5 or history.shape[2] != 2:
            raise ValueError(f"Expected two velocities (batch, time, 2, x, y) but got {tuple(history.shape)}.")
        given = history[:, -1]
        told = context._replace(parameters=self._in_order(context, len(given)))
        faces = self._own.behind(given, lambda: self._faces(given, told))
        made = self.stepper.step(faces.unsqueeze(1), told)[:, -1]
        frame = self._cells(made, context).to(history.dtype)
        self._own.keep(frame, made)
        return frame.unsqueeze(1)

    def _in_order(self, context: Context, batch: int) -> Tensor:
        """In the solver's order, ``(batch, n)``."""
        given, names = context.parameters, self.parameters_given
        found = 0 if given is None else given.shape[1]
        if found != len(names):
            raise ValueError(f"Expected the parameters {names} of each case but got {found} numbers.")
        own = self._flows.parameters_by_name
        columns = [
            torch.full((batch,), own[name]) if given is None or name not in names else given[:, names.index(name)].cpu()
            for name in self._flows.parameter_names
        ]
        return torch.stack([column.double() for column in columns], 1)

    def _faces(self, given: Tensor, told: Context) -> Tensor:
        """Velocities on faces, then what else the solver has; ``(batch, channel, x, y)`` in float64."""
        u, v = given[:, 0].double(), given[:, 1].double()
        # The lowest faces belong to the sides, which put their own velocity there.
        u = torch.cat([u[:, :1], (u[:, :-1] + u[:, 1:]) / 2], 1)
        v = torch.cat([v[:, :, :1], (v[:, :, :-1] + v[:, :, 1:]) / 2], 2)
        others = len(self.stepper.metadata.channels) - 2
        state = torch.cat([torch.stack([u, v], 1), u.new_zeros(len(u), others, *u.shape[1:])], 1)
        assert told.parameters is not None
        return self._flows.of_cases(told.parameters).without_divergence(state)

    def _cells(self, made: Tensor, context: Context) -> Tensor:
        """Velocities ``(batch, 2, x, y)``."""
        x, y = (
            ((line[:, -1] - line[:, 0]).to(made) / (line.shape[1] - 1))[:, None, None] for line in context.coordinates
        )
        return torch.stack(cell_velocity(made[:, 0], made[:, 1], (x, y), self.high_end), 1)
