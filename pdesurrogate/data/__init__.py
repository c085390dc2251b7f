"""From files to batches."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.data.archive import Archive, ArchiveWriter
    from pdesurrogate.data.cfdbench_tree import write_cfdbench_tree
    from pdesurrogate.data.datamodule import ForecastData
    from pdesurrogate.data.frame_data import FrameData
    from pdesurrogate.data.point_data import PointData
    from pdesurrogate.data.subsets import Subset
    from pdesurrogate.data.windows import Windows

__all__ = [
    "Archive",
    "ArchiveWriter",
    "ForecastData",
    "FrameData",
    "PointData",
    "Subset",
    "Windows",
    "write_cfdbench_tree",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Archive": "archive",
        "ArchiveWriter": "archive",
        "ForecastData": "datamodule",
        "FrameData": "frame_data",
        "PointData": "point_data",
        "Subset": "subsets",
        "Windows": "windows",
        "write_cfdbench_tree": "cfdbench_tree",
    },
)
