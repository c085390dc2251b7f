"""Which metrics fit which data: one function for each kind of problem, and the choice among them by the metadata."""

from __future__ import annotations

from collections.abc import Callable

from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.channel import ChannelFlow, ChannelHistoryMetric, ChannelMetric
from pdesurrogate.metrics.conservation import (
    BudgetMetric,
    DivergenceMetric,
    EnergyDriftMetric,
    FluxBalanceMetric,
    IntegralMetric,
    NoSlipMetric,
)
from pdesurrogate.metrics.correlations import AutocorrelationMetric, StructureFunctionMetric, TwoPointMetric
from pdesurrogate.metrics.errors import BandErrorMetric, BoundaryErrorMetric, ErrorMetric, SobolevErrorMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.spectra import SpectrumMetric
from pdesurrogate.metrics.statistics import DensityMetric, MomentsMetric
from pdesurrogate.metrics.uncertainty import EnsembleMetric, GaussianMetric
from pdesurrogate.metrics.vortices import VortexMetric

Metrics = dict[str, RolloutMetric]


def default_suite(plan: RolloutPlan) -> Metrics:
    """The suite that fits the data, by axes and channels.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
        >>> metadata = Metadata("example", grid, (Channel("vorticity"),), frame_interval=0.1)
        >>> plan = RolloutPlan(metadata, trajectories=4, frames=10, coordinates=grid.uniform_coordinates((16, 16)))
        >>> suite_for(plan).__name__
        'periodic_2d'
        >>> list(default_suite(plan))[:4]
        ['errors', 'sobolev_errors', 'band_errors', 'spectra']
    """
    return suite_for(plan)(plan)


def suite_for(plan: RolloutPlan) -> Callable[[RolloutPlan], Metrics]:
    """Which suite `default_suite` takes.

    A channel has a velocity between two walls (`metrics.channel`); a plane box with other axes that are not periodic is
    enclosed. Data that fit nowhere are measured as far as their axes allow: three periodic axes as ``periodic_3d``,
    others with an open axis as ``enclosed_2d``.
    """
    dimension, open_axes = len(plan.shape), plan.periodic.count(False)
    if dimension == 1:
        return scalar_1d
    if open_axes == 0:
        return periodic_2d if dimension == 2 else periodic_3d
    return channel if _is_channel(plan) else enclosed_2d


def _is_channel(plan: RolloutPlan) -> bool:
    try:
        ChannelFlow.of(plan, "channel metrics", None, None).geometry.require_symmetry("channel metrics")
    except ValueError:
        return False
    return True


def periodic_2d(plan: RolloutPlan) -> Metrics:
    """Errors by norm and band, spectra, statistics, and what the flow keeps, in a plane periodic box."""
    return {**_errors(plan), **_periodic_flow(plan), **_statistics(plan)}


def periodic_3d(plan: RolloutPlan) -> Metrics:
    """As `periodic_2d`, in three dimensions, and the distribution of Q where there is a velocity."""
    metrics = {**_errors(plan), **_periodic_flow(plan), **_statistics(plan)}
    if plan.flow is not None and plan.flow.collocated:
        metrics["vortices"] = VortexMetric(plan)
    return metrics


def channel(plan: RolloutPlan) -> Metrics:
    """Errors, profiles in wall units, line spectra, walls, statistics, of a velocity between two parallel walls."""
    metrics = {
        **_errors(plan),
        "channel": ChannelMetric(plan),
        "channel_history": ChannelHistoryMetric(plan),
        "line_spectra": LineSpectrumMetric(plan),
        "divergence": DivergenceMetric(plan),
    }
    if len(plan.shape) == 3:
        metrics["vortices"] = VortexMetric(plan)
    return metrics | _statistics(plan)


def enclosed_2d(plan: RolloutPlan) -> Metrics:
    """Errors, also on the boundary, flow rates, walls, statistics, in a box with walls, inlets, outlets or bodies."""
    metrics = _errors(plan)
    if plan.flow is not None:
        metrics["divergence"] = DivergenceMetric(plan)
        if not all(plan.periodic):
            metrics["flux_balance"] = FluxBalanceMetric(plan)
        if not all(plan.periodic) or plan.masked:
            metrics["no_slip"] = NoSlipMetric(plan)
    return metrics | _statistics(plan)


def scalar_1d(plan: RolloutPlan) -> Metrics:
    """Errors by norm and band, spectra and statistics of fields on a line."""
    return {**_errors(plan), **_statistics(plan)}


SUITES = (periodic_2d, periodic_3d, channel, enclosed_2d, scalar_1d)


def _errors(plan: RolloutPlan) -> Metrics:
    """What every data set gets, as far as its points allow; calibration where the model says how sure it is."""
    metrics: Metrics = {"errors": ErrorMetric(plan)}
    if plan.has_spectra:
        metrics |= {
            "sobolev_errors": SobolevErrorMetric(plan),
            "band_errors": BandErrorMetric(plan),
            "spectra": SpectrumMetric(plan),
        }
    if not all(plan.periodic):
        metrics["boundary_errors"] = BoundaryErrorMetric(plan)
    if plan.members > 1:
        metrics["uncertainty"] = EnsembleMetric(plan)
    if plan.has_variance:
        metrics["variance"] = GaussianMetric(plan)
    return metrics


def _periodic_flow(plan: RolloutPlan) -> Metrics:
    """What an incompressible flow keeps or balances."""
    if plan.flow is None or not plan.has_spectra:
        return {}
    metrics: Metrics = {"energy_drift": EnergyDriftMetric(plan)}
    has_budget = len(plan.shape) == 2 and plan.flow.collocated and plan.frames > 1
    if has_budget and "viscosity" in plan.metadata.parameters:
        metrics["budget"] = BudgetMetric(plan)
    if plan.flow.given == "velocity":
        metrics["divergence"] = DivergenceMetric(plan)
    return metrics


def _statistics(plan: RolloutPlan) -> Metrics:
    """Statistics of each channel, pooled over space and lead time."""
    metrics: Metrics = {
        "integrals": IntegralMetric(plan),
        "moments": MomentsMetric(plan),
        "density": DensityMetric(plan),
    }
    if plan.frames > 1:
        metrics["autocorrelation"] = AutocorrelationMetric(plan)
    homogeneous = any(even and periodic for even, periodic in zip(plan.even, plan.periodic, strict=True))
    if homogeneous and plan.shared_grid and not plan.masked:
        metrics |= {"two_point": TwoPointMetric(plan), "structure_functions": StructureFunctionMetric(plan)}
    return metrics
