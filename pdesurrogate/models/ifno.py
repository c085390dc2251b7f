"""The implicit Fourier neural operator: one Fourier layer, applied again and again in small steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.frames import check_positive, fold_history, unfold_frames
from pdesurrogate.layers.pointwise import Pointwise, PointwiseMLP
from pdesurrogate.layers.spectral_conv import SpectralConv
from pdesurrogate.models.fno import unit_coordinates
from pdesurrogate.models.specification import build, recorded, specification_of


@recorded
class IFNO(nn.Module):
    """Implicit Fourier neural operator; frames ``(batch, time, channels, *space)`` in, the block that follows them out.

    A pointwise lifting to ``width`` channels, ``iterations`` times ``h <- h + act(W h + K h + c) / iterations`` with
    the same ``W``, `SpectralConv` ``K`` and ``c`` each time, and a pointwise projection (You et al., Comput. Methods
    Appl. Mech. Eng. 398 (2022) 115296, arXiv:2203.08205). An iteration is a forward Euler step of an ordinary
    differential equation over a unit of time, so the parameters do not grow with depth, and the weights of a shallow
    network are a start for a deep one: see `deepened`. Frames of the history are stacked as channels, and the block of
    target frames is given at once. With ``positional="none"`` the network commutes with translations on a periodic box.

    Departures from the paper: GELU for ReLU, and a pointwise network with one hidden layer for the affine lifting, both
    as in `FNO`. What is lifted are the frames alone, without coordinates, unless ``positional="grid"``.

    Args:
        channels: of a frame, in and out.
        history_frames: frames that go in.
        target_frames: frames that come out.
        modes: waves kept along each of one to three axes, as in `FNO`.
        width: channels inside.
        iterations: of the layer; the depth.
        lifting_ratio: hidden channels of the lifting, in units of ``width``.
        projection_ratio: hidden channels of the projection, in units of ``width``.
        positional: ``"grid"`` appends the coordinates ``i / n`` of every axis as channels.

    Raises:
        ValueError: if a number is below 1.

    Example:
        >>> network = IFNO(channels=4, modes=(8, 8, 4), width=8, iterations=10)
        >>> network(torch.zeros(2, 1, 4, 16, 12, 8)).shape
        torch.Size([2, 1, 4, 16, 12, 8])
    """

    def __init__(
        self,
        channels: int,
        history_frames: int = 1,
        target_frames: int = 1,
        modes: tuple[int, ...] = (24, 24),
        width: int = 32,
        iterations: int = 4,
        lifting_ratio: float = 2.0,
        projection_ratio: float = 2.0,
        positional: Literal["none", "grid"] = "none",
    ) -> None:
        super().__init__()
        check_positive(
            channels=channels,
            history_frames=history_frames,
            target_frames=target_frames,
            width=width,
            iterations=iterations,
        )
        self.channels = channels
        self.history_frames = history_frames
        self.target_frames = target_frames
        self.modes = tuple(modes)
        self.iterations = iterations
        self.positional = positional
        coordinates = len(self.modes) if positional == "grid" else 0
        self.lifting = PointwiseMLP(history_frames * channels + coordinates, int(lifting_ratio * width), width)
        self.spectral = SpectralConv(width, width, self.modes)
        self.skip = Pointwise(width, width, bias=False)
        self.projection = PointwiseMLP(width, int(projection_ratio * width), target_frames * channels)

    def forward(self, history: Tensor) -> Tensor:
        """The frames that follow ``history (batch, history_frames, channels, *space)``.

        Raises:
            ValueError: if frames, channels or axes do not fit, or the grid is too coarse for the modes.
        """
        values = fold_history(history, self.history_frames, self.channels, len(self.modes))
        if self.positional == "grid":
            values = torch.cat([values, unit_coordinates(values)], dim=1)
        values = self.lifting(values)
        for _ in range(self.iterations):
            rate = functional.gelu(self.spectral(values, skip=self.skip.weight))
            values = torch.add(values, rate, alpha=1 / self.iterations)
        return unfold_frames(self.projection(values), self.target_frames)


def deepened(network: IFNO, iterations: int) -> IFNO:
    """A network of more iterations with the weights of a trained one, to be trained on.

    The paper trains a shallow network first and starts deeper ones from it: more Euler steps over the same time, so
    that outputs differ by the error of the coarser steps.

    Args:
        network: the shallow one; it is not changed.
        iterations: of the deep one.

    Raises:
        ValueError: if the iterations are not more than those of ``network``.

    Example:
        >>> shallow = IFNO(channels=1, modes=(4, 4), width=4, iterations=2)
        >>> deepened(shallow, 8).iterations
        8
    """
    if iterations <= network.iterations:
        raise ValueError(
            f"Expected more iterations than the {network.iterations} of the shallow network but got {iterations}."
        )
    specification = specification_of(network)
    deep = build({**specification, "init_args": {**specification["init_args"], "iterations": iterations}})
    assert isinstance(deep, IFNO)
    weights = next(network.parameters())
    deep.to(weights.device, weights.dtype).load_state_dict(network.state_dict())
    return deep
