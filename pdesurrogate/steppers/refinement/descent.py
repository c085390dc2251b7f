"""Descents on the weights of an enlarged head, by the gradient of the residual's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pdesurrogate.steppers.refinement.base import Problem, positive
from pdesurrogate.steppers.refinement.head import Head, enlarged_head


class DescentState(NamedTuple):
    """A head, its weights, and what the descent remembers of each; ``memory`` is tuples of tensors."""

    frames: Tensor
    residual: Tensor
    head: Head
    weights: tuple[Tensor, ...]
    value: Tensor
    gradients: tuple[Tensor, ...]
    memory: tuple[Any, ...]


class _Descent:
    """What descents on the weights of an enlarged head share."""

    def __init__(self, modes: tuple[int, int, int] | None, iterations: int) -> None:
        self.iterations = positive("iterations", iterations)
        self.modes = modes

    def _head(self, problem: Problem, compat: Literal["torch-cfd"] | None = None) -> Head:
        """The network's own head, enlarged."""
        head = enlarged_head(problem.surrogate, problem.history, self.modes, compat)
        own, wanted = len(head.linear.times.positions), problem.prediction.shape[1]
        if own != wanted:
            raise ValueError(f"Expected the {own} frames of the head but got a window of {wanted}; leave window out.")
        return head

    def _evaluate(
        self, problem: Problem, head: Head, weights: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Frames, residual, its size, and the gradient of that in the weights."""
        with torch.enable_grad():
            leaves = tuple(weight.detach().requires_grad_() for weight in weights)
            weight, bias = leaves[0] if len(leaves) == 2 else head.weight, leaves[-1]
            path = head.path(weight, bias, problem.residual.needs_rate)
            residual = problem.residual.of(path, problem.context)
            size = problem.residual.size(residual)
            gradients = torch.autograd.grad(size.sum(), leaves)
        return path.frames.detach(), residual.detach(), size.detach(), gradients


class Adam(_Descent):
    """The paper's method: gradient steps on weight and bias of the enlarged head, the trunk untouched.

    Args:
        modes: of the head, see `enlarged_head`.
        iterations: at most.
        bias_rate: learning rate of the bias, in units of a wave's normalized amplitude.
        weight_rate: of the weight.
        compat: ``"torch-cfd"`` for the head as the released code sets it up, see `enlarged_head`. Rates are in its
            units then, 1e-2 or 2e-1 and 1e-4 in its notebooks; with `SelfStartedResidual` it is the released recipe,
            but that a step is in units of the normalized fields and the refiner keeps the iterate of least residual.
    """

    def __init__(
        self,
        modes: tuple[int, int, int] | None = None,
        iterations: int = 100,
        bias_rate: float = 3e-4,
        weight_rate: float = 1e-4,
        compat: Literal["torch-cfd"] | None = None,
    ) -> None:
        super().__init__(modes, iterations)
        if bias_rate < 0 or weight_rate < 0 or compat not in (None, "torch-cfd"):
            raise ValueError(
                f"Expected rates >= 0 and compat None or 'torch-cfd' but got {bias_rate}, {weight_rate} and {compat!r}."
            )
        self.rates = (weight_rate, bias_rate)
        self.compat = compat
        # The released code stops for nothing.
        self.patience = 25 if compat is None else iterations

    def begin(self, problem: Problem) -> DescentState:
        """The network's own head, enlarged."""
        head = self._head(problem, self.compat)
        weights = (head.weight, head.bias)
        frames, residual, value, gradients = self._evaluate(problem, head, weights)
        zeros = tuple(torch.zeros_like(weight) for weight in weights)
        count = torch.zeros_like(value)
        return DescentState(frames, residual, head, weights, value, gradients, (zeros, zeros, count))

    def advance(self, problem: Problem, state: DescentState) -> DescentState:
        """One step of Adam (Kingma and Ba, arXiv:1412.6980, algorithm 1) with its usual constants."""
        first, second, count = state.memory
        count = count + 1
        gradients = tuple(_significant(gradient) for gradient in state.gradients)
        first = tuple(0.9 * mean + 0.1 * g for mean, g in zip(first, gradients, strict=True))
        second = tuple(0.999 * mean + 0.001 * g.square() for mean, g in zip(second, gradients, strict=True))
        aligned = count.reshape(-1, *(1,) * (first[0].ndim - 1))
        weights = tuple(
            weight - rate * (mean / (1 - 0.9**aligned)) / ((square / (1 - 0.999**aligned)).sqrt() + 1e-8)
            for weight, rate, mean, square in zip(state.weights, self.rates, first, second, strict=True)
        )
        frames, residual, value, gradients = self._evaluate(problem, state.head, weights)
        return DescentState(frames, residual, state.head, weights, value, gradients, (first, second, count))


def _significant(gradient: Tensor) -> Tensor:
    """The gradient without its round-off, of which Adam would make steps as long as any."""
    return torch.where(gradient.abs() > 1e-12 * _column(gradient.flatten(1).abs().amax(1), gradient), gradient, 0.0)


class LBFGS(_Descent):
    """Limited-memory quasi-Newton steps on the bias of the enlarged head, each sample on its own.

    Two-loop recursion with a diagonal first guess ``(alpha + |k|^2)^(-order)`` of the inverse Hessian, and
    backtracking until the residual's size falls enough (Nocedal and Wright, *Numerical Optimization*, 2006, algorithms
    7.4 and 3.1). For one sample weight and bias are redundant: the bias alone spans every correction.

    Args:
        modes: of the head, see `enlarged_head`.
        iterations: at most.
        memory: steps that are remembered.
    """

    patience = 3

    def __init__(self, modes: tuple[int, int, int] | None = None, iterations: int = 40, memory: int = 10) -> None:
        super().__init__(modes, iterations)
        self.memory = positive("memory", memory)

    def begin(self, problem: Problem) -> DescentState:
        """The network's own head, enlarged."""
        head = self._head(problem)
        weights = (head.bias,)
        frames, residual, value, gradients = self._evaluate(problem, head, weights)
        return DescentState(frames, residual, head, weights, value, gradients, ())

    def advance(self, problem: Problem, state: DescentState) -> DescentState:
        """One step with its line search."""
        (bias,), (gradient,) = state.weights, state.gradients
        # Of half the square: the size itself has a kink where it vanishes.
        slope = gradient * _column(state.value, gradient)
        direction = -_two_loops(slope, state.memory, _preconditioner(bias, problem))
        descent = _dot(direction, slope)
        step = torch.ones_like(state.value)
        if not state.memory:
            # The first guess knows no scale: move by what would make a linear residual vanish.
            step = _first_step(self, problem, state, direction, descent)
        for _ in range(_BACKTRACKS):
            trial = bias + _column(step, bias) * direction
            frames, residual, value, gradients = self._evaluate(problem, state.head, (trial,))
            enough = value.square() / 2 <= state.value.square() / 2 + 1e-4 * step * descent
            if bool(enough.all()):
                break
            step = torch.where(enough, step, step / 4)
        # A sample that no step helped stays where it is, and remembers a step of nothing.
        frames, residual, value, trial, found = (
            torch.where(_column(enough, new), new, old)
            for new, old in (
                (frames, state.frames),
                (residual, state.residual),
                (value, state.value),
                (trial, bias),
                (gradients[0], gradient),
            )
        )
        gradients = (found,)
        pair = (trial - bias, found * _column(value, found) - slope)
        memory = (*state.memory, pair)[-self.memory :]
        return DescentState(frames, residual, state.head, (trial,), value, gradients, memory)


_BACKTRACKS = 8


def _first_step(method: LBFGS, problem: Problem, state: DescentState, direction: Tensor, descent: Tensor) -> Tensor:
    """Length along ``direction`` at which half the squared residual, taken for a parabola, is least; ``(batch,)``."""
    (bias,) = state.weights
    # A hundredth of the way along the tangent to where nothing would be left: far above round-off, near enough.
    probe = 1e-2 * state.value.square() / -descent
    _, _, value, gradients = method._evaluate(problem, state.head, (bias + _column(probe, bias) * direction,))
    curvature = (_dot(gradients[0], direction) * value - descent) / probe
    return torch.where(curvature > 0, -descent / curvature.clamp_min(1e-30), torch.ones_like(curvature))


def _two_loops(slope: Tensor, memory: Sequence[tuple[Tensor, Tensor]], scale: Tensor) -> Tensor:
    """The inverse Hessian that the pairs of steps and changes of slope tell, times ``slope``, for each sample."""
    result, shares = slope, []
    length = torch.ones_like(_dot(slope, slope))
    for moved, changed in reversed(memory):
        curvature = _dot(moved, changed)
        inverse = torch.where(curvature > 0, 1 / curvature.clamp_min(1e-300), 0.0)
        share = inverse * _dot(moved, result)
        result = result - _column(share, changed) * changed
        shares.append((share, inverse))
    # The latest pair that bends upwards says how long the first guess is.
    for moved, changed in memory:
        curvature, weight = _dot(moved, changed), _dot(changed, changed * scale)
        length = torch.where(curvature > 0, curvature / weight.clamp_min(1e-300), length)
    result = result * scale * _column(length, result)
    for (moved, changed), (share, inverse) in zip(memory, reversed(shares), strict=True):
        back = inverse * _dot(changed, result)
        result = result + _column(share - back, moved) * moved
    return result


def _preconditioner(bias: Tensor, problem: Problem) -> Tensor:
    """``(alpha + |k|^2)^(-order)`` of each wave of ``bias (batch, modes_t, 2 modes_x, 2 modes_y, 2)``."""
    order = problem.residual.order
    alpha = (2 * math.pi / max(problem.periods)) ** 2
    lines = [
        (torch.arange(-(size // 2), size // 2, dtype=bias.dtype, device=bias.device) * (2 * math.pi / period)).square()
        for size, period in zip(bias.shape[2:4], problem.periods, strict=True)
    ]
    return ((alpha + lines[0][:, None] + lines[1]) ** -order)[..., None]


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).flatten(1).sum(1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (like.ndim - 1))
