"""Rolling out, measuring, reporting."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.evaluation.baselines import coarse_solver, persistence, solver_sweep
    from pdesurrogate.evaluation.card import ModelCard
    from pdesurrogate.evaluation.checks import failed_checks
    from pdesurrogate.evaluation.cost import Performance, SolverSweep, break_even, cost_of, speed_up
    from pdesurrogate.evaluation.evaluator import Evaluator
    from pdesurrogate.evaluation.intervals import bootstrap_interval
    from pdesurrogate.evaluation.memory import peak_memory
    from pdesurrogate.evaluation.misalignment import (
        Misalignment,
        add_misalignment,
        measure_misalignment,
        recorded_features,
        shuffled_windows,
    )
    from pdesurrogate.evaluation.one_step import add_one_step
    from pdesurrogate.evaluation.refinement import Refinement, RefinementTrial
    from pdesurrogate.evaluation.refinement_report import add_refinement, add_solver
    from pdesurrogate.evaluation.report import Report

__all__ = [
    "Evaluator",
    "Misalignment",
    "ModelCard",
    "Performance",
    "Refinement",
    "RefinementTrial",
    "Report",
    "SolverSweep",
    "add_misalignment",
    "add_one_step",
    "add_refinement",
    "add_solver",
    "bootstrap_interval",
    "break_even",
    "coarse_solver",
    "cost_of",
    "failed_checks",
    "measure_misalignment",
    "peak_memory",
    "persistence",
    "recorded_features",
    "shuffled_windows",
    "solver_sweep",
    "speed_up",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Evaluator": "evaluator",
        "Misalignment": "misalignment",
        "ModelCard": "card",
        "Performance": "cost",
        "Refinement": "refinement",
        "RefinementTrial": "refinement",
        "Report": "report",
        "SolverSweep": "cost",
        "add_misalignment": "misalignment",
        "add_one_step": "one_step",
        "add_refinement": "refinement_report",
        "add_solver": "refinement_report",
        "bootstrap_interval": "intervals",
        "break_even": "cost",
        "coarse_solver": "baselines",
        "cost_of": "cost",
        "failed_checks": "checks",
        "measure_misalignment": "misalignment",
        "peak_memory": "memory",
        "persistence": "baselines",
        "recorded_features": "misalignment",
        "shuffled_windows": "misalignment",
        "solver_sweep": "baselines",
        "speed_up": "cost",
    },
)
