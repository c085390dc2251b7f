"""From files to batches."""

from pdesurrogate.data.archive import Archive, ArchiveWriter
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.windows import Windows

__all__ = [
    "Archive",
    "ArchiveWriter",
    "ForecastData",
    "Windows",
]
