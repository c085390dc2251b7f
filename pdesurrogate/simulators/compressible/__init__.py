"""Compressible flow in a periodic box: solver and starts."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.simulators.compressible.flow import Compressible2d, CompressibleDiagnostics
    from pdesurrogate.simulators.compressible.start import RandomWaves

__all__ = ["Compressible2d", "CompressibleDiagnostics", "RandomWaves"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {"Compressible2d": "flow", "CompressibleDiagnostics": "flow", "RandomWaves": "start"},
)
