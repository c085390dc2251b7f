"""Files of any layout by a mapping of their names, and a look into files of unknown layout."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.data.adapters.mapped.adapter import MappedFiles
    from pdesurrogate.data.adapters.mapped.describe import describe
    from pdesurrogate.data.adapters.mapped.sources import open_source

__all__ = ["MappedFiles", "describe", "open_source"]

__getattr__, __dir__ = lazy_face(__name__, {"MappedFiles": "adapter", "describe": "describe", "open_source": "sources"})
