"""Restarts of long runs: what is needed to go on bit-equal, never half-written, and the last two of them.

A restart is a file of `torch.save` with plain tensors, that ``torch.load(path, weights_only=True)`` reads, and a
SHA-256 at its end, because a load does not notice a wrong byte. Frames that were made lie beside it in a file that only
grows; the restart says how many of them are its own.
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

_DIGEST_BYTES = 32


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

    def save(self, contents: dict[str, Any], frames: Tensor) -> None:
        """Write a restart, the former one becoming the previous.

        Args:
            contents: tensors and plain values, nested in dictionaries and lists.
            frames: ``(trajectory, time, ...)``, all that were made; those that are on disk are not written again.

        Raises:
            OSError: if the disk is full. The restarts that were there stay.
        """
        self._append(frames)
        part = self.current.with_name(f"{self.current.name}.{os.getpid()}.part")
        _write(part, {"identity": self.identity, "frames": frames.shape[1], "contents": contents})
        if self.current.exists():
            os.replace(self.current, self.previous)
        os.replace(part, self.current)

    def load(self, frames: Tensor) -> tuple[dict[str, Any], int] | None:
        """Read the newest restart that is whole; ``None`` if there is none.

        Args:
            frames: ``(trajectory, time, ...)``, whose first ones are filled with those that were made.

        Returns:
            The contents, and how many frames were filled.

        Raises:
            ValueError: if there are restarts but none is whole, or they are of another grid, recipe or block.
        """
        found = [path for path in (self.current, self.previous) if path.exists()]
        for path in found:
            try:
                saved = _read(path)
                count = self._read_frames(saved["frames"], frames) if saved["identity"] == self.identity else 0
            except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
                warnings.warn(f"The restart {path} is damaged ({error}); the one before it is taken.", stacklevel=2)
                continue
            self._require_identity(path, saved["identity"])
            self._saved_frames = count
            return saved["contents"], count
        if found:
            raise ValueError(
                f"Expected a restart that can be read but {' and '.join(map(str, found))} are damaged. Delete them to "
                "run this block anew; what other blocks finished is kept."
            )
        return None

    def remove(self) -> None:
        """Delete all files of the run; nothing happens where there are none."""
        for path in (self.current, self.previous, self.frames):
            path.unlink(missing_ok=True)

    def _require_identity(self, path: Path, found: dict[str, Any]) -> None:
        for name, ours in self.identity.items():
            theirs = found.get(name)
            if ours != theirs:
                raise ValueError(
                    f"Expected a restart with the {name} {ours} but {path} was written with {theirs}. "
                    "Choose another output directory, or delete the restart to run this block anew."
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
        self._saved_frames = frames.shape[1]

    def _read_frames(self, count: int, frames: Tensor) -> int:
        if count:
            item = frames[:, 0].numel()
            values = np.fromfile(self.frames, dtype=frames.numpy().dtype, count=count * item)
            if values.size < count * item:
                raise OSError(f"{self.frames} holds less than its {count} frames")
            shape = (count, frames.shape[0], *frames.shape[2:])
            frames[:, :count] = torch.from_numpy(values).view(shape).movedim(0, 1)
        return count


def save_whole(values: dict[str, Any], path: Path) -> None:
    """As a restart, into a file that appears whole or not at all.

    Raises:
        OSError: if the disk is full.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    _write(part, values)
    os.replace(part, path)


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


def _read(path: Path) -> dict[str, Any]:
    data = memoryview(path.read_bytes())
    values, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if hashlib.sha256(values).digest() != digest:
        raise OSError("its checksum is wrong")
    return torch.load(io.BytesIO(values), map_location="cpu", weights_only=True)
