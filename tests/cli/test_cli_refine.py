"""``pdesurrogate refine`` as a user runs it: every method and option on a tiny set, and what wrong commands get."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_reports import fake_report
from helpers import write_archive
from refining import BLOCK, HISTORY, TRAINING, tiny_archive, tiny_recipe, tiny_surrogate

from pdesurrogate.__main__ import main
from pdesurrogate.cli import evaluate
from pdesurrogate.cli.refine import _refiner, _surrogate, build_parser, refinement_lines, start_lines
from pdesurrogate.data.archive import Archive
from pdesurrogate.evaluation import evaluator
from pdesurrogate.evaluation.checks import failed_checks
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.refinement import RefinementTrial
from pdesurrogate.evaluation.report import Report
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.models.fno import FNO
from pdesurrogate.steppers.surrogate import Surrogate

ROUND_OFF = float(torch.finfo(torch.float32).eps)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Archive:
    return tiny_archive(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(archive, tmp_path_factory):
    return tiny_surrogate(archive.metadata).save(tmp_path_factory.mktemp("sfno") / "sfno.ckpt", TRAINING)


@pytest.fixture(scope="module")
def fno(archive, tmp_path_factory):
    torch.manual_seed(0)
    surrogate = Surrogate(FNO(channels=1, modes=(3, 3), width=4, layers=1), archive.metadata, target="increment")
    return surrogate.save(tmp_path_factory.mktemp("fno") / "fno.ckpt", TRAINING)


@pytest.fixture(scope="module", autouse=True)
def _light():
    """Errors alone, and no memory: what an evaluator measures besides is not of this verb."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "default_suite", errors_alone)
        patch.setattr(evaluator, "peak_memory", lambda function, device: 1)
        yield


def errors_alone(plan):
    """The suite of an evaluator."""
    return {"errors": ErrorMetric(plan)}


@pytest.fixture
def refine(archive, checkpoint, tmp_path, capsys):
    """Run the verb, without figures and sweep unless told; the report and what was printed."""

    def run(*options, expected=0, network=checkpoint, data=archive.path, sweep=False, out=tmp_path / "out"):
        fixed = ["--checkpoint", network, "--data", data, "--out", out, "--no-figures", "--device", "cpu"]
        if not sweep:
            fixed.append("--no-solver-sweep")
        status = main(["refine", *map(str, (*fixed, *options))])
        printed = capsys.readouterr()
        assert status == expected, printed.err
        if expected == 2:
            assert "Traceback" not in printed.err
            return printed.err
        report = Report.load(out)
        if expected == 0:
            assert failed_checks(report) == []
            assert printed.err == ""
        return report, printed.out

    return run


def surrogate_error(archive, checkpoint, frames=BLOCK, start_frame=HISTORY):
    surrogate = Surrogate.from_checkpoint(checkpoint)
    report = Evaluator(errors_alone)(surrogate, archive.trajectories("test"), frames, start_frame=start_frame)
    return report.attributes["scores"]["relative_l2"]["value"]


# --- methods and options ---


@pytest.mark.parametrize("method", ["newton", "lbfgs", "adam", "released"])
def test_every_method_runs_by_its_name(refine, archive, checkpoint, method):
    report, printed = refine("--method", method, "--iterations", 2)
    entry = report.attributes["refinement"]
    rows = entry["iterations"]
    assert entry["method"]["name"] == method
    assert (entry["method"]["iterations"], len(rows)) == (2, 3)
    assert rows[0]["relative_l2"] == pytest.approx(surrogate_error(archive, checkpoint), rel=4 * ROUND_OFF)
    assert rows[-1]["relative_l2"] == pytest.approx(report.attributes["scores"]["relative_l2"]["value"], rel=1e-6)
    # The blind residual is round-off, which may rise.
    assert {each["outcome"] for each in entry["outcomes"]} <= (
        {"exhausted", "stalled"} if method == "released" else {"exhausted"}
    )
    if method != "released":  # whose residual knows of no fault
        assert rows[-1]["residual"] < rows[0]["residual"]
    assert all(row["seconds_per_frame"] > 0 for row in rows)
    assert report.attributes["model"]["config"]["refinement"]["method"] == entry["method"]
    assert report.attributes["run"]["command"].startswith("pdesurrogate refine --checkpoint ")
    assert report.attributes["model"]["checkpoint"]["file"] == "sfno.ckpt"
    assert report.attributes["model"]["training"] == TRAINING
    for word in (
        "4 frames from frame 4 on, 3 trajectories of tiny, test",
        "report.json",
        f"{rows[0]['relative_l2']:.3g}",
    ):
        assert word in printed
    assert ("defect" in printed) == (method == "released")


