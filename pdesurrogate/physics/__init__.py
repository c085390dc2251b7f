"""Fourier calculus, operators and norms on grids."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.physics.finite_difference import derivative, staggered_derivative
    from pdesurrogate.physics.norms import sobolev_norm, weighted_mean
    from pdesurrogate.physics.operators import divergence, gradient, velocity_from_vorticity, vorticity_from_velocity
    from pdesurrogate.physics.spectral import Shells, WaveSums, dealias_mask, resample

__all__ = [
    "Shells",
    "WaveSums",
    "dealias_mask",
    "derivative",
    "divergence",
    "gradient",
    "resample",
    "sobolev_norm",
    "staggered_derivative",
    "velocity_from_vorticity",
    "vorticity_from_velocity",
    "weighted_mean",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Shells": "spectral",
        "WaveSums": "spectral",
        "dealias_mask": "spectral",
        "derivative": "finite_difference",
        "divergence": "operators",
        "gradient": "operators",
        "resample": "spectral",
        "sobolev_norm": "norms",
        "staggered_derivative": "finite_difference",
        "velocity_from_vorticity": "operators",
        "vorticity_from_velocity": "operators",
        "weighted_mean": "norms",
    },
)
