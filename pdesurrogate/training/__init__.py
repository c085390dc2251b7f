"""Lightning modules and what they are made of."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.training.augmentation import SquareSymmetries
    from pdesurrogate.training.callbacks import PredictionArchive, ReproducibleSteps
    from pdesurrogate.training.case_regression import CaseRegressionModule, load_case_network, predict_frames
    from pdesurrogate.training.forecast import ForecastModule
    from pdesurrogate.training.losses import (
        FirstFrames,
        FluctuationL2,
        LogLineSpectrum,
        MeanDrift,
        MeanSquaredError,
        NormalizedMSE,
        PlaneMoments,
        RelativeL2Joint,
        RelativeL2PerChannel,
        RelativeSobolev,
        WeightedSum,
    )
    from pdesurrogate.training.own_rollouts import OwnRollouts
    from pdesurrogate.training.probabilistic_losses import (
        GaussianCRPS,
        GaussianLikelihood,
        HeadDiversity,
        MeanOverMembers,
        Pinball,
    )
    from pdesurrogate.training.regression import EquationResidual, RegressionModule, load_neural_process
    from pdesurrogate.training.schedules import Constant, OneCycle, StepDecay, WarmupCosine

__all__ = [
    "CaseRegressionModule",
    "Constant",
    "EquationResidual",
    "FirstFrames",
    "FluctuationL2",
    "ForecastModule",
    "GaussianCRPS",
    "GaussianLikelihood",
    "HeadDiversity",
    "LogLineSpectrum",
    "MeanDrift",
    "MeanOverMembers",
    "MeanSquaredError",
    "NormalizedMSE",
    "OneCycle",
    "OwnRollouts",
    "Pinball",
    "PlaneMoments",
    "PredictionArchive",
    "RegressionModule",
    "RelativeL2Joint",
    "RelativeL2PerChannel",
    "RelativeSobolev",
    "ReproducibleSteps",
    "SquareSymmetries",
    "StepDecay",
    "WarmupCosine",
    "WeightedSum",
    "load_case_network",
    "load_neural_process",
    "predict_frames",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "CaseRegressionModule": "case_regression",
        "Constant": "schedules",
        "EquationResidual": "regression",
        "FirstFrames": "losses",
        "FluctuationL2": "losses",
        "ForecastModule": "forecast",
        "GaussianCRPS": "probabilistic_losses",
        "GaussianLikelihood": "probabilistic_losses",
        "HeadDiversity": "probabilistic_losses",
        "LogLineSpectrum": "losses",
        "MeanDrift": "losses",
        "MeanOverMembers": "probabilistic_losses",
        "MeanSquaredError": "losses",
        "NormalizedMSE": "losses",
        "OneCycle": "schedules",
        "OwnRollouts": "own_rollouts",
        "Pinball": "probabilistic_losses",
        "PlaneMoments": "losses",
        "PredictionArchive": "callbacks",
        "RegressionModule": "regression",
        "RelativeL2Joint": "losses",
        "RelativeL2PerChannel": "losses",
        "RelativeSobolev": "losses",
        "ReproducibleSteps": "callbacks",
        "SquareSymmetries": "augmentation",
        "StepDecay": "schedules",
        "WarmupCosine": "schedules",
        "WeightedSum": "losses",
        "load_case_network": "case_regression",
        "load_neural_process": "regression",
        "predict_frames": "case_regression",
    },
)
