"""Which metrics fit which data: one function for each kind of problem, and the choice among them by the metadata.

A suite asks for metrics by name and gets those that the data allow. Whether they do is for each metric's constructor to
say, and nobody else: one that refuses is left out, and `left_out` repeats its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.centerlines import CenterlineMetric
from pdesurrogate.metrics.channel import ChannelHistoryMetric, ChannelMetric
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
from pdesurrogate.metrics.forces import ForceMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.sections import SectionBalanceMetric
from pdesurrogate.metrics.spectra import SpectrumMetric
from pdesurrogate.metrics.statistics import DensityMetric, MomentsMetric
from pdesurrogate.metrics.uncertainty import EnsembleMetric, GaussianMetric
from pdesurrogate.metrics.vortices import VortexMetric

Metrics = dict[str, RolloutMetric]


# All that a suite may leave out. Errors it may not: data without them cannot be evaluated.
_METRICS: dict[str, Callable[[RolloutPlan], RolloutMetric]] = {
    "sobolev_errors": SobolevErrorMetric,
    "band_errors": BandErrorMetric,
    "spectra": SpectrumMetric,
    "boundary_errors": BoundaryErrorMetric,
    "uncertainty": EnsembleMetric,
    "variance": GaussianMetric,
    "energy_drift": EnergyDriftMetric,
    "budget": BudgetMetric,
    "divergence": DivergenceMetric,
    "flux_balance": FluxBalanceMetric,
    "section_balance": SectionBalanceMetric,
    "no_slip": NoSlipMetric,
    "forces": ForceMetric,
    "centerlines": CenterlineMetric,
    "vortices": VortexMetric,
    "channel": ChannelMetric,
    "channel_history": ChannelHistoryMetric,
    "line_spectra": LineSpectrumMetric,
    "integrals": IntegralMetric,
    "moments": MomentsMetric,
    "density": DensityMetric,
    "autocorrelation": AutocorrelationMetric,
    "two_point": TwoPointMetric,
    "structure_functions": StructureFunctionMetric,
}


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
    return channel if _fitting(plan, "channel") else enclosed_2d


def left_out(plan: RolloutPlan) -> dict[str, str]:
    """Which metrics of any suite refuse the data, and why, in their own words.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
        >>> grid = Grid((Axis("x", period=1.0),))
        >>> metadata = Metadata("example", grid, (Channel("u"),), frame_interval=0.1)
        >>> plan = RolloutPlan(metadata, trajectories=4, frames=1, coordinates=grid.uniform_coordinates((16,)))
        >>> left_out(plan)["boundary_errors"]
        'Expected an axis that is not periodic for boundary errors; leave this metric out.'
    """
    return _tried(plan, _METRICS)[1]


def periodic_2d(plan: RolloutPlan) -> Metrics:
    """Errors by norm and band, spectra, statistics, and what the flow keeps, in a plane periodic box."""
    return {**_errors(plan), **_periodic_flow(plan), **_statistics(plan)}


def periodic_3d(plan: RolloutPlan) -> Metrics:
    """As `periodic_2d`, in three dimensions, and the distribution of Q where there is a velocity."""
    return {**periodic_2d(plan), **_fitting(plan, "vortices")}


def channel(plan: RolloutPlan) -> Metrics:
    """Errors, profiles in wall units, line spectra, walls, statistics, of a velocity between two parallel walls."""
    flow = _fitting(plan, "channel", "channel_history", "line_spectra", "divergence")
    if len(plan.shape) == 3:
        flow |= _fitting(plan, "vortices")
    return {**_errors(plan), **flow, **_statistics(plan)}


def enclosed_2d(plan: RolloutPlan) -> Metrics:
    """Errors, also on the boundary, flow rates, walls, forces, centerlines, statistics, in a box with walls, inlets,
    outlets or bodies.
    """
    flow = _fitting(plan, "divergence", "flux_balance", "section_balance", "no_slip", "forces", "centerlines")
    return {**_errors(plan), **flow, **_statistics(plan)}


def scalar_1d(plan: RolloutPlan) -> Metrics:
    """Errors by norm and band, spectra and statistics of fields on a line."""
    return {**_errors(plan), **_statistics(plan)}


SUITES = (periodic_2d, periodic_3d, channel, enclosed_2d, scalar_1d)


def _fitting(plan: RolloutPlan, *names: str) -> Metrics:
    """Those of the named metrics that do not refuse the data."""
    return _tried(plan, names)[0]


def _tried(plan: RolloutPlan, names: Iterable[str]) -> tuple[Metrics, dict[str, str]]:
    """The metrics that fit, and the reasons of those that do not."""
    metrics: Metrics = {}
    reasons: dict[str, str] = {}
    for name in names:
        try:
            metrics[name] = _METRICS[name](plan)
        except ValueError as refusal:
            reasons[name] = str(refusal)
    return metrics, reasons


def _errors(plan: RolloutPlan) -> Metrics:
    """What every data set gets, as far as its points allow; calibration where the model says how sure it is."""
    metrics: Metrics = {"errors": ErrorMetric(plan)}
    metrics |= _fitting(plan, "sobolev_errors", "band_errors", "spectra", "boundary_errors", "uncertainty")
    # Any data have room for a variance; whether there is one is a matter of the model.
    return metrics | _fitting(plan, "variance") if plan.has_variance else metrics


def _periodic_flow(plan: RolloutPlan) -> Metrics:
    """What an incompressible flow keeps or balances, and rest in the bodies that it passes."""
    return _fitting(plan, "energy_drift", "budget", "divergence", "no_slip")


def _statistics(plan: RolloutPlan) -> Metrics:
    """Statistics of each channel, pooled over space and lead time."""
    return _fitting(plan, "integrals", "moments", "density", "autocorrelation", "two_point", "structure_functions")
