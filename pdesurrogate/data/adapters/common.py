"""What readers of published vorticity files share: splits in file order, evenly spaced times, square periodic boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory


def splits_in_file_order(total: int, train: int, val: int, test: int) -> dict[str, range]:
    """Trajectory numbers of each split: the first ``train`` with ``val`` cut from their end, the last ``test``.

    Splits of no trajectories are left out.

    Raises:
        ValueError: if a size is negative, the splits overlap, or nothing is chosen.

    Example:
        >>> splits_in_file_order(12, train=10, val=2, test=2)
        {'train': range(0, 8), 'val': range(8, 10), 'test': range(10, 12)}
    """
    if min(train, val, test) < 0 or train + test == 0:
        raise ValueError(
            f"Expected split sizes >= 0, not all of them 0, but got train {train}, val {val}, test {test}."
        )
    if val > train:
        raise ValueError(f"Expected val <= train, as it is taken from the end of train, but got {val} > {train}.")
    if train + test > total:
        raise ValueError(
            f"Expected train + test <= {total} trajectories in the file but got {train} + {test}; they would overlap. "
            "Choose smaller splits."
        )
    numbers = {"train": range(train - val), "val": range(train - val, train), "test": range(total - test, total)}
    return {split: chosen for split, chosen in numbers.items() if len(chosen)}


def frame_times(stored: Tensor | None, frames: int, interval: float | None, start: float, *, what: str) -> Tensor:
    """Physical times ``(frames,)`` in float64, evenly spaced: as stored in a file, or from ``start`` and ``interval``.

    Stored times carry the round-off of single precision, so the even spacing between first and last is returned.

    Args:
        stored: times in the file, any shape with ``frames`` entries, or ``None``.
        frames: number of frames.
        interval: time between frames; required where nothing is stored, else it must agree.
        start: time of the first frame where nothing is stored.
        what: the file and variable, for messages.

    Raises:
        ValueError: if there is no source for the times, or they have another length or are not evenly spaced.

    Example:
        >>> frame_times(torch.tensor([[1.0, 2.0, 3.0]]), 3, None, 0.0, what="t").tolist()
        [1.0, 2.0, 3.0]
    """
    if interval is not None and not interval > 0:
        raise ValueError(f"Expected a positive frame_interval but got {interval}.")
    if stored is None:
        if interval is None:
            raise ValueError(f"Expected times in {what} but there are none; give frame_interval.")
        return start + interval * torch.arange(frames, dtype=torch.float64)
    times = stored.to(torch.float64).flatten()
    if len(times) != frames or frames < 2:
        raise ValueError(
            f"Expected {frames} (at least two) times in {what}, one for each frame, but got {len(times)}. "
            "The axes may be in another order, or the file holds another data set."
        )
    spacing = float(times[-1] - times[0]) / (frames - 1)
    even = times[0] + spacing * torch.arange(frames, dtype=torch.float64)
    # Solvers add up their time steps, some 10^5 of them, and store the sum in single precision.
    if not (spacing > 0 and bool(((times - even).abs() <= 1e-3 * spacing).all())):
        raise ValueError(
            f"Expected increasing, evenly spaced times in {what} but got {times[:4].tolist()} ... {times[-1].item()}. "
            "Resample the trajectories in time first."
        )
    if interval is not None and abs(interval - spacing) > 1e-3 * spacing:
        raise ValueError(
            f"Expected frame_interval {spacing:.6g}, as stored in {what}, but got {interval}. Leave the argument out."
        )
    return even


def square_box(shape: tuple[int, int], length: float, *, what: str) -> tuple[Grid, tuple[Tensor, Tensor]]:
    """A doubly periodic square of side ``length`` and its coordinates, float32 ``(n,)`` each.

    Raises:
        ValueError: if the side is not positive or the two axes differ in size.
    """
    if not length > 0:
        raise ValueError(f"Expected a positive length but got {length}.")
    if shape[0] != shape[1] or shape[0] < 2:
        raise ValueError(
            f"Expected as many points in x as in y but {what} has {shape[0]} and {shape[1]}. "
            "The axes are in another order; transpose them as the adapter's page says."
        )
    grid = Grid((Axis("x", period=length), Axis("y", period=length)))
    x, y = grid.uniform_coordinates(shape, dtype=torch.float32)
    return grid, (x, y)


def vorticity_metadata(
    path: Path, grid: Grid, channel: str, frame_interval: float, viscosity: float | None, attributes: dict[str, Any]
) -> Metadata:
    """Metadata of a one-channel set named like its file; ``viscosity`` becomes a parameter where it is known.

    Raises:
        ValueError: if the viscosity is negative.
    """
    if viscosity is not None and not viscosity >= 0:
        raise ValueError(f"Expected viscosity >= 0 but got {viscosity}.")
    return Metadata(
        name=path.stem,
        grid=grid,
        channels=(Channel(channel, units=_UNITS.get(channel, "1"), long_name=channel),),
        frame_interval=frame_interval,
        parameters=() if viscosity is None else ("viscosity",),
        attributes={"source_file": path.name, "source_bytes": path.stat().st_size, **attributes},
    )


_UNITS = {
    "vorticity": "1/time",
    "stream": "length^2/time",
    "vort_t": "1/time^2",
    "vorticity_t": "1/time^2",
    "residual": "1/time^2",
}


def require_finite(values: Tensor, *, what: str, start: int) -> None:
    """Refuse frames ``(time, ...)`` with NaN or infinity; ``start`` is the number of the first.

    Raises:
        ValueError: naming the first bad frame.
    """
    # NaN and infinity are the largest of all, and to find the largest is quicker than to ask each.
    largest = values.flatten(1).abs().amax(1)
    if not bool(torch.isfinite(largest).all()):
        frame = start + int((~torch.isfinite(largest)).nonzero()[0])
        raise ValueError(
            f"Expected finite values but frame {frame} of {what} holds NaN or infinity. "
            "Download the file again, or leave that trajectory out with smaller splits."
        )


def require_split(splits: dict[str, range], split: str, *, path: Path) -> range:
    """Numbers of ``split``.

    Raises:
        ValueError: if there is no such split.
    """
    if split not in splits:
        raise ValueError(
            f"Expected one of the splits {tuple(splits)} of {path} but got {split!r}. "
            "Give that split a size when the file is opened."
        )
    return splits[split]


def lazy_trajectories(
    samples: Iterable[int],
    metadata: Metadata,
    coordinates: tuple[Tensor, ...],
    times: Tensor,
    viscosity: float | None,
    read_into: Callable[[int, int, Tensor], None],
) -> list[Trajectory]:
    """Trajectories of the given samples of a file; ``read_into(sample, start, out)`` fills frames from ``start`` on."""
    parameters = None if viscosity is None else torch.tensor([viscosity], dtype=torch.float32)
    shape = (len(times), len(metadata.channels), *(len(points) for points in coordinates))
    context = Context(coordinates, parameters=parameters)
    return [Trajectory(metadata, context, times, partial(read_into, sample), shape) for sample in samples]


def require_file(path: Path) -> None:
    """Refuse what is not a file.

    Raises:
        ValueError: if the path is no file.
    """
    if not path.is_file():
        raise ValueError(f"Expected a file but {path} is not one; see `pdesurrogate datasets show` on how to get it.")
