"""The spectral convolution against its definition, its derivatives, and what holds for it at any resolution."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from pdesurrogate.layers import spectral_conv
from pdesurrogate.layers.spectral_conv import SpectralConv, convolve, kept_wavenumbers, prefers_product

CASES = [
    ((4,), (8,)),
    ((8,), (8,)),
    ((5,), (9,)),
    ((4, 4), (8, 8)),
    ((8, 8), (8, 8)),
    ((5, 7), (9, 7)),
    ((4, 3), (9, 8)),
    ((1, 1), (6, 5)),
    ((4, 4, 4), (6, 7, 8)),
    ((4, 6, 8), (4, 6, 8)),
    ((3, 5, 3), (5, 5, 3)),
]

# Modes, points, and points of the result along the last axis: fewer and more, even and odd, Nyquist here and there.
SAMPLED_ANEW = [
    ((4,), (8,), 12),
    ((4,), (9,), 4),
    ((8,), (8,), 9),
    ((8,), (11,), 8),
    ((4, 4), (8, 8), 5),
    ((5, 7), (9, 8), 7),
    ((4, 6), (4, 6), 64),
    ((4, 4, 4), (6, 7, 9), 4),
    ((3, 5, 3), (5, 5, 4), 3),
    ((2, 2, 1), (4, 3, 5), 1),
]


def carriers(wave: list[int], space: tuple[int, ...], last_size: int | None = None) -> Tensor:
    """``exp(i k x)`` on the points of a box."""
    sizes = space if last_size is None else (*space[:-1], last_size)
    grid = torch.meshgrid(*[torch.arange(size, dtype=torch.float64) / size for size in sizes], indexing="ij")
    phase = 2 * torch.pi * sum(k * x for k, x in zip(wave, grid, strict=True))
    return torch.polar(torch.ones_like(phase), phase)


def by_loop(layer: SpectralConv, values: Tensor, last_size: int | None = None) -> Tensor:
    """The sum over waves, one at a time, with no FFT at all."""
    space = tuple(values.shape[2:])
    size = space[-1] if last_size is None else last_size
    result = torch.zeros(len(values), layer.channels_out, *space[:-1], size, dtype=values.dtype)
    dims = tuple(range(2, values.ndim))
    for wave, weight in zip(kept_wavenumbers(layer.modes).tolist(), torch.view_as_complex(layer.weight), strict=True):
        amplitude = (values * carriers(wave, space).conj()).mean(dims) @ weight
        pair = 1 if wave[-1] == 0 or 2 * wave[-1] == size else 2
        result += pair * (amplitude[(..., *(None,) * len(space))] * carriers(wave, space, last_size)).real
    assert layer.bias is not None
    return result + layer.bias.reshape(-1, *(1,) * len(space))


@pytest.fixture(params=["product", "fft", "chosen"])
def transform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways to do the last axis, whatever the rule prefers for small grids."""
    advantage = {"product": float("inf"), "fft": 0.0}.get(request.param)
    if advantage is not None:
        monkeypatch.setattr(spectral_conv, "ANALYSIS_ADVANTAGE", advantage)
        monkeypatch.setattr(spectral_conv, "SYNTHESIS_ADVANTAGE", advantage)


