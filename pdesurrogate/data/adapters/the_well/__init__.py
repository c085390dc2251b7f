"""Files in the layout of The Well: the adapter, and what readers and writers of the layout share."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.data.adapters.the_well.adapter import TheWell

__all__ = ["TheWell"]

__getattr__, __dir__ = lazy_face(__name__, {"TheWell": "adapter"})
