"""PDEBench's files: compressible and incompressible flow, files with a group for each run, scalars in 1-D."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.data.adapters.pdebench.compressible import PdeBenchCompressible
    from pdesurrogate.data.adapters.pdebench.groups import PdeBenchGroups
    from pdesurrogate.data.adapters.pdebench.incompressible import PdeBenchIncompressible
    from pdesurrogate.data.adapters.pdebench.one_dimensional import PdeBench1d

__all__ = ["PdeBench1d", "PdeBenchCompressible", "PdeBenchGroups", "PdeBenchIncompressible"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "PdeBench1d": "one_dimensional",
        "PdeBenchCompressible": "compressible",
        "PdeBenchGroups": "groups",
        "PdeBenchIncompressible": "incompressible",
    },
)
