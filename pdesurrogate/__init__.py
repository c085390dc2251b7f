"""Neural-operator surrogates for PDEs: data, training, rollout, measurement, comparison.

Names are imported when first used (PEP 562), so that ``import pdesurrogate`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.data.datamodule import ForecastData
    from pdesurrogate.evaluation.evaluator import Evaluator
    from pdesurrogate.evaluation.report import Report
    from pdesurrogate.steppers.rollout import rollout
    from pdesurrogate.steppers.surrogate import Surrogate
    from pdesurrogate.training.forecast import ForecastModule

_HOMES = {
    "Archive": "data.archive",
    "Evaluator": "evaluation.evaluator",
    "ForecastData": "data.datamodule",
    "ForecastModule": "training.forecast",
    "Report": "evaluation.report",
    "Surrogate": "steppers.surrogate",
    "rollout": "steppers.rollout",
}

__all__ = ["Archive", "Evaluator", "ForecastData", "ForecastModule", "Report", "Surrogate", "rollout"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
