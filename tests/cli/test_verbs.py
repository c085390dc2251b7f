"""The verbs as a user runs them: help, a whole chain on a tiny set, and what wrong commands get."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import xarray
from helpers import write_archive

from pdesurrogate.__main__ import main
from pdesurrogate.cli.terminal import choose_device
from pdesurrogate.data.archive import Archive
from pdesurrogate.evaluation.misalignment import Misalignment
from pdesurrogate.evaluation.report import Report
from pdesurrogate.fields.grid import Channel
from pdesurrogate.models.sinenet import SineNet
from pdesurrogate.steppers.surrogate import Surrogate

# LightningCLI warns of its own use of jsonargparse and of the empty callbacks' folders of a second run.
lightning_cli = pytest.mark.filterwarnings("ignore")

PERSISTENCE = "pdesurrogate.steppers.persistence.Persistence"
FIT = """
seed_everything: 0
model:
  network:
    class_path: pdesurrogate.models.fno.FNO
    init_args: {modes: [8, 8], width: 6, layers: 1}
  target: increment
data:
  adapter:
    class_path: pdesurrogate.data.archive.Archive
    init_args: {path: DATA}
  batch_size: 8
  rollout_frames: 2
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  default_root_dir: ROOT
  logger:
    class_path: CSVLogger
    init_args: {save_dir: ROOT, name: "", version: ""}
