"""The adapter on small trees of all problems: what is read, in which order, with which geometry."""

from __future__ import annotations

import json
import os
import pickle
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from cfdbench_cases import BASE, frames_of, resting, write_case, write_tree
from jsonargparse import ArgumentParser

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.cfdbench import CfdBench, ListedSplit, ReferenceSplit, ShuffledSplit, UnseenSubset
from pdesurrogate.data.adapters.cfdbench.adapter import exact_stride
from pdesurrogate.data.adapters.cfdbench.problems import PROBLEMS
from pdesurrogate.data.adapters.cfdbench.published import PUBLISHED, reynolds_number
from pdesurrogate.data.adapters.cfdbench.splits import CaseFolder, reference_rounding
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.windows import Windows
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.fields.batch import collate, space_weights
from pdesurrogate.steppers.persistence import Persistence

FAKE = Path(__file__).parents[3] / "shared" / "golden" / "cfdbench_fake"
PUBLISHED_PROBLEMS = ("cavity", "tube", "dam", "cylinder")
EVERY = ReferenceSplit("truncate")


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """All problems: ten cases of bc, five of prop, four of geo, 4 to 7 frames on 16 x 16 cells."""
    root = tmp_path_factory.mktemp("trees")
    for problem in BASE:
        write_tree(root, problem, rows=16, columns=16, dx=None, dy=None)
    return root


def opened(trees, problem, **options):
    return CfdBench(trees, problem, cells=(16, 16), **options)


@pytest.mark.parametrize("problem", BASE)
def test_frames_are_those_of_the_files_x_first(trees, problem):
    data = opened(trees, problem)
    assert isinstance(data, Adapter)
    assert data.findings == ()
    assert data.left_out == ()
    for case, trajectory in zip(data.cases("train"), data.trajectories("train"), strict=True):
        u, v = np.load(case.folder / "u.npy"), np.load(case.folder / "v.npy")
        frames = trajectory.read()
        assert frames.shape == (len(u), 2, 16, 16)
        assert torch.equal(frames[:, 0], torch.from_numpy(u).float().transpose(1, 2))
        assert torch.equal(frames[:, 1], torch.from_numpy(v).float().transpose(1, 2))
        assert torch.equal(trajectory.read(1, 3), frames[1:3])
        assert trajectory.times.tolist() == pytest.approx([data.metadata.frame_interval * n for n in range(len(u))])


def test_metadata_say_what_the_fields_are(trees):
    metadata = opened(trees, "tube").metadata
    assert metadata.channel_names == ("velocity_x", "velocity_y")
    assert {channel.location for channel in metadata.channels} == {"cell"}
    assert {channel.vector for channel in metadata.channels} == {"velocity"}
    assert [(axis.name, axis.period, axis.units) for axis in metadata.grid.axes] == [("x", None, "m"), ("y", None, "m")]
    assert metadata.time_units == "s"
    assert metadata.attributes["content_hash"] != opened(trees, "tube", mask="none").metadata.attributes["content_hash"]
    json.dumps(metadata.to_dict())


@pytest.mark.parametrize("problem", BASE)
def test_parameters_keep_one_order(trees, problem):
    data = opened(trees, problem)
    (case, *_), (trajectory, *_) = data.cases("train"), data.trajectories("train")
    assert data.metadata.parameters == tuple(PROBLEMS[problem].parameters) == tuple(case.parameters)
    assert trajectory.context.parameters.tolist() == pytest.approx(list(case.parameters.values()))
    assert data.metadata.parameters[1:3] == ("density", "dynamic_viscosity")
    shuffled = dict(reversed(json.loads((case.folder / "case.json").read_text()).items()))
    text = (case.folder / "case.json").read_text()
    (case.folder / "case.json").write_text(json.dumps(shuffled))
    again = opened(trees, problem)
    (case.folder / "case.json").write_text(text)
    assert torch.equal(again.trajectories("train")[0].context.parameters, trajectory.context.parameters)


def test_parameters_are_those_of_our_simulators():
    problems = pytest.importorskip("pdesurrogate.simulators.enclosed.problems")
    ours = {"cavity": problems.Cavity, "tube": problems.Tube, "step": problems.StepFlow}
    ours["cylinder"] = problems.CylinderWake
    for problem, flow in ours.items():
        assert tuple(PROBLEMS[problem].parameters) == problems.parameter_names(flow())