@pytest.mark.usefixtures("transform")
@pytest.mark.parametrize(("modes", "space"), CASES)
def test_equals_its_definition(modes: tuple[int, ...], space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = SpectralConv(2, 3, modes).double()
    values = torch.randn(2, 2, *space, dtype=torch.float64)
    formula = convolve(values, layer.weight, layer.bias, None, modes)
    torch.testing.assert_close(layer(values), formula, atol=1e-12, rtol=0)
    torch.testing.assert_close(by_loop(layer, values), formula, atol=1e-12, rtol=0)


@pytest.mark.usefixtures("transform")
@pytest.mark.parametrize(("modes", "space"), [((5,), (9,)), ((4, 4), (4, 5)), ((4, 3), (6, 4)), ((2, 3, 2), (3, 3, 4))])
@pytest.mark.parametrize("with_skip", [False, True])
def test_first_and_second_derivatives(modes: tuple[int, ...], space: tuple[int, ...], with_skip: bool) -> None:
    torch.manual_seed(1)
    layer = SpectralConv(2, 1, modes).double()
    values = torch.randn(1, 2, *space, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(1, 2, dtype=torch.float64, requires_grad=True) if with_skip else None

    def function(values: Tensor, weight: Tensor, bias: Tensor, skip: Tensor | None) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (values, skip))

    inputs = (values, layer.weight, layer.bias, skip)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.usefixtures("transform")
@pytest.mark.parametrize(("modes", "space", "last_size"), SAMPLED_ANEW)
def test_result_sampled_anew_equals_its_definition(
    modes: tuple[int, ...], space: tuple[int, ...], last_size: int
) -> None:
    torch.manual_seed(0)
    layer = SpectralConv(2, 3, modes).double()
    values = torch.randn(2, 2, *space, dtype=torch.float64)
    formula = convolve(values, layer.weight, layer.bias, None, modes, last_size)
    assert formula.shape == (2, 3, *space[:-1], last_size)
    torch.testing.assert_close(layer(values, last_size=last_size), formula, atol=1e-12, rtol=0)
    torch.testing.assert_close(by_loop(layer, values, last_size), formula, atol=1e-12, rtol=0)


@pytest.mark.usefixtures("transform")
@pytest.mark.parametrize(
    ("modes", "space", "last_size"), [((4,), (9,), 4), ((4, 4), (4, 4), 7), ((2, 3, 2), (3, 3, 5), 2)]
)
def test_derivatives_of_the_result_sampled_anew(modes: tuple[int, ...], space: tuple[int, ...], last_size: int) -> None:
    torch.manual_seed(1)
    layer = SpectralConv(2, 1, modes).double()
    values = torch.randn(1, 2, *space, dtype=torch.float64, requires_grad=True)

    def function(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        state = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, state, (values,), {"last_size": last_size})

    inputs = (values, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@given(wave=st.integers(0, 4), size=st.integers(8, 24), last_size=st.integers(8, 24), phase=st.floats(-3, 3))
def test_a_wave_keeps_amplitude_and_phase_at_any_number_of_points(
    wave: int, size: int, last_size: int, phase: float
) -> None:
    assume(2 * wave < min(size, last_size))  # a Nyquist wave counts once, elsewhere as a pair
    layer = SpectralConv(1, 1, (2, 8), bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.0]).expand_as(layer.weight))

    def sampled(points: int) -> Tensor:
        angle = 2 * torch.pi * wave * torch.arange(points, dtype=torch.float64) / points
        return torch.cos(angle + phase).expand(1, 1, 3, points)

    torch.testing.assert_close(layer(sampled(size), last_size=last_size), sampled(last_size), atol=1e-13, rtol=0)


