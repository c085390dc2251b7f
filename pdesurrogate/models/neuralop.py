"""Networks of the neuraloperator library behind this package's contract, and the way from its FNO to ours.

The library is imported when a network is built, not before.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.models.fno import FNO, unit_coordinates
from pdesurrogate.models.specification import recorded


@recorded
class NeuralOperator(nn.Module):
    """``FNO``, ``TFNO`` or ``UNO`` of neuraloperator 2.0, for comparison.

    ``(batch, history_frames, channels, *space) -> (batch, target_frames, channels, *space)``, history frames stacked as
    channels. Three things differ from using the library directly. Coordinates are this package's, or none, because the
    library's grid embedding keeps the type and device of the first call. ``state_dict`` holds tensors only, so
    checkpoints load strictly and with ``weights_only=True``. And what the library computes wrongly is refused: grids
    with an odd number of points (version 2.0.0 shifts their spectra twice the same way) and input other than float32.

    ``UNO`` (Rahman et al., arXiv:2204.11127) is built as a symmetric U: the resolution halves and the width doubles on
    each of the layers between the first and the middle one, and the way back mirrors it.

    Args:
        architecture: class of the library.
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        modes: the library's ``n_modes``, of the finest level for ``UNO``.
        width: channels inside, of the finest level for ``UNO``.
        layers: Fourier layers; odd and at least 5 for ``UNO``.
        rank: share of the spectral weights that the Tucker factors of ``TFNO`` keep; the others ignore it.
        positional: ``"grid"`` appends the coordinates ``i / n`` of every axis as channels.

    Example:
        >>> import torch
        >>> network = NeuralOperator("TFNO", channels=1, modes=(4, 4), width=8, layers=2)
        >>> network(torch.zeros(2, 1, 1, 16, 16)).shape
        torch.Size([2, 1, 1, 16, 16])
    """

    def __init__(
        self,
        architecture: Literal["FNO", "TFNO", "UNO"],
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        modes: tuple[int, ...] = (24, 24),
        width: int = 32,
        layers: int = 4,
        rank: float = 0.1,
        positional: Literal["none", "grid"] = "none",
    ) -> None:
        super().__init__()
        if min(channels, history_frames, target_frames, width, layers, *modes) < 1:
            raise ValueError("Expected channels, frames, modes, width and layers of at least 1.")
        self.architecture = architecture
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.modes = tuple(modes)
        self.positional = positional
        channels_in = history_frames * channels + (len(modes) if positional == "grid" else 0)
        self.levels = (layers - 1) // 2 if architecture == "UNO" else 1
        sizes: dict[str, Any] = {
            "in_channels": channels_in,
            "out_channels": target_frames * channels,
            "hidden_channels": width,
            "n_layers": layers,
            "positional_embedding": None,
        }
        if architecture == "UNO":
            sizes |= _symmetric_u(self.modes, width, layers)
        else:
            sizes["n_modes"] = self.modes
        if architecture == "TFNO":
            sizes["rank"] = rank
        # UNO prints the kinds of its skips while it is built.
        with contextlib.redirect_stdout(io.StringIO()):
            self.network = _library_class(architecture)(**sizes)
        self.register_state_dict_post_hook(_drop_metadata)  # type: ignore[no-untyped-call]

    def forward(self, history: Tensor) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Raises:
            ValueError: if frames, channels, axes or precision do not fit, or the grid is one that the library gets
                wrong.
        """
        self._check(history)
        values = history.flatten(1, 2)
        if self.positional == "grid":
            values = torch.cat([values, unit_coordinates(values)], dim=1)
        predicted: Tensor = self.network(values)
        return predicted.reshape(len(history), self.target_frames, self.channels, *history.shape[3:])

    def _check(self, history: Tensor) -> None:
        expected = (self.history_frames, self.channels)
        if history.ndim != 3 + len(self.modes) or tuple(history.shape[1:3]) != expected:
            raise ValueError(
                f"Expected (batch, {self.history_frames}, {self.channels}, *space) with {len(self.modes)} space axes "
                f"but got {tuple(history.shape)}."
            )
        if history.dtype != torch.float32:
            raise ValueError(
                f"Expected float32 but got {history.dtype}: neuraloperator computes spectra in single precision only. "
                "Use pdesurrogate.models.fno.FNO for other precisions."
            )
        space, multiple = tuple(history.shape[3:]), 2**self.levels
        if any(size < kept for size, kept in zip(space, self.modes, strict=True)):
            raise ValueError(
                f"Expected at least {self.modes} points, one for each mode, but got a grid of {space}: the library "
                "would silently leave modes out. Use a finer grid or fewer modes."
            )
        if any(size % multiple for size in space):
            raise ValueError(
                f"Expected grid sizes divisible by {multiple} but got {space}: neuraloperator 2.0.0 misplaces the "
                "spectrum of a grid with an odd number of points. Use pdesurrogate.models.fno.FNO or resample the data."
            )


