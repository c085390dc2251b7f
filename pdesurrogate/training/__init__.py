"""Lightning modules and what they are made of."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.training.augmentation import SquareSymmetries
    from pdesurrogate.training.callbacks import PredictionArchive, ReproducibleSteps
    from pdesurrogate.training.forecast import ForecastModule
    from pdesurrogate.training.losses import MeanSquaredError, RelativeL2Joint, RelativeL2PerChannel, RelativeSobolev
    from pdesurrogate.training.schedules import Constant, OneCycle, WarmupCosine

__all__ = [
    "Constant",
    "ForecastModule",
    "MeanSquaredError",
    "OneCycle",
    "PredictionArchive",
    "RelativeL2Joint",
    "RelativeL2PerChannel",
    "RelativeSobolev",
    "ReproducibleSteps",
    "SquareSymmetries",
    "WarmupCosine",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Constant": "schedules",
        "ForecastModule": "forecast",
        "MeanSquaredError": "losses",
        "OneCycle": "schedules",
        "PredictionArchive": "callbacks",
        "RelativeL2Joint": "losses",
        "RelativeL2PerChannel": "losses",
        "RelativeSobolev": "losses",
        "ReproducibleSteps": "callbacks",
        "SquareSymmetries": "augmentation",
        "WarmupCosine": "schedules",
    },
)
