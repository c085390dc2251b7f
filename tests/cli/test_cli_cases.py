"""Sets of cases on the command line: subsets, trees of CFDBench, lengths that differ, the coarse solver of boxes."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cfdbench_cases import write_case, write_tree

from pdesurrogate.__main__ import main
from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.cfdbench_tree import write_cfdbench_tree
from pdesurrogate.data.subsets import Subset, cases_of
from pdesurrogate.evaluation.coarse_flow import coarse_flow, enclosed_flow_of
from pdesurrogate.evaluation.report import Report
from pdesurrogate.leaderboard import build_tables, find_reports
from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.simulators.recipe import build_simulator

PERSISTENCE = "pdesurrogate.steppers.persistence.Persistence"
CFDBENCH = "pdesurrogate.data.adapters.cfdbench.adapter.CfdBench"
PROBLEMS = "pdesurrogate.simulators.enclosed.problems"
CAVITY = {
    "problem": {"class_path": f"{PROBLEMS}.Cavity", "init_args": {"dynamic_viscosity": 0.02}},
    "shape": [16, 16],
    "frame_interval": 0.2,
    "steps_per_frame": 20,
}
WAKE = {
    "problem": {
        "class_path": f"{PROBLEMS}.CylinderWake",
        "init_args": {"x_min": -1.5, "x_max": 4.5, "y_min": -1.5, "y_max": 1.5, "dynamic_viscosity": 0.05},
    },
    "shape": [48, 24],
    "frame_interval": 0.2,
    "steps_per_frame": 20,
}
CAVITIES = {
    "bc": {"lid_velocity": [0.5, 1.0, 1.5]},
    "prop": {"density": [0.5, 0.7, 1.0]},
    "geo": {"width": [1.0, 1.5], "height": [1.0, 1.5]},
}
WAKES = {"bc": {"inlet_velocity": [0.5, 0.75, 1.0]}, "geo": {"radius": [0.4, 0.5, 0.6]}}


def generate(folder, flow, subsets, reduction=None):
    recipe = {
        "name": "boxes",
        "simulator": {"class_path": "pdesurrogate.simulators.enclosed.flow.EnclosedFlow", "init_args": flow},
        "initial_condition": {"class_path": "pdesurrogate.simulators.enclosed.start.AtRest"},
        "cases": {
            "class_path": "pdesurrogate.simulators.cases.Sweep",
            "init_args": {"subsets": subsets, "validation_share": 0.3, "test_share": 0.3},
        },
        "frames": 5,
        "seed": 0,
        "warm_up": 0.4,
    }
    if reduction is not None:
        recipe["reduction"] = {
            "class_path": "pdesurrogate.simulators.enclosed.coarsening.FaceCoarsening",
            "init_args": {"shape": reduction},
        }
    (folder / "given.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["generate", str(folder / "given.yaml"), "--out", str(folder / "data"), "--device", "cpu"]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def cavities(tmp_path_factory) -> Path:
    """An archive of ten cavities on 16 x 16 cells, five frames each."""
    return generate(tmp_path_factory.mktemp("cavities"), CAVITY, CAVITIES)


@pytest.fixture(scope="module")
def wakes(tmp_path_factory) -> Path:
    """An archive of six wakes, 48 x 24 cells stored on 24 x 24."""
    return generate(tmp_path_factory.mktemp("wakes"), WAKE, WAKES, reduction=[24, 24])


@pytest.fixture(scope="module")
def tree(cavities, tmp_path_factory) -> Path:
    """The cavities in the published layout."""
    folder = tmp_path_factory.mktemp("tree")
    write_cfdbench_tree(Archive(cavities), folder, "cavity")
    return folder


def adapter_file(folder, tree, **options) -> Path:
    path = folder / "tree.yaml"
    arguments = {"path": str(tree), "problem": "cavity", "cells": [16, 16], **options}
    path.write_text(yaml.safe_dump({"class_path": CFDBENCH, "init_args": arguments}))
    return path


def errors_alone(plan: RolloutPlan) -> dict[str, RolloutMetric]:
    """Quicker than all that a box can be measured by."""
    return {"errors": ErrorMetric(plan)}


def evaluate(data, out, *options, model=("--stepper", PERSISTENCE), suite=f"{__name__}.errors_alone"):
    fixed = ["--device", "cpu", "--no-figures", *([] if suite is None else ["--suite", suite])]
    return main(["evaluate", *model, "--data", str(data), "--out", str(out), *fixed, *map(str, options)])


def one_line_refusal(capsys):
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


# Subsets.


def test_subsets_part_a_split(cavities, tree):
    for adapter in (Archive(cavities), CfdBench(tree, "cavity", cells=(16, 16))):
        for split in adapter.splits:
            names = [case.subset for case in cases_of(adapter, split)]
            assert len(names) == len(adapter.trajectories(split))
            parts = {name: Subset(adapter, name).trajectories(split) for name in set(names)}
            assert {name: len(part) for name, part in parts.items()} == {name: names.count(name) for name in parts}
            for name, part in parts.items():
                whole = [t for t, own in zip(adapter.trajectories(split), names, strict=True) if own == name]
                for one, other in zip(part, whole, strict=True):
                    assert torch.equal(one.read(), other.read())


def test_a_subset_is_an_adapter_with_the_splits_that_it_has(cavities):
    archive = Archive(cavities)
    part = Subset(archive, "geo")
    assert isinstance(part, Adapter)
    assert part.splits == ("train", "val", "test")
    assert part.metadata is archive.metadata
    assert Subset(archive, "dam").splits == ()
    assert {case.subset for case in cases_of(part, "train")} == {"geo"}
    assert len(cases_of(part, "train")) == len(part.trajectories("train"))


def test_a_subset_of_the_adapter_is_the_subset_of_the_archive_that_it_came_from(cavities, tree):
    ours, theirs = Archive(cavities), CfdBench(tree, "cavity", cells=(16, 16))
    for name in ("bc", "prop", "geo"):
        one, other = (Subset(adapter, name).trajectories("test") for adapter in (ours, theirs))
        assert [t.context.parameters.tolist() for t in one] == [t.context.parameters.tolist() for t in other]


def test_data_without_subsets_say_so(waves):
    with pytest.raises(ValueError, match=r"numbers \[0, 1\] have none"):
        Subset(waves, "bc").trajectories("test")

    class Foreign:
        metadata, splits = waves.metadata, ("test",)

        def trajectories(self, split):
            return waves.trajectories(split)

    with pytest.raises(ValueError, match="a Foreign has none"):
        cases_of(Foreign(), "test")


def test_reports_of_subsets_do_not_meet_in_a_table(cavities, tmp_path, capsys):
    assert evaluate(cavities, tmp_path / "all") == 0
    for name in ("bc", "prop", "geo"):
        assert evaluate(cavities, tmp_path / name, "--subset", name) == 0
    reports = {name: Report.load(tmp_path / name).attributes["data"] for name in ("all", "bc", "prop", "geo")}
    assert [reports[name]["split"] for name in reports] == ["test", "test/bc", "test/prop", "test/geo"]
    assert sum(reports[name]["trajectories"] for name in ("bc", "prop", "geo")) == reports["all"]["trajectories"]
    assert len({data["content_hash"] for data in reports.values()}) == 1
    tables = build_tables(find_reports([tmp_path]))
    assert len(tables) == 4
    assert all(len(table.entries) == 1 and not table.excluded for table in tables)
    assert "boxes, test/geo: 16 x 16" in {table.title.partition(", 4")[0] for table in tables}


def test_an_unknown_subset_gets_those_that_are_there(cavities, tree, tmp_path, capsys):
    for data in (cavities, adapter_file(tmp_path, tree)):
        assert evaluate(data, tmp_path / "out", "--subset", "geometry") == 2
        assert "one of the subsets bc, geo, prop of 'test' but got 'geometry'" in one_line_refusal(capsys)
    assert not (tmp_path / "out").exists()


# Adapters by YAML.


def test_an_adapter_is_evaluated_and_the_report_says_which(tree, tmp_path, capsys):
    assert evaluate(adapter_file(tmp_path, tree), tmp_path / "out", suite=None) == 0
    data = Report.load(tmp_path / "out").attributes["data"]
    adapter = CfdBench(tree, "cavity", cells=(16, 16))
    assert data["content_hash"] == adapter.metadata.attributes["content_hash"]
    assert data["name"] == "cfdbench_cavity"
    assert data["trajectories"] == len(adapter.trajectories("test"))
    assert data["recipe"]["adapter"]["class_path"] == CFDBENCH
    assert data["recipe"]["adapter"]["init_args"]["path"] == str(tree)
    assert data["recipe"]["adapter"]["init_args"]["problem"] == "cavity"
    assert evaluate(adapter_file(tmp_path, tree), tmp_path / "geo", "--subset", "geo") == 0
    assert Report.load(tmp_path / "geo").attributes["data"]["split"] == "test/geo"


def test_an_archive_by_its_class_path_is_that_archive(cavities, tmp_path):
    file = tmp_path / "archive.yml"
    file.write_text(f"class_path: pdesurrogate.data.archive.Archive\ninit_args: {{path: {cavities}}}\n")
    assert evaluate(file, tmp_path / "one") == 0
    assert evaluate(cavities, tmp_path / "other") == 0
    one, other = (Report.load(tmp_path / name) for name in ("one", "other"))
    assert one.attributes["data"] == other.attributes["data"]
    assert one.attributes["scores"] == other.attributes["scores"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"class_path: {PERSISTENCE}", "is no data set"),
        ("class_path: pdesurrogate.nowhere.Nothing", "is no data set"),
        (f"class_path: {CFDBENCH}\ninit_args: {{path: nowhere, problem: cavity}}", "nowhere"),
        (f"class_path: {CFDBENCH}\ninit_args: {{path: nowhere, problem: lake}}", "lake"),
        ("{", "Expected YAML"),
    ],
)
def test_what_is_no_data_set_is_refused(text, message, tmp_path, capsys):
    (tmp_path / "data.yaml").write_text(text)
    assert evaluate(tmp_path / "data.yaml", tmp_path / "out") == 2
    assert message in one_line_refusal(capsys)


def test_a_yaml_file_that_is_not_there_is_named(tmp_path, capsys):
    assert evaluate(tmp_path / "gone.yaml", tmp_path / "out") == 2
    assert "gone.yaml does not exist" in one_line_refusal(capsys)


@pytest.mark.filterwarnings("ignore:What the data look like")
def test_cases_of_different_length_are_measured_up_to_what_all_have(tmp_path, capsys):
    tree = write_tree(tmp_path / "uneven", "cavity", rows=16, columns=16)
    data = adapter_file(tmp_path, tree)
    lengths = [len(trajectory) for trajectory in CfdBench(tree, "cavity", cells=(16, 16)).trajectories("test")]
    shortest = min(lengths)
    assert shortest < max(lengths)
    assert evaluate(data, tmp_path / "out") == 0
    assert f"have {shortest} to {max(lengths)} frames; measuring up to frame {shortest - 1}" in capsys.readouterr().err
    assert Report.load(tmp_path / "out").attributes["data"]["frames"] == shortest - 1
    assert evaluate(data, tmp_path / "less", "--frames", "2") == 0
    assert "measuring up to" not in capsys.readouterr().err
    assert Report.load(tmp_path / "less").attributes["data"]["frames"] == 2
    assert evaluate(data, tmp_path / "more", "--frames", max(lengths)) == 2
    assert f"{max(lengths)} frames from frame 1 on but trajectory" in one_line_refusal(capsys)
    assert evaluate(data, tmp_path / "late", "--start-frame", shortest) == 2
    assert "ask for at most 0" in one_line_refusal(capsys)


# Trees to archives and back.


def test_a_tree_is_converted_with_names_and_subsets(tree, tmp_path, capsys):
    command = ["datasets", "convert", "--format", "cfdbench", str(tree), "--problem", "cavity"]
    # The published set has 64 x 64 cells; these have fewer.
    assert main([*command, "--out", str(tmp_path / "refused")]) == 2
    assert "give cells=(16, 16)" in one_line_refusal(capsys)
    command += ["--cells", "16", "16", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / f"{s}.nc") for s in ("train", "val", "test")]
    archive, adapter = Archive(tmp_path / "out"), CfdBench(tree, "cavity", cells=(16, 16))
    assert len(archive.metadata.attributes["content_hash"]) == 64
    for split in adapter.splits:
        assert cases_of(archive, split) == cases_of(adapter, split)
        for stored, read in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(stored.read(), read.read())
            assert torch.equal(stored.context.parameters, read.context.parameters)
            torch.testing.assert_close(stored.context.coordinates, read.context.coordinates)
    before = (tmp_path / "out" / "train.nc").read_bytes()
    assert main(command) == 0
    assert (tmp_path / "out" / "train.nc").read_bytes() == before
    assert evaluate(tmp_path / "out", tmp_path / "report", "--subset", "geo") == 0


def test_other_values_are_another_data_set(tree, tmp_path, capsys):
    write_cfdbench_tree_of(tree, tmp_path / "copy")
    command = ["datasets", "convert", "--format", "cfdbench", str(tmp_path / "copy"), "--problem", "cavity"]
    command += ["--cells", "16", "16", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    path = next((tmp_path / "copy" / "cavity" / "bc").glob("case*")) / "u.npy"
    np.save(path, 0.5 * np.load(path))
    assert main(command) == 2
    assert "from another source" in one_line_refusal(capsys)


def write_cfdbench_tree_of(tree, copy):
    for file in (path for path in tree.rglob("*") if path.is_file()):
        target = copy / file.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())


@pytest.mark.filterwarnings("ignore:What the data look like")
def test_cases_of_different_length_make_no_archive(tmp_path, capsys):
    tree = write_tree(tmp_path / "tree", "cavity", rows=16, columns=16)
    command = ["datasets", "convert", "--format", "cfdbench", str(tree), "--problem", "cavity", "--cells", "16", "16"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    error = one_line_refusal(capsys)
    assert "cases of one length" in error
    assert re.search(r"but (bc|prop|geo)/case\d{4} has \d frames and (bc|prop|geo)/case\d{4} \d\.", error)
    assert "by the class path of CfdBench" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:What the data look like")
def test_bad_cases_can_be_skipped(tmp_path, capsys):
    tree = write_tree(tmp_path / "tree", "cavity", frames=4, rows=16, columns=16)
    bad = write_case(tree, "cavity", "geo", "case0099", 4, 16, 16)
    (bad / "case.json").write_text("{}")
    command = ["datasets", "convert", "--format", "cfdbench", str(tree), "--problem", "cavity", "--cells", "16", "16"]
    command += ["--subsets", "bc", "geo", "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "geo/case0099" in one_line_refusal(capsys)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main([*command, "--skip-bad-cases"]) == 0
    assert any("geo/case0099" in str(warning.message) for warning in caught)
    archive = Archive(tmp_path / "out")
    names = {case for split in archive.splits for case in cases_of(archive, split)}
    assert {case.subset for case in names} == {"bc", "geo"}
    assert "case0099" not in {case.name for case in names}


def test_a_tree_needs_its_problem(tree, tmp_path, capsys):
    assert main(["datasets", "convert", "--format", "cfdbench", str(tree), "--out", str(tmp_path / "out")]) == 2
    assert "Expected --problem with cfdbench" in one_line_refusal(capsys)


def test_an_archive_is_exported_as_a_tree(cavities, tree, tmp_path, capsys):
    command = ["datasets", "export", str(cavities), "--format", "cfdbench", "--problem", "cavity"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"10 cases (bc 3, prop 3, geo 4) in {tmp_path / 'cavity'}\n"
    files = [path.relative_to(tree) for path in sorted(tree.rglob("*")) if path.is_file()]
    assert len(files) == 10 * 4 + 1  # and where the tree comes from
    assert all((tmp_path / file).read_bytes() == (tree / file).read_bytes() for file in files)
    assert main([*command[:-1], "dam", "--out", str(tmp_path)]) == 2
    assert "Expected a problem among cavity" in one_line_refusal(capsys)


def test_reads_are_counted_once(cavities):
    from pdesurrogate.data.tree_conversion import CountedReads

    seen: list[tuple[int, int]] = []
    archive = CountedReads(cavities, lambda done, total: seen.append((done, total)))
    first, second = archive.trajectories("train")[:2]
    first.read()
    first.read(0, 1)
    second.read()
    assert seen == [(1, 10), (1, 10), (2, 10)]
    assert torch.equal(first.read(), Archive(cavities).trajectories("train")[0].read())


# The coarse solver of boxes.


def test_the_coarse_solver_of_cavities_converges_to_the_data(cavities, tmp_path, capsys):
    errors = []
    for cells in (8, 12, 16):
        assert evaluate(cavities, tmp_path / str(cells), model=("--coarse-solver", str(cells))) == 0
        report = Report.load(tmp_path / str(cells))
        errors.append(report.attributes["scores"]["relative_l2"]["value"])
        assert report.attributes["model"]["name"] == f"solver {cells} x {cells}"
        assert report.attributes["model"]["kind"] == "solver"
        assert report.attributes["model"]["config"]["shape"] == [cells, cells]
    assert errors[0] > errors[1] > errors[2]
    assert evaluate(cavities, tmp_path / "persistence") == 0
    assert errors[1] < Report.load(tmp_path / "persistence").attributes["scores"]["relative_l2"]["value"]


def test_the_coarse_solver_of_wakes_has_the_proportions_of_the_simulation(wakes, tmp_path, capsys):
    errors = []
    for cells in (12, 24):
        out = tmp_path / str(cells)
        assert evaluate(wakes, out, "--subset", "bc", model=("--coarse-solver", str(cells))) == 0
        report = Report.load(out)
        assert report.attributes["model"]["config"]["shape"] == [2 * cells, cells]
        assert report.attributes["data"]["shape"] == [24, 24]
        errors.append(report.attributes["scores"]["relative_l2"]["value"])
    assert errors[0] > 2 * errors[1]


def test_the_coarse_solver_takes_the_fewest_steps_that_all_cases_allow(cavities):
    trajectories = Archive(cavities).trajectories("test")
    _, card = coarse_flow(trajectories, 8)
    steps, recipe = card.config["steps_per_frame"], json.loads(trajectories[0].metadata.attributes["recipe"])
    parameters = torch.stack([trajectory.context.parameters for trajectory in trajectories]).double()

    def build(count):
        return build_simulator(recipe, shape=[8, 8], steps_per_frame=count, largest_cell_reynolds_number=float("inf"))

    build(steps).of_cases(parameters)
    with pytest.raises(ValueError, match="time step of at most"):
        build(steps - 1).of_cases(parameters)


def test_too_few_cells_for_a_body_are_refused(wakes, tmp_path, capsys):
    assert evaluate(wakes, tmp_path / "out", model=("--coarse-solver", "4")) == 2
    assert "bodies of at least 3 cells" in one_line_refusal(capsys)
    assert evaluate(wakes, tmp_path / "out", model=("--coarse-solver", "0")) == 2
    assert "at least four cells" in one_line_refusal(capsys)


def test_only_data_of_enclosed_flows_have_their_solver(cavities, waves):
    assert type(enclosed_flow_of(Archive(cavities).metadata)).__name__ == "EnclosedFlow"
    assert enclosed_flow_of(waves.metadata) is None
    with pytest.raises(ValueError, match="carries no recipe of one"):
        coarse_flow(waves.trajectories("test"), 8)
    with pytest.raises(ValueError, match="split is empty"):
        coarse_flow([], 8)


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["--residual"], "ResidualMetric with a solver of your own"),
        (["--solver-sweep"], "single settings of the solver with --coarse-solver"),
        (["--solver-sweep", "8", "16"], "single settings"),
    ],
)
def test_what_is_spectral_is_refused_in_boxes_before_any_work(cavities, tmp_path, capsys, options, cure):
    assert evaluate(cavities, tmp_path / "out", *options) == 2
    error = one_line_refusal(capsys)
    assert f"Expected data in a periodic box for {options[0]}" in error
    assert cure in error
    assert not (tmp_path / "out").exists()


def test_a_tree_without_a_recipe_has_no_coarse_solver(tree, tmp_path, capsys):
    foreign = shutil.copytree(tree, tmp_path / "foreign")
    (foreign / "cavity" / "pdesurrogate.json").unlink()
    data = adapter_file(tmp_path, foreign)
    assert evaluate(data, tmp_path / "out", model=("--coarse-solver", "8")) == 2
    assert "give a solver of your own with --stepper" in one_line_refusal(capsys)


def test_the_solver_of_the_archive_runs_beside_its_tree(tree, tmp_path):
    out = tmp_path / "out"
    assert evaluate(adapter_file(tmp_path, tree), out, model=("--coarse-solver", "16")) == 0
    report = Report.load(out)
    assert report.attributes["model"]["name"] == "solver 16 x 16"
    assert report.attributes["scores"]["relative_l2"]["value"] < 0.05
