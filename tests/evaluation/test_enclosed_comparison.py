"""Enclosed flows beside published ones: exact profiles, round trips, and the tables."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pdesurrogate.evaluation.enclosed.centerlines import Centerlines, Line, cavity_centerlines, largest_differences
from pdesurrogate.evaluation.enclosed.fields import (
    stream_function,
    velocity_in_cells,
    velocity_on_faces,
    vorticity_in_cells,
)
from pdesurrogate.evaluation.enclosed.forces import ForceCoefficients
from pdesurrogate.evaluation.enclosed.reference import SCHAEFER_TUREK_2D2, Source, cavity_reference
from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
from pdesurrogate.simulators.enclosed.problems import Cavity, StepFlow

SHARED = Path(__file__).parents[3] / "shared" / "data" / "ghia_cavity"
SOURCES: tuple[Source, ...] = ("marchi_2009", "ghia_1982", "botella_1998")


def _centers(shape: tuple[int, int], lengths: tuple[float, float] = (1.0, 1.0)) -> tuple[Tensor, Tensor]:
    x, y = ((torch.arange(size).double() + 0.5) * (side / size) for size, side in zip(shape, lengths, strict=True))
    return x, y


def _from_stream_function(psi: Tensor, lengths: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Velocity ``(2, x, y)`` on lower faces of ``psi (nx + 1, ny + 1)`` at corners."""
    dx, dy = (side / (size - 1) for side, size in zip(lengths, psi.shape, strict=True))
    return torch.stack([psi.diff(dim=1)[:-1] / dy, -psi.diff(dim=0)[:, :-1] / dx])


def _corners(size: int) -> Tensor:
    return torch.linspace(0.0, 1.0, size + 1, dtype=torch.float64)


def test_a_stream_function_comes_back_from_its_velocity() -> None:
    psi = torch.sin(math.pi * _corners(12))[:, None] ** 2 * torch.sin(math.pi * _corners(9)) ** 2
    psi = psi + 0.3 * _corners(9)  # and a through flow
    psi[:, -1] = psi[0, -1]
    velocity = _from_stream_function(psi, (3.0, 2.0))
    torch.testing.assert_close(stream_function(velocity, _centers((12, 9), (3.0, 2.0))), psi)


def test_walls_and_bodies_are_streamlines_of_the_solver() -> None:
    flow = EnclosedFlow(StepFlow(), (48, 16), frame_interval=0.5, steps_per_frame=30)
    state = flow.advance(flow.at_rest(1), 30)
    psi = stream_function(state[0, :2], flow.coordinates)
    torch.testing.assert_close(psi[:, -1], torch.full_like(psi[:, -1], 1.0))
    # Along the floor, and inside the step.
    x, y = _corners(48) * 4, _corners(16)
    inside = ((x > 1.0) & (x < 1.3))[:, None] & (y < 0.3)
    assert float(psi[:, 0].abs().max()) == 0
    assert float(psi[inside].abs().max()) < 1e-12


def test_what_leaves_follows_from_continuity() -> None:
    flow = EnclosedFlow(StepFlow(), (48, 16), frame_interval=0.5, steps_per_frame=30)
    state = flow.advance(flow.at_rest(2), 30)
    u, v = velocity_on_faces(state[:, :2], flow.coordinates)
    assert (u.shape, v.shape) == ((2, 49, 16), (2, 48, 17))
    torch.testing.assert_close(u[:, -1].sum(1) / 16, flow.diagnostics(state).outflow)
    assert float(v[..., -1].abs().max()) == 0


def test_cells_hold_the_means_of_their_faces() -> None:
    generator = torch.Generator().manual_seed(0)
    velocity = torch.randn(2, 6, 5, dtype=torch.float64, generator=generator)
    cells = velocity_in_cells(velocity, _centers((6, 5)))
    torch.testing.assert_close(cells[0, :-1], (velocity[0, 1:] + velocity[0, :-1]) / 2)
    torch.testing.assert_close(cells[1, :, -1], velocity[1, :, -1] / 2)


