import copy
import math
import pickle

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.fno import FNO
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.ensemble import (
    Ensemble,
    EnsembleStepper,
    PerturbedStarts,
    fold_members,
    spread_members,
)
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate

PERIODIC = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
CHANNEL = Grid((Axis("x", period=1.0), Axis("y")))
VELOCITY = (Channel("velocity_x"), Channel("velocity_y"))


class Weighted(nn.Module):
    """A weighted sum of the latest frames, ``block`` times, plus the context's parameter; remembers its context."""

    def __init__(self, *weights, block=1, metadata=None):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))
        self.block = block
        self.metadata = metadata

    @property
    def history_frames(self):
        return len(self.weights)

    def step(self, history, context):
        self.seen = context
        assert history.shape[1] == self.history_frames
        frame = torch.einsum("btcxy,t->bcxy", history, self.weights)
        if context.parameters is not None:
            frame = frame + context.parameters[:, :1, None, None]
        return frame.unsqueeze(1).expand(-1, self.block, -1, -1, -1)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def metadata_of(grid=PERIODIC, channels=VELOCITY, interval=0.1):
    return Metadata("example", grid, channels, frame_interval=interval)


def context_of(batch, size=8, **entries):
    return Context(tuple(points.expand(batch, -1) for points in PERIODIC.uniform_coordinates((size, size))), **entries)


def surrogate(seed, history_frames=1):
    torch.manual_seed(seed)
    network = FNO(channels=2, modes=(3, 3), width=4, layers=1, history_frames=history_frames)
    return Surrogate(network, metadata_of(), history_frames=history_frames).eval()


def together(stepper, history, context, frames, **options):
    """All members' rollouts ``(member, batch, time, channel, *space)``."""
    blocks = list(rollout(stepper, *stepper.spread(history, context), frames, **options))
    return stepper.fold(torch.cat(blocks, 1))


def alone(stepper, history, context, frames, **options):
    return torch.cat(list(rollout(stepper, history, context, frames, **options)), 1)


# --- several steppers ---


@torch.no_grad()
def test_each_member_rolls_out_as_it_would_alone_bit_for_bit():
    members = [surrogate(0), Weighted(0.25, 0.5), surrogate(1), Persistence()]
    ensemble = Ensemble(members)
    history, context = noise(3, 4, 2, 8, 8), context_of(3, parameters=noise(3, 1, seed=1))
    found = together(ensemble, history, context, frames=5)
    assert found.shape == (4, 3, 5, 2, 8, 8)
    for member, own in zip(members, found, strict=True):
        assert torch.equal(own, alone(member, history, context, 5))
    assert not torch.equal(found[0], found[2])


@torch.no_grad()
def test_solvers_make_an_ensemble_and_blocks_of_several_frames_are_cut():
    solvers = [NavierStokes2d(8, viscosity=v, frame_interval=0.1, steps_per_frame=2) for v in (1e-2, 1e-3)]
    vorticity, context = noise(2, 1, 1, 8, 8), solvers[0].context(2)
    found = together(Ensemble(solvers), vorticity, context, 3)
    for solver, own in zip(solvers, found, strict=True):
        assert torch.equal(own, alone(solver, vorticity, context, 3))
    history, context = noise(2, 2, 2, 8, 8), context_of(2)
    pair = [Weighted(0.5, block=2), Weighted(0.1, 0.2, block=2)]
    found = together(Ensemble(pair), history, context, 5)
    for member, own in zip(pair, found, strict=True):
        assert torch.equal(own, alone(member, history, context, 5))


def test_each_member_gets_its_own_share_of_the_context():
    members = [Weighted(1.0), Weighted(2.0)]
    entries = {
        "parameters": noise(3, 1),
        "mask": noise(3, 8, 8, seed=1) > 0,
        "forcing": noise(3, 2, 8, 8, seed=2),
    }
    context = context_of(3, **entries)
    ensemble = Ensemble(members)
    ensemble.step(*ensemble.spread(noise(3, 1, 2, 8, 8), context))
    for member in members:
        for name, expected in entries.items():
            assert torch.equal(getattr(member.seen, name), expected)
        assert all(torch.equal(*pair) for pair in zip(member.seen.coordinates, context.coordinates, strict=True))


def test_it_needs_the_longest_history_and_knows_the_fields():
    ensemble = Ensemble([Persistence(), Weighted(1.0, 1.0, 1.0, metadata=metadata_of()), Weighted(1.0)])
    assert (ensemble.history_frames, ensemble.members) == (3, 3)
    assert ensemble.metadata == metadata_of()
    assert Ensemble([Persistence(), Persistence()]).metadata is None
    assert "members=3" in repr(ensemble)
    assert isinstance(ensemble, Stepper)
    assert isinstance(ensemble, EnsembleStepper)
    assert not isinstance(Persistence(), EnsembleStepper)


