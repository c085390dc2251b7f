"""Any network of fields, told the parameters of a case and where its fluid is.

Networks of periodic boxes know one problem. Where boundary values, fluid and box change from case to case, they are
further channels, each of one value throughout, and one that is 1 in the fluid and 0 in solid. In a configuration this
stands around the network::

    network:
      class_path: pdesurrogate.models.case_conditioning.CaseConditioned
      init_args:
        network: {class_path: pdesurrogate.models.fno.FNO, init_args: {modes: [24, 24], width: 24}}
        parameter_ranges: [[0.2, 2.0], [0.004, 0.01]]
        scale: logarithmic
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pdesurrogate.layers.frames import check_kinds, check_positive
from pdesurrogate.models.cfdbench import CaseNetwork, Gives, case_channels
from pdesurrogate.models.heads import inner_network
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.models.specification import ContextInput, context_inputs_of, recorded

Scale = Literal["linear", "logarithmic"]


@recorded
class CaseConditioned(CaseNetwork):
    """A network of frames that reads the case as frames in front of the history.

    The case has a channel that is 1 in the fluid and 0 in solid, and one for each parameter, brought to -1 ... 1. They
    fill up as many frames as they need, the last one with zeros, and the network inside is built for a history that is
    longer by these. So it may be any whose history enters as channels, and what it takes for the latest frame is it.

    Args:
        network: ``class_path`` and ``init_args`` of the network inside, without channels and frames.
        channels: see `CaseNetwork`.
        history_frames: see `CaseNetwork`; without those that tell the case.
        target_frames: see `CaseNetwork`.
        parameter_ranges: see `CaseNetwork`.
        scale: of the parameters: ``"logarithmic"`` takes the logarithm of those whose range is positive, so that
            dimensionless groups, such as Reynolds numbers, are sums.
        gives: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range, and for a network that cannot be told so.

    Example:
        >>> fno = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 8}}
        >>> network = CaseConditioned(fno, channels=2, parameter_ranges=[(0.1, 10.0), (1.0, 2.0)])
        >>> network.case_frames, network.network.history_frames
        (2, 3)
        >>> network(torch.zeros(3, 1, 2, 16, 16), parameters=torch.ones(3, 2)).shape
        torch.Size([3, 1, 2, 16, 16])
    """

    logarithmic: Tensor

    def __init__(
        self,
        network: dict[str, Any],
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        parameter_ranges: Sequence[tuple[float, float]] = (),
        scale: Scale = "linear",
        gives: Gives = "state",
    ) -> None:
        check_positive(channels=channels, history_frames=history_frames, target_frames=target_frames)
        check_kinds({"scale": ("linear", "logarithmic")}, scale=scale)
        positive = [scale == "logarithmic" and ends[0] > 0 for ends in parameter_ranges]
        ranges = [
            (math.log(ends[0]), math.log(ends[-1])) if logarithm and ends[-1] > 0 else tuple(ends)
            for ends, logarithm in zip(parameter_ranges, positive, strict=True)
        ]
        super().__init__(channels, history_frames, target_frames, ranges, gives, "none")  # type: ignore[arg-type]
        self.scale = scale
        self._any_logarithm = any(positive)
        self.register_buffer("logarithmic", torch.tensor(positive, dtype=torch.bool), persistent=False)
        self.case_frames = -(-(1 + len(self.ranges)) // channels)
        self.network = inner_network(network, 1, channels, self.case_frames + history_frames, target_frames)
        if isinstance(self.network, SFNO):
            raise ValueError(
                "Expected a network whose history enters as channels but an SFNO takes it as a time axis, on which the "
                "case has no place; choose another one."
            )
        self._inside = context_inputs_of(self.network)

    @property
    def context_inputs(self) -> tuple[ContextInput, ...]:
        """What it is told, and what the network inside takes itself."""
        own = super().context_inputs
        return (*own, *(name for name in self._inside if name not in own))

    def scaled_parameters(self, history: Tensor, parameters: Tensor | None) -> Tensor:
        """Parameters ``(batch, count)`` of the case, each brought to its range, by its logarithm where that is asked.

        Raises:
            ValueError: if their number is not that of the ranges, or one whose logarithm is taken is not positive. The
                latter on the CPU alone: elsewhere it would wait for the device in every step, and a compiled graph
                cannot look at values; then the frames come out NaN or infinite, which a rollout stops at.
        """
        if parameters is not None and parameters.shape[-1:] == self.logarithmic.shape and self._any_logarithm:
            looks = parameters.device.type == "cpu" and not torch.compiler.is_compiling()
            if looks and bool((parameters <= 0)[..., self.logarithmic].any()):
                raise ValueError(
                    "Expected positive parameters where their logarithm is taken, as their ranges are, but some are "
                    "not; give ranges that begin at zero or below, or scale='linear'."
                )
            parameters = torch.where(self.logarithmic, parameters.log(), parameters)
        return super().scaled_parameters(history, parameters)

    def forward(
        self,
        history: Tensor,
        parameters: Tensor | None = None,
        volumes: Tensor | None = None,
        coordinates: tuple[Tensor, ...] | None = None,
    ) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Args:
            history: frames.
            parameters: of the case, ``(batch, count)`` in the units of their ranges.
            volumes: of the fluid in each cell, ``(batch, *space)`` or ``(*space)``, zero in solid, in any unit; fluid
                everywhere if not given.
            coordinates: of each axis, ``(batch, n)``, for a network inside that takes them.

        Raises:
            ValueError: if frames, channels, axes, parameters or volumes do not fit.
        """
        if tuple(history.shape[1:3]) != (self.history_frames, self.channels):
            raise ValueError(
                f"Expected history (batch, {self.history_frames}, {self.channels}, *space) but got "
                f"{tuple(history.shape)}."
            )
        fluid = self.fluid(history, volumes)
        told = case_channels(history.flatten(1, 2)[:, :0], fluid, numbers=self.scaled_parameters(history, parameters))
        spare = self.case_frames * self.channels - told.shape[1]
        told = torch.cat([told, told.new_zeros(len(told), spare, *told.shape[2:])], dim=1)
        given = {"parameters": parameters, "volumes": volumes, "coordinates": coordinates}
        frames: Tensor = self.network(
            torch.cat([told.unflatten(1, (self.case_frames, self.channels)), history], dim=1),
            **{name: given[name] for name in self._inside},
        )
        return self.finished(frames, history, fluid)
