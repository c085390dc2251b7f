"""The implicit Fourier neural operator: contract, its formula, its number of parameters, depth as time."""

from __future__ import annotations

import io
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pdesurrogate.layers.spectral_conv import convolve
from pdesurrogate.models.ifno import IFNO, deepened
from pdesurrogate.models.specification import build, specification_of


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(*arguments, **options):
    """In double precision, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return IFNO(*arguments, **options).double()


@pytest.mark.parametrize(
    ("modes", "space"), [((4,), (9,)), ((4, 4), (8, 9)), ((4, 2, 2), (6, 5, 4))], ids=["1d", "2d", "3d"]
)
@pytest.mark.parametrize("positional", ["none", "grid"])
def test_contract(modes, space, positional):
    network = IFNO(2, history_frames=3, target_frames=2, modes=modes, width=4, iterations=3, positional=positional)
    assert network(torch.zeros(5, 3, 2, *space)).shape == (5, 2, 2, *space)


@given(
    modes=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    frames=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.integers(1, 4),
    width=st.integers(1, 9),
    iterations=st.integers(1, 50),
    ratio=st.integers(1, 4),
)
@settings(max_examples=30)
def test_the_number_of_parameters_does_not_know_the_depth(modes, frames, channels, width, iterations, ratio):
    network = IFNO(channels, *frames, modes, width, iterations, lifting_ratio=ratio)
    waves = math.prod(modes[:-1]) * (modes[-1] // 2 + 1)
    lifting = (frames[0] * channels + 1) * ratio * width + (ratio * width + 1) * width
    layer = (2 * waves + 1) * width**2 + width
    projection = (width + 1) * 2 * width + (2 * width + 1) * frames[1] * channels
    assert sum(parameter.numel() for parameter in network.parameters()) == lifting + layer + projection


@pytest.mark.parametrize("iterations", [1, 3])
def test_equal_to_the_formula_in_values_and_gradients(iterations):
    network = made(2, modes=(4, 3), width=5, iterations=iterations)
    fields = noise(2, 1, 2, 8, 7)

    def formula():
        hidden = network.lifting(fields.flatten(1, 2))
        for _ in range(iterations):
            convolved = convolve(hidden, network.spectral.weight, network.spectral.bias, None, (4, 3))
            mixed = torch.einsum("oi,bixy->boxy", network.skip.weight, hidden)
            hidden = hidden + functional.gelu(convolved + mixed) / iterations
        return network.projection(hidden).unsqueeze(1)

    torch.testing.assert_close(network(fields), formula(), rtol=0, atol=1e-13)
    parameters = list(network.parameters())
    own = torch.autograd.grad(network(fields).square().sum(), parameters)
    expected = torch.autograd.grad(formula().square().sum(), parameters)
    torch.testing.assert_close(own, expected, rtol=1e-11, atol=1e-11)


def test_gradients():
    network = made(1, modes=(2, 2), width=2, iterations=2)
    assert torch.autograd.gradcheck(network, noise(1, 1, 1, 4, 3).requires_grad_())


def test_commutes_with_translations():
    network = made(3, modes=(4, 4, 4), width=6, iterations=4)
    fields = noise(2, 1, 3, 8, 9, 6)
    moved = network(fields.roll((3, -4, 1), (-3, -2, -1)))
    torch.testing.assert_close(moved, network(fields).roll((3, -4, 1), (-3, -2, -1)), atol=1e-12, rtol=0)
    placed = made(3, modes=(4, 4, 4), width=6, positional="grid")
    assert (placed(fields.roll(2, -1)) - placed(fields).roll(2, -1)).abs().max() > 1e-3


def test_samples_of_a_batch_know_nothing_of_each_other():
    network = made(1, modes=(4, 4), width=4)
    fields = noise(3, 1, 1, 8, 8)
    torch.testing.assert_close(network(fields)[1:2], network(fields[1:2]), rtol=0, atol=1e-13)


def test_depth_is_time_of_an_equation_that_euler_steps_solve_to_first_order():
    shallow = made(1, modes=(4, 4), width=6, iterations=8)
    with torch.no_grad():
        # Smaller rates, so that eight steps are many.
        for parameter in (*shallow.spectral.parameters(), *shallow.skip.parameters()):
            parameter.mul_(0.3)
        fields = noise(2, 1, 1, 12, 12)
        outputs = [shallow(fields), *(deepened(shallow, iterations)(fields) for iterations in (16, 32, 64))]
    changes = [float((fine - coarse).norm()) for coarse, fine in itertools.pairwise(outputs)]
    assert [coarse / fine for coarse, fine in itertools.pairwise(changes)] == pytest.approx([2, 2], rel=0.15)


def test_a_deepened_network_is_another_one_with_the_same_weights():
    shallow = made(1, modes=(4, 4), width=4, iterations=2)
    deep = deepened(shallow, 6)
    assert (shallow.iterations, deep.iterations) == (2, 6)
    assert specification_of(deep)["init_args"]["iterations"] == 6
    assert {value.dtype for value in deep.state_dict().values()} == {torch.float64}
    with torch.no_grad():
        next(deep.parameters()).zero_()
    assert next(shallow.parameters()).any()
    for iterations in (1, 2):
        with pytest.raises(ValueError, match=f"more iterations than the 2 .* got {iterations}"):
            deepened(shallow, iterations)


def test_checkpoints_hold_real_tensors_and_plain_values():
    network = made(1, modes=(4, 4), width=4, iterations=3)
    buffer = io.BytesIO()
    torch.save({"specification": specification_of(network), "weights": network.state_dict()}, buffer)
    buffer.seek(0)
    stored = torch.load(buffer, weights_only=True)
    assert not any(value.is_complex() for value in stored["weights"].values())
    twin = build(stored["specification"]).double()
    twin.load_state_dict(stored["weights"], strict=True)
    fields = noise(1, 1, 1, 8, 8)
    assert torch.equal(twin(fields), network(fields))


def test_refuses_what_does_not_fit():
    network = IFNO(2, history_frames=3, modes=(8, 8), width=4)
    with pytest.raises(ValueError, match=r"Expected \(batch, 3, 2, \*space\) with 2 space axes but got \(1, 1, 2, 8,"):
        network(torch.zeros(1, 1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"at least \(8, 8\) points"):
        network(torch.zeros(1, 3, 2, 8, 7))
    with pytest.raises(ValueError, match="at least 1"):
        IFNO(1, iterations=0)
    with pytest.raises(ValueError, match="one to three axes"):
        IFNO(1, modes=(2, 2, 2, 2))
