"""Networks of points and CFDBench's pointwise steps: the authors' sizes and formulas, their faults, and repairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.auto_deeponet import AutoDeepONet, AutoDeepONetCNN, AutoEDeepONet, AutoFFN
from pdesurrogate.models.deeponet import FFN, DeepONet
from pdesurrogate.models.specification import build, specification_of
from pdesurrogate.steppers.surrogate import Surrogate

POINTS: dict[str, type[Any]] = {"ffn": FFN, "deeponet": DeepONet}
STEPS: dict[str, type[Any]] = {
    "auto_ffn": AutoFFN, "auto_deeponet": AutoDeepONet, "auto_edeeponet": AutoEDeepONet, "cnn": AutoDeepONetCNN,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "ffn": {"width": 7, "depth": 3},
    "deeponet": {"width": 7, "branch_depth": 3, "trunk_depth": 4},
    "auto_ffn": {"width": 7, "depth": 3},
    "auto_deeponet": {"width": 7, "branch_depth": 3, "trunk_depth": 4},
    "auto_edeeponet": {"width": 7, "branch_depth": 3, "trunk_depth": 4},
    "cnn": {"trunk_depth": 2},
}
# x in front of y.
GRID = {"auto_ffn": (6, 5), "auto_deeponet": (6, 5), "auto_edeeponet": (6, 5), "cnn": (34, 18)}
RANGES = [(0.5, 2.0), (10.0, 1000.0)]
PLACES = [(0.0, 3.0), (0.0, 2.0), (-1.0, 1.0)]
EVERY_POINT = pytest.mark.parametrize("kind", POINTS)
EVERY_STEP = pytest.mark.parametrize("kind", STEPS)


def fields(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def points_network(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"parameter_ranges": RANGES, "point_ranges": PLACES, **SMALL[kind]}
    return POINTS[kind](**{**sizes, **changes}).double()


def step_network(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"channels": 2, "grid": GRID[kind], "parameter_ranges": RANGES, **SMALL[kind]}
    return STEPS[kind](**{**sizes, **changes}).double()


def step_case(kind: str, batch: int = 3, frames: int = 1) -> dict[str, Tensor]:
    volumes = torch.ones(batch, *GRID[kind], dtype=torch.float64)
    volumes[:, 2:4, :3] = 0
    low, high = torch.tensor(RANGES, dtype=torch.float64).T
    shares = torch.rand(batch, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = low + shares * (high - low)
    return {"history": fields(batch, frames, 2, *GRID[kind]), "parameters": parameters, "volumes": volumes}


def count(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def reference_state(network: Any) -> dict[str, Tensor]:
    """Random numbers under the authors' names."""
    generator = torch.Generator().manual_seed(3)
    sources = {name: shape for each in network.reference_translations() for name, shape in each.sources.items()}
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator) / (shape[-1] ** 0.5 if len(shape) > 1 else 5)
        for name, shape in sources.items()
    }


# The authors' numbers.


@pytest.mark.parametrize(("kind", "five", "eight"), [("ffn", 71_701, 72_001), ("deeponet", 142_501, 142_801)])
def test_published_numbers_of_parameters_of_points(kind: str, five: int, eight: int) -> None:
    for parameters, number in ((5, five), (8, eight)):
        with torch.device("meta"):
            assert count(POINTS[kind]([(-1, 1)] * parameters, PLACES)) == number


@pytest.mark.parametrize(
    ("kind", "published"),
    [
        ("auto_ffn", (1_102_401, 1_141_201, 1_141_801)),
        ("auto_deeponet", (551_901, 571_301, 571_601)),
        ("auto_edeeponet", (622_701, 642_101, 642_401)),
        ("cnn", (742_730, 742_730, 745_130)),
    ],
)
def test_published_numbers_of_parameters_of_steps(kind: str, published: tuple[int, ...]) -> None:
    problems = ((64, 64), 5), ((65, 66), 5), ((65, 66), 8)
    for (grid, parameters), number in zip(problems, published, strict=True):
        with torch.device("meta"):
            about = {"grid": grid, "parameter_ranges": [(-1, 1)] * parameters, "predicted": "first"}
            network = STEPS[kind](2, compat="reference", **about)
            repaired = STEPS[kind](2, **about)
        assert count(network) == number
        # The constant that is never added.
        assert count(repaired) == number - (1 if kind == "cnn" else 0)


