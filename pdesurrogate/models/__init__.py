"""Networks; one architecture, one file."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.models.fno import FNO
    from pdesurrogate.models.neuralop import NeuralOperator
    from pdesurrogate.models.specification import recorded

__all__ = ["FNO", "NeuralOperator", "recorded"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "FNO": "fno",
        "NeuralOperator": "neuralop",
        "recorded": "specification",
    },
)
