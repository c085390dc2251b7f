"""The authors' loaders as an adapter: windows of it are their items, whatever the stride; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cfdbench_cases import BASE, write_case, write_tree

from pdesurrogate.data.adapters.base import Adapter, WithStatistics
from pdesurrogate.data.adapters.cfdbench.published import PUBLISHED, SUBSETS
from pdesurrogate.data.adapters.cfdbench.published_scores import published_last_step, published_scores
from pdesurrogate.data.adapters.cfdbench.reference import FRAME_PARAMETERS, reference_case, reference_datasets
from pdesurrogate.data.adapters.cfdbench.reference_adapter import ReferenceCfdBench
from pdesurrogate.data.frame_data import Frames
from pdesurrogate.data.windows import Windows

FAKE = Path(__file__).parents[3] / "shared" / "golden" / "cfdbench_fake"
PROBLEMS = ("cavity", "tube", "dam", "cylinder")
VERSIONS = [*((problem, "old") for problem in PROBLEMS), ("cylinder", "head")]


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Of each problem 12 cases of 4 to 7 frames on 8 x 10 cells; in one the last three frames are the same."""
    root = tmp_path_factory.mktemp("trees")
    for problem in PROBLEMS:
        # A barrier of two cells at least.
        changes = {"dy": 0.04} if problem == "dam" else {}
        write_tree(root, problem, bc=6, prop=3, geo=3, rows=10, columns=8, **changes)
        for name in ("u", "v"):
            path = root / problem / "bc" / "case0003" / f"{name}.npy"
            array = np.load(path)
            array[-3:] = array[-3]
            np.save(path, array)
    return root


def sorted_rows(*parts):
    """Samples as rows, in an order that does not depend on how they came."""
    rows = torch.cat([part.flatten(1) for part in parts], dim=1)
    return np.array(sorted(rows.tolist()))


@pytest.mark.parametrize(("problem", "version"), VERSIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_windows_of_two_frames_are_the_pairs_of_the_authors(trees, problem, version, stride):
    delta = stride * PUBLISHED[problem].loader_interval
    adapter = ReferenceCfdBench(trees, problem, version=version, delta_time=delta)
    theirs = reference_datasets(trees, problem, "pairs", version=version, delta_time=delta)
    assert isinstance(adapter, Adapter)
    assert adapter.splits == tuple(theirs) == ("train", "val", "test")
    for split, data in theirs.items():
        windows = Windows(adapter.trajectories(split), 1, 1)
        assert len(windows) == len(data)
        ours = windows.__getitems__(range(len(windows)))
        batch = data.collate([data[number] for number in range(len(data))])
        mask = ours.context.mask[:, None].float().mT
        found = sorted_rows(ours.history[:, 0].mT, mask, ours.target[:, 0].mT, ours.context.parameters)
        expected = sorted_rows(batch["inputs"], batch["mask"], batch["label"], batch["case_params"])
        assert np.array_equal(found, expected)
    assert adapter.metadata.frame_interval == delta


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_frame_is_one_of_the_authors_with_its_number_for_time(trees, problem):
    adapter = ReferenceCfdBench(trees, problem, "frames")
    for split, data in reference_datasets(trees, problem, "frames").items():
        frames = Frames(adapter.trajectories(split))
        assert len(frames) == len(data)
        for number in range(len(frames)):
            parameters, time, values = data[number]
            own = frames[number]
            assert torch.equal(own.frame.mT, values[:2])
            assert torch.equal(own.context.parameters, parameters)
            assert float(own.time) == float(time)
            assert own.context.mask is None
    assert adapter.metadata.parameters == FRAME_PARAMETERS[problem]


def test_places_are_numbers_of_columns_and_rows(trees):
    adapter = ReferenceCfdBench(trees, "tube")
    x, y = adapter.trajectories("test")[0].context.coordinates
    assert adapter.cells == (len(x), len(y)) == (9, 12)
    assert torch.equal(x, torch.arange(9.0))
    assert torch.equal(y, torch.arange(12.0))


def test_a_case_that_is_steady_ends_but_is_stored_as_a_whole(trees):
    pairs, dam = (ReferenceCfdBench(trees, problem) for problem in ("cavity", "dam"))
    for adapter, ends in ((pairs, True), (dam, False)):
        split = next(s for s, names in adapter.metadata.attributes["cases"].items() if "bc/case0003" in names)
        place = adapter.metadata.attributes["cases"][split].index("bc/case0003")
        lengths = [len(trajectory) for trajectory in adapter.stored(split)]
        assert lengths[place] == 7
        assert len(adapter.trajectories(split)[place]) == (5 if ends else 7)
        stored = adapter.stored(split)[place].read()
        features, _ = reference_case(trees / adapter.problem / "bc" / "case0003", adapter.problem)
        assert torch.equal(stored.mT, torch.from_numpy(features[:, :2]).float())


def test_constants_are_the_authors_or_left_out(trees):
    plain = ReferenceCfdBench(trees, "cavity", norm_props=False, norm_bc=False)
    values = dict(zip(plain.metadata.parameters, plain.stored("test")[0].context.parameters.tolist(), strict=True))
    assert values == pytest.approx(BASE["cavity"])
    scaled = ReferenceCfdBench(trees, "cavity").stored("test")[0].context.parameters
    assert scaled.tolist() == pytest.approx([-0.3, -1.0, (1e-5 - 0.00238) / 0.005, 0.01, 0.01])


def test_networks_see_velocities_as_they_are(trees):
    adapter = ReferenceCfdBench(trees, "cavity")
    assert isinstance(adapter, WithStatistics)
    statistics = adapter.published_statistics()
    assert (statistics.mean.tolist(), statistics.std.tolist(), statistics.increment_rms) == ([0, 0], [1, 1], None)


def test_the_hash_tells_files_and_options_apart(trees):
    adapters = [
        ReferenceCfdBench(trees, "cavity"),
        ReferenceCfdBench(trees, "cavity", norm_bc=False),
        ReferenceCfdBench(trees, "cavity", "frames"),
        ReferenceCfdBench(trees, "cavity", subsets=["bc"]),
    ]
    hashes = [adapter.metadata.attributes["content_hash"] for adapter in adapters]
    assert len(set(hashes)) == 4
    assert ReferenceCfdBench(trees, "cavity").metadata.attributes["content_hash"] == hashes[0]


@pytest.mark.skipif(not FAKE.exists(), reason="needs the golden files beside the repository")
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_small_published_layout_is_read(problem):
    adapter = ReferenceCfdBench(FAKE, problem, delta_time=PUBLISHED[problem].loader_interval)
    theirs = reference_datasets(FAKE, problem, delta_time=PUBLISHED[problem].loader_interval)
    assert {split: len(Windows(adapter.trajectories(split), 1, 1)) for split in theirs} == {
        split: len(data) for split, data in theirs.items()
    }


# What is refused.


def test_a_task_and_a_split_that_are_not_there(trees):
    with pytest.raises(ValueError, match="task 'pairs' or 'frames' but got 'steps'"):
        ReferenceCfdBench(trees, "cavity", "steps")
    with pytest.raises(ValueError, match="problem among cavity, tube, dam, cylinder"):
        ReferenceCfdBench(trees, "step")
    with pytest.raises(ValueError, match="delta_time of a stored frame"):
        ReferenceCfdBench(trees, "cavity", delta_time=0.05)
    with pytest.raises(ValueError, match="one of the splits"):
        ReferenceCfdBench(trees, "cavity").trajectories("dev")


def test_numbers_in_another_order_or_too_many_are_named(tmp_path):
    for number in range(10):
        write_case(tmp_path, "cavity", "bc", f"case{number:04d}", rows=8, columns=8)
    odd = tmp_path / "cavity" / "bc" / "case0004" / "case.json"
    values = json.loads(odd.read_text())
    odd.write_text(json.dumps(dict(reversed(values.items()))))
    with pytest.raises(ValueError, match=r"in one order, but bc/case\d{4} has "):
        ReferenceCfdBench(tmp_path, "cavity", subsets=["bc"])
    odd.write_text(json.dumps({**values, "case_no": 4}))
    with pytest.raises(ValueError, match="change from batch to batch"):
        ReferenceCfdBench(tmp_path, "cavity", subsets=["bc"])
    odd.write_text(json.dumps({**values, "note": "lid"}))
    with pytest.raises(ValueError, match="numbers only"):
        ReferenceCfdBench(tmp_path, "cavity", subsets=["bc"])
    # A list of theirs is not changed by what else is there.
    ReferenceCfdBench(tmp_path, "cavity", "frames", subsets=["bc"])
    del values["height"]
    odd.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="keys height in"):
        ReferenceCfdBench(tmp_path, "cavity", "frames", subsets=["bc"])


