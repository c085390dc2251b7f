"""Parareal: the defects of all frames in parallel, corrected through time by a cheap march."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pdesurrogate.physics.residuals import March, march_frames
from pdesurrogate.steppers.refinement.base import Path, Problem, positive
from pdesurrogate.steppers.refinement.residuals import Defect, require_fitting, required_defect


class PararealState(NamedTuple):
    """Frames, their defect, and what the cheap march made of the frame before each."""

    frames: Tensor
    residual: Tensor
    coarse: Tensor


class Parareal(nn.Module):
    """Steps through time with a cheap march, corrected by how far it was off the last time.

    With ``Phi`` the march of the residual and ``G`` a cheap one, an iteration makes of the frames ``w_j`` the frames
    ``v_j = Phi(w_{j-1}) + G(v_{j-1}) - G(w_{j-1})``, where ``v_0 = w_0`` is the last given frame (J.-L. Lions, Y. Maday
    and G. Turinici, *C. R. Acad. Sci. Paris* 332, 2001). ``Phi`` is taken of all frames side by side, ``G`` of one
    after the other, once: half of what `Newton` pays for its derivative, whose difference quotient this is (M. J.
    Gander and S. Vandewalle, doi:10.1137/05064607X). It converges linearly, faster the closer ``G`` is to ``Phi``, and
    makes at least one more frame exact in every iteration.

    Args:
        sweep: the cheap march ``G``. A solver on a coarser grid wants to be wrapped in
            `pdesurrogate.steppers.resampled.Resampled`.
        iterations: at most.

    Raises:
        ValueError: if iterations are not positive.
    """

    patience = 2

    def __init__(self, sweep: March, iterations: int = 5) -> None:
        super().__init__()
        self.iterations = positive("iterations", iterations)
        self.sweep = sweep

    def begin(self, problem: Problem) -> PararealState:
        """The prediction and its defect.

        Raises:
            ValueError: for another residual, or a sweep of other fields.
        """
        defect = required_defect(problem.residual, self)
        require_fitting(self.sweep, defect.metadata)
        frames = problem.prediction.double()
        path = Path(problem.first, frames)
        starts = torch.cat([problem.first, frames[:, :-1]], dim=1)
        coarse = march_frames(starts, problem.context, self.sweep, defect.frames_at_once)
        return PararealState(frames, defect.of(path, problem.context), coarse)

    def advance(self, problem: Problem, state: PararealState) -> PararealState:
        """One iteration."""
        defect = problem.residual
        assert isinstance(defect, Defect)
        stepped = state.frames - defect.interval * state.residual
        # The first frame follows from one that does not change.
        frames, coarse = [stepped[:, :1]], [state.coarse[:, :1]]
        for place in range(1, stepped.shape[1]):
            now = slice(place, place + 1)
            coarse.append(self.sweep.step(frames[-1], problem.context)[:, :1])
            frames.append(stepped[:, now] + coarse[-1] - state.coarse[:, now])
        refined = torch.cat(frames, dim=1)
        residual = defect.of(Path(problem.first, refined), problem.context)
        return PararealState(refined, residual, torch.cat(coarse, dim=1))
