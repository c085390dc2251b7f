"""Conservation laws in one dimension whose solution and mass are known in closed form.

The generalized porous medium equation (GPME) ``u_t = (k(u) u_x)_x`` in rising order of difficulty, `Diffusion`,
`PorousMedium` and `Stefan`, and beside it `LinearAdvection` and `Burgers`: the equations of Hansen, Maddix, Alizadeh,
Gupta & Mahoney, *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023, arXiv:2302.11002. All
quantities are dimensionless.

Where the initial state and the fluxes ``F`` through the ends of the box are known, so is the mass at any time,
``b(t) = U(0) + int_0^t F(u(s, x0)) - F(u(s, x1)) ds``: a constraint that is linear in the solution even where the flux
is not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor


class ExactConservationLaw(ABC):
    """A conservation law on a box with one parameter, and its exact solution.

    Times, places and parameters are numbers or tensors that broadcast against each other; results are in the widest
    precision among the tensors, on their device, and in float64 where there are numbers alone.

    Attributes:
        parameter_name: of the one parameter.
        parameter_bounds: between which, both left out, there is a solution.
        parameter_range: of training and validation.
        test_parameters: those that the paper scores.
        time_range: of the data.
        space_range: ends of the box.
        scored_time: at which the paper scores.
    """

    parameter_name: ClassVar[str]
    parameter_bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    parameter_range: ClassVar[tuple[float, float]]
    test_parameters: ClassVar[tuple[float, ...]]
    time_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    space_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    scored_time: ClassVar[float] = 0.5

    def solution(self, t: Tensor | float, x: Tensor | float, parameter: Tensor | float) -> Tensor:
        """``u(t, x)``; at a jump the value on its left. Shapes broadcast.

        Raises:
            ValueError: if a time is negative, or a parameter is out of bounds.
        """
        t, x, parameter = _tensors(t, x, parameter)
        self._require_valid(t, parameter)
        return self._solution(t, x, parameter)

    def mass(self, t: Tensor | float, parameter: Tensor | float) -> Tensor:
        """``b(t)``, the integral of ``u`` over the box, by the budget of initial state and boundary fluxes.

        Raises:
            ValueError: if a time is negative or after `valid_until`, or a parameter is out of bounds.
        """
        t, parameter = _tensors(t, parameter)
        self._require_valid(t, parameter)
        limits = self._valid_until(parameter)
        late = ~(t <= limits)
        if bool(late.any()):
            time, limit, value = (float(each.expand_as(late)[late][0]) for each in (t, limits, parameter))
            raise ValueError(
                f"Expected t <= {limit:.6g}, when the front of {type(self).__name__} with {self.parameter_name} "
                f"{value:.6g} leaves the box {list(self.space_range)} and its mass is no longer the influx alone, but "
                f"got t = {time:.6g}; ask for earlier times, or integrate the solution."
            )
        return self._mass(t, parameter)

    def front(self, t: Tensor | float, parameter: Tensor | float) -> Tensor:
        """Where the solution jumps or its gradient does, past the end of the box too; NaN where there is no front.

        Raises:
            ValueError: if a time is negative, or a parameter is out of bounds.
        """
        t, parameter = _tensors(t, parameter)
        self._require_valid(t, parameter)
        return self._front(t, parameter)

    def valid_until(self, parameter: Tensor | float) -> Tensor:
        """The last time at which `mass` is the integral over the box; infinite where it always is.

        Raises:
            ValueError: if a parameter is out of bounds.
        """
        (parameter,) = _tensors(parameter)
        self._require_valid(torch.zeros_like(parameter), parameter)
        return self._valid_until(parameter)

    def quadrature_bias(self, t: Tensor | float, x: Tensor, weights: Tensor, parameter: Tensor | float) -> Tensor:
        """``G u - b(t)`` of the exact solution: what a quadrature on a grid gets wrong of the mass.

        Its square is an honest variance of the mass as a constraint on grid values; without, an update forces the
        quadrature's error into the field.

        Args:
            t: ``(...)``.
            x: points of the grid ``(n,)``.
            weights: of the quadrature ``(n,)``.
            parameter: ``(...)``, broadcasts against ``t``.

        Raises:
            ValueError: as `mass`.

        Example:
            >>> x = torch.linspace(0, 1, 201, dtype=torch.float64)
            >>> weights = torch.full_like(x, 1 / 200)
            >>> weights[[0, -1]] /= 2
            >>> degrees = torch.tensor([1.0, 3.0, 6.0], dtype=torch.float64)
            >>> [round(bias, 6) + 0.0 for bias in PorousMedium().quadrature_bias(0.5, x, weights, degrees).tolist()]
            [0.0, -0.00034, -0.001032]
        """
        t, x, weights, parameter = _tensors(t, x, weights, parameter)
        return self.solution(t[..., None], x, parameter[..., None]) @ weights - self.mass(t, parameter)

    @abstractmethod
    def _solution(self, t: Tensor, x: Tensor, parameter: Tensor) -> Tensor: ...

    @abstractmethod
    def _mass(self, t: Tensor, parameter: Tensor) -> Tensor: ...

    @abstractmethod
    def _front(self, t: Tensor, parameter: Tensor) -> Tensor: ...

    @abstractmethod
    def _valid_until(self, parameter: Tensor) -> Tensor: ...

    def _require_valid(self, t: Tensor, parameter: Tensor) -> None:
        low, high = self.parameter_bounds
        wrong = ~((parameter > low) & (parameter < high))
        if bool(wrong.any()):
            raise ValueError(
                f"Expected {self.parameter_name} of {type(self).__name__} between {low:g} and {high:g}, both left out, "
                f"but got {float(parameter[wrong][0]):.6g}."
            )
        negative = ~(t >= 0)
        if bool(negative.any()):
            raise ValueError(f"Expected times >= 0, when the initial state is, but got {float(t[negative][0]):.6g}.")


class Diffusion(ExactConservationLaw):
    """Heat equation ``u_t = k u_xx``, periodic on ``[0, 2 pi]``, from ``sin x``; the parameter is ``k``. "Easy" GPME.

    ``u = exp(-k t) sin x``. No net flux: the mass is 0.

    Example:
        >>> Diffusion().solution(torch.tensor(0.5), torch.tensor(torch.pi / 2), parameter=2.0)
        tensor(0.3679)
    """

    parameter_name = "diffusivity"
    parameter_range = (1.0, 5.0)
    test_parameters = (1.0, 5.0)
    space_range = (0.0, 2 * math.pi)

    def _solution(self, t: Tensor, x: Tensor, parameter: Tensor) -> Tensor:
        return torch.exp(-parameter * t) * torch.sin(x)

    def _mass(self, t: Tensor, parameter: Tensor) -> Tensor:
        return torch.zeros_like(t * parameter)

    def _front(self, t: Tensor, parameter: Tensor) -> Tensor:
        return torch.full_like(t * parameter, math.nan)

    def _valid_until(self, parameter: Tensor) -> Tensor:
        return torch.full_like(parameter, math.inf)


class PorousMedium(ExactConservationLaw):
    """Porous medium equation ``u_t = (u^m u_x)_x``, empty at first, ``u(t, 0) = (m t)^(1/m)``; ``m`` is the parameter.

    ``u = (m (t - x))^(1/m)`` up to the front ``x = t`` and 0 beyond, where the gradient is infinite for ``m > 1``. The
    influx makes the mass ``m^(1 + 1/m) / (m + 1) t^(1 + 1/m)``. "Medium" GPME.

    Example:
        >>> PorousMedium().solution(0.5, torch.tensor([0.0, 0.25, 0.5, 1.0]), parameter=1.0)
        tensor([0.5000, 0.2500, 0.0000, 0.0000])
        >>> PorousMedium().mass(0.5, parameter=1.0)
        tensor(0.1250, dtype=torch.float64)
    """

    parameter_name = "degree"
    parameter_range = (1.0, 6.0)
    test_parameters = (1.0, 3.0, 6.0)

    def _solution(self, t: Tensor, x: Tensor, parameter: Tensor) -> Tensor:
        return (parameter * (t - x).clamp_min(0)) ** (1 / parameter)

    def _mass(self, t: Tensor, parameter: Tensor) -> Tensor:
        exponent = 1 + 1 / parameter
        return (parameter * t) ** exponent / (parameter + 1)

    def _front(self, t: Tensor, parameter: Tensor) -> Tensor:
        return t + torch.zeros_like(parameter)

    def _valid_until(self, parameter: Tensor) -> Tensor:
        return torch.full_like(parameter, self.space_range[1])


class Stefan(ExactConservationLaw):
    """Stefan problem ``u_t = (k(u) u_x)_x``, ``k = 1`` where ``u >= u*`` and 0 elsewhere; ``u*`` is the parameter.

    Empty at first, ``u(t, 0) = 1``. With the root ``z`` of ``u* erf(z) z exp(z^2) = (1 - u*) / sqrt(pi)``, which
    `similarity_root` gives, ``u = 1 - c erf(x / (2 sqrt t))``, ``c = (1 - u*) / erf(z)``, up to the front
    ``x = 2 z sqrt t``, where it jumps from ``u*`` to 0. The influx makes the mass ``2 c sqrt(t / pi)``. "Hard" GPME;
    the test at 0.5 is out of the range of training.

    Example:
        >>> Stefan().front(0.05, parameter=torch.tensor([0.5, 0.6]))
        tensor([0.2773, 0.2351])
        >>> Stefan().valid_until(0.5)
        tensor(0.6502, dtype=torch.float64)
    """

    parameter_name = "threshold"
    parameter_bounds = (0.0, 1.0)
    parameter_range = (0.55, 0.7)
    test_parameters = (0.6, 0.5)
    time_range = (0.0, 0.1)
    scored_time = 0.05

    @staticmethod
    def similarity_root(threshold: Tensor) -> Tensor:
        """``z`` of every threshold between 0 and 1, to the round-off of its precision; half the front's speed.

        By Newton's method on the logarithm of the equation, ``log erf(z) + log z + z^2``, which rises everywhere and
        never overflows. Always solved in float64.

        Example:
            >>> Stefan.similarity_root(torch.tensor([0.5, 0.6], dtype=torch.float64))
            tensor([0.6201, 0.5257], dtype=torch.float64)
        """
        u = threshold.to(torch.float64)
        odds = (1 - u) / u
        right = torch.log(odds / math.sqrt(math.pi))
        # Exact where the root is small, and of the right size where it is large.
        z = torch.log1p(odds / 2).sqrt()
        for _ in range(_NEWTON_STEPS):
            erf = torch.erf(z)
            slope = 2 / math.sqrt(math.pi) * torch.exp(-z.square()) / erf + 1 / z + 2 * z
            z = z - (torch.log(erf) + torch.log(z) + z.square() - right) / slope
        return z.to(threshold.dtype)

    def _solution(self, t: Tensor, x: Tensor, parameter: Tensor) -> Tensor:
        z, scale = self._similarity(parameter)
        # At time zero all of the box but its end lies beyond the front.
        root = t.sqrt().clamp_min(torch.finfo(t.dtype).tiny)
        inside = 1 - scale * torch.erf(x / (2 * root))
        return torch.where(x <= 2 * z * t.sqrt(), inside, 0.0)

    def _mass(self, t: Tensor, parameter: Tensor) -> Tensor:
        _, scale = self._similarity(parameter)
        return 2 * scale * (t / math.pi).sqrt()

    def _front(self, t: Tensor, parameter: Tensor) -> Tensor:
        return 2 * self.similarity_root(parameter) * t.sqrt()

    def _valid_until(self, parameter: Tensor) -> Tensor:
        return (self.space_range[1] / (2 * self.similarity_root(parameter))).square()

    def _similarity(self, threshold: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` and ``c``."""
        u = threshold.to(torch.float64)
        z = self.similarity_root(u)
        return z.to(threshold.dtype), ((1 - u) / torch.erf(z)).to(threshold.dtype)