def test_other_grids_nan_and_steady_cases_are_named(tmp_path):
    for number in range(10):
        write_case(tmp_path, "cavity", "bc", f"case{number:04d}", rows=8, columns=8 if number else 9)
    with pytest.raises(ValueError, match=r"one grid but case .* points and .*; read them apart"):
        ReferenceCfdBench(tmp_path, "cavity", subsets=["bc"])
    folder = write_case(tmp_path / "bad", "cavity", "bc", "case0000", rows=8, columns=8)
    write_case(tmp_path / "bad", "cavity", "bc", "case0001", rows=8, columns=8)
    for name in ("u", "v"):
        np.save(folder / f"{name}.npy", np.full((4, 8, 8), np.nan))
        np.save(folder.parent / "case0001" / f"{name}.npy", np.ones((4, 8, 8)))
    adapter = ReferenceCfdBench(tmp_path / "bad", "cavity", subsets=["bc"])
    for split, names in adapter.metadata.attributes["cases"].items():
        message = "without NaN but frame 0 or 1" if "bc/case0000" in names else "too short, or steady"
        with pytest.raises(ValueError, match=message):
            adapter.trajectories(split)


# What the paper states.


def test_table_8_has_every_combination_of_subsets_of_both_networks():
    chosen = [["prop"], ["bc"], ["geo"], ["prop", "bc"], ["prop", "geo"], ["bc", "geo"], list(SUBSETS)]
    found = [
        published_scores(problem, subsets, model)
        for problem in PROBLEMS for subsets in chosen for model in ("FFN", "DeepONet")
    ]  # fmt: skip
    assert all(scores is not None and scores.source == "table 8" for scores in found)
    assert len(set(found)) == 56
    # A mean absolute error is at most the root of the mean square error; one printed cell breaks that.
    broken = [scores for scores in found if scores.mae > scores.mse**0.5]
    assert broken == [published_scores("cavity", ["prop"], "DeepONet")]


def test_figures_are_of_all_subsets():
    scores = published_scores("tube", ["geo", "prop", "bc"], "FNO")
    assert (scores.nmse, scores.mse, scores.source) == (0.005, None, "figure 7")
    assert published_scores("tube", ["prop"], "FNO") is None
    assert published_scores("dam", SUBSETS, "FNO") is None
    assert published_last_step("dam", "ResNet") is None
    assert published_last_step("tube", "FNO") == 50.0
