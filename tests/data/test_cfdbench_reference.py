"""What the authors' loaders give, against arrays that their functions made of the small cases in the golden file.

``cfdbench_loaders.npz`` holds ``u`` and ``v`` of three cases for each problem, 6 rows and 8 columns, one of them with a
repeated frame, the features that both versions of the code make of them, and (in ``said``, JSON) case files,
parameters, the shuffled order and the case of each pair. The input is made up; their published functions were run on it
once, outside of this repository, of which their code is no part.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cfdbench_cases import write_case

from pdesurrogate.data.adapters.cfdbench import CfdBench, ReferenceFrames, ReferencePairs, reference_datasets
from pdesurrogate.data.adapters.cfdbench.reference import FRAME_PARAMETERS, reference_case, reference_folders

GOLDEN = Path(__file__).parents[1] / "golden" / "cfdbench_loaders.npz"
PROBLEMS = ("cavity", "tube", "dam", "cylinder")
VERSIONS = [*((problem, "old") for problem in PROBLEMS), ("cylinder", "head")]
# One frame apart, whatever the authors take that to be.
ONE_FRAME = {"cavity": 0.1, "tube": 0.1, "dam": 0.1, "cylinder": 0.001}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays.pop("said")))


@pytest.fixture(scope="module")
def tree(golden, tmp_path_factory):
    arrays, said = golden
    root = tmp_path_factory.mktemp("golden")
    for case in (name for name in said if "/" in name):
        (root / case).mkdir(parents=True)
        (root / case / "case.json").write_text(json.dumps(dict(said[case]["case"])))
        for name in "uv":
            np.save(root / case / f"{name}.npy", arrays[f"{case}/{name}"])
    return root


@pytest.mark.parametrize(("problem", "version"), VERSIONS)
def test_features_and_parameters_are_bit_equal(tree, golden, problem, version):
    arrays, said = golden
    cases = [case for case in said if case.startswith(f"{problem}/")]
    assert len(cases) == 3
    for case in cases:
        features, parameters = reference_case(tree / case, problem, version)
        assert features.dtype == np.float64
        assert np.array_equal(features, arrays[f"{case}/{version}"])
        assert [list(item) for item in parameters.items()] == said[case][version]


@pytest.mark.parametrize("problem", ["cavity", "tube", "dam"])
def test_both_versions_read_other_problems_alike(tree, problem):
    for folder in sorted((tree / problem).glob("*/case*")):
        old, head = (reference_case(folder, problem, version) for version in ("old", "head"))
        assert np.array_equal(old.features, head.features)
        assert old.parameters == head.parameters


@pytest.mark.parametrize("problem", PROBLEMS)
def test_pairs_are_those_of_the_authors(tree, golden, problem):
    arrays, said = golden
    order = said[problem]["order"]
    folders = reference_folders(tree, problem, "pairs")
    assert [path for split in folders.values() for path in split] == [tree / case for case in order]
    data = ReferencePairs([tree / case for case in order], problem, delta_time=ONE_FRAME[problem])
    assert data.case_ids == said[problem]["pairs"]
    assert [[list(item) for item in each.items()] for each in data.case_params] == said[problem]["normalized"]
    before = dict.fromkeys(range(3), 0)
    for place, number in enumerate(data.case_ids):
        features = torch.from_numpy(arrays[f"{order[number]}/old"]).float()
        inputs, labels, parameters = data[place]
        assert torch.equal(inputs, features[before[number]])
        assert torch.equal(labels, features[before[number] + 1])
        assert list(parameters) == [key for key, _ in said[problem]["normalized"][number]]
        before[number] += 1
    assert [len(features) for features in data.all_features] == [5, 5, 5]


def test_a_repeated_frame_ends_a_case_but_not_for_the_dam(golden):
    _, said = golden
    lengths = {problem: [said[problem]["pairs"].count(case) for case in range(3)] for problem in PROBLEMS}
    assert lengths["dam"] == [4, 4, 4]
    for problem in ("cavity", "tube", "cylinder"):
        bc = next(place for place, case in enumerate(said[problem]["order"]) if "/bc/" in case)
        assert lengths[problem] == [2 if place == bc else 4 for place in range(3)]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_batches_have_the_vector_in_the_order_of_the_file(tree, golden, problem):
    _, said = golden
    data = ReferencePairs([tree / said[problem]["order"][0]], problem, delta_time=ONE_FRAME[problem])
    batch = ReferencePairs.collate([data[0], data[1]])
    rows, columns = (6, 8) if problem == "cavity" else (8, 9)
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "inputs": (2, 2, rows, columns),
        "label": (2, 2, rows, columns),
        "mask": (2, 1, rows, columns),
        "case_params": (2, 8 if problem == "cylinder" else 5),
    }
    expected = [value for key, value in said[problem]["normalized"][0] if key not in ("rotated", "dx", "dy")]
    assert torch.equal(batch["case_params"][0], torch.tensor(expected))
    assert torch.equal(batch["inputs"][1], data.inputs[1, :2])
    assert torch.equal(batch["label"][0], batch["inputs"][1])


@pytest.mark.parametrize(("problem", "version"), VERSIONS)
def test_frames_come_case_after_case_with_their_number_for_time(tree, golden, problem, version):
    arrays, said = golden
    order = said[problem]["order"]
    data = ReferenceFrames([tree / case for case in order], problem, version, norm_props=False, norm_bc=False)
    assert data.ends == [5, 10, 15]
    assert len(data) == 15
    for place in range(15):
        case, frame = divmod(place, 5)
        parameters, time, values = data[place]
        assert time.tolist() == [float(frame)]
        assert torch.equal(values, torch.from_numpy(arrays[f"{order[case]}/{version}"][frame]).float())
        said_here = dict(said[order[case]][version])
        assert torch.equal(parameters, torch.tensor([said_here[key] for key in FRAME_PARAMETERS[problem]]))


def test_the_old_code_finds_a_cylinder_where_none_is_published(golden):
    arrays, _ = golden
    inside = arrays["cylinder/prop/case8/old"][:, 2, 1:-1, 1:]
    assert (inside == 1).all()
    # Our box was made to reach the point in question.
    assert (arrays["cylinder/geo/case10/old"][:, 2, 1:-1, 1:] == 0).any()


def test_the_adapter_has_the_same_cells_and_masks_in_reference_mode(tree, golden):
    arrays, _ = golden
    for problem in ("tube", "cylinder"):
        with pytest.warns(UserWarning, match="does not fit"):
            # Noise is no flow.
            data = CfdBench(tree, problem, cells=(8, 6), mask="reference", boundary_rows="reference")
        for case, trajectory in zip(data.cases("train"), data.trajectories("train"), strict=True):
            expected = torch.from_numpy(arrays[f"{problem}/{case.name}/old"])
            assert torch.equal(trajectory.read(), expected[:, :2].float().transpose(-1, -2))
            assert torch.equal(trajectory.context.mask, expected[0, 2].T > 0)


@pytest.mark.parametrize(("delta_time", "frames"), [(0.1, 1), (0.2, 2), (0.3, 2), (0.6, 5)])
def test_strides_are_cut_off_as_theirs(tmp_path, delta_time, frames):
    folder = write_case(tmp_path, "dam", frames=7)
    data = ReferencePairs([folder], "dam", delta_time=delta_time)
    assert data.time_step_size == frames
    assert len(data) == 7 - frames


@pytest.mark.parametrize(("height", "rows"), [(0.1, 16), (0.15, 23)])
def test_the_dams_inlet_is_as_high_as_the_barrier_for_them(tmp_path, height, rows):
    features = reference_case(write_case(tmp_path, "dam", barrier_height=height), "dam").features
    assert features.shape == (5, 3, 66, 65)
    assert (features[:, 0, 1 : rows + 1, 0] == 1).all()
    assert not features[:, 0, rows + 1 :, 0].any()
    assert not features[:, :, [0, -1]].any()
    assert (features[:, 2, 1:-1, 1:] == 1).all()


def test_the_adapters_dam_differs_from_theirs_at_the_inlet_alone(tmp_path):
    folder = write_case(tmp_path, "dam", "geo", barrier_height=0.15)
    theirs = torch.from_numpy(reference_case(folder, "dam").features)[:, :2].float().transpose(-1, -2)
    data = CfdBench(tmp_path, "dam", ("geo",), mask="reference", boundary_rows="reference")
    differs = (data.trajectories("train")[0].read() != theirs).nonzero()
    # Rows 17 to 23 of the inlet's column, from 0.1 m upwards, in u.
    assert differs[:, 1:].unique(dim=0).tolist() == [[0, 0, row] for row in range(17, 24)]


def test_precision_is_that_of_the_file_and_other_byte_orders_are_turned(tmp_path):
    folder = write_case(tmp_path, "cavity", rows=8, columns=8)
    for name in ("u.npy", "v.npy"):
        np.save(folder / name, np.load(folder / name).astype(">f4"))
    data = ReferencePairs([folder], "cavity")
    assert data.all_features[0].dtype == np.float32
    assert data.inputs.shape == (4, 3, 8, 8)


def test_data_sets_come_by_split_and_empty_ones_are_left_out(tree):
    pairs = reference_datasets(tree, "tube", "pairs")
    assert {split: len(data.case_params) for split, data in pairs.items()} == {"train": 2, "test": 1}
    frames = reference_datasets(tree, "tube", "frames", ("bc",), norm_bc=False)
    assert {split: len(data) for split, data in frames.items()} == {"train": 5}


def test_what_they_cannot_read_is_refused_with_the_case(tmp_path):
    low = write_case(tmp_path, "dam", name="case0", barrier_height=0.005)
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        reference_case(low, "dam")
    missing = write_case(tmp_path, "dam", name="case1", dx=None)
    with pytest.raises(ValueError, match=r"the key 'dx' in .*case1"):
        reference_case(missing, "dam")
    viscosity = write_case(tmp_path, "tube", name="case2", viscosity=None)
    with pytest.raises(ValueError, match=r"the key 'viscosity'"):
        ReferencePairs([viscosity], "tube")
    assert ReferencePairs([viscosity], "tube", norm_props=False).case_params[0]["vel_in"] == pytest.approx(-0.48)
    with pytest.raises(ValueError, match=r"the key 'viscosity' in .*case2"):
        ReferenceFrames([viscosity], "tube", norm_props=False)
    with pytest.raises(ValueError, match=r"the key 'viscosity' in .*case2"):
        ReferencePairs([viscosity], "tube")
    words = write_case(tmp_path, "tube", name="case3", generator="ours")
    with pytest.raises(ValueError, match="generator are none"):
        ReferencePairs([words], "tube")
    with pytest.raises(ValueError, match="tube, dam, cylinder and the version old or head"):
        reference_case(words, "step")
    with pytest.raises(ValueError, match="at least one case"):
        ReferenceFrames([], "tube")


@pytest.mark.parametrize(
    ("problem", "changes", "message"),
    [
        ("tube", {"height": None}, r"the key 'height' in .*case0000"),
        ("tube", {"viscosity": "a"}, r"case0000: .*finite number for 'viscosity'.*'a'"),
        ("tube", {"vel_in": "x"}, r"case0000: .*finite number for 'vel_in'.*'x'"),
        ("dam", {"dy": 0}, r"case0000: .*positive 'dy' but got 0"),
        ("dam", {"dx": "wide"}, r"case0000: .*finite number for 'dx'.*'wide'"),
        ("dam", {"barrier_height": float("nan")}, r"case0000: .*finite number for 'barrier_height'"),
        ("cylinder", {"center_x": "left"}, r"case0000: .*finite number for 'center_x'"),
    ],
)
def test_keys_that_are_missing_or_no_numbers_are_named_with_the_folder(tmp_path, problem, changes, message):
    folder = write_case(tmp_path, problem, rows=8, columns=8)
    values = {**json.loads((folder / "case.json").read_text()), **changes}
    (folder / "case.json").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    for options in ({}, {"norm_props": False, "norm_bc": False}):
        with pytest.raises(ValueError, match=message):
            ReferenceFrames([folder], problem, **options)


def test_nan_is_refused_in_pairs_and_taken_in_frames(tmp_path):
    folder = write_case(tmp_path, "tube")
    u = np.load(folder / "u.npy")
    u[3, 2, 1] = np.nan
    np.save(folder / "u.npy", u)
    with pytest.raises(ValueError, match=r"frame 2 or 3 of .*case0000 holds one"):
        ReferencePairs([folder], "tube")
    assert bool(ReferenceFrames([folder], "tube").features[0][3].isnan().any())


@pytest.mark.parametrize(("frames", "delta_time"), [(1, 0.1), (3, 0.5)])
def test_no_pair_at_all_is_an_error(tmp_path, frames, delta_time):
    folder = write_case(tmp_path, "tube", frames=frames)
    with pytest.raises(ValueError, match="too short, or steady from the start"):
        ReferencePairs([folder], "tube", delta_time=delta_time)
    with pytest.raises(ValueError, match=r"a stored frame, 0\.1 s, or more"):
        ReferencePairs([folder], "tube", delta_time=0.05)