def test_all_boxes_alike_give_bounds_and_others_do_not(tmp_path):
    for number, width in enumerate((1.0, 1.0, 2.0)):
        write_case(tmp_path, "tube", "geo" if width == 2 else "bc", f"case{number}", rows=8, columns=8, width=width)
    everything = CfdBench(tmp_path, "tube", ("bc", "geo"), cells=(8, 8))
    assert [axis.bounds for axis in everything.metadata.grid.axes] == [None, None]
    alike = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8))
    assert [axis.bounds for axis in alike.metadata.grid.axes] == [(0.0, 1.0), (0.0, 0.1)]
    wide = next(t for t in everything.trajectories("train") if t.context.parameters[3] == 2)
    assert wide.context.coordinates[0].tolist() == pytest.approx([0.125 + 0.25 * n for n in range(8)])
    for data in (everything, alike):
        weights = space_weights(
            data.metadata.grid, collate([t.context for t in data.trajectories("train")]), cells=True
        )
        assert weights.sum((1, 2, 3, 4)).tolist() == pytest.approx(
            [case.box.lengths[0] * case.box.lengths[1] for case in data.cases("train")]
        )


def test_a_cylinder_is_at_the_origin_of_its_coordinates(tmp_path):
    write_case(tmp_path, "cylinder", rows=64, columns=64)
    (trajectory,) = CfdBench(tmp_path, "cylinder", ("bc",)).trajectories("train")
    x, y = trajectory.context.coordinates
    assert (float(x[0]), float(x[-1])) == pytest.approx((-0.06 + 0.11 / 64, 0.16 - 0.11 / 64))
    assert (float(y[0]), float(y[-1])) == pytest.approx((-0.06 + 0.06 / 64, 0.06 - 0.06 / 64))
    centre_of_solid = [
        float((~trajectory.context.mask * line).sum() / (~trajectory.context.mask).sum()) for line in (x[:, None], y)
    ]
    assert centre_of_solid == pytest.approx([0, 0], abs=1e-3)


@pytest.mark.parametrize("problem", BASE)
def test_physical_masks_are_bodies_by_the_centers_of_cells(tmp_path, problem):
    write_case(tmp_path, problem)
    mask = CfdBench(tmp_path, problem, ("bc",)).trajectories("train")[0].context.mask
    if problem in ("cavity", "tube"):
        assert mask is None
    else:
        assert mask.dtype is torch.bool
        assert torch.equal(mask, torch.from_numpy(resting(problem, BASE[problem], 64, 64) > 0).T)
    assert CfdBench(tmp_path, problem, ("bc",), mask="none").trajectories("train")[0].context.mask is None


def test_the_barrier_of_the_base_case_is_sixteen_rows_of_two_columns(tmp_path):
    write_case(tmp_path, "dam")
    solid = ~CfdBench(tmp_path, "dam", ("bc",)).trajectories("train")[0].context.mask
    assert solid.nonzero().tolist() == [[column, row] for column in (21, 22) for row in range(16)]


def test_a_barrier_lower_than_a_cell_has_no_cell(tmp_path):
    write_case(tmp_path, "dam", barrier_height=0.002)
    assert bool(CfdBench(tmp_path, "dam", ("bc",)).trajectories("train")[0].context.mask.all())


def test_the_area_of_the_cylinder_is_that_of_its_disc(tmp_path):
    write_case(tmp_path, "cylinder")
    data = CfdBench(tmp_path, "cylinder", ("bc",))
    solid = ~data.trajectories("train")[0].context.mask
    dx, dy = 0.22 / 64, 0.12 / 64
    perimeter = 2 * np.pi * 0.01
    assert float(solid.sum()) * dx * dy == pytest.approx(np.pi * 0.01**2, abs=perimeter * max(dx, dy))


def test_a_center_that_the_file_states_is_taken(tmp_path):
    write_case(tmp_path, "cylinder", center_x=0.02, center_y=-0.01)
    with pytest.warns(UserWarning, match="a body at rest"):
        data = CfdBench(tmp_path, "cylinder", ("bc",))
    (trajectory,), solid = data.trajectories("train"), ~data.trajectories("train")[0].context.mask
    x, y = trajectory.context.coordinates
    assert float((solid * x[:, None]).sum() / solid.sum()) == pytest.approx(0.02, abs=2e-3)
    assert float((solid * y).sum() / solid.sum()) == pytest.approx(-0.01, abs=1e-3)


