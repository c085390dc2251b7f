"""Boxes, bodies, sides and problems of enclosed flows: what they are, and what is refused."""

from __future__ import annotations

import math
from dataclasses import astuple, fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.simulators.enclosed.boundary import Boundary, FreeSlip, Inlet, Outlet, ParabolicInlet, Wall
from pdesurrogate.simulators.enclosed.case import BuoyantScalar, Case, Fluid
from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
from pdesurrogate.simulators.enclosed.geometry import Body, Box, Disc, Rectangle
from pdesurrogate.simulators.enclosed.problems import (
    Cavity,
    CylinderWake,
    SchaeferTurek,
    SmokePlume,
    StepFlow,
    Tube,
    parameter_names,
)

PLACES = st.floats(-3.0, 3.0)
BODIES: list[Body] = [Disc((0.2, -0.1), 0.8), Rectangle((-1.0, 0.0), (0.5, 0.7))]
PROBLEMS = [Cavity(), Tube(), StepFlow(), CylinderWake(), SchaeferTurek(), SmokePlume()]
UNIT = Box((0.0, 0.0), (1.0, 1.0))
WATER = Fluid(1.0, 0.1)


def name_of(value: object) -> str:
    return type(value).__name__


# Geometry.


def test_faces_and_centers_divide_a_box_evenly():
    box = Box((-1.0, 0.5), (2.0, 1.5))
    for faces, centers, low, high in zip(box.faces((6, 4)), box.centers((6, 4)), box.low, box.high, strict=True):
        assert (float(faces[0]), float(faces[-1])) == (low, high)
        torch.testing.assert_close((faces[1:] + faces[:-1]) / 2, centers)
        torch.testing.assert_close(faces.diff(), torch.full_like(centers, (high - low) / len(centers)))
        assert faces.dtype == centers.dtype == torch.float64


@pytest.mark.parametrize("body", BODIES, ids=name_of)
@given(x=PLACES, y=PLACES)
def test_the_nearest_point_lies_on_the_surface_at_the_stated_distance(body, x, y):
    point = torch.tensor([x, y], dtype=torch.float64)
    near = torch.stack(body.nearest(*point))
    assert float(body.distance(*near)) == pytest.approx(0, abs=1e-12)
    distance = body.distance(*point)
    assert float((near - point).norm()) == pytest.approx(abs(float(distance)), abs=1e-12)


@pytest.mark.parametrize("body", BODIES, ids=name_of)
@given(first=st.tuples(PLACES, PLACES), second=st.tuples(PLACES, PLACES))
def test_distances_change_no_faster_than_places(body, first, second):
    one, other = (torch.tensor(place, dtype=torch.float64) for place in (first, second))
    assert abs(float(body.distance(*one) - body.distance(*other))) <= float((one - other).norm()) + 1e-12


@pytest.mark.parametrize("body", BODIES, ids=name_of)
def test_bounds_hold_the_body_and_no_more(body):
    x, y = (torch.linspace(-3, 3, 1201, dtype=torch.float64) for _ in range(2))
    inside = (body.distance(x[:, None], y) <= 1e-12).nonzero()
    for axis, points in enumerate((x, y)):
        found = points[inside[:, axis]]
        assert float(found.min()) == pytest.approx(body.bounds[0][axis], abs=0.006)
        assert float(found.max()) == pytest.approx(body.bounds[1][axis], abs=0.006)


def test_the_center_of_a_disc_has_a_nearest_point_too():
    x, y = Disc((0.5, 0.25), 0.125).nearest(*torch.tensor([0.5, 0.25], dtype=torch.float64))
    assert (float(x), float(y)) == (0.625, 0.25)


def test_bodies_of_an_aligned_bar_close_its_surface_and_what_is_inside():
    case = Case(UNIT, Boundary(), WATER, bodies=(Rectangle((0.25, 0.25), (0.75, 0.5)),))
    closed_x, closed_y = case.closed_faces((8, 8))
    expected_x, expected_y = torch.zeros(9, 8, dtype=torch.bool), torch.zeros(8, 9, dtype=torch.bool)
    expected_x[2:7, 2:4] = True
    expected_y[2:6, 2:5] = True
    assert torch.equal(closed_x, expected_x)
    assert torch.equal(closed_y, expected_y)


