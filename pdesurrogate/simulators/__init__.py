"""Solvers that fill archives and serve as baselines; each is a `Stepper`."""

from pdesurrogate.simulators.forcing import DiagonalForcing, KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import GaussianRandomField, McWilliams
from pdesurrogate.simulators.recipe import Recipe, generate, load_recipe
from pdesurrogate.simulators.time_schemes import ETDRK4, RK2CrankNicolson, RK4CrankNicolson

__all__ = [
    "DiagonalForcing",
    "ETDRK4",
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
