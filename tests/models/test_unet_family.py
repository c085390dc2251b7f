"""The networks that SineNet is compared with: published sizes, plain formulas, symmetries, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.layers.budget import multiplier_for
from pdesurrogate.models.dilated_resnet import DILATIONS, DilatedResNet
from pdesurrogate.models.ffno import FactorizedFNO
from pdesurrogate.models.specification import build, specification_of
from pdesurrogate.models.unet import UNet, parameter_count
from pdesurrogate.models.unet_modern import ModernUNet
from pdesurrogate.steppers.surrogate import Surrogate

# Channels and frames of history of incompressible flow, compressible flow and shallow water.
PROBLEMS = ((3, 4), (4, 10), (3, 2))
# SineNet-8 on the first of them.
BUDGET = 35_490_219

SMALL: dict[str, Callable[..., nn.Module]] = {
    "modern": lambda *frames, **rest: ModernUNet(*frames, width=8, multipliers=(1, 2, 1), blocks=1, **rest),
    "plain": lambda *frames, **rest: UNet(*frames, width=4, multiplier=1.5, levels=3, **rest),
    "dilated": lambda *frames, **rest: DilatedResNet(*frames, width=6, blocks=2, **rest),
    "factorized": lambda *frames, **rest: FactorizedFNO(*frames, modes=(5, 4), width=6, layers=3, **rest),
}


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def seeded(name: str, *frames: int, **rest: Any) -> nn.Module:
    """A small network, its norms' factors and shifts drawn too, so that none of them is trivial."""
    torch.manual_seed(0)
    network = SMALL[name](*frames, **rest).double()
    with torch.no_grad():
        for each in network.parameters():
            each += 0.05 * torch.randn_like(each)
    return network


def count(make: Callable[..., nn.Module], *frames: int, **rest: Any) -> int:
    with torch.device("meta"):
        return sum(each.numel() for each in make(*frames, **rest).parameters())


@pytest.mark.parametrize(
    ("make", "arguments", "published"),
    [
        pytest.param(ModernUNet, {}, (144_263_683, 144_280_388, 144_260_227), id="Unetmod-64"),
        pytest.param(DilatedResNet, {}, (4_174_595, 4_178_308, 4_173_827), id="DilResNet-128-norm"),
        pytest.param(FactorizedFNO, {}, (30_118_534, 30_121_352, 30_117_958), id="FFNO-24-32-96-noShare"),
        pytest.param(FactorizedFNO, {"sharing": "all"}, (2_986_630, 2_989_448, 2_986_054), id="FFNO-24-32-96-share"),
    ],
)
def test_published_numbers_of_parameters(make: Any, arguments: dict[str, Any], published: tuple[int, ...]) -> None:
    assert tuple(count(make, *problem, **arguments) for problem in PROBLEMS) == published


def test_published_number_of_parameters_of_the_conditional_modern_unet() -> None:
    assert count(ModernUNet, 3, 1, conditioning="adagn", parameter_ranges=[(0.2, 0.5)]) == 148_765_635


def test_plain_unet_is_unetbase_and_meets_sinenets_budget() -> None:
    # PDEArena's table of models gives 31.1 million parameters and 124.2 MB for Unetbase-64.
    assert count(UNet, 3, 4) == parameter_count((64, 128, 256, 512, 1024), 12, 3, dimension=2)
    assert round(4e-6 * count(UNet, 3, 4), 1) == 124.2
    for problem in PROBLEMS:
        assert count(UNet, *problem, budget=BUDGET) == pytest.approx(BUDGET, rel=5e-3)


@settings(max_examples=15)
@given(
    width=st.integers(2, 12), multiplier=st.floats(1, 2.5), levels=st.integers(1, 4), channels=st.integers(1, 3),
    dimension=st.sampled_from([2, 3]),
)  # fmt: skip
def test_closed_form_counts_the_plain_unet(
    width: int, multiplier: float, levels: int, channels: int, dimension: int
) -> None:
    with torch.device("meta"):
        network = UNet(channels, 2, 3, width, multiplier, levels=levels, dimension=dimension)
    assert sum(each.numel() for each in network.parameters()) == parameter_count(
        network.widths, 2 * channels, 3 * channels, dimension
    )


@given(st.integers(300, 15_000), st.floats(0, 0.9))
def test_a_budget_finds_the_nearest_stair_and_its_middle(budget: int, share: float) -> None:
    def stairs(multiplier: float) -> int:
        return 10 * int(5 * multiplier + share) ** 2

    nearest = min(abs(10 * number**2 - budget) for number in range(5, 41))
    found = multiplier_for(budget, stairs, tolerance=1.0)
    assert abs(stairs(found) - budget) == nearest
    if 1.2 < found < 7.8:  # a stair is 0.2 wide, but for those that 1 and 8 cut
        assert stairs(found - 0.09) == stairs(found) == stairs(found + 0.09)


