"""Spectra over shells of wavenumbers, in one to three dimensions, and how two of them differ.

A spectrum here is a *full-shell sum*: entry ``j`` is the sum over all waves of the grid, corners included, whose
wavenumber rounds to ``j`` times ``2 pi / longest period``. So the entries of an energy spectrum add up to the box mean
of ``|u|^2 / 2``, those of an enstrophy spectrum to the box mean of ``|w|^2 / 2``, those of a scalar's to its mean
square (Parseval), at any resolution. They are energies, not densities; divide by the spacing of the shells to compare
with a density.

Axes that are not periodic are never put through a Fourier transform as they are: the field is continued by its mirror
image (`Fields.spectrum`), which is a cosine transform.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable, shared_units
from pdesurrogate.metrics.block import Block, Fields, at_least_float32
from pdesurrogate.metrics.errors import require_spectra
from pdesurrogate.metrics.flow import squared
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.spectral import Shells, squared_magnitude

# Of the peak of a spectrum: amplitudes of a ten-thousandth of the largest.
SPECTRUM_FLOOR = 1e-8


def variance_spectrum(values: Tensor, shells: Shells) -> Tensor:
    """Mean square in each shell of periodic, evenly spaced ``values (..., *space)``; ``(..., shells)`` in float64.

    Example:
        >>> field = torch.randn(17, 12, dtype=torch.float64)
        >>> shells = Shells((17, 12), (1.0, 1.0))
        >>> bool(torch.isclose(variance_spectrum(field, shells).sum(), field.square().mean()))
        True
    """
    axes = tuple(range(-len(shells.shape), 0))
    return shells.sum(squared_magnitude(torch.fft.rfftn(at_least_float32(values), dim=axes, norm="forward")))


def enstrophy_spectrum(vorticity: Tensor, shells: Shells) -> Tensor:
    """Enstrophy ``w^2 / 2`` in each shell of plane ``vorticity (..., *space)``; ``(..., shells)`` in float64."""
    return variance_spectrum(vorticity, shells) / 2


def energy_spectrum(velocity: Tensor, shells: Shells) -> Tensor:
    """Kinetic energy ``|u|^2 / 2`` in each shell of ``velocity (..., component, *space)``; ``(..., shells)``."""
    return variance_spectrum(velocity, shells).sum(-2) / 2


def coherence(prediction: Tensor, target: Tensor, shells: Shells) -> Tensor:
    """Correlation of two fields shell by shell: real cross-spectrum over the root of both spectra; ``(..., shells)``.

    One where the waves of a shell agree up to a factor, zero where their phases have nothing to do with each other, and
    zero in a shell that one of the fields does not have. Fields ``(..., *space)``.

    Example:
        >>> target = torch.randn(16, 16, dtype=torch.float64)
        >>> shells = Shells((16, 16), (1.0, 1.0))
        >>> bool(torch.allclose(coherence(-2 * target, target, shells), -torch.ones(12).double()))
        True
    """
    axes = tuple(range(-len(shells.shape), 0))
    one, other = (torch.fft.rfftn(at_least_float32(v), dim=axes, norm="forward") for v in (prediction, target))
    return _coherence(
        shells.sum(cross_density(one, other)), shells.sum(squared_magnitude(one)), shells.sum(squared_magnitude(other))
    )


def cross_density(one: Tensor, other: Tensor) -> Tensor:
    """Real part of ``one conj(other)`` of two half spectra."""
    products = torch.view_as_real(one) * torch.view_as_real(other)
    return products[..., 0] + products[..., 1]


def _coherence(cross: Tensor, one: Tensor, other: Tensor) -> Tensor:
    scale = (one * other).sqrt()
    return torch.where(scale == 0, 0.0, cross / scale).clamp(-1, 1)


def resolved_shells(shape: Sequence[int], periods: Sequence[float]) -> int:
    """Number of the largest shell that the grid holds whole: ``min(n) // 2 - 1`` on a square.

    Example:
        >>> resolved_shells((64, 64), (1.0, 1.0)), resolved_shells((64, 64), (4.0, 2.0))
        (31, 31)
    """
    longest = max(periods)
    # The small addend keeps a whole ratio of periods whole in floating point.
    return min(int(size // 2 * longest / period + 1e-9) for size, period in zip(shape, periods, strict=True)) - 1


def log_spectral_distance(
    prediction: Tensor, target: Tensor, largest_shell: int, floor: float = SPECTRUM_FLOOR
) -> Tensor:
    """Root mean square of ``log10(prediction / target)`` over the shells that matter; ``(...)``.

    One means that the spectra ``(..., shells)`` are typically a factor ten apart. Only shells ``1 ... largest_shell``
    in which the target is above ``floor`` times its peak count, and the prediction is raised to that floor first: what
    lies below it is amplitudes under a ten-thousandth of the largest, which no model in single precision is asked for,
    and an empty shell has no logarithm. The mean over the box (shell 0) and the shells that a grid holds in part
    are left out. NaN where no shell counts.

    Raises:
        ValueError: if the spectra have no such shells.

    Example:
        >>> target = torch.ones(8)
        >>> log_spectral_distance(100 * target, target, largest_shell=5).item()
        2.0
    """
    if not 1 <= largest_shell < target.shape[-1]:
        raise ValueError(f"Expected largest_shell within 1..{target.shape[-1] - 1} but got {largest_shell}.")
    lowest = floor * target.amax(-1, keepdim=True)
    counted = (target > lowest)[..., 1 : largest_shell + 1]
    ratio = torch.log10(torch.maximum(prediction, lowest)) - torch.log10(torch.maximum(target, lowest))
    squares = torch.where(counted, ratio[..., 1 : largest_shell + 1].square(), 0.0)
    return (squares.sum(-1) / counted.sum(-1)).sqrt()


def spectral_slope(spectrum: Tensor, first_shell: int, last_shell: int) -> Tensor:
    """Exponent ``p`` of the power law ``k^p`` that fits shells ``first_shell ... last_shell`` best; ``(...)``.

    A straight line by least squares through ``log E`` over ``log k``, every shell weighing alike. NaN where a shell of
    the range is empty.

    Args:
        spectrum: ``(..., shells)``.
        first_shell: of the range, at least 1.
        last_shell: of the range, included.

    Raises:
        ValueError: if the range holds fewer than two shells of the spectrum.

    Example:
        >>> shells = torch.arange(20, dtype=torch.float64)
        >>> round(spectral_slope(7 * shells ** -3.0, 2, 15).item(), 12)
        -3.0
    """
    if not 1 <= first_shell < last_shell < spectrum.shape[-1]:
        raise ValueError(
            f"Expected 1 <= first_shell < last_shell < {spectrum.shape[-1]} but got {first_shell} and {last_shell}."
        )
    shells = torch.arange(first_shell, last_shell + 1, dtype=spectrum.dtype, device=spectrum.device)
    position = shells.log() - shells.log().mean()
    values = spectrum[..., first_shell : last_shell + 1]
    height = torch.where(values > 0, values, torch.nan).log()
    return (height * position).sum(-1) / position.square().sum()


class SpectrumMetric(RolloutMetric):
    """Mean spectra at each lead time of prediction and truth, their distance, slope, and coherence.

    Energy of a flow, and its enstrophy where the box is fully periodic; `variance_spectrum` of every channel that is
    not part of the flow; `coherence` of every channel. Sums over trajectories in float64 and counts are kept, so memory
    does not depend on their number. The mean of the truth is over all trajectories and does not depend on the model;
    that of the prediction is over those that were not stopped. ``spectrum_trajectories`` counts them, and where
    some are missing the distance is NaN rather than one of survivors. The distance is that of the energy spectrum if
    there is a flow, else the mean over channels. Spectra in the coherence are means over trajectories too.

    Args:
        plan: what is going to be measured; evenly spaced, without a mask.
        slope_range: first and last shell of the range in which slopes are fitted; by default from a quarter to three
            quarters of the resolved shells.

    Raises:
        ValueError: if the points are not evenly spaced, there is a mask, the grid is too coarse, or the range is empty.
    """

    def __init__(self, plan: RolloutPlan, slope_range: tuple[int, int] | None = None) -> None:
        super().__init__(plan)
        require_spectra(plan, "spectra")
        self.shells = Shells(plan.wave_shape, plan.wave_periods)
        self.largest_shell = resolved_shells(plan.wave_shape, plan.wave_periods)
        count = self.shells.wavenumbers.numel()
        if self.largest_shell < 1:
            raise ValueError(f"Expected at least four points along each axis for a spectrum but got {plan.shape}.")
        self.slope_range = slope_range or (max(1, self.largest_shell // 4), max(2, 3 * self.largest_shell // 4))
        if not 1 <= self.slope_range[0] < self.slope_range[1] < count:
            raise ValueError(f"Expected a slope_range within 1..{self.largest_shell} but got {self.slope_range}.")
        self._quantities = self._flow_quantities()
        flow = plan.flow
        channels = plan.metadata.channels
        self._scalars = [place for place in range(len(channels)) if flow is None or place not in flow.channels]
        for side in ("prediction", "truth"):
            for quantity in self._quantities:
                self.add_lead_time_sum(f"{quantity}_{side}", count)
            if self._scalars:
                self.add_lead_time_sum(f"variance_{side}", len(self._scalars), count)
        self.add_lead_time_sum("cross", 3, len(channels), count)

    def _flow_quantities(self) -> dict[str, str]:
        """Names and units of the spectra of the flow."""
        flow = self.plan.flow
        if flow is None:
            return {}
        quantities = {"energy": squared(flow.velocity_units)}
        if all(self.plan.periodic):
            quantities["enstrophy"] = squared(flow.vorticity_units)
        return quantities

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        channels = self.plan.metadata.channels
        sides = {"prediction": "prediction, mean over trajectories that were not stopped", "truth": "truth"}
        names: dict[str, tuple[str, ...]] = dict.fromkeys(self._quantities, ("lead_time", "wavenumber"))
        units = dict(self._quantities)
        if self._scalars:
            names["variance"] = ("lead_time", "scalar", "wavenumber")
            units["variance"] = shared_units([squared(channels[place].units) for place in self._scalars])
        variables = {
            f"{name}_spectrum_{side}": Variable(dims, units[name], f"{name} in each shell, {which}")
            for name, dims in names.items()
            for side, which in sides.items()
        }
        low, high = self.slope_range
        variables |= {
            f"{name}_slope_{side}": Variable(
                dims[:-1], "1", f"exponent of the {side}'s {name} spectrum, shells {low} to {high}"
            )
            for name, dims in names.items()
            for side in sides
        }
        what = "energy" if "energy" in names else "variance"
        return variables | {
            "coherence": Variable(
                ("lead_time", "channel", "wavenumber"), "1", "correlation with the truth in each shell of wavenumbers"
            ),
            "log_spectral_distance": Variable(
                ("lead_time",), "1", f"root mean square over shells of log10 (predicted {what} / true {what})"
            ),
            "spectrum_trajectories": Variable(("lead_time",), "1", "trajectories in the prediction's mean spectra"),
        }

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Centres of the shells, and names of the channels with a spectrum of their own."""
        wavenumbers = self.shells.wavenumbers
        label = "wavenumber at the shell's centre"
        coordinates = {"wavenumber": Coordinate(wavenumbers, self.plan.wavenumber_units, label)}
        if self._scalars:
            names = [self.plan.metadata.channels[place].name for place in self._scalars]
            coordinates["scalar"] = Coordinate(names, "1", "channel with a spectrum of its own")
        return coordinates

    @property
    def scores(self) -> dict[str, Score]:
        """The distance, mean over lead times."""
        text = f"{self.variables['log_spectral_distance'].long_name}, mean over lead times"
        return {"log_spectral_distance": Score("log_spectral_distance", text)}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        powers = []
        for side, fields in block.sides:
            power = self.shells.sum(fields.density)
            for quantity, spectrum in self._spectra(fields, power).items():
                self.accumulate(f"{quantity}_{side}", spectrum, block)
            powers.append(power)
        cross = self.shells.sum(cross_density(block.prediction.spectrum, block.target.spectrum))
        self.accumulate("cross", torch.stack([cross, *powers], 2), block)

    def _spectra(self, fields: Fields, power: Tensor) -> dict[str, Tensor]:
        """What is recorded, from the mean square of every channel in each shell as far as that goes."""
        spectra = {}
        if self._scalars:
            spectra["variance"] = torch.stack([power[:, :, place] for place in self._scalars], 2)
        flow = self.plan.flow
        if flow is None:
            return spectra
        own = flow.select(power).sum(2) / 2
        if flow.given == "vorticity":
            return spectra | {"energy": self.shells.sum(fields.energy_density), "enstrophy": own}
        spectra["energy"] = own
        if "enstrophy" in self._quantities:
            spectra["enstrophy"] = self.shells.sum(fields.enstrophy_density)
        return spectra

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; NaN at lead times where no trajectory is left. See `RolloutMetric`."""
        names = [*self._quantities, *(["variance"] if self._scalars else [])]
        seen: Tensor = getattr(self, f"{names[0]}_truth_count")
        if bool((seen != self.plan.trajectories).any()):
            raise ValueError(
                f"Expected spectra of the truth of {self.plan.trajectories} trajectories at every lead time but got "
                f"{seen.tolist()}; update with every block of every rollout, once."
            )
        outputs = {}
        for name in names:
            for side in ("prediction", "truth"):
                spectrum = self.lead_time_mean(f"{name}_{side}")
                outputs[f"{name}_spectrum_{side}"] = spectrum
                outputs[f"{name}_slope_{side}"] = spectral_slope(spectrum, *self.slope_range)
        distance = log_spectral_distance(
            outputs[f"{names[0]}_spectrum_prediction"], outputs[f"{names[0]}_spectrum_truth"], self.largest_shell
        )
        if distance.ndim > 1:
            distance = distance.mean(1)
        count: Tensor = getattr(self, f"{names[0]}_prediction_count")
        return outputs | {
            "coherence": _coherence(*self.lead_time_mean("cross").unbind(1)),
            "log_spectral_distance": torch.where(count == self.plan.trajectories, distance, torch.nan),
            "spectrum_trajectories": count,
        }
