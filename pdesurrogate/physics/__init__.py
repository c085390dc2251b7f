"""Fourier calculus, operators, norms and residuals on grids."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.physics.box_poisson import BoxPoisson, ClosedFaces
    from pdesurrogate.physics.coarse_graining import Coarsening
    from pdesurrogate.physics.displacement import Displacement, local_displacement, phase_correlation
    from pdesurrogate.physics.finite_difference import derivative, staggered_derivative
    from pdesurrogate.physics.gpme import (
        Burgers,
        Diffusion,
        ExactConservationLaw,
        LinearAdvection,
        PorousMedium,
        Stefan,
    )
    from pdesurrogate.physics.norms import bochner_norm, relative_bochner_error, sobolev_norm, weighted_mean
    from pdesurrogate.physics.operators import divergence, gradient, velocity_from_vorticity, vorticity_from_velocity
    from pdesurrogate.physics.residuals import Estimate, March, estimate, one_interval_defect, vorticity_residual
    from pdesurrogate.physics.spectral import Shells, WaveSums, dealias_mask, resample
    from pdesurrogate.physics.staggered_channel import ChannelGrid, ChannelPoisson, stretched_faces

__all__ = [
    "BoxPoisson",
    "Burgers",
    "ChannelGrid",
    "ChannelPoisson",
    "ClosedFaces",
    "Coarsening",
    "Diffusion",
    "Displacement",
    "Estimate",
    "ExactConservationLaw",
    "LinearAdvection",
    "March",
    "PorousMedium",
    "Shells",
    "Stefan",
    "WaveSums",
    "bochner_norm",
    "dealias_mask",
    "derivative",
    "divergence",
    "estimate",
    "gradient",
    "local_displacement",
    "one_interval_defect",
    "phase_correlation",
    "relative_bochner_error",
    "resample",
    "sobolev_norm",
    "staggered_derivative",
    "stretched_faces",
    "velocity_from_vorticity",
    "vorticity_from_velocity",
    "vorticity_residual",
    "weighted_mean",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "BoxPoisson": "box_poisson",
        "Burgers": "gpme",
        "ChannelGrid": "staggered_channel",
        "ChannelPoisson": "staggered_channel",
        "ClosedFaces": "box_poisson",
        "Coarsening": "coarse_graining",
        "Diffusion": "gpme",
        "Displacement": "displacement",
        "Estimate": "residuals",
        "ExactConservationLaw": "gpme",
        "LinearAdvection": "gpme",
        "March": "residuals",
        "PorousMedium": "gpme",
        "Shells": "spectral",
        "Stefan": "gpme",
        "WaveSums": "spectral",
        "bochner_norm": "norms",
        "dealias_mask": "spectral",
        "derivative": "finite_difference",
        "divergence": "operators",
        "estimate": "residuals",
        "gradient": "operators",
        "local_displacement": "displacement",
        "one_interval_defect": "residuals",
        "phase_correlation": "displacement",
        "relative_bochner_error": "norms",
        "resample": "spectral",
        "sobolev_norm": "norms",
        "staggered_derivative": "finite_difference",
        "stretched_faces": "staggered_channel",
        "velocity_from_vorticity": "operators",
        "vorticity_from_velocity": "operators",
        "vorticity_residual": "residuals",
        "weighted_mean": "norms",
    },
)
