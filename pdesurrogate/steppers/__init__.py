"""Whatever advances a field: the protocol, the rollout, and wrappers."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.steppers.base import ProbabilisticStepper, Stepper
    from pdesurrogate.steppers.ensemble import Ensemble, EnsembleStepper, PerturbedStarts
    from pdesurrogate.steppers.persistence import Persistence
    from pdesurrogate.steppers.projection import DivergenceFree, FlowRate, NoSlip
    from pdesurrogate.steppers.resampled import Resampled
    from pdesurrogate.steppers.rollout import Rollout, forecast
    from pdesurrogate.steppers.spectral_refiner import SpectralRefiner
    from pdesurrogate.steppers.surrogate import Surrogate
    from pdesurrogate.steppers.wrappers import wrapped, wrappers_of

__all__ = [
    "DivergenceFree",
    "Ensemble",
    "EnsembleStepper",
    "FlowRate",
    "NoSlip",
    "Persistence",
    "PerturbedStarts",
    "ProbabilisticStepper",
    "Resampled",
    "Rollout",
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
        "DivergenceFree": "projection",
        "Ensemble": "ensemble",
        "EnsembleStepper": "ensemble",
        "FlowRate": "projection",
        "NoSlip": "projection",
        "Persistence": "persistence",
        "PerturbedStarts": "ensemble",
        "ProbabilisticStepper": "base",
        "Resampled": "resampled",
        "Rollout": "rollout",
        "SpectralRefiner": "spectral_refiner",
        "Stepper": "base",
        "Surrogate": "surrogate",
        "forecast": "rollout",
        "wrapped": "wrappers",
        "wrappers_of": "wrappers",
    },
)
