"""How long a stepper takes for a frame."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class StepClock:
    """Wall time for one frame of one trajectory, of work that is done block by block while others work in between.

    The very first block also pays for plans, caches and compilation; it is counted only where there is no other. Where
    several rollouts were timed, the median over rollouts is taken at each place in the rollout and then the mean over
    the places: an interruption of one rollout does no harm, and a stepper that works harder at every tenth step is
    still charged for it. A batch that is smaller than the first is left out, since its frames cost more. An accelerator
    is waited for before and after each block, so that work in flight is charged to whoever asked for it.

    Args:
        device: where the work is done.

    Example:
        >>> clock = StepClock("cpu")
        >>> [tuple(block.shape) for block in clock.timed(torch.ones(3, 16, 1), batch=16)]
        [(16, 1), (16, 1), (16, 1)]
        >>> 0 < clock.seconds_per_frame < 1
        True
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._batch = 0
        self._rollouts: list[_Rollout] = []

    def timed(self, blocks: Iterable[Tensor], batch: int) -> Iterator[Tensor]:
        """Hand on the blocks ``(batch, time, ...)`` of a rollout; what the caller does with them is not counted."""
        self._batch = self._batch or batch
        rollout = _Rollout()
        if batch >= self._batch:
            self._rollouts.append(rollout)
        remaining = iter(blocks)
        while True:
            begun = self._now()
            block = next(remaining, None)
            elapsed = self._now() - begun
            if block is None:
                return
            rollout.add(elapsed, batch * block.shape[1])
            yield block

    @contextmanager
    def running(self, frames: int) -> Iterator[None]:
        """Count the time spent inside as work on ``frames`` frames, all of it as one rollout."""
        if not self._rollouts:
            self._rollouts.append(_Rollout())
        begun = self._now()
        yield
        self._rollouts[0].add(self._now() - begun, frames)

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()

    @property
    def seconds_per_frame(self) -> float:
        """Of one trajectory; zero where nothing was timed, as in a process that got no trajectory."""
        rates, frames = self._rates()
        if rates.size == 0:
            return 0.0
        counted = np.isfinite(rates).any(0)
        places = np.nanmedian(rates[:, counted], axis=0)
        return float(np.average(places, weights=frames[counted]))

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile of single blocks' seconds per frame: far apart where the machine was disturbed."""
        rates, _ = self._rates()
        if rates.size == 0:
            return 0.0, 0.0
        low, high = np.nanquantile(rates, [0.25, 0.75])
        return float(low), float(high)

    def _rates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Seconds per frame ``(rollout, place)``, NaN where not counted, and the frames of each place ``(place,)``."""
        rollouts = [rollout for rollout in self._rollouts if len(rollout.frames)]
        places = max((len(rollout.frames) for rollout in rollouts), default=0)
        rates, frames = np.full((len(rollouts), places), np.nan), np.zeros(places)
        for row, rollout in zip(rates, rollouts, strict=True):
            own = np.asarray(rollout.frames)
            row[: len(own)] = np.asarray(rollout.seconds) / own
            frames[: len(own)] = own
        if rates.size > 1:
            rates[0, 0] = np.nan
        return rates, frames


class _Rollout:
    """Seconds and frames of each block, in arrays: a long rollout must not fill the memory."""

    def __init__(self) -> None:
        self.seconds, self.frames = array("d"), array("d")

    def add(self, seconds: float, frames: int) -> None:
        self.seconds.append(seconds)
        self.frames.append(frames)