@pytest.mark.parametrize("problem", BASE)
def test_boundary_rows_are_those_of_the_authors(tmp_path, problem):
    write_case(tmp_path, problem, rows=16, columns=16, dx=None, dy=None)
    options = {"subsets": ("bc",), "cells": (16, 16)}
    inner = CfdBench(tmp_path, problem, **options).trajectories("train")[0]
    outer = CfdBench(tmp_path, problem, boundary_rows="reference", **options).trajectories("train")[0]
    frames, mask = outer.read(), outer.context.mask
    if problem == "cavity":
        assert torch.equal(frames, inner.read())
        assert mask is None
        return
    assert frames.shape[2:] == mask.shape == (17, 18)
    assert torch.equal(frames[:, :, 1:, 1:-1], inner.read())
    values = BASE[problem]
    height = values.get("height", 0.12)
    inlet = values.get("vel_in", values.get("velocity"))
    wet = [(row + 0.5) * height / 16 < (0.1 if problem == "dam" else height) for row in range(16)]
    assert frames[0, 0, 0, 1:-1].tolist() == pytest.approx([inlet * open_ for open_ in wet])
    assert not frames[:, 1, 0].any()
    assert not frames[:, :, :, [0, -1]].any()
    assert not mask[0].any()
    assert not mask[:, [0, -1]].any()
    solid = torch.zeros(16, 16, dtype=torch.bool) if inner.context.mask is None else ~inner.context.mask
    assert torch.equal(mask[1:, 1:-1], ~solid)
    for outside, inside, side in zip(
        outer.context.coordinates, inner.context.coordinates, (slice(1, None), slice(1, -1)), strict=True
    ):
        assert torch.allclose(outside[side], inside)
        assert torch.allclose(outside.diff(), inside.diff()[0].expand(len(outside) - 1))


def test_bounds_reach_around_the_boundary_rows(tmp_path):
    write_case(tmp_path, "tube", rows=10, columns=10)
    data = CfdBench(tmp_path, "tube", ("bc",), cells=(10, 10), boundary_rows="reference")
    x, y = data.metadata.grid.axes
    assert x.bounds == pytest.approx((-0.1, 1.0))
    assert y.bounds == pytest.approx((-0.01, 0.11))


def test_the_authors_masks_have_no_obstacle(tmp_path):
    for problem in ("dam", "cylinder"):
        write_case(tmp_path, problem)
        data = CfdBench(tmp_path, problem, ("bc",), mask="reference", boundary_rows="reference")
        mask = data.trajectories("train")[0].context.mask
        assert bool(mask[1:, 1:-1].all())
        assert int((~mask).sum()) == 66 * 65 - 64 * 64


@pytest.mark.parametrize(
    ("interval", "stored", "stride"), [(0.1, 0.1, 1), (0.3, 0.1, 3), (0.6, 0.1, 6), (0.1, 0.001, 100), (0.7, 0.01, 70)]
)
def test_strides_are_exact(interval, stored, stride):
    assert exact_stride(interval, stored) == stride


@pytest.mark.parametrize("interval", [0.15, 0.0, -0.1, 0.05, 0.1 + 2e-7, float("nan"), float("inf")])
def test_intervals_that_the_data_cannot_give_are_refused(interval):
    with pytest.raises(ValueError, match=r"multiple of the 0\.1 s between stored frames"):
        exact_stride(interval, 0.1)


