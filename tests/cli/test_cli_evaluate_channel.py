"""``evaluate`` on a channel: a large-eddy simulation as the stepper, profiles and spectra beside published ones."""

from __future__ import annotations

import shutil

import pytest
import yaml

from pdesurrogate.__main__ import main
from pdesurrogate.evaluation.report import Report

SOLVER = {
    "class_path": "pdesurrogate.simulators.channel.flow.ChannelFlow",
    "init_args": {
        "shape": [16, 24, 16],
        "lengths": [3.0, 1.5],
        "viscosity": 1 / 2800,
        "frame_interval": 0.4,
        "steps_per_frame": 8,
    },
}
RECIPE = {
    "name": "tiny_channel",
    "simulator": SOLVER,
    "initial_condition": {"class_path": "pdesurrogate.simulators.channel.start.TrippedChannel"},
    "reduction": {
        "class_path": "pdesurrogate.simulators.channel.coarsening.ChannelCoarsening",
        "init_args": {"shape": [8, 12, 8], "friction_reynolds_number": 180.0},
    },
    "statistics": {
        "class_path": "pdesurrogate.simulators.channel.statistics.ChannelStatistics",
        "init_args": {"every": 4, "block": 0.8, "planes": [15.0]},
    },
    "warm_up": 0.4,
    "frames": 5,
    "trajectories": {"train": 0, "val": 0, "test": 2},
    "seed": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("channel")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    assert main(["generate", str(folder / "recipe.yaml"), "--out", str(folder / "data"), "--device", "cpu"]) == 0
    return folder / "data"


def les(folder, **changes):
    arguments = {**SOLVER["init_args"], "shape": [8, 12, 8], **changes}
    path = folder / "les.yaml"
    path.write_text(yaml.safe_dump({"class_path": SOLVER["class_path"], "init_args": arguments}))
    return str(path)


def test_a_large_eddy_simulation_is_measured_on_the_stored_grid(data, tmp_path, capsys):
    model = {"class_path": "pdesurrogate.simulators.channel.subgrid.Wale"}
    command = ["evaluate", "--stepper", les(tmp_path, subgrid=model), "--data", str(data), "--out", str(tmp_path / "a")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "in wall units, beside what was gathered while the data were made" in shown
    assert "relative L1 of mean_velocity" in shown
    report = Report.load(tmp_path / "a")
    scores = report.attributes["scores"]
    # The stored field has no divergence but that of single precision, and neither has the simulation's.
    assert scores["relative_divergence_truth"]["value"] < 1e-5
    assert scores["relative_divergence"]["value"] < 1e-5
    assert scores["channel_bulk_velocity_drift"]["value"] < 1e-5
    assert 0 < scores["relative_l2_first"]["value"] < scores["relative_l2_last"]["value"]
    drawn = {path.name for path in (tmp_path / "a").glob("*.png")}
    assert {"profiles.png", "plane_spectra_x.png", "plane_spectra_z.png", "q_criterion.png"} <= drawn


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [8, 12, 4]}, "the solver runs on its own grid alone"),
        ({"frame_interval": 0.2}, "Expected frames 0.2 apart"),
        ({"lengths": [3.0, 1.0]}, "Expected periods"),
    ],
)
def test_a_simulation_of_another_channel_is_refused(data, tmp_path, capsys, changes, message):
    command = ["evaluate", "--stepper", les(tmp_path, **changes), "--data", str(data), "--out", str(tmp_path / "a")]
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_without_gathered_statistics_published_ones_stand_beside(data, tmp_path, capsys):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(data / "test.nc", alone / "test.nc")
    command = ["evaluate", "--stepper", "pdesurrogate.steppers.persistence.Persistence", "--data", str(alone)]
    assert main([*command, "--no-figures", "--out", str(tmp_path / "a")]) == 0
    assert "in wall units, beside Moser, Kim & Mansour, 180" in capsys.readouterr().out
