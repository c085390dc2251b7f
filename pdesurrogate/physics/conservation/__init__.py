"""Conservation laws as linear constraints, and Gaussian predictions conditioned on them."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.physics.conservation.bounds import Bounded, condition_within
    from pdesurrogate.physics.conservation.budgets import (
        Budget,
        at_all_times,
        boundary_inflow,
        compressible_flux,
        contents,
        contents_covariance,
        end_inflow,
        field_integrals,
        flow_balance,
    )
    from pdesurrogate.physics.conservation.conditioning import Conditioned, condition
    from pdesurrogate.physics.conservation.constraint import LinearConstraint, joined
    from pdesurrogate.physics.conservation.covariance import Covariance, Dense, Diagonal, FourierDiagonal, LowRank
    from pdesurrogate.physics.conservation.laws import BalancedMeans, ConservationLaw, KeptMeans
    from pdesurrogate.physics.conservation.quadratic import QuadraticConstraint, condition_quadratic
    from pdesurrogate.physics.conservation.rows import (
        DenseRows,
        DisjointRows,
        control_volumes,
        product_weights,
        quadrature_weights,
    )
    from pdesurrogate.physics.conservation.smoothness import second_differences, smoothed
    from pdesurrogate.physics.conservation.solenoidal import Solenoidal

__all__ = [
    "BalancedMeans",
    "Bounded",
    "Budget",
    "Conditioned",
    "ConservationLaw",
    "Covariance",
    "Dense",
    "DenseRows",
    "Diagonal",
    "DisjointRows",
    "FourierDiagonal",
    "KeptMeans",
    "LinearConstraint",
    "LowRank",
    "QuadraticConstraint",
    "Solenoidal",
    "at_all_times",
    "boundary_inflow",
    "compressible_flux",
    "condition",
    "condition_quadratic",
    "condition_within",
    "contents",
    "contents_covariance",
    "control_volumes",
    "end_inflow",
    "field_integrals",
    "flow_balance",
    "joined",
    "product_weights",
    "quadrature_weights",
    "second_differences",
    "smoothed",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "BalancedMeans": "laws",
        "Bounded": "bounds",
        "Budget": "budgets",
        "Conditioned": "conditioning",
        "ConservationLaw": "laws",
        "Covariance": "covariance",
        "Dense": "covariance",
        "DenseRows": "rows",
        "Diagonal": "covariance",
        "DisjointRows": "rows",
        "FourierDiagonal": "covariance",
        "KeptMeans": "laws",
        "LinearConstraint": "constraint",
        "LowRank": "covariance",
        "QuadraticConstraint": "quadratic",
        "Solenoidal": "solenoidal",
        "at_all_times": "budgets",
        "boundary_inflow": "budgets",
        "compressible_flux": "budgets",
        "condition": "conditioning",
        "condition_quadratic": "quadratic",
        "condition_within": "bounds",
        "contents": "budgets",
        "contents_covariance": "budgets",
        "control_volumes": "rows",
        "end_inflow": "budgets",
        "field_integrals": "budgets",
        "flow_balance": "budgets",
        "joined": "constraint",
        "product_weights": "rows",
        "quadrature_weights": "rows",
        "second_differences": "smoothness",
        "smoothed": "smoothness",
    },
)
