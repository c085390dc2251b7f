"""The adapter of neuraloperator's networks, and the equality of the two FNOs."""

from __future__ import annotations

import builtins
import io

import pytest
import torch
from torch import Tensor

from pdesurrogate.models.neuralop import NeuralOperator, from_neuralop

SMALL = {
    "FNO": {"layers": 2},
    "TFNO": {"layers": 2},
    "UNO": {"layers": 5},
}


@pytest.mark.parametrize(
    ("modes", "space"),
    [((6,), (16,)), ((12, 8), (32, 16)), ((7, 5), (16, 16)), ((16, 16), (16, 16)), ((4, 6, 4), (8, 8, 10))],
)
def test_our_fno_is_the_same_function_at_equal_weights(modes: tuple[int, ...], space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = NeuralOperator("FNO", channels=2, history_frames=2, target_frames=3, modes=modes, width=8)
    ours = from_neuralop(theirs.network, history_frames=2, target_frames=3)
    fields = torch.randn(2, 2, 2, *space)
    expected, got = theirs(fields), ours(fields)
    assert (got - expected).norm() < 1e-6 * expected.norm()
    squares: list[Tensor] = [network(fields).square().mean() for network in (theirs, ours)]
    (theirs_bias,) = torch.autograd.grad(squares[0], theirs.network.fno_blocks.convs[0].bias)
    (ours_bias,) = torch.autograd.grad(squares[1], ours.blocks[0].spectral.bias)
    torch.testing.assert_close(ours_bias, theirs_bias.flatten(), rtol=1e-4, atol=1e-5 * float(theirs_bias.abs().max()))


@pytest.mark.parametrize("architecture", ["FNO", "TFNO", "UNO"])
@pytest.mark.parametrize("positional", ["none", "grid"])
def test_contract(architecture: str, positional: str, capsys: pytest.CaptureFixture[str]) -> None:
    network = NeuralOperator(
        architecture, channels=2, history_frames=2, modes=(8, 8), width=8, positional=positional, **SMALL[architecture]
    )
    assert network(torch.zeros(3, 2, 2, 16, 32)).shape == (3, 1, 2, 16, 32)
    assert capsys.readouterr().out == ""  # the library prints while it builds a UNO


@pytest.mark.parametrize("architecture", ["FNO", "TFNO", "UNO"])
def test_state_holds_tensors_and_round_trips_strictly_inside_a_larger_module(architecture: str) -> None:
    def build() -> torch.nn.Module:
        return torch.nn.ModuleDict(
            {"network": NeuralOperator(architecture, 1, modes=(4, 4), width=4, **SMALL[architecture])}
        )

    outer, buffer = build(), io.BytesIO()
    assert all(isinstance(value, Tensor) for value in outer.state_dict().values())
    torch.save(outer.state_dict(), buffer)
    buffer.seek(0)
    other = build()
    other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    fields = torch.randn(1, 1, 1, 16, 16)
    assert torch.equal(other["network"](fields), outer["network"](fields))


def test_tucker_factors_save_parameters() -> None:
    def count(architecture: str) -> int:
        network = NeuralOperator(architecture, 1, modes=(12, 12), width=16, layers=2)
        return sum(parameter.numel() for parameter in network.parameters())

    assert count("TFNO") < 0.3 * count("FNO")


def test_refuses_what_the_library_gets_wrong() -> None:
    network = NeuralOperator("FNO", 1, modes=(4, 4), width=4, layers=1)
    with pytest.raises(ValueError, match=r"divisible by 2 but got \(16, 15\).*resample"):
        network(torch.zeros(1, 1, 1, 16, 15))
    with pytest.raises(ValueError, match=r"Expected float32 but got torch.float64"):
        network(torch.zeros(1, 1, 1, 16, 16, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"Expected \(batch, 1, 1, \*space\)"):
        network(torch.zeros(1, 2, 1, 16, 16))
    with pytest.raises(ValueError, match="odd number of layers, at least 5"):
        NeuralOperator("UNO", 1, modes=(4, 4), width=4, layers=4)
    with pytest.raises(ValueError, match="'FNO', 'TFNO' or 'UNO' but got 'SFNO'"):
        NeuralOperator("SFNO", 1)  # type: ignore[arg-type]


def test_conversion_names_what_differs() -> None:
    from neuralop.models import FNO

    sizes = {"n_modes": (4, 4), "in_channels": 1, "out_channels": 1, "hidden_channels": 4}
    with pytest.raises(ValueError, match="positional_embedding differ"):
        from_neuralop(FNO(**sizes))
    with pytest.raises(ValueError, match="norm differ"):
        from_neuralop(FNO(**sizes, positional_embedding=None, norm="instance_norm"))
    with pytest.raises(ValueError, match="takes 1 and gives 1 channels"):
        from_neuralop(FNO(**sizes, positional_embedding=None), history_frames=2)


def test_says_how_to_install_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def absent(name: str, *args: object, **kwargs: object) -> object:
        if name.split(".")[0] == "neuralop":
            raise ImportError("No module named 'neuralop'")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ImportError, match=r"pip install 'neuraloperator>=2\.0'"):
        NeuralOperator("FNO", 1)
