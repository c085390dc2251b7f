"""Turbulent flow between plane walls: the solver, what drives and starts it, closures, statistics, coarse-graining."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.simulators.channel.coarsening import ChannelCoarsening, CollocatedCoarsening
    from pdesurrogate.simulators.channel.flow import ChannelDiagnostics, ChannelFlow, SubgridModel
    from pdesurrogate.simulators.channel.forcing import MassFlux, PressureGradient
    from pdesurrogate.simulators.channel.plane_filters import CutoffFilter, ThreePointFilter
    from pdesurrogate.simulators.channel.start import LaminarChannel, TrippedChannel
    from pdesurrogate.simulators.channel.statistics import ChannelStatistics
    from pdesurrogate.simulators.channel.subgrid import DynamicSmagorinsky, Smagorinsky, Wale

__all__ = [
    "ChannelCoarsening",
    "ChannelDiagnostics",
    "ChannelFlow",
    "ChannelStatistics",
    "CollocatedCoarsening",
    "CutoffFilter",
    "DynamicSmagorinsky",
    "LaminarChannel",
    "MassFlux",
    "PressureGradient",
    "Smagorinsky",
    "SubgridModel",
    "ThreePointFilter",
    "TrippedChannel",
    "Wale",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "ChannelCoarsening": "coarsening",
        "ChannelDiagnostics": "flow",
        "ChannelFlow": "flow",
        "ChannelStatistics": "statistics",
        "CollocatedCoarsening": "coarsening",
        "CutoffFilter": "plane_filters",
        "DynamicSmagorinsky": "subgrid",
        "LaminarChannel": "start",
        "MassFlux": "forcing",
        "PressureGradient": "forcing",
        "Smagorinsky": "subgrid",
        "SubgridModel": "flow",
        "ThreePointFilter": "plane_filters",
        "TrippedChannel": "start",
        "Wale": "subgrid",
    },
)
