"""The Fourier neural operator of CFDBench, told the parameters of a case and where its fluid is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.convolution import with_margin, without_margin
from pdesurrogate.layers.frames import check_positive, fold_history, unfold_frames
from pdesurrogate.layers.pointwise import Pointwise, PointwiseMLP
from pdesurrogate.layers.spectral_conv import SpectralConv
from pdesurrogate.models.cfdbench import (
    CaseNetwork,
    Compat,
    Gives,
    case_channels,
    identity_ranges,
    reference_entry,
    reference_values,
    require_alone,
)
from pdesurrogate.models.reference_weights import Translation, as_matrix, load_reference_weights, unchanged
from pdesurrogate.models.specification import recorded

# Of the projection.
HIDDEN = 128


class _Layer(nn.Module):
    """``gelu(K v + W v + b)`` with the spectral convolution ``K``; ``(batch, width, y, x)``."""

    def __init__(self, width: int, modes: Sequence[int]) -> None:
        super().__init__()
        self.spectral = SpectralConv(width, width, modes)
        self.skip = Pointwise(width, width, bias=False)

    def forward(self, values: Tensor) -> Tensor:
        """Apply the layer."""
        return functional.gelu(self.spectral(values, skip=self.skip.weight))


@recorded
class CFDBenchFNO(CaseNetwork):
    """CFDBench's FNO; frames ``(batch, time, channels, x, y)`` in, the block that follows them out.

    A pointwise lifting of the frames, of where the fluid is, of the coordinates between 0 and 1 and of the case's
    parameters, four layers ``gelu(K v + W v + b)``, the last one too, and a projection with one hidden layer of 128
    channels (Luo, Chen and Zhang, *CFDBench*, arXiv:2310.05963). It knows no residual. Weights of the spectral
    convolutions begin as the authors draw them, between 0 and ``1 / width**2``.

    Departures: what it gives outside the fluid, see `CaseNetwork`; real and imaginary part of a weight count as two.

    Args:
        channels: see `CaseNetwork`.
        history_frames: see `CaseNetwork`.
        target_frames: see `CaseNetwork`.
        parameter_ranges: see `CaseNetwork`.
        modes: waves kept along x and y: ``0 ... m - 1`` along x, ``-m ... m - 1`` along y.
        width: channels inside.
        layers: number of them.
        margin: points of zeros behind the end of each axis, inside alone.
        gives: see `CaseNetwork`; what it changes is what stands for solid cells.
        compat: see `CaseNetwork`.

    Raises:
        ValueError: for arguments out of range.

    Example:
        >>> network = CFDBenchFNO(channels=2, parameter_ranges=[(0.1, 10.0)], modes=(4, 4), width=8)
        >>> network(torch.zeros(3, 1, 2, 17, 16), parameters=torch.ones(3, 1)).shape
        torch.Size([3, 1, 2, 17, 16])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        parameter_ranges: Sequence[tuple[float, float]] = (),
        modes: tuple[int, int] = (12, 12),
        width: int = 32,
        layers: int = 4,
        margin: int = 0,
        gives: Gives = "state",
        compat: Compat = "none",
    ) -> None:
        check_positive(
            channels=channels, history_frames=history_frames, target_frames=target_frames, width=width, layers=layers
        )
        if len(modes) != 2 or min(modes) < 1 or margin < 0:
            raise ValueError(
                f"Expected two modes of at least 1 and a margin of at least 0 but got {tuple(modes)} and {margin}."
            )
        super().__init__(channels, history_frames, target_frames, parameter_ranges, gives, compat)
        self.modes = tuple(modes)
        self.width = width
        self.margin = margin
        along_x, along_y = modes
        # Those of `SpectralConv`, whose last axis has half of the spectrum: the authors' last axis is x.
        kept = (2 * along_y, max(2 * along_x - 2, 1))
        # Fluid and two coordinates.
        self.lifting = Pointwise(history_frames * channels + 3 + len(self.ranges), width)
        self.blocks = nn.ModuleList(_Layer(width, kept) for _ in range(layers))
        self.projection = PointwiseMLP(width, HIDDEN, target_frames * channels)
        for block in self.blocks:
            assert isinstance(block, _Layer)
            nn.init.uniform_(block.spectral.weight, 0, 1 / width**2)
            assert block.spectral.bias is not None
            nn.init.uniform_(block.spectral.bias, -(width**-0.5), width**-0.5)

    def forward(self, history: Tensor, parameters: Tensor | None = None, volumes: Tensor | None = None) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, x, y)``.

        Args:
            history: frames.
            parameters: of the case, ``(batch, count)`` in the units of their ranges.
            volumes: of the fluid in each cell, ``(batch, x, y)`` or ``(x, y)``, zero in solid, in any unit; fluid
                everywhere if not given.

        Raises:
            ValueError: if frames, channels, axes, parameters or volumes do not fit, or the grid is too coarse.
        """
        folded = fold_history(history, self.history_frames, self.channels, 2)
        fluid = self.fluid(history, volumes)
        numbers = self.scaled_parameters(history, parameters)
        entering = case_channels(folded, fluid, self._coordinates(folded), numbers=numbers)
        values = self.lifting(entering.transpose(-1, -2))
        space = values.shape[2:]
        values = with_margin(values, ("zeros", "zeros"), self.margin)
        for block in self.blocks:
            values = block(values)
        values = self.projection(without_margin(values, space).contiguous()).transpose(-1, -2)
        return self.finished(unfold_frames(values, self.target_frames), history, fluid)

    def _coordinates(self, folded: Tensor) -> Tensor:
        """From 0 to 1 along y, then along x; ``(batch, 2, x, y)``."""
        x, y = (torch.linspace(0, 1, size, dtype=folded.dtype, device=folded.device) for size in folded.shape[2:])
        along_x, along_y = torch.meshgrid(x, y, indexing="ij")
        return torch.stack([along_y, along_x]).expand(len(folded), -1, -1, -1)

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> CFDBenchFNO:
        """The authors' network with their constructor's keywords and released weights; axes x in front of y.

        Args:
            config: keywords of the authors' ``Fno2d`` but its loss.
            state_dict: under their names; complex weights.

        Raises:
            ValueError: for unknown keywords, and for weights that do not fit.
        """
        values = reference_values(config, _REFERENCE_DEFAULTS, "Fno2d")
        channels = values["in_chan"]
        require_alone(values, {"out_chan": (channels,)}, "Fno2d")
        parameters = values["n_case_params"]
        if parameters is None:
            parameters = reference_entry(state_dict, "fc0.weight", "Fno2d").shape[1] - channels - 3
        model = cls(
            channels,
            parameter_ranges=identity_ranges(parameters),
            modes=(values["modes2"], values["modes1"]),
            width=values["hidden_dim"],
            layers=values["num_layers"],
            margin=values["padding"] or 0,
            compat="reference",
        )
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        along_x, along_y = self.modes
        half = (self.width, self.width, along_y, along_x)
        found = _matrix("lifting", "fc0", self.lifting)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, _Layer)
            ours, theirs = f"blocks.{number}", f"blocks.{number}"
            halves = {f"{theirs}.conv0.weights1": half, f"{theirs}.conv0.weights2": half}
            found += [
                Translation(f"{ours}.spectral.weight", halves, _by_wavenumber),
                Translation(f"{ours}.spectral.bias", {f"{theirs}.w0.bias": (self.width,)}, unchanged),
                Translation(f"{ours}.skip.weight", {f"{theirs}.w0.weight": (self.width, self.width, 1, 1)}, as_matrix),
            ]
        for layer, theirs in (("first", "fc1"), ("second", "fc2")):
            found += _matrix(f"projection.{layer}", theirs, self.projection.get_submodule(layer))
        return found


_REFERENCE_DEFAULTS = {
    "in_chan": 2,
    "out_chan": 2,
    "n_case_params": None,
    "num_layers": 4,
    "modes1": 12,
    "modes2": 12,
    "hidden_dim": 20,
    "padding": None,
}


def _by_wavenumber(positive: Tensor, negative: Tensor) -> Tensor:
    """Weights ``(in, out, y, x)`` of ``0 ... m - 1`` and ``-m ... -1`` along y, as `SpectralConv` has them."""
    together = torch.cat([negative, positive], dim=2)
    return torch.view_as_real(together.permute(3, 2, 0, 1).flatten(0, 1).resolve_conj().contiguous())


def _matrix(ours: str, theirs: str, layer: nn.Module) -> list[Translation]:
    assert isinstance(layer, Pointwise)
    assert layer.bias is not None
    return [
        Translation(f"{ours}.weight", {f"{theirs}.weight": (*layer.weight.shape, 1, 1)}, as_matrix),
        Translation(f"{ours}.bias", {f"{theirs}.bias": tuple(layer.bias.shape)}, unchanged),
    ]