def test_a_budget_and_its_multiplier_are_the_same_network() -> None:
    torch.manual_seed(0)
    by_budget = UNet(2, width=4, budget=30_000)
    torch.manual_seed(0)
    by_multiplier = UNet(2, width=4, multiplier=by_budget.multiplier)
    history = torch.randn(1, 1, 2, 16, 16)
    assert torch.equal(by_budget(history), by_multiplier(history))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("history_frames", [1, 2, 4, 10])
def test_contract(name: str, history_frames: int) -> None:
    network = SMALL[name](3, history_frames, 2, padding="circular")
    assert network(torch.zeros(1, history_frames, 3, 16, 24)).shape == (1, 2, 3, 16, 24)
    assert network(torch.zeros(2, history_frames, 3, 24, 16)).is_contiguous()


@pytest.mark.parametrize("name", ["modern", "plain", "dilated"])
def test_three_dimensions(name: str) -> None:
    network = SMALL[name](2, padding=("circular", "zeros", "replicate"), dimension=3)
    assert network(torch.zeros(1, 1, 2, 16, 8, 8)).shape == (1, 1, 2, 16, 8, 8)


@pytest.mark.parametrize(
    ("name", "period"), [("modern", 4), ("plain", 8), ("dilated", 1), ("factorized", 1)]
)  # fmt: skip
def test_commutes_with_translations_of_periodic_axes_by_its_coarsest_cells(name: str, period: int) -> None:
    options = {"positional": "none"} if name == "factorized" else {}
    history = fields(1, 2, 2, 24, 16)
    network = seeded(name, 2, 2, padding="circular", **options)
    expected = network(history)
    for shifts in ((period, 0), (-2 * period, 3 * period)):
        torch.testing.assert_close(network(history.roll(shifts, (-2, -1))), expected.roll(shifts, (-2, -1)))
    if period > 1:
        assert (network(history.roll(period // 2, -1)) - expected.roll(period // 2, -1)).abs().max() > 1e-3
    network = seeded(name, 2, 2, padding=("zeros", "circular"), **options)
    expected = network(history)
    torch.testing.assert_close(network(history.roll(period, -1)), expected.roll(period, -1))
    assert (network(history.roll(period, -2)) - expected.roll(period, -2)).abs().max() > 1e-3


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_gradients_reach_every_parameter(name: str, padding: str) -> None:
    network = seeded(name, 2, 2, padding=padding)
    network(fields(2, 2, 2, 16, 16)).square().mean().backward()
    for parameter, values in network.named_parameters():
        assert values.grad is not None, parameter
        assert values.grad.abs().max() > 0, parameter


@pytest.mark.parametrize("name", SMALL)
def test_a_checkpoint_gives_the_same_predictions(name: str, tmp_path: Path) -> None:
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    channels = Channel("tracer"), Channel("velocity_x"), Channel("velocity_y")
    metadata = Metadata("example", grid, channels, frame_interval=0.1)
    surrogate = Surrogate(SMALL[name](3, 2, padding=["circular", "zeros"]), metadata, history_frames=2).eval()
    history = torch.randn(1, 2, 3, 16, 24)
    context = Context(tuple(points.expand(1, -1) for points in grid.uniform_coordinates((16, 24))))
    with torch.inference_mode():
        expected = surrogate.step(history, context)
        again = Surrogate.from_checkpoint(surrogate.save(tmp_path / "weights.ckpt"))
        assert torch.equal(again.step(history, context), expected)


def test_a_budget_survives_a_checkpoint() -> None:
    network = UNet(2, width=4, budget=30_000)
    again = build(specification_of(network))
    again.load_state_dict(network.state_dict(), strict=True)
    assert isinstance(again, UNet)
    assert again.widths == network.widths


class PlainOperations:
    """A network's parameters by name, and what torch has for them, with zeros around the grid."""

    def __init__(self, network: nn.Module) -> None:
        self.state = network.state_dict()

    def convolution(self, values: Tensor, name: str, **options: int) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.conv2d(values, weight, bias, **{"padding": 1, **options})

    def transposed(self, values: Tensor, name: str, padding: int) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.conv_transpose2d(values, weight, bias, stride=2, padding=padding)

    def norm(self, values: Tensor, name: str, groups: int = 1) -> Tensor:
        return functional.group_norm(values, groups, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def matrix(self, values: Tensor, name: str) -> Tensor:
        mixed = torch.einsum("oi,bixy->boxy", self.state[f"{name}.weight"], values)
        return mixed + self.state[f"{name}.bias"][:, None, None]


def plain_modern(network: ModernUNet, history: Tensor, condition: Tensor | None = None) -> Tensor:
    """PDEArena's modern U-Net with two blocks a level, as its code computes it."""
    plain = PlainOperations(network)

    def block(values: Tensor, name: str) -> Tensor:
        hidden = plain.convolution(functional.gelu(plain.norm(values, f"{name}.first_norm")), f"{name}.first")
        if condition is None:
            hidden = plain.norm(hidden, f"{name}.second_norm")
        else:
            weight, bias = plain.state[f"{name}.condition.weight"], plain.state[f"{name}.condition.bias"]
            acts = (condition @ weight.T + bias)[:, :, None, None]
            channels = hidden.shape[1]
            if acts.shape[1] == channels:
                hidden = plain.norm(hidden + acts, f"{name}.second_norm")
            else:
                scale, shift = acts[:, :channels], acts[:, channels:]
                hidden = plain.norm(hidden, f"{name}.second_norm") * (1 + scale) + shift
        hidden = plain.convolution(functional.gelu(hidden), f"{name}.second")
        return hidden + (plain.matrix(values, f"{name}.shortcut") if hidden.shape[1] != values.shape[1] else values)

    first = plain.convolution(history.flatten(1, 2), "lifting")
    fine_1 = block(first, "down.0.blocks.0")
    fine_2 = block(fine_1, "down.0.blocks.1")
    halved = plain.convolution(fine_2, "down.0.onward", stride=2)
    coarse_1 = block(halved, "down.1.blocks.0")
    coarse_2 = block(coarse_1, "down.1.blocks.1")
    values = block(block(coarse_2, "middle.0"), "middle.1")
    for number, beside in enumerate((coarse_2, coarse_1, halved)):
        values = block(torch.cat([values, beside], dim=1), f"up.0.blocks.{number}")
    values = plain.transposed(values, "up.0.onward", padding=1)
    for number, beside in enumerate((fine_2, fine_1, first)):
        values = block(torch.cat([values, beside], dim=1), f"up.1.blocks.{number}")
    return plain.convolution(functional.gelu(plain.norm(values, "norm", groups=8)), "projection")[:, None]


@pytest.mark.parametrize("conditioning", ["none", "add", "adagn"])
def test_modern_unet_is_pdearenas_function(conditioning: Any) -> None:
    torch.manual_seed(0)
    ranges = () if conditioning == "none" else ((0.0, 2.0),)
    network = ModernUNet(2, 2, width=8, multipliers=(1, 2), conditioning=conditioning, parameter_ranges=ranges).double()
    with torch.no_grad():
        for each in network.parameters():
            each += 0.05 * torch.randn_like(each)
    history = fields(2, 2, 2, 6, 10)
    if network.condition is None:
        torch.testing.assert_close(network(history), plain_modern(network, history))
        return
    times, numbers = torch.tensor([1.0, 4.0]), torch.tensor([[0.3], [1.7]])
    condition = network.condition(times, numbers)
    torch.testing.assert_close(network(history, times, numbers), plain_modern(network, history, condition))
    assert (network(history, times + 1, numbers) - network(history, times, numbers)).abs().max() > 1e-3
    assert torch.equal(network(history, None, numbers), network(history, torch.ones(2), numbers))


def test_conditional_modern_unet_begins_as_zero_and_learns_all_over() -> None:
    torch.manual_seed(0)
    network = ModernUNet(2, width=8, multipliers=(1, 2), conditioning="adagn", parameter_ranges=((0.0, 1.0),))
    arguments = torch.randn(2, 1, 2, 8, 8), torch.ones(2), torch.rand(2, 1)
    assert not network(*arguments).any()
    with torch.no_grad():
        for each in network.parameters():
            each += 0.05 * torch.randn_like(each)
    network(*arguments).square().mean().backward()
    assert all(each.grad is not None and each.grad.any() for each in network.parameters())


def test_plain_unet_is_pdearenas_unetbase() -> None:
    network = seeded("plain", 2, 2)
    plain = PlainOperations(network)

    def block(values: Tensor, name: str) -> Tensor:
        for part in ("first", "second"):
            values = plain.convolution(values, f"{name}.{part}")
            values = functional.gelu(plain.norm(values, f"{name}.{part}_norm"))
        return values

    history = fields(1, 2, 2, 16, 24)
    levels = [block(history.flatten(1, 2), "lifting")]
    for level in range(3):
        levels.append(block(functional.max_pool2d(levels[-1], 2), f"down.{level}"))
    values = levels[3]
    for level in (2, 1, 0):
        values = torch.cat([levels[level], plain.transposed(values, f"doubling.{level}", padding=0)], dim=1)
        values = block(values, f"up.{level}")
    torch.testing.assert_close(network(history), plain.convolution(values, "projection")[:, None])


def test_dilated_resnet_is_pdearenas_function() -> None:
    network = seeded("dilated", 2, 2)
    plain = PlainOperations(network)
    history = fields(1, 2, 2, 7, 12)
    values = functional.gelu(plain.matrix(history.flatten(1, 2), "lifting.first"))
    values = functional.gelu(plain.matrix(values, "lifting.second"))
    values = functional.pad(values, (0, 9, 0, 9))
    for block in range(2):
        inner = values
        for layer, dilation in enumerate(DILATIONS):
            inner = plain.norm(inner, f"blocks.{block}.norms.{layer}")
            inner = plain.convolution(
                inner, f"blocks.{block}.convolutions.{layer}", padding=dilation, dilation=dilation
            )
            inner = functional.gelu(inner)
        values = values + inner
    values = functional.gelu(plain.matrix(values[..., :7, :12], "projection.first"))
    torch.testing.assert_close(network(history), plain.matrix(values, "projection.second")[:, None])


@pytest.mark.parametrize("name", SMALL)
def test_refuses_a_history_that_does_not_match(name: str) -> None:
    network = SMALL[name](2, 4)
    with pytest.raises(ValueError, match=r"Expected \(batch, 4, 2, \*space\) with 2 space axes but got \(1, 3, 2, 16"):
        network(torch.zeros(1, 3, 2, 16, 16))
    with pytest.raises(ValueError, match="2 space axes"):
        network(torch.zeros(1, 4, 2, 16))
    with pytest.raises(ValueError, match=r"of at least 1 but got \(2, 0"):
        SMALL[name](2, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UNet(1, width=4)(torch.zeros(1, 1, 1, 16, 24)), r"divisible by 16 but got a grid of \(16, 24\)"),
        (lambda: SMALL["modern"](1)(torch.zeros(1, 1, 1, 18, 16)), r"divisible by 4 but got a grid of \(18, 16\)"),
        (
            lambda: SMALL["dilated"](1, padding="circular")(torch.zeros(1, 1, 1, 16, 7)),
            r"at least 8 points on an axis with padding 'circular'.* a grid of \(16, 7\)",
        ),
        (lambda: SMALL["factorized"](1)(torch.zeros(1, 1, 1, 7, 16)), r"at least \(8, 6\) points for modes \(5, 4\)"),
        (
            lambda: UNet(1, width=4, padding=("reflect", "zeros"))(torch.zeros(1, 1, 1, 16, 16)),
            "at least 32 points on an axis with padding 'reflect'",
        ),
        (lambda: UNet(1, padding=("zeros",)), "one for each of 2 axes"),
        (lambda: UNet(1, padding="wrap"), "Expected padding among"),  # type: ignore[arg-type]
        (lambda: UNet(1, dimension=1), "dimension 2 or 3 but got 1"),
        (lambda: UNet(1, multiplier=0.5), "multiplier of at least 1"),
        (lambda: UNet(1, multiplier=2.0, budget=10**6), "a multiplier or a budget"),
        (lambda: UNet(1, width=64, budget=1000), "Expected a budget that a multiplier from 1 to 8 meets within 0.5%"),
        (lambda: ModernUNet(1, width=12), "multiple of 8"),
        (lambda: ModernUNet(1, width=8, multipliers=()), "one for each level"),
        (lambda: ModernUNet(1, width=8, conditioning="film"), "conditioning 'none', 'add' or 'adagn'"),  # type: ignore[arg-type]
        (lambda: ModernUNet(1, width=8, parameter_ranges=[(0.0, 1.0)]), "parameter_ranges with conditioning"),
        (lambda: SMALL["modern"](1)(torch.zeros(1, 1, 1, 8, 8), torch.ones(1)), "neither lead_time nor parameters"),
        (
            lambda: SMALL["modern"](1, conditioning="add")(torch.zeros(2, 1, 1, 8, 8), torch.ones(3)),
            r"lead_time \(2,\) and parameters \(2, 0\) but got \(3,\)",
        ),
        (lambda: DilatedResNet(1, width=4, margin=-1), "margin of at least 0"),
        (lambda: FactorizedFNO(1, width=4, margin=-1), "margin of at least 0"),
        (lambda: FactorizedFNO(1, width=4, padding="reflect"), "'circular', or 'zeros' for a margin"),  # type: ignore[arg-type]
        (lambda: FactorizedFNO(1, width=4, sharing="some"), "sharing 'none' or 'all'"),  # type: ignore[arg-type]
        (lambda: FactorizedFNO(1, modes=(4, 0), width=4), "positive modes"),
    ],
)  # fmt: skip
def test_refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
