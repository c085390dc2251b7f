"""IFactFormer told of parameters such as the viscosity: it starts without them, learns from them, refuses bad ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.layers.conditioning import sinusoids
from pdesurrogate.layers.factorized_attention import Modulation
from pdesurrogate.models.ifactformer import IFactFormer, ParameterModulation
from pdesurrogate.models.specification import build, specification_of
from pdesurrogate.steppers.surrogate import Surrogate

SPACE = (6, 5, 4)


def small(**changes: Any) -> IFactFormer:
    torch.manual_seed(0)
    sizes = {"width": 12, "heads": 2, "head_width": 4, "iterations": 2, "start": "unit", "harmonics": 2}
    return IFactFormer(**{**sizes, **changes}).double()


def stirred(**changes: Any) -> IFactFormer:
    """A network whose parameters matter already."""
    network = small(**changes)
    for condition in network.conditions:
        nn.init.normal_(condition.leave.weight, std=0.3)
        nn.init.normal_(condition.leave.bias, std=0.3)
    return network


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def viscosities(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(
    "changes", [{}, {"depth": 2, "variant": "feb2025"}, {"attention": "chained", "sums": "mean"}], ids=str
)
def test_starts_as_the_network_without_parameters(changes: dict[str, Any]) -> None:
    history = fields(2, 1, 3, *SPACE)
    plain, conditional = small(**changes), small(parameters=2, **changes)
    given = torch.tensor([[1e-3, 2.0], [5e-2, 700.0]], dtype=torch.float64)
    assert torch.equal(conditional(history, parameters=given), plain(history))
    own = dict(plain.named_parameters())
    others = {name: value for name, value in conditional.named_parameters() if not name.startswith("conditions.")}
    assert all(torch.equal(others[name], own[name]) for name in own | others)


def test_costs_nothing_where_there_are_none() -> None:
    assert not list(small().conditions.parameters())
    sizes = {
        parameters: sum(p.numel() for p in small(parameters=parameters, depth=2).parameters()) for parameters in (0, 1)
    }
    assert sizes[1] - sizes[0] == 2 * (12 * 12 + 12 + 12 * 24 + 24)


def test_a_modulation_is_the_norm_with_another_scale_and_shift() -> None:
    normal, factor, shift = fields(2, *SPACE, 7), fields(2, 7, seed=2), fields(2, 7, seed=3)
    found = Modulation(factor, shift).of(normal)
    for sample in range(2):
        torch.testing.assert_close(found[sample], normal[sample] * (1 + factor[sample]) + shift[sample])


def test_a_conditioned_block_is_one_with_another_norm() -> None:
    network, plain = stirred(parameters=1), small()
    history = fields(1, 1, 3, *SPACE)
    factor, shift = network.conditions[0](viscosities(2e-4))
    norm = plain.blocks[0].attention.norm
    with torch.no_grad():
        norm.weight.copy_(norm.weight * (1 + factor[0]))
        norm.bias.copy_(norm.bias * (1 + factor[0]) + shift[0])
    torch.testing.assert_close(network(history, parameters=viscosities(2e-4)), plain(history), rtol=0, atol=1e-12)


def test_parameters_enter_by_their_logarithms() -> None:
    modulation = ParameterModulation(2, 8).double()
    nn.init.normal_(modulation.leave.weight)
    given = torch.tensor([[2e-4, 180.0]], dtype=torch.float64)
    waves = torch.cat([sinusoids(each.log(), 8) for each in given.unbind(1)], 1)
    expected = modulation.leave(nn.functional.gelu(modulation.enter(waves)))
    torch.testing.assert_close(torch.cat(modulation(given), 1), expected)
    # Sevenfold is as far from a small viscosity as from a large one: the waves turn by the same angle.
    turned = [sinusoids(torch.tensor([value, 7 * value]).double().log(), 2) for value in (1e-5, 3.0)]
    torch.testing.assert_close((turned[0][0] * turned[0][1]).sum(), (turned[1][0] * turned[1][1]).sum())


def test_every_sample_has_parameters_of_its_own() -> None:
    network = stirred(parameters=1)
    history = fields(1, 1, 3, *SPACE).expand(3, -1, -1, -1, -1, -1)
    found = network(history, parameters=viscosities(1e-3, 2e-4, 1e-3))
    torch.testing.assert_close(found[0], found[2], rtol=0, atol=1e-12)
    assert (found[0] - found[1]).abs().max() > 1e-3
    alone = network(history[:1], parameters=torch.tensor([2e-4], dtype=torch.float64))
    torch.testing.assert_close(found[1:2], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("checkpointing", ["none", "iterations"])
def test_gradients_reach_the_condition(checkpointing: str) -> None:
    network = small(parameters=1, checkpointing=checkpointing)
    history, given = fields(2, 1, 3, *SPACE), viscosities(1e-3, 2e-4)
    network(history, parameters=given).square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in network.conditions[0].leave.parameters())
    stir = stirred(parameters=1, checkpointing=checkpointing)
    given = given.requires_grad_()
    stir(history, parameters=given).square().sum().backward()
    assert bool((given.grad != 0).all())
    assert all(float(p.grad.abs().sum()) > 0 for p in stir.conditions[0].parameters())


def test_stays_equivariant_under_translation_along_periodic_axes() -> None:
    network = stirred(parameters=1, axes=("periodic", "open", "periodic"))
    history, given = fields(2, 1, 3, *SPACE), viscosities(1e-3, 2e-4)
    found = network(history.roll((2, 1), (-3, -1)), parameters=given)
    torch.testing.assert_close(found, network(history, parameters=given).roll((2, 1), (-3, -1)), rtol=0, atol=1e-10)


def test_bfloat16_is_finite_with_small_viscosities() -> None:
    network = stirred(parameters=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = network(fields(2, 1, 3, *SPACE).float(), parameters=viscosities(1e-5, 1e-8).float())
    assert bool(torch.isfinite(found).all())


def test_the_context_brings_them_through_a_surrogate_and_its_checkpoint(tmp_path) -> None:
    axes = (Axis("x", period=4.0), Axis("y", bounds=(0.0, 2.0)), Axis("z", period=2.0))
    channels = tuple(Channel(f"velocity_{axis}") for axis in "xyz")
    metadata = Metadata("channel", Grid(axes), channels, frame_interval=0.1, parameters=("viscosity",))
    network = stirred(parameters=1, places="given", lengths=(4.0, 2.0, 2.0)).float()
    assert network.context_inputs == ("coordinates", "parameters")
    assert small(parameters=1, sums="volumes").context_inputs == ("parameters", "volumes")
    surrogate = Surrogate(network, metadata).eval()
    lines = tuple(torch.linspace(0, 1, size).expand(2, -1) for size in SPACE)
    context = Context(lines, parameters=viscosities(1e-3, 2e-4).float())
    history = fields(2, 1, 3, *SPACE).float()
    with torch.no_grad():
        expected = network(history, lines, parameters=context.parameters)
        assert torch.equal(surrogate.step(history, context), expected)
        again = Surrogate.from_checkpoint(surrogate.save(tmp_path / "model.ckpt"))
        assert torch.equal(again.step(history, context), expected)
    rebuilt = build(specification_of(network))
    assert isinstance(rebuilt, IFactFormer)
    assert rebuilt.parameters_expected == 1


def test_what_does_not_fit_is_refused() -> None:
    history = fields(2, 1, 3, *SPACE)
    network = small(parameters=2)
    with pytest.raises(ValueError, match=r"parameters \(2, 2\), as the network was .* parameters=2, but got none"):
        network(history)
    for wrong in (torch.ones(2, 3), torch.ones(1, 2), torch.ones(2)):
        with pytest.raises(ValueError, match=r"parameters \(2, 2\), .* but got \("):
            network(history, parameters=wrong)
    for value in (0.0, -1.0, torch.nan):
        with pytest.raises(ValueError, match="positive parameters, whose logarithms the network takes"):
            network(history, parameters=torch.tensor([[1.0, 1.0], [1.0, value]]))
    with pytest.raises(
        ValueError, match=r"no parameters, as the network was built with parameters=0, but got \(2, 1\)"
    ):
        small()(history, parameters=torch.ones(2, 1))
    with pytest.raises(ValueError, match="not negative but got -1"):
        small(parameters=-1)
    with pytest.raises(ValueError, match=r"and no parameters, .* and 1 parameters"):
        small(parameters=1).reference_translations()
