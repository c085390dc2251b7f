"""Newton's method for all frames of a prediction at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.physics.residuals import LinearizedMarch, March
from pdesurrogate.physics.spectral import integer_wavenumbers
from pdesurrogate.steppers.refinement.base import Path, Problem, positive
from pdesurrogate.steppers.refinement.residuals import Defect


class NewtonState(NamedTuple):
    """Frames and their defect."""

    frames: Tensor
    residual: Tensor


class Newton:
    """All frames at once: the defects of all of them in parallel, then one linear sweep through time.

    With ``Phi`` the march and ``d_j = (w_j - Phi(w_{j-1})) / interval`` an iteration solves ``e_j = Phi'(w_{j-1})
    e_{j-1} - interval d_j`` for the updates ``e_j`` of the frames, ``e_0 = 0``: Newton's method for all defects being
    zero, which converges quadratically. Its derivative costs about two steps of the march for each frame, one frame
    after the other; another, cheaper march may give it instead, which then converges linearly, as parareal does.

    Args:
        sweep: gives the derivative; the residual's own march by default. A solver on a coarser grid wants to be wrapped
            in `pdesurrogate.steppers.resampled.Resampled`.
        modes: waves ``(x, y, time)`` to each side that an update may have, as those of a head of that size; any by
            default.
        iterations: at most.
    """

    patience = 2

    def __init__(
        self, sweep: March | None = None, modes: tuple[int, int, int] | None = None, iterations: int = 3
    ) -> None:
        self.iterations = positive("iterations", iterations)
        self.sweep = sweep
        self.modes = modes

    def begin(self, problem: Problem) -> NewtonState:
        """The prediction and its defect."""
        if not isinstance(problem.residual, Defect):
            raise ValueError(
                f"Expected the defect of a march for Newton but got {type(problem.residual).__name__}; "
                "use Adam or LBFGS with it."
            )
        frames = problem.prediction.double()
        return NewtonState(frames, problem.residual.of(Path(problem.first, frames), problem.context))

    def advance(self, problem: Problem, state: NewtonState) -> NewtonState:
        """One iteration."""
        defect = problem.residual
        assert isinstance(defect, Defect)
        march = defect.march if self.sweep is None else self.sweep
        wanted = -defect.interval * state.residual
        update = wanted[:, :1]
        updates = [update]
        for frame in range(1, wanted.shape[1]):
            before = state.frames[:, frame - 1 : frame]
            update = _tangent(march, before, update, problem.context) + wanted[:, frame : frame + 1]
            updates.append(update)
        whole = torch.cat(updates, dim=1)
        if self.modes is not None:
            whole = _project(whole, self.modes, problem)
        frames = state.frames + whole
        return NewtonState(frames, defect.of(Path(problem.first, frames), problem.context))


def _tangent(march: March, state: Tensor, direction: Tensor, context: Context) -> Tensor:
    """Derivative of the march at ``state (batch, 1, channel, *space)`` in a direction."""
    if isinstance(march, LinearizedMarch):
        return march.step_tangent(state, direction, context)
    tangent: Tensor = torch.func.jvp(lambda frame: march.step(frame, context)[:, :1], (state,), (direction,))[1]
    return tangent


def _project(update: Tensor, modes: tuple[int, int, int], problem: Problem) -> Tensor:
    """The part of an update ``(batch, time, 1, x, y)`` that a head with these modes can give."""
    shape = update.shape[-2:]
    low = [
        wave.abs() <= kept for wave, kept in zip(integer_wavenumbers(shape, device=update.device), modes, strict=False)
    ]
    spectrum = torch.fft.rfft2(update) * (low[0] & low[1])
    network = problem.surrogate.network
    if not isinstance(network, SFNO):
        raise ValueError(f"Expected an SFNO to project on its head but got {type(network).__name__}; leave modes out.")
    times = network.times_out(problem.history)
    angles = 2 * torch.pi / times.period * times.positions[:, None] * torch.arange(modes[2], dtype=torch.float64)
    basis = torch.cat([torch.cos(angles), torch.sin(angles[:, 1:])], dim=1)
    onto = (basis @ torch.linalg.pinv(basis, rtol=1e-12)).to(update)
    return torch.einsum("st,btcxy->bscxy", onto, torch.fft.irfft2(spectrum, s=shape))
