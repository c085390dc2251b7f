"""PDEArena's files: smoke in a closed box, and shallow water on a sphere."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.data.adapters.pdearena.navier_stokes import PdeArenaNavierStokes
    from pdesurrogate.data.adapters.pdearena.shallow_water import PdeArenaShallowWater

__all__ = ["PdeArenaNavierStokes", "PdeArenaShallowWater"]

__getattr__, __dir__ = lazy_face(
    __name__, {"PdeArenaNavierStokes": "navier_stokes", "PdeArenaShallowWater": "shallow_water"}
)
