"""Heights of the planes of a channel: the usual ways to space them, and which of these a velocity was stored at.

Heights run from 0 at one wall to 2 at the other, in half heights; both walls are among the planes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

# Where the best spacing leaves more than this share unexplained, the field does not tell.
LARGEST_UNEXPLAINED = 0.5
# Spacings whose unexplained shares are closer than this factor are told apart by chance.
SMALLEST_CONTRAST = 1.05
# Two spacings are one where no plane is further off than this, in units of the gap that follows it.
SAME_SPACING = 0.15


def uniform_heights(planes: int) -> Tensor:
    """Equal gaps; ``(planes,)`` in float64, as all of these.

    Raises:
        ValueError: if there are fewer than three planes.

    Example:
        >>> uniform_heights(5).tolist()
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    return 2 * _even_places(planes)


def cosine_heights(planes: int) -> Tensor:
    """``1 - cos(pi j / n)``, the points of Chebyshev methods.

    Raises:
        ValueError: if there are fewer than three planes.

    Example:
        >>> [round(height, 3) for height in cosine_heights(5).tolist()]
        [0.0, 0.293, 1.0, 1.707, 2.0]
    """
    return _symmetric(-torch.cos(math.pi * _even_places(planes)))


def tanh_heights(planes: int, stretching: float) -> Tensor:
    """``1 + tanh(a (2 j / n - 1)) / tanh(a)`` with ``stretching`` for ``a``, common with finite volumes.

    Raises:
        ValueError: if the stretching is not positive or there are fewer than three planes.

    Example:
        >>> [round(height, 3) for height in tanh_heights(5, stretching=1.75).tolist()]
        [0.0, 0.252, 1.0, 1.748, 2.0]
    """
    if not stretching > 0:
        raise ValueError(f"Expected a positive stretching but got {stretching}; without any use uniform_heights.")
    return _symmetric(torch.tanh(stretching * (2 * _even_places(planes) - 1)) / math.tanh(stretching))


def arctan_heights(planes: int, beta: float) -> Tensor:
    """Fine at both walls in the way of Incompact3d, whose ``beta`` this is: the smaller, the finer at the walls.

    The metric has two Fourier modes (Laizet & Lamballais, J. Comput. Phys. 228 (2009) 5989). Its integral is
    ``1 + 2 / pi arctan(sqrt(1 + 1 / c) tan(pi (j / n - 1 / 2)))`` with ``c = (sqrt(1 + (pi beta)^2) - 1) / 2``.

    Raises:
        ValueError: if ``beta`` is not positive or there are fewer than three planes.

    Example:
        >>> [round(height, 3) for height in arctan_heights(5, beta=0.259).tolist()]
        [0.0, 0.217, 1.0, 1.783, 2.0]
    """
    if not beta > 0:
        raise ValueError(f"Expected a positive beta but got {beta}.")
    slope = math.sqrt(1 + 2 / (math.sqrt(1 + (math.pi * beta) ** 2) - 1))
    angles = torch.arctan(slope * torch.tan(math.pi * (_even_places(planes) - 0.5)))
    return _symmetric(angles * (2 / math.pi))


def _even_places(planes: int) -> Tensor:
    if planes < 3:
        raise ValueError(f"Expected at least three planes, both walls among them, but got {planes}.")
    return torch.arange(planes, dtype=torch.float64) / (planes - 1)


def _symmetric(places: Tensor) -> Tensor:
    """Heights of places from -1 to 1, exactly symmetric and exactly on the walls."""
    places = (places - places.flip(0)) / 2
    places[0], places[-1] = -1, 1
    return 1 + places


class Spacing(NamedTuple):
    """Planes that a field was told to be stored at.

    Attributes:
        name: kind of the spacing, and its parameter.
        heights: ``(planes,)`` in float64.
        factor: see `Continuity.fit`.
        unexplained: see there too.
    """

    name: str
    heights: Tensor
    factor: float
    unexplained: float


