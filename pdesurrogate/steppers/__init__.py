"""Whatever advances a field: the protocol, the rollout, and wrappers."""

from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import Rollout, rollout
from pdesurrogate.steppers.surrogate import Surrogate

__all__ = [
    "Persistence",
    "Resampled",
    "Rollout",
    "Stepper",
    "Surrogate",
    "rollout",
]
