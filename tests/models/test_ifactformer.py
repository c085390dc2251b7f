"""IFactFormer: the authors' function and parameter counts, what its options repair, and what it refuses."""

from __future__ import annotations

import copy
import importlib.util
import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.ifactformer import CHANNEL_LENGTHS, IFactFormer
from pdesurrogate.models.reference_weights import load_reference_weights
from pdesurrogate.models.specification import build, specification_of
from pdesurrogate.steppers.surrogate import Surrogate

GOLDEN = Path(__file__).parents[1] / "golden"
PLAIN = Path(__file__).parents[2] / "benchmarks" / "speed" / "plain_ifactformer.py"

SIZES = {
    "in_dim": 3,
    "out_dim": 3,
    "in_time_window": 1,
    "dim": 12,
    "heads": 2,
    "dim_head": 4,
    "depth": 1,
    "n_layer": 2,
    "model": "IFactFormer_m",
}
SPACE = (6, 5, 4)


def small(**changes: Any) -> IFactFormer:
    """A network whose kernels matter."""
    torch.manual_seed(0)
    sizes = {"width": 12, "heads": 2, "head_width": 4, "iterations": 2, "start": "unit", "harmonics": 2}
    return IFactFormer(**{**sizes, **changes}).double()


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def count(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def coordinates(*space: int) -> list[Tensor]:
    return [
        torch.linspace(0, length, size, dtype=torch.float64)
        for size, length in zip(space, CHANNEL_LENGTHS, strict=True)
    ]


def reference_state(network: IFactFormer) -> dict[str, Tensor]:
    """Random weights of the authors' shapes, under their names; the rotary rates as they are."""
    state = {}
    for translation in network.reference_translations():
        for number, (name, shape) in enumerate(translation.sources.items()):
            state[name] = 0.4 * fields(*shape, seed=len(state) + number)
            if name.endswith("inv_freq"):
                state[name] = network.state_dict()[translation.name]
    return state


def relative_loss(predicted: Tensor, target: Tensor) -> Tensor:
    return ((predicted - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).mean()


# The authors' numbers.


@pytest.mark.parametrize(
    ("changes", "expected", "trained"),
    [
        ({}, 1_163_331, 1_163_187),
        ({"variant": "feb2025"}, 1_181_763, 1_181_619),
        ({"attention": "chained"}, 1_071_171, 1_071_027),
    ],
)
def test_published_parameter_counts(changes: dict[str, Any], expected: int, trained: int) -> None:
    with torch.device("meta"):
        network = IFactFormer(**changes)
    assert count(network) == expected
    # The frequencies of the random code stay as they were drawn.
    assert sum(each.numel() for each in network.parameters() if each.requires_grad) == trained


@pytest.mark.parametrize("attention", ["m", "o"])
def test_equals_the_authors_code(attention: str) -> None:
    golden = torch.load(GOLDEN / f"ifact_{attention}_small_f64.pt", weights_only=True)
    network = IFactFormer.from_reference(golden["config"], golden["state_dict"])
    seen: dict[str, Tensor] = {}
    block = network.blocks[0].attention
    hooked = {f"K{axis}_first": kernel for axis, kernel in zip("xyz", block.kernels, strict=True)}
    for name, module in {**hooked, "block_out_first": block}.items():
        # Of all iterations the first.
        module.register_forward_hook(lambda *each, name=name: seen.setdefault(name, each[-1]) is None or None)
    network.head.register_forward_pre_hook(lambda _, given_: seen.__setitem__("encoder_out", given_[0]))
    history = golden["input"].movedim(-1, 2).clone().requires_grad_()
    predicted = network(history, coordinates=[points[:, 0] for points in golden["pos"]])
    assert distance(predicted[:, 0].movedim(1, -1), golden["output"]) < 1e-12
    assert set(seen) == set(golden["intermediates"])
    for name, expected in golden["intermediates"].items():
        assert distance(seen[name], expected) < 1e-12, name

    loss = relative_loss(predicted[:, 0].movedim(1, -1), golden["target"])
    assert loss.item() == pytest.approx(golden["rel_l2_loss"].item(), rel=1e-12)
    loss.backward()
    assert distance(history.grad.movedim(2, -1), golden["input_grad"]) < 1e-12
    parameters = dict(network.named_parameters())
    sources = {name: each.name for each in network.reference_translations() for name in each.sources}
    assert set(golden["grad_norms"]) == {name for name, ours in sources.items() if has_gradient(parameters.get(ours))}
    for name, expected in golden["grad_norms"].items():
        assert float(parameters[sources[name]].grad.norm()) == pytest.approx(expected, rel=1e-12), name


def has_gradient(parameter: Tensor | None) -> bool:
    return parameter is not None and parameter.grad is not None


def distance(left: Tensor, right: Tensor) -> float:
    return float(((left - right).norm() / right.norm()).detach())


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """The rival of the benchmark: the authors' function in torch's own layers, sharing no code with ours."""
    specification = importlib.util.spec_from_file_location("plain_ifactformer", PLAIN)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"in_time_window": 5},
        {"depth": 2, "n_layer": 3},
        {"model": "IFactFormer_o", "in_time_window": 2, "depth": 2},
        {"variant": "feb2025"},
        {"variant": "feb2025", "model": "IFactFormer_o", "in_time_window": 5, "depth": 2},
        {"in_dim": 2, "out_dim": 1, "heads": 3, "dim_head": 6, "n_layer": 1},
    ],
)
def test_equals_a_plain_implementation(plain: ModuleType, changes: dict[str, Any]) -> None:
    config = {**SIZES, **changes}
    torch.manual_seed(0)
    peer = plain.PlainIFactFormer(**config).double()
    state = peer.state_dict()
    for number, (name, values) in enumerate(state.items()):
        if name.endswith("inv_freq"):
            features = 3 * config["dim_head"]
            values.copy_(10000 ** (-torch.arange(0, features, 2, dtype=torch.float64) / features))
        else:
            values.copy_(0.4 * fields(*values.shape, seed=number))
    network = IFactFormer.from_reference(config, state)
    history, places = fields(2, config["in_time_window"], config["in_dim"], *SPACE), coordinates(*SPACE)
    expected = peer(history, places)
    predicted = network(history, coordinates=places)
    # Variances are far above the norm's epsilon here, so it is no excuse.
    assert distance(predicted, expected) < 1e-12
    # Without coordinates the network takes the authors'.
    assert distance(network(history), expected) < 1e-12

    (expected - 1).square().sum().backward()
    (predicted - 1).square().sum().backward()
    gradients, parameters = ({n: each.grad for n, each in one.named_parameters()} for one in (network, peer))
    for translation in network.reference_translations():
        (name,) = translation.sources
        if gradients.get(translation.name) is not None:
            assert distance(gradients[translation.name], translation.join(parameters[name])) < 1e-10, name