def test_an_interval_keeps_every_nth_frame(trees):
    every, third = opened(trees, "cavity"), opened(trees, "cavity", interval=0.3)
    assert third.metadata.frame_interval == pytest.approx(0.3)
    for case, one, other in zip(
        every.cases("train"), every.trajectories("train"), third.trajectories("train"), strict=True
    ):
        assert len(other) == -(-case.frames // 3)
        assert torch.equal(other.read(), one.read()[::3])
        assert torch.allclose(other.times, one.times[::3])
        assert torch.equal(other.read(1, 2), one.read(3, 4))


def test_all_starts_give_every_pair_of_frames_once_and_only_in_training(trees):
    data = opened(trees, "cavity", interval=0.2, starts="all", split=EVERY)
    pairs = sum(case.frames - 2 for case in opened(trees, "cavity", split=EVERY).cases("train"))
    assert len(Windows(data.trajectories("train"), 1, 1)) == pairs
    assert len(data.cases("test")) == len({case.name for case in data.cases("test")})
    case, trajectory = data.cases("train")[1], data.trajectories("train")[1]
    u = torch.from_numpy(np.load(case.folder / "u.npy")).float().transpose(1, 2)
    assert torch.equal(trajectory.read()[:, 0], u[1::2])
    assert trajectory.times[0] == pytest.approx(0.1)


def test_intervals_are_those_of_the_files_then_of_the_paper(tmp_path):
    write_case(tmp_path, "tube")
    assert CfdBench(tmp_path, "tube", ("bc",)).metadata.frame_interval == 0.01
    assert CfdBench(tmp_path, "tube", ("bc",), stored_interval=0.1).metadata.frame_interval == 0.1
    write_case(tmp_path, "tube", "geo", dt_frame=0.25, t0=2.0)
    stated = CfdBench(tmp_path, "tube", ("geo",))
    assert stated.metadata.frame_interval == 0.25
    assert stated.trajectories("train")[0].times[:2].tolist() == [2.0, 2.25]
    with pytest.raises(ValueError, match="one positive dt_frame in all"):
        CfdBench(tmp_path, "tube", ("bc", "geo"))
    write_case(tmp_path, "step", dt_frame=None)
    with pytest.raises(ValueError, match="give stored_interval"):
        CfdBench(tmp_path, "step", ("bc",))


def test_what_our_own_file_says_is_taken(tmp_path):
    for number in range(3):
        folder = write_case(
            tmp_path, "step", name=f"case{number}", dt_frame=None, rows=16, columns=16, dx=None, dy=None
        )
        split = ("train", "val", "test")[number]
        own = {"dt_frame": 0.5, "t0": 1.0, "split": split, "parameters": {"step_position": 2.0, "density": 7.0}}
        (folder / "pdesurrogate.json").write_text(json.dumps(own))
    with pytest.warns(UserWarning, match="a body at rest"):
        data = CfdBench(tmp_path, "step", ("bc",), cells=(16, 16))
    assert data.metadata.frame_interval == 0.5
    assert [str(case.name) for split in data.splits for case in data.cases(split)] == [f"bc/case{n}" for n in range(3)]
    parameters = data.cases("test")[0].parameters
    assert parameters["step_position"] == 2.0
    assert parameters["density"] == 1.0
    solid = ~data.trajectories("test")[0].context.mask
    assert solid.any(1).nonzero().flatten().tolist() == [8]


# Splits


def named(bc=0, prop=0, geo=0):
    names = []
    for subset, count in (("bc", bc), ("prop", prop), ("geo", geo)):
        names += [CaseFolder(subset, f"case{len(names) + number:04d}") for number in range(count)]
    return names


RULES = [ShuffledSplit(), ReferenceSplit("round"), ReferenceSplit("truncate"), UnseenSubset("geo")]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("problem", PUBLISHED_PROBLEMS)
def test_no_case_is_in_two_splits_and_none_is_lost(rule, problem):
    names = named(**PUBLISHED[problem].cases)
    state = random.getstate()
    splits = rule.assign(names)
    assert random.getstate() == state
    assert sorted(name for split in splits.values() for name in split) == sorted(names)
    assert splits == rule.assign(names)
    assert min(map(len, splits.values())) > 0


@pytest.mark.parametrize(
    ("problem", "task", "sizes"),
    [
        ("cavity", "pairs", (127, 16, 16)),
        ("tube", "frames", (140, 18, 17)),
        ("tube", "pairs", (140, 17, 18)),
        ("dam", "pairs", (176, 22, 22)),
        ("cylinder", "frames", (148, 18, 19)),
    ],
)
def test_the_authors_splits_have_their_sizes(problem, task, sizes):
    splits = ReferenceSplit(reference_rounding(problem, task)).assign(named(**PUBLISHED[problem].cases))
    assert tuple(len(splits[split]) for split in ("train", "val", "test")) == sizes


def test_the_authors_splits_are_drawn_as_theirs():
    names = named(bc=5, prop=7, geo=3)
    expected = names[5:12] + names[:5] + names[12:]
    random.seed(0)
    random.shuffle(expected)
    splits = ReferenceSplit().assign(names)
    assert splits["train"] + splits["val"] + splits["test"] == expected


def test_a_case_keeps_its_split_whichever_subsets_are_read():
    whole, alone = ShuffledSplit().assign(named(bc=20, prop=30)), ShuffledSplit().assign(named(bc=20))
    for split in ("train", "val", "test"):
        assert alone[split] == [name for name in whole[split] if name.subset == "bc"]


def test_an_unseen_subset_is_for_testing_alone(trees):
    data = opened(trees, "tube", split=UnseenSubset("geo"))
    assert {case.name.subset for case in data.cases("test")} == {"geo"}
    assert {case.name.subset for split in ("train", "val") for case in data.cases(split)} == {"bc", "prop"}
    with pytest.raises(ValueError, match="read more subsets"):
        opened(trees, "tube", subsets=("bc",), split=UnseenSubset("geo"))


def test_listed_cases_are_where_they_are_listed(trees):
    data = opened(trees, "tube", split=ListedSplit(train=["geo/case0015"], test=["bc/case0000", "prop/case0010"]))
    assert data.splits == ("train", "test")
    assert [str(case.name) for case in data.cases("test")] == ["bc/case0000", "prop/case0010"]
    with pytest.raises(ValueError, match="not in it"):
        opened(trees, "tube", split=ListedSplit(train=["geo/case0000"]))
    with pytest.raises(ValueError, match="listed twice"):
        ListedSplit(train=["bc/case0"], val=["bc/case0"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: ShuffledSplit(-0.1),
        lambda: ShuffledSplit(0.5, 0.5),
        lambda: UnseenSubset("all"),
        lambda: ReferenceSplit("up"),
    ],
)
def test_impossible_rules_are_refused(make):
    with pytest.raises(ValueError, match="Expected"):
        make()


def test_subsets_can_be_tested_apart(trees):
    data = opened(trees, "dam")
    parts = [data.of_subset(subset) for subset in ("bc", "prop", "geo")]
    assert all(isinstance(part, Adapter) for part in parts)
    for split in data.splits:
        together = [case.name for part in parts if split in part.splits for case in part.cases(split)]
        assert sorted(together) == sorted(case.name for case in data.cases(split))
    frames = parts[0].trajectories("test")[0].read()
    own = next(n for n, case in enumerate(data.cases("test")) if case.name.subset == "bc")
    assert torch.equal(frames, data.trajectories("test")[own].read())
    with pytest.raises(ValueError, match="no case of 'geo'"):
        opened(trees, "dam", subsets=("bc",)).of_subset("geo")
    with pytest.raises(ValueError, match="splits"):
        parts[0].trajectories("other")


# Layout


def test_cases_come_by_number_and_subsets_as_prop_bc_geo(tmp_path):
    for subset, name in (("bc", "case10"), ("bc", "case2"), ("bc", "case0003"), ("prop", "case700"), ("geo", "case1")):
        write_case(tmp_path, "tube", subset, name, rows=8, columns=8)
    (tmp_path / "tube" / "bc" / "notes.txt").write_text("stray")
    (tmp_path / "tube" / "bc" / "case99").write_text("a file, not a folder")
    (tmp_path / "tube" / "bc" / ".cache").mkdir()
    (tmp_path / "tube" / "readme").mkdir()
    listed = CfdBench(tmp_path, "tube", cells=(8, 8), split=_InOrder())
    names = [str(case.name) for case in listed.cases("train")]
    assert names == ["prop/case700", "bc/case2", "bc/case0003", "bc/case10", "geo/case1"]
    assert listed.cases("train")[0].number == 700
    inside = CfdBench(tmp_path / "tube", "tube", ("geo",), cells=(8, 8))
    assert [str(case.name) for case in inside.cases("train")] == ["geo/case1"]


class _InOrder:
    def assign(self, names):
        return {"train": list(names)}


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_floating_format_is_read(tmp_path, dtype, order):
    folder = write_case(tmp_path, "tube", rows=8, columns=8)
    for name in ("u.npy", "v.npy"):
        array = np.load(folder / name)
        np.save(folder / name, np.asarray(array, dtype=dtype, order=order))
    (trajectory,) = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8)).trajectories("train")
    u = frames_of("tube", BASE["tube"], 5, 8, 8)[0].astype(dtype).astype("f4")
    assert torch.equal(trajectory.read()[:, 0], torch.from_numpy(u).transpose(1, 2))


