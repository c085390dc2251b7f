"""A turbulent channel in wall units, beside published ones."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.evaluation.channel.comparison import ChannelComparison, compare_with_reference
    from pdesurrogate.evaluation.channel.free_run import add_free_run, free_run_curves
    from pdesurrogate.evaluation.channel.reference import ChannelReference, channel_reference
    from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics

__all__ = [
    "ChannelComparison",
    "ChannelReference",
    "WallUnitStatistics",
    "add_free_run",
    "channel_reference",
    "compare_with_reference",
    "free_run_curves",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "ChannelComparison": "comparison",
        "ChannelReference": "reference",
        "WallUnitStatistics": "wall_units",
        "add_free_run": "free_run",
        "channel_reference": "reference",
        "compare_with_reference": "comparison",
        "free_run_curves": "free_run",
    },
)