def test_vorticity_of_a_parabolic_profile_is_exact() -> None:
    _, y = _centers((8, 10))
    velocity = torch.stack([(y * (1 - y)).expand(8, 10), torch.zeros(8, 10, dtype=torch.float64)])
    vorticity = vorticity_in_cells(velocity, _centers((8, 10)))
    torch.testing.assert_close(vorticity, (2 * y - 1).expand(8, 10), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 4, 4), (4, 4)])
def test_velocities_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected a plane velocity \(..., 2, 4, 4\)"):
        velocity_in_cells(torch.zeros(shape), _centers((4, 4)))


@pytest.mark.parametrize("size", [8, 9])
def test_centerlines_are_exact_where_the_flow_is_linear_across_them(size: int) -> None:
    """Whether the middle lies on a face or in a cell."""
    faces = torch.arange(size).double() / size
    (x, y) = _centers((size, size))
    velocity = torch.stack([(1 + faces)[:, None] * y**2, (2 - faces) * torch.sin(x)[:, None]])
    lines = cavity_centerlines(velocity, (x, y))
    np.testing.assert_allclose(lines.velocity_x.positions, [0, *y.tolist(), 1])
    np.testing.assert_allclose(lines.velocity_x.values, [0, *(1.5 * y**2).tolist(), 1])
    np.testing.assert_allclose(lines.velocity_y.values, [0, *(1.5 * torch.sin(x)).tolist(), 0])


def test_centerlines_are_in_units_of_box_and_lid() -> None:
    velocity = torch.randn(2, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = cavity_centerlines(velocity, _centers((6, 8)))
    scaled = cavity_centerlines(-2.5 * velocity, _centers((6, 8), (3.0, 7.0)), lid_velocity=-2.5)
    for one, other in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(one.positions, other.positions)
        np.testing.assert_allclose(one.values, other.values)


def test_a_line_is_read_off_by_a_cubic_and_not_beyond_its_ends() -> None:
    points = np.sort(np.random.default_rng(0).random(9))
    line = Line(points, 1 - points + 2 * points**3)
    wanted = np.linspace(points[0], points[-1], 50)
    np.testing.assert_allclose(line.at(wanted), 1 - wanted + 2 * wanted**3)
    np.testing.assert_allclose(line.at(points), line.values)
    with pytest.raises(ValueError, match="Expected positions within"):
        line.at(np.asarray([1.1]))


def test_the_largest_difference_is_that_at_the_published_points() -> None:
    x = np.linspace(0, 1, 6)
    line = Line(x, x)
    known = Centerlines(Line(x[1:4], x[1:4] + np.asarray([0.0, -0.3, 0.1])), Line(x[1:2], x[1:2]))
    assert largest_differences(Centerlines(line, line), known) == pytest.approx((0.3, 0.0))


def test_cavities_are_refused_where_they_are_none() -> None:
    with pytest.raises(ValueError, match="select one frame"):
        cavity_centerlines(torch.zeros(1, 2, 4, 4), _centers((4, 4)))
    with pytest.raises(ValueError, match="Expected a lid that moves"):
        cavity_centerlines(torch.zeros(2, 4, 4), _centers((4, 4)), lid_velocity=0.0)


@pytest.mark.parametrize("number", [100, 400, 1000])
def test_sources_agree_to_what_they_promise(number: int) -> None:
    """Marchi's points are coarse: reading between them costs more than the tables differ, so Ghia's are few."""
    marchi, ghia = (cavity_reference(number, source) for source in SOURCES[:2])
    shared = np.isin(ghia.centerlines.velocity_x.positions, marchi.centerlines.velocity_x.positions)
    assert shared.sum() == 2  # 1/16 and 1/2
    same = ghia.centerlines.velocity_x.positions[shared]
    found = [line.centerlines.velocity_x.at(same) for line in (marchi, ghia)]
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)
    assert ghia.vortex is not None
    assert marchi.vortex is None


