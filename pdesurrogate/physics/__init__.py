"""Fourier calculus, operators and norms on grids."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.physics.norms import sobolev_norm, weighted_mean
    from pdesurrogate.physics.operators import divergence, gradient, velocity_from_vorticity, vorticity_from_velocity
    from pdesurrogate.physics.spectral import Shells, dealias_mask, resample

__all__ = [
    "Shells",
    "dealias_mask",
    "divergence",
    "gradient",
    "resample",
    "sobolev_norm",
    "velocity_from_vorticity",
    "vorticity_from_velocity",
    "weighted_mean",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "Shells": "spectral",
        "dealias_mask": "spectral",
        "divergence": "operators",
        "gradient": "operators",
        "resample": "spectral",
        "sobolev_norm": "norms",
        "velocity_from_vorticity": "operators",
        "vorticity_from_velocity": "operators",
        "weighted_mean": "norms",
    },
)
