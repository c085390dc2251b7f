"""Incompressible flow in plane boxes with walls, inlets, outlets and bodies: solver, problems, starts, coarsening."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.simulators.enclosed.boundary import Boundary, FreeSlip, Inlet, Outlet, ParabolicInlet, Wall
    from pdesurrogate.simulators.enclosed.case import BodyForce, BuoyantScalar, Case, Fluid
    from pdesurrogate.simulators.enclosed.coarsening import FaceCoarsening
    from pdesurrogate.simulators.enclosed.flow import EnclosedCases, EnclosedDiagnostics, EnclosedFlow
    from pdesurrogate.simulators.enclosed.geometry import Body, Box, Disc, Rectangle
    from pdesurrogate.simulators.enclosed.problems import (
        Cavity,
        CylinderWake,
        Problem,
        SchaeferTurek,
        SmokePlume,
        StepFlow,
        Tube,
    )
    from pdesurrogate.simulators.enclosed.start import AtRest, SmokeAtRest

__all__ = [
    "AtRest",
    "Body",
    "BodyForce",
    "Boundary",
    "Box",
    "BuoyantScalar",
    "Case",
    "Cavity",
    "CylinderWake",
    "Disc",
    "EnclosedCases",
    "EnclosedDiagnostics",
    "EnclosedFlow",
    "FaceCoarsening",
    "Fluid",
    "FreeSlip",
    "Inlet",
    "Outlet",
    "ParabolicInlet",
    "Problem",
    "Rectangle",
    "SchaeferTurek",
    "SmokeAtRest",
    "SmokePlume",
    "StepFlow",
    "Tube",
    "Wall",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "AtRest": "start",
        "Body": "geometry",
        "BodyForce": "case",
        "Boundary": "boundary",
        "Box": "geometry",
        "BuoyantScalar": "case",
        "Case": "case",
        "Cavity": "problems",
        "CylinderWake": "problems",
        "Disc": "geometry",
        "EnclosedCases": "flow",
        "EnclosedDiagnostics": "flow",
        "EnclosedFlow": "flow",
        "FaceCoarsening": "coarsening",
        "Fluid": "case",
        "FreeSlip": "boundary",
        "Inlet": "boundary",
        "Outlet": "boundary",
        "ParabolicInlet": "boundary",
        "Problem": "problems",
        "Rectangle": "geometry",
        "SchaeferTurek": "problems",
        "SmokeAtRest": "start",
        "SmokePlume": "problems",
        "StepFlow": "problems",
        "Tube": "problems",
        "Wall": "boundary",
    },
)
