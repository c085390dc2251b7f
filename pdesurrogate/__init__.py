"""Neural-operator surrogates for PDEs: data, training, rollout, measurement, comparison."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.data.datamodule import ForecastData
    from pdesurrogate.evaluation.evaluator import Evaluator
    from pdesurrogate.evaluation.report import Report
    from pdesurrogate.steppers.rollout import forecast, rollout
    from pdesurrogate.steppers.surrogate import Surrogate
    from pdesurrogate.training.forecast import ForecastModule

__all__ = ["Archive", "Evaluator", "ForecastData", "ForecastModule", "Report", "Surrogate", "forecast", "rollout"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Archive": "data.archive",
        "Evaluator": "evaluation.evaluator",
        "ForecastData": "data.datamodule",
        "ForecastModule": "training.forecast",
        "Report": "evaluation.report",
        "Surrogate": "steppers.surrogate",
        "forecast": "steppers.rollout",
        "rollout": "steppers.rollout",
    },
)
