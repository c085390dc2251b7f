"""The head of a trained network with more waves than it was trained with: the linear part that may change."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pdesurrogate.layers.space_time import LinearHead
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.refinement.base import Path
from pdesurrogate.steppers.surrogate import Surrogate


class Head(NamedTuple):
    """The head of a trained SFNO with more waves than it was trained with, a copy for each sample.

    Attributes:
        first: ``(batch, 1, 1, x, y)``, the last given frame.
        linear: what the weights act on, in double precision.
        weight: ``(batch, modes_t, 2 modes_x, 2 modes_y, 2)``, real and imaginary part; the trained ones, zeros around.
        bias: of the same shape.
        scale: physical value of one unit of the network's.
        frames_per_unit: latent frames, as the head counts time, in a unit of physical time.
    """

    first: Tensor
    linear: LinearHead
    weight: Tensor
    bias: Tensor
    scale: float
    frames_per_unit: float

    def path(self, weight: Tensor, bias: Tensor, with_rate: bool) -> Path:
        """The trajectory that these weights give."""
        weight, bias = torch.view_as_complex(weight), torch.view_as_complex(bias)
        correction = self.linear.correction(weight, bias).unsqueeze(2)
        rate = None
        if with_rate:
            per_frame = self.linear.correction(weight, bias, order=1).unsqueeze(2)
            rate = per_frame * (self.scale * self.frames_per_unit)
        return Path(self.first, self.first + self.scale * correction, rate)

    def select(self, kept: Tensor) -> Head:
        """Those samples alone."""
        linear = self.linear._replace(features=self.linear.features[kept])
        return self._replace(first=self.first[kept], linear=linear, weight=self.weight[kept], bias=self.bias[kept])


def enlarged_head(
    surrogate: Stepper,
    history: Tensor,
    modes: tuple[int, int, int] | None,
    compat: Literal["torch-cfd"] | None = None,
) -> Head:
    """The head of a surrogate's network, ready to be refined; the trunk is evaluated once, in its own precision.

    Args:
        surrogate: of an `SFNO`, with target ``"state"``.
        history: physical units.
        modes: waves ``(x, y, time)`` as an `SFNO` counts them, at least the trained ones; if not given, all inside the
            2/3 mask of the grid and all that a period of the head holds in time. More in time add nothing and are left
            out.
        compat: ``"torch-cfd"`` for the released code's units of the bias, those of a transform that is not divided by
            the number of points, and its mistake: the trained bias without the strength that it was trained with.

    Raises:
        ValueError: if the network is another, or modes are fewer than the trained ones or do not fit the grid.
    """
    if not isinstance(surrogate, Surrogate) or not isinstance(surrogate.network, SFNO) or surrogate.target != "state":
        raise ValueError(
            f"Expected a surrogate of an SFNO with target 'state' but got {_described(surrogate)}; refine its frames "
            "instead: Newton() without modes."
        )
    network = surrogate.network
    history = history[:, history.shape[1] - surrogate.history_frames :]
    space = (history.shape[3], history.shape[4])
    trained = network.modes
    longest = max(trained[2], network.times_out(history).period // 2 + 1)
    if modes is None:
        modes = (
            # Both signs of the last wave that is less than a third of the points.
            max(trained[0], (space[0] + 2) // 3),
            max(trained[1], (space[1] + 2) // 3),
            longest,
        )
    if any(new < old for new, old in zip(modes, trained, strict=True)) or any(
        2 * new > size for new, size in zip(modes, space, strict=False)
    ):
        raise ValueError(
            f"Expected modes of at least the trained {trained} and at most half of the grid {space} but got {modes}."
        )
    modes = (modes[0], modes[1], min(modes[2], longest))
    with torch.no_grad():
        normalized = surrogate.normalizer.normalize(history.to(network.head.weight.dtype))
        linear = network.linear_head(normalized, modes)
    head = network.head
    strength, factor = head.bias_strength * linear.bias_factor, 1.0
    if compat is not None:
        factor = 1 / (math.prod(linear.space) * linear.times.period)
        strength = linear.bias_factor / factor
    linear = linear._replace(bias_factor=factor)
    weight, bias = (
        _padded(block.detach().double(), modes).expand(len(history), -1, -1, -1, -1)
        for block in (head.weight, strength * head.bias)
    )
    # The authors' head has a period that grows with its frames instead of frames that move closer.
    spacing = 1.0 if network.compat is not None else network.latent_frames / network.frames_out(history)
    per_unit = spacing / surrogate.metadata.frame_interval
    scale = float(surrogate.normalizer.std[0])
    return Head(history[:, -1:].double(), linear, weight.clone(), bias.clone(), scale, per_unit)


def _described(stepper: Stepper) -> str:
    if not isinstance(stepper, Surrogate):
        return type(stepper).__name__
    return f"{type(stepper.network).__name__} with target {stepper.target!r}"


def _padded(block: Tensor, modes: tuple[int, int, int]) -> Tensor:
    """``(2 modes_x, 2 modes_y, modes_t, 2)`` with zeros for new waves; ``(modes_t, 2 modes_x, 2 modes_y, 2)``."""
    whole = block.new_zeros(modes[2], 2 * modes[0], 2 * modes[1], 2)
    x, y, t = block.shape[0] // 2, block.shape[1] // 2, block.shape[2]
    whole[:t, modes[0] - x : modes[0] + x, modes[1] - y : modes[1] + y] = block.movedim(2, 0)
    return whole
