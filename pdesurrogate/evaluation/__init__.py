"""Rolling out, measuring, reporting."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.evaluation.baselines import coarse_solver, persistence
    from pdesurrogate.evaluation.checks import failed_checks
    from pdesurrogate.evaluation.evaluator import Evaluator, ModelCard
    from pdesurrogate.evaluation.report import Report

__all__ = ["Evaluator", "ModelCard", "Report", "coarse_solver", "failed_checks", "persistence"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Evaluator": "evaluator",
        "ModelCard": "evaluator",
        "Report": "report",
        "coarse_solver": "baselines",
        "failed_checks": "checks",
        "persistence": "baselines",
    },
)
