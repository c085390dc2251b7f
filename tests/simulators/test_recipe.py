"""Generation: bit-equal however it is cut up, and refused before any work when a recipe is wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import yaml

from pdesurrogate.data.archive import Archive
from pdesurrogate.simulators.recipe import build_simulator, content_hash, generate, load_recipe, parse_recipe

PLAIN = {
    "name": "tiny",
    "simulator": {
        "class_path": "pdesurrogate.simulators.navier_stokes.NavierStokes2d",
        "init_args": {"resolution": 16, "viscosity": 1e-2, "frame_interval": 0.2, "steps_per_frame": 4},
    },
    "initial_condition": {"class_path": "pdesurrogate.simulators.random_fields.McWilliams"},
    "frames": 3,
    "resolution": 8,
    "trajectories": {"train": 5, "val": 2, "test": 1},
    "seed": 3,
    "warm_up": 0.4,
    "block": 2,
}


def changed(**changes):
    plain = copy.deepcopy(PLAIN)
    simulator = changes.pop("simulator", {})
    plain["simulator"]["init_args"].update(simulator)
    plain.update(changes)
    return {key: value for key, value in plain.items() if value is not None}


def make(folder, **options):
    recipe, plain = parse_recipe(PLAIN)
    return generate(recipe, plain, folder, **options)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def test_the_archive_holds_what_the_recipe_says(tmp_path):
    make(tmp_path)
    archive = Archive(tmp_path)
    assert {split: len(archive.trajectories(split)) for split in archive.splits} == {"train": 5, "val": 2, "test": 1}
    trajectory = archive.trajectories("train")[0]
    assert trajectory.shape == (3, 1, 8, 8)
    assert trajectory.times.tolist() == pytest.approx([0.4, 0.6, 0.8])
    assert archive.metadata.parameters == ("viscosity", "drag")
    assert trajectory.context.parameters.tolist() == pytest.approx([1e-2, 0.0])
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["seed"] == 3


def test_an_interrupted_generation_continues_bit_equal(tmp_path):
    make(tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def stop_after(frames):
        def progress(done, total):
            assert total == 8 * 3
            if done > frames:
                raise Interrupted

        return progress

    for frames in (4, 13, 20):
        with pytest.raises(Interrupted):
            make(tmp_path / "cut", progress=stop_after(frames))
    make(tmp_path / "cut")
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert make(tmp_path / "cut") == [tmp_path / "cut" / f"{split}.nc" for split in ("train", "val", "test")]


def test_shards_together_are_the_same_set(tmp_path):
    make(tmp_path / "whole")
    for shard in range(2):
        make(tmp_path / "shards", shards=2, shard=shard)
    for split in ("train", "val", "test"):
        whole, shards = (Archive(tmp_path / name).trajectories(split) for name in ("whole", "shards"))
        assert len(whole) == len(shards)
        for one, other in zip(whole, shards, strict=True):
            assert torch.equal(one.read(), other.read())


@pytest.mark.parametrize("shard", [-1, 4, 5])
def test_a_shard_out_of_range_is_refused(tmp_path, shard):
    with pytest.raises(ValueError, match="from 0 to 3"):
        make(tmp_path, shards=4, shard=shard)
    assert list(tmp_path.iterdir()) == []


def test_splits_and_blocks_start_differently(tmp_path):
    make(tmp_path)
    archive = Archive(tmp_path)
    starts = [t.read(0, 1).flatten() for split in archive.splits for t in archive.trajectories(split)]
    distances = torch.cdist(torch.stack(starts), torch.stack(starts)).fill_diagonal_(1.0)
    assert float(distances.min()) > 0.1


def test_other_data_in_the_folder_are_not_overwritten(tmp_path):
    make(tmp_path)
    recipe, plain = parse_recipe(changed(seed=4))
    with pytest.raises(ValueError, match=r"its recipe\.yaml differs"):
        generate(recipe, plain, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": None}, "frames"),
        ({"colour": "blue"}, "colour"),
        ({"simulator": {"viscocity": 1.0}}, "viscocity"),
        ({"simulator": {"resolution": "many"}}, "resolution"),
        ({"simulator": {"resolution": 15}}, "even resolution"),
        ({"frames": 1}, "at least two frames"),
        ({"warm_up": 0.33}, "multiple of the time step"),
        ({"resolution": 32}, "stored resolution"),
        ({"block": 0}, "block >= 1"),
        ({"trajectories": {"train": 0, "val": 0, "test": 0}}, "at least one of them positive"),
        ({"trajectories": {"train": 1, "val": 1}}, "test"),
        ({"initial_condition": {"class_path": "builtins.dict"}}, "initial_condition"),
        ({"initial_condition": {"class_path": "nowhere.Nothing"}}, "initial_condition"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(changed(**changes))


@pytest.mark.parametrize(
    ("text", "message"), [(None, "does not exist"), ("- a\n- b\n", "keys and values"), ("a: [", "Expected YAML")]
)
def test_files_that_are_no_recipe_are_refused(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_recipe(path)


def test_an_unstable_simulation_is_refused_and_nothing_is_taken_for_whole(tmp_path):
    recipe, plain = parse_recipe(
        changed(warm_up=0.0, simulator={"frame_interval": 1e4, "steps_per_frame": 60, "viscosity": 0.0})
    )
    with pytest.raises(ValueError, match="smaller time step"):
        generate(recipe, plain, tmp_path)
    assert not (tmp_path / "train.nc").exists()


def test_the_hash_follows_the_recipe():
    _, plain = parse_recipe(PLAIN)
    _, again = parse_recipe(yaml.safe_load(yaml.safe_dump(plain)))
    _, other = parse_recipe(changed(seed=4))
    assert content_hash(plain) == content_hash(again) != content_hash(other)


def test_the_solver_of_a_recipe_can_be_built_at_another_size():
    _, plain = parse_recipe(PLAIN)
    solver = build_simulator(plain, resolution=12, steps_per_frame=3)
    assert solver.shape == (12, 12)
    assert solver.time_step == pytest.approx(0.2 / 3)


RECIPES = sorted(Path(__file__).parents[2].glob("datasets/*/recipe.yaml"))
# To build their solvers takes seconds and gigabytes.
LARGE = [path for path in RECIPES if path.parent.name in ("channel_180", "channel_395", "channel_590")]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path in LARGE), id=path.parent.name) for path in RECIPES],
)
def test_every_shipped_recipe_is_valid_and_named_after_its_folder(path):
    recipe, plain = load_recipe(path)
    assert recipe.name == path.parent.name
    assert plain["simulator"]["class_path"].startswith("pdesurrogate.")


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.parent.name)
def test_a_large_recipe_is_valid_at_an_eighth_of_its_size(path):
    values = yaml.safe_load(path.read_text())
    for part in ("simulator", "reduction"):
        arguments = values[part]["init_args"]
        arguments["shape"] = [size // 8 for size in arguments["shape"]]
    recipe, _ = parse_recipe(values)
    x, y, z = recipe.simulator.shape
    state = torch.zeros(1, 4, x, y, z)
    stored = recipe.stored_frames
    assert stored.apply(state).shape[2:] == tuple(len(points) for points in stored.coordinates)
    recipe.statistics.on(recipe.simulator).update(state)