def test_newton_comes_to_the_solvers_own_error(refine):
    report, printed = refine("--iterations", 4)
    entry = report.attributes["refinement"]
    assert entry["iterations"][-1]["relative_l2"] < ROUND_OFF
    assert entry["solver"]["relative_l2"] < ROUND_OFF
    assert "this is what a refinement with it comes to" in printed


def test_any_network_is_refined_by_newton(refine, fno):
    report, _ = refine("--window", 3, "--iterations", 3, network=fno)
    assert report.attributes["model"]["name"] == "FNO + Newton"
    assert report.attributes["data"]["start_frame"] == 1
    assert report.attributes["refinement"]["frames"] == 3
    assert report.attributes["refinement"]["iterations"][-1]["relative_l2"] < ROUND_OFF


@pytest.fixture
def refined(archive, checkpoint):
    """Settings, residuals and errors of two iterations with some options, without a report."""

    def run(*options):
        fixed = ["--checkpoint", checkpoint, "--data", archive.path, "--out", "unused", "--iterations", 2]
        arguments = build_parser().parse_args([*map(str, (*fixed, *options))])
        trajectories = archive.trajectories("test")
        refiner, settings = _refiner(arguments, _surrogate(arguments, trajectories[0])[0], trajectories[0])
        trial = RefinementTrial(refiner, trajectories, resolution=settings["residual"]["resolution"])
        trial.again()
        found = trial.measured()
        iterations = 1 + max(each["iteration"] for each in found.outcomes)
        return settings, found.residual.T[:iterations], found.relative_l2.T[:iterations]

    return run


@pytest.mark.parametrize(
    ("options", "where", "expected"),
    [
        (["--coarse-sweep", 8, 2], ("method", "sweep", "init_args", "resolution"), 8),
        (["--coarse-sweep", 16, 2], ("method", "sweep", "init_args", "steps_per_frame"), 2),
        (["--coarse-sweep", 8, 2], ("method", "sweep", "init_args", "precision"), "float32"),
        (["--method", "parareal", "--coarse-sweep", 8, 2], ("method", "sweep", "init_args", "precision"), "float64"),
        (["--method", "parareal", "--coarse-sweep", 16, 2, "--window", 3], ("method", "window"), 3),
        (["--modes", 5, 5, 3], ("method", "modes"), (5, 5, 3)),
        (["--window", 3], ("method", "window"), 3),
        (["--tolerance", 0.5], ("method", "tolerance"), 0.5),
        (["--order", -2], ("residual", "order"), -2.0),
        (["--frames-at-once", 2, "--method", "lbfgs"], ("residual", "frames_at_once"), 2),
        (["--resolution", 24], ("residual", "resolution"), 24),
        (["--resolution", 24, "--modes", 8, 8, 3], ("residual", "resolution"), 24),
        (["--resolution", 24, "--method", "lbfgs"], ("residual", "resolution"), 24),
        (["--steps-per-frame", 1], ("march", "init_args", "steps_per_frame"), 1),
        (["--residual", "analytic", "--method", "lbfgs"], ("residual", "name"), "analytic"),
        (["--residual", "defect", "--method", "adam"], ("residual", "name"), "defect"),
        (["--modes", 6, 6, 3, "--method", "adam"], ("method", "modes"), (6, 6, 3)),
    ],
)
def test_an_option_does_what_it_says_and_is_in_the_settings(refined, options, where, expected):
    settings, sizes, errors = refined(*options)
    found = settings
    for key in where:
        found = found[key]
    assert (tuple(found) if isinstance(found, list) else found) == expected
    assert (sizes[-1] < sizes[0]).all()
    if "--tolerance" in options:
        assert len(sizes) == 2  # enough after one
    if where[0] == "march":
        # The error of one step where the data were made with four.
        assert errors[-1].min() > 10 * ROUND_OFF


