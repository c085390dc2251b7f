"""A turbulent channel in wall units, beside published ones."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.evaluation.channel.comparison import ChannelComparison, compare_with_reference
    from pdesurrogate.evaluation.channel.reference import ChannelReference, channel_reference
    from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics

__all__ = [
    "ChannelComparison",
    "ChannelReference",
    "WallUnitStatistics",
    "channel_reference",
    "compare_with_reference",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "ChannelComparison": "comparison",
        "ChannelReference": "reference",
        "WallUnitStatistics": "wall_units",
        "channel_reference": "reference",
        "compare_with_reference": "comparison",
    },
)