def test_spectral_values_equal_the_extrapolated_ones() -> None:
    marchi, botella = (cavity_reference(1000, source).centerlines for source in ("marchi_2009", "botella_1998"))
    np.testing.assert_allclose(marchi.velocity_x.at(np.asarray([0.0625, 0.5])), [-0.2023300, -0.0620561], atol=2e-7)
    np.testing.assert_allclose(botella.velocity_y.at(np.asarray([0.0625])), marchi.velocity_y.values[:1], atol=2e-7)


def test_the_misprint_is_left_out() -> None:
    lines = {number: cavity_reference(number, "ghia_1982").centerlines.velocity_y for number in (100, 400, 1000)}
    assert [0.9063 in line.positions for line in lines.values()] == [True, False, True]
    assert [len(line.positions) for line in lines.values()] == [17, 16, 17]


@pytest.mark.parametrize("source", SOURCES)
def test_tables_are_ordered_and_cited(source: Source) -> None:
    reference = cavity_reference(1000, source)
    assert "doi:" in reference.citation
    for line in reference.centerlines:
        assert (np.diff(line.positions) > 0).all()
        assert np.abs(line.values).max() <= 1


def test_unknown_cavities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected a Reynolds number among \[1000\]"):
        cavity_reference(100, "botella_1998")
    with pytest.raises(ValueError, match="Expected a source among"):
        cavity_reference(100, "somebody")  # type: ignore[arg-type]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the tables that ours were typed from are not at hand")
def test_tables_equal_those_they_were_typed_from() -> None:
    with (SHARED / "marchi2009_centrelines.csv").open() as file:
        rows = list(csv.DictReader(file))
    for number in (100, 400, 1000):
        lines = cavity_reference(number).centerlines
        np.testing.assert_array_equal(lines.velocity_x.values, [float(row[f"u_re{number}"]) for row in rows])
        np.testing.assert_array_equal(lines.velocity_y.values, [float(row[f"v_re{number}"]) for row in rows])


def test_a_coarse_cavity_is_near_the_published_one() -> None:
    flow = EnclosedFlow(Cavity(), (16, 16), frame_interval=1.0, steps_per_frame=18)
    state = flow.advance(flow.at_rest(1), 18 * 20)
    lines = cavity_centerlines(state[0, :2], flow.coordinates)
    assert max(largest_differences(lines, cavity_reference(100).centerlines)) < 0.025


def test_force_coefficients_follow_their_definition() -> None:
    times = torch.arange(200).double() * 0.05
    lift = 3.0 * torch.sin(2 * torch.pi * 0.8 * times)
    found = ForceCoefficients.of_forces(times, 2 + lift, lift, density=1.5, velocity=2.0, diameter=0.5)
    np.testing.assert_allclose(found.lift, lift / (0.5 * 1.5 * 4.0 * 0.5))
    assert found.strouhal_number == pytest.approx(0.8 * 0.5 / 2.0, rel=1e-3)
    # Lists keep their digits.
    listed = ForceCoefficients.of_forces(
        times.tolist(), (2 + lift).tolist(), lift.tolist(), density=1.5, velocity=2.0, diameter=0.5
    )
    np.testing.assert_array_equal(listed.drag, found.drag)
    late = found.after(5.0)
    assert late.times[0] == pytest.approx(5.0)
    assert late.strouhal_number == pytest.approx(found.strouhal_number, rel=1e-2)


def test_histories_that_are_none_are_refused() -> None:
    even = np.arange(4.0)
    with pytest.raises(ValueError, match="of one length"):
        ForceCoefficients(even, even[:3], even, 1.0)
    with pytest.raises(ValueError, match="Expected even times"):
        ForceCoefficients(even**2, even, even, 1.0)
    with pytest.raises(ValueError, match="at least two"):
        ForceCoefficients(even, even, even, 1.0).after(3.0)


def test_published_intervals_are_intervals() -> None:
    reference = SCHAEFER_TUREK_2D2
    for interval in (
        reference.strouhal_number,
        reference.largest_drag_coefficient,
        reference.largest_lift_coefficient,
    ):
        assert 0 < interval.low < interval.high < 1.05 * interval.low
