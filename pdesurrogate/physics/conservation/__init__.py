"""Conservation laws as linear constraints, and Gaussian predictions conditioned on them."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.physics.conservation.conditioning import Conditioned, condition
    from pdesurrogate.physics.conservation.constraint import LinearConstraint, joined
    from pdesurrogate.physics.conservation.covariance import Covariance, Dense, Diagonal, FourierDiagonal, LowRank
    from pdesurrogate.physics.conservation.rows import (
        DenseRows,
        DisjointRows,
        control_volumes,
        product_weights,
        quadrature_weights,
    )

__all__ = [
    "Conditioned",
    "Covariance",
    "Dense",
    "DenseRows",
    "Diagonal",
    "DisjointRows",
    "FourierDiagonal",
    "LinearConstraint",
    "LowRank",
    "condition",
    "control_volumes",
    "joined",
    "product_weights",
    "quadrature_weights",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Conditioned": "conditioning",
        "Covariance": "covariance",
        "Dense": "covariance",
        "DenseRows": "rows",
        "Diagonal": "covariance",
        "DisjointRows": "rows",
        "FourierDiagonal": "covariance",
        "LinearConstraint": "constraint",
        "LowRank": "covariance",
        "condition": "conditioning",
        "control_volumes": "rows",
        "joined": "constraint",
        "product_weights": "rows",
        "quadrature_weights": "rows",
    },
)
