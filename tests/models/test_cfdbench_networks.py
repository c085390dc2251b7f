"""CFDBench's FNO, U-Net and ResNet: the authors' function and sizes, how a case is told, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.cfdbench import mean_scores
from pdesurrogate.models.cfdbench import CaseNetwork, UnitRanges
from pdesurrogate.models.cfdbench_fno import CFDBenchFNO
from pdesurrogate.models.cfdbench_resnet import CFDBenchResNet
from pdesurrogate.models.cfdbench_unet import CFDBenchUNet
from pdesurrogate.models.specification import build, specification_of
from pdesurrogate.steppers.surrogate import Surrogate

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS: dict[str, type[Any]] = {"fno": CFDBenchFNO, "unet": CFDBenchUNet, "resnet": CFDBenchResNet}
SMALL: dict[str, dict[str, Any]] = {
    "fno": {"modes": (4, 5), "width": 6, "layers": 2},
    "unet": {"width": 4},
    "resnet": {"width": 5, "blocks": 1, "kernel_size": 5},
}
RANGES = [(0.5, 2.0), (10.0, 1000.0)]
EVERY = pytest.mark.parametrize("kind", KINDS)


def small(kind: str, **changes: Any) -> CaseNetwork:
    torch.manual_seed(0)
    sizes = {"channels": 2, "parameter_ranges": RANGES, **SMALL[kind]}
    network: CaseNetwork = KINDS[kind](**{**sizes, **changes}).double().eval()
    with torch.no_grad():
        for each in network.parameters():
            each += 0.05 * torch.randn_like(each)
    return network


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def case(batch: int = 3, space: tuple[int, int] = (18, 17)) -> dict[str, Tensor]:
    """Frames, parameters within their ranges, and volumes with a solid block."""
    shares = torch.rand(batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    low, high = torch.tensor(RANGES, dtype=torch.float64).T
    volumes = torch.full((batch, *space), 0.01, dtype=torch.float64)
    volumes[:, 3:6, :4] = 0
    return {"history": fields(batch, 1, 2, *space), "parameters": low + shares * (high - low), "volumes": volumes}


def count(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def transposed(values: Tensor) -> Tensor:
    return values.transpose(-1, -2)


# The authors' numbers.


@pytest.mark.parametrize("parameters", [5, 8])
def test_published_numbers_of_parameters(parameters: int) -> None:
    published = {
        5: {"fno": 2_368_354, "unet": 1_095_038, "resnet": 534_696},
        8: {"fno": 2_368_450, "unet": 1_095_362, "resnet": 544_152},
    }[parameters]
    for kind, number in published.items():
        with torch.device("meta"):
            network = KINDS[kind](2, parameter_ranges=[(-1, 1)] * parameters, compat="reference")
            repaired = KINDS[kind](2, parameter_ranges=[(-1, 1)] * parameters)
        assert count(network) == number
        # The normalizations that are never applied: factor and shift of 64 channels and of a block's own.
        unused = 2 * (6 * 64 + 5 * 16 + 2) if kind == "resnet" else 0
        assert count(repaired) == number - unused


@pytest.mark.parametrize(("parameters", "number"), [(5, 1_188_706), (8, 1_188_802)])
def test_published_number_counts_a_complex_weight_as_one(parameters: int, number: int) -> None:
    with torch.device("meta"):
        network = CFDBenchFNO(2, parameter_ranges=[(-1, 1)] * parameters)
    halves = sum(each.numel() // 2 for name, each in network.named_parameters() if "spectral.weight" in name)
    assert count(network) - halves == number


@pytest.mark.parametrize(("space", "parameters"), [((64, 64), 5), ((65, 66), 5), ((65, 66), 8)])
@EVERY
def test_runs_on_the_grids_of_all_problems(kind: str, space: tuple[int, int], parameters: int) -> None:
    torch.manual_seed(0)
    network = KINDS[kind](2, parameter_ranges=[(-1, 1)] * parameters).eval()
    with torch.no_grad():
        predicted = network(torch.randn(1, 1, 2, *space), torch.zeros(1, parameters))
    assert predicted.shape == (1, 1, 2, *space)
    assert bool(torch.isfinite(predicted).all())


# The authors' function.


class Golden:
    """Outputs of the authors' code, and our network with their weights."""

    FILES: ClassVar = {"fno": "cfdbench_fno2d_pad.pt", "unet": "cfdbench_unet.pt"}

    def __init__(self, kind: str) -> None:
        self.stored = torch.load(GOLDEN / self.FILES[kind], weights_only=True)
        self.network = KINDS[kind].from_reference(self.stored["config"], self.stored["state_dict"])
        self.mask = self.stored["mask"]
        self.history = transposed(self.stored["inputs"])[:, None]
        self.about = (self.stored["case_params"], transposed(self.mask[:, 0]))
        self.label = self.stored["label"] * self.mask

    def predicted(self) -> Tensor:
        """In the authors' order of axes."""
        return transposed(self.network(self.history, *self.about)[:, 0])


