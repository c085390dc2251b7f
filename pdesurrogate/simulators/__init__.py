"""Solvers that fill archives and serve as baselines; each is a `Stepper`."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.simulators.forcing import DiagonalForcing, KolmogorovForcing
    from pdesurrogate.simulators.navier_stokes import NavierStokes2d
    from pdesurrogate.simulators.random_fields import GaussianRandomField, McWilliams
    from pdesurrogate.simulators.recipe import Recipe, generate, load_recipe
    from pdesurrogate.simulators.time_schemes import ETDRK4, RK2CrankNicolson, RK4CrankNicolson

__all__ = [
    "ETDRK4",
    "DiagonalForcing",
    "GaussianRandomField",
    "KolmogorovForcing",
    "McWilliams",
    "NavierStokes2d",
    "RK2CrankNicolson",
    "RK4CrankNicolson",
    "Recipe",
    "generate",
    "load_recipe",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "DiagonalForcing": "forcing",
        "ETDRK4": "time_schemes",
        "GaussianRandomField": "random_fields",
        "KolmogorovForcing": "forcing",
        "McWilliams": "random_fields",
        "NavierStokes2d": "navier_stokes",
        "RK2CrankNicolson": "time_schemes",
        "RK4CrankNicolson": "time_schemes",
        "Recipe": "recipe",
        "generate": "recipe",
        "load_recipe": "recipe",
    },
)
