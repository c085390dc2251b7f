"""PDEBench's files with a group for each run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts_pdebench import GROUPS, dam_radius, group_values, write_groups

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.pdebench import PdeBenchGroups
from pdesurrogate.data.adapters.pdebench.configuration import configuration
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert

CHANNELS = {
    "shallow_water": ("depth",),
    "diffusion_reaction": ("activator", "inhibitor"),
    "diffusion_sorption": ("concentration",),
}
PARAMETERS = {
    "shallow_water": {"gravity": 1.0, "dam_radius": dam_radius(0)},
    "diffusion_reaction": {"activator_diffusivity": 1e-3, "inhibitor_diffusivity": 5e-3, "reaction_constant": 5e-3},
    "diffusion_sorption": {
        "diffusivity": 5e-4, "porosity": 0.29, "bulk_density": 2880.0, "freundlich_parameter": 3.5e-4,
        "freundlich_exponent": 0.874, "solubility": 1.0,
    },
}  # fmt: skip


def stored(problem, seed, **sizes):
    return np.moveaxis(group_values(problem, seed, **sizes)[0], -1, 1)


@pytest.mark.parametrize("problem", GROUPS)
def test_values_grid_and_parameters(tmp_path, problem):
    adapter = PdeBenchGroups(write_groups(tmp_path, problem))
    assert isinstance(adapter, Adapter)
    assert adapter.metadata.channel_names == CHANNELS[problem]
    assert {axis.bounds for axis in adapter.metadata.grid.axes} == {GROUPS[problem][3]}
    assert adapter.metadata.parameters == tuple(PARAMETERS[problem])
    trajectories = adapter.trajectories("train")
    assert trajectories[0].context.parameters.tolist() == pytest.approx([*PARAMETERS[problem].values()])
    for seed, trajectory in enumerate([*trajectories, *adapter.trajectories("test")]):
        assert np.array_equal(trajectory.read().numpy(), stored(problem, seed))
        assert np.array_equal(trajectory.read(3, 5).numpy(), stored(problem, seed)[3:5])
    assert trajectories[0].times.tolist() == pytest.approx(np.linspace(0, GROUPS[problem][4], 5), rel=1e-12)


def test_each_run_has_its_own_dam(tmp_path):
    adapter = PdeBenchGroups(write_groups(tmp_path))
    radii = [float(each.context.parameters[1]) for each in adapter.trajectories("train")]
    assert radii == pytest.approx([dam_radius(seed) for seed in range(9)])


@given(seeds=st.permutations([0, 3, 7, 10, 999, 1000, 10000]))
@settings(max_examples=10)
def test_groups_come_by_number_in_whatever_order_they_were_written(tmp_path_factory, seeds):
    path = write_groups(tmp_path_factory.mktemp("groups"), seeds=seeds, points=4, frames=3)
    adapter = PdeBenchGroups(path, train=7)
    found = [float(each.read(0, 1)[0, 0, 0, 0]) for each in adapter.trajectories("train")]
    assert found == [float(stored("shallow_water", seed, points=4)[0, 0, 0, 0]) for seed in sorted(seeds)]


def test_tests_are_the_last_tenth_as_the_authors_have_it(tmp_path):
    path = write_groups(tmp_path, seeds=range(20), points=4, frames=3)

    def sizes(**options):
        adapter = PdeBenchGroups(path, **options)
        return {split: len(adapter.trajectories(split)) for split in adapter.splits}

    assert sizes() == {"train": 18, "test": 2}
    assert sizes(val=4, test=5) == {"train": 11, "val": 4, "test": 5}
    last = PdeBenchGroups(path).trajectories("test")[-1].read()
    assert np.array_equal(last.numpy(), stored("shallow_water", 19, points=4, frames=3))


@pytest.mark.parametrize("problem", GROUPS)
def test_intervals_and_points(tmp_path, problem):
    adapter = PdeBenchGroups(write_groups(tmp_path, problem), every=2, interval=GROUPS[problem][4] / 2)
    read = adapter.trajectories("test")[0].read().numpy()
    places = (slice(None, None, 2),) * (read.ndim - 2)
    assert np.array_equal(read, stored(problem, 9)[(slice(None, None, 2), slice(None), *places)])


@pytest.mark.parametrize("problem", GROUPS)
def test_archives_hold_the_same(tmp_path, problem):
    adapter = PdeBenchGroups(write_groups(tmp_path, problem))
    convert(adapter, tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    assert archive.metadata.grid == adapter.metadata.grid
    for split in adapter.splits:
        for ours, theirs in zip(archive.trajectories(split), adapter.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.equal(ours.context.parameters.float(), theirs.context.parameters)


def test_without_configurations_there_are_no_parameters(tmp_path):
    adapter = PdeBenchGroups(write_groups(tmp_path, config=False))
    assert adapter.metadata.parameters == ()
    assert adapter.trajectories("test")[0].context.parameters is None


def test_a_name_that_says_nothing_needs_the_problem(tmp_path):
    path = write_groups(tmp_path, name="runs.h5")
    with pytest.raises(ValueError, match=r"rdb, diff-react, diff-sorp in the name .* Give problem="):
        PdeBenchGroups(path)
    assert PdeBenchGroups(path, problem="shallow_water").metadata.channel_names == ("depth",)
    with pytest.raises(ValueError, match="Is it another problem"):
        PdeBenchGroups(path, problem="diffusion_reaction")
    with pytest.raises(ValueError, match=r"a problem among .* but got 'waves'"):
        PdeBenchGroups(path, problem="waves")


def replace(name, values):
    def edit(file):
        old = file[name][()]
        del file[name]
        if values is not None:
            file[name] = values(old)

    return edit


def set_config(group, text):
    def edit(file):
        file[group].attrs["config"] = text

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        pytest.param(replace("0003/data", None), "Expected the array '0003/data'", id="data"),
        pytest.param(replace("0003/grid/x", None), "Expected the array '0003/grid/x'", id="x of one"),
        pytest.param(replace("0000/grid/x", None), "Expected the array '0000/grid/x'", id="x of the first"),
        pytest.param(replace("0000/grid/t", None), "Expected the array '0000/grid/t'", id="t"),
        pytest.param(replace("0003/data", lambda v: v[:, :-1]), "'0003/data' is", id="shape of one"),
        pytest.param(replace("0003/data", lambda v: v.astype(int)), "real numbers in '0003/data'", id="integers"),
        pytest.param(replace("0000/data", lambda v: v[..., 0]), "Is it another problem", id="no channel axis"),
        pytest.param(replace("0003/grid/x", lambda v: v + 1), "'0003/grid/x' differs", id="other grid"),
        pytest.param(replace("0003/grid/t", lambda v: 2 * v), "'0003/grid/t' differs", id="other times"),
        pytest.param(replace("0003/grid/t", lambda v: v * np.nan), "finite numbers in '0003/grid/t'", id="no times"),
        pytest.param(replace("0003/grid/y", lambda v: v[:4]), "10 entries in '0003/grid/y'", id="fewer cells"),
        pytest.param(set_config("0002", "sim:\n  gravity: high\n"), "a number for 'gravity'", id="text for a number"),
        pytest.param(set_config("0002", "sim:\n  gravity: [1\n"), "cannot be parsed", id="no YAML"),
        pytest.param(set_config("0002", "sim:\n  - 1\n"), "names and values", id="a list"),
        pytest.param(
            set_config("0002", f"sim:\n  gravity: 0x{'f' * 400}\n"), "a number for 'gravity'", id="long number"
        ),
        pytest.param(set_config("0002", "sim:\n  gravity: 1.0\n"), "that of '0002' states", id="fewer parameters"),
        pytest.param(
            set_config("0002", "sim:\n  gravity: !!python/object/apply:os.getcwd []\n"), "a number for", id="code"
        ),
    ],
)
def test_bad_groups_are_refused(tmp_path, edit, message):
    with pytest.raises(ValueError, match=message):
        PdeBenchGroups(write_groups(tmp_path, edit=edit))


def test_files_without_groups_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a group for each run"):
        PdeBenchGroups(write_groups(tmp_path, seeds=[]))


def test_zeros_and_infinities(tmp_path):
    def edit(file):
        file["0004/data"][...] = 0
        file["0006/data"][-1, 2, 2, 0] = np.inf

    path = write_groups(tmp_path, edit=edit)
    trajectories = PdeBenchGroups(path).trajectories("train")
    with pytest.raises(ValueError, match=r"frame 0 of group '0004' of .* nothing but zeros"):
        trajectories[4].read()
    with pytest.raises(ValueError, match=r"frame 4 of group '0006' of .* NaN or infinity"):
        trajectories[6].read()
    with pytest.warns(UserWarning, match=r"group '0004' .* group '0006'"):
        adapter = PdeBenchGroups(path, skip_bad_trajectories=True)
    assert len(adapter.trajectories("train")) == 7


@pytest.mark.parametrize("share", [0.3, 0.97])
def test_truncated_files_are_refused(tmp_path, share):
    path = write_groups(tmp_path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="truncated"):
        PdeBenchGroups(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 100_000, "at most 32 levels"),
        ("- " * 20_000 + "x", "names and values"),
        ("a:\n" + "".join(" " * level + "a:\n" for level in range(1, 60)), "at most 32 levels"),
        ("a: *never", None),
        ("a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 30)), None),
        ("a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 30)), None),
    ],
    ids=["brackets", "dashes", "indents", "unknown alias", "merged mappings", "aliases"],
)
def test_configurations_that_would_not_end_are_gone_through_or_refused(text, message):
    """PyYAML ends the process at the first, and fills all memory with the last two."""
    if message is None:
        assert set(configuration(text, what="it").values()) == {"[...]"}
    else:
        with pytest.raises(ValueError, match=message):
            configuration(text, what="it")
