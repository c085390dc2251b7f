"""Lightning modules and what they are made of."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.training.augmentation import SquareSymmetries
    from pdesurrogate.training.callbacks import PredictionArchive, ReproducibleSteps
    from pdesurrogate.training.forecast import ForecastModule
    from pdesurrogate.training.losses import (
        FirstFrames,
        FluctuationL2,
        LogLineSpectrum,
        MeanSquaredError,
        PlaneMoments,
        RelativeL2Joint,
        RelativeL2PerChannel,
        RelativeSobolev,
        WeightedSum,
    )
    from pdesurrogate.training.own_rollouts import OwnRollouts
    from pdesurrogate.training.schedules import Constant, OneCycle, StepDecay, WarmupCosine

__all__ = [
    "Constant",
    "FirstFrames",
    "FluctuationL2",
    "ForecastModule",
    "LogLineSpectrum",
    "MeanSquaredError",
    "OneCycle",
    "OwnRollouts",
    "PlaneMoments",
    "PredictionArchive",
    "RelativeL2Joint",
    "RelativeL2PerChannel",
    "RelativeSobolev",
    "ReproducibleSteps",
    "SquareSymmetries",
    "StepDecay",
    "WarmupCosine",
    "WeightedSum",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Constant": "schedules",
        "FirstFrames": "losses",
        "FluctuationL2": "losses",
        "ForecastModule": "forecast",
        "LogLineSpectrum": "losses",
        "MeanSquaredError": "losses",
        "OneCycle": "schedules",
        "OwnRollouts": "own_rollouts",
        "PlaneMoments": "losses",
        "PredictionArchive": "callbacks",
        "RelativeL2Joint": "losses",
        "RelativeL2PerChannel": "losses",
        "RelativeSobolev": "losses",
        "ReproducibleSteps": "callbacks",
        "SquareSymmetries": "augmentation",
        "StepDecay": "schedules",
        "WarmupCosine": "schedules",
        "WeightedSum": "losses",
    },
)
