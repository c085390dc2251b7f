"""Networks; one architecture, one file."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.models.fno import FNO
    from pdesurrogate.models.neuralop import NeuralOperator
    from pdesurrogate.models.reference_weights import load_reference_weights
    from pdesurrogate.models.sfno import SFNO
    from pdesurrogate.models.sinenet import SineNet
    from pdesurrogate.models.specification import recorded

__all__ = ["FNO", "SFNO", "NeuralOperator", "SineNet", "load_reference_weights", "recorded"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "FNO": "fno",
        "SFNO": "sfno",
        "NeuralOperator": "neuralop",
        "SineNet": "sinenet",
        "load_reference_weights": "reference_weights",
        "recorded": "specification",
    },
)
