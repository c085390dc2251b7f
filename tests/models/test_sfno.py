"""SFNO: the authors' function under compat, time done right without it, and one function at every resolution."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pdesurrogate.fields.grid import Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.layers.positional import PositionalFeatures
from pdesurrogate.layers.space_time import Times, evaluate_waves, space_time_waves
from pdesurrogate.models.sfno import SFNO
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate

GOLDEN = Path(__file__).parents[1] / "golden"
PLAIN = Path(__file__).parents[2] / "benchmarks" / "speed" / "plain_sfno.py"


def small(**changes: Any) -> SFNO:
    """A network whose head has weights and a bias that are not zero."""
    torch.manual_seed(0)
    sizes = {"history_frames": 6, "latent_frames": 6, "modes": (4, 4, 3), "width": 8, "layers": 3}
    network = SFNO(**{**sizes, **changes})
    torch.nn.init.normal_(network.head.weight)
    torch.nn.init.normal_(network.head.bias)
    return network.double()


def vorticity(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def band_limited(size_x: int, size_y: int) -> Tensor:
    """Six frames of the same waves up to wavenumber 3, at any resolution."""
    x, y = (torch.arange(size, dtype=torch.float64) * (2 * torch.pi / size) for size in (size_x, size_y))
    waves = [(k, m) for k in range(-3, 4) for m in range(4)]
    amplitudes = vorticity(len(waves), 2, 6, seed=2) / 7
    angles = torch.stack([k * x[:, None] + m * y for k, m in waves])
    fields = torch.einsum("wct,cwxy->txy", amplitudes, torch.stack([angles.cos(), angles.sin()]))
    return fields[None, :, None]


def correction(network: SFNO, history: Tensor, frames: int | None = None) -> Tensor:
    return network(history, frames) - history[:, -1:]


def distance(left: Tensor, right: Tensor) -> float:
    return float(((left - right).norm() / right.norm()).detach())


def metadata(square: Grid) -> Metadata:
    return Metadata("turbulence", square, (Channel("vorticity", units="1/time"),), frame_interval=0.1)


def context(square: Grid, batch: int, size: int) -> Context:
    return Context(tuple(points.expand(batch, -1) for points in square.uniform_coordinates((size, size))))


# The authors' function.


@pytest.mark.parametrize("name", ["b", "c"])
def test_equals_the_authors_code(name: str) -> None:
    golden = torch.load(GOLDEN / f"sfno_{name}.pt", weights_only=True)
    network = SFNO.from_reference(golden["config"], golden["state_dict"])
    history = golden["input"].movedim(-1, 1).unsqueeze(2)

    def check(tolerance: float) -> None:
        with torch.no_grad():
            latent = network.latent(history)
            expected_latent = golden["latents_lastcall"]["reduction"][:, 0].movedim(-1, 1)
            assert distance(latent, expected_latent) < tolerance
            for frames, expected in golden["outputs"].items():
                expected_correction = expected.movedim(-1, 1).unsqueeze(2) - history[:, -1:]
                asked = None if frames == "none" else frames
                assert distance(correction(network, history, asked), expected_correction) < tolerance

    assert network.head.weight.dtype == torch.float64
    # Their features are made in single precision: ours differ by its round-off at most, on whatever machine.
    check(1e-6)
    features = golden["pe"][0].double()
    own = network.lifting.positional(history[:, :, 0].movedim(1, -1).unsqueeze(1))
    torch.testing.assert_close(own, features, atol=2e-7, rtol=0)
    network.lifting.positional.register_forward_hook(lambda *_: features)
    check(1e-10)


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    """The rival of the benchmark: the authors' function by whole transforms, sharing no code with ours."""
    specification = importlib.util.spec_from_file_location("plain_sfno", PLAIN)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temporal_padding": False},  # few frames have fewer waves than the head
        {"spatial_padding": 3, "temporal_padding": False, "activation": "GELU"},
        {"spatial_padding": 1, "spatial_random_feats": True, "lift_activation": False, "num_spectral_layers": 1},
    ],
)
def test_equals_a_plain_implementation(plain: ModuleType, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sizes = {"modes_x": 4, "modes_y": 3, "modes_t": 4, "width": 6, "latent_steps": 7, "delta": 0.7}
    theirs = plain.PlainSFNO(**sizes, **options).double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = SFNO.from_reference({**sizes, **options}, theirs.state_dict())
    history = vorticity(2, 11, 1, 12, 10)
    for frames in (None, 1, 2, 5, 20):
        expected = theirs(history[:, :, 0].movedim(1, -1), frames).movedim(-1, 1).unsqueeze(2)
        assert (
            distance(correction(ours, history, frames), expected - history[:, -1:]) < 1e-6
        )  # single-precision features


def test_compat_scales_and_stretches_with_the_number_of_frames() -> None:
    network, history = small(compat="torch-cfd", positional="linear"), vorticity(1, 6, 1, 8, 8)
    ten, twenty = correction(network, history, 10), correction(network, history, 20)
    assert distance(twenty[:, :10], ten) > 0.5  # B10 of the specification: 1.05 there
    # A wave of wavenumber zero in time cannot be stretched: what is left is the ratio of the periods, q + 2 + frames.
    with torch.no_grad():
        network.head.weight[:, :, 1:] = 0
        network.head.bias.zero_()
    ten, twenty = correction(network, history, 10), correction(network, history, 20)
    torch.testing.assert_close(ten[:, :1] * (18 / 28), twenty[:, :1])
    torch.testing.assert_close(twenty, twenty[:, :1].expand_as(twenty))


@pytest.mark.parametrize(("norm", "power"), [("backward", 1.0), ("ortho", 0.5), ("forward", 0.0)])
def test_compat_norms_differ_in_their_powers_of_the_number_of_frames(norm: str, power: float) -> None:
    options = {"fft_norm": norm, "temporal_padding": False}
    network = small(compat="torch-cfd", compat_options=options, layers=1)
    with torch.no_grad():
        network.head.weight[:, :, 1:] = 0
        network.head.bias.zero_()
    history = vorticity(1, 6, 1, 8, 8)
    few, many = correction(network, history, 7), correction(network, history, 31)
    torch.testing.assert_close(many[:, 0] * 4**power, few[:, 0])  # periods of 8 and 32 frames


def test_default_is_the_authors_function_where_theirs_is_right() -> None:
    ours = small(positional="time")
    theirs = small(positional="time", compat="torch-cfd", target_frames=6)
    theirs.load_state_dict(ours.state_dict())
    history = vorticity(2, 6, 1, 8, 8)
    with torch.no_grad():
        for network in (ours, theirs):
            network.head.bias.zero_()  # divided by the number of points in theirs
        # As many frames in, inside and out; their features are in single precision.
        assert distance(correction(theirs, history), correction(ours, history)) < 1e-6


# Sizes and state.


def expected_count(modes: tuple[int, int, int], width: int, layers: int, expansion: int) -> int:
    """The formula of the paper's parameter count, spelled out by module."""
    waves, mixing = 4 * math.prod(modes), width**2 + width
    network = 2 * expansion * width**2 + expansion * width + width
    spectral, head = 2 * waves * width**2, 2 * 2 * waves
    lifting = 2 * width + mixing + network
    return layers * spectral + head + lifting + (layers - 1) * (network + mixing) + width + 1


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"modes": (32, 32, 5), "width": 10}, 16_469_791),
        ({"modes": (12, 12, 5), "width": 20, "target_frames": 40}, 9_242_461),
        ({"modes": (12, 12, 5), "width": 20, "positional": "products", "activation": "gelu"}, 9_243_981),
        ({"modes": (32, 32, 5), "width": 10, "lifting_activation": False}, 16_469_051),
        ({"modes": (8, 8, 4), "width": 16}, 2_110_897),
        ({"modes": (8, 8, 2), "width": 10, "latent_frames": 3}, 415_519),
        ({"modes": (16, 16, 5), "width": 10}, 4_120_351),
    ],
)
@pytest.mark.parametrize("compat", [None, "torch-cfd"])
def test_published_parameter_counts(sizes: dict[str, Any], count: int, compat: str | None) -> None:
    with torch.device("meta"):
        network = SFNO(**sizes, compat=compat)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert not list(network.buffers())


