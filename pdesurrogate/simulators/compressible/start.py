"""Where compressible flows start."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.simulators.compressible.flow import Compressible2d
from pdesurrogate.simulators.generation.protocols import Simulator


class RandomWaves:
    """A few waves of random phases in velocity, density and pressure: the start ``2D_rand`` of PDEBench.

    Each field is a sum of waves ``|k|^(-1/2) sin(2 pi (i x + j y) / L + phase)`` with ``i`` and ``j`` from ``-n`` to
    ``n``, neither of them 0. The velocity, of which about half is compression, has no mean and is scaled to the Mach
    number; the relative deviations of density and pressure are drawn evenly from a range for each trajectory.

    The means are fixed: density 1 and sound speed 1, so that time is counted in box lengths at the speed of sound.

    PDEBench's generator (M. Takamoto et al., arXiv:2210.07182; ``init_multi_HD_2DRand``) differs: it draws mean density
    and temperature between 0.1 and 10, takes density and pressure as the mean times one plus the waves, which may leave
    a negative one, where here they are the exponential of them; scales by means of absolute values, not of squares;
    and cuts half of the states off outside a random rectangle.

    The fields are those of the centers of cells, averages over them to second order. A seed means the same fields on
    any number of cells.

    Args:
        mach_number: root of the mean square of the velocity over the mean sound speed.
        largest_wavenumber: ``n``, waves per box.
        density_deviation: smallest and largest relative deviation.
        pressure_deviation: likewise.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> solver = Compressible2d(32, frame_interval=0.1, steps_per_frame=20)
        >>> state = RandomWaves(0.3).start(solver, 1, torch.Generator().manual_seed(0))
        >>> velocity = solver.to_primitive(state)[0, 1:3]
        >>> round(float(velocity.square().sum(0).mean().sqrt()), 6)
        0.3
    """

    def __init__(
        self,
        mach_number: float,
        largest_wavenumber: int = 4,
        density_deviation: tuple[float, float] = (0.01, 0.2),
        pressure_deviation: tuple[float, float] = (0.01, 0.2),
    ) -> None:
        if not mach_number > 0:
            raise ValueError(f"Expected a positive mach_number but got {mach_number}.")
        if largest_wavenumber < 1:
            raise ValueError(f"Expected largest_wavenumber, waves per box, of at least 1 but got {largest_wavenumber}.")
        for name, pair in (("density_deviation", density_deviation), ("pressure_deviation", pressure_deviation)):
            if len(pair) != 2 or not 0 <= pair[0] <= pair[1]:
                raise ValueError(f"Expected {name} as two numbers 0 <= low <= high but got {tuple(pair)}.")
        self.mach_number = mach_number
        self.largest_wavenumber = largest_wavenumber
        self.density_deviation = density_deviation
        self.pressure_deviation = pressure_deviation

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """``(count, 4, x, y)``: density, momentum and energy per volume.

        Raises:
            ValueError: if the simulator is another one, or has fewer than four cells for a wave.
        """
        if not isinstance(simulator, Compressible2d):
            raise ValueError(f"Expected Compressible2d but got {type(simulator).__name__}, which has other fields.")
        if simulator.resolution < 4 * self.largest_wavenumber:
            raise ValueError(
                f"Expected at least four cells for a wave, {4 * self.largest_wavenumber} in all, but the solver has "
                f"{simulator.resolution}; use more, or a smaller largest_wavenumber."
            )
        waves = self._waves(simulator, count, generator)
        speeds = waves[:, :2].square().sum(1, keepdim=True).mean((-2, -1), keepdim=True).sqrt()
        velocity = waves[:, :2] * (self.mach_number / speeds)
        shapes = waves[:, 2:] / waves[:, 2:].square().mean((-2, -1), keepdim=True).sqrt()
        low, high = waves.new_tensor([self.density_deviation, self.pressure_deviation]).unbind(1)
        parts = torch.rand(count, 2, dtype=torch.float64, device=generator.device, generator=generator)
        deviations = torch.lerp(low, high, parts)
        factors = torch.exp(deviations[..., None, None] * shapes)
        factors = factors / factors.mean((-2, -1), keepdim=True)
        density, pressure = factors[:, :1], factors[:, 1:] / simulator.gamma
        return simulator.to_conserved(torch.cat([density, velocity, pressure], 1))

    def _waves(self, simulator: Compressible2d, count: int, generator: torch.Generator) -> Tensor:
        """``(count, 4, x, y)`` of two velocities, density and pressure, not scaled."""
        size, device = self.largest_wavenumber, generator.device
        numbers = torch.cat([torch.arange(-size, 0), torch.arange(1, size + 1)]).to(device, torch.float64)
        phases = torch.rand(count, 4, 2 * size, 2 * size, dtype=torch.float64, device=device, generator=generator)
        amplitudes = (numbers[:, None].square() + numbers.square()).pow(-0.25)
        # sin(a + b + phase) = Im(exp(ia) exp(ib) exp(i phase)): a matrix product for each axis.
        spectrum = torch.polar(amplitudes.expand_as(phases), 2 * torch.pi * phases)
        parts = ((torch.arange(cells, dtype=torch.float64, device=device) + 0.5) / cells for cells in simulator.shape)
        along_x, along_y = (torch.exp(2j * torch.pi * numbers[:, None] * part) for part in parts)
        return (along_x.mT @ spectrum @ along_y).imag
