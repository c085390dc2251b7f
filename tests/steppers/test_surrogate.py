"""What a surrogate hands to its network: normalized frames, and the parts of the context that it takes."""

from __future__ import annotations

import warnings

import lightning
import pytest
import torch
from helpers import write_archive
from torch import nn

from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.sinenet import SineNet
from pdesurrogate.models.specification import recorded
from pdesurrogate.models.unet_modern import ModernUNet
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.surrogate import Surrogate
from pdesurrogate.training.forecast import ForecastModule

PERIODIC = Grid((Axis("x", period=1.0), Axis("y", period=2.0)))
WALLED = Grid((Axis("x", period=1.0), Axis("y")))


def metadata(grid=PERIODIC, parameters=("viscosity",), location="node") -> Metadata:
    channels = (Channel("height", location=location), Channel("tracer", location=location))
    return Metadata("example", grid, channels, frame_interval=0.1, parameters=parameters)


def context(batch=2, parameters=None, y=None, mask=None) -> Context:
    x, even = PERIODIC.uniform_coordinates((32, 32))
    lines = (x, even if y is None else y)
    return Context(tuple(line.expand(batch, -1) for line in lines), parameters=parameters, mask=mask)


@recorded
class Remembering(nn.Module):
    """Gives the latest frame and keeps what it was given."""

    def __init__(self, context_inputs=()) -> None:
        super().__init__()
        self.context_inputs = tuple(context_inputs)

    def forward(self, history, **given):
        self.given = given
        return history[:, -1:]


CONDITIONAL = {
    "sinenet": lambda: SineNet(
        2, 2, waves=2, width=4, padding="circular", conditioning="add", parameter_ranges=[(0.0, 1.0)]
    ),
    "modern U-Net": lambda: ModernUNet(
        2, 2, width=8, padding="circular", conditioning="adagn", parameter_ranges=[(0.0, 1.0)]
    ),
}


@pytest.mark.parametrize("name", CONDITIONAL)
def test_parameters_of_the_context_reach_the_network(name):
    torch.manual_seed(0)
    surrogate = Surrogate(CONDITIONAL[name](), metadata(), history_frames=2)
    for parameter in surrogate.network.parameters():  # some start at zero
        nn.init.normal_(parameter, std=0.2)
    history = torch.randn(1, 2, 2, 32, 32).expand(2, -1, -1, -1, -1)
    with torch.no_grad():
        same = surrogate.step(history, context(parameters=torch.tensor([[0.3], [0.3]])))
        apart = surrogate.step(history, context(parameters=torch.tensor([[0.3], [0.6]])))
    torch.testing.assert_close(same[0], same[1])
    torch.testing.assert_close(same[0], apart[0])
    assert (apart[1] - apart[0]).abs().max() > 1e-3


def test_volumes_are_those_of_cells_on_a_stretched_axis_without_solid():
    network = Remembering(["volumes"])
    faces = torch.linspace(0, 1, 33, dtype=torch.float64) ** 2
    # Centers half way between faces do not say where the faces are; their own mid-points do.
    centers = (faces[1:] + faces[:-1]) / 2
    mask = torch.ones(2, 32, 32, dtype=torch.bool)
    mask[1, 3:5] = False
    surrogate = Surrogate(network, metadata(WALLED, (), "cell"))
    surrogate.step(torch.zeros(2, 1, 2, 32, 32), context(y=centers, mask=mask))
    volumes = network.given["volumes"]
    expected = WALLED.quadrature_weights((PERIODIC.uniform_coordinates((32, 32))[0], centers), cells=True)
    torch.testing.assert_close(volumes[0], expected[0][:, None] * expected[1])
    assert torch.equal(volumes[1] == 0, ~mask[1])


def test_a_sinenet_with_volumes_steps_around_solid():
    torch.manual_seed(0)
    network = SineNet(2, 1, waves=1, width=4, padding=["circular", "zeros"], cells="volumes")
    mask = torch.ones(1, 32, 32, dtype=torch.bool)
    mask[:, 8:16, 4:9] = False
    surrogate = Surrogate(network, metadata(WALLED, (), "cell"))
    surrogate.normalizer.set_statistics(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 3.0]))
    with torch.no_grad():
        block = surrogate.step(torch.randn(1, 1, 2, 32, 32), context(1, mask=mask))
    assert torch.equal(block[:, :, :, ~mask[0]], torch.zeros(1, 1, 2, 40))
    assert (block[:, :, :, mask[0]] != 0).all()


