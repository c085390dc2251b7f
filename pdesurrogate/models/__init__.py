"""Networks; one architecture, one file."""

from pdesurrogate.models.fno import FNO
from pdesurrogate.models.specification import recorded

__all__ = [
    "FNO",
    "recorded",
]
