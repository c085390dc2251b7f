"""Words of The Well's layout, and what readers and writers of it share.

R. Ohana, M. McCabe et al., *The Well: a large-scale collection of diverse physics simulations for machine learning*,
NeurIPS 2024 Datasets and Benchmarks, arXiv:2412.00568, and its page on the data format.
"""

from __future__ import annotations

import itertools
from typing import Literal

# By the order of the tensors in them; all three are there in every file, empty ones too.
FIELD_GROUPS = ("t0_fields", "t1_fields", "t2_fields")
STATISTICS = "stats.yaml"
# Folders of the splits, below that of the data.
SPLIT_FOLDERS = {"train": "train", "val": "valid", "test": "test"}

Boundary = Literal["WALL", "OPEN", "PERIODIC"]
BOUNDARIES: tuple[Boundary, ...] = ("WALL", "OPEN", "PERIODIC")
Sides = tuple[Boundary, Boundary]

# Attributes that we add to files of ours; other readers pass over them.
CHANNELS = {"name": "channel_names", "units": "channel_units", "long_name": "channel_long_names",
            "location": "channel_locations", "vector": "channel_vectors"}  # fmt: skip
CHANNEL_ORDER = "channel_order"
INTERVAL = "frame_interval"


def component_names(field: str, order: int, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the components of a tensor field, the last index fastest.

    Example:
        >>> component_names("density", 0, ("x", "y")), component_names("velocity", 1, ("x", "y"))
        (('density',), ('velocity_x', 'velocity_y'))
        >>> component_names("D", 2, ("x", "y"))
        ('D_xx', 'D_xy', 'D_yx', 'D_yy')
    """
    if not order:
        return (field,)
    return tuple(f"{field}_{''.join(indices)}" for indices in itertools.product(axes, repeat=order))
