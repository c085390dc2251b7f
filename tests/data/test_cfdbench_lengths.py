"""Trees whose cases differ in length: cut to what all have, or left out by name."""

from __future__ import annotations

import pytest
import torch
from cfdbench_cases import write_case, write_tree

from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.tree_conversion import convert_tree

pytestmark = pytest.mark.filterwarnings("ignore:What the data look like")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Cases of 4 to 7 frames."""
    return write_tree(tmp_path_factory.mktemp("tree"), "cavity", bc=6, prop=3, geo=3, rows=16, columns=16)


def opened(tree, **options):
    return CfdBench(tree, "cavity", cells=(16, 16), **options)


def convert(adapter, tree, out):
    return convert_tree(adapter, out, folder=tree / "cavity", source={"adapter": "CfdBench"})


def test_first_frames_alone_are_those_of_the_whole_cases(tree):
    whole, cut = opened(tree), opened(tree, frames=4)
    assert cut.left_out == ()
    for split in whole.splits:
        assert [case.name for case in cut.cases(split)] == [case.name for case in whole.cases(split)]
        for one, other in zip(cut.trajectories(split), whole.trajectories(split), strict=True):
            assert len(one) == 4
            assert torch.equal(one.read(), other.read(0, 4))
            assert torch.equal(one.times, other.times[:4])


def test_a_cut_tree_becomes_an_archive_with_those_frames(tree, tmp_path):
    cut = opened(tree, frames=4)
    convert(cut, tree, tmp_path)
    archive = Archive(tmp_path)
    for split in cut.splits:
        for one, other in zip(archive.trajectories(split), cut.trajectories(split), strict=True):
            assert torch.equal(one.read(), other.read())


def test_without_a_number_the_refusal_names_the_cure_and_it_works(tree, tmp_path):
    with pytest.raises(ValueError, match=r"cases of one length.*with frames=4, or to more and leave shorter ones out"):
        convert(opened(tree), tree, tmp_path / "none")
    assert convert(opened(tree, frames=4), tree, tmp_path / "some")


def test_shorter_cases_are_named_or_left_out(tree):
    with pytest.raises(ValueError, match=r"Expected 6 frames of each case but 6 of 12 are shorter: .*\(4\).*frames=4"):
        opened(tree, frames=6)
    with pytest.warns(UserWarning, match="Cases were left out: .*4 of the 6 frames asked for"):
        cut = opened(tree, frames=6, skip_bad_cases=True)
    assert len(cut.left_out) == 6
    assert {len(trajectory) for split in cut.splits for trajectory in cut.trajectories(split)} == {6}
    assert {str(case.name) for split in cut.splits for case in cut.cases(split)}.isdisjoint(
        out.case for out in cut.left_out
    )


def test_frames_are_counted_at_the_interval_that_is_asked_for(tree):
    # Frames 0 and 2 of all; 0, 2, 4 and 6 of the longest.
    cut = opened(tree, interval=0.2, starts="all", frames=2)
    for trajectory, case in zip(cut.trajectories("train"), cut.cases("train"), strict=True):
        assert len(trajectory) == 2
        assert case.frames >= 4
    assert len(cut.trajectories("train")) == 2 * len({case.name for case in cut.cases("train")})


def test_starts_that_leave_too_few_frames_are_no_trajectories(tmp_path):
    for number in range(3):
        write_case(tmp_path, "cavity", "bc", f"case{number:04d}", frames=5, rows=16, columns=16)
    cut = opened(tmp_path, subsets=["bc"], interval=0.2, starts="all", frames=3)
    # Of frames 0 to 4 there are three two apart from the first alone.
    assert [len(trajectory) for trajectory in cut.trajectories("train")] == [3]


def test_the_hash_is_the_old_one_without_the_option(tree):
    hashes = [opened(tree, **options).metadata.attributes["content_hash"] for options in ({}, {"frames": None})]
    assert hashes[0] == hashes[1]
    cut = opened(tree, frames=4).metadata.attributes
    assert cut["frames"] == 4
    assert cut["content_hash"] != hashes[0]
    assert "frames" not in opened(tree).metadata.attributes


def test_nan_behind_the_cut_is_no_matter(tmp_path):
    import numpy as np

    folders = [write_case(tmp_path, "cavity", "bc", f"case{n:04d}", frames=5, rows=16, columns=16) for n in range(3)]
    array = np.load(folders[0] / "u.npy")
    array[4] = np.nan
    np.save(folders[0] / "u.npy", array)
    assert opened(tmp_path, subsets=["bc"], frames=4, skip_bad_cases=True).left_out == ()
    with pytest.warns(UserWarning, match="frame 4 holds NaN"):
        assert len(opened(tmp_path, subsets=["bc"], frames=5, skip_bad_cases=True).left_out) == 1


@pytest.mark.parametrize("frames", [1, 0, -3])
def test_fewer_than_two_frames_are_no_trajectory(tree, frames):
    with pytest.raises(ValueError, match=f"at least two frames of a trajectory but got frames={frames}"):
        opened(tree, frames=frames)
