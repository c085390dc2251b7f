from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.fields.batch import collate
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata, cell_faces
from pdesurrogate.fields.normalizer import Normalizer, RunningMoments
from pdesurrogate.fields.trajectory import Context, Trajectory


def metadata(**changes) -> Metadata:
    grid = Grid((Axis("x", period=1.0), Axis("y", period=2.0)))
    options = {"name": "set", "grid": grid, "channels": (Channel("a"), Channel("b", "m/s")), "frame_interval": 0.5}
    return Metadata(**{**options, **changes})


def test_metadata_round_trip():
    original = metadata(parameters=("viscosity",), attributes={"recipe": "text"})
    assert Metadata.from_dict(original.to_dict()) == original


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Axis("x", period=-1.0), "positive period"),
        (lambda: Axis("x", period=1.0, bounds=(0.0, 1.0)), "axis that is not periodic but 'x'"),
        (lambda: Axis("y", bounds=(1.0, 1.0)), r"bounds \(low, high\)"),
        (lambda: Grid(()), "one to three axes"),
        (lambda: Grid((Axis("x"), Axis("x"))), "different names"),
        (lambda: metadata(channels=()), "at least one channel"),
        (lambda: metadata(channels=(Channel("a"), Channel("a"))), "different names"),
        (lambda: metadata(frame_interval=0.0), "positive frame_interval"),
        (lambda: Grid((Axis("x"),)).periods, "periodic axes only"),
        (lambda: Grid((Axis("x", 1.0),)).uniform_coordinates((4, 4)), "Expected 1 sizes"),
        (lambda: Grid((Axis("x", 1.0),)).quadrature_weights(()), "Expected 1 coordinate"),
    ],
)
def test_bad_descriptions_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (metadata(channels=(Channel("a"),)), "channels"),
        (metadata(grid=Grid((Axis("x", period=1.0), Axis("z", period=2.0)))), "axes"),
        (metadata(grid=Grid((Axis("x", period=1.0), Axis("y", period=3.0)))), "periods"),
        (metadata(frame_interval=0.25), "frames 0.5 apart"),
    ],
)
def test_other_fields_are_refused_by_name(other, message):
    metadata().require_same_fields(metadata(name="same fields"), what="this")
    with pytest.raises(ValueError, match=message):
        metadata().require_same_fields(other, what="that")


@given(
    gaps=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12),
    slope=st.floats(-2, 2),
)
def test_weights_of_a_stretched_wall_axis_integrate_lines_exactly(gaps, slope):
    points = torch.tensor(gaps, dtype=torch.float64).cumsum(0)
    (weights,) = Grid((Axis("y"),)).quadrature_weights((points,))
    first, last = float(points[0]), float(points[-1])
    exact = slope * (last**2 - first**2) / 2 + 3 * (last - first)
    assert float((weights * (slope * points + 3)).sum()) == pytest.approx(exact, rel=1e-12, abs=1e-12)


