"""The Well's own reader, the_well 1.2.0 as released, on files that are given; runs in an environment of its own.

    python well_reader.py describe FOLDER SPLIT         what it makes of a data set, as JSON
    python well_reader.py example FILE                  write a file with the library's own writer of examples
    python well_reader.py windows FOLDER HISTORY TARGET [bare]

The last reads windows of the training split on demand, one command a line: ``read INDEX FILE`` saves that window
``(time, *space, channel)`` for a comparison, ``time BATCH INDICES`` prints the CPU seconds of reading those windows,
one by one or collated. With ``bare``, coordinates and boundary conditions, which the reader gives by default, are not
asked for.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings

import numpy as np
import torch
from the_well.data.datasets import WellDataset
from the_well.data.normalization import RMSNormalization, ZScoreNormalization
from the_well.utils.dummy_data import write_dummy_data
from torch.utils.data import default_collate


def describe(folder: str, split: str) -> dict[str, object]:
    """Shapes, names, boundary conditions and a digest of all values."""
    data = WellDataset(path=folder, well_split_name=split, n_steps_input=1, n_steps_output=1)
    digest = hashlib.sha256()
    for index in range(len(data)):
        digest.update(frames(data[index]).tobytes())
    normalized = {}
    for normalization in (ZScoreNormalization, RMSNormalization):
        scaled = WellDataset(
            path=folder, well_split_name=split, use_normalization=True, normalization_type=normalization
        )
        values = torch.cat([scaled[index]["input_fields"] for index in range(len(scaled))])
        normalized[normalization.__name__] = [float(values.mean()), float(values.std()), float(values.square().mean())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the library's call of xarray.concat
        labelled = data.to_xarray(backend="numpy")
    sample = data[0]
    return {
        "windows": len(data),
        "fields": data.metadata.field_names,
        "parameters": data.metadata.constant_scalar_names,
        "resolution": data.metadata.spatial_resolution,
        "shapes": {name: list(values.shape) for name, values in sample.items()},
        "boundary_conditions": sample["boundary_conditions"].tolist(),
        "constant_scalars": sample["constant_scalars"].tolist() if "constant_scalars" in sample else [],
        "digest": digest.hexdigest(),
        "normalized": normalized,
        "xarray": {name: dict(zip(values.dims, values.shape, strict=True)) for name, values in labelled.items()},
    }


def frames(sample: dict[str, torch.Tensor]) -> np.ndarray:
    """All frames of a window."""
    return torch.cat([sample["input_fields"], sample["output_fields"]]).numpy()


def serve(folder: str, history: int, target: int, bare: bool) -> None:
    """Read windows as told until there are no more commands."""
    torch.set_num_threads(1)
    options = {"return_grid": False, "boundary_return_type": None} if bare else {}
    data = WellDataset(path=folder, well_split_name="train", n_steps_input=history, n_steps_output=target, **options)
    print(len(data), flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "read":
            np.save(words[1], frames(data[int(words[0])]))
            print("done", flush=True)
            continue
        batch, *indices = map(int, words)
        start = time.process_time()
        for first in range(0, len(indices), batch):
            samples = [data[index] for index in indices[first : first + batch]]
            if batch > 1:
                default_collate(samples)
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "describe":
        print(json.dumps(describe(*arguments)))
    elif verb == "example":
        write_dummy_data(*arguments)
    else:
        serve(arguments[0], int(arguments[1]), int(arguments[2]), bare="bare" in arguments[3:])
