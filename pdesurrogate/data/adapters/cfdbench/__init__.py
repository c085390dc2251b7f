"""CFDBench trees: the adapter, its splits, the authors' loaders, and what is published about the set."""

from typing import TYPE_CHECKING

from pdesurrogate._lazy import lazy_face

if TYPE_CHECKING:
    from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench
    from pdesurrogate.data.adapters.cfdbench.published import PUBLISHED, reynolds_number
    from pdesurrogate.data.adapters.cfdbench.reference import ReferenceFrames, ReferencePairs, reference_datasets
    from pdesurrogate.data.adapters.cfdbench.reference_adapter import ReferenceCfdBench
    from pdesurrogate.data.adapters.cfdbench.splits import ListedSplit, ReferenceSplit, ShuffledSplit, UnseenSubset

__all__ = [
    "PUBLISHED",
    "CfdBench",
    "ListedSplit",
    "ReferenceCfdBench",
    "ReferenceFrames",
    "ReferencePairs",
    "ReferenceSplit",
    "ShuffledSplit",
    "UnseenSubset",
    "reference_datasets",
    "reynolds_number",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "PUBLISHED": "published",
        "CfdBench": "adapter",
        "ListedSplit": "splits",
        "ReferenceCfdBench": "reference_adapter",
        "ReferenceFrames": "reference",
        "ReferencePairs": "reference",
        "ReferenceSplit": "splits",
        "ShuffledSplit": "splits",
        "UnseenSubset": "splits",
        "reference_datasets": "reference",
        "reynolds_number": "published",
    },
)
