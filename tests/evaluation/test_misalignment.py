"""Misalignment in SineNets whose features move by known amounts, and that watching a network leaves it alone."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdesurrogate.evaluation.misalignment import Misalignment, Shift, measure_misalignment, recorded_features
from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.sinenet import SineNet
from pdesurrogate.steppers.surrogate import Surrogate

SPEED = (Channel("s"), Channel("velocity_x"), Channel("velocity_y"))


def small(**changes: Any) -> SineNet:
    torch.manual_seed(0)
    sizes = {"channels": 3, "history_frames": 2, "waves": 2, "width": 4, "padding": "circular"}
    return SineNet(**{**sizes, **changes})


def surrogate_of(network: nn.Module, channels: tuple[Channel, ...] = SPEED, interval: float = 0.1) -> Surrogate:
    axes = (Axis("x", period=1.0), Axis("y", period=2.0))
    return Surrogate(network, Metadata("example", Grid(axes), channels, frame_interval=interval), history_frames=2)


def batch(samples: int = 3, size: int = 64, seed: int = 1, channels: int = 3) -> Batch:
    history = torch.randn(samples, 2, channels, size, size, generator=torch.Generator().manual_seed(seed))
    points = [torch.arange(size) * (period / size) for period in (1.0, 2.0)]
    return Batch(
        history, history[:, -1:].roll((1, 2), (-2, -1)), Context(tuple(each.expand(samples, -1) for each in points))
    )


def rolling(waves: int) -> SineNet:
    """Every wave takes the skip of its finest level, two points further along x, and nothing else."""
    network = small(waves=waves, residuals=(), normalization="none")
    with torch.no_grad():
        for wave in network.waves:
            block = wave.up[-1].blocks[0]
            for convolution in (block.first, block.second):
                convolution.weight.zero_()
                # The point before, of the same channel; what is large passes the activation as it is.
                convolution.weight[range(4), range(4), 0, 1] = 1.0
            block.first.bias.fill_(30.0)
            block.second.bias.zero_()
            # From a wave to the next, features stay small.
            network.lift.bias.zero_()
    return network


class Joining(nn.Module):
    """Stands in for a level."""

    def forward(self, parts: Any) -> Tensor:
        return parts[0]


class Moving(nn.Module):
    """Stands in for a wave: moves its input along x, and at each level what comes from below along y."""

    def __init__(self, by: int, below: tuple[int, ...]) -> None:
        super().__init__()
        self.by, self.below = by, below
        self.up = nn.ModuleList(Joining() for _ in below)

    def forward(self, values: Tensor, *_: Any) -> Tensor:
        for level, joining in zip(reversed(range(len(self.below))), self.up, strict=True):
            skip = values[..., :: 2**level, :: 2**level]
            joining([skip, -skip.roll(self.below[level], -1)])
        return values.roll(self.by, -2)


@pytest.mark.parametrize("windows", [1, 2])
def test_waves_that_roll_their_input_are_seen_to(windows: int) -> None:
    found = measure_misalignment(surrogate_of(rolling(3)), [batch(), batch(seed=2)], windows=windows)
    assert found.samples == 6
    assert found.windows == windows
    assert math.isclose(found.data.median, math.hypot(1, 2), abs_tol=1e-6 if windows == 1 else 0.1)
    # A window stays where it is, and sees noise without long waves move by all but a little less.
    tolerance = 1e-3 if windows == 1 else 0.1
    for wave in found.waves:
        assert math.isclose(wave.median, 2, abs_tol=tolerance)
        assert wave.lower <= wave.median <= wave.upper
        assert wave.coherence > 0.9
    assert math.isclose(found.total.median, 6, abs_tol=3 * tolerance)
    assert not found.total.accidental
    assert found.total.chance_coherence < 0.7


def test_what_fits_no_better_than_other_samples_is_an_accident() -> None:
    network = small(waves=1)

    class Forgetting(Moving):
        def forward(self, values: Tensor, *_: Any) -> Tensor:
            super().forward(values)
            return torch.randn(values.shape, generator=torch.Generator().manual_seed(5))

    network.waves = nn.ModuleList([Forgetting(0, (1, 1, 1, 1))])
    found = measure_misalignment(surrogate_of(network), [batch(16)], windows=2)
    assert found.waves[0].accidental
    assert not found.levels[0][0].accidental
    assert Shift.of(torch.ones(3)).accidental is False


def test_skips_and_upsampled_features_are_compared_in_points_of_the_finest_grid() -> None:
    network = small()
    network.waves = nn.ModuleList([Moving(3, (1, 1, 0, 2)), Moving(-5, (0, 4, 2, 1))])
    found = measure_misalignment(surrogate_of(network), [batch(size=128)], windows=1)
    assert [round(wave.median, 3) for wave in found.waves] == [3, 5]
    assert round(found.total.median, 3) == 2
    # Those that are moved have the other sign, too.
    assert [[round(level.median, 3) for level in wave] for wave in found.levels] == [[1, 2, 0, 16], [0, 8, 8, 8]]
    assert all(level.coherence > 0.99 for wave in found.levels for level in wave)


def test_a_network_that_moves_nothing_is_aligned() -> None:
    network = small(residuals=("block",))
    with torch.no_grad():
        for name, values in network.waves.named_parameters():
            values.fill_(1 / values.shape[-1] if name.endswith("shortcut.weight") else 0.0)
    axis = torch.arange(64) * (2 * torch.pi / 64)
    smooth = batch()
    phases = torch.arange(18.0).reshape(3, 2, 3, 1, 1)
    history = torch.cos(axis[:, None] + phases) + torch.cos(axis + 2 * phases)
    found = measure_misalignment(surrogate_of(network), [smooth._replace(history=history)], windows=1)
    # At the coarsest four points the first wave is known by its phase, and its images by doubling are weak.
    for shift in (*found.waves, found.total, *(level for wave in found.levels for level in wave)):
        assert shift.upper < 0.05


def test_levels_of_too_few_points_have_no_number() -> None:
    found = measure_misalignment(surrogate_of(small()), [batch()], windows=4)
    for wave in found.levels:
        assert [math.isnan(level.median) for level in wave] == [False, False, False, True]
    odd = measure_misalignment(surrogate_of(small()), [batch(size=48)], windows=3)
    assert not math.isnan(odd.levels[0][1].median)
    indivisible = measure_misalignment(surrogate_of(small()), [batch(size=32)], windows=8)
    assert [math.isnan(level.median) for level in indivisible.levels[0]] == [False, True, True, True]


def test_the_way_of_the_flow_is_in_grid_points() -> None:
    given = batch()
    given.history[:, -1, 1:] = 0
    given.history[:, -1, 1, 3, 4] = 3.0
    given.history[:, -1, 2, 3, 4] = -8.0
    found = measure_misalignment(surrogate_of(small(), interval=0.5), [given])
    # Along x a point is 1/64 wide, along y 2/64.
    way = 0.5 * math.hypot(3 * 64, 8 * 32)
    assert found.fastest is not None
    assert found.typical is not None
    assert math.isclose(found.fastest.median, way, rel_tol=1e-6)
    assert math.isclose(found.typical.median, way / 64, rel_tol=1e-6)
    longer = given._replace(target=given.target.repeat(1, 2, 1, 1, 1))
    twice = measure_misalignment(surrogate_of(small(target_frames=2), interval=0.5), [longer])
    assert twice.fastest is not None
    assert math.isclose(twice.fastest.median, 2 * way, rel_tol=1e-6)


def test_vorticity_has_a_flow_and_a_scalar_has_none() -> None:
    given = batch(channels=1)
    axis = torch.arange(64) * (2 * torch.pi / 64)
    wave = 2 * torch.pi
    given.history[:, -1, 0] = (wave * 3 * torch.cos(axis))[:, None]
    network = small(channels=1)
    found = measure_misalignment(surrogate_of(network, (Channel("vorticity"),)), [given])
    # The velocity along y is 3 sin(2 pi x).
    assert found.fastest is not None
    assert math.isclose(found.fastest.median, 0.1 * 3 * 32, rel_tol=1e-5)
    none = measure_misalignment(surrogate_of(network, (Channel("s"),)), [given])
    assert none.fastest is none.typical is None


def test_watching_changes_nothing() -> None:
    network = small()
    history = batch().history
    before = network(history)
    weights = [values.clone() for values in network.parameters()]
    with recorded_features(network) as features:
        during = network(history)
    assert torch.equal(before, during)
    assert torch.equal(before, network(history))
    assert all(torch.equal(*pair) for pair in zip(weights, network.parameters(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    # What comes out of a wave goes into the next, and the finest skip is what went in.
    assert torch.equal(features.waves[0][1], features.waves[1][0])
    for wave, levels in zip(features.waves, features.levels, strict=True):
        assert torch.equal(wave[0], levels[0][0])
        assert [tuple(skip.shape) for skip, _ in levels] == [(3, 64 >> level, 64 >> level) for level in range(4)]
        assert not any(each.requires_grad for pair in levels for each in pair)


def test_hooks_go_when_something_fails() -> None:
    network = small()
    with pytest.raises(ValueError, match="axes divisible by 16"), recorded_features(network):
        network(torch.zeros(1, 2, 3, 20, 20))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    with pytest.raises(ValueError, match="Expected features of every wave"), recorded_features(network):
        pass


def test_open_axes_are_tapered() -> None:
    found = measure_misalignment(surrogate_of(small(padding=("zeros", "circular"))), [batch()], windows=2)
    assert all(math.isfinite(wave.median) for wave in found.waves)


def test_a_single_sample_has_no_chance() -> None:
    found = measure_misalignment(surrogate_of(small()), [batch(1), batch(1, seed=2)])
    assert found.samples == 2
    assert math.isnan(found.waves[0].chance)
    assert not found.waves[0].accidental


def test_it_travels_as_plain_values() -> None:
    found = measure_misalignment(surrogate_of(small()), [batch()])
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Misalignment.from_dict(plain).to_dict() == plain == found.to_dict()
    assert plain["levels"][0][3]["median"] is None
    assert isinstance(Misalignment.from_dict(plain).waves[0], Shift)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="Expected a surrogate with a SineNet but got one with a FNO"):
        measure_misalignment(surrogate_of(FNO(channels=3, modes=(4, 4), width=4, layers=1)), [batch()])
    with pytest.raises(ValueError, match="Expected at least one batch"):
        measure_misalignment(surrogate_of(small()), [])
    with pytest.raises(ValueError, match="Expected batches with the 2 target frames of a step but got 1"):
        measure_misalignment(surrogate_of(small(target_frames=2)), [batch()])
    with pytest.raises(ValueError, match=r"Expected windows that divide the axes \(64, 64\) but got 5"):
        measure_misalignment(surrogate_of(small()), [batch()], windows=5)
