"""Building blocks of the networks."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.layers.convolution import SpacedConvolution, TransposedConvolution
    from pdesurrogate.layers.factorized_spectral_conv import FactorizedSpectralConv
    from pdesurrogate.layers.spectral_conv import SpectralConv

__all__ = ["FactorizedSpectralConv", "SpacedConvolution", "SpectralConv", "TransposedConvolution"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "FactorizedSpectralConv": "factorized_spectral_conv",
        "SpacedConvolution": "convolution",
        "SpectralConv": "spectral_conv",
        "TransposedConvolution": "convolution",
    },
)
