"""The Fourier neural operator: contract, symmetry, equality with neuraloperator at equal weights."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from pdesurrogate.layers import pointwise
from pdesurrogate.models.fno import FNO, unit_coordinates


def test_contract_in_one_two_and_three_dimensions() -> None:
    for modes, space in (((4,), (9,)), ((4, 4), (8, 9)), ((4, 2, 2), (6, 5, 4))):
        network = FNO(2, history_frames=3, target_frames=2, modes=modes, width=4, layers=2)
        assert network(torch.zeros(5, 3, 2, *space)).shape == (5, 2, 2, *space)


@pytest.mark.parametrize("smallest", [0, 2**40])
def test_commutes_with_translations(smallest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointwise, "SMALLEST_SAMPLE", smallest)
    torch.manual_seed(0)
    network = FNO(1, modes=(6, 6), width=8).double()
    fields = torch.randn(2, 1, 1, 16, 15, dtype=torch.float64)
    moved = network(fields.roll((3, -4), (-2, -1)))
    torch.testing.assert_close(moved, network(fields).roll((3, -4), (-2, -1)), atol=1e-10, rtol=0)


def test_coordinates_break_the_translation_symmetry() -> None:
    torch.manual_seed(0)
    network = FNO(1, modes=(4, 4), width=8, layers=2, positional="grid").double()
    fields = torch.randn(1, 1, 1, 8, 8, dtype=torch.float64)
    assert (network(fields.roll(2, -1)) - network(fields).roll(2, -1)).abs().max() > 1e-3
    x, y = unit_coordinates(torch.zeros(1, 1, 4, 5))[0]
    assert x[:, 0].tolist() == [0, 0.25, 0.5, 0.75]
    torch.testing.assert_close(y[0], torch.arange(5) / 5)


def test_band_limited_layers_agree_across_resolutions() -> None:
    torch.manual_seed(1)
    network = FNO(1, modes=(8, 8), width=8, layers=3)
    x, y = torch.meshgrid(*[torch.arange(64) * (2 * torch.pi / 64)] * 2, indexing="ij")
    fine = (torch.sin(x) * torch.cos(2 * y))[None, None, None]
    coarse = network(fine[..., ::2, ::2])
    # The nonlinearities make waves that 32 points alias; a smooth field keeps that at a percent.
    assert (network(fine)[..., ::2, ::2] - coarse).norm() < 0.01 * coarse.norm()


def test_same_function_as_the_formula_in_gradients_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    network = FNO(1, modes=(6, 6), width=8).double()
    fields = torch.randn(2, 1, 1, 12, 12, dtype=torch.float64)
    gradients = []
    for smallest in (0, 2**40):
        monkeypatch.setattr(pointwise, "SMALLEST_SAMPLE", smallest)
        loss = network(fields).square().mean()
        gradients.append(torch.autograd.grad(loss, list(network.parameters())))
    for by_sample, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(by_sample, plain, atol=1e-14, rtol=1e-9)


def test_checkpoints_hold_real_tensors_and_load_strictly() -> None:
    network = FNO(1, modes=(4, 4), width=4, layers=2)
    fields = torch.randn(1, 1, 1, 8, 8)
    expected = network(fields)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert state
    assert not any(value.is_complex() for value in state.values())
    other = FNO(1, modes=(4, 4), width=4, layers=2)
    other.load_state_dict(state, strict=True)
    for twin in (other, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(fields), expected)


def test_exports() -> None:
    network = FNO(1, modes=(4, 4), width=4, layers=2)
    exported = torch.export.export(network, (torch.zeros(2, 1, 1, 8, 8),)).module()
    fields = torch.randn(2, 1, 1, 8, 8)
    torch.testing.assert_close(exported(fields), network(fields), atol=1e-6, rtol=1e-5)


def test_refuses_what_does_not_fit() -> None:
    network = FNO(2, history_frames=3, modes=(8, 8), width=4, layers=1)
    with pytest.raises(
        ValueError, match=r"Expected \(batch, 3, 2, \*space\) with 2 space axes but got \(1, 1, 2, 8, 8\)"
    ):
        network(torch.zeros(1, 1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"at least \(8, 8\) points"):
        network(torch.zeros(1, 3, 2, 8, 7))
    with pytest.raises(ValueError, match="at least 1"):
        FNO(1, layers=0)