@given(
    modes=st.tuples(*[st.integers(1, 4)] * 3),
    width=st.integers(5, 9),
    layers=st.integers(1, 3),
    ratio=st.integers(1, 3),
)
@settings(max_examples=10)
def test_parameter_count_follows_the_formula(modes: tuple[int, int, int], width: int, layers: int, ratio: int) -> None:
    with torch.device("meta"):
        network = SFNO(modes=modes, width=width, layers=layers, expansion=ratio)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected_count(modes, width, layers, ratio)


@pytest.mark.parametrize("compat", [None, "torch-cfd"])
@pytest.mark.parametrize("positional", ["time", "periodic", "linear", "products"])
def test_contract(positional: str, compat: str | None) -> None:
    network = small(positional=positional, compat=compat, target_frames=10, layers=1)
    for history_frames, space in ((6, (8, 8)), (7, (10, 14)), (20, (9, 11))):
        history = vorticity(2, history_frames, 1, *space)
        for frames in (None, 1, 7, 10, 20, 40):
            assert network(history, frames).shape == (2, frames or 10, 1, *space)


def test_default_number_of_frames() -> None:
    history = vorticity(1, 9, 1, 8, 8)
    assert small()(history).shape[1] == 6  # as many as latent frames
    assert small(target_frames=4)(history).shape[1] == 4
    assert small(compat="torch-cfd")(history).shape[1] == 9  # theirs: as many as given


