"""Time schemes for ``dw/dt = L w + N(w)`` with a diagonal real symbol ``L``: stiff part implicit or exact.

A scheme is stateless. `tables` computes its factors once in float64, stacked along a first axis; `advance` takes one
step with them. States and tendencies are spectra seen as real tensors ``(..., 2)``, because a real factor times a
complex tensor would first be copied to complex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Tendency = Callable[[Tensor], Tensor]


class TimeScheme(Protocol):
    """One step of a semi-linear equation."""

    def tables(self, symbol: Tensor, time_step: float) -> Tensor:
        """Factors ``(factors, *symbol.shape)`` in float64 for the linear ``symbol`` and ``time_step``."""
        ...

    def advance(self, state: Tensor, tendency: Tendency, tables: Tensor) -> Tensor:
        """The state one step later; `tendency` evaluates ``N``."""
        ...


class RK4CrankNicolson:
    """Five-stage, fourth-order low-storage Runge–Kutta with Crank–Nicolson for the linear part.

    Explicit coefficients: Carpenter & Kennedy, NASA TM 109112 (1994); combination as in jax-cfd (Dresdner et al.,
    arXiv:2207.00556, appendix). Second order where the linear part matters, fourth where it does not. Two registers.
    """

    _times = (0.0, 0.1496590219993, 0.3704009573644, 0.6222557631345, 0.9582821306748, 1.0)
    _carry = (0.0, -0.4178904745, -1.192151694643, -1.697784692471, -1.514183444257)
    _weight = (0.1496590219993, 0.3792103129999, 0.8229550293869, 0.6994504559488, 0.1530572479681)

    def tables(self, symbol: Tensor, time_step: float) -> Tensor:
        """Per stage: the factor of the state, then the factor of the accumulated tendency."""
        symbol = symbol.to(torch.float64)
        rows = []
        for stage, weight in enumerate(self._weight):
            half = 0.5 * time_step * (self._times[stage + 1] - self._times[stage]) * symbol
            rows += [(1 + half) / (1 - half), weight * time_step / (1 - half)]
        return torch.stack(rows)

    def advance(self, state: Tensor, tendency: Tendency, tables: Tensor) -> Tensor:
        """One step, five tendencies."""
        accumulated = tendency(state)
        state = torch.addcmul(state * tables[0], accumulated, tables[1])
        for stage in range(1, 5):
            accumulated = torch.add(tendency(state), accumulated, alpha=self._carry[stage])
            state = torch.addcmul(state * tables[2 * stage], accumulated, tables[2 * stage + 1])
        return state


class RK2CrankNicolson:
    """Heun's method with Crank–Nicolson for the linear part; second order, two tendencies.

    The scheme of the FNO-type turbulence data in torch-cfd (Cao et al., arXiv:2405.17211).
    """

    def tables(self, symbol: Tensor, time_step: float) -> Tensor:
        """Factor of the state, of a tendency, and of the sum of two."""
        half = 0.5 * time_step * symbol.to(torch.float64)
        return torch.stack([(1 + half) / (1 - half), time_step / (1 - half), 0.5 * time_step / (1 - half)])

    def advance(self, state: Tensor, tendency: Tendency, tables: Tensor) -> Tensor:
        """One step, two tendencies."""
        decayed = state * tables[0]
        first = tendency(state)
        predicted = torch.addcmul(decayed, first, tables[1])
        return torch.addcmul(decayed, first + tendency(predicted), tables[2])


class ETDRK4:
    """Exponential time differencing, fourth order, four tendencies; the linear part is integrated exactly.

    Cox & Matthews, J. Comput. Phys. 176 (2002) 430, eqs. 26–29, with the coefficients as contour means of Kassam &
    Trefethen, SIAM J. Sci. Comput. 26 (2005) 1214, which avoids the cancellation near ``L = 0``.
    """

    contour_points = 32

    def tables(self, symbol: Tensor, time_step: float) -> Tensor:
        """``exp(hL/2), exp(hL)``, then the factors of the internal stages and of the three final sums."""
        scaled = (time_step * symbol.to(torch.float64)).unsqueeze(-1)
        angles = torch.pi * (torch.arange(self.contour_points, dtype=torch.float64, device=symbol.device) + 0.5)
        z = scaled + torch.polar(torch.ones_like(angles), angles / self.contour_points)
        exp = torch.exp(z)
        cubed = z**3

        def mean(values: Tensor) -> Tensor:
            return time_step * values.real.mean(-1)

        half, whole = torch.exp(scaled[..., 0] / 2), torch.exp(scaled[..., 0])
        inner = mean((torch.exp(z / 2) - 1) / z)
        first = mean((-4 - z + exp * (4 - 3 * z + z**2)) / cubed)
        middle = mean(2 * (2 + z + exp * (z - 2)) / cubed)
        last = mean((-4 - 3 * z - z**2 + exp * (4 - z)) / cubed)
        return torch.stack([half, whole, inner, first, middle, last])

    def advance(self, state: Tensor, tendency: Tendency, tables: Tensor) -> Tensor:
        """One step, four tendencies."""
        half, whole, inner, first, middle, last = tables.unbind(0)
        decayed = state * half
        n0 = tendency(state)
        a = torch.addcmul(decayed, n0, inner)
        na = tendency(a)
        nb = tendency(torch.addcmul(decayed, na, inner))
        nc = tendency(torch.addcmul(a * half, torch.sub(2 * nb, n0), inner))
        end = torch.addcmul(state * whole, n0, first)
        end = torch.addcmul(end, na + nb, middle)
        return torch.addcmul(end, nc, last)
