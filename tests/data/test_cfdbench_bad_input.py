"""What is wrong in a tree is named with its case and a cure; with ``skip_bad_cases`` the rest is read."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
from cfdbench_cases import write_case, write_tree

from pdesurrogate.data.adapters.cfdbench import CfdBench

CASE = "case0001"


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def change_json(**changes):
    def change(folder):
        values = json.loads((folder / "case.json").read_text()) | changes
        (folder / "case.json").write_text(
            json.dumps({key: value for key, value in values.items() if value is not None})
        )

    return change


def rename_key(old, new):
    def change(folder):
        text = (folder / "case.json").read_text()
        (folder / "case.json").write_text(text.replace(f'"{old}"', f'"{new}"'))

    return change


def write_text(text, name="case.json"):
    return lambda folder: (folder / name).write_text(text)


def truncate(name, size):
    def change(folder):
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return change


def change_array(name, function):
    def change(folder):
        np.save(folder / name, function(np.load(folder / name)))

    return change


def both_arrays(function):
    def change(folder):
        for name in ("u.npy", "v.npy"):
            change_array(name, function)(folder)

    return change


def save_objects(folder):
    np.save(folder / "u.npy", np.array([Trap()], dtype=object), allow_pickle=True)


def save_pickle(folder):
    (folder / "u.npy").write_bytes(pickle.dumps(Trap()))


def save_archive(folder):
    np.savez(folder / "u.npz", np.load(folder / "u.npy"))
    (folder / "u.npz").rename(folder / "u.npy")


def with_value(value):
    def change(array):
        array[3, 2, 1] = value
        return array

    return change


# Found when the tree is opened.
BAD_CASES = {
    "a missing key": ("tube", change_json(viscosity=None), r"viscosity is missing; found vel_in, density"),
    "a misspelt key": ("tube", rename_key("viscosity", "viscosty"), r"Is 'viscosty' a slip of the pen"),
    "another problem's file": ("tube", rename_key("vel_in", "vel_top"), r"vel_in is missing"),
    "words for a number": ("tube", change_json(density="heavy"), r"finite number for 'density'.*'heavy'"),
    "a truth for a number": ("tube", change_json(density=True), r"finite number for 'density'.*True"),
    "NaN for a number": ("tube", change_json(density=float("nan")), r"finite number for 'density'"),
    "infinity for a number": ("tube", change_json(vel_in=float("inf")), r"finite number for 'vel_in'"),
    "a number too large": ("tube", change_json(density=10**400), r"finite number for 'density'"),
    "a negative density": ("tube", change_json(density=-1.0), r"positive numbers but got density -1"),
    "no viscosity": ("tube", change_json(viscosity=0), r"positive numbers but got viscosity 0"),
    "a box without width": ("tube", change_json(width=0.0), r"positive numbers but got width 0"),
    "bad JSON": ("tube", write_text('{"vel_in": 1.0,'), r"JSON file .*case\.json but it cannot be read"),
    "no object": ("tube", write_text("[1, 2]"), r"JSON object in .* got a list"),
    "bytes for text": ("tube", lambda folder: (folder / "case.json").write_bytes(b"\xff\xfe\x00"), r"cannot be read"),
    "no case.json": ("tube", lambda folder: (folder / "case.json").unlink(), r"case\.json but it cannot be read"),
    "x the wrong way": ("cylinder", change_json(x_min=0.2), r"x_min and x_max.*wrong way round"),
    "no radius": ("cylinder", change_json(radius=0.0), r"positive numbers but got radius 0"),
    "a cylinder outside": ("cylinder", change_json(center_x=0.3), r"the body inside the box"),
    "a cylinder that blocks": ("cylinder", change_json(radius=0.07), r"the body inside the box"),
    "a barrier outside": ("dam", change_json(width=0.52), r"the body inside the box"),
    "a barrier that blocks": ("dam", change_json(barrier_height=0.4), r"the body inside the box"),
    "no u": ("tube", lambda folder: (folder / "u.npy").unlink(), r"u\.npy cannot be mapped"),
    "an empty u": ("tube", truncate("u.npy", 0), r"u\.npy cannot be mapped"),
    "half a header": ("tube", truncate("u.npy", 40), r"u\.npy cannot be mapped"),
    "half the frames": ("tube", truncate("v.npy", 1000), r"v\.npy cannot be mapped.*truncated"),
    "objects": ("tube", save_objects, r"u\.npy cannot be mapped.*objects, which are not loaded"),
    "a pickle": ("tube", save_pickle, r"u\.npy cannot be mapped"),
    "an archive": ("tube", save_archive, r"real numbers of at most 64 bits.*NpzFile"),
    "text for an array": ("tube", write_text("404 not found", "v.npy"), r"v\.npy cannot be mapped"),
    "whole numbers": ("tube", change_array("u.npy", lambda a: a.astype(int)), r"real numbers.*int64"),
    "complex numbers": ("tube", change_array("u.npy", lambda a: a.astype(complex)), r"real numbers.*complex128"),
    "a plane": ("tube", change_array("u.npy", lambda a: a[0]), r"\(time, rows, columns\).*\(8, 8\)"),
    "no frames": ("tube", change_array("u.npy", lambda a: a[:0]), r"with a frame at least"),
    "fewer frames in v": ("tube", change_array("v.npy", lambda a: a[:-1]), r"one shape.*\(5, 8, 8\) and \(4, 8, 8\)"),
    "another grid": ("tube", both_arrays(lambda a: a[:, ::2]), r"8 x 8 cells.*have 8 x 4.*give cells=\(8, 4\)"),
}  # fmt: skip


@pytest.mark.parametrize(("problem", "damage", "message"), BAD_CASES.values(), ids=BAD_CASES)
def test_a_bad_case_is_named_or_left_out(tmp_path, problem, damage, message):
    write_tree(tmp_path, problem, 3, 0, 0, rows=8, columns=8, frames=5, dx=None, dy=None)
    damage(tmp_path / problem / "bc" / CASE)
    with pytest.raises(ValueError, match=rf"(?s)Case bc/{CASE}: .*{message}.*skip_bad_cases=True"):
        CfdBench(tmp_path, problem, ("bc",), cells=(8, 8))
    with pytest.warns(UserWarning, match=f"Cases were left out: bc/{CASE}"):
        data = CfdBench(tmp_path, problem, ("bc",), cells=(8, 8), skip_bad_cases=True)
    assert [out.case for out in data.left_out] == [f"bc/{CASE}"]
    assert f"Case bc/{CASE}" not in str(data.left_out[0])
    assert {case.name.folder for split in data.splits for case in data.cases(split)} == {"case0000", "case0002"}
    assert f"left out: bc/{CASE}" in data.summary()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_are_named_with_their_frame(tmp_path, value):
    write_tree(tmp_path, "tube", 3, 0, 0, rows=8, columns=8, frames=5)
    change_array("v.npy", with_value(value))(tmp_path / "tube" / "bc" / CASE)
    data = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8), split=_Alone())
    (trajectory,) = data.trajectories("train")
    trajectory.read(0, 3)
    for start in (0, 2, 3):
        with pytest.raises(ValueError, match=rf"Case bc/{CASE}: .*frame 3 holds NaN or infinity.*skip_bad_cases=True"):
            trajectory.read(start)
    with pytest.warns(UserWarning, match=rf"bc/{CASE}: frame 3 holds NaN"):
        kept = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8), skip_bad_cases=True)
    assert all(case.name.folder != CASE for split in kept.splits for case in kept.cases(split))


class _Alone:
    def assign(self, names):
        return {"train": [name for name in names if name.folder == CASE]}


def test_a_frame_that_is_never_asked_for_does_not_matter(tmp_path):
    write_tree(tmp_path, "tube", 3, 0, 0, rows=8, columns=8, frames=5)
    change_array("v.npy", with_value(float("nan")))(tmp_path / "tube" / "bc" / CASE)
    options = {"subsets": ("bc",), "cells": (8, 8), "interval": 0.02, "skip_bad_cases": True}
    assert CfdBench(tmp_path, "tube", **options).left_out == ()
    with pytest.warns(UserWarning, match="frame 3"):
        CfdBench(tmp_path, "tube", starts="all", **options)


def test_a_case_that_is_left_out_moves_no_other(tmp_path):
    write_tree(tmp_path, "tube", 12, 0, 0, rows=8, columns=8)
    whole = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8))
    change_json(density=None)(tmp_path / "tube" / "bc" / CASE)
    with pytest.warns(UserWarning, match="left out"):
        rest = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8), skip_bad_cases=True)
    for split in whole.splits:
        assert [c.name for c in rest.cases(split)] == [c.name for c in whole.cases(split) if c.name.folder != CASE]


def test_single_frames_are_left_out_with_a_warning(tmp_path):
    write_case(tmp_path, "tube", name="case0", frames=1, rows=8, columns=8)
    write_case(tmp_path, "tube", name="case1", frames=3, rows=8, columns=8)
    with pytest.warns(UserWarning, match=r"bc/case0: 1 stored frames"):
        data = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8))
    assert [out.case for out in data.left_out] == ["bc/case0"]
    shutil.rmtree(tmp_path / "tube" / "bc" / "case0")
    with pytest.raises(ValueError, match="all were left out: bc/case1: 3 stored frames make one at every 5"):
        CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8), interval=0.05)


def test_repeated_frames_stay(tmp_path):
    folder = write_case(tmp_path, "cavity", rows=8, columns=8)
    both_arrays(lambda a: np.repeat(a, 2, axis=0))(folder)
    assert len(CfdBench(tmp_path, "cavity", ("bc",), cells=(8, 8)).trajectories("train")[0]) == 10


def test_unknown_keys_are_ignored_with_a_warning(tmp_path):
    write_case(tmp_path, "tube", rows=8, columns=8, gravity=9.81, dx=0.125, rotated=False)
    with pytest.warns(UserWarning, match="not known were ignored: gravity"):
        data = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8))
    assert data.trajectories("train")[0].context.parameters.shape == (5,)


def test_folders_without_a_number_are_skipped_with_a_warning(tmp_path):
    write_case(tmp_path, "tube", rows=8, columns=8)
    write_case(tmp_path, "tube", name="case_old", rows=8, columns=8)
    (tmp_path / "tube" / "bc" / "case").mkdir()
    with pytest.warns(UserWarning, match="without a number were skipped: bc/case, bc/case_old"):
        assert len(CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8)).cases("train")) == 1


def test_trees_that_are_not_there_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"a folder of CFDBench data but .* is not one"):
        CfdBench(tmp_path / "nowhere", "tube")
    write_case(tmp_path, "cavity")
    with pytest.raises(ValueError, match=r"a folder 'tube' in .* but found \['cavity'\]"):
        CfdBench(tmp_path, "tube")
    with pytest.raises(ValueError, match=r"a folder 'prop' in .*cavity but found \['bc'\]"):
        CfdBench(tmp_path, "cavity", ("bc", "prop"))
    (tmp_path / "cavity" / "prop").mkdir()
    with pytest.raises(ValueError, match=r"folders case0000, .* in .*prop but there are none"):
        CfdBench(tmp_path, "cavity", ("bc", "prop"))


def test_a_folder_named_after_another_problem_is_refused(tmp_path):
    # The keys of a step are those of a dam.
    write_case(tmp_path, "step", rows=8, columns=8)
    with pytest.raises(ValueError, match=r"a folder of 'dam' but .*step is named after another problem"):
        CfdBench(tmp_path / "step", "dam", ("bc",), cells=(8, 8))


def test_where_all_cases_are_bad_the_first_is_named(tmp_path):
    write_tree(tmp_path, "step", 2, 0, 0, rows=8, columns=8, density=-1.0)
    with pytest.raises(ValueError, match="all were left out: bc/case0000: Expected positive numbers but got density"):
        CfdBench(tmp_path, "step", ("bc",), cells=(8, 8), skip_bad_cases=True)


def test_an_early_archive_without_subsets_is_explained(tmp_path):
    write_case(tmp_path, "dam", ".", "case0000")
    with pytest.raises(
        ValueError, match="bc case0000 to case0069; prop case0070 to case0169; geo case0170 to case0219"
    ):
        CfdBench(tmp_path, "dam")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem": "lid"}, "a problem among cavity, tube, dam, step, cylinder"),
        ({"subsets": ("bc", "all")}, "a list of subsets among bc, prop and geo"),
        ({"subsets": "bc"}, "a list of subsets"),
        ({"subsets": ()}, "a list of subsets"),
        ({"mask": "round"}, "mask among physical, reference, none"),
        ({"boundary_rows": True}, "boundary_rows among none, reference"),
        ({"starts": "some"}, "starts among first, all"),
        ({"stored_interval": 0.0}, "positive stored_interval"),
        ({"interval": 0.015}, "multiple"),
        ({"cells": (64, 64)}, "64 x 64 cells"),
    ],
)
def test_impossible_arguments_are_refused(tmp_path, options, message):
    write_case(tmp_path, "tube", rows=8, columns=8)
    with pytest.raises(ValueError, match=message):
        CfdBench(tmp_path, **{"problem": "tube", "subsets": ("bc",), "cells": (8, 8), **options})


def test_a_split_without_cases_is_no_split(tmp_path):
    write_case(tmp_path, "tube", rows=8, columns=8)
    data = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8))
    assert data.splits == ("train",)
    with pytest.raises(ValueError, match=r"splits \('train',\) of .*got 'test'"):
        data.trajectories("test")


def test_files_that_change_under_the_reader_are_noticed(tmp_path):
    folder = write_case(tmp_path, "tube", rows=8, columns=8)
    data = CfdBench(tmp_path, "tube", ("bc",), cells=(8, 8))
    data = pickle.loads(pickle.dumps(data))
    both_arrays(lambda a: a[:-1])(folder)
    with pytest.raises(ValueError, match="as they were, but they have changed"):
        data.trajectories("train")[0].read()