@pytest.mark.parametrize("options", [{}, {"compat": "torch-cfd", "compat_options": {"spatial_padding": 2}}])
def test_a_head_of_zeros_is_persistence(options: dict[str, Any]) -> None:
    network, history = small(**options), vorticity(2, 6, 1, 8, 8)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    assert torch.equal(network(history, 7), history[:, -1:].expand(-1, 7, -1, -1, -1))


def test_state_round_trips_and_precisions_agree() -> None:
    network, other = small(), small()
    for parameter in other.parameters():
        torch.nn.init.ones_(parameter)
    other.load_state_dict(network.state_dict(), strict=True)
    history = vorticity(2, 6, 1, 8, 8)
    expected = network(history)
    assert expected.dtype == torch.float64
    assert torch.equal(other(history), expected)
    single = other.float()(history.float())
    assert single.dtype == torch.float32
    assert distance(single.double() - history[:, -1:], expected - history[:, -1:]) < 1e-5


def test_mixed_precision_computes_the_transforms_in_full() -> None:
    network, history = small().float(), vorticity(2, 6, 1, 8, 8).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(history)
    half.square().mean().backward()
    assert half.dtype == torch.float32
    assert distance(half - history[:, -1:], correction(network, history)) < 0.03  # bfloat16 has eight bits
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"target_frames": 9, "positional": "time", "activation": "gelu"},
        {
            "compat": "torch-cfd",
            "compat_options": {"fft_norm": "ortho", "spatial_padding": 2},
            "positional": "products",
        },
    ],
)
def test_checkpoint_round_trips(options: dict[str, Any], square: Grid, tmp_path: Path) -> None:
    surrogate = Surrogate(small(**options).float(), metadata(square), history_frames=7)
    loaded = Surrogate.from_checkpoint(surrogate.save(tmp_path / "sfno.ckpt"))
    history = vorticity(2, 7, 1, 8, 8).float()
    assert loaded.specification() == surrogate.specification()
    assert torch.equal(loaded.step(history, context(square, 2, 8)), surrogate.step(history, context(square, 2, 8)))


# Time.


def test_frames_do_not_depend_on_how_many_are_asked_for() -> None:
    network, history = small(target_frames=9), vorticity(2, 6, 1, 8, 8)
    longest = network(history, 25)
    assert torch.equal(longest[:, :9], network(history))
    for frames in (1, 4, 9, 10, 18, 24):
        torch.testing.assert_close(network(history, frames), longest[:, :frames], atol=1e-12, rtol=0)


