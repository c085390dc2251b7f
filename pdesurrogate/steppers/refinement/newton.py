"""Newton's method for all frames of a prediction at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pdesurrogate.layers.space_time import Times
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.physics.residuals import March, march_tangent
from pdesurrogate.physics.spectral import integer_wavenumbers
from pdesurrogate.steppers.refinement.base import Path, Problem, positive
from pdesurrogate.steppers.refinement.residuals import Defect, require_fitting, required_defect
from pdesurrogate.steppers.surrogate import Surrogate


class NewtonState(NamedTuple):
    """Frames and their defect."""

    frames: Tensor
    residual: Tensor


class Newton(nn.Module):
    """All frames at once: the defects of all of them in parallel, then one linear sweep through time.

    With ``Phi`` the march and ``d_j = (w_j - Phi(w_{j-1})) / interval`` an iteration solves ``e_j = Phi'(w_{j-1})
    e_{j-1} - interval d_j`` for the updates ``e_j`` of the frames, ``e_0 = 0``: Newton's method for all defects being
    zero, which converges quadratically. Its derivative costs about two steps of the march for each frame, one frame
    after the other; another, cheaper march may give it instead, which then converges linearly, as parareal does.

    Args:
        sweep: gives the derivative; the residual's own march by default. A solver on a coarser grid wants to be wrapped
            in `pdesurrogate.steppers.resampled.Resampled`.
        modes: of a head ``(x, y, time)``, as an `SFNO` counts them, whose span an update is projected on; an update may
            be anything by default. Waves in time that a period of the head does not hold add nothing.
        iterations: at most.

    Raises:
        ValueError: if modes or iterations are not positive.
    """

    patience = 2

    def __init__(
        self, sweep: March | None = None, modes: tuple[int, int, int] | None = None, iterations: int = 3
    ) -> None:
        super().__init__()
        if modes is not None and (len(modes) != 3 or min(modes) < 1):
            raise ValueError(f"Expected three positive modes (x, y, time) but got {tuple(modes)}.")
        self.iterations = positive("iterations", iterations)
        self.sweep = sweep
        self.modes = modes

    def begin(self, problem: Problem) -> NewtonState:
        """The prediction and its defect.

        Raises:
            ValueError: for another residual, for a sweep of other fields, and with modes for frames that are not those
                of an `SFNO` or for a grid that has fewer.
        """
        defect = required_defect(problem.residual, self)
        if self.sweep is not None:
            require_fitting(self.sweep, defect.metadata)
        if self.modes is not None:
            _head_times(problem)
            space = tuple(problem.prediction.shape[-2:])
            if any(2 * kept > size for kept, size in zip(self.modes, space, strict=False)):
                raise ValueError(f"Expected modes of at most half of the grid {space} but got {tuple(self.modes)}.")
        frames = problem.prediction.double()
        return NewtonState(frames, defect.of(Path(problem.first, frames), problem.context))

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
            update = march_tangent(march, before, update, problem.context) + wanted[:, frame : frame + 1]
            updates.append(update)
        whole = torch.cat(updates, dim=1)
        if self.modes is not None:
            whole = _project(whole, self.modes, problem)
        frames = state.frames + whole
        return NewtonState(frames, defect.of(Path(problem.first, frames), problem.context))


def _project(update: Tensor, modes: tuple[int, int, int], problem: Problem) -> Tensor:
    """The part of an update ``(batch, time, 1, x, y)`` in the span of what a head with these modes can give.

    The head has waves ``-m ... m - 1``. Waves ``m``, whose partner of the other sign is missing, are left out, unless
    the grid has no more: it can give them in one direction only.
    """
    shape = update.shape[-2:]
    low = [
        (wave.abs() < kept) | (2 * kept == size)
        for wave, kept, size in zip(integer_wavenumbers(shape, device=update.device), modes[:2], shape, strict=True)
    ]
    spectrum = torch.fft.rfft2(update) * (low[0] & low[1])
    times = _head_times(problem)
    waves = torch.arange(min(modes[2], times.period // 2 + 1), dtype=torch.float64)
    angles = 2 * torch.pi / times.period * times.positions[:, None] * waves
    basis, strengths, _ = torch.linalg.svd(torch.cat([torch.cos(angles), torch.sin(angles)], 1), full_matrices=False)
    basis = basis[:, strengths > 1e-12 * strengths[0]].to(update)
    return torch.einsum("sk,tk,btcxy->bscxy", basis, basis, torch.fft.irfft2(spectrum, s=shape))


def _head_times(problem: Problem) -> Times:
    """Where the head of the problem's surrogate is evaluated."""
    surrogate = problem.surrogate
    network = surrogate.network if isinstance(surrogate, Surrogate) else None
    if not isinstance(network, SFNO):
        name = type(surrogate if network is None else network).__name__
        raise ValueError(f"Expected a surrogate of an SFNO to project on its head but got {name}; leave modes out.")
    times = network.times_out(problem.history[:, problem.history.shape[1] - surrogate.history_frames :])
    frames = problem.prediction.shape[1]
    if len(times.positions) != frames:
        raise ValueError(
            f"Expected the {len(times.positions)} frames of the head to project on it but got a window of {frames}; "
            "leave window or modes out."
        )
    return times
