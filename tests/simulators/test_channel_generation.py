"""From a recipe of channel flow to archive, log and statistics: on a grid far too coarse, but with every part."""

from __future__ import annotations

import csv
from functools import cache

import pytest
import torch
import xarray

from pdesurrogate.data.archive import Archive
from pdesurrogate.physics.coarse_graining import Coarsening
from pdesurrogate.physics.staggered_channel import divergence
from pdesurrogate.simulators.recipe import generate, merge_statistics, parse_recipe


@cache
def parsed(viscosity=1e-3, speed=1.0, warm_up=0.4, precision="float64", place="ChannelCoarsening", plane=15.0):
    return parse_recipe(
        {
            "name": "tiny_channel",
            "simulator": {
                "class_path": "pdesurrogate.simulators.channel.flow.ChannelFlow",
                "init_args": {
                    "shape": [8, 12, 8],
                    "lengths": [3.0, 1.5],
                    "viscosity": viscosity,
                    "frame_interval": 0.4,
                    "steps_per_frame": 4,
                    "precision": precision,
                    "forcing": {
                        "class_path": "pdesurrogate.simulators.channel.forcing.MassFlux",
                        "init_args": {"bulk_velocity": speed},
                    },
                },
            },
            "initial_condition": {
                "class_path": "pdesurrogate.simulators.channel.start.TrippedChannel",
                "init_args": {"bulk_velocity": speed},
            },
            "reduction": {
                "class_path": f"pdesurrogate.simulators.channel.coarsening.{place}",
                "init_args": {"shape": [4, 6, 4]},
            },
            "statistics": {
                "class_path": "pdesurrogate.simulators.channel.statistics.ChannelStatistics",
                "init_args": {"every": 2, "block": 0.4, "planes": [plane]},
            },
            "warm_up": warm_up,
            "frames": 3,
            "trajectories": {"train": 2, "val": 0, "test": 1},
            "seed": 1,
        }
    )


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_channel_that_is_interrupted_continues_to_the_same_bytes(tmp_path, precision):
    recipe, plain = parsed(precision=precision)
    generate(recipe, plain, tmp_path / "whole")

    def stop(seen, calls=[0]):  # noqa: B006
        calls[0] += 1
        if calls[0] % 4 == 0:
            raise Interrupted

    for _ in range(9):
        try:
            generate(recipe, plain, tmp_path / "cut", watch=stop, restart_interval=0.0)
            break
        except Interrupted:
            pass
    whole, cut = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "cut"))
    assert sorted(whole) == sorted(cut)
    assert all(cut[name] == whole[name] for name in whole if name != "statistics.nc")
    one, other = (xarray.load_dataset(tmp_path / name / "statistics.nc") for name in ("whole", "cut"))
    assert one.identical(other)


def test_archive_log_and_statistics_describe_one_flow(tmp_path):
    recipe, plain = parsed()
    generate(recipe, plain, tmp_path)
    archive = Archive(tmp_path)
    trajectory = archive.trajectories("train")[1]
    assert trajectory.shape == (3, 4, 4, 6, 4)
    assert archive.metadata.channel_names == ("velocity_x", "velocity_y", "velocity_z", "pressure")
    assert [channel.location for channel in archive.metadata.channels] == ["face_x", "face_y", "face_z", "cell"]
    assert trajectory.context.parameters.tolist() == pytest.approx([1e-3, 1.0])
    coarse = Coarsening.onto(recipe.simulator.channel_grid, (4, 6, 4)).grid
    assert float(divergence(trajectory.read()[:, :3], coarse).abs().max()) < 1e-4  # round-off of single precision
    assert torch.allclose(trajectory.context.coordinates[1], coarse.centers.float())
    with xarray.open_dataset(tmp_path / "train.nc") as file:
        assert file.attrs["walls"] == "[0.0, 2.0]"
    rows = list(csv.DictReader((tmp_path / "train.log.csv").read_text().splitlines()))
    assert [float(row["time"]) for row in rows] == pytest.approx([0.0, 0.0, 0.4, 0.4, 0.8, 0.8, 1.2, 1.2])
    assert all(float(row["bulk_velocity"]) == pytest.approx(1.0, abs=1e-9) for row in rows)
    assert all(float(row["divergence"]) < 1e-12 for row in rows)
    statistics = xarray.load_dataset(tmp_path / "statistics.nc")
    assert statistics.attrs["blocks"] == 3 * 2
    assert float(statistics["bulk_velocity"]) == pytest.approx(1.0, abs=1e-9)


def test_statistics_of_shards_are_brought_together_as_one(tmp_path):
    recipe, plain = parsed()
    generate(recipe, plain, tmp_path / "whole")
    for shard in range(2):  # the second has no block
        generate(recipe, plain, tmp_path / "one", shards=2, shard=shard)
    recipe.statistics.save(
        recipe.simulator,
        [recipe.statistics.load(recipe.simulator, str(tmp_path / "whole" / "statistics.nc"))] * 2,
        str(tmp_path / "twice.nc"),
    )
    merge_statistics(tmp_path / "one")
    whole, merged = (xarray.load_dataset(tmp_path / name / "statistics.nc") for name in ("whole", "one"))
    assert merged.identical(whole)
    twice = xarray.load_dataset(tmp_path / "twice.nc")
    assert twice.attrs["blocks"] == 2 * whole.attrs["blocks"]
    xarray.testing.assert_allclose(twice["mean_velocity_plus"], whole["mean_velocity_plus"], rtol=1e-12)
    other, _ = parsed(viscosity=2e-3)
    with pytest.raises(ValueError, match=r"same flow but .* has other viscosity"):
        other.statistics.load(other.simulator, str(tmp_path / "twice.nc"))


def test_common_points_have_both_walls(tmp_path):
    recipe, plain = parsed(place="CollocatedCoarsening")
    generate(recipe, plain, tmp_path)
    trajectory = Archive(tmp_path).trajectories("test")[0]
    assert trajectory.shape == (3, 4, 4, 7, 4)
    assert trajectory.context.coordinates[1][[0, -1]].tolist() == [0.0, 2.0]
    assert not trajectory.read()[:, :3, :, [0, -1]].any()


def test_a_flow_that_became_laminar_is_warned_of_with_its_box(tmp_path):
    recipe, plain = parsed(viscosity=0.1, warm_up=6.0, plane=0.5)
    message = r"at t = 6\.4: the flow is laminar.*box of 3 x 2 x 1\.5 half heights at U_b h / viscosity = 10"
    with pytest.warns(UserWarning, match=message) as caught:
        generate(recipe, plain, tmp_path)
    assert [str(each.message).split(" at ")[0] for each in caught] == ["train trajectories 0, 1", "test trajectories 0"]


def test_a_time_step_over_the_limit_is_refused_with_the_limit(tmp_path):
    recipe, plain = parsed(speed=5.0)
    with pytest.raises(ValueError, match=r"Block 0 of train stopped at t = 0\. Expected a CFL number of at"):
        generate(recipe, plain, tmp_path)
    assert not (tmp_path / "train.nc").exists()
