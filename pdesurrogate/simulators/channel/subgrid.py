"""Eddy viscosities of large-eddy simulation, from the resolved velocity of a staggered channel.

The filtered equations have the stress ``2 (nu + nu_t) S_ij``, with ``S_ij`` the resolved rate of strain and
``|S| = sqrt(2 S_ij S_ij)``. The width of the grid's filter is that of a cube of the cell's volume,
``(dx dy dz)^(1/3)``, so it varies with the height. A model gives ``nu_t`` at the centers of cells; walls have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pdesurrogate.physics.staggered_channel import ChannelGrid, center_distances, kept_by_device
from pdesurrogate.physics.velocity_gradient import velocity_at_centers, velocity_gradient
from pdesurrogate.simulators.channel.plane_filters import PlaneFilter, ThreePointFilter, filtered

# A symmetric tensor is kept as its six different components, first the diagonal.
_PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
# Viscosities that agree this well are one, written with six digits.
_SAME_VISCOSITY = 1e-5


@kept_by_device
def filter_width(grid: ChannelGrid) -> Tensor:
    """Side of a cube with the volume of a cell, ``(ny,)``."""
    return (grid.spacing_x * grid.spacing_z * grid.heights) ** (1 / 3)


def strain_components(gradient: Tensor) -> Tensor:
    """The components xx, yy, zz, xy, xz, yz of the rate of strain; ``(..., 3, 3, *space)`` -> ``(..., 6, *space)``.

    Space has three axes, here as in all of this module.
    """
    return torch.stack([(_entry(gradient, i, j) + _entry(gradient, j, i)) / 2 for i, j in _PAIRS], dim=-4)


def contraction(first: Tensor, second: Tensor) -> Tensor:
    """``A_ij B_ij`` of symmetric tensors in six components; ``(..., 6, *space)`` -> ``(..., *space)``."""
    product = first * second
    diagonal, others = product.narrow(-4, 0, 3), product.narrow(-4, 3, 3)
    return diagonal.sum(-4) + 2 * others.sum(-4)


def strain_magnitude(strain: Tensor) -> Tensor:
    """``sqrt(2 S_ij S_ij)``; ``(..., 6, *space)`` -> ``(..., *space)``."""
    return _root(2 * contraction(strain, strain))


def wale_rate(gradient: Tensor) -> Tensor:
    """Rate ``(Sd:Sd)^(3/2) / ((S:S)^(5/2) + (Sd:Sd)^(5/4))`` that WALE multiplies with a squared length.

    ``Sd`` is the traceless symmetric part of the squared gradient (Nicoud and Ducros). The rate is
    zero where there is no gradient.

    Args:
        gradient: ``(..., 3, 3, *space)``, entry ``i, j`` the derivative of component i along axis j.

    Returns:
        ``(..., *space)``, units of the gradient.

    Example:
        >>> rotation = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> shear = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> wale_rate(torch.stack([rotation, shear])[..., None, None, None]).flatten()
        tensor([0.9036, 0.0000])
    """
    # A rate of one is divided out: fifth powers would leave the range of single precision.
    tiny = torch.finfo(gradient.dtype).tiny
    size = gradient.square().sum((-5, -4)).clamp_min(tiny).sqrt()
    unit = gradient / size[..., None, None, :, :, :]
    strain = strain_components(unit)
    squared = torch.stack(
        [
            sum(
                (_entry(unit, i, k) * _entry(unit, k, j) + _entry(unit, j, k) * _entry(unit, k, i) for k in range(3)),
                start=torch.zeros_like(size),
            )
            / 2
            for i, j in _PAIRS
        ],
        dim=-4,
    )
    squared = _without_trace(squared)
    of_strain, of_square = contraction(strain, strain), contraction(squared, squared)
    root = of_square.clamp_min(tiny).sqrt()
    below = of_strain.square() * _root(of_strain) + of_square * root.sqrt()
    # Never small for a gradient of unit size, so the bound acts on no gradient at all only.
    return size * of_square * root / below.clamp_min(tiny)


def dynamic_coefficient(stress: Tensor, model: Tensor) -> Tensor:
    """The ``C`` that fits ``L_ij = C M_ij`` best in each plane along the walls: ``<L_ij M_ij> / <M_ij M_ij>``.

    Least squares over components and plane (Lilly); zero where the model vanishes all over a plane, and not clipped.

    Args:
        stress: ``L``, symmetric ``(..., 6, nx, ny, nz)``.
        model: ``M``, likewise.

    Returns:
        ``(..., ny)``, units of ``L / M``.
    """
    numerator = contraction(stress, model).mean((-3, -1))
    denominator = contraction(model, model).mean((-3, -1))
    quotient = numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny)
    return torch.where(denominator > 0, quotient, 0.0)


class DynamicSmagorinsky:
    """``nu_t = C Delta^2 |S|`` with ``C`` from the resolved flow itself, one value for each plane and batch member.

    Germano's identity (Germano, Piomelli, Moin and Cabot, Phys. Fluids A 3 (1991) 1760) between the grid's filter and
    a wider one along x and z, solved by least squares (Lilly, Phys. Fluids A 4 (1992) 633). Along y nothing is
    filtered, so the squared ratio of widths is that of the filter to the power 4/3. A plane without strain, and a flow
    that does not vary along the walls, gets none.

    Args:
        test_filter: the wider one; by default the trapezoid rule over two cells.
        least_viscosity: that ``nu_t`` is clipped to from below. At zero, the default, ``C`` is clipped where the
            planes' mean is negative; minus the molecular viscosity lets energy back up to where the total vanishes.

    Raises:
        ValueError: if the least viscosity is positive.

    Example:
        >>> DynamicSmagorinsky(ThreePointFilter(side_weight=1 / 6)).test_filter.width_ratio
        2.0
    """

    def __init__(self, test_filter: PlaneFilter | None = None, least_viscosity: float = 0.0) -> None:
        if not least_viscosity <= 0:
            raise ValueError(
                f"Expected a least viscosity of zero, or below to let energy back, but got {least_viscosity}."
            )
        self.test_filter = ThreePointFilter() if test_filter is None else test_filter
        self.least_viscosity = least_viscosity

    def viscosity(self, velocity: Tensor, grid: ChannelGrid) -> Tensor:
        """Eddy viscosity at cell centers ``(batch, nx, ny, nz)`` of staggered ``velocity (batch, 3, nx, ny, nz)``."""
        strain = strain_components(velocity_gradient(velocity, grid))
        magnitude = strain_magnitude(strain)
        coefficient = dynamic_coefficient(*self.identity(velocity_at_centers(velocity, grid), strain, grid))
        squared_width = filter_width(grid, velocity).square()
        scale = (coefficient * squared_width)[..., None, :, None]
        return (scale * magnitude).clamp_min(self.least_viscosity)

    def require_viscosity(self, molecular: float) -> None:
        """Refuse a fluid whose total viscosity could become negative.

        Raises:
            ValueError: naming both viscosities.
        """
        if self.least_viscosity < -molecular * (1 + _SAME_VISCOSITY):
            raise ValueError(
                f"Expected a least_viscosity of at least {-molecular:g}, minus the solver's viscosity, but got "
                f"{self.least_viscosity:g}; below the flow would gain energy without bound."
            )

    def identity(self, velocity: Tensor, strain: Tensor, grid: ChannelGrid) -> tuple[Tensor, Tensor]:
        """Both sides of Germano's identity, ``L`` and ``M`` of ``L = C M``, six components each.

        Args:
            velocity: at cell centers ``(..., 3, nx, ny, nz)``.
            strain: there, six components.
            grid: of the channel.
        """
        # The same for an observer who moves with the plane's mean flow, who loses fewer digits.
        velocity = velocity - velocity.mean((-3, -1), keepdim=True)
        magnitude = strain_magnitude(strain).unsqueeze(-4)
        fields = torch.cat([velocity, _products(velocity), strain, magnitude * strain], dim=-4)
        mean, products, mean_strain, fluxes = filtered(fields, self.test_filter).split([3, 6, 6, 6], dim=-4)
        stress = _without_trace(products - _products(mean))
        ratio = self.test_filter.width_ratio ** (4 / 3)
        squared_width = filter_width(grid, velocity).square()[:, None]
        model = 2 * squared_width * (fluxes - ratio * strain_magnitude(mean_strain).unsqueeze(-4) * mean_strain)
        return stress, model


@dataclass(frozen=True)
class Wale:
    """``nu_t = (C_w Delta)^2`` times `wale_rate`, which falls with the third power of the distance to a wall.

    Wall-adapting local eddy viscosity (Nicoud and Ducros, Flow Turbul. Combust. 62 (1999) 183): nothing in pure shear,
    so nothing in a laminar channel. In solid-body rotation it is not zero.

    Args:
        constant: ``C_w``. The default 0.325 is that of the channel example of the solver Xcompact3d (`walecst`); its
            authors give ``C_w^2 = 10.6 C_s^2``, 0.5 to 0.6, from decaying turbulence.

    Raises:
        ValueError: if the constant is negative.
    """

    constant: float = 0.325

    def __post_init__(self) -> None:
        _require_constant(self.constant)

    def viscosity(self, velocity: Tensor, grid: ChannelGrid) -> Tensor:
        """Eddy viscosity at cell centers ``(batch, nx, ny, nz)`` of staggered ``velocity (batch, 3, nx, ny, nz)``."""
        length = self.constant * filter_width(grid, velocity)[:, None]
        return length.square() * wale_rate(velocity_gradient(velocity, grid))


@dataclass(frozen=True)
class Smagorinsky:
    """``nu_t = (C_s Delta D)^2 |S|`` (Smagorinsky, 1963), damped by ``D = 1 - exp(-y+ / A)`` (van Driest, 1956).

    The wall shear in ``y+`` is that of the present moment, of each wall and batch member by itself: molecular
    viscosity times the plane's mean velocity at the centers next to the wall over their distance from it, which is the
    stress that the solver itself has there. Between the walls the smaller of both ``y+`` counts. A flow that leaves
    one wall without shear has no eddy viscosity.

    Args:
        molecular_viscosity: of the fluid, length^2 per time.
        constant: ``C_s``.
        damping: ``A``, in wall units.

    Raises:
        ValueError: if the viscosity or the damping is not positive, or the constant is negative.
    """

    molecular_viscosity: float
    constant: float = 0.1
    damping: float = 26.0

    def __post_init__(self) -> None:
        _require_constant(self.constant)
        if not (self.molecular_viscosity > 0 and self.damping > 0):
            raise ValueError(
                f"Expected a positive molecular viscosity and damping but got {self.molecular_viscosity} and "
                f"{self.damping}."
            )

    def viscosity(self, velocity: Tensor, grid: ChannelGrid) -> Tensor:
        """Eddy viscosity at cell centers ``(batch, nx, ny, nz)`` of staggered ``velocity (batch, 3, nx, ny, nz)``."""
        magnitude = strain_magnitude(strain_components(velocity_gradient(velocity, grid)))
        damped = -torch.expm1(-self.wall_distance(velocity, grid) / self.damping)
        length = self.constant * filter_width(grid, velocity) * damped
        return length.square()[..., None, :, None] * magnitude

    def wall_distance(self, velocity: Tensor, grid: ChannelGrid) -> Tensor:
        """``y+`` of the cell centers ``(batch, ny)`` in each batch member of staggered ``velocity``."""
        along_walls = velocity[..., [0, 2], :, :, :].mean((-3, -1)).norm(dim=-2)
        gaps, (from_low, from_high) = center_distances(grid, velocity), _wall_distances(grid, velocity)
        lower, upper = along_walls[..., :1] / gaps[0], along_walls[..., -1:] / gaps[-1]
        return torch.minimum(
            from_low * _root(lower / self.molecular_viscosity), from_high * _root(upper / self.molecular_viscosity)
        )

    def require_viscosity(self, molecular: float) -> None:
        """Refuse another fluid.

        Raises:
            ValueError: naming both viscosities.
        """
        if not math.isclose(self.molecular_viscosity, molecular, rel_tol=_SAME_VISCOSITY):
            raise ValueError(
                f"Expected Smagorinsky's molecular_viscosity to be the solver's viscosity {molecular:g} but got "
                f"{self.molecular_viscosity:g}; give both the same."
            )


@kept_by_device
def _wall_distances(grid: ChannelGrid) -> Tensor:
    """``(2, ny)`` of the centers from the low and from the high wall."""
    return torch.stack([grid.centers - grid.faces[0], grid.faces[-1] - grid.centers])


def _root(values: Tensor) -> Tensor:
    """Square root with a finite derivative at zero, so that what multiplies it by zero is not NaN."""
    return values * values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt()


def _entry(tensor: Tensor, i: int, j: int) -> Tensor:
    return tensor[..., i, j, :, :, :]


def _products(velocity: Tensor) -> Tensor:
    """``u_i u_j``, six components."""
    parts: Sequence[Tensor] = velocity.unbind(-4)
    return torch.stack([parts[i] * parts[j] for i, j in _PAIRS], dim=-4)


def _without_trace(tensor: Tensor) -> Tensor:
    """A symmetric tensor in six components, a third of its trace taken off the diagonal."""
    diagonal, others = tensor.narrow(-4, 0, 3), tensor.narrow(-4, 3, 3)
    return torch.cat([diagonal - diagonal.mean(-4, keepdim=True), others], dim=-4)


def _require_constant(constant: float) -> None:
    if not constant >= 0:
        raise ValueError(f"Expected a model constant from zero up but got {constant}.")