@pytest.mark.parametrize("options", [["--modes", 5, 5, 3], ["--coarse-sweep", 8, 2]])
def test_another_update_leaves_another_error(refined, options):
    assert (refined(*options)[2][-1] > 2 * refined()[2][-1]).all()


def test_parareal_refines_any_network(refine, fno):
    report, _ = refine("--method", "parareal", "--coarse-sweep", 16, 2, "--window", 3, network=fno)
    assert report.attributes["model"]["name"] == "FNO + parareal"
    assert report.attributes["refinement"]["iterations"][-1]["relative_l2"] < ROUND_OFF


def test_blocks_follow_one_another(refine, archive, checkpoint):
    report, printed = refine("--frames", 2 * BLOCK, "--iterations", 4)
    assert report.attributes["data"]["frames"] == 2 * BLOCK
    entry = report.attributes["refinement"]
    assert entry["frames"] == BLOCK
    assert report.curves["relative_l2"].sizes["lead_time"] == 2 * BLOCK
    # The second block starts from refined frames.
    assert float(report.curves["relative_l2"].max()) < 10 * ROUND_OFF
    assert f"{2 * BLOCK} frames in all" in printed
    assert f"{surrogate_error(archive, checkpoint, 2 * BLOCK):.3f}" in printed


def test_the_start_may_be_later(refine, archive, checkpoint):
    report, printed = refine("--start-frame", 7, "--iterations", 1)
    assert report.attributes["data"]["start_frame"] == 7
    error = report.attributes["refinement"]["iterations"][0]["relative_l2"]
    assert error == pytest.approx(surrogate_error(archive, checkpoint, start_frame=7), rel=4 * ROUND_OFF)
    assert "4 frames from frame 7 on" in printed


def solver_yaml(folder, **changes):
    """A YAML file with the data's solver, ``changes`` made."""
    import yaml

    simulator = tiny_recipe(**changes)["simulator"]
    path = folder / "solver.yaml"
    path.write_text(yaml.safe_dump(simulator))
    return path


def test_a_solver_may_be_ones_own(refine, tmp_path):
    report, printed = refine("--solver", solver_yaml(tmp_path, steps_per_frame=1), "--iterations", 4)
    entry = report.attributes["refinement"]
    assert entry["march"]["init_args"]["steps_per_frame"] == 1
    assert entry["solver"]["relative_l2"] > 10 * ROUND_OFF
    assert entry["iterations"][-1]["relative_l2"] == pytest.approx(entry["solver"]["relative_l2"], abs=ROUND_OFF)
    assert "time_step=0.1" in printed