def test_a_folder_that_cannot_be_written_is_read_and_stays_as_it_is(tmp_path):
    write_tree(tmp_path, "cylinder", 3, 0, 0, rows=8, columns=8)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    here = set(Path.cwd().iterdir())
    CfdBench(tmp_path, "cylinder", ("bc",), cells=(8, 8), skip_bad_cases=True).trajectories("train")[0].read()
    for path in before:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert set(Path.cwd().iterdir()) == here


def test_maps_are_opened_at_first_use_and_do_not_travel(trees):
    data = opened(trees, "tube")
    (trajectory, *_) = data.trajectories("train")
    frames = trajectory.read()
    again = pickle.loads(pickle.dumps(trajectory))
    assert torch.equal(again.read(), frames)
    assert len(pickle.dumps(data)) < 100_000


def test_few_files_stay_open(trees, monkeypatch):
    monkeypatch.setattr("pdesurrogate.data.adapters.cfdbench.tree._MAPS_KEPT", 4)
    data = opened(trees, "tube")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    expected = [trajectory.read().sum().item() for trajectory in data.trajectories("train")]
    assert expected == [trajectory.read().sum().item() for trajectory in data.trajectories("train")]
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 4


# What the frames look like


def flipped(folder, turn):
    for name in ("u.npy", "v.npy"):
        np.save(folder / name, np.ascontiguousarray(turn(np.load(folder / name))))


