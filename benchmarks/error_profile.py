"""How large a surrogate's one-step errors are at each height of a channel, as variances for `ProbConserv`.

    python benchmarks/error_profile.py CKPT DATA > benchmarks/laws/flow_rate_by_height.yaml

Of the validation split: mean squares over time, trajectories and the periodic axes, for each channel and height.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml

from pdesurrogate.data.archive import Archive
from pdesurrogate.fields.batch import collate
from pdesurrogate.steppers.surrogate import Surrogate


def main(checkpoint: str, data: str) -> int:
    """Print a file for ``pdesurrogate evaluate --wrap``; the exit status."""
    surrogate = Surrogate.from_checkpoint(checkpoint)
    axes = surrogate.metadata.grid.axes
    periodic = [2 + place for place, axis in enumerate(axes) if axis.period is not None]
    squares = []
    with torch.no_grad():
        for trajectory in Archive(data).trajectories("val"):
            frames = trajectory.read()
            context = collate([trajectory.context] * 16)
            for first in range(0, len(frames) - 16 - surrogate.history_frames, 16):
                windows = frames[first : first + 16 + surrogate.history_frames]
                history = windows.unfold(0, surrogate.history_frames, 1)[:16].movedim(-1, 1)
                error = surrogate.step(history, context)[:, 0] - windows[surrogate.history_frames :]
                squares.append(error.double().square().mean((0, *(axis for axis in periodic))))
    profile = torch.stack(squares).mean(0).flatten(1)
    shown = [[float(f"{value:.4g}") for value in line] for line in profile.tolist()]
    law = {"class_path": "pdesurrogate.physics.conservation.laws.KeptMeans", "init_args": {"of": ["velocity_x"]}}
    wrapper = {
        "class_path": "pdesurrogate.steppers.probconserv.ProbConserv",
        "init_args": {"law": law, "variances": shown},
    }
    print(
        f"# Made by benchmarks/error_profile.py from {Path(checkpoint).stem}: variances of one-step errors by height,"
    )
    print(f"# of {', '.join(surrogate.metadata.channel_names)}, so that the flow rate is met where errors are largest.")
    print(yaml.safe_dump([wrapper], sort_keys=False, default_flow_style=None, width=120), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
