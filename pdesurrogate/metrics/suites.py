"""Which metrics fit which data."""

from __future__ import annotations

from pdesurrogate.fields.grid import Metadata
from pdesurrogate.metrics.base import RolloutMetric, flow_of
from pdesurrogate.metrics.conservation import ConservationMetric, DivergenceMetric
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.metrics.spectra import SpectrumMetric


def default_suite(
    metadata: Metadata, trajectories: int, frames: int, shape: tuple[int, ...]
) -> dict[str, RolloutMetric]:
    """Errors for all data; spectra and drifts for plane periodic flow; the divergence where a velocity is given.

    Args:
        metadata: of the data set.
        trajectories: number of trajectories in all.
        frames: number of predicted frames.
        shape: points along each space axis.

    Example:
        >>> from pdesurrogate.fields.grid import Axis, Channel, Grid
        >>> grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
        >>> metadata = Metadata("example", grid, (Channel("vorticity"),), frame_interval=0.1)
        >>> list(default_suite(metadata, trajectories=4, frames=10, shape=(16, 16)))
        ['errors', 'spectra', 'conservation']
    """
    suite: dict[str, RolloutMetric] = {"errors": ErrorMetric(metadata, trajectories, frames)}
    flow = flow_of(metadata)
    if flow is None:
        return suite
    if min(shape) >= 4:
        suite["spectra"] = SpectrumMetric(metadata, trajectories, frames, shape)
    suite["conservation"] = ConservationMetric(metadata, trajectories, frames)
    if flow.given == "velocity":
        suite["divergence"] = DivergenceMetric(metadata, trajectories, frames)
    return suite