@pytest.fixture(scope="module", params=Golden.FILES)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def test_predicts_what_the_authors_code_predicts(golden: Golden) -> None:
    golden.network.eval()
    with torch.no_grad():
        predicted = golden.predicted()
    torch.testing.assert_close(predicted, golden.stored["preds"], rtol=1e-5, atol=1e-6)
    assert count(golden.network) == golden.stored["n_params"][1]
    found = mean_scores(predicted, golden.label, averaging="batch", compat="reference")
    for name, value in golden.stored["loss"].items():
        assert float(getattr(found, name)) == pytest.approx(float(value), rel=1e-5)


def test_rollout_is_the_authors(golden: Golden) -> None:
    golden.network.eval()
    frame = golden.history[:1]
    parameters, volumes = (each[:1] for each in golden.about)
    for expected in golden.stored["rollout_case0"]:
        with torch.no_grad():
            frame = golden.network(frame, parameters, volumes)
        torch.testing.assert_close(transposed(frame[:, 0]), expected, rtol=1e-5, atol=1e-6)


def test_gradients_are_the_authors(golden: Golden) -> None:
    golden.network.train()
    predicted = golden.predicted()
    torch.testing.assert_close(predicted, golden.stored["train_preds"], rtol=1e-5, atol=1e-5)
    golden.network.zero_grad()
    ((predicted - golden.label).square().mean() / golden.label.square().mean()).backward()
    parameters = dict(golden.network.named_parameters())
    compared = set()
    for each in golden.network.reference_translations():
        if each.name in parameters:
            theirs = each.join(*(golden.stored["grads"][name] for name in each.sources))
            torch.testing.assert_close(parameters[each.name].grad, theirs, rtol=1e-5, atol=1e-5)
            compared |= set(each.sources)
    assert compared == set(golden.stored["grads"])


def reference_state(network: Any) -> dict[str, Tensor]:
    """Random numbers under the authors' names; variances are positive."""
    sources = {name: shape for each in network.reference_translations() for name, shape in each.sources.items()}
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.tensor(7) if name.endswith("tracked")
        else 0.2 * torch.rand(shape, dtype=torch.float64, generator=generator) + (1 if name.endswith("var") else -0.1)
        for name, shape in sources.items()
    }  # fmt: skip


