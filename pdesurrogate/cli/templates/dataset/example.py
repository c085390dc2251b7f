"""Small files in the layout of the adapter, so that everything runs before your own are there.

``python -m pdesurrogate.cli.templates.dataset.example DIR`` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

TRAJECTORIES = {"train": 6, "val": 2, "test": 2}


def write_example(directory: str | Path, trajectories: Mapping[str, int] = TRAJECTORIES) -> list[Path]:
    """Two waves that cross a periodic unit square, of random phases, 12 frames 0.1 apart on 32 x 32 points."""
    random = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(32) / 32, np.arange(32) / 32, indexing="ij")
    time = 0.1 * np.arange(12)[:, None, None]
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for split, count in trajectories.items():
        first, second = random.random((2, count, 1, 1, 1))
        values = np.sin(2 * np.pi * (x + 2 * y - time + first)) + 0.5 * np.cos(2 * np.pi * (x - time + second))
        files.append(folder / f"{split}.npy")
        np.save(files[-1], values[:, :, None].astype(np.float32))  # (trajectory, time, channel, x, y)
    return files


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Expected one argument: the folder to write to.")
    print(*write_example(sys.argv[1]), sep="\n")
