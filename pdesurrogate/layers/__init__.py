"""Building blocks of the networks."""

from pdesurrogate.layers.spectral_conv import SpectralConv

__all__ = [
    "SpectralConv",
]