@pytest.fixture(scope="module")
def complete(archive, checkpoint, tmp_path_factory):
    """Folder of a run with sweep and figures, and what was handed to be drawn."""
    drawn = []
    out = tmp_path_factory.mktemp("complete")
    command = ["refine", "--checkpoint", checkpoint, "--data", archive.path, "--out", out, "--device", "cpu"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        # The usual figures are tested with the verb whose they are; here it counts what is drawn.
        patch.setattr(evaluate, "draw", lambda *given, others: drawn.append((*given, others)))
        assert main([*map(str, command), "--iterations", "3", "--solver-sweep", "8", "16", "--name", "mine"]) == 0
    torch.set_num_threads(threads)
    return out, drawn


def test_report_and_figures_are_what_is_promised(complete):
    complete, ((drawn, _, steppers, _, out, (plain,)),) = complete
    assert {path.name for path in complete.iterdir()} == {"report.json", "report.nc", "refinement.png"}
    assert [*steppers] == ["mine", "SFNO"] == [one.attributes["model"]["name"] for one in (drawn, plain)]
    assert out == complete
    report = Report.load(complete)
    assert report.attributes["model"]["name"] == "mine"
    assert failed_checks(report) == []
    entry = report.attributes["refinement"]
    assert {point["resolution"] for point in entry["sweep"]["points"]} == {8, 16}
    assert entry["iterations"][0]["solver_seconds_per_frame"] > 0
    assert report.attributes["cost"]["speed_up"]["value"] == entry["iterations"][-1]["speed_up"]


def test_a_second_run_into_the_same_folder_replaces_the_first(refine, tmp_path):
    first, _ = refine("--iterations", 1)
    second, _ = refine("--iterations", 2)
    assert len(first.attributes["refinement"]["iterations"]) == 2
    assert len(second.attributes["refinement"]["iterations"]) == 3
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.nc"}


def test_what_is_printed_stands_in_columns(complete):
    report = Report.load(complete[0])
    lines = refinement_lines(report).splitlines()
    headings = re.split(r" {2,}", lines[2].strip())
    assert headings == ["iteration", "relative L2", "residual", "ms per frame", "solver's ms at that error", "speed-up"]
    rows = [re.split(r" {2,}", line.strip()) for line in lines[4:8]]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    assert all(len(row) == len(headings) for row in rows)
    assert {len(line) for line in lines[2:8]} == {len(lines[3])}
    entry = report.attributes["refinement"]
    np.testing.assert_allclose(
        [float(row[1]) for row in rows], [row["relative_l2"] for row in entry["iterations"]], rtol=1e-2
    )


def test_many_iterations_are_thinned_with_first_and_last(refine):
    report, printed = refine("--method", "adam", "--iterations", 20)
    assert len(report.attributes["refinement"]["iterations"]) == 21
    numbers = [int(found) for found in re.findall(r"^ +(\d+)  ", printed, re.MULTILINE)]
    assert numbers[0] == 0
    assert numbers[-1] == 20
    assert len(numbers) == 9


@pytest.mark.parametrize(("alone", "said"), [(0.25, True), (0.30001, False), (None, False)])
def test_another_start_than_the_surrogates_is_said(alone, said):
    plain, report = fake_report(alone), fake_report(0.1)
    entry = {"frames": 3, "iterations": [{"relative_l2": 0.3}]}
    report = replace(report, attributes={**report.attributes, "refinement": entry})
    lines = start_lines(report, plain)
    assert bool(lines) == said
    if said:
        assert "alone has a relative L2 error of 0.25" in lines[0]
        assert "begins with 0.3." in lines[0]


# --- trajectories that diverge ---


def test_a_trajectory_that_diverges_is_named_and_keeps_its_best(refine, archive, tmp_path):
    surrogate = tiny_surrogate(archive.metadata)
    # Far beyond what a step of the solver stays stable for.
    surrogate.normalizer.set_statistics(torch.tensor([0.0]), torch.tensor([1000.0]))
    wild = surrogate.save(tmp_path / "wild.ckpt", TRAINING)
    report, printed = refine("--steps-per-frame", 1, network=wild)
    ended = report.attributes["refinement"]["outcomes"]
    assert ended == [{"trajectory": number, "outcome": "diverged", "iteration": 1} for number in range(3)]
    assert "Trajectories 0, 1, 2 diverged at iteration 1; their best iterates are kept." in printed
    residual = report.curves["refined_residual"].values
    np.testing.assert_array_equal(residual, residual[:, :1].repeat(4, 1))
    assert "trajectories" not in refinement_lines(report).split("kept.")[1]


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--residual", "analytic"], "Expected --residual defect with --method newton"),
        (["--method", "released", "--order", "-1"], "neither --residual nor --order with --method released"),
        (["--method", "released", "--residual", "defect"], "neither --residual nor --order with --method released"),
        (["--method", "adam", "--coarse-sweep", 8, 2], "Expected no --coarse-sweep with --method adam"),
        (["--method", "parareal"], "Expected --coarse-sweep N M with --method parareal"),
        (
            ["--method", "parareal", "--coarse-sweep", 8, 2, "--modes", 4, 4, 3],
            "Expected no --modes with --method",
        ),
        (["--method", "lbfgs", "--window", 3], "Expected no --window with --method lbfgs"),
        (["--modes", 4, 4, 3, "--window", 3], "--modes or --window but not both"),
        (["--solver", "a.b", "--steps-per-frame", 2], "--solver or --steps-per-frame but not both"),
        (["--solver", "missing.yaml"], "Expected a YAML file but missing.yaml does not exist"),
        (["--split", "nowhere"], "nowhere"),
        (["--split", "train"], "Expected one of the splits ('val', 'test')"),
        (["--start-frame", 2], "start_frame of at least 4"),
        (["--start-frame", 12], "Expected 4 frames to refine from frame 12 on but a trajectory has 14"),
        (["--frames", 40], "Expected 40 frames from frame 4 on"),
        (["--window", 40], "Expected 40 frames to refine"),
        (["--resolution", 8], "Expected --resolution of at least the data's 16 but got 8"),
        (["--resolution", 17], "even resolution"),
        (["--batch-size", 0], "batch size of at least one but got 0"),
        (["--iterations", 0], "Expected iterations of at least 1 but got 0"),
        (["--steps-per-frame", 0], "at least one step per frame but got 0"),
        (["--coarse-sweep", 4, 1], "even resolution"),
        (["--frames-at-once", 0], "frames_at_once of at least 1 but got 0"),
        (["--modes", 0, 3, 3], "modes"),
        (["--tolerance", "-1"], "Expected tolerance >= 0"),
        (["--device", "warp"], "Expected a device"),
    ],
)
def test_bad_input_is_one_line_and_status_two(refine, tmp_path, options, message):
    error = refine(*options, expected=2)
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out" / "report.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "lbfgs"], "Expected an SFNO with target 'state' for --method lbfgs but got FNO"),
        (["--modes", 3, 3, 2], "Expected an SFNO with target 'state' for --modes but got FNO"),
    ],
)
def test_another_network_has_no_head_to_change(refine, fno, options, message):
    assert message in refine(*options, expected=2, network=fno)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"viscosity": 2e-2}, "viscosity 0.02 of the solver but trajectory 0 states 0.01"),
        ({"frame_interval": 0.2}, "Expected frames 0.2 apart"),
        ({"resolution": 32}, "32"),
        (
            {"forcing": {"class_path": "pdesurrogate.simulators.forcing.KolmogorovForcing", "init_args": {}}},
            "Expected the forcing of the solver but that of trajectory 0 is another",
        ),
    ],
)
def test_a_solver_of_another_equation_is_refused(refine, tmp_path, changes, message):
    assert message in refine("--solver", solver_yaml(tmp_path, **changes), expected=2)