def test_loads_strictly_and_names_what_does_not_fit() -> None:
    network = small()
    state = reference_state(network)
    load_reference_weights(network, state)
    name = "encoder.layers.0.1.to_x.0.to_in.weight"
    with pytest.raises(ValueError, match=rf"authors' IFactFormer but 1 is missing: {name}"):
        load_reference_weights(network, {key: value for key, value in state.items() if key != name})
    with pytest.raises(ValueError, match=r"1 is left over: encoder.layers.0.1.to_out_1.0.weight"):
        load_reference_weights(network, {**state, "encoder.layers.0.1.to_out_1.0.weight": state[name]})
    with pytest.raises(ValueError, match=rf"{name} of shape \(12, 12\) but got \(12, 11\)"):
        load_reference_weights(network, {**state, name: state[name][:, 1:]})
    for changes in ({"axes": "periodic"}, {"code": "walls"}, {"target_frames": 2}, {"lengths": (1.0, 1.0)}):
        with pytest.raises(ValueError, match="as the authors' code builds it"):
            load_reference_weights(small(**changes), state)


def test_refuses_keywords_that_the_authors_code_cannot_build() -> None:
    with pytest.raises(ValueError, match=r"but depth, dim, .* are missing"):
        IFactFormer.from_reference({}, {})
    with pytest.raises(ValueError, match="keywords of the authors' IFactFormer but got width"):
        IFactFormer.from_reference({**SIZES, "width": 3}, {})
    with pytest.raises(ValueError, match=r"model among .* but got 'IFactFormer_z'"):
        IFactFormer.from_reference({**SIZES, "model": "IFactFormer_z"}, {})
    with pytest.raises(ValueError, match="are missing"):
        IFactFormer.from_reference(SIZES, {})


# Structure.