@pytest.mark.parametrize(
    ("problem", "turn", "message"),
    [
        ("cavity", lambda a: a[:, ::-1], r"largest in the last rows.*bc/case0000 \(fastest in band 1 of 8"),
        ("cavity", lambda a: -a, "along it"),
        ("tube", lambda a: a.transpose(0, 2, 1), "faster there than along the walls"),
        ("tube", lambda a: -a, "stream from the first column"),
        ("cylinder", lambda a: a[:, :, ::-1], "body at rest"),
        ("dam", lambda a: a[:, ::-1], "body at rest"),
        ("tube", lambda a: 1000 * a, r"units may differ.*fastest 1\.\d+e\+03, driven at 1\)"),
        ("cavity", lambda a: 0 * a, "units may differ"),
    ],
)
def test_frames_that_do_not_look_like_their_files_are_reported(tmp_path, problem, turn, message):
    flipped(write_case(tmp_path, problem), turn)
    with pytest.warns(UserWarning, match=message):
        data = CfdBench(tmp_path, problem, ("bc",))
    assert data.findings
    assert data.findings[0] in data.summary()
    assert len(data.trajectories("train")[0]) == 5


def test_spacings_and_rotations_that_contradict_are_reported(tmp_path):
    write_case(tmp_path, "dam", height=1.0, rotated=True)
    with pytest.warns(UserWarning, match=r"dy 0\.00625, 0\.015625 by the box"):
        data = CfdBench(tmp_path, "dam", ("bc",))
    assert any("rotated" in finding for finding in data.findings)


def test_the_summary_says_what_was_read(trees):
    text = opened(trees, "cylinder").summary()
    assert "train prop" in text
    assert "Re 200 to 200" in text


@pytest.mark.parametrize(("problem", "expected"), [("cavity", 1e4), ("tube", 100), ("dam", 100), ("cylinder", 200)])
def test_base_cases_have_the_published_reynolds_numbers(tmp_path, problem, expected):
    write_case(tmp_path, problem)
    (case,) = CfdBench(tmp_path, problem, ("bc",)).cases("train")
    assert reynolds_number(problem, case.parameters) == pytest.approx(expected)


def test_published_counts_add_up():
    assert sum(sum(found.cases.values()) for found in PUBLISHED.values()) == 739
    assert sum(found.frames for found in PUBLISHED.values()) == 301_671


# From files to batches and reports


