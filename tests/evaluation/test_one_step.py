"""The one-step error: a mean over all windows, by hand and against the first lead of a rollout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.one_step import add_one_step
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.steppers.persistence import Persistence

GRID = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
VELOCITY = Metadata("flow", GRID, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")), frame_interval=0.5)


def trajectories(count=3, frames=6, metadata=VELOCITY, seed=0):
    values = torch.randn(count, frames, 2, 8, 8, generator=torch.Generator().manual_seed(seed))
    values[:, :, 1] *= 20  # so that joint errors and those of channels differ

    def trajectory(frames_of):
        times = 0.5 * torch.arange(len(frames_of), dtype=torch.float64)
        context = Context(GRID.uniform_coordinates((8, 8), dtype=torch.float32))
        return Trajectory(
            metadata,
            context,
            times,
            lambda start, out: out.copy_(frames_of[start : start + len(out)]),
            (frames, 2, 8, 8),
        )

    return values, [trajectory(each) for each in values]


class Mean(Persistence):
    """The mean of the two latest frames, two times over."""

    history_frames = 2

    def step(self, history, context):
        return history[:, -2:].mean(1, keepdim=True).expand(-1, 2, -1, -1, -1)


def measured(stepper, given, frames=2, start=3):
    evaluator = Evaluator(batch_size=4)
    report = evaluator(stepper, given, frames, start_frame=start)
    return report, add_one_step(report, evaluator, stepper, given)


def test_it_is_the_mean_over_all_windows():
    values, given = trajectories()
    before, report = measured(Mean(), given)
    values = values.double()
    predicted = (values[:, :-2] + values[:, 1:-1]) / 2
    error, size = (predicted - values[:, 2:]).square(), values[:, 2:].square()
    by_channel = (error.sum((-2, -1)) / size.sum((-2, -1))).sqrt()
    curve = report.curves["one_step_relative_l2"]
    assert curve.dims == ("trajectory", "window", "channel")
    assert curve["window"].values.tolist() == [2, 3, 4, 5]
    np.testing.assert_allclose(curve.values, by_channel.numpy(), rtol=1e-6)
    scores = report.attributes["scores"]
    assert scores["one_step_relative_l2"]["value"] == pytest.approx(float(by_channel.mean()), rel=1e-6)
    joint = (error.sum((-3, -2, -1)) / size.sum((-3, -2, -1))).sqrt()
    assert scores["one_step_relative_l2_joint"]["value"] == pytest.approx(float(joint.mean()), rel=1e-6)
    spread = float(by_channel.mean((1, 2)).std()) / 3**0.5
    assert scores["one_step_relative_l2"]["spread"] == pytest.approx(spread, rel=1e-6)
    # The window of the rollout gives the rollout's first lead, and nothing else in the report has changed.
    first = before.curves["relative_l2"].isel(lead_time=0).values
    np.testing.assert_array_equal(curve.sel(window=3).values, first)
    assert {name: scores[name] for name in before.attributes["scores"]} == before.attributes["scores"]


def test_it_survives_a_file(tmp_path):
    _, report = measured(Mean(), trajectories()[1])
    again = Report.load(report.save(tmp_path / "report"))
    assert again.attributes == report.attributes
    np.testing.assert_array_equal(again.curves["one_step_relative_l2"], report.curves["one_step_relative_l2"])


def test_no_joint_error_where_units_differ():
    mixed = Metadata("mixed", GRID, (Channel("height", "m"), Channel("velocity", "m/s")), frame_interval=0.5)
    _, report = measured(Persistence(), trajectories(metadata=mixed)[1])
    assert "one_step_relative_l2" in report.attributes["scores"]
    assert "one_step_relative_l2_joint" not in report.attributes["scores"]


def test_a_stepper_that_blows_up_once_has_no_mean():
    class Exploding(Persistence):
        def step(self, history, context):
            block = history[:, -1:].clone()
            block[history[:, -1, 0, 0, 0] < -1] = torch.inf
            return block

    values, given = trajectories(seed=3)
    assert (values[:, :-1, 0, 0, 0] < -1).any()
    _, report = measured(Exploding(), given)
    assert report.attributes["scores"]["one_step_relative_l2"]["value"] is None


def test_trajectories_of_several_lengths_are_refused():
    given = [*trajectories()[1], *trajectories(frames=7)[1]]
    evaluator = Evaluator()
    report = evaluator(Persistence(), given, 2)
    with pytest.raises(ValueError, match=r"one length but got \[6, 7\] frames"):
        add_one_step(report, evaluator, Persistence(), given)


def test_a_part_is_read_lazily_and_within_its_frames():
    values, (given, *_) = trajectories()
    part = given.part(2, 5)
    assert len(part) == 3
    assert part.times.tolist() == [1.0, 1.5, 2.0]
    assert torch.equal(part.read(1), values[0, 3:5])
    assert torch.equal(part.part(1, 2).read(), values[0, 3:4])
    for wrong in ((-1, 2), (3, 3), (2, 7)):
        with pytest.raises(ValueError, match=r"within 0\.\.6"):
            given.part(*wrong)
    with pytest.raises(ValueError, match=r"within 0\.\.3 but got 1\.\.4"):
        part.read(1, 4)
