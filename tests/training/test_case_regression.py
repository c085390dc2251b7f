"""Training of networks of parameters, time and place: what is asked, the loss, the scores and checkpoints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor

from pdesurrogate.data.frame_data import FrameData, Frames, TimedFrame
from pdesurrogate.fields.batch import collate
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.cfdbench import mean_scores
from pdesurrogate.models.deeponet import FFN, DeepONet
from pdesurrogate.steppers.surrogate import load_checkpoint
from pdesurrogate.training.case_regression import CaseRegressionModule, load_case_network, points_of, predict_frames
from pdesurrogate.training.regression import load_neural_process

SPACE = (6, 5)
METADATA = Metadata(
    "plumes",
    Grid((Axis("x"), Axis("y"))),
    tuple(Channel(name, "m/s", location="cell") for name in ("velocity_x", "velocity_y")),
    frame_interval=0.5,
    parameters=("inflow", "viscosity"),
)
PLACES = [(0.0, 2.0), (0.0, 3.0), (0.0, 2.0)]


class Flows:
    """Velocities that follow from the parameters, time and place; the boxes of cases differ."""

    metadata = METADATA
    splits = ("train", "val", "test")

    def __init__(self, masked: bool = False, frames: int = 4) -> None:
        self.masked, self.frames = masked, frames

    def trajectories(self, split: str) -> Sequence[Trajectory]:
        count = {"train": 6, "val": 2, "test": 2}[split]
        return [self.flow(10 * self.splits.index(split) + number) for number in range(count)]

    def flow(self, number: int) -> Trajectory:
        generator = torch.Generator().manual_seed(number)
        inflow, viscosity = (torch.rand(2, generator=generator) + 0.5).tolist()
        lines = tuple((torch.arange(n) + 0.5) * inflow / 3 for n in SPACE)
        times = METADATA.frame_interval * torch.arange(self.frames, dtype=torch.float64)
        x, y = torch.meshgrid(*lines, indexing="ij")
        mask = None
        if self.masked:
            mask = torch.ones(SPACE, dtype=torch.bool)
            mask[:2, :2] = False

        def read_into(start: int, out: Tensor) -> None:
            for place, time in enumerate(times[start : start + len(out)].tolist()):
                out[place, 0] = inflow * torch.cos(x + time)
                out[place, 1] = viscosity * y * time
                if mask is not None:
                    out[place][:, ~mask] = torch.nan

        context = Context(lines, torch.tensor([inflow, viscosity]), mask)
        return Trajectory(METADATA, context, times, read_into, (self.frames, 2, *SPACE))


def network(kind: type[Any] = FFN, **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(**{"parameter_ranges": [(0.5, 1.5)] * 2, "point_ranges": PLACES, "width": 8, **options})


def trainer(folder: Path, epochs: int = 1, **options: Any) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False, **options,
    )  # fmt: skip


def module_of(net: Any = None, **options: Any) -> CaseRegressionModule:
    return CaseRegressionModule(network() if net is None else net, **{"channels": ["velocity_x"], **options})


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


# What is given and asked.


def test_every_frame_comes_with_its_time_and_context() -> None:
    frames = Frames(Flows(frames=4).trajectories("train"), stride=2)
    assert len(frames) == 12
    one = frames[3]
    assert float(one.time) == 1.0
    torch.testing.assert_close(one.frame, Flows().flow(1).read(2, 3)[0])
    whole = collate(frames.__getitems__([3, 5]))
    assert isinstance(whole, TimedFrame)
    assert (whole.time.shape, whole.frame.shape, whole.context.parameters.shape) == ((2,), (2, 2, *SPACE), (2, 2))


def test_points_are_where_and_when_the_values_are() -> None:
    batch = collate(Frames(Flows().trajectories("train")).__getitems__([1, 7, 14]))
    points = points_of(batch.time, batch.context)
    assert points.shape == (3, 30, 3)
    time, x, y = points.unbind(-1)
    inflow, viscosity = batch.context.parameters.T
    torch.testing.assert_close(batch.frame[:, 0].flatten(1), inflow[:, None] * torch.cos(x + time))
    torch.testing.assert_close(batch.frame[:, 1].flatten(1), viscosity[:, None] * y * time)


def test_predicted_frames_are_those_of_their_times() -> None:
    net = network(field_ranges=[(-1, 1)] * 2)
    frames = Frames(Flows().trajectories("val"))
    batch = collate(frames.__getitems__([1, 5]))
    times = torch.tensor([0.5, 1.0, 1.5])
    predicted = predict_frames(net, times, batch.context)
    assert predicted.shape == (2, 3, 2, *SPACE)
    asked = net(batch.context.parameters, points_of(times[1].expand(2), batch.context))
    torch.testing.assert_close(predicted[:, 1], asked.mT.unflatten(2, SPACE))


# Loss and scores.


@pytest.mark.parametrize("kind", [FFN, DeepONet])
@pytest.mark.parametrize("masked", [False, True])
def test_a_short_fit_lowers_the_error(tmp_path: Path, kind: type[Any], masked: bool) -> None:
    torch.manual_seed(0)
    module = module_of(network(kind, width=24, field_ranges=[(-1.5, 1.5)]), learning_rate=1e-2, points=20)
    data = FrameData(Flows(masked), batch_size=6)
    module._trained = True
    before = trainer(tmp_path).validate(module, data, verbose=False)[0]
    run = trainer(tmp_path, epochs=40, check_val_every_n_epoch=40)
    run.fit(module, data)
    after = run.validate(module, data, verbose=False)[0]
    assert set(after) == {"val/loss", "val/nmse", "val/mse", "val/mae"}
    assert after["val/nmse"] < before["val/nmse"] / 2
    assert after["val/mae"] < before["val/mae"]


@pytest.mark.parametrize("masked", [False, True])
def test_scores_are_those_of_all_frames(tmp_path: Path, masked: bool) -> None:
    module = module_of(network(field_ranges=[(-1, 1)] * 2), channels=["velocity_y", "velocity_x"])
    module._trained = True
    data = FrameData(Flows(masked), batch_size=3)
    found = trainer(tmp_path).test(module, data, verbose=False)[0]
    frames = Frames(Flows(masked).trajectories("test"))
    batch = collate(frames.__getitems__(range(len(frames))))
    with torch.no_grad():
        predicted = module.network(batch.context.parameters, points_of(batch.time, batch.context)).mT.unflatten(
            2, SPACE
        )
    scores = [
        mean_scores(predicted[:, [place]], batch.frame[:, [channel]], batch.context.mask)
        for place, channel in enumerate((1, 0))
    ]
    for name in ("mse", "mae"):
        expected = sum(float(getattr(each, name)) for each in scores) / 2
        assert found[f"test/{name}"] == pytest.approx(expected, rel=1e-5)
    # The second velocity is zero in the first frame of each of two cases of four frames.
    expected = (6 * float(scores[0].nmse) + 8 * float(scores[1].nmse)) / 14
    assert found["test/nmse"] == pytest.approx(expected, rel=1e-5)


def test_a_network_that_gives_nan_has_no_scores(tmp_path: Path) -> None:
    module = module_of()
    module._trained = True
    with torch.no_grad():
        next(module.network.parameters()).fill_(torch.nan)
    found = trainer(tmp_path).test(module, FrameData(Flows(), batch_size=3), verbose=False)[0]
    assert all(math.isnan(found[f"test/{name}"]) for name in ("loss", "nmse", "mse", "mae"))


@pytest.mark.parametrize("loss", ["nmse", "mse"])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_is_the_plain_formula(loss: Any, masked: bool) -> None:
    module = module_of(loss=loss)
    predicted, truth = torch.randn(4, 9, 2), torch.randn(4, 9, 2)
    fluid = torch.rand(4, 9) > 0.3 if masked else None
    counted = torch.ones(4, 9, dtype=torch.bool) if fluid is None else fluid
    if masked:
        truth[~counted] = torch.nan
    errors, squares = (predicted - truth)[counted].square().mean(0), truth[counted].square().mean(0)
    expected = (errors / squares if loss == "nmse" else errors).mean()
    predicted.requires_grad_()
    found = module._loss_of(predicted, truth, fluid)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert predicted.grad is not None
    assert bool(((predicted.grad != 0) == counted[..., None]).all())


def test_frames_at_rest_teach_nothing() -> None:
    predicted = torch.randn(4, 9, 1, requires_grad=True)
    loss = module_of()._loss_of(predicted, torch.zeros(4, 9, 1), None)
    loss.backward()
    assert predicted.grad is not None
    assert (float(loss.detach()), bool(predicted.grad.any())) == (0.0, False)


def test_the_same_seed_gives_the_same_network(tmp_path: Path) -> None:
    def fitted(seed: int) -> Tensor:
        module = module_of(points=7)
        trainer(tmp_path).fit(module, FrameData(Flows(), batch_size=6, seed=seed))
        return torch.cat([each.detach().flatten() for each in module.network.parameters()])

    assert torch.equal(fitted(0), fitted(0))
    assert not torch.equal(fitted(0), fitted(1))


# Checkpoints.


def test_a_checkpoint_gives_the_network_back_and_says_how_it_was_trained(tmp_path: Path) -> None:
    module = module_of(network(DeepONet), points=7)
    run = trainer(tmp_path)
    run.fit(module, FrameData(Flows(), batch_size=6, stride=2))
    run.save_checkpoint(tmp_path / "run.ckpt")
    again = load_case_network(tmp_path / "run.ckpt")
    asked, numbers = torch.rand(2, 5, 3), torch.rand(2, 2)
    torch.testing.assert_close(again(numbers, asked), module.network(numbers, asked))
    settings = load_checkpoint(tmp_path / "run.ckpt")["training"]["settings"]
    assert {**settings, "channels": ["velocity_x"], "points": 7, "loss": "nmse", "stride": 2} == settings
    tested = trainer(tmp_path)
    tested.test(module_of(network(DeepONet)), FrameData(Flows()), ckpt_path=tmp_path / "run.ckpt", weights_only=True,
                verbose=False)  # fmt: skip
    with pytest.raises(ValueError, match="they differ in"):
        trainer(tmp_path).test(
            module_of(network(DeepONet, width=9)), FrameData(Flows()), ckpt_path=tmp_path / "run.ckpt",
            weights_only=True,
        )  # fmt: skip
    with pytest.raises(ValueError, match="Expected an AttentiveNeuralProcess"):
        load_neural_process(tmp_path / "run.ckpt")


# What they refuse.


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected at least 1 point and loss"):
        module_of(points=0)
    with pytest.raises(ValueError, match="Expected at least 1 point and loss"):
        module_of(loss="mae")
    with pytest.raises(ValueError, match=r"Expected a channel for each of 1 field\(s\)"):
        module_of(channels=["velocity_x", "velocity_y"])
    with pytest.raises(ValueError, match="Expected batch_size >= 1 and seed >= 0"):
        FrameData(Flows(), batch_size=0)
    with pytest.raises(ValueError, match="Expected a stride of at least 1"):
        Frames(Flows().trajectories("train"), stride=0)
    with pytest.raises(ValueError, match="Expected at least one trajectory"):
        Frames([])
    flows = list(Flows().trajectories("train"))
    with pytest.raises(ValueError, match="Expected trajectories of one shape"):
        Frames([flows[0], dataclasses.replace(flows[1], shape=(4, 2, 6, 6))])


def test_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with pytest.raises(ValueError, match=r"Expected data with the channels \['smoke'\]"):
        run.fit(module_of(channels=["smoke"]), FrameData(Flows()))
    with pytest.raises(ValueError, match="Expected data of 2 axes and 1 parameters, as the network has ranges for"):
        run.fit(module_of(network(parameter_ranges=[(0, 1)])), FrameData(Flows()))
    with pytest.raises(ValueError, match="Expected data of 1 axes and 2 parameters"):
        run.fit(module_of(network(point_ranges=PLACES[:2])), FrameData(Flows()))
    with pytest.raises(ValueError, match="Expected trained weights"):
        run.test(module_of(), FrameData(Flows()))