def test_weights_of_a_periodic_axis_are_equal_and_fill_the_period():
    grid = Grid((Axis("x", period=3.0),))
    (weights,) = grid.quadrature_weights(grid.uniform_coordinates((6,)))
    torch.testing.assert_close(weights, torch.full((6,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("points", "message"),
    [([0.0, 0.5, 0.4], "increasing"), ([0.0], "at least two"), ([0.0, 0.5, 1.0], "end point left out")],
)
def test_bad_coordinates_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        Grid((Axis("x", period=1.0),)).check_coordinates((torch.tensor(points),))


def test_collate_keeps_types_and_absence():
    sample = Context((torch.zeros(3), torch.ones(2)), parameters=None, mask=torch.ones(3, 2, dtype=torch.bool))
    batch = collate([sample, sample])
    assert isinstance(batch, Context)
    assert batch.parameters is None
    assert batch.coordinates[1].shape == (2, 2)
    assert batch.mask.shape == (2, 3, 2)
    with pytest.raises(ValueError, match="all samples of a batch or in none"):
        collate([sample, sample._replace(parameters=torch.ones(1))])
    with pytest.raises(ValueError, match="one shape"):
        collate([torch.zeros(2), torch.zeros(3)])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.floats(-1e3, 1e3))
def test_running_moments_equal_those_of_the_whole(sizes, offset):
    generator = torch.Generator().manual_seed(sum(sizes))
    blocks = [torch.randn(n, 2, 4, generator=generator, dtype=torch.float64) + offset for n in sizes]
    moments = RunningMoments(2)
    for block in blocks:
        moments.update(block)
    whole = torch.cat(blocks).transpose(0, 1).flatten(1)
    torch.testing.assert_close(moments.mean, whole.mean(1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moments.std, whole.std(1, unbiased=False), rtol=1e-7, atol=1e-9)


def test_running_moments_survive_a_large_mean():
    values = 1e3 + 1e-2 * torch.randn(50, 1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = RunningMoments(1)
    moments.update(values.float())
    assert float(moments.std) == pytest.approx(1e-2, rel=0.05)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.sampled_from([(1,), (0, 2), (0, 1, 2)]))
def test_running_moments_of_kept_axes_are_those_of_each_point(sizes, kept):
    generator = torch.Generator().manual_seed(sum(sizes))
    blocks = [10 + torch.randn(n, 2, 3, 4, 5, generator=generator, dtype=torch.float64) for n in sizes]
    moments = RunningMoments(2, kept)
    for block in blocks:
        moments.update(block)
    averaged = [0, *(2 + axis for axis in range(3) if axis not in kept)]
    whole = torch.cat(blocks)
    torch.testing.assert_close(moments.mean, whole.mean(averaged), rtol=1e-10, atol=0)
    torch.testing.assert_close(moments.std, whole.var(averaged, correction=0).sqrt(), rtol=1e-7, atol=1e-9)


def test_moments_of_a_kept_axis_need_one_grid():
    moments = RunningMoments(1, kept=(1,))
    moments.update(torch.zeros(2, 1, 4, 5))
    moments.update(torch.zeros(2, 1, 3, 5))
    with pytest.raises(ValueError, match=r"\(5,\) points along axes \(1,\), as before, but got \(6,\): a mean profile"):
        moments.update(torch.zeros(2, 1, 4, 6))


def test_values_that_are_not_finite_are_named():
    values = torch.zeros(3, 2, 4)
    values[1, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="frame 1, channel 1"):
        RunningMoments(2).update(values)


def test_normalizer_round_trip_and_constant_channel():
    normalizer = Normalizer(2)
    normalizer.set_statistics(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 0.0]))
    values = torch.randn(3, 2, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(values)), values)
    assert normalizer.std.tolist() == [2.0, 1.0]
    restored = Normalizer(2)
    restored.load_state_dict(normalizer.state_dict())
    assert restored.mean.tolist() == [1.0, 5.0]
    with pytest.raises(ValueError, match="2 channels"):
        normalizer.set_statistics(torch.zeros(3), torch.ones(3))
    with pytest.raises(ValueError, match="finite"):
        normalizer.set_statistics(torch.tensor([0.0, math.nan]), torch.ones(2))