# The authors' functions, as formulas in their order of axes: rows, which is y, in front of columns.


def layers(weights: dict[str, Tensor], name: str, values: Tensor, over: tuple[int, ...] = ()) -> Tensor:
    """A fully connected network with ReLU; standardized over some axes, or not."""
    matrices = [each for each in weights if each.startswith(f"{name}.layers.") and each.endswith("weight")]
    numbers = sorted(int(each.split(".")[-2]) for each in matrices)
    for number in numbers:
        if number:
            if over:
                axes = tuple(axis for axis in over if axis < values.ndim)
                mean, deviation = values.mean(axes, keepdim=True), values.std(axes, keepdim=True)
                values = functional.relu((values - mean) / deviation) * deviation + mean
            else:
                values = functional.relu(values)
        start = f"{name}.layers.{number}"
        values = functional.linear(values, weights[f"{start}.weight"], weights[f"{start}.bias"])
    return values


def queries(rows: int, columns: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()


@EVERY_POINT
def test_points_are_the_authors_formula(kind: str) -> None:
    cases, rows, columns = 2, 5, 6
    numbers, times = fields(cases, 2), torch.tensor([3.0, 7.0], dtype=torch.float64)
    places = queries(rows, columns)
    config: dict[str, Any]
    if kind == "ffn":
        blank = points_network("ffn", parameter_ranges=[(-1, 1)] * 2, point_ranges=[(-1, 1)] * 3)
        weights, config = reference_state(blank), {"widths": [5, 7, 7, 7, 1]}
        together = torch.cat(
            [numbers[:, None].expand(-1, 30, -1), places.expand(cases, -1, -1), times[:, None, None].expand(-1, 30, 1)],
            dim=2,
        )
        expected = layers(weights, "ffn", together.flatten(0, 1), over=(1,)).reshape(cases, -1)
    else:
        blank = points_network("deeponet", parameter_ranges=[(-1, 1)] * 2, point_ranges=[(-1, 1)] * 3)
        weights = reference_state(blank)
        config = {"branch_dim": 2, "trunk_dim": 3, "width": 7, "branch_depth": 3, "trunk_depth": 4, "act_norm": True}
        lifted = functional.linear(times[:, None], weights["fc_trunk_t.weight"], weights["fc_trunk_t.bias"])[:, None]
        lifted = lifted + functional.linear(places, weights["fc_trunk_xy.weight"], weights["fc_trunk_xy.bias"])
        branch = layers(weights, "branch_net", numbers, over=(1,))
        expected = (branch[:, None] * layers(weights, "trunk_net", lifted, over=(1, 2))).sum(-1) + weights["bias"]
    network = POINTS[kind].from_reference(config, weights)
    asked = torch.cat([times[:, None, None].expand(-1, 30, 1), places.flip(1).expand(cases, -1, -1)], dim=2)
    torch.testing.assert_close(network(numbers, asked)[..., 0], expected)


@EVERY_STEP
@pytest.mark.parametrize(("batch", "standardized"), [(1, False), (3, False), (3, True)])
def test_steps_are_the_authors_formula(kind: str, batch: int, standardized: bool) -> None:
    columns, rows = GRID[kind]
    blank = step_network(kind, parameter_ranges=[(-1, 1)] * 2, predicted="first", compat="reference")
    weights = reference_state(blank)
    inputs, numbers, mask = fields(batch, 2, rows, columns), fields(batch, 2), fields(batch, 1, rows, columns) > 0
    places, u = queries(rows, columns), inputs[:, 0].flatten(1)
    # All axes but the first.
    over = (1, 2) if standardized else ()
    sizes = {"width": 7, "branch_depth": 3, "trunk_depth": 4}
    config: dict[str, Any] = {
        "auto_ffn": {"input_field_dim": 30, "num_case_params": 2, "width": 7, "depth": 3},
        "auto_deeponet": {"branch_dim": 32, **sizes},
        "auto_edeeponet": {"dim_branch1": 30, "dim_branch2": 2, **sizes},
        "cnn": {"num_case_params": 2, "trunk_depth": 2},
    }[kind]
    if kind == "auto_ffn":
        # Fields are repeated as b1, b2, b3, b1, ... and places as p1, p2, ..., p1, ...
        together = [torch.cat([u, numbers], 1).repeat(len(places), 1), places.repeat(batch, 1)]
        change = layers(weights, "ffn", torch.cat(together, 1), over).reshape(batch, -1)
    elif kind == "cnn":

        def convolved(values: Tensor, name: str) -> Tensor:
            start = f"branch_net.{name}"
            return functional.conv2d(values, weights[f"{start}.weight"], weights[f"{start}.bias"], padding=2)

        entering = torch.cat([inputs, mask.double(), numbers[:, :, None, None].expand(-1, -1, rows, columns)], 1)
        values = convolved(entering, "in_conv")
        for number in range(4):
            values = functional.relu(functional.max_pool2d(convolved(values, f"blocks.{3 * number}"), 2))
        branch = convolved(values, "out_conv").flatten(1)
        product = branch[:, None] * layers(weights, "trunk_net", (places - 50) / 100, over)
        change = layers(weights, "out_ffn", product, over)[..., 0]
    else:
        if kind == "auto_deeponet":
            branch = layers(weights, "branch_net", torch.cat([u, numbers], 1), over)
        else:
            branch = layers(weights, "branch1", u, over) * layers(weights, "branch2", numbers, over)
        change = (branch[:, None] * layers(weights, "trunk_net", (places - 50) / 100, over)).sum(-1) + weights["bias"]
    expected = (u + change).reshape(batch, rows, columns)
    network = STEPS[kind].from_reference({**config, "act_norm": standardized}, weights, grid=(columns, rows))
    predicted = network(inputs.transpose(2, 3)[:, None], numbers, mask[:, 0].transpose(1, 2))
    torch.testing.assert_close(predicted[:, 0, 0].transpose(1, 2), expected)
    # What the authors do not predict stays.
    torch.testing.assert_close(predicted[:, 0, 1], inputs[:, 1].transpose(1, 2), rtol=0, atol=0)


# Their faults, and that they are gone.


def test_a_point_does_not_mind_what_else_is_asked() -> None:
    numbers = torch.tensor([[1.0, 20.0], [2.0, 500.0]], dtype=torch.float64)
    asked = torch.rand(2, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for kind in POINTS:
        network = points_network(kind)
        torch.testing.assert_close(network(numbers, asked)[:, :9], network(numbers, asked[:, :9]))
    network = points_network("deeponet", compat="reference")
    assert not torch.allclose(network(numbers, asked)[:, :9], network(numbers, asked[:, :9]))


@EVERY_POINT
def test_a_case_does_not_mind_the_others(kind: str) -> None:
    network = points_network(kind)
    numbers, asked = fields(3, 2), fields(3, 11, 3)
    torch.testing.assert_close(network(numbers, asked)[1:2], network(numbers[1:2], asked[1:2]))


@EVERY_STEP
def test_a_sample_does_not_mind_the_others(kind: str) -> None:
    about = step_case(kind)
    alone = {name: values[:1] for name, values in about.items()}
    network = step_network(kind)
    torch.testing.assert_close(network(**about)[:1], network(**alone))
    mixing = step_network(kind, compat="reference")
    assert torch.allclose(mixing(**about)[:1], mixing(**alone)) == (kind != "auto_ffn")


# What they are told, and what they give.


@EVERY_POINT
def test_several_fields_share_all_but_the_end(kind: str) -> None:
    numbers, asked = fields(2, 2), fields(2, 5, 3)
    assert points_network(kind, field_ranges=[(-1, 1)] * 3)(numbers, asked).shape == (2, 5, 3)


@EVERY_POINT
def test_only_places_in_ranges_matter(kind: str) -> None:
    numbers, asked = fields(2, 2), fields(2, 5, 3)
    wider = points_network(
        kind,
        parameter_ranges=[(10 * low, 10 * high) for low, high in RANGES],
        point_ranges=[(low + 5, high + 5) for low, high in PLACES],
    )
    torch.testing.assert_close(wider(10 * numbers, asked + 5), points_network(kind)(numbers, asked))


def test_cases_without_parameters_are_the_same_for_a_fully_connected_network() -> None:
    asked = fields(1, 5, 3).expand(2, -1, -1)
    first, second = points_network("ffn", parameter_ranges=[])(None, asked)
    torch.testing.assert_close(first, second)


@EVERY_POINT
def test_fields_are_given_in_their_ranges(kind: str) -> None:
    numbers, asked = fields(2, 2), fields(2, 5, 3)
    plain, wide = (points_network(kind, field_ranges=[each])(numbers, asked) for each in ((-1, 1), (100, 300)))
    torch.testing.assert_close(wide, 200 + 100 * plain)


def test_activations_are_standardized_unless_told_otherwise() -> None:
    numbers, asked = fields(2, 2), fields(2, 5, 3)
    for kind in POINTS:
        plain, standardized = (points_network(kind, standardization=each) for each in ("none", "features"))
        assert not torch.allclose(plain(numbers, asked), standardized(numbers, asked))


@EVERY_STEP
def test_solid_cells_stay(kind: str) -> None:
    about = step_case(kind)
    solid = (about["volumes"] == 0)[:, None, None].expand(-1, 1, 2, -1, -1)
    state, increment = (step_network(kind, gives=gives)(**about) for gives in ("state", "increment"))
    torch.testing.assert_close(state, about["history"] + increment)
    assert not bool(increment[solid].any())
    assert bool((increment[~solid] != 0).all())
    assert bool((step_network(kind, compat="reference")(**about) != about["history"]).all())


@EVERY_STEP
def test_no_volumes_are_fluid_everywhere(kind: str) -> None:
    about = step_case(kind)
    network = step_network(kind)
    whole = network(about["history"], about["parameters"], torch.ones_like(about["volumes"]))
    torch.testing.assert_close(network(about["history"], about["parameters"]), whole)


@EVERY_STEP
def test_several_frames_go_in_and_out(kind: str) -> None:
    network = step_network(kind, history_frames=3, target_frames=2)
    about = step_case(kind, batch=2, frames=3)
    assert network(**about).shape == (2, 2, 2, *GRID[kind])


@pytest.mark.parametrize("kind", ["auto_ffn", "auto_deeponet", "cnn"])
def test_there_may_be_no_parameters(kind: str) -> None:
    network = step_network(kind, parameter_ranges=[])
    assert network.context_inputs == ("volumes",)
    assert network(step_case(kind)["history"]).shape == (3, 1, 2, *GRID[kind])


@pytest.mark.parametrize("kind", [*POINTS, *STEPS])
def test_all_weights_learn(kind: str) -> None:
    if kind in POINTS:
        network = points_network(kind, activation="gelu")
        network(fields(2, 2), fields(2, 5, 3)).square().sum().backward()
    else:
        network = step_network(kind, activation="gelu")
        network(**step_case(kind)).square().sum().backward()
    assert [name for name, each in network.named_parameters() if each.grad is None or not bool(each.grad.any())] == []


@EVERY_STEP
def test_is_rebuilt_from_its_specification_and_steps_as_a_surrogate(kind: str) -> None:
    network, about = step_network(kind), step_case(kind, batch=2)
    again: Any = build(specification_of(network)).double()
    again.load_state_dict(network.state_dict())
    grid = Grid((Axis("x"), Axis("y")))
    channels = Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")
    surrogate = Surrogate(again, Metadata("c", grid, channels, frame_interval=0.1, parameters=("inflow", "density")))
    lines = tuple((torch.arange(n, dtype=torch.float64) + 0.5).expand(2, -1) for n in GRID[kind])
    context = Context(lines, about["parameters"], about["volumes"] > 0)
    torch.testing.assert_close(surrogate.double().step(about["history"], context), network(**about))


@EVERY_POINT
def test_points_are_rebuilt_from_their_specification(kind: str) -> None:
    network = points_network(kind)
    again = build(specification_of(network)).double()
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again(fields(2, 2), fields(2, 5, 3)), network(fields(2, 2), fields(2, 5, 3)))


# What they refuse.


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("ffn", {"width": 0}, "Expected width, depth of at least 1"),
        ("ffn", {"field_ranges": []}, "field_ranges of at least one field, but got 3 and 0"),
        ("ffn", {"point_ranges": [(0.0, 1.0)]}, "Expected point_ranges of the time and of each coordinate, .* got 1"),
        ("ffn", {"activation": "sine"}, "Expected activation among"),
        ("ffn", {"standardization": "batch"}, "Expected standardization among"),
        ("deeponet", {"trunk_depth": 1}, "Expected a trunk_depth of at least 2"),
        ("deeponet", {"parameter_ranges": []}, "at least one parameter: the branch reads nothing else"),
        ("deeponet", {"compat": "old"}, "Expected compat among"),
    ],
)
def test_arguments_of_points_out_of_range_are_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        points_network(kind, **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("auto_ffn", {"depth": 0}, "Expected width, depth of at least 1"),
        ("auto_ffn", {"grid": (4,)}, "Expected a grid with points along x and y"),
        ("auto_deeponet", {"predicted": "last"}, "Expected predicted among"),
        ("auto_deeponet", {"trunk_depth": 0}, "trunk_depth of at least 1"),
        ("auto_edeeponet", {"parameter_ranges": []}, "at least one parameter: a branch reads nothing else"),
        ("cnn", {"grid": (16, 15)}, "Expected a grid of at least 16 points"),
        ("cnn", {"gives": "flux"}, "Expected gives among"),
    ],
)
def test_arguments_of_steps_out_of_range_are_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        step_network(kind, **changes)


