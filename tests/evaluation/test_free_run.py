"""Free runs of a channel: statistics of a rollout of any length beside those of all the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import write_archive
from torch import nn

from pdesurrogate.__main__ import main
from pdesurrogate.evaluation.channel.free_run import add_free_run, free_run_curves
from pdesurrogate.evaluation.channel.wall_units import WallUnitStatistics
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.channel import ChannelMetric
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.metrics.line_spectra import LineSpectrumMetric
from pdesurrogate.steppers.ensemble import Ensemble
from pdesurrogate.steppers.persistence import Persistence

SHAPE = (8, 10, 6)
AXES = (Axis("x", period=4.0), Axis("y", bounds=(0.0, 2.0)), Axis("z", period=1.5))
POINTS = (torch.arange(8) / 2, torch.linspace(0.1, 1.9, 10), torch.arange(6) / 4)
VISCOSITY = 1e-2


def metadata(parameters=("viscosity",)):
    channels = tuple(Channel(f"velocity_{name}", location="cell") for name in "xyz")
    return Metadata("channel", Grid(AXES), channels, frame_interval=0.5, parameters=parameters)


def mean_flow():
    """A parabola ``(3, 1, y, 1)``."""
    mean = torch.zeros(3, 1, SHAPE[1], 1)
    mean[0, 0, :, 0] = 1.5 * POINTS[1] * (2 - POINTS[1])
    return mean


def noise(count, frames, seed=0):
    """Noise about the mean flow ``(count, frames, 3, *SHAPE)``: a channel as far as statistics go."""
    return mean_flow() + 0.1 * torch.randn(count, frames, 3, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("free_run")
    splits = {"train": noise(6, 20, 1), "val": noise(1, 20, 2), "test": noise(2, 20, 3)}
    return write_archive(folder, metadata(), splits, POINTS, (VISCOSITY,))


class Dice(nn.Module):
    """New noise in every frame, as a channel would be that forgets at once; louder by a factor, or failing in time."""

    history_frames = 1

    def __init__(self, louder=1.0, fails_at=None):
        super().__init__()
        self.louder, self.fails_at, self.steps = louder, fails_at, 0

    def step(self, history, context):
        self.steps += 1
        frames = noise(len(history), 1, 100 + self.steps)
        mean = mean_flow()
        frames = mean + self.louder * (frames - mean)
        if self.steps == self.fails_at:
            frames[1] = torch.nan
        return frames


def everything(archive):
    return [trajectory for split in archive.splits for trajectory in archive.trajectories(split)]


def errors(plan):
    return {"errors": ErrorMetric(plan)}


def freely(archive, stepper, frames, batch_size=4):
    evaluator = Evaluator(errors, batch_size=batch_size)
    trajectories = archive.trajectories("test")
    return add_free_run(evaluator(Persistence(), trajectories, 5), evaluator, stepper, trajectories, frames,
                        everything(archive))  # fmt: skip


def value(report, name):
    return report.attributes["scores"][f"free_run_{name}"]["value"]


def test_a_run_of_the_same_statistics_is_in_the_band(archive):
    report = freely(archive, Dice(), 60)
    assert value(report, "survival") == 1
    assert value(report, "frames") == 60
    assert value(report, "friction_reynolds_number_in_band") == 1
    assert value(report, "rms_in_band") > 0.8
    assert value(report, "spectra_in_band") > 0.85
    assert value(report, "mean_velocity_l1") < 0.01
    assert value(report, "spectrum_x_distance") < 0.02


def test_a_louder_run_is_told_by_as_much(archive):
    report = freely(archive, Dice(louder=2.0), 60)
    for name in "xyz":
        assert value(report, f"rms_velocity_{name}_l1") == pytest.approx(1, abs=0.02)
    assert value(report, "rms_in_band") == 0
    # Twice the amplitude is 0.6 decades in energy.
    assert value(report, "spectrum_z_distance") == pytest.approx(np.log10(4), abs=0.02)


def test_both_sides_are_what_an_evaluation_finds(archive):
    report = freely(archive, Dice(), 12)
    curves = free_run_curves(report)

    def suite(plan):
        return errors(plan) | {"channel": ChannelMetric(plan), "lines": LineSpectrumMetric(plan)}

    plain = Evaluator(suite)(Dice(), archive.trajectories("test"), 12).curves
    truth = Evaluator(suite)(Persistence(), everything(archive), 19).curves
    for name in ("rms_velocity_profile", "friction_velocity", "line_spectrum_x", "shear_stress_plus"):
        for ending in ("", "_standard_error"):
            np.testing.assert_allclose(curves[f"{name}_prediction{ending}"], plain[f"{name}_prediction{ending}"])
            np.testing.assert_allclose(curves[f"{name}_truth{ending}"], truth[f"{name}_truth{ending}"])
    assert curves["instantaneous_friction_reynolds_number_prediction"].shape == (2, 12)


def test_wall_units_are_those_of_any_report(archive):
    curves = free_run_curves(freely(archive, Dice(), 30))
    run, truth = (WallUnitStatistics.of_report(curves, side) for side in ("prediction", "truth"))
    assert run.numbers["friction_reynolds_number"].value == pytest.approx(
        truth.numbers["friction_reynolds_number"].value, rel=0.05
    )
    assert set(run.spectra) == {(axis, f"velocity_{name}") for axis in "xz" for name in "xyz"}


def test_a_run_that_stops_has_no_distances(archive):
    report = freely(archive, Dice(fails_at=25), 60)
    assert value(report, "survival") == 0.5
    assert value(report, "frames") == (60 + 24) / 2
    assert value(report, "rms_velocity_x_l1") is None
    assert value(report, "friction_reynolds_number") is None
    assert value(report, "seconds_per_turnover") > 0


def test_batches_make_no_difference(archive):
    together, apart = (freely(archive, Persistence(), 30, size) for size in (4, 1))
    assert value(together, "mean_velocity_l1") == pytest.approx(value(apart, "mean_velocity_l1"))
    assert value(together, "rms_velocity_z_l1") == pytest.approx(value(apart, "rms_velocity_z_l1"))


def test_it_is_saved_beside_the_rest(archive, tmp_path):
    report = freely(archive, Dice(), 40)
    report.save(tmp_path)
    again = Report.load(tmp_path)
    assert again.attributes["scores"] == report.attributes["scores"]
    assert free_run_curves(again).identical(free_run_curves(report))
    assert again.curves.sizes["lead_time"] == 5


def test_a_report_without_one_says_so(archive):
    report = Evaluator(errors)(Persistence(), archive.trajectories("test"), 5)
    with pytest.raises(ValueError, match="evaluate with --free-run"):
        free_run_curves(report)


def test_what_has_no_wall_units_is_refused(tmp_path):
    evaluator = Evaluator(errors)
    unnamed = write_archive(tmp_path / "a", metadata(()), {"test": noise(2, 6)}, POINTS)
    trajectories = unnamed.trajectories("test")
    report = evaluator(Persistence(), trajectories, 3)
    with pytest.raises(ValueError, match="state a viscosity"):
        add_free_run(report, evaluator, Dice(), trajectories, 9, trajectories)
    still = noise(2, 6) - mean_flow()
    rest = write_archive(tmp_path / "b", metadata(), {"test": still}, POINTS, (VISCOSITY,)).trajectories("test")
    report = evaluator(Persistence(), rest, 3)
    with pytest.raises(ValueError, match="mean flow through the channel"):
        add_free_run(report, evaluator, Dice(), rest, 9, rest)


def test_truth_of_several_flows_is_refused(tmp_path):
    evaluator = Evaluator(errors)
    one = write_archive(tmp_path / "a", metadata(), {"test": noise(2, 6)}, POINTS, (VISCOSITY,)).trajectories("test")
    other = write_archive(tmp_path / "b", metadata(), {"test": noise(1, 6)}, POINTS, (0.5,)).trajectories("test")
    longer = write_archive(tmp_path / "c", metadata(), {"test": noise(1, 9)}, POINTS, (VISCOSITY,)).trajectories("test")
    report = evaluator(Persistence(), one, 3)
    for truth, message in (
        ([*one, *other], "parameters differ"),
        ([*one, *longer], r"of one length.* but got \[6, 9\]"),
        ([], r"but got \[\] frames"),
    ):
        with pytest.raises(ValueError, match=message):
            add_free_run(report, evaluator, Dice(), one, 9, truth)
    with pytest.raises(ValueError, match="an ensemble, whose mean is no flow"):
        add_free_run(report, evaluator, Ensemble([Dice(), Dice()]), one, 9, one)


def test_a_mean_flow_along_another_axis_is_refused(tmp_path):
    across = noise(2, 6).roll(2, 2)
    given = write_archive(tmp_path, metadata(), {"test": across}, POINTS, (VISCOSITY,)).trajectories("test")
    evaluator = Evaluator(errors)
    with pytest.raises(ValueError, match="along 'x', the first periodic axis, but it is along 'z'"):
        add_free_run(evaluator(Persistence(), given, 3), evaluator, Dice(), given, 9, given)


def test_other_planes_in_the_report_are_refused_and_not_mixed(archive):
    def suite(plan):
        return errors(plan) | {"lines": LineSpectrumMetric(plan, wall_distances=(0.1, 0.5))}

    evaluator = Evaluator(suite)
    given = archive.trajectories("test")
    report = evaluator(Persistence(), given, 5)
    with pytest.raises(ValueError, match="evaluate with the default suite"):
        add_free_run(report, evaluator, Dice(), given, 9, everything(archive))


def test_the_verb_measures_a_free_run(archive, tmp_path, capsys):
    command = ["evaluate", "--stepper", "pdesurrogate.steppers.persistence.Persistence", "--data", str(archive.path)]
    out = tmp_path / "out"
    assert main([*command, "--free-run", "30", "--frames", "5", "--no-figures", "--out", str(out)]) == 0
    assert Report.load(out).attributes["scores"]["free_run_survival"]["value"] == 1
    assert "free run of 30 frames" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "--free-run", "0", "--out", str(out)])
    assert "at least 1 but got '0'" in capsys.readouterr().err


def test_a_free_run_that_is_refused_leaves_the_rest(tmp_path, capsys):
    folder = tmp_path / "unnamed"
    write_archive(folder, metadata(()), dict.fromkeys(("train", "val", "test"), noise(2, 6)), POINTS)
    out = tmp_path / "out"
    command = ["evaluate", "--stepper", "pdesurrogate.steppers.persistence.Persistence", "--data", str(folder)]
    assert main([*command, "--free-run", "9", "--frames", "3", "--no-figures", "--out", str(out)]) == 2
    assert "state a viscosity" in capsys.readouterr().err
    assert "relative_l2" in Report.load(out).curves


def test_a_wrapper_that_does_not_fit_is_refused(archive, tmp_path, capsys):
    wrap = tmp_path / "wrap.yaml"
    wrap.write_text("- class_path: pdesurrogate.steppers.projection.FlowRate\n  init_args: {bulk_velocity: 1.5}\n")
    command = ["evaluate", "--stepper", "pdesurrogate.steppers.persistence.Persistence", "--data", str(archive.path)]
    assert main([*command, "--wrap", str(wrap), "--out", str(tmp_path / "b")]) == 2
    assert "names no steppers to put around a Persistence" in capsys.readouterr().err
