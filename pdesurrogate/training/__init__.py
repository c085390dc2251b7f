"""Lightning modules and what they are made of."""

from pdesurrogate.training.augmentation import SquareSymmetries
from pdesurrogate.training.forecast import ForecastModule
from pdesurrogate.training.losses import MeanSquaredError, RelativeL2Joint, RelativeL2PerChannel, RelativeSobolev
from pdesurrogate.training.schedules import Constant, OneCycle, WarmupCosine

__all__ = [
    "Constant",
    "ForecastModule",
    "MeanSquaredError",
    "OneCycle",
    "RelativeL2Joint",
    "RelativeL2PerChannel",
    "RelativeSobolev",
    "SquareSymmetries",
    "WarmupCosine",
]
