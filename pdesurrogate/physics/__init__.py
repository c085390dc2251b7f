"""Fourier calculus, operators and norms on grids."""

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