def test_a_normalizer_with_a_profile_is_the_plain_formula_and_goes_back():
    generator = torch.Generator().manual_seed(0)
    normalizer = Normalizer(2, profile=(1, 5, 1))
    mean, std = torch.randn(2, 1, 5, 1, generator=generator), torch.tensor([2.0, 0.0])
    normalizer.set_statistics(mean, std)
    values = torch.randn(3, 2, 2, 4, 5, 6, generator=generator)
    expected = (values - mean) / torch.tensor([2.0, 1.0]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(normalizer.normalize(values), expected)
    torch.testing.assert_close(normalizer.denormalize(normalizer.normalize(values)), values)
    restored = Normalizer(2, normalizer.profile)
    restored.load_state_dict(normalizer.state_dict())
    assert torch.equal(restored.mean, mean)
    assert repr(restored) == "Normalizer(channels=2, profile=(1, 5, 1))"
    for wrong in (torch.zeros(2), torch.zeros(2, 1, 4, 1)):
        with pytest.raises(ValueError, match=r"a mean with \(1, 5, 1\) points along the axes but got"):
            normalizer.set_statistics(wrong, std)
    with pytest.raises(ValueError, match=r"a mean with no points along the axes but got \(1, 5, 1\)"):
        Normalizer(2).set_statistics(mean, std)
    with pytest.raises(ValueError, match="2 channels but got 3 and 2"):
        normalizer.set_statistics(torch.zeros(3, 1, 5, 1), std)


def test_a_trajectory_reads_lazily_and_within_its_range():
    asked = []

    def read_into(start, out):
        asked.append((start, len(out)))
        out.fill_(start)

    trajectory = Trajectory(metadata(), Context((torch.zeros(4),)), torch.arange(6.0), read_into, (6, 2, 4))
    assert len(trajectory) == 6
    assert asked == []
    assert trajectory.read(2, 4).shape == (2, 2, 4)
    assert asked == [(2, 2)]
    for start, stop in ((-1, 2), (3, 3), (0, 7)):
        with pytest.raises(ValueError, match=r"within 0\.\.6"):
            trajectory.read(start, stop)


def test_cells_on_an_open_axis_count_by_their_width():
    grid = Grid((Axis("x"),))
    centers = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    (even,) = grid.quadrature_weights((centers,), cells=True)
    assert torch.allclose(even, torch.full((16,), 1 / 16, dtype=torch.float64))
    (nodes,) = grid.quadrature_weights((centers,))
    assert nodes.sum().item() == pytest.approx(15 / 16)  # from the first point to the last
    edges = torch.linspace(0, 1, 9, dtype=torch.float64) ** 2
    middles = (edges[1:] + edges[:-1]) / 2
    (stretched,) = grid.quadrature_weights((middles,), cells=True)
    # Half way between centers is not quite a face of stretched cells.
    assert stretched.sum().item() == pytest.approx(1.0, rel=0.05)
    periodic = Grid((Axis("x", period=1.0),))
    assert torch.equal(*(periodic.quadrature_weights((centers,), cells=cells)[0] for cells in (True, False)))


@given(st.integers(2, 40), st.floats(0.0, 3.0), st.floats(-5.0, 5.0))
def test_bounds_tell_the_faces_of_stretched_cells(n, stretching, low):
    place = torch.linspace(-1, 1, n + 1, dtype=torch.float64)
    faces = low + 1 + (torch.tanh(stretching * place) / math.tanh(stretching) if stretching > 1e-3 else place)
    bounds = float(faces[0]), float(faces[-1])
    centers = (faces[1:] + faces[:-1]) / 2
    torch.testing.assert_close(cell_faces(centers, bounds), faces, atol=1e-12, rtol=0)
    for cells in (True, False):
        (widths,) = Grid((Axis("y", bounds=bounds),)).quadrature_weights((centers.expand(3, -1),), cells=cells)
        torch.testing.assert_close(widths, faces.diff().expand(3, -1), atol=1e-12, rtol=0)
    (nodes,) = Grid((Axis("y", bounds=bounds),)).quadrature_weights((faces,))
    torch.testing.assert_close(nodes, Grid((Axis("y"),)).quadrature_weights((faces,))[0], atol=1e-12, rtol=0)


def test_bounds_survive_a_file_and_are_optional_there():
    axis = Axis("y", bounds=(0, 2))
    original = metadata(grid=Grid((Axis("x", period=1.0), axis)))
    assert Metadata.from_dict(json.loads(json.dumps(original.to_dict()))) == original
    assert original.grid.axes[1].bounds == (0.0, 2.0)
    assert all("bounds" not in axis for axis in metadata().to_dict()["grid"]["axes"])