def test_the_nearest_of_several_bodies_counts():
    near, far = Disc((0.25, 0.5), 0.1), Disc((0.75, 0.5), 0.15)
    case = Case(UNIT, Boundary(), WATER, bodies=(near, far))
    x, y = UNIT.centers((16, 16))
    both = torch.minimum(near.distance(x[:, None], y), far.distance(x[:, None], y))
    assert torch.equal(case.distance(x[:, None], y), both)
    assert bool(Case(UNIT, Boundary(), WATER).distance(x[:, None], y).isinf().all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Box((0.0, 0.0), (1.0, 0.0)), "Expected a finite box with its high corner above its low one"),
        (lambda: Box((0.0, math.nan), (1.0, 1.0)), "Expected a finite box with its high corner above its low one"),
        (lambda: Box((0.0, 0.0), (math.inf, 1.0)), "Expected a finite box"),
        (lambda: Disc((0.0, 0.0), 0.0), "Expected a positive radius but got 0.0"),
        (lambda: Disc((0.0, 0.0), math.nan), "Expected a positive radius but got nan"),
        (lambda: Rectangle((0.0, 0.0), (-1.0, 1.0)), "Expected a rectangle of positive width and height"),
        (lambda: Fluid(0.0, 1.0), "Expected a positive density but got 0.0"),
        (lambda: Fluid(1.0, -1.0), "Expected a positive dynamic_viscosity but got -1.0"),
        (lambda: Fluid(math.inf, 1.0), "Expected a positive density but got inf"),
        (lambda: BuoyantScalar(-1.0), "Expected a finite diffusivity >= 0 but got -1.0"),
        (lambda: BuoyantScalar(0.0, (0.0, math.nan)), "Expected a finite buoyancy"),
        (lambda: Inlet(0.0), "Expected a finite inlet velocity > 0, into the box, but got 0.0"),
        (lambda: Inlet(math.inf), "Expected a finite inlet velocity"),
        (lambda: ParabolicInlet(-1.5), "Expected a finite inlet velocity > 0, into the box, but got -1.5"),
        (lambda: Wall(math.nan), "Expected a finite wall velocity but got nan"),
        (lambda: Boundary(left=Inlet(1.0)), "Expected an outlet on the right .* what enters must leave"),
        (lambda: Boundary(left=Inlet(1.0), right=FreeSlip()), "but the right side is FreeSlip"),
        (lambda: Boundary(right=Outlet()), "Expected an inlet on the left .* what leaves must enter"),
        (lambda: Case(UNIT, Boundary(), WATER, speed=math.nan), "Expected a finite speed >= 0"),
        (lambda: Case(UNIT, Boundary(), WATER, speed=-1.0), "Expected a finite speed >= 0"),
        (lambda: StepFlow(step_height=1.0), "Expected a step lower than the channel, 1.0, but got 1.0"),
        (
            lambda: CylinderWake(y_min=1.0, y_max=1.0).case(),
            "Expected a finite box with its high corner above its low one",
        ),
        (lambda: Tube(length=-1.0).case(), "Expected a finite box with its high corner above its low one"),
        (lambda: SmokePlume(size=0.0).case(), "Expected a finite box with its high corner above its low one"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# Sides.


def test_kinds_of_sides_and_their_largest_velocity():
    closed = Boundary(left=Wall(-3.0), top=Wall(2.0))
    assert closed.kinds == ("Wall", "Wall", "Wall", "Wall")
    assert closed.largest_velocity == 3.0
    assert not closed.is_open
    through = Boundary(left=ParabolicInlet(1.5), right=Outlet(), top=FreeSlip())
    assert through.kinds == ("Inlet", "Outlet", "Wall", "FreeSlip")
    assert through.largest_velocity == 1.5
    assert through.is_open
    assert Boundary().largest_velocity == 0.0


# Problems.


@pytest.mark.parametrize("problem", PROBLEMS, ids=name_of)
def test_parameters_are_numbers_among_them_density_and_viscosity(problem):
    names = parameter_names(problem)
    assert names == tuple(field.name for field in fields(problem))
    assert {"density", "dynamic_viscosity"} <= set(names)
    assert all(isinstance(value, float) for value in astuple(problem))


def test_parameters_of_the_recipes_have_their_order():
    assert parameter_names(Cavity()) == ("lid_velocity", "density", "dynamic_viscosity", "width", "height")
    assert parameter_names(Tube()) == ("inlet_velocity", "density", "dynamic_viscosity", "length", "height")
    assert parameter_names(StepFlow()) == (
        "inlet_velocity", "density", "dynamic_viscosity", "step_height", "step_width", "step_position", "length",
        "height",
    )  # fmt: skip
    assert parameter_names(CylinderWake()) == (
        "inlet_velocity", "density", "dynamic_viscosity", "radius", "x_min", "x_max", "y_min", "y_max"
    )  # fmt: skip
    assert parameter_names(SmokePlume()) == ("buoyancy", "density", "dynamic_viscosity", "diffusivity", "size")


def test_smoke_may_sink():
    case = SmokePlume(buoyancy=-0.5).case()
    assert case.scalar == BuoyantScalar(0.0, (0.0, -0.5))
    assert case.expected_speed == SmokePlume(buoyancy=0.5).case().expected_speed


# What a grid cannot hold.


def boxed(*bodies: Body, **options) -> Case:
    return Case(UNIT, Boundary(), WATER, bodies=bodies, **options)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            boxed(Disc((0.5, 0.5), 0.07)),
            r"Expected bodies of at least 3 cells along each axis but Disc\(.*\) has 2.2 inside the box along x; use",
        ),
        (boxed(Rectangle((0.2, 0.5), (0.8, 0.6))), "has 1.6 inside the box along y"),
        (boxed(Disc((1.5, 0.5), 0.2)), r"Expected bodies inside the box Box\(.*\) but Disc\(.*\) lies outside along x"),
        (boxed(Disc((0.5, -0.2), 0.2)), "lies outside along y"),
        (
            boxed(Disc((0.3, 0.5), 0.2)),
            "Expected a gap of at least 3 cells between a body and the sides of the box but .* leaves 1.6 along x",
        ),
        (boxed(Rectangle((0.4, 0.0), (0.6, 0.5))), "leaves 0 along y; use more cells, or let it reach through"),
        (
            boxed(Disc((0.35, 0.5), 0.1), Disc((0.6, 0.5), 0.1)),
            "Expected a gap of at least 3 cells between bodies but Disc.* and Disc.* are closer or overlap",
        ),
        (boxed(Disc((0.5, 0.5), 0.2), Disc((0.5, 0.5), 0.1)), "Expected a gap of at least 3 cells between bodies"),
        (
            Case(UNIT, Boundary(left=Inlet(1.0), right=Outlet()), WATER, bodies=(Rectangle((-1.0, -1.0), (0.3, 0.3)),)),
            "Expected bodies clear of inlet and outlet but Rectangle.* reaches through a side along x",
        ),
        (
            Case(UNIT, Boundary(), Fluid(1.0, 0.001), speed=2.0),
            "Expected a cell Reynolds number U h / nu of at most 25 but got 125 on 16 x 16 cells; use about 80 cells",
        ),
    ],
)
def test_what_a_grid_cannot_hold_is_refused(case, message):
    with pytest.raises(ValueError, match=message):
        case.require_resolved((16, 16), 25.0)


