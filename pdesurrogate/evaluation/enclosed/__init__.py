"""Cavities and cylinders beside published ones, and what figures of enclosed flows show."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.evaluation.enclosed.centerlines import Centerlines, Line, cavity_centerlines, largest_differences
    from pdesurrogate.evaluation.enclosed.fields import stream_function, velocity_in_cells, vorticity_in_cells
    from pdesurrogate.evaluation.enclosed.forces import ForceCoefficients
    from pdesurrogate.evaluation.enclosed.reference import (
        SCHAEFER_TUREK_2D2,
        CavityReference,
        CylinderReference,
        cavity_reference,
    )

__all__ = [
    "SCHAEFER_TUREK_2D2",
    "CavityReference",
    "Centerlines",
    "CylinderReference",
    "ForceCoefficients",
    "Line",
    "cavity_centerlines",
    "cavity_reference",
    "largest_differences",
    "stream_function",
    "velocity_in_cells",
    "vorticity_in_cells",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "SCHAEFER_TUREK_2D2": "reference",
        "CavityReference": "reference",
        "Centerlines": "centerlines",
        "CylinderReference": "reference",
        "ForceCoefficients": "forces",
        "Line": "centerlines",
        "cavity_centerlines": "centerlines",
        "cavity_reference": "reference",
        "largest_differences": "centerlines",
        "stream_function": "fields",
        "velocity_in_cells": "fields",
        "vorticity_in_cells": "fields",
    },
)