def test_coordinates_reach_a_network_that_takes_them():
    network = Remembering(["coordinates"])
    given = context()
    Surrogate(network, metadata()).step(torch.zeros(2, 1, 2, 32, 32), given)
    assert network.given["coordinates"] is given.coordinates


def test_without_declaration_nothing_but_frames_is_given():
    network = Remembering()
    Surrogate(network, metadata()).step(torch.zeros(2, 1, 2, 32, 32), context(parameters=torch.ones(2, 1)))
    assert network.given == {}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"context_inputs of Remembering among .* but got \['weather'\]"):
        Surrogate(Remembering(["weather"]), metadata())
    with pytest.raises(ValueError, match=r"data with parameters for a Remembering .* of 'example' have none"):
        Surrogate(Remembering(["parameters"]), metadata(parameters=()))
    surrogate = Surrogate(CONDITIONAL["sinenet"](), metadata(), history_frames=2)
    with pytest.raises(ValueError, match=r"parameters \(batch, 1\).* but got none"):
        surrogate.step(torch.zeros(2, 2, 2, 32, 32), context())
    with pytest.raises(ValueError, match=r"parameters \(batch, 1\).* but got \(2, 3\)"):
        surrogate.step(torch.zeros(2, 2, 2, 32, 32), context(parameters=torch.ones(2, 3)))
    with pytest.raises(ValueError, match="at least 2 history frames but got 1"):
        surrogate.step(torch.zeros(2, 1, 2, 32, 32), context(parameters=torch.ones(2, 1)))


def test_channels_in_another_order_are_refused(tmp_path):
    surrogate = Surrogate(Remembering(), metadata())
    swapped = metadata(parameters=("viscosity",))
    swapped = Metadata("swapped", swapped.grid, swapped.channels[::-1], 0.1, swapped.parameters)
    with pytest.raises(ValueError, match=r"channels \('height', 'tracer'\) but the data has \('tracer', 'height'\)"):
        surrogate.metadata.require_same_fields(swapped, what="the data")


CHANNEL = Grid((Axis("x", period=2.0), Axis("y", bounds=(0.0, 1.0)), Axis("z", period=1.0)))
TUBE = Grid((Axis("x", bounds=(0.0, 1.0)), Axis("y", bounds=(0.0, 1.0)), Axis("z", period=1.0)))
BOX = Grid((Axis("x", period=1.0), Axis("y", period=1.0), Axis("z", period=1.0)))
POINTS = (6, 5, 4)