def test_bodies_of_three_cells_with_gaps_of_three_cells_fit():
    bars = [Rectangle((3 * place / 16, 3 / 16), (3 * (place + 1) / 16, 13 / 16)) for place in (1, 3)]
    boxed(*bars).require_resolved((16, 16), 25.0)
    boxed(Rectangle((-1.0, -1.0), (0.5, 0.5))).require_resolved((16, 16), 25.0)


def test_the_number_of_cells_that_is_asked_for_will_do():
    case = Case(Box((0.0, 0.0), (2.0, 1.0)), Boundary(top=Wall(1.0)), Fluid(1.0, 0.0007))
    with pytest.raises(ValueError, match="use about 115 cells along the longer side"):
        case.require_resolved((32, 16), 25.0)
    case.require_resolved((115, 58), 25.0)


def test_cell_reynolds_number_takes_the_wider_side_of_a_cell():
    case = Case(UNIT, Boundary(top=Wall(2.0)), Fluid(2.0, 0.1))
    assert case.cell_reynolds_number((8, 16)) == pytest.approx(2 * (1 / 8) / 0.05)
    assert Case(UNIT, Boundary(), WATER, speed=3.0).cell_reynolds_number((10, 10)) == pytest.approx(3.0)


# Solvers.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (16,)}, r"Expected a shape of two axes with at least four cells each but got \(16,\)"),
        ({"shape": (16, 3)}, r"Expected a shape of two axes with at least four cells each but got \(16, 3\)"),
        ({"frame_interval": 0.0}, "Expected a positive, finite frame_interval and a whole number .* but got 0.0, 10"),
        ({"frame_interval": math.inf}, "Expected a positive, finite frame_interval"),
        ({"steps_per_frame": 100.5}, "whole number of steps_per_frame but got 0.1, 100.5"),
        ({"precision": "half"}, "Expected precision 'float32' or 'float64' but got 'half'"),
        ({"largest_cell_reynolds_number": -1.0}, "Expected largest_cell_reynolds_number > 0 but got -1.0"),
        (
            {"problem": StepFlow(dynamic_viscosity=0.1, step_height=0.1), "shape": (64, 16)},
            "has 1.6 inside the box along y",
        ),
        (
            {"problem": CylinderWake(dynamic_viscosity=1e-4, radius=5.0, x_min=-6.0), "shape": (64, 32)},
            "reaches from side to side along y and cuts the box",
        ),
        ({"frame_interval": math.nan}, "Expected a positive, finite frame_interval"),
        ({"steps_per_frame": 0}, "whole number of steps_per_frame but got 0.1, 0"),
        ({"problem": Cavity(dynamic_viscosity=1e-4)}, "Expected a cell Reynolds number .* but got 625 on 16 x 16"),
        (
            {"problem": CylinderWake(dynamic_viscosity=0.1, radius=0.1), "shape": (55, 30)},
            "Expected bodies of at least 3 cells",
        ),
        (
            {"problem": StepFlow(dynamic_viscosity=0.1, step_width=0.1), "shape": (64, 16)},
            "Expected bodies of at least 3 cells along each",
        ),
        (
            {"problem": StepFlow(dynamic_viscosity=0.1, step_height=0.9), "shape": (64, 16)},
            "Expected a gap of at least 3 cells .* along y",
        ),
        ({"problem": StepFlow(dynamic_viscosity=0.1, step_height=0.0), "shape": (64, 16)}, "lies outside along y"),
        (
            {"problem": StepFlow(dynamic_viscosity=0.1, step_position=3.9), "shape": (64, 16)},
            "clear of inlet and outlet",
        ),
    ],
)
def test_bad_settings_of_a_solver_are_refused(options, message):
    standard = {"problem": Cavity(), "shape": (16, 16), "frame_interval": 0.1, "steps_per_frame": 10}
    with pytest.raises(ValueError, match=message):
        EnclosedFlow(**{**standard, **options})


@pytest.mark.parametrize(
    "problem", [Cavity(), Cavity(dynamic_viscosity=1.0), SmokePlume(0.0, 1.0, 50.0, 200.0, 32.0)], ids=str
)
def test_a_time_step_over_the_limit_is_refused_with_the_steps_that_will_do(problem):
    with pytest.raises(ValueError, match=r"Expected a time step of at most .* use at least (\d+) steps") as caught:
        EnclosedFlow(problem, (16, 16), 1.0, 1)
    steps = int(str(caught.value).split("use at least ")[1].split()[0])
    flow = EnclosedFlow(problem, (16, 16), 1.0, steps)
    assert flow.time_step <= flow.largest_time_step() < 1.0 / (steps - 1)