def test_skip_is_added_at_every_point() -> None:
    torch.manual_seed(2)
    layer = SpectralConv(3, 2, (4, 4)).double()
    values, skip = torch.randn(2, 3, 8, 9, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    expected = layer(values) + torch.einsum("oi,bixy->boxy", skip, values)
    torch.testing.assert_close(layer(values, skip=skip), expected)
    torch.testing.assert_close(layer(values, skip=skip, last_size=9), expected)


def test_means_the_same_at_every_resolution() -> None:
    torch.manual_seed(3)
    layer = SpectralConv(1, 2, (6, 6)).double()
    fine = torch.zeros(1, 1, 48, 48, dtype=torch.float64)
    x, y = torch.meshgrid(*[torch.arange(48, dtype=torch.float64) * (2 * torch.pi / 48)] * 2, indexing="ij")
    fine[0, 0] = 1 + torch.cos(2 * x - y) + torch.sin(x + 2 * y)
    coarse = fine[..., ::3, ::4]  # 16 x 12 points of the same field
    torch.testing.assert_close(layer(fine)[..., ::3, ::4], layer(coarse), atol=1e-13, rtol=1e-12)


def test_strided_input_and_gradient() -> None:
    torch.manual_seed(4)
    layer = SpectralConv(2, 2, (4, 4)).double()
    values = torch.randn(3, 8, 8, 2, dtype=torch.float64, requires_grad=True)
    strided = layer(values.movedim(-1, 1)).movedim(1, -1)
    dense = layer(values.movedim(-1, 1).contiguous()).movedim(1, -1)
    torch.testing.assert_close(strided, dense)
    (of_strided,) = torch.autograd.grad(strided.mean(), values)
    (of_dense,) = torch.autograd.grad((dense * torch.ones_like(dense)).mean(), values)
    torch.testing.assert_close(of_strided, of_dense)


def test_inference_first_then_training_and_other_precision() -> None:
    layer = SpectralConv(1, 1, (4, 4))
    values = torch.randn(1, 1, 14, 22)  # a size that no other test uses: its tables are made here
    with torch.inference_mode():
        before = layer(values)
    after = layer(values)
    after.sum().backward()
    assert torch.equal(before, after)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(values.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), after, atol=0.05, rtol=0.05)  # bfloat16 input has eight bits
    assert layer.double()(values.double()).dtype == torch.float64


def test_state_is_the_two_real_parameters_whatever_was_computed() -> None:
    layer = SpectralConv(1, 2, (4, 4))
    values = torch.randn(1, 1, 8, 8)
    expected = layer(values)
    state = layer.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {"weight": (12, 1, 2, 2), "bias": (2,)}
    assert all(value.dtype == torch.float32 for value in state.values())
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(values), expected)


def test_choice_of_transform_follows_the_count_of_operations() -> None:
    assert prefers_product(64, 1, advantage=1.0)
    assert not prefers_product(64, 33, advantage=3.0)
    columns = [prefers_product(64, columns, advantage=3.0) for columns in range(1, 34)]
    assert columns == sorted(columns, reverse=True)  # one crossover, products below it


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 7, 8), r"at least \(8, 6\) points.*grid of \(7, 8\).*fewer modes"),
        ((1, 2, 8, 5), r"at least \(8, 6\) points.*grid of \(8, 5\)"),
        ((1, 3, 8, 8), r"\(batch, 2, \*space\) with 2 space axes but got \(1, 3, 8, 8\)"),
        ((1, 2, 8), r"with 2 space axes but got"),
    ],
)
def test_refuses_what_does_not_fit(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectralConv(2, 2, (8, 6))(torch.zeros(shape))


@pytest.mark.parametrize("last_size", [0, 5])
def test_refuses_a_result_too_short_for_its_modes(last_size: int) -> None:
    with pytest.raises(ValueError, match=rf"at least \(8, 6\) points.*grid of \(8, {last_size}\)"):
        SpectralConv(2, 2, (8, 6))(torch.zeros(1, 2, 8, 8), last_size=last_size)


def test_refuses_a_skip_past_a_result_sampled_anew() -> None:
    with pytest.raises(ValueError, match=r"no skip where the result is sampled anew; add it outside"):
        SpectralConv(2, 2, (4, 4))(torch.zeros(1, 2, 8, 8), skip=torch.eye(2), last_size=6)


def test_refuses_senseless_sizes() -> None:
    with pytest.raises(ValueError, match="one to three axes"):
        SpectralConv(1, 1, (4, 4, 4, 4))
    with pytest.raises(ValueError, match="positive modes"):
        SpectralConv(1, 1, (4, 0))
    with pytest.raises(ValueError, match="at least one channel"):
        SpectralConv(0, 1, (4,))