@pytest.mark.parametrize(("history_frames", "target_frames"), [(6, 6), (6, 9), (8, 3)])
def test_a_longer_horizon_is_repeated_application(history_frames: int, target_frames: int, square: Grid) -> None:
    network = small(history_frames=history_frames, target_frames=target_frames)
    torch.nn.init.normal_(network.head.weight, std=0.1)  # it is applied up to eight times
    history = vorticity(2, 11, 1, 8, 8)
    longer = network(history, 23)
    seen = history
    while seen.shape[1] < 11 + 23:
        seen = torch.cat([seen, network(seen[:, -history_frames:])], dim=1)
    torch.testing.assert_close(longer, seen[:, 11 : 11 + 23], atol=1e-10, rtol=1e-10)
    surrogate = Surrogate(network, metadata(square), history_frames)
    run = torch.cat(list(rollout(surrogate, history, context(square, 2, 8), 23)), dim=1)
    torch.testing.assert_close(longer, run, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("target_frames", [6, 10])
@pytest.mark.parametrize("factor", [1, 2, 5])
def test_super_resolution_passes_through_the_frames(target_frames: int, factor: int) -> None:
    network, history = small(target_frames=target_frames), vorticity(2, 8, 1, 8, 8)
    finer, frames = network.super_resolve(history, factor), network(history)
    assert finer.shape[1] == factor * target_frames
    torch.testing.assert_close(finer[:, factor - 1 :: factor], frames, atol=1e-12, rtol=0)
    torch.testing.assert_close(network.super_resolve(history, 2 * factor)[:, 1::2], finer, atol=1e-12, rtol=0)
    single = network.float()
    history = history.float()
    every = single.super_resolve(history, factor)[:, factor - 1 :: factor]
    assert distance(every - history[:, -1:], correction(single, history)) < 1e-6


@given(target_frames=st.integers(1, 30), frames=st.integers(1, 30), factor=st.integers(1, 3), wave=st.integers(0, 2))
@settings(max_examples=20)
def test_a_wave_of_the_head_has_its_amplitude_and_phase_at_all_times(
    target_frames: int, frames: int, factor: int, wave: int
) -> None:
    network = small(target_frames=target_frames, layers=1, bias_strength=0.5)
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.zero_()
        network.head.bias[4, 4 + 1, wave] = torch.tensor([3.0, 4.0])  # 5 exp(0.927 i) at wavenumbers 0 and 1
    history = torch.zeros(1, 6, 1, 8, 8, dtype=torch.float64)
    times = torch.arange(1, factor * target_frames + 1, dtype=torch.float64) / factor
    # Seven points of zeros, the last frame, and six latent frames for the whole horizon.
    angle = 2 * torch.pi * wave * (7 + times * 6 / target_frames) / 14 + math.atan2(4, 3)
    place = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    expected = (2 if wave else 1) * 2.5 * torch.cos(angle[:, None, None] + place).expand(-1, 8, 8)
    torch.testing.assert_close(network.super_resolve(history, factor)[0, :, 0], expected, atol=1e-12, rtol=0)
    few = network(history, min(frames, target_frames))[0, :, 0]
    torch.testing.assert_close(few, expected[factor - 1 :: factor][: len(few)], atol=1e-12, rtol=0)


def test_only_the_latest_frames_of_a_long_history_are_seen() -> None:
    network, history = small(), vorticity(2, 9, 1, 8, 8)
    latest = history[:, -6:]
    assert torch.equal(network(history), network(latest))
    assert torch.equal(network.super_resolve(history, 2), network.super_resolve(latest, 2))
    assert torch.equal(network.latent(history), network.latent(latest))
    squeezed = small(compat="torch-cfd")
    assert distance(squeezed.latent(history), squeezed.latent(latest)) > 1e-3


@pytest.mark.parametrize("options", [{}, {"compat": "torch-cfd", "compat_options": {"spatial_padding": 2}}])
def test_the_head_is_linear_and_takes_more_waves(options: dict[str, Any]) -> None:
    network, history = small(target_frames=9, **options), vorticity(2, 8, 1, 12, 10)
    weight, bias = (torch.view_as_complex(part.detach()).movedim(-1, 0) for part in network.head.parameters())
    expected = correction(network, history)[:, :, 0]
    assert network.frames_out(history) == 9
    own = network.linear_head(history, (4, 4, 3)).correction(weight, 0.1 * bias)
    torch.testing.assert_close(own, expected, atol=1e-12, rtol=0)
    # Zeros around: two waves more along x and one along y to each side, and five in time.
    wider = [torch.nn.functional.pad(part, (1, 1, 2, 2, 0, 5)) for part in (weight, 0.1 * bias)]
    enlarged = network.linear_head(history, (6, 5, 8)).correction(*wider)
    torch.testing.assert_close(enlarged, expected, atol=1e-12, rtol=0)


def test_steps_learns_and_rolls_out_as_a_surrogate(square: Grid) -> None:
    surrogate = Surrogate(small(history_frames=10, latent_frames=10, modes=(4, 4, 5)).float(), metadata(square), 10)
    history, target = vorticity(3, 10, 1, 8, 8).float(), vorticity(3, 10, 1, 8, 8, seed=2).float()
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = (surrogate.step(history, context(square, 3, 8)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    with torch.no_grad():
        run = rollout(surrogate, history, context(square, 3, 8), 25)
        blocks = list(run)
    assert [block.shape[1] for block in blocks] == [10, 10, 5]
    assert run.first_bad_frame.tolist() == [25] * 3


# Place.


@pytest.mark.parametrize("positional", ["time", "periodic"])
@pytest.mark.parametrize(("fine", "coarse"), [((64, 64), (32, 32)), ((32, 32), (8, 8)), ((45, 24), (9, 8))])
def test_a_network_without_activations_is_the_same_at_every_resolution(
    positional: str, fine: tuple[int, int], coarse: tuple[int, int]
) -> None:
    # Waves up to 3 need 7 points; normalization sees the same mean and variance at 7 points and more.
    network = small(positional=positional, layers=1, lifting_activation=False)
    strides = (..., slice(None, None, fine[0] // coarse[0]), slice(None, None, fine[1] // coarse[1]))
    seen = correction(network, band_limited(*fine))[strides]
    torch.testing.assert_close(seen, correction(network, band_limited(*coarse)), atol=1e-12, rtol=0)


def resolution_gap(network: SFNO, size: int) -> float:
    """Relative difference of the corrections at ``size`` points and at twice as many."""
    with torch.no_grad():
        fine = correction(network, band_limited(2 * size, 2 * size))[..., ::2, ::2]
        return distance(fine, correction(network, band_limited(size, size)))


@pytest.mark.parametrize("positional", ["time", "periodic"])
def test_activations_cost_what_their_smoothness_says(positional: str) -> None:
    # What an activation makes above the grid's highest wave comes back as an alias. A GELU is smooth, so that falls
    # faster than any power; a ReLU has kinks, so its waves fall with their square: 4 for each doubling, 16 for two.
    sizes = {"positional": positional, "width": 6, "expansion": 2}
    smooth = small(**sizes, activation="gelu")
    assert resolution_gap(smooth, 32) < resolution_gap(smooth, 8) / 4**6
    kinked = small(**sizes, activation="relu")
    assert resolution_gap(kinked, 64) < resolution_gap(kinked, 16) / 16


def test_coordinates_with_the_end_point_depend_on_the_resolution() -> None:
    network = small(positional="periodic", activation="gelu", compat="torch-cfd")
    torch.nn.init.zeros_(network.head.bias)  # divided by the number of points
    gaps = [resolution_gap(network, size) for size in (16, 32)]
    assert 1.7 < gaps[0] / gaps[1] < 2.5  # i / (n - 1) differs from i / n by 1 / n: first order


def test_commutes_with_translations_where_no_place_is_added() -> None:
    history = vorticity(2, 6, 1, 12, 10)
    moved = history.roll((5, -3), (-2, -1))

    def departure(network: SFNO) -> Tensor:
        return network(moved) - network(history).roll((5, -3), (-2, -1))

    network = small(positional="time")
    fixed = network.head(
        torch.zeros(1, 1, 12, 10).double(), torch.zeros(1, 6, 12, 10).double(), network.output_times(6)
    )
    shifted = fixed.roll((5, -3), (-2, -1))
    # The head's bias is a field of its own, which stays where it is; a fresh network has none.
    torch.testing.assert_close(departure(network), (fixed - shifted).unsqueeze(2).expand(2, -1, -1, -1, -1))
    assert (fixed - shifted).norm() > 0.1 * fixed.norm()
    for positional in ("time", "periodic", "linear", "products"):
        network = small(positional=positional)
        torch.nn.init.zeros_(network.head.bias)
        relative = departure(network).norm() / correction(network, history).norm()
        assert relative < 1e-14 if positional == "time" else relative > 1e-3


def test_features() -> None:
    fields = torch.zeros(1, 1, 8, 6, 120, dtype=torch.float64)

    def features(kind: Any, end_point: bool = False, width: int = 7) -> Tensor:
        return PositionalFeatures(kind, width, (4, 4, 2), damping=-0.5, end_point=end_point)(fields)

    time = torch.arange(1, 121, dtype=torch.float64) / 100
    place = torch.arange(8, dtype=torch.float64) / 8
    decay = torch.exp(-0.5 * time)
    in_time = [time, decay * torch.sin(torch.pi * time), decay * torch.cos(2 * torch.pi * time)]
    torch.testing.assert_close(features("time")[:3, 3, 4], torch.stack(in_time))
    periodic = features("periodic")
    torch.testing.assert_close(periodic[0, :, 2, 7], torch.cos(2 * torch.pi * place))
    torch.testing.assert_close(periodic[1, :, 2, 7], torch.sin(2 * torch.pi * place))
    torch.testing.assert_close(periodic[4:, 3, 4], torch.stack(in_time))
    torch.testing.assert_close(features("linear")[0, :, 2, 7], place)
    torch.testing.assert_close(features("linear", end_point=True)[0, :, 2, 7], torch.linspace(0, 1, 8).double())
    products = features("products")
    assert len(products) == 3 + 2 * 2 * 1
    y = torch.tensor(4 / 6, dtype=torch.float64)
    expected = decay * torch.sin(2 * torch.pi * place[3]) * torch.cos(torch.pi * y) * torch.cos(torch.pi * time) / 2
    torch.testing.assert_close(products[5, 3, 4], expected)  # 2, 1, 1 after x, y, t, 1 1 1 and 1 2 1


# Waves in space and time.


@given(
    frames=st.integers(1, 7),
    start=st.integers(0, 4),
    spare=st.integers(0, 3),
    halves=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
@settings(max_examples=25)
def test_waves_of_frames_give_the_frames_back(frames: int, start: int, spare: int, halves: tuple[int, int]) -> None:
    period, space = start + frames + spare, (2 * halves[0], 2 * halves[1])
    values = vorticity(2, frames, *space)
    waves = space_time_waves(values, start, period, (*halves, period // 2 + 1))
    every = evaluate_waves(waves, Times(torch.arange(period, dtype=torch.float64), period), space)
    padded = torch.nn.functional.pad(values, (0, 0, 0, 0, start, spare))
    torch.testing.assert_close(every, padded, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("wave", "period"), [(0, 9), (1, 9), (3, 9), (3, 8), (4, 8)])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_derivative_of_a_wave(wave: int, period: int, order: int) -> None:
    waves = torch.zeros(5, 6, 4, dtype=torch.complex128)
    waves[wave, 3 + 2, 2 - 1] = 3 + 4j  # wavenumber 2 along x, -1 along y
    positions = torch.tensor([0.0, 0.3, 2.0, 5.7], dtype=torch.float64)
    x, y = (2 * torch.pi * torch.arange(size, dtype=torch.float64) / size for size in (8, 10))
    rate = 2 * torch.pi * wave / period
    angle = rate * positions[:, None, None] + (2 * x[:, None] - y) + math.atan2(4, 3)
    derivative = [torch.cos, lambda a: -rate * torch.sin(a), lambda a: -(rate**2) * torch.cos(a)][order]
    pairs = 1 if wave == 0 or 2 * wave == period else 2  # a Nyquist wave stands for itself
    expected = pairs * 5 * derivative(angle)
    fields = evaluate_waves(waves, Times(positions, period), (8, 10), order)
    torch.testing.assert_close(fields, expected, atol=1e-12, rtol=0)


def test_derivatives_are_those_of_the_values() -> None:
    waves = torch.view_as_complex(vorticity(2, 4, 6, 6, 2))
    positions, step = torch.linspace(0, 9, 7, dtype=torch.float64), 1e-4

    def fields(shift: float, order: int = 0) -> Tensor:
        return evaluate_waves(waves, Times(positions + shift, 9), (8, 8), order)

    # The fastest wave has 2 pi 3 / 9 = 2.1 per frame: the central difference errs by 2.1^2 step^2 / 6 = 7e-9.
    for order in (0, 1):
        slope = (fields(step, order) - fields(-step, order)) / (2 * step)
        assert distance(slope, fields(0, order + 1)) < 1e-8


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 2}, r"one channel, vorticity, but got 2"),
        ({"history_frames": 5}, r"at least latent_frames = 6 frames of history but got 5; give a longer history"),
        ({"target_frames": 0}, r"at least one target frame but got 0"),
        ({"modes": (4, 4, 5)}, r"at most 4 modes in time, half of 6 latent frames and one, but got 5"),
        ({"modes": (4, 4)}, r"three positive modes \(x, y, time\) but got \(4, 4\)"),
        ({"modes": (4, 0, 3)}, r"three positive modes"),
        ({"width": 0}, r"width, layers, latent_frames and expansion of at least 1"),
        ({"width": 4}, r"width of at least 5 for 'periodic' but got 4"),
        ({"activation": "tanh"}, r"'relu' or 'gelu' but got 'tanh'"),
        ({"positional": "place"}, r"positional among .*'periodic'.* but got 'place'"),
        ({"compat": "jax-cfd"}, r"compat None or 'torch-cfd' but got 'jax-cfd'"),
        ({"compat_options": {"spatial_padding": 2}}, r"compat_options with compat='torch-cfd' only"),
        ({"compat": "torch-cfd", "compat_options": {"fft_norm": "backwards"}}, r"'backward', 'ortho', 'forward'"),
        ({"compat": "torch-cfd", "compat_options": {"padding": 2}}, r"compat_options among .*'spatial_padding'"),
        ({"compat": "torch-cfd", "compat_options": {"spatial_padding": -1}}, r"spatial_padding.*but got"),
    ],
)
def test_refuses_senseless_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 6, 2, 8, 8), r"vorticity \(batch, time, 1, x, y\) but got \(1, 6, 2, 8, 8\)"),
        ((1, 6, 8, 8), r"vorticity \(batch, time, 1, x, y\) but got \(1, 6, 8, 8\)"),
        ((1, 5, 1, 8, 8), r"at least 6 frames of history but got 5; start later"),
        ((1, 6, 1, 8, 7), r"at least \(8, 8\) points.*grid of \(8, 7\); use a finer grid or fewer modes"),
    ],
)
def test_refuses_history_that_does_not_fit(shape: tuple[int, ...], message: str) -> None:
    network, history = small(), torch.zeros(shape, dtype=torch.float64)
    for call in (network, network.latent, lambda values: network.super_resolve(values, 2)):
        with pytest.raises(ValueError, match=message):
            call(history)


