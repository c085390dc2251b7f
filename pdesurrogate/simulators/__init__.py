"""Solvers that fill archives and serve as baselines; each is a `Stepper`."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.simulators.cases import CaseOf, Sweep
    from pdesurrogate.simulators.channel.flow import ChannelFlow
    from pdesurrogate.simulators.compressible.flow import Compressible2d
    from pdesurrogate.simulators.compressible.start import RandomWaves
    from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
    from pdesurrogate.simulators.forcing import DiagonalForcing, KolmogorovForcing
    from pdesurrogate.simulators.generation.cell_frames import CellAverages, EveryCell
    from pdesurrogate.simulators.generation.restart import FromRestart
    from pdesurrogate.simulators.gpme_samples import GpmeSamples
    from pdesurrogate.simulators.navier_stokes import NavierStokes2d
    from pdesurrogate.simulators.passive_scalar import PassiveScalar2d, VelocityAndScalar
    from pdesurrogate.simulators.random_fields import (
        FilteredVelocity,
        GaussianRandomField,
        McWilliams,
        TaylorGreen,
        taylor_green_vorticity,
    )
    from pdesurrogate.simulators.recipe import Recipe, generate, load_recipe, merge_statistics
    from pdesurrogate.simulators.shallow_water import (
        DisturbedLake,
        GaussianHill,
        ShallowWater2d,
        SmoothWaves,
        WaterColumns,
    )
    from pdesurrogate.simulators.time_schemes import ETDRK4, RK2CrankNicolson, RK4CrankNicolson

__all__ = [
    "ETDRK4",
    "CaseOf",
    "CellAverages",
    "ChannelFlow",
    "Compressible2d",
    "DiagonalForcing",
    "DisturbedLake",
    "EnclosedFlow",
    "EveryCell",
    "FilteredVelocity",
    "FromRestart",
    "GaussianHill",
    "GaussianRandomField",
    "GpmeSamples",
    "KolmogorovForcing",
    "McWilliams",
    "NavierStokes2d",
    "PassiveScalar2d",
    "RK2CrankNicolson",
    "RK4CrankNicolson",
    "RandomWaves",
    "Recipe",
    "ShallowWater2d",
    "SmoothWaves",
    "Sweep",
    "TaylorGreen",
    "VelocityAndScalar",
    "WaterColumns",
    "generate",
    "load_recipe",
    "merge_statistics",
    "taylor_green_vorticity",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "CaseOf": "cases",
        "CellAverages": "generation.cell_frames",
        "ChannelFlow": "channel.flow",
        "Compressible2d": "compressible.flow",
        "DiagonalForcing": "forcing",
        "DisturbedLake": "shallow_water",
        "ETDRK4": "time_schemes",
        "EnclosedFlow": "enclosed.flow",
        "EveryCell": "generation.cell_frames",
        "FilteredVelocity": "random_fields",
        "FromRestart": "generation.restart",
        "GaussianHill": "shallow_water",
        "GaussianRandomField": "random_fields",
        "GpmeSamples": "gpme_samples",
        "KolmogorovForcing": "forcing",
        "McWilliams": "random_fields",
        "NavierStokes2d": "navier_stokes",
        "PassiveScalar2d": "passive_scalar",
        "RK2CrankNicolson": "time_schemes",
        "RK4CrankNicolson": "time_schemes",
        "RandomWaves": "compressible.start",
        "Recipe": "recipe",
        "ShallowWater2d": "shallow_water",
        "SmoothWaves": "shallow_water",
        "Sweep": "cases",
        "TaylorGreen": "random_fields",
        "VelocityAndScalar": "passive_scalar",
        "WaterColumns": "shallow_water",
        "generate": "recipe",
        "load_recipe": "recipe",
        "merge_statistics": "recipe",
        "taylor_green_vorticity": "random_fields",
    },
)