"""


class Bomb:
    """Would stop the program if it were unpickled."""

    def __reduce__(self):
        return (sys.exit, ("exploded",))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert main(["generate", "ns2d_smoke", "--out", str(folder), "--device", "cpu"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    """The training verbs set ``sys.argv``, which LightningCLI reads."""
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory) -> Path:
    """Folder with ``config.yaml`` and what ``fit`` left."""
    root = tmp_path_factory.mktemp("fit")
    config = root / "given.yaml"
    config.write_text(FIT.replace("DATA", str(data)).replace("ROOT", str(root)))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", sys.argv)
        warnings.simplefilter("ignore")
        assert main(["fit", "-c", str(config)]) == 0
    return root


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from pdesurrogate.__main__ import main; main([]); main(['--version'])\n"
        "for verb in ('generate', 'evaluate', 'datasets', 'doctor', 'leaderboard', 'demo'):\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'lightning', 'xarray', 'matplotlib', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert version("pdesurrogate") in result.stdout
    assert "--coarse-solver" in result.stdout


def test_an_unknown_verb_is_answered_with_a_near_one(capsys):
    assert main(["evalute"]) == 2
    assert "did you mean 'evaluate'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "no_such_set", "--out", "x"], "no_such_set"),
        (["generate", "missing.yaml", "--out", "x"], "does not exist"),
        (["generate", "ns2d_smoke", "--out", "x", "--shards", "4", "--shard", "5"], "from 0 to 3"),
        (["generate", "fno_navier_stokes", "--out", "x"], "published by others"),
        (["generate", "ns2d_smoke", "--out", "x", "--device", "warp"], "Expected a device"),
        (["evaluate", "--stepper", PERSISTENCE, "--data", "nowhere", "--out", "x"], "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_status_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.glob("x/*.nc"))


def test_ctrl_c_is_answered_and_the_same_command_continues(tmp_path, capsys, monkeypatch):
    from pdesurrogate.simulators.generation.block_run import BlockRun

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(BlockRun, "frames", interrupted)
        assert main(["generate", "ns2d_smoke", "--out", str(tmp_path)]) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert main(["generate", "ns2d_smoke", "--out", str(tmp_path)]) == 0


def test_evaluate_persistence_and_coarse_solver(data, tmp_path, capsys):
    common = ["--data", str(data), "--frames", "4", "--device", "cpu"]
    assert main(["evaluate", "--stepper", PERSISTENCE, *common, "--out", str(tmp_path / "p")]) == 0
    solver = ["evaluate", "--coarse-solver", "16", *common, "--out", str(tmp_path / "s"), "--no-figures"]
    assert main(solver) == 0
    assert "solver 16 x 16" in capsys.readouterr().out
    pictures = ("errors", "spectra", "coherence", "density", "snapshots", "spacetime")
    promised = {"report.json", "report.nc", "rollout.gif", *(f"{name}.png" for name in pictures)}
    assert {path.name for path in (tmp_path / "p").iterdir()} == promised
    report = Report.load(tmp_path / "s")
    assert report.attributes["run"]["command"].startswith("pdesurrogate evaluate --coarse-solver 16")
    assert report.attributes["data"]["content_hash"]
    assert main(["leaderboard", "page", str(tmp_path), "--out", str(tmp_path / "page")]) == 0
    table = (tmp_path / "page" / "leaderboard.md").read_text()
    assert "persistence" in table
    assert "solver 16 x 16" in table


def test_a_stepper_from_yaml(data, tmp_path):
    (tmp_path / "coarse.yaml").write_text(
        "class_path: pdesurrogate.steppers.resampled.Resampled\n"
        "init_args:\n"
        "  resolution: 24\n"
        "  stepper:\n"
        "    class_path: pdesurrogate.simulators.navier_stokes.NavierStokes2d\n"
        "    init_args: {resolution: 24, viscosity: 2.0e-3, frame_interval: FRAME, steps_per_frame: 10}\n"
    )
    text = (tmp_path / "coarse.yaml").read_text()
    common = ["--data", str(data), "--out", str(tmp_path / "out"), "--no-figures", "--device", "cpu"]
    (tmp_path / "coarse.yaml").write_text(text.replace("FRAME", "0.25"))
    assert main(["evaluate", "--stepper", str(tmp_path / "coarse.yaml"), *common, "--name", "mine"]) == 0
    assert Report.load(tmp_path / "out").attributes["model"]["name"] == "mine"
    (tmp_path / "coarse.yaml").write_text(text.replace("FRAME", "0.1"))
    assert main(["evaluate", "--stepper", str(tmp_path / "coarse.yaml"), *common]) == 2


@pytest.mark.parametrize(
    ("stepper", "message"),
    [("builtins.dict", "no stepper"), ("pdesurrogate.nowhere.Nothing", "no stepper"), ("gone.yaml", "does not exist")],
)
def test_what_is_no_stepper_is_refused(data, tmp_path, capsys, stepper, message):
    assert main(["evaluate", "--stepper", stepper, "--data", str(data), "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("frames", "message"), [("8", "at most 7"), ("-1", "at least one frame"), ("0", "at least one frame")]
)
def test_too_many_frames_are_refused(data, tmp_path, capsys, frames, message):
    command = ["evaluate", "--stepper", PERSISTENCE, "--data", str(data), "--frames", frames, "--out", str(tmp_path)]
    assert main(command) == 2
    assert message in capsys.readouterr().err


def test_a_rollout_that_leaves_its_bounds_is_told_with_its_time(data, tmp_path, capsys):
    command = ["evaluate", "--stepper", PERSISTENCE, "--data", str(data), "--out", str(tmp_path), "--no-figures"]
    assert main([*command, "--bounds", "-0.001", "0.001"]) == 0
    assert "trajectory 1 stopped at lead time 0.25" in capsys.readouterr().out
    assert Report.load(tmp_path).attributes["scores"]["finite_fraction"]["value"] == 0.0


def test_an_archive_that_lost_trajectories_fails_its_self_check(data, tmp_path, capsys):
    (tmp_path / "less").mkdir()
    with xarray.open_dataset(data / "test.nc", engine="netcdf4") as whole:
        whole.isel(trajectory=[0]).to_netcdf(tmp_path / "less" / "test.nc", engine="netcdf4")
    command = ["evaluate", "--stepper", PERSISTENCE, "--data", str(tmp_path / "less"), "--no-figures"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 1
    assert "1 of 2 trajectories" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_the_work(data, tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    for command in (
        ["generate", "ns2d_smoke", "--out", str(tmp_path / "taken")],
        ["evaluate", "--stepper", PERSISTENCE, "--data", str(data), "--out", str(tmp_path / "taken")],
    ):
        assert main(command) == 2
        assert "Check that the path is right" in capsys.readouterr().err


def test_single_steps_and_misalignment_are_measured_where_asked_for(data, fitted, tmp_path, capsys):
    torch.manual_seed(0)
    metadata = Archive(data).metadata
    network = SineNet(channels=1, history_frames=2, waves=2, width=4, padding="circular")
    checkpoint = Surrogate(network, metadata, history_frames=2).save(tmp_path / "waves.ckpt")
    common = ["evaluate", "--data", str(data), "--frames", "2", "--one-step", "--misalignment", "--out"]
    assert main([*common, str(tmp_path / "a"), "--checkpoint", str(checkpoint)]) == 0
    report = Report.load(tmp_path / "a")
    found = Misalignment.from_dict(report.attributes["misalignment"])
    assert len(found.waves) == len(found.levels) == 2
    frames = len(Archive(data).trajectories("test")[0])
    assert report.curves.sizes["window"] == frames - 2
    assert report.attributes["scores"]["one_step_relative_l2"]["value"] > 0
    assert (tmp_path / "a" / "misalignment.png").stat().st_size > 0
    other = fitted / "checkpoints" / "last.ckpt"
    assert main([*common, str(tmp_path / "b"), "--checkpoint", str(other)]) == 2
    assert "a surrogate with a SineNet but got one with a FNO" in capsys.readouterr().err
    assert main([*common, str(tmp_path / "b"), "--stepper", PERSISTENCE]) == 2
    assert "the checkpoint of one SineNet for --misalignment" in capsys.readouterr().err


def test_suites_further_metrics_residual_and_sweep_are_a_matter_of_options(data, tmp_path, capsys):
    metrics = tmp_path / "metrics.yaml"
    metrics.write_text(
        "wide_bands:\n  class_path: pdesurrogate.metrics.errors.BandErrorMetric\n  init_args: {edges: [3]}\n"
    )
    common = ["evaluate", "--stepper", PERSISTENCE, "--data", str(data), "--frames", "3", "--no-figures"]
    options = ["--suite", "scalar_1d", "--residual", "--solver-sweep", "8", "--out", str(tmp_path / "a")]
    assert main([*common, *options]) == 0
    out = capsys.readouterr().out
    assert "speed-up at equal error" in out
    assert "break-even: Nothing was trained" in out
    report = Report.load(tmp_path / "a")
    assert {"relative_residual", "wasserstein_relative"} <= set(report.attributes["scores"])
    assert "energy_budget" not in report.attributes["scores"]  # not in the suite that was asked for
    sweep = report.attributes["cost"]["sweep"]
    assert 8 in {point["resolution"] for point in sweep["points"]}
    assert [point["makes_data"] for point in sweep["points"]].count(True) == 1
    # Persistence has no residual of its own but the whole tendency.
    assert report.attributes["scores"]["relative_residual"]["value"] > 0.5

    suite = ["--suite", "pdesurrogate.metrics.suites.periodic_2d", "--metrics", str(metrics)]
    assert main([*common, *suite, "--out", str(tmp_path / "b")]) == 2
    assert "axis 'band' but 'wide_bands' gives it other values" in capsys.readouterr().err
    for wrong in (
        ["--suite", "periodic_4d"],
        ["--suite", "no.such.module"],
        ["--metrics", str(tmp_path / "none.yaml")],
    ):
        assert main([*common, *wrong, "--out", str(tmp_path / "c")]) == 2
    assert "Expected a YAML file" in capsys.readouterr().err


LAW = """
class_path: pdesurrogate.physics.conservation.laws.KeptMeans
init_args: {of: [vorticity]}
"""


@lightning_cli
@pytest.mark.parametrize("members", [1, 2])
def test_a_law_is_kept_in_the_loop_and_measured(fitted, data, tmp_path, members):
    law = tmp_path / "law.yaml"
    law.write_text(LAW)
    checkpoints = [str(fitted / "checkpoints" / "last.ckpt")] * members
    common = ["evaluate", "--checkpoint", *checkpoints, "--data", str(data), "--conserve", str(law), "--no-figures"]
    found = {}
    for where in ("nowhere", "loop"):
        assert main([*common, "--conserve-where", where, "--out", str(tmp_path / where)]) == 0
        found[where] = Report.load(tmp_path / where).attributes
    violation = {where: each["scores"]["law_violation_mean_of_vorticity"]["value"] for where, each in found.items()}
    assert violation["loop"] < 1e-6 < 1e-4 < violation["nowhere"]
    wrapper = found["loop"]["model"]["config"]["wrappers"][-1]
    assert wrapper["init_args"]["law"]["init_args"]["of"] == ["vorticity"]
    assert found["loop"]["model"]["name"].endswith("+ ProbConserv")


@lightning_cli
def test_a_law_is_kept_in_what_is_measured_alone(fitted, data, tmp_path):
    law = tmp_path / "law.yaml"
    law.write_text(LAW)
    checkpoint = str(fitted / "checkpoints" / "last.ckpt")
    common = ["evaluate", "--data", str(data), "--conserve", str(law), "--no-figures", "--conserve-where", "output"]
    assert main([*common, "--checkpoint", checkpoint, "--out", str(tmp_path / "a")]) == 0
    report = Report.load(tmp_path / "a").attributes
    assert report["scores"]["law_violation_mean_of_vorticity"]["value"] < 1e-6
    assert report["model"]["name"].endswith("+ ProbConserv of the output")


@lightning_cli
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class_path: pdesurrogate.steppers.persistence.Persistence", "names no conservation law"),
        (LAW.replace("vorticity", "salt"), "Expected channels ['salt'], whose means are kept"),
        (LAW.replace("{of", "{values: [1.0], unit: m, of"), "Expected values of 'vorticity' in"),
        ("[", "Expected YAML in"),
    ],
)
def test_what_is_no_law_of_the_data_is_refused(data, tmp_path, capsys, text, message):
    law = tmp_path / "law.yaml"
    law.write_text(text)
    command = ["evaluate", "--stepper", PERSISTENCE, "--data", str(data), "--conserve", str(law)]
    assert main([*command, "--out", str(tmp_path / "a")]) == 2
    assert message in capsys.readouterr().err


def test_several_checkpoints_are_an_ensemble(fitted, data, tmp_path):
    checkpoint = str(fitted / "checkpoints" / "last.ckpt")
    command = ["evaluate", "--checkpoint", checkpoint, checkpoint, "--data", str(data), "--no-figures"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    report = Report.load(tmp_path)
    assert report.attributes["model"]["name"] == "FNO ensemble of 2"
    assert len(report.attributes["model"]["config"]["members"]) == 2
    # Two equal members have no spread at all.
    assert report.curves["ensemble_spread"].max() == 0
    assert report.attributes["scores"]["ensemble_crps"]["value"] > 0


def test_fit_leaves_a_checkpoint_that_evaluate_takes(fitted, data, tmp_path, capsys):
    checkpoint = fitted / "checkpoints" / "last.ckpt"
    assert (fitted / "metrics.csv").is_file()
    command = ["evaluate", "--checkpoint", str(checkpoint), "--data", str(data), "--out", str(tmp_path), "--no-figures"]
    assert main(command) == 0
    attributes = Report.load(tmp_path).attributes
    assert attributes["model"]["name"] == "FNO"
    assert attributes["model"]["training"]["steps"] == 3
    assert attributes["model"]["parameters"] > 0
    assert attributes["model"]["parameters_without_gradient"] == []
    assert all(check["passed"] for check in attributes["checks"])


@lightning_cli
def test_test_and_predict_take_the_checkpoint(fitted, capsys):
    common = ["-c", str(fitted / "given.yaml"), "--ckpt_path", str(fitted / "checkpoints" / "last.ckpt")]
    assert main(["test", *common]) == 0
    assert "test/relative_l2" in capsys.readouterr().out
    assert main(["predict", *common]) == 0
    found = Archive(fitted / "predictions").trajectories("test")
    assert [len(trajectory) for trajectory in found] == [7, 7]
    assert main(["predict", *common]) == 2
    assert "choose another place" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--model.network.init_args.widht", "8"], "widht"),
        (["--model.network.init_args.width", "8", "--ckpt_path", "LAST"], "width: 8 in the configuration, 6 in the"),
        (["--data.adapter.init_args.path", "nowhere"], "does not exist"),
        (["--data.adapter", "null"], "data.adapter"),
        (["--ckpt_path", "BOMB"], "could run code"),
        (["--ckpt_path", "gone.ckpt"], "does not exist"),
        (["--ckpt_path", "CUT"], "cannot be read"),
        (["--model.network.init_args.modes", "[64, 64]"], "use a finer grid or fewer modes"),
    ],
    ids=["misspelt", "other-network", "no-data", "no-adapter", "bomb", "no-checkpoint", "cut", "too-many-modes"],
)
@lightning_cli
def test_a_wrong_configuration_is_one_line(fitted, override, message, capsys, tmp_path):
    last = fitted / "checkpoints" / "last.ckpt"
    places = {"LAST": last, "BOMB": tmp_path / "bomb.ckpt", "CUT": tmp_path / "cut.ckpt"}
    torch.save({"pdesurrogate": Bomb(), "state_dict": {}}, places["BOMB"])
    places["CUT"].write_bytes(last.read_bytes()[:5000])
    override = [str(places.get(value, value)) for value in override]
    assert main(["fit", "-c", str(fitted / "given.yaml"), *override]) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_of_other_channels_is_refused(fitted, waves, tmp_path, capsys):
    metadata = dataclasses.replace(waves.metadata, channels=(Channel("height"),))
    other = write_archive(tmp_path / "other", metadata, {"test": torch.zeros(1, 3, 1, 16, 16)})
    for archive, message in ((other, "Expected channels"), (waves, "Expected periods")):
        command = ["evaluate", "--checkpoint", str(fitted / "checkpoints" / "last.ckpt"), "--data", str(archive.path)]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
        assert not list((tmp_path / "out").iterdir())


@lightning_cli
def test_seeds_reach_data_and_checkpoint_and_shipped_configurations_go_by_name(fitted, data, tmp_path):
    options = ["--seed_everything", "5", "--data.adapter.init_args.path", str(data), "--trainer.max_steps", "1"]
    network = ["--model.network.init_args.modes", "[8, 8]", "--model.network.init_args.width", "4"]
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path), "name": ""}}
    options += ["--trainer.logger", json.dumps([logger]), "--trainer.enable_progress_bar", "false"]
    options += ["--trainer.accelerator", "cpu", "--data.batch_size", "4"]
    assert main(["fit", "-c", "ns2d_decaying/fno", *options, *network]) == 0
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["training"]["seed"] == 5


@pytest.mark.slow
def test_two_processes_train_through_the_console_script(fitted, tmp_path):
    script = Path(sys.executable).with_name("pdesurrogate")
    command = [str(script), "fit", "-c", str(fitted / "given.yaml"), "--trainer.devices", "2"]
    command += [
        "--trainer.strategy",
        "ddp",
        "--trainer.logger.init_args.save_dir",
        str(tmp_path),
        "--data.batch_size",
        "4",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "MEMBER: 2/2" in result.stderr
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_evaluate_shares_the_trajectories_under_torchrun(data, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29617",
        "-m", "pdesurrogate", "evaluate", "--stepper", PERSISTENCE, "--data", str(data), "--no-figures",
    ]  # fmt: skip
    result = subprocess.run(
        [*command, "--out", str(tmp_path / "two")], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("report.json") == 1  # one process speaks and writes
    assert main([*command[command.index("evaluate") :], "--out", str(tmp_path / "one")]) == 0
    two, one = (Report.load(tmp_path / name) for name in ("two", "one"))
    assert (two.attributes["run"]["processes"], one.attributes["run"]["processes"]) == (2, 1)
    for name, score in one.attributes["scores"].items():
        assert two.attributes["scores"][name]["value"] == pytest.approx(score["value"], rel=1e-5, abs=1e-9), name


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    surrogate, persistence = (
        Report.load(folder).curves for folder in (tmp_path, tmp_path / "baselines" / "persistence")
    )
    ours, theirs = (curves["relative_l2"].mean(["trajectory", "channel"]) for curves in (surrogate, persistence))
    assert len(ours) >= 10
    assert float(theirs[-1]) >= 1.2
    assert bool((ours <= 0.6 * theirs).all())
    assert bool((ours.where(ours["lead_time"] <= 0.25, drop=True) <= 0.15).all())
    times = [float(curves["correlation_time"].sel(threshold=0.8).mean()) for curves in (surrogate, persistence)]
    assert times[0] >= 3 * times[1]


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(tmp_path):
    source = Path(__file__).parents[2]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    # The wheel's own package comes first, the dependencies from the environment of the tests.
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    for arguments in (["datasets", "list"], ["doctor"], ["generate", "ns2d_smoke", "--out", "data"]):
        result = subprocess.run(
            [sys.executable, "-m", "pdesurrogate", *arguments],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    code = "import pdesurrogate.data.catalog as c; print(c.__file__, c.config_path('ns2d_forced/fno'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert found.stdout.count(str(tmp_path / "site")) == 2


def test_the_demo_leaves_what_it_promises(tmp_path, capsys):
    assert main(["demo", "--tier", "smoke", "--out", str(tmp_path), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    for row in ("FNO", "persistence", "solver 16 x 16", "What to try next"):
        assert row in out
    promised = {
        "report.json", "report.nc", "leaderboard.md", "leaderboard.html", "leaderboard.csv", "snapshots.png",
        "spectra.png", "errors.png", "rollout.gif", "fno.ckpt", "data",
    }  # fmt: skip
    assert promised <= {path.name for path in tmp_path.iterdir()}
    attributes = Report.load(tmp_path).attributes
    assert all(check["passed"] for check in attributes["checks"])
    assert json.loads((tmp_path / "report.json").read_text())["data"]["start_frame"] == 1
    stamp = (tmp_path / "fno.ckpt").stat().st_mtime_ns
    assert main(["demo", "--tier", "smoke", "--out", str(tmp_path), "--device", "cpu"]) == 0
    assert (tmp_path / "fno.ckpt").stat().st_mtime_ns == stamp
    assert "delete it to train again" in capsys.readouterr().out


def test_auto_device_exists():
    assert torch.empty(1, device=choose_device("auto")).numel() == 1