@dataclass(frozen=True, eq=False)
class Continuity:
    """Between two planes the wall-normal velocity changes by the gap times the convergence of flow along the planes.

    So an incompressible flow tells how far its planes are apart. Derivatives along the planes are spectral, and their
    mean over a gap is that of its two planes. Filters and coarse grids damp one side of the equation against the other,
    so a factor common to all gaps is left open: distances from wall to wall are known.

    Attributes:
        change: ``(planes - 1,)`` sum of squares of the change of ``v`` over each gap.
        product: sum of its products with the mean convergence ``-(du/dx + dw/dz)`` in the gap.
        convergence: sum of squares of that.
    """

    change: Tensor
    product: Tensor
    convergence: Tensor

    @classmethod
    def of(cls, velocity: Tensor, lengths: tuple[float, float]) -> Continuity:
        """Sums over a ``velocity (frame, 3, x, y, z)`` with periods ``lengths`` along x and z."""
        change, convergence = changes_over_gaps(velocity, lengths)
        pairs = (change, change), (change, convergence), (convergence, convergence)
        return cls(*((one * other).sum((0, 1, 3)) for one, other in pairs))

    def fit(self, heights: Tensor) -> tuple[float, float]:
        """How gaps between these heights explain the change of ``v``.

        Returns:
            The common factor between the change and what the gaps predict, near one if lengths along and across the
            channel are in the same units; and the share of the squared change that is left unexplained, mean over gaps.
        """
        # A gap without any flow tells nothing.
        told = self.change > 0
        gaps, change = heights.diff()[told], self.change[told]
        along = (gaps * self.product[told] / change).sum()
        square = (gaps.square() * self.convergence[told] / change).sum()
        if not float(along) > 0:
            return 0.0, 1.0
        return float(along / square), float(1 - along.square() / square / len(gaps))

    def spacing(self) -> Spacing | None:
        """The spacing among the usual ones that explains most; ``None`` where none does, or different ones do."""
        found = self.best_of_each()
        best = min(found, key=lambda spacing: spacing.unexplained)
        close = [spacing for spacing in found if spacing.unexplained <= SMALLEST_CONTRAST * best.unexplained]
        gaps = best.heights.diff()
        same = all(bool(((spacing.heights - best.heights)[1:].abs() <= SAME_SPACING * gaps).all()) for spacing in close)
        # Of those that are one and the same, the first has the fewest parameters.
        return close[0] if same and best.unexplained <= LARGEST_UNEXPLAINED else None

    def best_of_each(self) -> list[Spacing]:
        """Of each kind the one that explains most; kinds without parameters first."""
        planes = len(self.change) + 1
        kinds: dict[str, list[tuple[str, Callable[[int], Tensor]]]] = {
            "uniform": [("uniform", uniform_heights)],
            "cosine": [("cosine", cosine_heights)],
            "tanh": [
                (f"tanh, stretching {step / 20:g}", partial(tanh_heights, stretching=step / 20))
                for step in range(4, 81)
            ],
            "arctan": [
                (f"arctan, beta {beta:.3g}", partial(arctan_heights, beta=beta))
                for beta in (10 ** (step / 30) for step in range(-45, 31))
            ],
        }
        found = []
        for kind in kinds.values():
            spacings = ((name, heights(planes)) for name, heights in kind)
            judged = (Spacing(name, heights, *self.fit(heights)) for name, heights in spacings)
            found.append(min(judged, key=lambda spacing: spacing.unexplained))
        return found


def changes_over_gaps(velocity: Tensor, lengths: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Change of ``v`` and mean of ``-(du/dx + dw/dz)`` over each gap between planes.

    Args:
        velocity: ``(frame, 3, x, y, z)``, all components at the same points.
        lengths: periods along x and z.

    Returns:
        Two tensors ``(frame, x, planes - 1, z)``; the first is the gap times the second in an incompressible flow.

    Example:
        >>> change, convergence = changes_over_gaps(torch.ones(1, 3, 4, 5, 4), lengths=(2.0, 1.0))
        >>> change.shape, float(convergence.abs().max())
        (torch.Size([1, 4, 4, 4]), 0.0)
    """
    u, v, w = velocity.unbind(1)
    convergence = -(_derivative(u, 1, lengths[0]) + _derivative(w, 3, lengths[1]))
    return v.diff(dim=2), (convergence[:, :, 1:] + convergence[:, :, :-1]) / 2


def _derivative(values: Tensor, axis: int, period: float) -> Tensor:
    """Along a periodic axis of even points, spectral; the Nyquist wave has none."""
    size = values.shape[axis]
    waves = torch.fft.rfftfreq(size, period / (2 * math.pi * size), dtype=values.dtype, device=values.device)
    waves = torch.where(2 * torch.arange(len(waves), device=values.device) == size, 0.0, waves)
    spectrum = torch.fft.rfft(values, dim=axis) * (1j * waves).reshape(-1, *(1,) * (values.ndim - 1 - axis))
    derivative: Tensor = torch.fft.irfft(spectrum, n=size, dim=axis)
    return derivative