def test_a_member_that_blows_up_is_stopped_alone():
    found = together(
        Ensemble([Weighted(1.0), Weighted(10.0)]), torch.ones(2, 1, 2, 8, 8), context_of(2), 4, bounds=(-50, 50)
    )
    assert found.isnan().flatten(3).any(-1).tolist() == [[[False] * 4] * 2, [[False, True, True, True]] * 2]


def test_it_moves_saves_and_pickles_its_members():
    ensemble = Ensemble([Weighted(1.0), Persistence(), Weighted(2.0)])
    history, context = noise(2, 1, 2, 8, 8, dtype=torch.float64), context_of(2)
    assert sum(p.numel() for p in ensemble.parameters()) == 2
    assert ensemble.double().step(*ensemble.spread(history, context)).dtype == torch.float64
    other = Ensemble([Weighted(0.0), Persistence(), Weighted(0.0)]).double()
    other.load_state_dict(ensemble.state_dict())
    for twin in (other, copy.deepcopy(ensemble), pickle.loads(pickle.dumps(ensemble))):
        assert torch.equal(together(twin, history, context, 2), together(ensemble, history, context, 2))
        # The member that steps is the one that moves.
        assert twin.to(torch.float32).steppers[2].weights.dtype == torch.float32
    assert not any(module.training for module in ensemble.eval().modules())


def test_members_are_spread_and_folded_in_one_order():
    history, context = noise(3, 2, 1, 4, 4), context_of(3, size=4, parameters=noise(3, 2, seed=1))
    starts, contexts = spread_members(history, context, 2)
    folded = fold_members(starts, 2)
    assert torch.equal(folded[0], history)
    assert torch.equal(folded[1], history)
    assert torch.equal(fold_members(contexts.parameters, 2)[1], context.parameters)
    assert (contexts.mask, contexts.forcing) == (None, None)


def test_what_makes_no_ensemble_is_refused():
    with pytest.raises(ValueError, match="at least two steppers for an ensemble but got 1"):
        Ensemble([Persistence()])
    scalar = Weighted(1.0, metadata=metadata_of(channels=(Channel("height"),)))
    with pytest.raises(ValueError, match=r"channels .* member 1 of the ensemble has \('height',\)"):
        Ensemble([Weighted(1.0, metadata=metadata_of()), scalar])
    with pytest.raises(ValueError, match=r"frames 0\.1 apart but member 1 of the ensemble has 0\.2"):
        Ensemble([Weighted(1.0, metadata=metadata_of()), Weighted(1.0, metadata=metadata_of(interval=0.2))])
    uneven = Ensemble([Weighted(1.0), Weighted(1.0, block=2)])
    with pytest.raises(ValueError, match=r"equally many frames a step but got \[1, 2\]"):
        together(uneven, noise(1, 1, 2, 8, 8), context_of(1), 2)
    with pytest.raises(ValueError, match=r"a batch of 2 members times trajectories but got 3; spread the history"):
        uneven.step(noise(3, 1, 2, 8, 8), context_of(3))


@pytest.mark.parametrize("wrapper", ["Ensemble", "PerturbedStarts"])
def test_a_yaml_class_path_builds_it(wrapper):
    parser = ArgumentParser()
    parser.add_argument("--stepper", type=Stepper)
    persistence = {"class_path": "pdesurrogate.steppers.persistence.Persistence"}
    solver = {
        "class_path": "pdesurrogate.simulators.navier_stokes.NavierStokes2d",
        "init_args": {"resolution": 8, "viscosity": 0.01, "frame_interval": 0.1, "steps_per_frame": 2},
    }
    arguments = {
        "Ensemble": {"steppers": [persistence, solver]},
        "PerturbedStarts": {"stepper": solver, "members": 2, "amplitude": 0.1},
    }
    given = {"class_path": f"pdesurrogate.steppers.ensemble.{wrapper}", "init_args": arguments[wrapper]}
    built = parser.instantiate_classes(parser.parse_object({"stepper": given})).stepper
    assert isinstance(built, EnsembleStepper)
    assert built.members == 2
    assert built.metadata.channel_names == ("vorticity",)


# --- several starts ---


def starts_of(history, members=16, grid=PERIODIC, **options):
    stepper = PerturbedStarts(Persistence(), members, metadata=metadata_of(grid), **{"amplitude": 0.1} | options)
    context = context_of(len(history), history.shape[-1])
    return stepper.fold(stepper.spread(history, context)[0])