def from_neuralop(network: nn.Module, history_frames: int = 1, target_frames: int = 1) -> FNO:
    """Our `FNO` with the weights of neuraloperator's, computing the same function.

    Args:
        network: a ``neuralop.models.FNO`` with ``positional_embedding=None`` and otherwise default kinds of parts;
            sizes may differ from the defaults.
        history_frames: how many frames its input channels are.
        target_frames: how many frames its output channels are.

    Raises:
        ValueError: if the network has parts that ours lacks, or its channels do not divide into frames.

    Example:
        >>> theirs = NeuralOperator("FNO", channels=2, modes=(4, 4), width=8, layers=2)
        >>> ours, fields = from_neuralop(theirs.network), torch.randn(1, 1, 2, 16, 16)
        >>> bool(torch.allclose(ours(fields), theirs(fields), atol=1e-5))
        True
    """
    theirs: Any = network
    _check_convertible(theirs)
    channels, rest = divmod(theirs.in_channels, history_frames)
    if rest or channels * target_frames != theirs.out_channels:
        raise ValueError(
            f"Expected {history_frames} frames in and {target_frames} out of the same channels but the network takes "
            f"{theirs.in_channels} and gives {theirs.out_channels} channels."
        )
    state = {name: value for name, value in theirs.state_dict().items() if name != "_metadata"}
    width = theirs.hidden_channels
    ours = FNO(
        channels,
        history_frames,
        target_frames,
        modes=tuple(theirs.n_modes),
        width=width,
        layers=theirs.n_layers,
        lifting_ratio=theirs.lifting_channel_ratio,
        projection_ratio=theirs.projection_channel_ratio,
        mlp_ratio=len(state["fno_blocks.channel_mlp.0.fcs.0.weight"]) / width,
    )
    ours.load_state_dict(_our_names(state, theirs.n_layers))
    return ours


def _library_class(name: str) -> Any:
    try:
        from neuralop import models
    except ImportError as error:
        raise ImportError(
            f"Expected the neuraloperator library for {name} but it cannot be imported ({error}). "
            "Install it with: pip install 'neuraloperator>=2.0'"
        ) from error
    if name not in ("FNO", "TFNO", "UNO"):
        raise ValueError(f"Expected architecture 'FNO', 'TFNO' or 'UNO' but got {name!r}.")
    return getattr(models, name)


def _symmetric_u(modes: tuple[int, ...], width: int, layers: int) -> dict[str, Any]:
    if layers < 5 or layers % 2 == 0:
        raise ValueError(f"Expected an odd number of layers, at least 5, for UNO but got {layers}; use layers=5.")
    down = range(layers // 2)
    levels = [*down, *reversed(down), 0]  # of each layer's output
    before = [0, *levels[:-1]]
    return {
        "uno_out_channels": [width * 2**level for level in levels],
        "uno_n_modes": [[max(m // 2 ** max(pair), 1) for m in modes] for pair in zip(before, levels, strict=True)],
        "uno_scalings": [[2.0 ** (old - new)] * len(modes) for old, new in zip(before, levels, strict=True)],
        "lifting_channels": 2 * width,
        "projection_channels": 2 * width,
        "channel_mlp_skip": "linear",
    }


def _drop_metadata(module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    """The library adds its constructor arguments, functions among them, under a bare key."""
    state.pop("_metadata", None)


def _check_convertible(theirs: Any) -> None:
    unlike = {
        "positional_embedding": theirs.positional_embedding is not None,
        "domain_padding": theirs.domain_padding is not None,
        "resolution_scaling_factor": theirs.resolution_scaling_factor is not None,
        "complex_data": theirs.complex_data,
        "preactivation": theirs.preactivation,
        "separable": theirs.separable,
        "factorization": theirs.factorization is not None,
        "non_linearity": theirs.non_linearity is not functional.gelu,
        "stabilizer": theirs.fno_blocks.stabilizer is not None,
        "norm": theirs.fno_blocks.norm is not None,
        "use_channel_mlp": not theirs.fno_blocks.use_channel_mlp,
        "fno_skip": theirs.fno_blocks.fno_skip != "linear",
        "channel_mlp_skip": theirs.fno_blocks.channel_mlp_skip != "soft-gating",
    }
    found = [name for name, differs in unlike.items() if differs]
    if found:
        raise ValueError(
            f"Expected a network with default parts and no positional embedding but {', '.join(found)} differ; "
            "use it through NeuralOperator instead."
        )


def _our_names(theirs: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}

    def perceptron(name: str, source: str) -> None:
        for index, part in enumerate(("first", "second")):
            ours[f"{name}.{part}.weight"] = theirs[f"{source}.fcs.{index}.weight"].squeeze(-1)
            ours[f"{name}.{part}.bias"] = theirs[f"{source}.fcs.{index}.bias"]

    perceptron("lifting", "lifting")
    perceptron("projection", "projection")
    for layer in range(layers):
        block, source = f"blocks.{layer}", "fno_blocks"
        weight = theirs[f"{source}.convs.{layer}.weight.tensor"]
        # (in, out, first axis, ..., last axis) -> (last axis, ..., first axis, in, out), the waves as one axis
        by_wave = weight.permute(*range(weight.ndim - 1, 1, -1), 0, 1).flatten(0, -3)
        ours[f"{block}.spectral.weight"] = torch.view_as_real(by_wave.contiguous())
        ours[f"{block}.spectral.bias"] = theirs[f"{source}.convs.{layer}.bias"].flatten()
        ours[f"{block}.skip.weight"] = theirs[f"{source}.fno_skips.{layer}.conv.weight"].squeeze(-1)
        ours[f"{block}.gate"] = theirs[f"{source}.channel_mlp_skips.{layer}.weight"].flatten()
        perceptron(f"{block}.mlp", f"{source}.channel_mlp.{layer}")
    return ours
