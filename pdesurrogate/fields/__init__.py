"""The nouns that every other folder speaks."""

from pdesurrogate.fields.batch import Batch, collate
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.normalizer import Normalizer, RunningMoments
from pdesurrogate.fields.trajectory import Context, Trajectory

__all__ = [
    "Axis",
    "Batch",
    "Channel",
    "Context",
    "Grid",
    "Metadata",
    "Normalizer",
    "RunningMoments",
    "Trajectory",
    "collate",
]
