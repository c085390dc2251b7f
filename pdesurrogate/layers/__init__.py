"""Building blocks of the networks."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.layers.spectral_conv import SpectralConv

__all__ = ["SpectralConv"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "SpectralConv": "spectral_conv",
    },
)