class LinearAdvection(ExactConservationLaw):
    """``u_t + a u_x = 0`` from a jump, 1 up to ``x = 1/2`` and 0 beyond, ``u(t, 0) = 1``; ``a`` is the parameter.

    The jump travels: ``u = 1`` up to ``1/2 + a t``. The mass is ``1/2 + min(a t, 1/2)``: once the jump has left the
    box, so does what flows in.

    Example:
        >>> LinearAdvection().mass(torch.tensor([0.1, 0.5]), parameter=3.0)
        tensor([0.8000, 1.0000])
    """

    parameter_name = "speed"
    parameter_range = (1.0, 5.0)
    test_parameters = (1.0, 3.0)
    scored_time = 0.1

    def _solution(self, t: Tensor, x: Tensor, parameter: Tensor) -> Tensor:
        return (x <= self._front(t, parameter)).to(t.dtype)

    def _mass(self, t: Tensor, parameter: Tensor) -> Tensor:
        return 0.5 + (parameter * t).clamp_max(0.5)

    def _front(self, t: Tensor, parameter: Tensor) -> Tensor:
        return 0.5 + parameter * t

    def _valid_until(self, parameter: Tensor) -> Tensor:
        return torch.full_like(parameter, math.inf)


class Burgers(ExactConservationLaw):
    """``u_t + (u^2 / 2)_x = 0`` on ``[-1, 1]`` from a ramp that breaks; its height ``a`` is the parameter.

    ``u = a`` up to ``x = -1``, falling to 0 at ``x = 0``. Until the time ``1/a`` the foot of the ramp stays where it is
    and its top comes nearer, ``u = a x / (a t - 1)`` between ``a t - 1`` and 0; then there is a shock at
    ``(a t - 1) / 2``. The influx ``a^2 / 2`` makes the mass ``a / 2 (1 + a t)``, until the shock leaves at ``a t = 3``;
    from then on it is ``2 a``, and as much flows out as in. (The authors' code goes on counting the influx alone.)

    Example:
        >>> Burgers().solution(0.5, torch.tensor([-1.0, -0.25, 0.5]), parameter=1.0)
        tensor([1.0000, 0.5000, 0.0000])
        >>> Burgers().mass(1.0, parameter=torch.tensor([1.0, 4.0]))
        tensor([1., 8.])
        >>> Burgers().front(torch.tensor([0.5, 2.0]), parameter=1.0)
        tensor([   nan, 0.5000])
    """

    parameter_name = "height"
    parameter_range = (1.0, 4.0)
    test_parameters = (1.0, 3.0)
    space_range = (-1.0, 1.0)

    def _solution(self, t: Tensor, x: Tensor, parameter: Tensor) -> Tensor:
        top = parameter * t - 1
        broken = top >= 0
        slope = parameter / torch.where(broken, -1.0, top)
        ramp = torch.minimum((slope * x).clamp_min(0), parameter)
        return torch.where(broken, torch.where(x <= top / 2, parameter, 0.0), ramp)

    def _mass(self, t: Tensor, parameter: Tensor) -> Tensor:
        return torch.minimum(parameter / 2 * (1 + parameter * t), 2 * parameter)

    def _front(self, t: Tensor, parameter: Tensor) -> Tensor:
        top = parameter * t - 1
        return torch.where(top >= 0, top / 2, math.nan)

    def _valid_until(self, parameter: Tensor) -> Tensor:
        return torch.full_like(parameter, math.inf)


def lattice(times: Tensor, positions: Tensor) -> Tensor:
    """Points ``(..., times * positions, 2)``, columns t and x, of every place at every time; times outermost.

    Args:
        times: ``(..., times)``.
        positions: ``(..., positions)``, the same at all times.

    Example:
        >>> lattice(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.25, 0.75])).tolist()[2:4]
        [[0.5, 0.75], [1.0, 0.0]]
    """
    t, x = torch.broadcast_tensors(times.unsqueeze(-1), positions.unsqueeze(-2))
    return torch.stack([t, x], -1).flatten(-3, -2)


# Thresholds from 1e-14 to 1 - 1e-14 are at round-off after four.
_NEWTON_STEPS = 6


def _tensors(*values: Tensor | float) -> tuple[Tensor, ...]:
    """All in the widest precision among the tensors, on their device."""
    given = [value for value in values if isinstance(value, Tensor)]
    dtype = reduce(torch.promote_types, [value.dtype for value in given]) if given else torch.float64
    if not dtype.is_floating_point:
        dtype = torch.float64
    device = given[0].device if given else None
    return tuple(torch.as_tensor(value, dtype=dtype, device=device) for value in values)