def test_perturbations_have_the_size_and_the_spectrum_of_the_field():
    field = torch.zeros(1, 1, 2, 16, 15, dtype=torch.float64)
    x = torch.arange(16, dtype=torch.float64)[:, None] / 16
    y = torch.arange(15, dtype=torch.float64) / 15
    field[0, 0, 0] = 5 + 3 * torch.cos(2 * math.pi * (2 * x + y))
    field[0, 0, 1] = torch.sin(2 * math.pi * (3 * y + 0 * x))
    perturbation = starts_of(field, members=400, amplitude=0.2) - field
    # The relative deviation of a mean of 400 exponential numbers is 0.05; half of that remains in its root.
    size = perturbation[:, 0, 0].square().mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(size, 0.2 * torch.tensor([3.0, 1.0]).double() / math.sqrt(2), rtol=0.1, atol=0)
    waves = torch.fft.rfft2(perturbation, norm="forward").abs().amax((0, 1, 2))
    assert (waves > 1e-12).nonzero().tolist() == [[0, 2, 1], [1, 0, 3]]


def test_perturbations_keep_divergence_and_mean():
    streamfunction = noise(2, 1, 16, 16, dtype=torch.float64)
    wave = 2j * math.pi * torch.fft.fftfreq(16, 1 / 16, dtype=torch.float64)
    wave[8] = 0  # the Nyquist wave has no first derivative
    hat = torch.fft.fft2(streamfunction)
    velocity = (
        torch.fft.ifft2(torch.stack([hat * wave, -hat * wave[:, None]], 2)).real
        + torch.tensor([1.0, 2.0])[:, None, None]
    )
    starts = starts_of(velocity, members=3, amplitude=0.5)
    hats = torch.fft.fft2(starts)
    divergence = torch.fft.ifft2(hats[:, :, :, 0] * wave[:, None] + hats[:, :, :, 1] * wave).real
    assert divergence.abs().max() < 1e-10 * starts.std() * 16
    torch.testing.assert_close(starts.mean((-1, -2)), velocity.mean((-1, -2)).expand(3, -1, -1, -1))


def test_perturbations_move_along_periodic_axes_only():
    field = noise(2, 2, 2, 16, 9, dtype=torch.float64)
    field[..., 0], field[..., -1] = 0, 1  # a wall at rest and one that moves
    profile = field.mean(-2)
    starts = starts_of(field, grid=CHANNEL)
    assert starts[..., 0].abs().max() < 1e-14
    assert (starts[..., -1] - 1).abs().max() < 1e-14
    torch.testing.assert_close(starts.mean(-2), profile.expand(16, -1, -1, -1, -1))
    assert (starts - field)[..., 1:-1].std() > 0.05


def test_starts_are_repeatable_and_do_not_depend_on_the_batch():
    field = noise(4, 2, 2, 8, 8, dtype=torch.float64)
    starts = starts_of(field, seed=3)
    assert torch.equal(starts_of(field, seed=3), starts)
    assert not torch.allclose(starts_of(field, seed=4), starts)
    torch.testing.assert_close(starts_of(field[2:3], seed=3), starts[:, 2:3], rtol=0, atol=1e-14)
    # Members differ, and none is the given start.
    assert ((starts - field).flatten(1).std(1) > 0.05).all()
    assert torch.cdist(starts.flatten(1), starts.flatten(1)).fill_diagonal_(1).min() > 0.1


@torch.no_grad()
def test_every_start_is_rolled_out_by_the_stepper():
    member = surrogate(0, history_frames=2)
    stepper = PerturbedStarts(member, members=3, amplitude=0.01)
    assert (stepper.history_frames, stepper.metadata) == (2, metadata_of())
    history, context = noise(2, 2, 2, 8, 8), context_of(2)
    found = together(stepper, history, context, 4)
    for start, own in zip(stepper.fold(stepper.spread(history, context)[0]), found, strict=True):
        # A batch of another size changes the last bits of a network's sums.
        torch.testing.assert_close(own, alone(member, start, context, 4), rtol=1e-5, atol=1e-6)
    assert "members=3, amplitude=0.01, seed=0" in repr(stepper)


def test_starts_that_cannot_be_perturbed_are_refused():
    for arguments in (
        {"members": 1, "amplitude": 0.1},
        {"members": 2, "amplitude": 0.0},
        {"members": 2, "amplitude": math.nan},
    ):
        with pytest.raises(ValueError, match="at least two members and a positive amplitude"):
            PerturbedStarts(Persistence(), metadata=metadata_of(), **arguments)
    for metadata in (None, metadata_of(Grid((Axis("x"), Axis("y"))))):
        with pytest.raises(ValueError, match="metadata with a periodic axis"):
            PerturbedStarts(Persistence(), 2, 0.1, metadata=metadata)
    stepper = PerturbedStarts(Persistence(), 2, 0.1, metadata=metadata_of())
    with pytest.raises(ValueError, match="without a mask"):
        stepper.spread(noise(1, 1, 2, 8, 8), context_of(1, mask=torch.ones(1, 8, 8, dtype=torch.bool)))
