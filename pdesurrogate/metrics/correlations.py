"""Two-point statistics of prediction and truth: correlations and increments in space, correlations in time.

Statistics in space are along the homogeneous axes: those that are periodic with evenly spaced points. They come from
spectra, so all separations are exact and none is formed by shifting fields. A *line spectrum* of ``n`` points here is
one-sided: entry ``j`` of ``n // 2 + 1`` holds the mean square of the waves ``j`` and ``-j`` together, so that all of
them add up to the variance (Parseval).

Averages are over all of space (quadrature weights count along the other axes), the measured frames and all
trajectories; see `metrics.statistics` for stopped trajectories and error bars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable, shared_units
from pdesurrogate.metrics.block import Block, Fields
from pdesurrogate.metrics.flow import squared
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.pooling import (
    Statistics,
    compared,
    distances_with_errors,
    leave_one_out,
    require_all_frames,
    with_errors,
)
from pdesurrogate.metrics.statistics import PointSampleMetric, relative_difference
from pdesurrogate.physics.spectral import half_spectrum_weights, squared_magnitude

# By default all trajectories together give about this many time series, each at least the fewest and at most the most.
_SERIES = 4096
_FEWEST_POINTS, _MOST_POINTS = 4, 64
_MOST_FRAMES = 256


def line_spectra(density: Tensor, shape: Sequence[int]) -> tuple[Tensor, ...]:
    """One-sided line spectrum along each axis, summed over the waves of all others; the mean over all axes is left out.

    Args:
        density: ``(..., *rfftn space)`` squared magnitudes of amplitudes, half spectrum.
        shape: points along each axis of the transform.

    Returns:
        One tensor ``(..., n // 2 + 1)`` for each axis.

    Example:
        >>> field = torch.randn(8, 9, dtype=torch.float64)
        >>> lines = line_spectra(squared_magnitude(torch.fft.rfft2(field, norm="forward")), (8, 9))
        >>> [bool(torch.isclose(line.sum(), field.var(correction=0))) for line in lines]
        [True, True]
    """
    dimension = len(shape)
    counted = density * half_spectrum_weights(shape, device=density.device).to(density.dtype)
    counted.flatten(-dimension)[..., 0] = 0.0
    lines = []
    for axis, size in enumerate(shape):
        others = tuple(other - dimension for other in range(dimension) if other != axis)
        line = counted.sum(others) if others else counted
        lines.append(line if axis == dimension - 1 else _one_sided(line, size))
    return tuple(lines)


def line_covariance(line: Tensor, size: int) -> Tensor:
    """Covariance ``(..., n // 2 + 1)`` of points 0 ... ``n // 2`` spacings apart along a line.

    The inverse transform of the line spectrum (Wiener-Khinchin); entry zero is the variance.

    Args:
        line: one-sided line spectrum ``(..., n // 2 + 1)``.
        size: number ``n`` of points along the line.

    Example:
        >>> line_covariance(torch.tensor([0.0, 0.5, 0.0]), 4).tolist()
        [0.5, 0.0, -0.5]
    """
    half = line / half_spectrum_weights((size,), device=line.device).to(line.dtype)
    return _series(torch.complex(half, torch.zeros_like(half)), size)


class IntegralScale(NamedTuple):
    """How far a correlation reaches.

    Attributes:
        value: ``(...)``, in the units of the separations.
        censored: ``(...)``, true where the correlation never falls to zero: the integral ends with the separations.
    """

    value: Tensor
    censored: Tensor


def integral_scale(correlation: Tensor, separations: Tensor) -> IntegralScale:
    """Integral of ``correlation (..., separation)`` from zero to its first zero, by the trapezoid rule.

    The zero is found by linear interpolation. A value that is NaN (nothing was measured there) ends the integral, too.

    Args:
        correlation: one at separation zero.
        separations: ``(separation,)``, increasing from zero.

    Raises:
        ValueError: if the numbers of separations differ.

    Example:
        >>> integral_scale(torch.tensor([1.0, 0.5, -0.5, 0.2]), torch.tensor([0.0, 1.0, 2.0, 3.0])).value.item()
        0.875
    """
    if separations.shape != correlation.shape[-1:]:
        raise ValueError(f"Expected {correlation.shape[-1]} separations but got {tuple(separations.shape)}.")
    gaps = separations.to(correlation).diff()
    before, after = correlation[..., :-1], correlation[..., 1:]
    positive = ((before > 0) & (after > 0)).to(correlation.dtype).cumprod(-1)
    # The last, falling piece: a triangle between the last positive value and the zero.
    reached = torch.nn.functional.pad(positive, (1, 0), value=1.0)[..., :-1] - positive
    falling = torch.where((before > 0) & (after <= 0), before.square() / (before - after) / 2, 0.0)
    pieces = torch.where(positive > 0, (before + after) / 2, torch.where(reached > 0, falling, 0.0))
    crosses = ((reached > 0) & (after <= 0)).any(-1)
    value = torch.where(torch.isfinite(correlation[..., 0]), (pieces * gaps).sum(-1), torch.nan)
    return IntegralScale(value, ~crosses)


def increment_spectra(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """What structure functions along periodic lines are made of, averaged over lines; see `structure_functions`.

    Args:
        values: ``(..., lines, n)``, each line evenly spaced over one period.
        weights: of the lines, ``(..., lines)`` and of sum one; ``None`` where all count alike.

    Returns:
        ``(..., 2, n // 2 + 1)``: the line spectrum of the fluctuation ``u`` about each line's mean, and the imaginary
        part of the cross-spectrum ``conj(q_k) u_k`` of ``q = u^2`` and ``u``, one-sided too.
    """
    fluctuation = values - values.mean(-1, keepdim=True)
    u = torch.fft.rfft(fluctuation, norm="forward")
    q = torch.fft.rfft(fluctuation.square(), norm="forward")
    weighted = u if weights is None else u * weights.unsqueeze(-1).to(values.dtype)
    square, cross = torch.linalg.vecdot(u, weighted, dim=-2).real, torch.linalg.vecdot(q, weighted, dim=-2).imag
    both_signs = half_spectrum_weights(values.shape[-1:], device=values.device).to(values.dtype)
    return torch.stack([square, cross], -2) * (both_signs if weights is not None else both_signs / values.shape[-2])


def structure_functions(spectra: Tensor, size: int) -> Tensor:
    """Mean square and mean cube of the increment ``u(x + r) - u(x)`` at separations of 0 ... ``n // 2`` spacings.

    ``S2(r) = 2 (R(0) - R(r))`` with the covariance ``R``. The cubes cancel in
    ``S3(r) = 3 <u(x)^2 u(x + r)> - 3 <u(x) u(x + r)^2>``; what is left is a sine series of the imaginary part of the
    cross-spectrum of ``u^2`` and ``u``.

    Args:
        spectra: ``(..., 2, n // 2 + 1)`` as `increment_spectra` gives them.
        size: number ``n`` of points along the line.

    Returns:
        ``(..., 2, n // 2 + 1)``: second order, third order; float64, which small separations need.

    Example:
        >>> x = torch.arange(8, dtype=torch.float64) * (torch.pi / 4)
        >>> second, third = structure_functions(increment_spectra(torch.sin(x)[None]), 8)  # 1 - cos(r), 0
        >>> [round(value, 6) for value in second.tolist()]
        [0.0, 0.292893, 1.0, 1.707107, 2.0]
    """
    spectra = spectra.to(torch.float64)
    covariance = line_covariance(spectra[..., 0, :], size)
    half = spectra[..., 1, :] / half_spectrum_weights((size,), device=spectra.device)
    third = 6 * _series(torch.complex(torch.zeros_like(half), half), size)
    return torch.stack([2 * (covariance[..., :1] - covariance), third], -2)


def structure_function_distance(prediction: Tensor, truth: Tensor) -> Tensor:
    """Root mean square of ``log10(prediction / truth)`` over separations of 1, 2, 4, ... spacings; ``(...)``.

    Octaves count alike, so that the small scales weigh as much as the large ones.

    Args:
        prediction: ``(..., separations)``, positive from entry 1 on.
        truth: likewise.

    Example:
        >>> truth = torch.arange(9.0)
        >>> structure_function_distance(10 * truth, truth).item()
        1.0
    """
    octaves = [2**power for power in range((truth.shape[-1] - 1).bit_length()) if 2**power < truth.shape[-1]]
    return (prediction[..., octaves] / truth[..., octaves]).log10().square().mean(-1).sqrt()


def lagged_moments(fluctuation: Tensor, starts: Tensor | None = None) -> Tensor:
    """Sums over all pairs of frames ``t`` and ``t + lag`` that `correlation_of_pairs` needs, for all lags at once.

    Args:
        fluctuation: ``(..., frames)``; pairs with a frame that is NaN are left out.
        starts: ``(frames,)``, one for the first frames ``t`` that count, else zero; by default all do. Several at once
            as anything that broadcasts to ``(..., 4, frames)``.

    Returns:
        ``(..., 4, lags)``, as many lags as frames: sums of ``u(t) u(t + lag)``, of ``u(t)^2`` and of ``u(t + lag)^2``,
        and the number of pairs.
    """
    frames = fluctuation.shape[-1]
    finite = torch.isfinite(fluctuation)
    u, there = torch.where(finite, fluctuation, 0.0), finite.to(fluctuation.dtype)
    first = torch.stack([u, u.square(), there, there], -2)
    second = torch.stack([u, there, u.square(), there], -2)
    if starts is not None:
        first = first * starts
    # As many zeros behind a series keep its end from meeting its beginning.
    product = torch.fft.rfft(first, n=2 * frames).conj() * torch.fft.rfft(second, n=2 * frames)
    return torch.fft.irfft(product, n=2 * frames)[..., :frames]


def correlation_of_pairs(moments: Tensor) -> Tensor:
    """Correlation coefficient ``(..., lags)`` from sums ``(..., 4, lags)`` as `lagged_moments` gives them.

    The product is divided by the deviations of the very frames that formed it, so it stays between -1 and 1, also where
    the variance changes in time. NaN at lags without a pair.

    Example:
        >>> decaying = torch.tensor([8.0, -4.0, 2.0, -1.0])
        >>> correlation_of_pairs(lagged_moments(decaying)).tolist()
        [1.0, -1.0, 1.0, -1.0]
    """
    product, first, second, pairs = moments.unbind(-2)
    correlation = (product / (first * second).sqrt()).clamp(-1, 1)
    # Counts come from a transform and carry its round-off.
    return torch.where(pairs > 0.5, correlation, torch.nan)


def homogeneous_axes(plan: RolloutPlan, what: str) -> tuple[int, ...]:
    """Numbers of the axes that are periodic with evenly spaced points.

    Raises:
        ValueError: if there are none, there is a mask or trajectories differ in their grid, naming ``what`` needs them.
    """
    axes = tuple(axis for axis in range(len(plan.shape)) if plan.periodic[axis] and plan.even[axis])
    if not axes or plan.masked or not plan.shared_grid:
        raise ValueError(
            f"Expected one grid with a periodic axis of evenly spaced points and no mask for {what} but got axes "
            f"{plan.metadata.grid.axis_names}, periodic: {plan.periodic}, even: {plan.even}, mask: {plan.masked}, one "
            f"grid: {plan.shared_grid}; leave this metric out of the suite."
        )
    return axes


class _HomogeneousMetric(RolloutMetric):
    """What metrics along homogeneous axes share: the axes, their separations and labels."""

    def __init__(self, plan: RolloutPlan, what: str) -> None:
        super().__init__(plan)
        self.axes = homogeneous_axes(plan, what)
        axes = plan.metadata.grid.axes
        self.names = tuple(axes[axis].name for axis in self.axes)
        self.sizes = tuple(plan.shape[axis] for axis in self.axes)
        self.length_units = shared_units([axes[axis].units for axis in self.axes])

    def require_frames(self, frames: int) -> bool:
        """Whether the prediction has all frames that the truth has, which must be ``frames`` of each trajectory."""
        truth, prediction = f"truth_{self.names[0]}", f"prediction_{self.names[0]}"
        require_all_frames(self, truth, frames)
        return bool((getattr(self, f"{truth}_count") == getattr(self, f"{prediction}_count")).all())

    def separations(self, axis: int) -> Tensor:
        """Distances of 0 ... ``n // 2`` spacings along an axis ``(n // 2 + 1,)``."""
        size = self.plan.shape[axis]
        return torch.arange(size // 2 + 1, dtype=torch.float64) * (self.plan.extents[axis] / size)

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Separations along each axis, and the names of the axes."""
        found = {
            f"separation_{name}": Coordinate(
                self.separations(axis), self.plan.metadata.grid.axes[axis].units, f"separation along {name}"
            )
            for axis, name in zip(self.axes, self.names, strict=True)
        }
        return found | {"periodic_axis": Coordinate(self.names, "1", "axis of the separation")}


class TwoPointMetric(_HomogeneousMetric):
    """Two-point correlation ``R(r) / R(0)`` of each channel along each homogeneous axis, and the integral length.

    ``R(r) = <u'(x) u'(x + r)>`` of the fluctuation about the mean over the homogeneous axes, taken at every frame (and
    at every place along the other axes): in a channel the mean profile is taken off. The integral length is
    `integral_scale` of the correlation; where that has no zero within half a period it is censored.

    Args:
        plan: what is going to be measured.

    Raises:
        ValueError: if no axis is homogeneous or there is a mask.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan, "two-point correlations")
        for side in ("prediction", "truth"):
            for name, size in zip(self.names, self.sizes, strict=True):
                self.add_pooled(f"{side}_{name}", len(plan.metadata.channels), size // 2 + 1)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims = ("channel", "periodic_axis")
        length = "integral of the two-point correlation up to its first zero"
        quantities = {"integral_length": Variable(dims, self.length_units, length)}
        for name in self.names:
            curve = ("channel", f"separation_{name}")
            text = f"correlation of points that are a distance apart along {name}"
            quantities[f"two_point_correlation_{name}"] = Variable(curve, "1", text)
        text = "difference of the integral lengths relative to the truth's"
        differences = {"integral_length_relative_difference": Variable(dims, "1", text)}
        censored = {
            f"integral_length_censored_{side}": Variable(
                dims, "1", f"1 where the correlation has no zero within half a period, {side}"
            )
            for side in ("prediction", "truth")
        }
        return with_errors(quantities) | distances_with_errors(differences) | censored

    @property
    def scores(self) -> dict[str, Score]:
        """Difference of the integral lengths."""
        name = "integral_length_relative_difference"
        return {name: Score(name, f"mean over channels and axes of the {self.variables[name].long_name}")}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        for side, fields in block.sides:
            lines = line_spectra(self._density(fields, block), self.sizes)
            for name, line in zip(self.names, lines, strict=True):
                self.pool(f"{side}_{name}", line, block)

    def _density(self, fields: Fields, block: Block) -> Tensor:
        """Squared amplitudes ``(batch, time, channel, *waves)`` along homogeneous axes, averaged over the others."""
        dimension = len(self.plan.shape)
        if len(self.axes) == dimension:
            return fields.density
        waves = tuple(3 + axis for axis in self.axes)
        density = squared_magnitude(torch.fft.rfftn(fields.values, dim=waves, norm="forward"))
        for axis in reversed([axis for axis in range(dimension) if axis not in self.axes]):
            density = _axis_mean(density, 3 + axis, axis, block)
        return density

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        complete = self.require_frames(self.plan.frames)
        found, left_out = {}, {}
        for side in ("prediction", "truth"):
            pooled = [self.pooled(f"{side}_{name}") for name in self.names]
            found[side] = self._statistics([mean for mean, _ in pooled])
            left_out[side] = self._statistics([leave_one_out(blocks) for _, blocks in pooled])
        censored = {f"integral_length_censored_{side}": found[side].pop("censored").to(torch.int8) for side in found}
        return compared(found, left_out, _difference_of("integral_length"), complete) | censored

    def _statistics(self, lines: Sequence[Tensor]) -> dict[str, Tensor]:
        """Correlations and integral lengths from mean line spectra along each axis ``(..., channel, waves)``."""
        found, scales = {}, []
        for axis, name, size, line in zip(self.axes, self.names, self.sizes, lines, strict=True):
            covariance = line_covariance(line, size)
            correlation = covariance / covariance[..., :1]
            found[f"two_point_correlation_{name}"] = correlation
            scales.append(integral_scale(correlation, self.separations(axis)))
        found["integral_length"] = torch.stack([scale.value for scale in scales], -1)
        found["censored"] = torch.stack([scale.censored for scale in scales], -1)
        return found


class StructureFunctionMetric(_HomogeneousMetric):
    """Structure functions of second and third order along each homogeneous axis.

    For a flow, of the longitudinal velocity increment: of the component along the separation. For other data, of the
    increment of each channel. The third order keeps its sign: in the inertial range of isotropic turbulence it is
    ``-4/5`` of dissipation times separation (Kolmogorov, 1941). Neighboring frames are much alike, so not all of them
    are measured. Separations are all up to half a period.

    Args:
        plan: what is going to be measured.
        every: of how many frames one is measured; the first predicted frame is.

    Raises:
        ValueError: if no axis is homogeneous, there is a mask, or ``every`` is not positive.
    """

    def __init__(self, plan: RolloutPlan, every: int = 4) -> None:
        super().__init__(plan, "structure functions")
        if every < 1:
            raise ValueError(f"Expected one of at least one frame to be measured but got one of {every}.")
        self.every = every
        flow = plan.flow
        # A velocity is found from a vorticity by transforms over all axes.
        usable = flow is not None and (flow.given == "velocity" or all(plan.even))
        self.flow = flow if usable else None
        self._leading = () if usable else (len(plan.metadata.channels),)
        for side in ("prediction", "truth"):
            for name, size in zip(self.names, self.sizes, strict=True):
                self.add_pooled(f"{side}_{name}", *self._leading, 2, size // 2 + 1)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        leading = () if self.flow else ("channel",)
        units = [self.flow.velocity_units] if self.flow else [channel.units for channel in self.plan.metadata.channels]
        quantity = "longitudinal velocity increment" if self.flow else "increment"
        quantities = {}
        for name in self.names:
            dims = (*leading, f"separation_{name}")
            for order, moment, power in (("second", "mean square", squared), ("third", "mean cube", _cubed)):
                quantities[f"{order}_order_structure_function_{name}"] = Variable(
                    dims, shared_units([power(each) for each in units]), f"{moment} of the {quantity} along {name}"
                )
        text = "root mean square over octaves of separation of log10 (prediction's / truth's mean square increment)"
        distances = {"structure_function_distance": Variable((*leading, "periodic_axis"), "1", text)}
        return with_errors(quantities) | distances_with_errors(distances)

    @property
    def scores(self) -> dict[str, Score]:
        """Distance of the second order."""
        name = "structure_function_distance"
        over = "axes" if self.flow else "channels and axes"
        return {name: Score(name, f"mean over {over} of the {self.variables[name].long_name}")}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        skipped = -block.first_frame % self.every
        if skipped >= block.frames:
            return
        for side, fields in block.sides:
            whole = self.every == 1 or block.frames == 1
            kept = fields if whole else Fields(fields.values[:, skipped :: self.every], self.plan)
            values = kept.velocity if self.flow else kept.values
            for axis, name in zip(self.axes, self.names, strict=True):
                spectra = self._spectra(values, axis, block)
                # Frames in between are left out of a pooled state as stopped ones are.
                padded = spectra.new_full((*spectra.shape[:1], block.frames, *spectra.shape[2:]), torch.nan)
                padded[:, skipped :: self.every] = spectra
                self.pool(f"{side}_{name}", padded, block)

    def _spectra(self, values: Tensor, axis: int, block: Block) -> Tensor:
        """`increment_spectra` of all lines along one axis ``(batch, time, [channel,] 2, waves)``."""
        if self.flow:
            values = values[:, :, axis]
        first_axis = values.ndim - len(self.plan.shape)
        lines = values.movedim(first_axis + axis, -1)
        lines = lines.reshape(*lines.shape[:first_axis], -1, lines.shape[-1])
        weights = _line_weights(axis, block)
        if weights is not None:
            weights = weights.reshape(weights.shape[0], *(1,) * (first_axis - 1), -1)
        return increment_spectra(lines, weights)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        complete = self.require_frames(-(-self.plan.frames // self.every))
        found, left_out = {}, {}
        for side in ("prediction", "truth"):
            pooled = [self.pooled(f"{side}_{name}") for name in self.names]
            found[side] = self._statistics([mean for mean, _ in pooled])
            left_out[side] = self._statistics([leave_one_out(blocks) for _, blocks in pooled])
        return compared(found, left_out, self._distances, complete)

    def _statistics(self, spectra: Sequence[Tensor]) -> dict[str, Tensor]:
        """Structure functions from mean `increment_spectra` along each axis ``(..., 2, waves)``."""
        found = {}
        for name, size, each in zip(self.names, self.sizes, spectra, strict=True):
            second, third = structure_functions(each, size).unbind(-2)
            found[f"second_order_structure_function_{name}"] = second
            found[f"third_order_structure_function_{name}"] = third
        return found

    def _distances(self, prediction: Statistics, truth: Statistics) -> dict[str, Tensor]:
        names = [f"second_order_structure_function_{name}" for name in self.names]
        distances = [structure_function_distance(prediction[name], truth[name]) for name in names]
        return {"structure_function_distance": torch.stack(distances, -1)}


class AutocorrelationMetric(PointSampleMetric):
    """Correlation in time of each channel with itself at fixed points (Eulerian), and the integral time.

    The time series of prediction and truth at a few points of every trajectory are kept; from them follow all lags at
    once, averaged over start times, points and trajectories (`correlation_of_pairs`). Fluctuations are about the mean
    over frames and trajectories at each point, each side's own: with few trajectories that are not long against the
    integral time, this mean takes part of the correlation with it. The integral time is `integral_scale` of the
    correlation, censored where it has no zero within the rollout. Blocks for the error bars are cut by start time.

    Args:
        plan: what is going to be measured.
        points: of each trajectory at most, as `spread_points` gives them; by default so many that all trajectories have
            about 4096 series together, 4 to 64 each.
        every: of how many frames one is kept; by default as many frames as leave at most 256, so that memory does not
            grow with longer rollouts.

    Raises:
        ValueError: if fewer than two frames are predicted or kept, or ``points`` or ``every`` is not positive.
    """

    def __init__(self, plan: RolloutPlan, points: int | None = None, every: int | None = None) -> None:
        if plan.frames < 2:
            raise ValueError(
                f"Expected at least two frames for a correlation in time but got {plan.frames}; "
                "leave this metric out of the suite."
            )
        if points is None:
            points = min(max(_SERIES // plan.trajectories, _FEWEST_POINTS), _MOST_POINTS)
        super().__init__(plan, points, -(-plan.frames // _MOST_FRAMES) if every is None else every)
        self._kept = -(-plan.frames // self.every)
        if self._kept < 2:
            raise ValueError(f"Expected at least two of {plan.frames} frames to be kept but every is {every}.")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims, units = ("channel",), self.plan.metadata.time_units
        time = "integral of the autocorrelation in time up to its first zero"
        quantities = {
            "autocorrelation": Variable(("channel", "time_lag"), "1", "correlation of frames a lag apart"),
            "integral_time": Variable(dims, units, time),
        }
        text = "difference of the integral times relative to the truth's"
        differences = {"integral_time_relative_difference": Variable(dims, "1", text)}
        censored = {
            f"integral_time_censored_{side}": Variable(
                dims, "1", f"1 where the autocorrelation has no zero within the rollout, {side}"
            )
            for side in ("prediction", "truth")
        }
        return with_errors(quantities) | distances_with_errors(differences) | censored

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Lags in time."""
        return {"time_lag": Coordinate(self._lags, self.plan.metadata.time_units, "lag in time")}

    @property
    def scores(self) -> dict[str, Score]:
        """Difference of the integral times."""
        name = "integral_time_relative_difference"
        return {name: Score(name, f"mean over channels of the {self.variables[name].long_name}")}

    @property
    def _lags(self) -> Tensor:
        return torch.arange(self._kept, dtype=torch.float64) * (self.every * self.plan.metadata.frame_interval)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        samples = {side: self.samples(side) for side in ("prediction", "truth")}
        found, left_out = {}, {}
        for side, values in samples.items():
            sums = self._block_sums(values)
            found[side] = self._statistics(sums.sum(0))
            with_pairs = (sums[:, :, 3, 0] > 0).any(-1)
            left_out[side] = self._statistics(sums.sum(0) - sums[with_pairs])
        censored = {f"integral_time_censored_{side}": found[side].pop("censored").to(torch.int8) for side in found}
        complete = bool(torch.isfinite(samples["prediction"]).all())
        return compared(found, left_out, _difference_of("integral_time"), complete) | censored

    def _statistics(self, moments: Tensor) -> dict[str, Tensor]:
        """Autocorrelation and integral time from sums ``(..., channel, 4, lags)``."""
        correlation = correlation_of_pairs(moments)
        scale = integral_scale(correlation, self._lags)
        return {"autocorrelation": correlation, "integral_time": scale.value, "censored": scale.censored}

    def _block_sums(self, values: Tensor) -> Tensor:
        """`lagged_moments` summed over points and trajectories in each block ``(blocks, channels, 4, lags)``."""
        weights = self.weights
        series = values.movedim(1, -1)
        series = torch.where(weights[:, None, :, None] > 0, series, torch.nan)
        fluctuation = series - series.nanmean((0, -1), keepdim=True)
        groups, stretches = self.sample_blocks
        stretch = torch.arange(self._kept, device=series.device) * stretches // self._kept
        starts = torch.nn.functional.one_hot(stretch, stretches).T.to(series.dtype)
        sums = series.new_zeros(groups, stretches, series.shape[1], 4, self._kept)
        for trajectory in range(self.plan.trajectories):
            # One trajectory at a time: the transforms are eight times as large as the series.
            moments = lagged_moments(fluctuation[trajectory], starts[:, None, None, None])
            sums[trajectory % groups] += (moments * weights[trajectory, :, None, None]).sum(2)
        return sums.flatten(0, 1)


def _line_weights(axis: int, block: Block) -> Tensor | None:
    """Share of each line along one axis in the mean over the box ``(batch, lines)``; ``None`` where all count alike."""
    plan = block.plan
    others = [other for other in range(len(plan.shape)) if other != axis]
    if all(plan.periodic[other] and plan.even[other] for other in others):
        return None
    along = plan.quadrature_weights(block.context.coordinates)
    weights = torch.ones_like(along[0][:, :1])
    for other in others:
        weights = (weights.unsqueeze(-1) * along[other].unsqueeze(-2)).flatten(-2)
    return weights / weights.sum(-1, keepdim=True)


def _axis_mean(values: Tensor, place: int, axis: int, block: Block) -> Tensor:
    """Mean over one space axis, which ``values (batch, ...)`` have in the given place, with its quadrature weights."""
    plan = block.plan
    if plan.periodic[axis] and plan.even[axis]:
        return values.mean(place)
    weights = plan.quadrature_weights(block.context.coordinates)[axis]
    shares = (weights / weights.sum(-1, keepdim=True)).to(values.dtype)
    shape = [1] * values.ndim
    shape[0], shape[place] = shares.shape
    return (values * shares.reshape(shape)).sum(place)


def _series(half_spectrum: Tensor, size: int) -> Tensor:
    """The real series of a half spectrum ``(..., n // 2 + 1)``, up to half a period ``(..., n // 2 + 1)``."""
    if half_spectrum.numel() == 0:  # No blocks: MKL refuses to transform nothing.
        return half_spectrum.real
    series = torch.fft.irfft(half_spectrum, n=size, norm="forward")[..., : size // 2 + 1]
    # Sums of opposite waves may lose a NaN.
    return torch.where(half_spectrum.isnan().any(-1, keepdim=True), torch.nan, series)


def _one_sided(line: Tensor, size: int) -> Tensor:
    """A line ``(..., n)`` in the order of ``fftn`` with waves ``j`` and ``-j`` added up; ``(..., n // 2 + 1)``."""
    opposite = line.flip(-1).roll(1, -1)
    both = (line + opposite)[..., : size // 2 + 1]
    # Waves that are their own opposites were added to themselves.
    return both * (half_spectrum_weights((size,), device=line.device).to(line.dtype) / 2)


def _difference_of(name: str) -> Callable[[Statistics, Statistics], dict[str, Tensor]]:
    return lambda prediction, truth: {f"{name}_relative_difference": relative_difference(prediction[name], truth[name])}


def _cubed(units: str) -> str:
    return "1" if units == "1" else f"({units})^3"