@pytest.mark.parametrize("attention", ["parallel", "chained"])
@pytest.mark.parametrize("depth", [1, 2])
def test_iterations_are_steps_with_the_same_block(attention: Any, depth: int) -> None:
    network, history = small(attention=attention, depth=depth, iterations=3), fields(2, 1, 3, *SPACE)
    tables = network._tables(history, None, None)
    values = network.lift(history)
    for block, known in zip(network.blocks, tables.blocks, strict=True):
        values = values + block.code(known.features)
        for _ in range(3):
            values = values + block.attention(values, known.rotations) / 3
    torch.testing.assert_close(network(history)[:, 0], network.head(values).movedim(-1, 1), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("changes", "symmetric"),
    [({}, True), ({"attention": "chained"}, True), ({"variant": "feb2025"}, False), ({"sums": "mean"}, True)],
)
def test_no_axis_is_special_but_in_the_plane_norm(changes: dict[str, Any], symmetric: bool) -> None:
    # Chained kernels, too, act on indices of their own: they commute, as all of them are made from the same field.
    order = [2, 0, 1]
    network = small(**changes)
    turned = small(**changes, lengths=[network.lengths[axis] for axis in order])
    state = {}
    for name, values in network.state_dict().items():
        if name.startswith("blocks.0.attention.kernels."):
            *first, axis, layer, kind = name.split(".")
            state[".".join([*first, str(order.index(int(axis))), layer, kind])] = values
        elif name.endswith("code.frequencies"):
            state[name] = values[order]
        elif name.endswith("attention.project.weight") and network.attention == "parallel":
            state[name] = values.unflatten(1, (2, 3, 4))[:, :, order].flatten(1)
        else:
            state[name] = values
    turned.load_state_dict(state)
    history = fields(2, 1, 3, *SPACE)
    predicted = turned(history.permute(0, 1, 2, 5, 3, 4)).permute(0, 1, 2, 4, 5, 3)
    difference = (predicted - network(history)).abs().max()
    assert difference < 1e-12 if symmetric else difference > 1e-3


@pytest.mark.parametrize("changes", [{}, {"attention": "chained"}, {"variant": "feb2025"}, {"sums": "volumes"}])
def test_samples_are_independent(changes: dict[str, Any]) -> None:
    network, history = small(places="given", **changes), fields(3, 1, 3, *SPACE)
    places = [torch.stack([(1 + sample / 10) * line for sample in range(3)]) for line in coordinates(*SPACE)]
    about = {"volumes": fields(3, *SPACE, seed=2).abs()} if network.sums == "volumes" else {}
    together = network(history, places, **about)
    for sample in range(3):
        one = slice(sample, sample + 1)
        alone = network(
            history[one], [line[sample] for line in places], **{name: each[one] for name, each in about.items()}
        )
        torch.testing.assert_close(together[one], alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("changes", "space"),
    [
        ({"lengths": (1.0, 2.0)}, (5, 7)),
        ({"lengths": (1.0, 2.0), "attention": "chained", "variant": "feb2025"}, (5, 7)),
        ({"lengths": (1.0,), "target_frames": 3, "target_channels": 2}, (6,)),
        ({"channels": 1, "history_frames": 4, "target_frames": 2, "sums": "mean"}, SPACE),
        ({"kernel_multiplier": 5}, SPACE),
    ],
)
def test_contract(changes: dict[str, Any], space: tuple[int, ...]) -> None:
    network = small(**changes)
    predicted = network(fields(2, network.history_frames, network.channels, *space))
    assert predicted.shape == (2, network.target_frames, network.target_channels, *space)
    assert predicted.is_contiguous()
    assert bool(predicted.isfinite().all())


