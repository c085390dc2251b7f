"""Whatever advances a field: the protocol, the rollout, and wrappers."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.steppers.base import OutputCorrector, ProbabilisticStepper, Stepper
    from pdesurrogate.steppers.ensemble import Ensemble, EnsembleStepper, PerturbedStarts
    from pdesurrogate.steppers.laplace import LastLayerLaplace
    from pdesurrogate.steppers.persistence import Persistence
    from pdesurrogate.steppers.probconserv import (
        ProbConserv,
        ProbConservEnsemble,
        ProbConservOutput,
        ProbConservPredicted,
    )
    from pdesurrogate.steppers.projection import DivergenceFree, FlowRate, NoSlip
    from pdesurrogate.steppers.regridded import Regridded
    from pdesurrogate.steppers.resampled import Resampled
    from pdesurrogate.steppers.rollout import Rollout, forecast
    from pdesurrogate.steppers.solenoidal import SpectralDivergenceFree
    from pdesurrogate.steppers.spectral_refiner import SpectralRefiner
    from pdesurrogate.steppers.surrogate import ProbabilisticSurrogate, Surrogate
    from pdesurrogate.steppers.uncertain import CorrelatedStepper, EnsembleMoments, MonteCarloDropout
    from pdesurrogate.steppers.wrappers import wrapped, wrappers_of

__all__ = [
    "CorrelatedStepper",
    "DivergenceFree",
    "Ensemble",
    "EnsembleMoments",
    "EnsembleStepper",
    "FlowRate",
    "LastLayerLaplace",
    "MonteCarloDropout",
    "NoSlip",
    "OutputCorrector",
    "Persistence",
    "PerturbedStarts",
    "ProbConserv",
    "ProbConservEnsemble",
    "ProbConservOutput",
    "ProbConservPredicted",
    "ProbabilisticStepper",
    "ProbabilisticSurrogate",
    "Regridded",
    "Resampled",
    "Rollout",
    "SpectralDivergenceFree",
    "SpectralRefiner",
    "Stepper",
    "Surrogate",
    "forecast",
    "wrapped",
    "wrappers_of",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "CorrelatedStepper": "uncertain",
        "DivergenceFree": "projection",
        "Ensemble": "ensemble",
        "EnsembleMoments": "uncertain",
        "EnsembleStepper": "ensemble",
        "FlowRate": "projection",
        "LastLayerLaplace": "laplace",
        "MonteCarloDropout": "uncertain",
        "NoSlip": "projection",
        "OutputCorrector": "base",
        "Persistence": "persistence",
        "PerturbedStarts": "ensemble",
        "ProbConserv": "probconserv",
        "ProbConservEnsemble": "probconserv",
        "ProbConservOutput": "probconserv",
        "ProbConservPredicted": "probconserv",
        "ProbabilisticStepper": "base",
        "ProbabilisticSurrogate": "surrogate",
        "Regridded": "regridded",
        "Resampled": "resampled",
        "Rollout": "rollout",
        "SpectralDivergenceFree": "solenoidal",
        "SpectralRefiner": "spectral_refiner",
        "Stepper": "base",
        "Surrogate": "surrogate",
        "forecast": "rollout",
        "wrapped": "wrappers",
        "wrappers_of": "wrappers",
    },
)
