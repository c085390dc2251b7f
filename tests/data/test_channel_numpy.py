"""Arrays are written here as published ones are described, from flows that are incompressible at any heights."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pdesurrogate.data.adapters.base import Adapter
from pdesurrogate.data.adapters.channel_numpy import BOX, ArrayName, ChannelNumpy, summarize
from pdesurrogate.data.adapters.wall_spacing import (
    Continuity,
    arctan_heights,
    cosine_heights,
    tanh_heights,
    uniform_heights,
)
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.windows import Windows
from pdesurrogate.fields.batch import space_weights
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.coarse_graining import collocated
from pdesurrogate.simulators.channel.flow import ChannelFlow
from pdesurrogate.simulators.channel.start import TrippedChannel

PUBLISHED = "Retau180_dim21x400x32x33x16x4_dT200.npy"
SMALL = (5, 6, 8, 17, 6, 4)


def channel_flow(shape, heights, seed=0, lengths=BOX, fluctuation=0.1):
    """A parabola and waves ``v = f(y) cos(k x)`` with the flow along ``k`` that continuity asks for; float64."""
    simulations, frames, nx, _, nz, channels = shape
    generator = torch.Generator().manual_seed(seed)
    y = heights.clone().requires_grad_()
    x = (torch.arange(nx, dtype=torch.float64) * (lengths[0] / nx))[:, None, None]
    z = torch.arange(nz, dtype=torch.float64) * (lengths[1] / nz)
    fields = torch.zeros(*shape, dtype=torch.float64)
    fields[..., 0] = (heights * (2 - heights))[:, None]
    for wave in range(6):
        kx = 2 * math.pi / lengths[0] * (1 + wave % 2)
        kz = 2 * math.pi / lengths[1] * (wave % 3 - 1)
        random = torch.rand(2, simulations, frames, 1, 1, 1, generator=generator, dtype=torch.float64)
        phases = 2 * math.pi * random[0] + kx * x + kz * z
        profile = (y * (2 - y)) ** 2 * torch.cos(math.pi * wave * y / 8 + wave)
        (slope,) = torch.autograd.grad(profile.sum(), y)
        amplitude = fluctuation * (0.5 + random[1])
        along = amplitude * torch.sin(phases) * (-slope / (kx**2 + kz**2))[:, None]
        fields[..., 0] += kx * along
        fields[..., 1] += amplitude * torch.cos(phases) * profile.detach()[:, None]
        fields[..., 2] += kz * along
    if channels == 4:
        fields[..., 3] = torch.rand(shape[:-1], generator=generator, dtype=torch.float64)
    return fields


def write(folder, fields, reynolds_number=180, name=None, steps=200):
    sizes = "x".join(map(str, fields.shape))
    path = folder / (name or f"Retau{reynolds_number}_dim{sizes}_dT{steps}.npy")
    np.save(path, fields.numpy() if isinstance(fields, torch.Tensor) else fields)
    return path


@pytest.fixture(scope="module")
def fields():
    return channel_flow(SMALL, tanh_heights(SMALL[3], 1.75)).float()


@pytest.fixture
def path(tmp_path, fields):
    return write(tmp_path, fields)


def test_the_published_name_is_understood():
    assert ArrayName.parse(PUBLISHED) == ArrayName(180, (21, 400, 32, 33, 16, 4), 200)
    assert ArrayName.parse("copy_of_Retau590_dim5x9x64x65x32x3_dT80.npy").shape == (5, 9, 64, 65, 32, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("channel.npy", "Expected a name like Retau180_dim21x400x32x33x16x4_dT200"),
        ("Retau180_dim21x400x32x33x16x4.npy", "Expected a name like"),
        ("Retau180_dim21x400x32x33x16x4_dT200.npz", "Expected a name like"),
        ("Retau180_dim21x400x32x33x16_dT200.npy", "Expected six sizes"),
        ("Retau180_dim21x400x32x33x16x5_dT200.npy", "with 3 or 4 channels"),
        ("Retau180_dim21x1x32x33x16x4_dT200.npy", "at least 2 frames"),
        ("Retau180_dim21x400x32x33x16x4_dT0.npy", "positive"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        ArrayName.parse(name)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_are_those_of_the_array_at_their_points(tmp_path, fields, channels, dtype, order):
    stored = np.array(fields[..., :channels].numpy(), dtype=dtype, order=order)
    adapter = ChannelNumpy(write(tmp_path, stored), val=1, test=1)
    assert isinstance(adapter, Adapter)
    assert adapter.metadata.channel_names == ("velocity_x", "velocity_y", "velocity_z", "pressure")[:channels]
    for number, split in ((2, "train"), (3, "val"), (4, "test")):
        trajectory = adapter.trajectories(split)[-1]
        expected = torch.from_numpy(stored[number].astype(np.float32)).movedim(-1, 1)
        assert torch.equal(trajectory.read(), expected)
        assert torch.equal(trajectory.read(2, 4), expected[2:4])


def test_metadata_say_where_and_when_fields_are(path):
    adapter = ChannelNumpy(path)
    metadata = adapter.metadata
    assert [axis.period for axis in metadata.grid.axes] == [4 * math.pi, None, 4 * math.pi / 3]
    assert metadata.grid.axes[1].bounds == (0.0, 2.0)
    assert {channel.location for channel in metadata.channels} == {"node"}
    assert [channel.vector for channel in metadata.channels] == ["velocity"] * 3 + [""]
    assert metadata.frame_interval == 1.0
    assert metadata.attributes["friction_reynolds_number"] == 180
    (first, *_) = adapter.trajectories("train")
    assert first.times.tolist() == [0, 1, 2, 3, 4, 5]
    assert first.context.parameters.tolist() == pytest.approx([1 / 4200])
    metadata.grid.check_coordinates(first.context.coordinates)
    x, y, z = first.context.coordinates
    assert float(x[1]) == pytest.approx(4 * math.pi / 8)  # no duplicated end point
    torch.testing.assert_close(y.double(), tanh_heights(17, 1.75), rtol=0, atol=1e-7)
    volume = space_weights(metadata.grid, Context(tuple(points[None] for points in (x, y, z)))).sum()
    assert float(volume) == pytest.approx(4 * math.pi * 2 * 4 * math.pi / 3, rel=1e-6)


def test_only_frames_that_are_asked_for_are_read(tmp_path, fields):
    """Frames around the one that is read hold NaN, which reading would refuse."""
    spoiled = torch.cat([fields] * 8, dim=1)
    adapter = ChannelNumpy(write(tmp_path, spoiled))
    stored = np.load(adapter.path, mmap_mode="r+")
    stored[2, 3:30] = math.nan
    stored[2, 7] = fields[2, 1]
    stored.flush()
    assert isinstance(adapter._values, np.memmap)
    assert torch.equal(adapter.trajectories("train")[2].read(7, 8)[0], fields[2, 1].movedim(-1, 0))
    with pytest.raises(ValueError, match="frame 8 of simulation 2"):
        adapter.trajectories("train")[2].read(7, 9)


def test_our_splits_keep_simulations_apart(tmp_path, fields):
    adapter = ChannelNumpy(write(tmp_path, torch.cat([fields] * 5)[:21]))
    sizes = {split: len(adapter.trajectories(split)) for split in adapter.splits}
    assert sizes == {"train": 16, "val": 2, "test": 3}
    numbers = [adapter._splits[split] for split in adapter.splits]
    assert [number for split in numbers for number in split] == list(range(21))
    told = ChannelNumpy(adapter.path, train=4, val=1, test=2)
    assert [told._splits[split] for split in told.splits] == [range(3), range(3, 4), range(19, 21)]


@given(simulations=st.integers(3, 60))
@settings(max_examples=20)
def test_every_number_of_simulations_is_split_without_rest(simulations):
    from pdesurrogate.data.adapters.channel_numpy import _splits_by_simulation

    splits = _splits_by_simulation(simulations, None, None, None)
    assert list(splits) == ["train", "val", "test"]
    assert sum(map(len, splits.values())) == simulations


def test_the_authors_split_has_their_numbers_of_pairs(tmp_path):
    one = channel_flow((1, 1, 4, 9, 4, 4), cosine_heights(9)).half()
    path = write(tmp_path, one.expand(21, 400, -1, -1, -1, -1))
    adapter = ChannelNumpy(path, cosine_heights(9).tolist(), compat="reference")
    pairs = {split: len(Windows(adapter.trajectories(split), 1, 1)) for split in adapter.splits}
    assert pairs == {"train": 6368, "val": 1592, "test": 1592}
    assert adapter._splits["train"] == range(16)
    assert adapter._splits["test"] == adapter._splits["val"] == range(16, 20)
    assert len(adapter.metadata.channels) == 3
    # With more frames in and out their count is short by one pair as well.
    assert len(Windows(adapter.trajectories("test"), 4, 2)) == 4 * (400 - 6)


def test_the_authors_split_is_refused_where_it_would_cut_a_simulation(path):
    with pytest.raises(ValueError, match="cut through a simulation"):
        ChannelNumpy(path, compat="reference")
    with pytest.raises(ValueError, match="has its own"):
        ChannelNumpy(path, compat="reference", test=2)


@pytest.mark.parametrize(
    ("heights", "name"),
    [
        (uniform_heights(33), "uniform"),
        (cosine_heights(33), "cosine"),
        (tanh_heights(33, 1.75), "tanh, stretching 1.75"),
        (arctan_heights(33, 10**-0.6), "arctan, beta 0.251"),
    ],
)
def test_the_flow_tells_its_heights(heights, name):
    velocity = channel_flow((1, 6, 8, 33, 6, 3), heights)[0].movedim(-1, 1)
    told = Continuity.of(velocity, BOX).spacing()
    assert told.name == name
    torch.testing.assert_close(told.heights, heights, rtol=0, atol=1e-3)
    assert told.unexplained < 0.01


def test_fields_of_our_own_solver_tell_its_heights():
    solver = ChannelFlow((16, 24, 16), (4.0, 2.0), viscosity=1 / 2800, frame_interval=0.1, steps_per_frame=2)
    start = TrippedChannel(noise=0.0).sample(2, solver.channel_grid, torch.Generator().manual_seed(0))
    velocity = collocated(start[:, :3], solver.channel_grid)
    told = Continuity.of(velocity, (4.0, 2.0)).spacing()
    assert told.name == "tanh, stretching 1.75"
    torch.testing.assert_close(told.heights, solver.channel_grid.faces, rtol=0, atol=1e-12)


def test_damped_or_turned_flow_tells_the_same_heights_or_none():
    heights = tanh_heights(25, 2.0)
    velocity = channel_flow((1, 6, 8, 25, 6, 3), heights)[0].movedim(-1, 1)
    told = Continuity.of(velocity, BOX).spacing()
    damped = Continuity.of(velocity * torch.tensor([1.0, 0.7, 1.0]).reshape(3, 1, 1, 1), BOX).spacing()
    assert told.name == damped.name == "tanh, stretching 2"
    assert told.factor == pytest.approx(1, abs=0.03)  # the trapezoid rule on 24 gaps
    assert damped.factor == pytest.approx(0.7 * told.factor)
    turned = velocity * torch.tensor([1.0, -1.0, 1.0]).reshape(3, 1, 1, 1)
    assert Continuity.of(turned, BOX).spacing() is None
    noise = torch.randn(velocity.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert Continuity.of(noise, BOX).spacing() is None


@given(planes=st.integers(3, 80), stretching=st.floats(0.05, 4), beta=st.floats(0.05, 20))
def test_heights_run_from_wall_to_wall_and_are_their_mirror_image(planes, stretching, beta):
    for heights in (
        uniform_heights(planes),
        cosine_heights(planes),
        tanh_heights(planes, stretching),
        arctan_heights(planes, beta),
    ):
        assert heights[0] == 0
        assert heights[-1] == 2
        assert bool((heights.diff() > 0).all())
        torch.testing.assert_close(heights + heights.flip(0), torch.full_like(heights, 2), rtol=0, atol=1e-15)


def test_both_stretchings_become_uniform():
    for heights in (tanh_heights(17, 1e-4), arctan_heights(17, 1e4)):
        torch.testing.assert_close(heights, uniform_heights(17), rtol=0, atol=1e-4)


def test_arctan_heights_have_the_metric_of_incompact3d():
    """``dy/ds`` is proportional to ``1 / (alpha / pi + sin^2(pi (s - 1/2)) / (pi beta))``, with total height 2."""
    beta, planes = 0.259065151, 4001
    alpha = (math.sqrt(1 + (math.pi * beta) ** 2) - 1) / (2 * beta)
    s = (torch.arange(planes - 1, dtype=torch.float64) + 0.5) / (planes - 1) - 0.5
    metric = 1 / (alpha / math.pi + torch.sin(math.pi * s).square() / (math.pi * beta))
    slope = arctan_heights(planes, beta).diff() * (planes - 1)
    # Midpoint differences of second order on 4000 intervals.
    torch.testing.assert_close(slope, metric, rtol=1e-5, atol=0)


def test_given_heights_are_taken_unless_the_flow_contradicts_them(path):
    slightly = tanh_heights(17, 1.7)
    adapter = ChannelNumpy(path, heights=slightly.tolist())
    assert torch.equal(adapter.heights, slightly)
    assert adapter.metadata.attributes["heights"] == "given"
    assert ChannelNumpy(path).metadata.attributes["heights"] == "tanh, stretching 1.75, told from the flow"
    with pytest.raises(ValueError, match=r"at which the flow is incompressible.*stretching 1\.75"):
        ChannelNumpy(path, heights=uniform_heights(17).tolist())


def test_a_box_of_another_size_is_refused(path):
    """The same box in other units: continuity holds but for a factor."""
    for scale, found in ((0.25, r"0\.26"), (3.0, r"3\.1")):  # with the error of the trapezoid rule, three percent
        with pytest.raises(ValueError, match=rf"{found} times as large as the continuity equation asks for"):
            ChannelNumpy(path, lengths=(scale * BOX[0], scale * BOX[1]))
    assert ChannelNumpy(path, lengths=(1.1 * BOX[0], BOX[1])).splits


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ([0.0, 1.0, 2.0], "Expected 17 increasing heights"),
        (tanh_heights(17, 1.75).flip(0).tolist(), "Expected 17 increasing heights"),
        ((tanh_heights(17, 1.75) - 1).tolist(), r"from 0 to 2.*shift and scale"),
    ],
)
def test_heights_that_fit_no_channel_are_refused(path, heights, message):
    with pytest.raises(ValueError, match=message):
        ChannelNumpy(path, heights=heights)


def test_heights_that_cannot_be_told_have_to_be_given(tmp_path):
    laminar = channel_flow(SMALL, uniform_heights(17), fluctuation=0.0)
    path = write(tmp_path, laminar)
    with pytest.raises(ValueError, match=r"heights of the 17 planes: none were given.*Give heights, from 0 to 2"):
        ChannelNumpy(path)
    assert torch.equal(ChannelNumpy(path, heights=uniform_heights(17).tolist()).heights, uniform_heights(17))


def test_the_summary_of_a_laminar_flow_is_exact():
    planes = 21
    y = uniform_heights(planes)
    velocity = channel_flow((1, 2, 6, planes, 4, 3), y, fluctuation=0.0)[0].movedim(-1, 1)
    found = summarize(velocity, y, BOX, viscosity=0.01)
    gap = 2 / (planes - 1)
    assert found.bulk_velocity == pytest.approx(2 / 3 - gap**2 / 6, rel=1e-13)  # the trapezoid rule of a parabola
    assert found.wall_shear_stress == pytest.approx((0.02, 0.02), rel=1e-12)
    assert found.friction_reynolds_number == pytest.approx(math.sqrt(0.02) / 0.01)
    assert found.first_plane == pytest.approx(gap * found.friction_reynolds_number)
    assert (found.largest_slip, found.divergence) == (0.0, 0.0)
    assert found.fluctuations == pytest.approx((0, 0, 0), abs=1e-12)


def test_the_summary_sees_both_walls_and_slip():
    y = tanh_heights(17, 1.5)
    velocity = torch.zeros(1, 3, 4, 17, 4, dtype=torch.float64)
    velocity[:, 0] = (y + 0.5 * y**2 + 1.0)[:, None]
    found = summarize(velocity, y, BOX, viscosity=2.0)
    assert found.wall_shear_stress == pytest.approx((2.0, -6.0))
    assert found.largest_slip == pytest.approx(5 / found.bulk_velocity)


def test_divergence_is_that_of_the_rule_and_shrinks_with_the_gaps():
    sizes = []
    for planes in (17, 33, 65):
        velocity = channel_flow((1, 3, 8, planes, 6, 3), cosine_heights(planes))[0].movedim(-1, 1)
        sizes.append(summarize(velocity, cosine_heights(planes), BOX, 0.01).relative_divergence)
    # The trapezoid rule is of second order in the gaps, spectral derivatives of band-limited waves are exact.
    assert [a / b for a, b in itertools.pairwise(sizes)] == pytest.approx([4, 4], rel=0.1)


def test_the_summary_reads_as_a_table(path):
    text = str(ChannelNumpy(path).summary(4))
    for word in ("bulk velocity", "slip", "Re_tau", "divergence", "y+ ="):
        assert word in text
    assert len(text.splitlines()) == 10


def test_a_wall_that_moves_is_refused(tmp_path, fields):
    for plane, name in ((0, "first"), (-1, "last")):
        moved = fields.clone()
        moved[..., plane, :, 2] += 0.01
        path = write(tmp_path, moved)
        with pytest.raises(ValueError, match=f"no flow on the {name} plane"):
            ChannelNumpy(path)
        assert ChannelNumpy(path, slip_tolerance=0.1).summary().largest_slip > 0.01


@pytest.mark.parametrize("order", [[2, 1, 0, 3], [1, 0, 2, 3]], ids=["wzx", "vux"])
def test_components_in_another_order_are_refused(tmp_path, fields, order):
    path = write(tmp_path, fields[..., order])
    with pytest.raises(ValueError, match="Expected a mean flow along x"):
        ChannelNumpy(path, heights=tanh_heights(17, 1.75).tolist(), slip_tolerance=10.0)


def test_fluctuations_alone_are_refused(tmp_path, fields):
    path = write(tmp_path, fields - fields.mean((0, 1, 2, 4), keepdim=True))
    with pytest.raises(ValueError, match=r"mean flow along x.*no channel flow"):
        ChannelNumpy(path, slip_tolerance=1e9)


def test_planes_along_another_axis_are_refused(tmp_path, fields):
    with pytest.raises(ValueError, match=r"which is a wall.*Axes or planes may be others"):
        ChannelNumpy(write(tmp_path, fields.transpose(2, 3)))


def test_a_name_that_belongs_to_another_array_is_refused(tmp_path, fields):
    path = write(tmp_path, fields, name="Retau180_dim5x6x8x17x6x3_dT200.npy")
    with pytest.raises(ValueError, match=r"shape \(5, 6, 8, 17, 6, 3\).*has \(5, 6, 8, 17, 6, 4\)"):
        ChannelNumpy(path)
    path = write(tmp_path, torch.cat([fields, fields[..., :1]], -1))
    with pytest.raises(ValueError, match="3 or 4 channels"):
        ChannelNumpy(path)


@pytest.mark.parametrize("change", [-4, -200000, 8])
def test_files_of_another_size_are_refused(path, change):
    content = path.read_bytes()
    path.write_bytes(content[:change] if change < 0 else content + bytes(change))
    with pytest.raises(ValueError, match="truncated" if change < 0 else "longer than its array"):
        ChannelNumpy(path)


def test_files_of_another_kind_are_refused(tmp_path, path, fields):
    with pytest.raises(ValueError, match="is not one"):
        ChannelNumpy(tmp_path / PUBLISHED)
    whole = write(tmp_path, fields.mul(100).short(), steps=7)
    with pytest.raises(ValueError, match=r"real numbers.*int16"):
        ChannelNumpy(whole)
    objects = tmp_path / "Retau180_dim5x6x8x17x6x4_dT9.npy"
    np.save(objects, np.full((5, 6, 8, 17, 6, 4), None), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled objects are not loaded"):
        ChannelNumpy(objects)
    for content in (b"", b"<html>not found</html>", path.read_bytes()[:20]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="Expected an array of numpy"):
            ChannelNumpy(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_values_are_refused_with_their_place(tmp_path, fields, value):
    spoiled = fields.clone()
    spoiled[4, -1, 0, 3, 0, 3] = value
    path = write(tmp_path, spoiled)
    with pytest.raises(ValueError, match="frame 5 of simulation 4"):
        ChannelNumpy(path).trajectories("test")[-1].read(5)
    spoiled[4, -1, 0, 3, 0, 0] = value
    with pytest.raises(ValueError, match="frame 5 of simulation 4"):
        ChannelNumpy(write(tmp_path, spoiled))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"viscosity": -1.0}, "positive viscosity"),
        ({"lengths": (1.0, 0.0)}, "two positive lengths"),
        ({"time_step": 0.0}, "positive time_step"),
        ({"channels": 5}, "channels 3 or 4"),
        ({"compat": "authors"}, "compat None or 'reference'"),
        ({"train": 4, "test": 2}, "overlap"),
        ({"val": 9}, "val <= train"),
    ],
)
def test_impossible_options_are_refused(path, options, message):
    with pytest.raises(ValueError, match=message):
        ChannelNumpy(path, **options)


def test_what_the_file_does_not_hold_is_asked_for(tmp_path, fields):
    path = write(tmp_path, fields[..., :3], reynolds_number=1000)
    with pytest.raises(ValueError, match=r"viscosity for Re_tau = 1000: it is known for 180, 395, 590"):
        ChannelNumpy(path)
    assert ChannelNumpy(path, viscosity=1e-5).trajectories("test")[0].context.parameters.tolist() == [
        pytest.approx(1e-5)
    ]
    with pytest.raises(ValueError, match="at most the 3 of the file"):
        ChannelNumpy(path, viscosity=1e-5, channels=4)
    few = write(tmp_path, fields[:2])
    with pytest.raises(ValueError, match="Expected three simulations or more"):
        ChannelNumpy(few)
    assert ChannelNumpy(few, train=1, val=0, test=1).splits == ("train", "test")
    with pytest.raises(ValueError, match="Expected one of the splits"):
        ChannelNumpy(few, train=1, val=0, test=1).trajectories("val")


def test_the_velocity_alone_can_be_asked_for(path, fields):
    adapter = ChannelNumpy(path, channels=3)
    assert adapter.trajectories("train")[0].shape == (6, 3, 8, 17, 6)
    assert torch.equal(adapter.trajectories("train")[0].read(0, 1)[0], fields[0, 0, ..., :3].movedim(-1, 0))


def test_a_pickled_adapter_reads_on(path):
    adapter = ChannelNumpy(path)
    copy = pickle.loads(pickle.dumps(adapter))
    assert torch.equal(copy.trajectories("train")[1].read(), adapter.trajectories("train")[1].read())


def test_converts_to_an_archive_that_keeps_walls_and_heights(tmp_path, path, fields):
    adapter = ChannelNumpy(path)
    convert(adapter, tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    assert archive.metadata.grid == adapter.metadata.grid
    assert archive.metadata.channels == adapter.metadata.channels
    assert archive.splits == ("train", "val", "test")
    (first, *_) = archive.trajectories("train")
    assert torch.equal(first.read(), fields[0].movedim(-1, 1))
    assert torch.equal(first.context.coordinates[1], adapter.trajectories("train")[0].context.coordinates[1])
