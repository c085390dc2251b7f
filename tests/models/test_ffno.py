"""F-FNO: the plain formula, the same function at every resolution, one convolution shared by all layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pdesurrogate.layers.factorized_spectral_conv import FactorizedSpectralConv
from pdesurrogate.layers.normalized_pointwise import NormalizedPointwise
from pdesurrogate.layers.pointwise import Pointwise
from pdesurrogate.models.ffno import FactorizedFNO


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def waves(size: int, highest: int) -> Tensor:
    """One smooth field ``(1, 1, 2, size, size)`` of waves up to ``highest`` along each axis, at any resolution."""
    generator = torch.Generator().manual_seed(3)
    x = torch.arange(size, dtype=torch.float64) * (2 * torch.pi / size)
    basis = torch.stack([wave(k * x) for k in range(highest + 1) for wave in (torch.cos, torch.sin)])
    weights = torch.randn(2, len(basis), len(basis), dtype=torch.float64, generator=generator)
    return torch.einsum("cij,ix,jy->cxy", weights, basis, basis)[None, None]


def plain_convolution(layer: FactorizedSpectralConv, values: Tensor) -> Tensor:
    """Whole transforms along each axis and a contraction over the kept waves."""
    result = torch.zeros_like(values)
    for axis, (convolution, modes) in enumerate(zip(layer.axes, layer.modes, strict=True), start=2):
        spectrum = torch.fft.rfft(values, dim=axis, norm="ortho").movedim(axis, -1)
        mixed = torch.zeros_like(spectrum)
        weight = torch.view_as_complex(convolution.weight.detach())
        mixed[..., :modes] = torch.einsum("bi...k,kio->bo...k", spectrum[..., :modes], weight)
        result += torch.fft.irfft(mixed.movedim(-1, axis), n=values.shape[axis], dim=axis, norm="ortho")
    return result


def plain_matrix(layer: NormalizedPointwise, values: Tensor) -> Tensor:
    """The layer after torch's own weight normalization."""
    linear = torch.nn.Linear(*reversed(layer.direction.shape), dtype=values.dtype)
    torch.nn.utils.parametrizations.weight_norm(linear)
    linear.parametrizations.weight.original0.data = layer.gain.detach()[:, None]
    linear.parametrizations.weight.original1.data = layer.direction.detach()
    linear.bias.data = layer.bias.detach()
    return linear(values.movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize(
    ("modes", "space"), [((3,), (7,)), ((5, 4), (8, 9)), ((5, 1), (9, 2)), ((3, 2, 3), (4, 5, 6))]
)  # fmt: skip
def test_convolution_is_the_plain_formula(modes: tuple[int, ...], space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = FactorizedSpectralConv(3, modes).double()
    values = fields(2, 3, *space)
    torch.testing.assert_close(layer(values), plain_convolution(layer, values))


def test_convolution_along_one_axis_acts_along_that_axis_alone() -> None:
    layer = FactorizedSpectralConv(2, (4, 3)).double()
    torch.nn.init.zeros_(layer.axes[1].weight)
    values = fields(1, 2, 8, 6)
    torch.testing.assert_close(layer(values)[..., 2:3], layer(values[..., 2:3].expand(-1, -1, -1, 6))[..., :1])


def test_convolution_is_the_same_at_every_resolution() -> None:
    layer = FactorizedSpectralConv(2, (6, 4)).double()
    fine = waves(48, 9)[0]
    torch.testing.assert_close(layer(fine)[..., ::2, ::2], layer(fine[..., ::2, ::2]))


@pytest.mark.parametrize("sharing", ["none", "all"])
@pytest.mark.parametrize("padding", ["circular", ("zeros", "circular")])
def test_network_is_the_plain_formula(sharing: Any, padding: Any) -> None:
    torch.manual_seed(0)
    network = FactorizedFNO(2, 2, modes=(4, 3), width=5, layers=3, sharing=sharing, padding=padding, margin=2).double()
    history = fields(2, 2, 2, 8, 9)
    x, y = torch.meshgrid(torch.arange(8) / 8, torch.arange(9) / 9, indexing="ij")
    grid = torch.stack([x, y]).double().expand(2, -1, -1, -1)
    values = plain_matrix(network.lifting, torch.cat([history.flatten(1, 2), grid], dim=1))
    if padding != "circular":
        values = torch.nn.functional.pad(values, (0, 0, 0, 2))
    for layer in range(3):
        convolution = network.convolutions[layer if sharing == "none" else 0]
        hidden = plain_matrix(network.networks[layer].first, plain_convolution(convolution, values))
        added = plain_matrix(network.networks[layer].second, hidden.relu())
        values = values + added
    expected = plain_matrix(network.projection[1], plain_matrix(network.projection[0], added[..., :8, :]))
    torch.testing.assert_close(network(history), expected[:, None])


def test_network_is_the_same_at_every_resolution_where_its_activations_do_not_bend() -> None:
    torch.manual_seed(0)
    network = FactorizedFNO(2, modes=(6, 6), width=6, layers=3, positional="none").double()
    fine = waves(64, 5)
    with torch.no_grad():
        for each in network.networks:
            each.first.bias += 1000
    torch.testing.assert_close(network(fine)[..., ::4, ::4], network(fine[..., ::4, ::4]), rtol=1e-9, atol=1e-9)


def test_network_converges_with_resolution_at_second_order() -> None:
    # A kink's coefficients fall with the square of the wavenumber, and so does what a grid aliases of them.
    torch.manual_seed(0)
    network = FactorizedFNO(2, modes=(6, 6), width=6, layers=3, positional="none").double()
    finest = waves(256, 3)
    with torch.no_grad():
        outputs = [network(finest[..., ::step, ::step])[..., :: 8 // step, :: 8 // step] for step in (1, 2, 4, 8)]
    errors = [float((coarse - outputs[0]).norm() / outputs[0].norm()) for coarse in outputs[1:]]
    assert errors[2] < 0.02
    assert errors[0] < 0.35 * errors[1] < 0.35**2 * errors[2]


def test_shared_convolution_is_stored_once() -> None:
    network = FactorizedFNO(1, modes=(3, 3), width=4, layers=5, sharing="all")
    assert sum(name.startswith("convolutions.") for name in network.state_dict()) == 2
    (gradient,) = torch.autograd.grad(
        network(torch.randn(1, 1, 1, 8, 8)).square().mean(), network.convolutions[0].axes[0].weight
    )
    assert gradient.abs().max() > 0


def test_normalized_rows_begin_as_drawn_and_keep_their_length() -> None:
    torch.manual_seed(0)
    layer = NormalizedPointwise(5, 3).double()
    plain = Pointwise(5, 3).double()
    plain.load_state_dict({"weight": layer.direction, "bias": layer.bias})
    values = fields(2, 5, 4)
    torch.testing.assert_close(layer(values), plain(values))
    with torch.no_grad():
        layer.direction *= 7
    torch.testing.assert_close(layer(values), plain(values))
    torch.testing.assert_close(layer.weight.norm(dim=1), layer.gain)


def test_input_in_half_precision_stays_finite() -> None:
    network = FactorizedFNO(1, modes=(3, 3), width=4, layers=2)
    history = torch.randn(1, 1, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(history)
    assert low.isfinite().all()
    # Two layers in bfloat16, whose unit round-off is 2**-8.
    assert (low.float() - network(history)).norm() < 0.1 * network(history).norm()