@pytest.mark.parametrize(("parameters", "hidden"), [(2, 4), (1, 4)])
def test_resnet_is_the_plain_formula(parameters: int, hidden: int) -> None:
    # With one parameter the first block has as many channels in as out, and mixes them all the same.
    config = {"hidden_chan": hidden, "num_blocks": 2, "kernel_size": 5, "padding": 2, "n_case_params": parameters}
    blank = CFDBenchResNet(2, parameter_ranges=[(-1, 1)] * parameters, width=hidden, blocks=2, kernel_size=5,
                           compat="reference")  # fmt: skip
    weights = reference_state(blank)
    network = CFDBenchResNet.from_reference(config, weights).eval()
    inputs, numbers = fields(2, 2, 9, 8), fields(2, parameters, seed=4)
    mask = (fields(2, 1, 9, 8, seed=5) > -1).double()
    values = torch.cat([inputs, mask, numbers[:, :, None, None].expand(-1, -1, 9, 8)], 1)
    for block in range(4):

        def convolved(hidden: Tensor, name: str, start: str = f"blocks.{block}.") -> Tensor:
            reach = weights[f"{start}{name}.weight"].shape[-1] // 2
            wide = functional.pad(hidden, (reach,) * 4, mode="replicate") if reach else hidden
            return functional.conv2d(wide, weights[f"{start}{name}.weight"], weights[f"{start}{name}.bias"])

        around = convolved(values, "res_conv") if f"blocks.{block}.res_conv.weight" in weights else values
        values = around + convolved(functional.gelu(convolved(values, "conv1")), "conv2")
    expected = (values + inputs) * mask
    predicted = network(transposed(inputs)[:, None], numbers, transposed(mask[:, 0]))
    torch.testing.assert_close(transposed(predicted[:, 0]), expected)


def test_unet_with_parameters_at_the_bottleneck_is_the_one_without_them_and_a_shift() -> None:
    about = case(space=(34, 33))
    network, without = small("unet", entry="bottleneck"), small("unet", parameter_ranges=[])
    assert isinstance(network, CFDBenchUNet)
    without.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("condition.")})
    assert network.condition is not None
    nn.init.zeros_(network.condition.weight)
    nn.init.zeros_(network.condition.bias)
    torch.testing.assert_close(network(**about), without(about["history"], volumes=about["volumes"]))
    nn.init.constant_(network.condition.bias, 1.0)
    assert not torch.allclose(network(**about), without(about["history"], volumes=about["volumes"]))


@pytest.mark.parametrize("name", ["insert", "insert_case_params_at"])
def test_weights_of_the_unet_with_parameters_at_the_bottleneck_load(name: str) -> None:
    blank = CFDBenchUNet(2, parameter_ranges=[(-1, 1)] * 5, width=4, entry="bottleneck", compat="reference")
    network = CFDBenchUNet.from_reference({name: "hidden", "dim": 4}, reference_state(blank))
    assert (network.entry, len(network.ranges), network.compat) == ("bottleneck", 5, "reference")
    assert count(network) == count(blank)