@EVERY_POINT
def test_points_that_do_not_fit_are_refused(kind: str) -> None:
    network = points_network(kind)
    with pytest.raises(ValueError, match=r"Expected points \(case, point, 3\) with the time in front"):
        network(fields(2, 2), fields(2, 5, 2))
    with pytest.raises(ValueError, match=r"Expected parameters \(2, 2\)"):
        network(None, fields(2, 5, 3))


@EVERY_STEP
def test_frames_that_do_not_fit_are_refused(kind: str) -> None:
    network, about = step_network(kind), step_case(kind)
    with pytest.raises(ValueError, match=r"Expected a grid of .*, which the network was built for"):
        network(about["history"].transpose(3, 4), about["parameters"])
    with pytest.raises(ValueError, match=r"Expected \(batch, 1, 2, \*space\)"):
        network(about["history"][:, :, :1], about["parameters"])
    with pytest.raises(ValueError, match=r"Expected parameters \(3, 2\)"):
        network(about["history"])


def test_grids_of_released_weights_follow_from_their_sizes_or_are_asked_for() -> None:
    for kind, key in (("auto_ffn", "input_field_dim"), ("auto_edeeponet", "dim_branch1")):
        for points, grid in ((4096, (64, 64)), (4290, (65, 66)), (49, (7, 7))):
            blank = step_network(kind, grid=grid, parameter_ranges=[(-1, 1)] * 5, predicted="first", compat="reference")
            sizes = {"depth": 3} if kind == "auto_ffn" else {"branch_depth": 3, "trunk_depth": 4}
            network = STEPS[kind].from_reference({key: points, "width": 7, **sizes}, reference_state(blank))
            assert network.grid == grid
        with pytest.raises(ValueError, match="Expected the grid of a network with 30 points; give it as"):
            STEPS[kind].from_reference({key: 30}, {})
    for inputs, grid in ((4101, (64, 64)), (4104, (64, 64)), (4295, (65, 66)), (4298, (65, 66))):
        count_of_case = inputs - grid[0] * grid[1]
        ranges = [(-1, 1)] * count_of_case
        blank = step_network("auto_deeponet", grid=grid, parameter_ranges=ranges, predicted="first", compat="reference")
        config = {"branch_dim": inputs, "width": 7, "branch_depth": 3, "trunk_depth": 4}
        network = AutoDeepONet.from_reference(config, reference_state(blank))
        assert (network.grid, len(network.ranges)) == (grid, count_of_case)
    with pytest.raises(ValueError, match="Expected the grid of a network with branch_dim 32"):
        AutoDeepONet.from_reference({"branch_dim": 32}, {})


@pytest.mark.parametrize("cls", [*POINTS.values(), *STEPS.values()])
def test_keywords_that_there_is_no_network_for_are_refused(cls: Any) -> None:
    with pytest.raises(ValueError, match=r"Expected keywords of the authors' .* but got colour"):
        cls.from_reference({"colour": 1}, {})
    with pytest.raises(ValueError, match="Expected act_name among"):
        cls.from_reference({"act_name": "sine"}, {})
    with pytest.raises(ValueError, match="are missing"):
        cls.from_reference({}, {})
    if cls is not AutoFFN:
        with pytest.raises(ValueError, match="Expected act_on_output among"):
            cls.from_reference({"act_on_output": True}, {})


def test_hidden_layers_of_released_weights_are_equally_wide() -> None:
    with pytest.raises(ValueError, match="Expected hidden layers of one width"):
        FFN.from_reference({"widths": [8, 10, 20, 1]}, {})