@recorded
class Shifting(nn.Module):
    """A network that knows its grid by no place: the latest frame, mixed with its neighbor along x."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor([0.7, 0.2]))

    def forward(self, history):
        latest = history[:, -1:]
        return self.mix[0] * latest + self.mix[1] * latest.roll(1, 3) ** 2


def profiled(grid=CHANNEL, target="state", seed=0) -> Surrogate:
    """With a random profile, deviation and increments."""
    channels = (Channel("u", vector="velocity"), Channel("v", vector="velocity"))
    data = Metadata("flow", grid, channels, frame_interval=0.1)
    surrogate = Surrogate(Shifting(), data, target=target, normalization="profile")
    surrogate.fit_profile_to(POINTS)
    generator = torch.Generator().manual_seed(seed)
    mean = 5 + torch.randn(2, *surrogate.normalizer.profile, generator=generator)
    surrogate.normalizer.set_statistics(mean, torch.tensor([0.5, 2.0]))
    surrogate.increment_rms.copy_(torch.tensor([0.1, 0.3]))
    return surrogate


NOWHERE = Context(tuple(torch.zeros(2, size) for size in POINTS))


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize(("grid", "profile"), [(CHANNEL, (1, 5, 1)), (TUBE, (6, 5, 1)), (BOX, (1, 1, 1))])
def test_a_fluctuation_goes_in_and_a_state_or_an_increment_comes_out(grid, profile):
    history = torch.randn(2, 1, 2, *POINTS, generator=torch.Generator().manual_seed(1))
    state, increment = (profiled(grid, target) for target in ("state", "increment"))
    assert state.normalizer.profile == profile
    mean, deviation = state.normalizer.mean, column(0.5, 2.0)
    with torch.no_grad():
        output = state.network((history - mean) / deviation)
        torch.testing.assert_close(state.step(history, NOWHERE), mean + deviation * output)
        torch.testing.assert_close(increment.step(history, NOWHERE), history + column(0.1, 0.3) * output)


def test_a_profile_keeps_the_translations_along_periodic_axes_and_no_others():
    history = torch.randn(2, 1, 2, *POINTS, generator=torch.Generator().manual_seed(1))
    surrogate = profiled()
    with torch.no_grad():
        found = surrogate.step(history, NOWHERE)
        moved = surrogate.step(history.roll((2, 3), (3, 5)), NOWHERE)
        torch.testing.assert_close(moved, found.roll((2, 3), (3, 5)))
        assert (surrogate.step(history.roll(1, 4), NOWHERE) - found.roll(1, 4)).abs().max() > 0.1


@pytest.mark.parametrize("target", ["state", "increment"])
def test_a_profile_travels_in_the_checkpoint(tmp_path, target):
    surrogate = profiled(TUBE, target).eval()
    path = surrogate.save(tmp_path / "model.ckpt")
    stored = torch.load(path, weights_only=True)["pdesurrogate"]
    assert (stored["target"], stored["normalization"], stored["profile"]) == (target, "profile", [6, 5, 1])
    found = Surrogate.from_checkpoint(path)
    history = torch.randn(2, 1, 2, *POINTS)
    with torch.no_grad():
        assert torch.equal(found.step(history, NOWHERE), surrogate.step(history, NOWHERE))


def test_checkpoints_without_a_profile_are_what_they_were(tmp_path):
    surrogate = Surrogate(Remembering(), metadata())
    assert set(surrogate.specification()) == {"format", "network", "metadata", "history_frames", "target"}
    assert surrogate.normalizer.mean.shape == (2,)
    found = Surrogate.from_checkpoint(surrogate.save(tmp_path / "model.ckpt"))
    assert found.normalization == "channel"
    found.fit_profile_to((32, 32))
    assert found.normalizer.profile == ()


def test_points_that_are_there_already_keep_their_profile():
    surrogate = profiled()
    before = surrogate.normalizer.mean.clone()
    surrogate.fit_profile_to((12, 5, 8))
    assert torch.equal(surrogate.normalizer.mean, before)


def test_a_mean_flow_that_is_not_there_is_refused():
    walls = Grid((Axis("x"), Axis("y", bounds=(0.0, 1.0))))
    with pytest.raises(ValueError, match=r"a mean flow, .* none of the axes \('x', 'y'\) of 'example' is periodic"):
        Surrogate(Remembering(), metadata(walls), normalization="profile")
    with pytest.raises(ValueError, match="normalization 'channel' or 'profile' but got 'plane'"):
        Surrogate(Remembering(), metadata(), normalization="plane")
    with pytest.raises(ValueError, match="5 points along y, as the mean profile has, but got 7; use data on the grid"):
        profiled().step(torch.zeros(2, 1, 2, 6, 7, 4), NOWHERE)
    # Of periodic axes any number of points.
    profiled().step(torch.zeros(2, 1, 2, 12, 5, 8), NOWHERE)


def test_a_conditional_checkpoint_outside_a_trainer_predicts_the_same(tmp_path):
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    torch.manual_seed(0)
    x, y = (line[:, None] if axis == 0 else line for axis, line in enumerate(PERIODIC.uniform_coordinates((32, 32))))
    phases = torch.arange(8.0)[None, :, None, None] * 0.2 + torch.arange(3.0)[:, None, None, None]
    height = 5 + 3 * torch.sin(2 * torch.pi * x + torch.pi * y + phases)
    values = torch.stack([height, 100 * height.cos()], dim=2).float()
    archive = write_archive(tmp_path, metadata(), dict.fromkeys(("train", "val", "test"), values))
    data = ForecastData(archive, history_frames=2, rollout_frames=3, batch_size=4)
    module = ForecastModule(CONDITIONAL["sinenet"](), data.metadata, history_frames=2)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        enable_checkpointing=False, use_distributed_sampler=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    predicted = torch.cat(trainer.predict(module, data))
    alone = Surrogate.from_checkpoint(tmp_path / "trained.ckpt")
    batch = next(iter(data.predict_dataloader()))
    with torch.no_grad():
        again = torch.cat(list(rollout(alone, batch.history, batch.context, batch.target.shape[1])), dim=1)
    assert torch.equal(again, predicted)
    # Fields of mean 5 and deviation 2 that were not normalized would come out far smaller.
    assert 3 < again[:, 0, 0].mean() < 7