def test_data_of_another_frame_interval_are_refused(refine, tmp_path):
    other = tiny_archive(tmp_path / "other", frame_interval=0.2)
    error = refine(data=other.path, expected=2)
    assert "Expected frames 0.1 apart but data set 'tiny' has 0.2" in error


@pytest.fixture(scope="module")
def foreign(archive, tmp_path_factory):
    """The same frames without their recipe, in a test split alone."""
    trajectories = archive.trajectories("test")
    values = torch.stack([trajectories[number].read() for number in range(3)])
    metadata = replace(archive.metadata, attributes={}, parameters=())
    return write_archive(tmp_path_factory.mktemp("foreign"), metadata, {"test": values})


def test_without_a_recipe_a_solver_must_be_given(refine, foreign, tmp_path):
    assert "carries no recipe" in refine(data=foreign.path, expected=2, sweep=True)
    error = refine(data=foreign.path, expected=2)
    assert "give one of your own with --solver" in error
    report, _ = refine("--solver", solver_yaml(tmp_path), "--iterations", 4, data=foreign.path)
    assert report.attributes["refinement"]["iterations"][-1]["relative_l2"] < ROUND_OFF
    options = ("--solver", solver_yaml(tmp_path), "--coarse-sweep", 8, 2)
    assert "names none that could give" in refine(*options, data=foreign.path, expected=2)


def test_a_solver_time_needs_validation_trajectories(refine, tmp_path):
    lonely = tiny_archive(tmp_path / "lonely")
    (lonely.path / "val.nc").unlink()
    error = refine(data=lonely.path, expected=2, sweep=True)
    assert "Expected trajectories in the split 'val'" in error
    assert "--no-solver-sweep" in error


def test_a_failed_check_is_the_exit_status(refine, monkeypatch):
    monkeypatch.setattr(evaluator, "declared_trajectories", lambda *_, **__: 5)
    report, _ = refine("--iterations", 1, expected=1)
    assert failed_checks(report) == ["all_trajectories: 3 of 5 trajectories of the split were evaluated"]
