"""How a prediction is made to obey the equation: residuals and methods of `SpectralRefiner`."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.steppers.refinement.base import Method, Path, Problem, Residual
    from pdesurrogate.steppers.refinement.descent import LBFGS, Adam
    from pdesurrogate.steppers.refinement.head import enlarged_head
    from pdesurrogate.steppers.refinement.newton import Newton
    from pdesurrogate.steppers.refinement.parareal import Parareal
    from pdesurrogate.steppers.refinement.residuals import AnalyticResidual, Defect, SelfStartedResidual

__all__ = [
    "LBFGS",
    "Adam",
    "AnalyticResidual",
    "Defect",
    "Method",
    "Newton",
    "Parareal",
    "Path",
    "Problem",
    "Residual",
    "SelfStartedResidual",
    "enlarged_head",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Adam": "descent",
        "AnalyticResidual": "residuals",
        "Defect": "residuals",
        "LBFGS": "descent",
        "Method": "base",
        "Newton": "newton",
        "Parareal": "parareal",
        "Path": "base",
        "Problem": "base",
        "Residual": "base",
        "SelfStartedResidual": "residuals",
        "enlarged_head": "head",
    },
)