def test_the_datamodule_normalizes_by_the_training_split(trees):
    data = opened(trees, "cavity")
    module = ForecastData(data, batch_size=4)
    values = [torch.from_numpy(np.load(case.folder / f"{name}.npy")) for case in data.cases("train") for name in "uv"]
    u, v = (torch.cat([each.flatten() for each in values[place::2]]) for place in (0, 1))
    assert module.statistics.mean.tolist() == pytest.approx([float(u.mean()), float(v.mean())], rel=1e-4)
    shared = float(((u.var(correction=0) + v.var(correction=0)) / 2).sqrt())
    assert module.statistics.std.tolist() == pytest.approx([shared, shared], rel=1e-4)
    assert module.space == (16, 16)


@pytest.mark.parametrize("problem", BASE)
def test_batches_hold_the_context_of_each_case(trees, problem):
    data = opened(trees, problem, boundary_rows="reference")
    batch = next(iter(ForecastData(data, history_frames=2, batch_size=5).train_dataloader()))
    parameters = len(data.metadata.parameters)
    assert batch.context.parameters.shape == (5, parameters)
    assert batch.history.shape[:3] == (5, 2, 2)
    assert (batch.context.mask is None) == (problem == "cavity")


def test_trajectories_of_different_lengths_make_their_own_windows(trees):
    data = opened(trees, "tube")
    frames = [case.frames for case in data.cases("train")]
    assert len(set(frames)) > 1
    assert len(Windows(data.trajectories("train"), 2, 1)) == sum(length - 2 for length in frames)


@pytest.mark.parametrize("problem", ["cavity", "dam"])
def test_persistence_is_measured_up_to_the_shortest_case(trees, problem):
    data = opened(trees, problem)
    tests = data.trajectories("test")
    shortest = min(len(trajectory) for trajectory in tests)
    report = Evaluator()(Persistence(), tests, frames=shortest - 1)
    assert report.attributes["scores"]["relative_l2"]["value"] > 0
    with pytest.raises(ValueError, match=f"ask for at most {shortest - 1}"):
        Evaluator()(Persistence(), tests, frames=shortest)


@pytest.mark.skipif(not FAKE.exists(), reason="the sixteen cases are not handed out with the package")
def test_the_sixteen_cases_at_hand_are_read():
    found = []
    for problem in PUBLISHED_PROBLEMS:
        with warnings.catch_warnings():
            # Their fields are no flows: neither lid nor body show in them.
            warnings.simplefilter("ignore", UserWarning)
            data = CfdBench(FAKE, problem, split=EVERY)
        cases = [case for split in data.splits for case in data.cases(split)]
        assert [len(t) for split in data.splits for t in data.trajectories(split)] == [case.frames for case in cases]
        found += cases
    assert len(found) == 16


def test_a_yaml_file_describes_it_by_class_path(trees):
    parser = ArgumentParser()
    parser.add_subclass_arguments(Adapter, "adapter")
    rule = {"class_path": "pdesurrogate.data.adapters.cfdbench.UnseenSubset", "init_args": {"test": "geo", "val": 0.2}}
    options = {"path": str(trees), "problem": "dam", "subsets": ["bc", "geo"], "split": rule, "interval": 0.2}
    options |= {"cells": [16, 16], "boundary_rows": "reference"}
    given = {"adapter": {"class_path": "pdesurrogate.data.adapters.cfdbench.CfdBench", "init_args": options}}
    data = parser.instantiate_classes(parser.parse_object(given)).adapter
    assert isinstance(data, CfdBench)
    assert {case.name.subset for case in data.cases("test")} == {"geo"}
    assert data.trajectories("train")[0].shape[1:] == (2, 17, 18)


def test_solid_cells_and_boundary_rows_are_left_out_of_the_statistics(trees):
    data = opened(trees, "dam", boundary_rows="reference")
    fluid = [resting("dam", BASE["dam"], 16, 16) > 0 for _ in data.cases("train")]
    cases = data.cases("train")
    u = np.concatenate([np.load(case.folder / "u.npy")[:, at].ravel() for case, at in zip(cases, fluid, strict=True)])
    assert ForecastData(data).statistics.mean[0].item() == pytest.approx(u.mean(), rel=1e-5)


def test_predicting_refuses_test_trajectories_of_different_lengths(trees):
    with pytest.raises(ValueError, match="test trajectories of one length"):
        ForecastData(opened(trees, "tube")).predict_dataloader()
