"""Repeated application of a stepper: blocks of frames in physical units, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pdesurrogate.fields.batch import collate
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.steppers.base import OutputCorrector, Stepper


class Rollout:
    """The blocks ``(batch, time, channel, *space)`` that follow a given history; built by `rollout`.

    Iterating starts from the given history each time and holds no more than the latest ``stepper.history_frames``
    frames, in a ring buffer, and one block. A step is given a view of that buffer, which the next step overwrites: a
    stepper that remembers frames copies them. Frames are counted, not steps: where a stepper gives several at once, the
    last block is cut to length. The given frames are never yielded.

    A trajectory is stopped at its first frame that is not finite or leaves the bounds. From there on its output is
    NaN, the stepper is given zeros in place of the frames that were not made, and the other trajectories of the batch
    go on. No value is brought to the host for that, so a GPU is never waited for.

    The frames of an `OutputCorrector` are yielded corrected; the next step starts from them as they were.

    Attributes:
        frames: frames to predict.
        first_bad_frame: ``(batch,)`` integers on the device of the history: number of the frame at which each
            trajectory was stopped, counted from zero at the first predicted frame; equal to ``frames`` where it was
            not stopped. Final once the iteration is over.
    """

    def __init__(
        self,
        stepper: Stepper,
        history: Tensor,
        context: Context,
        frames: int,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        if frames < 1:
            raise ValueError(f"Expected at least one frame to predict but got {frames}.")
        if history.ndim < 4:
            raise ValueError(f"Expected history (batch, time, channel, *space) but got {tuple(history.shape)}.")
        if stepper.history_frames < 1 or history.shape[1] < stepper.history_frames:
            raise ValueError(
                f"Expected at least {max(stepper.history_frames, 1)} history frames but got {history.shape[1]}; "
                "start the rollout later in the trajectory."
            )
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"Expected bounds (low, high) with low < high but got {bounds}.")
        self.frames = frames
        self.first_bad_frame = torch.full((history.shape[0],), frames, dtype=torch.long, device=history.device)
        self._stepper = stepper
        self._history = history[:, history.shape[1] - stepper.history_frames :]
        self._context = context
        self._bounds = bounds

    def __iter__(self) -> Iterator[Tensor]:
        latest = _Latest(self._history)
        correct = None
        if isinstance(self._stepper, OutputCorrector):
            correct = self._stepper.correction(self._history, self._context)
        alive = torch.ones_like(self.first_bad_frame, dtype=torch.bool)
        self.first_bad_frame = torch.full_like(self.first_bad_frame, self.frames)
        done = 0
        while done < self.frames:
            block = self._stepper.step(latest.frames, self._context)
            self._check(block)
            block = block[:, : self.frames - done]
            good = (alive[:, None] & self._is_good(block)).cumprod(dim=1).bool()
            length = good.sum(dim=1)
            stopped_here = alive & (length < block.shape[1])
            self.first_bad_frame = torch.where(stopped_here, done + length, self.first_bad_frame)
            alive = good[:, -1]
            done += block.shape[1]
            latest.append(torch.where(_as_mask(good, block), block, 0.0))
            made = torch.where(_as_mask(good, block), block, torch.nan)
            yield made if correct is None else correct(made)

    def _is_good(self, block: Tensor) -> Tensor:
        lowest, highest = block.flatten(2).aminmax(dim=-1)
        good = torch.isfinite(lowest) & torch.isfinite(highest)
        if self._bounds is None:
            return good
        return good & (lowest >= self._bounds[0]) & (highest <= self._bounds[1])

    def _check(self, block: Tensor) -> None:
        history = self._history
        fits = (
            block.ndim == history.ndim and block.shape[0] == history.shape[0] and block.shape[2:] == history.shape[2:]
        )
        if not fits or block.shape[1] < 1:
            wanted = (history.shape[0], "time >= 1", *history.shape[2:])
            raise ValueError(
                f"Expected {type(self._stepper).__name__} to give a block {wanted} but got {tuple(block.shape)}; "
                "a step keeps channels and grid."
            )


class _Latest:
    """The newest frames, oldest first, as one view of a ring buffer.

    A frame is written twice, as many places apart as the history has frames, so that those of any history lie in a row:
    a step copies its own frames and no others. No gradient passes through a buffer that is overwritten; where gradients
    are recorded, frames are put together anew.

    Attributes:
        frames: ``(batch, time, channel, *space)``, as many as there were at first; good until the next `append`.
    """

    def __init__(self, history: Tensor) -> None:
        self.frames = history
        self._count = history.shape[1]
        self._ring: Tensor | None = None
        self._oldest = 0

    def append(self, block: Tensor) -> None:
        """Let the frames of a block take the place of the oldest ones."""
        newest = block[:, -self._count :]
        if torch.is_grad_enabled():
            self._ring = None
            self.frames = torch.cat([self.frames, newest], dim=1)[:, -self._count :]
            return
        ring = self._writable(torch.promote_types(self.frames.dtype, newest.dtype))
        for frame in newest.unbind(1):
            ring[:, self._oldest] = frame
            if self._oldest + self._count < ring.shape[1]:
                ring[:, self._oldest + self._count] = frame
            self._oldest = (self._oldest + 1) % self._count
        self.frames = ring[:, self._oldest : self._oldest + self._count]

    def _writable(self, dtype: torch.dtype) -> Tensor:
        if self._ring is None or self._ring.dtype != dtype:
            shape = list(self.frames.shape)
            shape[1] = 2 * self._count - 1
            self._ring = self.frames.new_empty(shape, dtype=dtype)
            self._ring[:, : self._count] = self.frames
            self._oldest = 0
        return self._ring


def rollout(
    stepper: Stepper,
    history: Tensor,
    context: Context,
    frames: int,
    *,
    bounds: tuple[float, float] | None = None,
) -> Rollout:
    """Predict ``frames`` frames after ``history (batch, time, channel, *space)``; physical units.

    Args:
        stepper: gives one or more frames at each step.
        history: latest frames, of which the last ``stepper.history_frames`` are used.
        context: batched.
        frames: number of frames to predict.
        bounds: lowest and highest value that a field may take; beyond them a trajectory is stopped.

    Raises:
        ValueError: if the history is too short, ``frames`` is not positive, ``bounds`` are empty, or (on iteration)
            the stepper gives a block that does not fit the history.

    Example:
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> run = rollout(Persistence(), torch.ones(2, 1, 1, 8), Context((torch.arange(8.0).expand(2, -1),)), frames=3)
        >>> [tuple(block.shape) for block in run], run.first_bad_frame.tolist()
        ([(2, 1, 1, 8), (2, 1, 1, 8), (2, 1, 1, 8)], [3, 3])
    """
    return Rollout(stepper, history, context, frames, bounds)


def forecast(stepper: Stepper, trajectory: Trajectory, frames: int, *, start_frame: int | None = None) -> Tensor:
    """What follows a trajectory's own frames: predicted ``(time, channel, *space)`` on the CPU, physical units.

    Args:
        stepper: on the CPU.
        trajectory: whose frames before ``start_frame`` are the history.
        frames: number of frames to predict.
        start_frame: number of the first predicted frame; by default the first that has enough history.

    Raises:
        ValueError: as `rollout`, or if the trajectory has too few frames before ``start_frame``.

    Example:
        >>> from pdesurrogate.fields import Axis, Channel, Grid, Metadata
        >>> from pdesurrogate.steppers.persistence import Persistence
        >>> metadata = Metadata("rest", Grid((Axis("x", period=1.0),)), (Channel("height"),), frame_interval=0.1)
        >>> read_into = lambda start, out: out.zero_()
        >>> rest = Trajectory(metadata, Context((torch.arange(4) / 4,)), torch.arange(3.0), read_into, (3, 1, 4))
        >>> forecast(Persistence(), rest, frames=5).shape
        torch.Size([5, 1, 4])
    """
    start = stepper.history_frames if start_frame is None else start_frame
    history = trajectory.read(start - stepper.history_frames, start)
    with torch.no_grad():
        run = rollout(stepper, history.unsqueeze(0), collate([trajectory.context]), frames)
        return torch.cat([block[0] for block in run])


def _as_mask(flags: Tensor, frames: Tensor) -> Tensor:
    return flags.reshape(*flags.shape, *(1,) * (frames.ndim - flags.ndim))
