"""The nouns that every other folder speaks."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.fields.batch import Batch, collate
    from pdesurrogate.fields.convection import RunningConvection, convected
    from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
    from pdesurrogate.fields.normalizer import Normalizer, RunningMoments
    from pdesurrogate.fields.point_set import PointSet
    from pdesurrogate.fields.trajectory import Context, Trajectory

__all__ = [
    "Axis",
    "Batch",
    "Channel",
    "Context",
    "Grid",
    "Metadata",
    "Normalizer",
    "PointSet",
    "RunningConvection",
    "RunningMoments",
    "Trajectory",
    "collate",
    "convected",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Axis": "grid",
        "Batch": "batch",
        "Channel": "grid",
        "Context": "trajectory",
        "Grid": "grid",
        "Metadata": "grid",
        "Normalizer": "normalizer",
        "PointSet": "point_set",
        "RunningConvection": "convection",
        "RunningMoments": "normalizer",
        "Trajectory": "trajectory",
        "collate": "batch",
        "convected": "convection",
    },
)
