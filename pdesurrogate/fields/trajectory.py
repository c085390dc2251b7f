"""A trajectory of a data set, read lazily, and the context that travels with every sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Metadata


class Context(NamedTuple):
    """What a sample carries besides its frames. Batched contexts have one more axis in front.

    Attributes:
        coordinates: one tensor ``(n,)`` for each space axis, in physical units.
        parameters: ``(parameters,)`` in the order of ``Metadata.parameters``, physical units.
        mask: ``(*space)``, true where there is fluid.
        forcing: ``(channel, *space)``, a source term in physical units.
    """

    coordinates: tuple[Tensor, ...]
    parameters: Tensor | None = None
    mask: Tensor | None = None
    forcing: Tensor | None = None


@dataclass(frozen=True)
class Trajectory:
    """One simulated or measured run; frames are read when asked for.

    Attributes:
        metadata: of its data set.
        context: unbatched.
        times: ``(frames,)`` physical time of every frame.
        read_into: ``read_into(start, out)`` fills ``out (time, channel, *space)`` with frames from ``start`` on.
        shape: ``(time, channel, *space)`` of the whole trajectory.
    """

    metadata: Metadata
    context: Context
    times: Tensor
    read_into: Callable[[int, Tensor], None]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Frames ``start`` to ``stop`` as float32 ``(time, channel, *space)``, physical units.

        Raises:
            ValueError: if the range is not inside the trajectory.
        """
        stop = len(self) if stop is None else stop
        self._check_range(start, stop)
        out = self.times.new_empty((stop - start, *self.shape[1:]), dtype=torch.float32)
        self.read_into(start, out)
        return out

    def part(self, start: int, stop: int) -> Trajectory:
        """Frames ``start`` to ``stop`` as a trajectory of its own, read as lazily.

        Raises:
            ValueError: if the range is not inside the trajectory.
        """
        self._check_range(start, stop)
        return replace(
            self,
            times=self.times[start:stop],
            read_into=lambda first, out: self.read_into(start + first, out),
            shape=(stop - start, *self.shape[1:]),
        )

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"Expected frames within 0..{len(self)} but got {start}..{stop}.")
