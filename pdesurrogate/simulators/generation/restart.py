"""Restarts of long runs: what is needed to go on bit-equal, never half-written, and the last two of them.

A restart is a file of `torch.save` with plain tensors, that ``torch.load(path, weights_only=True)`` reads, and a
SHA-256 at its end, because a load does not notice a wrong byte. Frames that were made lie beside it in a file that only
grows; the restart says how many of them are its own, and their SHA-256. `FromRestart` starts another recipe from it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdesurrogate.simulators.generation.protocols import Simulator
from pdesurrogate.simulators.generation.stored_frames import places

_DIGEST_BYTES = 32
# Hexadecimal digits of a digest that messages show and `FromRestart` needs at least.
_SHOWN_DIGITS = 16


class RestartFiles:
    """The last two restarts of one run, and its frames so far.

    Args:
        stem: path that the files' names begin with.
        identity: plain values of what is run, by name. A restart of something else is refused, naming the first
            difference.

    Example:
        >>> import tempfile
        >>> files = RestartFiles(Path(tempfile.mkdtemp()) / "run", {"grid": [4, 4]})
        >>> files.save({"step": 7, "state": torch.zeros(2)}, frames=torch.ones(1, 3, 5))  # three of eight so far
        >>> contents, frames = files.load(torch.empty(1, 8, 5))
        >>> contents["step"], frames
        (7, 3)
        >>> files.remove()
    """

    def __init__(self, stem: Path, identity: dict[str, Any]) -> None:
        self.current = stem.with_name(f"{stem.name}.restart")
        self.previous = stem.with_name(f"{stem.name}.restart.previous")
        self.frames = stem.with_name(f"{stem.name}.frames")
        self.identity = identity
        self._saved_frames = 0
        self._digest = hashlib.sha256()

    def save(self, contents: dict[str, Any], frames: Tensor) -> None:
        """Write a restart, the former one becoming the previous.

        Args:
            contents: tensors and plain values, nested in dictionaries and lists.
            frames: ``(trajectory, time, ...)``, all that were made; those that are on disk are not written again.

        Raises:
            OSError: if the disk is full. The restarts that were there stay.
        """
        self._append(frames)
        part = _part_of(self.current)
        _write(
            part,
            {
                "identity": self.identity,
                "frames": frames.shape[1],
                "frames_digest": self._digest.hexdigest(),
                "contents": contents,
            },
        )
        if self.current.exists():
            os.replace(self.current, self.previous)
        os.replace(part, self.current)

    def load(self, frames: Tensor) -> tuple[dict[str, Any], int] | None:
        """Read the newest restart that is whole; ``None`` if there is none. Damaged ones that are newer are deleted.

        Args:
            frames: ``(trajectory, time, ...)``, whose first ones are filled with those that were made.

        Returns:
            The contents, and how many frames were filled.

        Raises:
            ValueError: if there are restarts but none is whole, or they are of another grid, recipe or block.
        """
        found = [path for path in (self.current, self.previous) if path.exists()]
        for number, path in enumerate(found):
            try:
                saved = _read(path)
                if saved["identity"] == self.identity:
                    self._read_frames(saved, frames)
            except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
                warnings.warn(f"The restart {path} is damaged ({error}); the one before it is taken.", stacklevel=2)
                continue
            self._require_identity(path, saved["identity"])
            # The next save must not put a damaged restart in the place of this one.
            for damaged in found[:number]:
                damaged.unlink()
            return saved["contents"], saved["frames"]
        if found:
            raise ValueError(
                f"Expected a restart that can be read but {' and '.join(map(str, found))} are damaged. Delete them to "
                "run this block anew; what other blocks finished is kept."
            )
        return None

    def remove(self) -> None:
        """Delete all files of the run; nothing happens where there are none."""
        for path in (self.current, self.previous, self.frames, _part_of(self.current)):
            path.unlink(missing_ok=True)

    @property
    def cure(self) -> str:
        """How a changed recipe goes on from the last restart, in words; empty if there is none."""
        if not self.current.exists():
            return ""
        digest = self.current.read_bytes()[-_DIGEST_BYTES:].hex()[:_SHOWN_DIGITS]
        return (
            f"The last restart is {self.current}; a recipe with, for example, more steps_per_frame goes on from it in "
            f"another output directory with initial_condition: {{class_path: {FROM_RESTART}, init_args: "
            f'{{path: {self.current}, digest: "{digest}"}}}}.'
        )

    def _require_identity(self, path: Path, found: dict[str, Any]) -> None:
        difference = first_difference(self.identity, found)
        if difference is not None:
            name, ours, theirs = difference
            raise ValueError(
                f"Expected a restart with the {name} {ours} but {path} was written with {theirs}. Choose another "
                f"output directory, or delete the restart to run this block anew. {self.cure}"
            )

    def _append(self, frames: Tensor) -> None:
        """Frames beyond those of the restart that was saved or loaded last, one after the other."""
        done = self._saved_frames
        if frames.shape[1] == done:
            return
        values = frames[:, done:].movedim(1, 0).contiguous().numpy()
        each = values.nbytes // len(values)
        with self.frames.open("r+b" if self.frames.exists() else "w+b") as file:
            file.truncate(done * each)
            file.seek(0, os.SEEK_END)
            file.write(values.data.cast("B"))
            file.flush()
            os.fsync(file.fileno())
        self._digest.update(values.data.cast("B"))
        self._saved_frames = frames.shape[1]

    def _read_frames(self, saved: dict[str, Any], frames: Tensor) -> None:
        count, digest = saved["frames"], hashlib.sha256()
        if count:
            item = frames[:, 0].numel()
            values = np.fromfile(self.frames, dtype=frames.numpy().dtype, count=count * item)
            if values.size < count * item:
                raise OSError(f"{self.frames} holds less than its {count} frames")
            digest.update(values.data.cast("B"))
            shape = (count, frames.shape[0], *frames.shape[2:])
            frames[:, :count] = torch.from_numpy(values).view(shape).movedim(0, 1)
        if digest.hexdigest() != saved["frames_digest"]:
            raise OSError(f"the checksum of its frames in {self.frames} is wrong")
        self._saved_frames, self._digest = count, digest


class FromRestart:
    """Starts one block of trajectories from the states in a restart, on the same grid: with other time steps, say.

    The new run counts its time from zero, so that what was simulated may be taken off the warm-up. The digest is part
    of the recipe, so that its content hash covers the states.

    Args:
        path: of the restart; keep a copy, since the run that wrote it may delete it.
        digest: how the SHA-256 in its last bytes begins, at least 16 hexadecimal digits; messages show it.

    Raises:
        ValueError: if the digest is too short.

    Example:
        >>> import tempfile
        >>> from pdesurrogate.simulators.navier_stokes import NavierStokes2d
        >>> files = RestartFiles(Path(tempfile.mkdtemp()) / "run", {})
        >>> simulator = NavierStokes2d(8, viscosity=1e-2, frame_interval=0.1, steps_per_frame=1)
        >>> coordinates = list(places(simulator))
        >>> files.save({"state": torch.ones(3, 1, 8, 8), "coordinates": coordinates}, frames=torch.empty(3, 0))
        >>> start = FromRestart(str(files.current), files.current.read_bytes()[-32:].hex())
        >>> start.start(simulator, 3, torch.Generator()).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, path: str, digest: str) -> None:
        if len(digest) < _SHOWN_DIGITS:
            raise ValueError(f"Expected at least {_SHOWN_DIGITS} digits of the digest of {path} but got {digest!r}.")
        self.path = path
        self.digest = digest

    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        """``(count, channel, *shape)``, the first of the restart's; the generator gives the device alone.

        Raises:
            ValueError: if there is no such restart, or its states are fewer or on another grid.
        """
        try:
            contents = _read(Path(self.path), self.digest)["contents"]
            state, found = contents["state"], contents["coordinates"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(f"Expected the restart {self.path} but it cannot be read: {error}.") from error
        shape = (len(simulator.channels), *simulator.shape)
        if state.shape[1:] != shape:
            raise ValueError(
                f"Expected states of {list(shape)} channels and points but {self.path} holds {list(state.shape[1:])}; "
                "the simulator must keep the grid of the restart."
            )
        if count > len(state):
            raise ValueError(f"Expected a restart of at least {count} trajectories but {self.path} holds {len(state)}.")
        for axis, here, there in zip(simulator.grid.axes, places(simulator), found, strict=True):
            of_these = there[:count] if there.ndim == 2 else there  # cases have points of their own
            if here.shape != of_these.shape or not torch.allclose(here.cpu(), of_these):
                raise ValueError(f"Expected the same points along {axis.name} as in {self.path} but they are others.")
        return state[:count].to(generator.device, torch.float64)


FROM_RESTART = f"{FromRestart.__module__}.{FromRestart.__qualname__}"


def first_difference(ours: Any, theirs: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Where two plain values differ first, by keys joined with dots, and both values there; ``None`` if nowhere.

    Example:
        >>> first_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}})
        ('a.c', 2, None)
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = {**ours, **theirs}
        found = (first_difference(ours.get(key), theirs.get(key), f"{name}.{key}".strip(".")) for key in keys)
        return next((difference for difference in found if difference is not None), None)
    return None if ours == theirs else (name, ours, theirs)


def save_whole(values: dict[str, Any], path: Path) -> None:
    """As a restart, into a file that appears whole or not at all.

    Raises:
        OSError: if the disk is full.
    """
    part = _part_of(path)
    _write(part, values)
    os.replace(part, path)


def _part_of(path: Path) -> Path:
    """Where a file is written before it is whole; one name, so that what a stop leaves is overwritten."""
    return path.with_name(f"{path.name}.part")


def _write(path: Path, values: dict[str, Any]) -> None:
    # By way of memory: torch hides why it could not write a file.
    buffer = io.BytesIO()
    torch.save(values, buffer)
    try:
        with path.open("wb") as file:
            file.write(buffer.getbuffer())
            file.write(hashlib.sha256(buffer.getbuffer()).digest())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _read(path: Path, expected: str = "") -> dict[str, Any]:
    data = memoryview(path.read_bytes())
    values, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(values).digest() != digest:
        raise OSError("its checksum is wrong")
    if not digest.hex().startswith(expected):
        raise OSError(f"its digest is {digest.hex()[:_SHOWN_DIGITS]} in place of {expected}")
    return torch.load(io.BytesIO(values), map_location="cpu", weights_only=True)