@EVERY
def test_weights_that_do_not_fit_are_refused(kind: str) -> None:
    config: dict[str, Any] = {
        "fno": {"modes1": 5, "modes2": 4, "hidden_dim": 6, "num_layers": 2},
        "unet": {"dim": 4, "insert_case_params_at": "input"},
        "resnet": {"hidden_chan": 5, "num_blocks": 1, "kernel_size": 5, "padding": 2},
    }[kind]
    weights = reference_state(small(kind, compat="reference"))
    if kind == "fno":
        weights = {k: v.to(torch.complex128) if "weights" in k else v for k, v in weights.items()}
    network = KINDS[kind].from_reference(config, weights)
    assert network.context_inputs == ("parameters", "volumes")
    with pytest.raises(ValueError, match=r"Expected keywords of the authors' .* but got colour"):
        KINDS[kind].from_reference({**config, "colour": 1}, weights)
    with pytest.raises(ValueError, match="Expected out_chan among"):
        KINDS[kind].from_reference({**config, "out_chan": 1}, weights)
    with pytest.raises(ValueError, match="1 is left over: more"):
        KINDS[kind].from_reference(config, {**weights, "more": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"of the authors' .* is missing"):
        KINDS[kind].from_reference(config, {})


def test_keywords_that_there_is_no_network_for_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected bilinear among"):
        CFDBenchUNet.from_reference({"bilinear": True}, {})
    with pytest.raises(ValueError, match="Expected stride among"):
        CFDBenchResNet.from_reference({"stride": 2}, {})
    with pytest.raises(ValueError, match="Expected padding among"):
        CFDBenchResNet.from_reference({"padding": 2}, {})


# What they are told of a case, and what they give.


@EVERY
def test_a_sample_does_not_mind_the_others(kind: str) -> None:
    network, about = small(kind), case()
    together = network(**about)
    for number in range(3):
        alone = network(**{name: values[number : number + 1] for name, values in about.items()})
        torch.testing.assert_close(together[number : number + 1], alone)


@EVERY
def test_no_volumes_are_fluid_everywhere(kind: str) -> None:
    network, about = small(kind), case()
    whole = {**about, "volumes": torch.ones(18, 17, dtype=torch.float64)}
    none = {name: values for name, values in about.items() if name != "volumes"}
    torch.testing.assert_close(network(**whole), network(**none))
    assert not torch.allclose(network(**about)[..., 9:, 9:], network(**none)[..., 9:, 9:])


@EVERY
def test_solid_cells_keep_their_values(kind: str) -> None:
    about = case()
    solid = (about["volumes"] == 0)[:, None, None].expand(-1, 2, 2, -1, -1)
    latest = about["history"].expand(-1, 2, -1, -1, -1)
    state = small(kind, target_frames=2)(**about)
    torch.testing.assert_close(state[solid], latest[solid], rtol=0, atol=0)
    assert not bool((state == latest)[~solid].any())
    for changes in ({"gives": "increment"}, {"compat": "reference"}):
        assert not bool(small(kind, target_frames=2, **changes)(**about)[solid].any())


@pytest.mark.parametrize("kind", ["unet", "resnet"])
def test_an_increment_is_the_state_less_the_latest_frame(kind: str) -> None:
    about = case()
    state, increment = (small(kind, gives=gives)(**about) for gives in ("state", "increment"))
    torch.testing.assert_close(state, about["history"] + increment)


@EVERY
def test_only_the_place_of_a_parameter_in_its_range_matters(kind: str) -> None:
    about = case()
    scaled = about["parameters"] * 3 + 1
    wider = small(kind, parameter_ranges=[(3 * low + 1, 3 * high + 1) for low, high in RANGES])
    torch.testing.assert_close(wider(**{**about, "parameters": scaled}), small(kind)(**about))


@EVERY
def test_parameters_matter(kind: str) -> None:
    about = case()
    other = {**about, "parameters": about["parameters"] * 0.7}
    assert not torch.allclose(small(kind)(**about), small(kind)(**other))


@EVERY
def test_several_frames_go_in_and_out(kind: str) -> None:
    network = small(kind, history_frames=3, target_frames=2, parameter_ranges=[])
    assert network.context_inputs == ("volumes",)
    assert network(fields(2, 3, 2, 18, 17)).shape == (2, 2, 2, 18, 17)


@EVERY
def test_all_weights_learn(kind: str) -> None:
    network = small(kind).train()
    network(**case()).square().sum().backward()
    lost = [name for name, each in network.named_parameters() if each.grad is None or not bool(each.grad.any())]
    # What a normalization over the batch follows needs no constant.
    assert [name for name in lost if not name.endswith(("first.bias", "second.bias"))] == []


@EVERY
def test_is_rebuilt_from_its_specification_and_steps_as_a_surrogate(kind: str) -> None:
    network = small(kind)
    again = build(specification_of(network)).double().eval()
    again.load_state_dict(network.state_dict())
    about = case(batch=2)
    torch.testing.assert_close(again(**about), network(**about))
    grid = Grid((Axis("x"), Axis("y")))
    channels = Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")
    surrogate = Surrogate(again, Metadata("c", grid, channels, frame_interval=0.1, parameters=("inflow", "density")))
    lines = tuple((torch.arange(n, dtype=torch.float64) + 0.5).expand(2, -1) for n in (18, 17))
    context = Context(lines, about["parameters"], about["volumes"] > 0)
    stepped = surrogate.double().step(about["history"], context)
    assert stepped.shape == (2, 1, 2, 18, 17)
    torch.testing.assert_close(stepped, network(**about))


def test_fno_margin_is_seen_by_the_layers_alone() -> None:
    about = case()
    plain, wide = small("fno"), small("fno", margin=3)
    assert wide(**about).shape == plain(**about).shape
    assert not torch.allclose(wide(**about), plain(**about))


def test_fno_begins_with_positive_weights_as_the_authors_draw_them() -> None:
    network = CFDBenchFNO(2, modes=(4, 4), width=8, layers=1)
    weights = network.blocks[0].get_parameter("spectral.weight")
    assert 0 <= float(weights.detach().min()) < float(weights.detach().max()) <= 1 / 64
    assert float(weights.detach().mean()) == pytest.approx(1 / 128, rel=0.1)


def test_resnet_drops_values_in_training_alone() -> None:
    network, about = small("resnet"), case()
    assert torch.equal(network(**about), network(**about))
    network.train()
    assert not torch.equal(network(**about), network(**about))


@pytest.mark.parametrize("padding", ["circular", ("circular", "zeros"), ("zeros", "circular"), "zeros"])
@pytest.mark.parametrize("kind", ["unet", "resnet"])
def test_ends_of_axes_are_treated_one_by_one(kind: str, padding: Any) -> None:
    history = fields(1, 1, 2, 32, 32)
    network = small(kind, padding=padding, parameter_ranges=[])
    shifted = network(torch.roll(history, 16, dims=3))
    periodic = padding in ("circular", ("circular", "zeros"))
    assert torch.allclose(shifted, torch.roll(network(history), 16, dims=3)) == periodic


# What they refuse.


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("fno", {"channels": 0}, "Expected channels, .* of at least 1"),
        ("fno", {"modes": (0, 4)}, "Expected two modes of at least 1"),
        ("fno", {"modes": (4,)}, "Expected two modes of at least 1"),
        ("fno", {"margin": -1}, "a margin of at least 0"),
        ("unet", {"width": 0}, "width of at least 1"),
        ("unet", {"entry": "output"}, "Expected entry among"),
        ("unet", {"padding": ("zeros",)}, "Expected padding among"),
        ("resnet", {"kernel_size": 4}, "an odd kernel_size"),
        ("resnet", {"dropout": 1.0}, "a dropout in"),
        ("resnet", {"blocks": -1}, "at least 0 blocks"),
        ("resnet", {"gives": "flux"}, "Expected gives among"),
        ("fno", {"compat": "old"}, "Expected compat among"),
        ("fno", {"parameter_ranges": [(2.0, 1.0)]}, "Expected ranges as pairs"),
        ("fno", {"parameter_ranges": [(2.0,)]}, "Expected ranges as pairs"),
    ],
)
def test_arguments_out_of_range_are_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(kind, **changes)


