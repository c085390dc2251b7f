"""What archives hold of enclosed flows: staggered fields on a coarser grid that keep discrete continuity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Channel
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.enclosed.case import Case
from pdesurrogate.simulators.enclosed.flow import EnclosedCases, EnclosedFlow, fluid_cells
from pdesurrogate.simulators.generation.protocols import Simulator, StoredFrames


class CoarseFrames:
    """Means of the fine velocity over the faces of coarse cells, and of what lives in cells over the fluid in them.

    What flows through a coarse face is the sum of the fine fluxes, so coarse cells have no divergence where the fine
    ones have none, around bodies too.

    Args:
        solver: whose states are stored.
        factors: fine cells in a coarse one along x and y.
    """

    def __init__(self, solver: EnclosedCases, factors: tuple[int, int]) -> None:
        self.attributes: dict[str, Any] = {}
        self.channels: tuple[Channel, ...] = solver.channels
        self._factors = factors
        self._shape = (solver.shape[0] // factors[0], solver.shape[1] // factors[1])
        self._solver = solver
        fluid = torch.stack([fluid_cells(case, solver.shape) for case in solver.cases])
        self._fluid = fluid.unsqueeze(1).to(solver.scheme.dx.device, torch.float64)

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        """Centers of the coarse cells along each axis, in float64, of the first case."""
        return self._solver.cases[0].box.centers(self._shape)

    @property
    def context(self) -> Context:
        """Coordinates, parameters and mask of every case, batched; fluid is a cell with a face that is partly open."""
        fine = self._solver.context
        x, y = (
            torch.stack(points)
            for points in zip(*(case.box.centers(self._shape) for case in self._solver.cases), strict=True)
        )
        mask = None
        if fine.mask is not None:
            mask = torch.stack([self._coarse_mask(case) for case in self._solver.cases]).to(fine.mask.device)
        return Context((x.to(fine.coordinates[0]), y.to(fine.coordinates[1])), fine.parameters, mask)

    def apply(self, state: Tensor) -> Tensor:
        """``(batch, channel, *coarse)`` of a state ``(batch, channel, x, y)``."""
        across, along = self._factors
        fields = [
            nn.functional.avg_pool2d(state[:, :1, ::across], (1, along)),
            nn.functional.avg_pool2d(state[:, 1:2, :, ::along], (across, 1)),
        ]
        fluid = self._fluid.to(state)
        share = nn.functional.avg_pool2d(fluid, self._factors).clamp(min=torch.finfo(state.dtype).tiny)
        for cells in state[:, 2:].split(1, 1):
            fields.append(nn.functional.avg_pool2d(cells * fluid, self._factors) / share)
        return torch.cat(fields, 1)

    def _coarse_mask(self, case: Case) -> Tensor:
        across, along = self._factors
        open_x, open_y = (~faces for faces in case.closed_faces(self._solver.shape))
        crossed_x = open_x[::across].unflatten(1, (-1, along)).any(2)
        crossed_y = open_y[:, ::along].unflatten(0, (-1, across)).any(1)
        return crossed_x[1:] | crossed_x[:-1] | crossed_y[:, 1:] | crossed_y[:, :-1]


class FaceCoarsening:
    """A `Reduction` of enclosed flows to coarser cells; see `CoarseFrames`.

    Args:
        shape: coarse cells along x and y; divisors of the fine ones.

    Example:
        >>> from pdesurrogate.simulators.enclosed.problems import Cavity
        >>> flow = EnclosedFlow(Cavity(), (32, 32), frame_interval=0.1, steps_per_frame=10)
        >>> frames = FaceCoarsening((16, 16)).on(flow)
        >>> frames.apply(flow.at_rest(1)).shape
        torch.Size([1, 3, 16, 16])
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = shape

    def on(self, simulator: Simulator) -> StoredFrames:
        """The reduction of states of this solver.

        Raises:
            ValueError: if it is no solver of enclosed flows or the cells do not divide its own.
        """
        if isinstance(simulator, EnclosedFlow):
            simulator = simulator.of_base(1)
        if not isinstance(simulator, EnclosedCases):
            raise ValueError(f"Expected an enclosed flow to coarsen but got {type(simulator).__name__}.")
        fine, coarse = simulator.shape, tuple(self.shape)
        if len(coarse) != 2 or min(coarse) < 1 or any(size % cells for size, cells in zip(fine, coarse, strict=True)):
            raise ValueError(f"Expected coarse cells that divide the fine {fine} but got {coarse}; choose divisors.")
        return CoarseFrames(simulator, (fine[0] // coarse[0], fine[1] // coarse[1]))