def test_refuses_numbers_of_frames_that_make_no_sense() -> None:
    network, history = small(), vorticity(1, 6, 1, 8, 8)
    compat = small(compat="torch-cfd")
    for each in (network, compat):
        with pytest.raises(ValueError, match="at least one frame but got 0"):
            each(history, 0)
    with pytest.raises(ValueError, match="factor of at least 1 but got 0"):
        network.super_resolve(history, 0)
    with pytest.raises(ValueError, match="without compat: the authors' head knows no times between frames"):
        compat.super_resolve(history, 2)
    with pytest.raises(ValueError, match="6 to 100 frames of history but got 101"):
        compat(vorticity(1, 101, 1, 8, 8))
    with pytest.raises(ValueError, match="6 to 100 frames of history but got 5"):
        compat(history[:, 1:])


def test_refuses_more_waves_than_points() -> None:
    with pytest.raises(ValueError, match=r"at least \(8, 6\) points, one for each wave, but got a grid of \(8, 5\)"):
        space_time_waves(torch.zeros(1, 3, 8, 5), 0, 3, (4, 3, 2))
    waves = torch.zeros(2, 8, 6, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"at least \(8, 6\) points"):
        evaluate_waves(waves, Times(torch.arange(3), 3), (7, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_dim": 2}, "out_dim 1, scalar vorticity, but got 2"),
        ({"mode_x": 4, "depth": 3}, "keywords of the authors' SFNO but got depth, mode_x"),
        ({"modes_t": None, "width": None}, "keywords of the authors' SFNO but modes_t, width have no default"),
        ({"activation": "Tanh"}, "'relu' or 'gelu' but got 'tanh'"),
        ({"fft_norm": "backwards"}, "fft_norm one of"),
        ({"spatial_random_feats": True}, "are missing: lifting_operator.pe.proj.bias"),
        ({"channel_expansion": 2}, "Expected lifting_operator.mlp.linear1.weight of shape"),
    ],
)
def test_refuses_reference_keywords_and_weights_that_do_not_fit(
    plain: ModuleType, changes: dict[str, Any], message: str
) -> None:
    config = {"modes_x": 2, "modes_y": 2, "modes_t": 2, "width": 4, "latent_steps": 3, "num_spectral_layers": 1}
    weights = plain.PlainSFNO(**config).state_dict()
    with pytest.raises(ValueError, match=message):
        SFNO.from_reference({**config, **changes}, weights)
    swallowed = {**config, "pe_trainable": True, "dim_reduction": 1}
    assert isinstance(SFNO.from_reference(swallowed, weights), SFNO)
