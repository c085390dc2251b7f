"""Energy and enstrophy spectra of plane periodic flow, and the distance between two spectra.

A spectrum here is a *full-shell sum*: entry ``j`` is the sum over all waves of the grid, corners included, whose
wavenumber rounds to ``j`` times ``2 pi / longest period``. So the entries of an energy spectrum add up to the box mean
of ``|u|^2 / 2``, those of an enstrophy spectrum to the box mean of ``w^2 / 2`` (Parseval), at any resolution. They are
energies, not densities; divide by the spacing of the shells to compare with a density.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Variable, at_least_float32, require_flow, squared
from pdesurrogate.physics.spectral import Shells

SPECTRUM_FLOOR = 1e-12


def enstrophy_spectrum(vorticity: Tensor, shells: Shells) -> Tensor:
    """Enstrophy ``w^2 / 2`` in each shell of ``vorticity (..., *space)``; ``(..., shells)`` in float64.

    Example:
        >>> field = torch.randn(17, 12, dtype=torch.float64)
        >>> shells = Shells((17, 12), (1.0, 1.0))
        >>> bool(torch.isclose(enstrophy_spectrum(field, shells).sum(), field.square().mean() / 2))
        True
    """
    axes = tuple(range(-len(shells.shape), 0))
    spectrum = torch.fft.rfftn(at_least_float32(vorticity), dim=axes, norm="forward")
    return shells.sum(torch.view_as_real(spectrum).square().sum(-1) / 2)


def energy_spectrum(velocity: Tensor, shells: Shells) -> Tensor:
    """Kinetic energy ``|u|^2 / 2`` in each shell of ``velocity (..., component, *space)``; ``(..., shells)``."""
    return enstrophy_spectrum(velocity, shells).sum(-2)


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
    """Root mean square over shells ``1 ... largest_shell`` of ``log10(prediction / target)``; ``(...)``.

    One means that the spectra ``(..., shells)`` are typically a factor ten apart. Both are raised to at least
    ``floor`` times the peak of the target first: in single precision what lies below is round-off, and an empty shell
    has no logarithm. The mean over the box (shell 0) and the shells that a grid holds in part are left out.

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
    ratio = torch.log10(torch.maximum(prediction, lowest)) - torch.log10(torch.maximum(target, lowest))
    return ratio[..., 1 : largest_shell + 1].square().mean(-1).sqrt()


class SpectrumMetric(RolloutMetric):
    """Mean spectra at each lead time, of prediction and truth, and their `log_spectral_distance`.

    Sums over trajectories in float64 and counts are kept, so memory does not depend on their number; a trajectory must
    be given to one process only, once. The mean of the truth is over all trajectories and does not depend on the
    model; that of the prediction is over those that were not stopped. ``spectrum_trajectories`` counts them, and where
    some are missing the distance is NaN rather than one of survivors. Points must be evenly spaced.

    Args:
        metadata: of the data set.
        trajectories: number of trajectories in all.
        frames: number of predicted frames.
        shape: points along each axis.

    Raises:
        ValueError: if the data are not a plane periodic flow or the grid is too coarse for a spectrum.
    """

    energy_spectrum_prediction: Tensor
    energy_spectrum_truth: Tensor
    enstrophy_spectrum_prediction: Tensor
    enstrophy_spectrum_truth: Tensor
    count_prediction: Tensor
    count_truth: Tensor

    def __init__(self, metadata: Metadata, trajectories: int, frames: int, shape: tuple[int, ...]) -> None:
        super().__init__(metadata, trajectories, frames)
        self.flow = require_flow(metadata, "spectra")
        self.shape = tuple(shape)
        self.largest_shell = resolved_shells(self.shape, self.flow.periods)
        if self.largest_shell < 1:
            raise ValueError(f"Expected at least four points along each axis for a spectrum but got {self.shape}.")
        shells = self._shells(torch.device("cpu")).wavenumbers.numel()
        for quantity in ("energy_spectrum", "enstrophy_spectrum"):
            for side in ("prediction", "truth"):
                empty = torch.zeros(frames, shells, dtype=torch.float64)
                self.add_state(f"{quantity}_{side}", default=empty, dist_reduce_fx="sum")
        for side in ("prediction", "truth"):
            self.add_state(f"count_{side}", default=torch.zeros(frames, dtype=torch.long), dist_reduce_fx="sum")

    def _shells(self, device: torch.device) -> Shells:
        return _cached_shells(self.shape, self.flow.periods, device)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims = ("lead_time", "wavenumber")
        sides = {"prediction": "prediction, mean over trajectories that were not stopped", "truth": "truth"}
        spectra = {
            f"{quantity}_spectrum_{side}": Variable(dims, squared(units), f"{quantity} in each shell, {which}")
            for quantity, units in (("energy", self.flow.velocity_units), ("enstrophy", self.flow.vorticity_units))
            for side, which in sides.items()
        }
        return spectra | {
            "log_spectral_distance": Variable(
                ("lead_time",), "1", "root mean square over shells of log10 (predicted energy / true energy)"
            ),
            "spectrum_trajectories": Variable(("lead_time",), "1", "trajectories in the prediction's mean spectra"),
        }

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Centres of the shells."""
        wavenumbers = self._shells(torch.device("cpu")).wavenumbers
        return {"wavenumber": Coordinate(wavenumbers, self.flow.wavenumber_units, "wavenumber at the shell's centre")}

    def update(
        self, prediction: Tensor, target: Tensor, first_frame: int, trajectories: Tensor, context: Context
    ) -> None:
        """Measure one block; see `RolloutMetric`."""
        frames = self.frame_range(first_frame, prediction.shape[1])
        shells = self._shells(prediction.device)
        for side, fields in (("prediction", prediction), ("truth", target)):
            velocity, vorticity = self.flow.velocity_and_vorticity(fields)
            energy = energy_spectrum(velocity, shells)
            enstrophy = enstrophy_spectrum(vorticity[:, :, 0], shells)
            kept = torch.isfinite(energy + enstrophy).all(-1)
            for quantity, spectrum in (("energy", energy), ("enstrophy", enstrophy)):
                state = getattr(self, f"{quantity}_spectrum_{side}")
                state[frames] += torch.where(kept.unsqueeze(-1), spectrum, 0.0).sum(0)
            getattr(self, f"count_{side}")[frames] += kept.sum(0)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; NaN at lead times where no trajectory is left. See `RolloutMetric`."""
        if bool((self.count_truth != self.trajectories).any()):
            raise ValueError(
                f"Expected spectra of the truth of {self.trajectories} trajectories at every lead time but got "
                f"{self.count_truth.tolist()}; update with every block of every rollout, once."
            )
        outputs = {}
        for side in ("prediction", "truth"):
            count = getattr(self, f"count_{side}").to(torch.float64).unsqueeze(-1)
            for quantity in ("energy_spectrum", "enstrophy_spectrum"):
                outputs[f"{quantity}_{side}"] = getattr(self, f"{quantity}_{side}") / count
        distance = log_spectral_distance(
            outputs["energy_spectrum_prediction"], outputs["energy_spectrum_truth"], self.largest_shell
        )
        complete = self.count_prediction == self.trajectories
        return outputs | {
            "log_spectral_distance": torch.where(complete, distance, torch.nan),
            "spectrum_trajectories": self.count_prediction,
        }


@lru_cache(maxsize=16)
def _cached_shells(shape: tuple[int, ...], periods: tuple[float, ...], device: torch.device) -> Shells:
    """The tables of one grid on one device; building them waits for the device once."""
    return Shells(shape, periods, device=device)