@settings(max_examples=6)
@given(
    attention=st.sampled_from(["parallel", "chained"]),
    variant=st.sampled_from(["head", "feb2025"]),
    depth=st.integers(1, 2),
    sums=st.sampled_from(["points", "mean"]),
)
def test_checkpointing_changes_nothing(**changes: Any) -> None:
    history = fields(1, 1, 3, *SPACE)
    found = []
    for checkpointing in ("none", "iterations"):
        network = small(checkpointing=checkpointing, **changes)
        predicted = network(history)
        weights = [each for each in network.parameters() if each.requires_grad]
        found.append([predicted, *torch.autograd.grad(predicted.square().sum(), weights)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("changes", [{}, {"attention": "chained"}, {"sums": "volumes"}, {"variant": "feb2025"}])
def test_gradients(changes: dict[str, Any]) -> None:
    network = small(
        channels=1, width=4, heads=2, head_width=2, lengths=(1.0, 2.0), iterations=1, kernel_multiplier=1, **changes
    )
    history = fields(2, 1, 1, 3, 2).requires_grad_()
    volumes = fields(2, 3, 2, seed=2).abs() if network.sums == "volumes" else None
    names = [name for name, each in network.named_parameters() if each.requires_grad and name.startswith("blocks")]
    weights = [network.get_parameter(name) for name in names]

    def function(history: Tensor, *values: Tensor) -> Tensor:
        given_ = {"volumes": volumes}
        return torch.func.functional_call(network, dict(zip(names, values, strict=True)), (history,), given_)

    assert torch.autograd.gradcheck(function, (history, *weights), fast_mode=True)


@pytest.mark.parametrize("changes", [{}, {"attention": "chained"}, {"variant": "feb2025"}, {"sums": "mean"}])
def test_runs_in_mixed_precision(changes: dict[str, Any]) -> None:
    # As published, with variances below the norm's epsilon, and with large ones.
    for start in ("small", "unit"):
        network, history = small(start=start, **changes).float(), fields(2, 1, 3, *SPACE).float()
        expected = network(history)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            predicted = network(history)
        predicted.square().mean().backward()
        assert predicted.dtype == torch.float32
        assert distance(predicted, expected) < 2e-2
        gradients = [each.grad for each in network.parameters() if each.requires_grad]
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)


# What the options repair.


def test_commutes_with_translations_along_periodic_axes_and_no_others() -> None:
    history = fields(2, 1, 3, 8, 5, 6)
    for changes in ({}, {"attention": "chained"}, {"code": "walls", "sums": "mean"}, {"variant": "feb2025"}):
        # One mean for each plane of constant x still commutes.
        network = small(axes=("periodic", "open", "periodic"), **changes)
        expected = network(history)
        for shifts, axes in (((3,), (-3,)), ((1,), (-1,)), ((-2, 4), (-3, -1))):
            moved = network(history.roll(shifts, axes)).roll([-shift for shift in shifts], axes)
            torch.testing.assert_close(moved, expected, atol=1e-12, rtol=0)
        assert (network(history.roll(1, -2)).roll(-1, -2) - expected).abs().max() > 1e-3
    faithful = small()
    assert (faithful(history.roll(1, -1)).roll(-1, -1) - faithful(history)).abs().max() > 1e-3


def test_needs_no_code_of_the_place_where_all_axes_are_periodic() -> None:
    network = small(lengths=(1.0, 1.0), axes="periodic")
    assert all(block.code is None for block in network.blocks)
    history = fields(1, 1, 3, 6, 4)
    moved = network(history.roll((2, 1), (-2, -1))).roll((-2, -1), (-2, -1))
    torch.testing.assert_close(moved, network(history), atol=1e-12, rtol=0)


def smooth(*space: int, wall: Tensor) -> Tensor:
    """A field of few waves along x and z, at heights ``wall``."""
    x, z = (torch.arange(size, dtype=torch.float64) * (2 * torch.pi / size) for size in space)
    x, y, z = x[:, None, None], wall[:, None], z
    components = (torch.cos(x) * y * (2 - y) + 0 * z, torch.sin(x + z) * y**2, torch.cos(z) * torch.sin(y) + 0 * x)
    return torch.stack(components)[None, None]


def gauss(points: int) -> tuple[Tensor, Tensor]:
    """Points and weights from 0 to 2 with which means of smooth functions are exact."""
    matrix = torch.diag(
        torch.arange(1, points) / torch.sqrt(4 * torch.arange(1, points, dtype=torch.float64) ** 2 - 1), 1
    )
    values, vectors = torch.linalg.eigh(matrix + matrix.T)
    return values + 1, 2 * vectors[0].square()


@pytest.mark.parametrize("attention", ["parallel", "chained"])
def test_volumes_make_it_one_operator_on_differently_stretched_grids(attention: Any) -> None:
    distances = {}
    for sums in ("volumes", "points"):
        network = small(
            sums=sums, axes=("periodic", "open", "periodic"), code="walls", places="given", attention=attention
        )
        results = []
        points, weights = gauss(64)
        # The same points moved towards one wall, and what that does to their cells.
        for wall, heights in ((points, weights), (points / 2 + points**2 / 4, weights * (1 + points) / 2)):
            places = [torch.arange(size) * (CHANNEL_LENGTHS[axis] / size) for axis, size in ((0, 6), (2, 6))]
            about = {"volumes": heights[:, None].expand(6, 64, 6)} if sums == "volumes" else {}
            predicted = network(smooth(6, 6, wall=wall), [places[0], wall, places[1]], **about)
            results.append((predicted * heights[:, None]).sum(-2))
        distances[sums] = distance(results[0], results[1])
    # Round-off is not reached: kernels have fast waves, codes steep layers.
    assert distances["volumes"] < 1e-5
    assert distances["points"] > 1e-2


def test_equal_volumes_are_means() -> None:
    history = fields(2, 1, 3, *SPACE)
    means, volumes = small(sums="mean"), small(sums="volumes")
    predicted = volumes(history, volumes=torch.full(SPACE, 0.3))
    torch.testing.assert_close(predicted, means(history), atol=1e-12, rtol=0)
    assert volumes.context_inputs == ("volumes",)
    assert means.context_inputs == ()
    assert small(places="given").context_inputs == ("coordinates",)


def test_steps_a_stretched_channel_with_its_volumes() -> None:
    axes = (Axis("x", period=4.0), Axis("y", bounds=(0.0, 2.0)), Axis("z", period=2.0))
    channels = tuple(Channel(f"velocity_{axis}", location="cell") for axis in "xyz")
    metadata = Metadata("channel", Grid(axes), channels, frame_interval=0.1)
    network = small(axes=("periodic", "open", "periodic"), lengths=(4.0, 2.0, 2.0), sums="volumes")
    faces = torch.tensor([0.0, 0.1, 0.5, 1.5, 1.9, 2.0], dtype=torch.float64)
    along = (torch.arange(size, dtype=torch.float64) * (period / size) for size, period in ((6, 4.0), (4, 2.0)))
    lines = (next(along), (faces[1:] + faces[:-1]) / 2, next(along))
    context = Context(tuple(line.expand(2, -1) for line in lines))
    history = fields(2, 1, 3, *SPACE)
    predicted = Surrogate(network, metadata).double().step(history, context)
    heights = faces.diff()[:, None].expand(SPACE)
    torch.testing.assert_close(predicted, network(history, volumes=heights), atol=1e-10, rtol=0)


@pytest.mark.parametrize("attention", ["parallel", "chained"])
def test_kernels_begin_with_the_size_that_was_asked_for(attention: Any) -> None:
    history = fields(2, 1, 3, 8, 9, 6)
    sizes: dict[str, list[float]] = {"unit": [], "small": []}
    for start, found in sizes.items():
        network = small(start=start, attention=attention, iterations=1, width=48, heads=4, head_width=16)
        for kernel in network.blocks[0].attention.kernels:
            kernel.register_forward_hook(
                lambda *each, found=found: found.append(float(each[-1].detach().square().mean().sqrt()))
            )
        network(history)
    # The rows that it is set with are random, those that it then meets are means of one field.
    assert all(0.3 < size < 3 for size in sizes["unit"])
    assert all(size < 1e-3 for size in sizes["small"])


def test_chained_attention_begins_beside_the_parallel_one_with_unit_kernels() -> None:
    history = fields(2, 1, 3, 8, 9, 6)
    size: dict[tuple[str, str], float] = {}
    for attention in ("parallel", "chained"):
        for start in ("small", "unit"):
            network = small(attention=attention, start=start, iterations=1, width=48, heads=4, head_width=16)
            seen: list[Tensor] = []
            network.blocks[0].attention.register_forward_hook(lambda *each, seen=seen: seen.append(each[-1]))
            network(history)
            size[attention, start] = float(seen[0].detach().square().mean().sqrt())
    assert size["chained", "small"] < 1e-4 * size["parallel", "small"]
    assert 0.3 < size["chained", "unit"] / size["parallel", "unit"] < 3


# Tables of the grid.


def test_tables_follow_the_grid_and_what_they_are_made_with() -> None:
    network, history = small(), fields(1, 1, 3, *SPACE)
    first = network(history)
    tables = network._tables(history, None, None)
    assert network._tables(history.clone(), None, None) is tables
    assert torch.equal(network(history, coordinates(*SPACE)), first)
    stretched = coordinates(*SPACE)
    stretched[1] = stretched[1].square() / 2
    assert (network(history, stretched) - first).abs().max() > 1e-3
    stretched[1].copy_(coordinates(*SPACE)[1])
    assert torch.equal(network(history, stretched), first)
    assert torch.equal(network(history), first)
    finer = fields(1, 1, 3, 7, 6, 5)
    assert torch.equal(network(finer), small()(finer))
    other = small()
    other.load_state_dict({name: 1.1 * values for name, values in network.state_dict().items()})
    assert (network(history) - first).abs().max() == 0
    network.load_state_dict(other.state_dict())
    assert torch.equal(network(history), other(history))
    assert network.float()(history.float()).dtype == torch.float32


def test_tables_of_inference_serve_training() -> None:
    network, history, places = small(), fields(1, 1, 3, *SPACE), coordinates(*SPACE)
    with torch.inference_mode():
        expected = network(history, [line.clone() for line in places])
    predicted = network(history, places)
    predicted.sum().backward()
    assert torch.equal(predicted, expected)


def test_checkpoints_load_strictly_and_networks_are_rebuilt() -> None:
    network = small(axes=("periodic", "open", "periodic"), code="walls", depth=2)
    history = fields(1, 1, 3, *SPACE)
    expected = network(history)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    twin = build(specification_of(network)).double()
    twin.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    assert torch.equal(twin(history), expected)
    assert torch.equal(copy.deepcopy(network)(history), expected)


@pytest.mark.slow
def test_exports() -> None:
    network, history = small(), fields(2, 1, 3, *SPACE)
    exported = torch.export.export(network, (torch.zeros_like(history),)).module()
    torch.testing.assert_close(exported(history), network(history), atol=1e-12, rtol=0)


# What it refuses.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "iterations, .* of at least 1"),
        ({"attention": "both"}, "attention among"),
        ({"variant": "2026"}, "variant among"),
        ({"places": "cells"}, "places among"),
        ({"code": "none"}, "code among"),
        ({"sums": "weights"}, "sums among"),
        ({"start": "large"}, "start among"),
        ({"checkpointing": "waves"}, "checkpointing among"),
        ({"lengths": ()}, "positive lengths of one to three axes"),
        ({"lengths": (1.0, 0.0)}, "positive lengths"),
        ({"axes": ("open",)}, "one for each of 3 lengths"),
        ({"axes": "circular"}, "axes among"),
        ({"width": 10}, "width divisible by 6"),
        ({"head_width": 3}, "even number of features"),
        ({"variant": "feb2025", "sums": "volumes"}, "'feb2025', whose norm has no weights"),
    ],
)
def test_refuses_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_refuses_fields_and_grids_that_do_not_fit() -> None:
    network, history, places = small(), fields(2, 1, 3, *SPACE), coordinates(*SPACE)
    with pytest.raises(ValueError, match=r"\(batch, 1, 3, \*space\) with 3 space axes but got \(2, 1, 2, 6, 5, 4\)"):
        network(history[:, :, :2])
    with pytest.raises(ValueError, match="3 space axes but got"):
        network(history[..., 0])
    with pytest.raises(ValueError, match="at least 4 points along a periodic axis, twice the harmonics"):
        small(axes="periodic")(history[..., :3])
    with pytest.raises(ValueError, match=r"each axis of a grid of \(6, 5, 4\) but got \(\(6,\), \(5,\)\)"):
        network(history, places[:2])
    with pytest.raises(ValueError, match=r"\(n,\) or \(2, n\) of each axis"):
        network(history, [places[0], places[2], places[1]])
    with pytest.raises(ValueError, match="increase along each axis"):
        network(history, [places[0], places[1].flip(0), places[2]])
    with pytest.raises(ValueError, match="coordinates of each axis with places='given' but got none"):
        small(places="given")(history)
    with pytest.raises(ValueError, match="but got some with sums='points'"):
        network(history, volumes=torch.ones(SPACE))
    weighted = small(sums="volumes")
    with pytest.raises(ValueError, match="but got none"):
        weighted(history)
    with pytest.raises(ValueError, match=r"volumes \(6, 5, 4\) or \(2, 6, 5, 4\) but got \(6, 5\)"):
        weighted(history, volumes=torch.ones(6, 5))
    empty = torch.ones(SPACE)
    empty[:, 0] = 0
    with pytest.raises(ValueError, match="some volume in every plane"):
        weighted(history, volumes=empty)