@EVERY
def test_what_does_not_fit_is_refused(kind: str) -> None:
    network, about = small(kind), case()
    with pytest.raises(ValueError, match=r"Expected \(batch, 1, 2, \*space\)"):
        network(**{**about, "history": about["history"][:, :, :1]})
    with pytest.raises(ValueError, match=r"Expected parameters \(3, 2\), one for each of the parameter_ranges"):
        network(about["history"], volumes=about["volumes"])
    with pytest.raises(ValueError, match=r"Expected parameters \(3, 2\)"):
        network(**{**about, "parameters": about["parameters"][:, :1]})
    with pytest.raises(ValueError, match=r"Expected volumes \(18, 17\) or \(3, 18, 17\) but got \(3, 17, 18\)"):
        network(**{**about, "volumes": transposed(about["volumes"])})


def test_too_coarse_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected at least 16 points along each axis"):
        small("unet")(**case(space=(16, 15)))
    with pytest.raises(ValueError, match="use a finer grid or fewer modes"):
        small("fno")(**case(space=(8, 9)))


def test_ranges_are_brought_to_minus_one_and_one() -> None:
    ranges = UnitRanges(RANGES)
    ends = torch.tensor(RANGES).T
    assert ranges(ends).tolist() == [[-1, -1], [1, 1]]
    assert ranges(ends.mean(0)).tolist() == [0, 0]
    assert math.prod(UnitRanges([])(torch.empty(3, 0)).shape) == 0
