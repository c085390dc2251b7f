"""Suites of data that some metrics refuse: the rest is measured, and the reasons are told."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from helpers import block_of, context_of

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics import suites
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.suites import SUITES, default_suite, left_out, suite_for

PERIODS = {"x": 2.0, "y": 1.0, "z": 1.5}
SIZES = {"x": 8, "y": 9, "z": 6}
FACES = ("face_x", "face_y", "face_z")
ALWAYS = {"errors", "integrals", "moments", "density", "autocorrelation"}


def flow_plan(
    axes, walls="", locations=None, further=(), sizes=SIZES, attributes=None, parameters=(), frames=3, **options
):
    """A velocity along ``axes``; those in ``walls`` are not periodic."""
    grid = Grid(tuple(Axis(name, period=None if name in walls else PERIODS[name]) for name in axes))
    locations = ("node",) * len(axes) if locations is None else locations
    velocity = (Channel(f"velocity_{name}", location=where) for name, where in zip(axes, locations, strict=True))
    metadata = Metadata("flow", grid, (*velocity, *further), 0.1, parameters, attributes=attributes or {})
    lines = tuple((torch.arange(sizes[name]) + 0.5).double() * (PERIODS[name] / sizes[name]) for name in axes)
    return RolloutPlan(metadata, 2, frames, lines, **options)


CASES = {
    # name: plan, suite, some that it has, those that refuse and a piece of their reason
    "staggered cavity": (
        flow_plan("xy", walls="xy", locations=FACES[:2]),
        "enclosed_2d",
        {"divergence", "section_balance", "no_slip", "centerlines", "boundary_errors"},
        {"flux_balance": "at nodes", "forces": "mask", "vortices": "exactly one axis", "channel": "exactly one axis"},
    ),
    "staggered channel": (
        flow_plan("xyz", walls="y", locations=FACES),
        "channel",
        {"channel", "channel_history", "line_spectra", "divergence", "vortices", "two_point"},
        {"forces": "a plane flow", "centerlines": "two axes"},
    ),
    "staggered flow past a body": (
        flow_plan(
            "xy",
            walls="xy",
            locations=FACES[:2],
            sizes={"x": 14, "y": 12},
            further=(Channel("pressure", location="cell"),),
            parameters=("density", "dynamic_viscosity", "inlet_velocity", "radius"),
            frames=9,
            masked=True,
        ),
        "enclosed_2d",
        {"divergence", "section_balance", "no_slip", "forces", "centerlines"},
        {"flux_balance": "at nodes", "spectra": "mask"},
    ),
    "cavity at nodes": (
        flow_plan("xy", walls="xy"),
        "enclosed_2d",
        {"divergence", "flux_balance", "section_balance", "no_slip", "centerlines"},
        {"forces": "mask"},
    ),
    "velocity in cells of different boxes": (
        flow_plan("xy", walls="xy", locations=("cell", "cell"), masked=True, shared_grid=False),
        "enclosed_2d",
        {"divergence", "section_balance", "no_slip", "centerlines"},
        {"flux_balance": "at nodes", "forces": "'pressure'"},
    ),
    "masked box": (
        flow_plan("xyz", masked=True),
        "periodic_3d",
        {"divergence", "no_slip", "energy_drift"},
        {"vortices": "no mask", "spectra": "mask", "two_point": "no mask", "budget": "plane periodic"},
    ),
    "boxes of different extent": (
        flow_plan("xyz", shared_grid=False),
        "periodic_3d",
        {"divergence", "energy_drift"},
        {"vortices": "one grid", "two_point": "one grid", "structure_functions": "one grid", "spectra": ""},
    ),
    "channel with pressure in cells": (
        flow_plan("xyz", walls="y", further=(Channel("pressure", location="cell"),)),
        "channel",
        {"channel", "channel_history", "line_spectra", "divergence", "vortices"},
        {"uncertainty": "two members"},
    ),
    "channel with two points in z": (
        flow_plan("xyz", walls="y", sizes={**SIZES, "z": 2}),
        "channel",
        {"channel", "channel_history", "vortices"},
        {"line_spectra": "four points", "divergence": "three points"},
    ),
    "channel with a number as text": (
        flow_plan("xyz", walls="y", attributes={"friction_reynolds_number": "180"}),
        "channel",
        {"channel", "line_spectra"},
        {"energy_drift": None},
    ),
    "channel with text for a number": (
        flow_plan("xyz", walls="y", attributes={"friction_reynolds_number": "unknown"}),
        "channel",
        {"channel", "divergence"},
        {"line_spectra": "'unknown'"},
    ),
    "velocity in cells and on nodes": (
        flow_plan("xy", locations=("cell", "node")),
        "periodic_2d",
        {"energy_drift", "spectra", "two_point"},
        {"divergence": "correct the location", "vortices": "same points"},
    ),
    "flow past bodies": (
        flow_plan("xy", masked=True),
        "periodic_2d",
        {"divergence", "no_slip"},
        {"spectra": "mask", "flux_balance": "not periodic"},
    ),
    "plane periodic flow": (
        flow_plan("xy"),
        "periodic_2d",
        {"divergence", "energy_drift", "spectra", "structure_functions"},
        {"no_slip": "not periodic", "budget": "viscosity", "boundary_errors": "not periodic"},
    ),
}


def random_block(plan):
    generator = torch.Generator().manual_seed(3)
    shape = (plan.trajectories, plan.frames, len(plan.metadata.channels), *plan.shape)
    prediction, target = (torch.randn(shape, generator=generator) for _ in range(2))
    if not plan.periodic[-1]:
        target[..., 0] = 0.0  # a wall
    context = context_of(plan, plan.trajectories)
    if plan.masked:
        mask = torch.ones(plan.trajectories, *plan.shape, dtype=torch.bool)
        mask[:, 3:5, 3:6] = False
        context = context._replace(mask=mask)
    if plan.metadata.parameters:
        context = context._replace(parameters=torch.ones(plan.trajectories, len(plan.metadata.parameters)))
    if not plan.shared_grid:
        scale = torch.tensor([[1.0], [0.9]])
        context = context._replace(coordinates=tuple(scale * points for points in context.coordinates))
    return block_of(plan, prediction, target, context=context)


@pytest.mark.parametrize("case", CASES)
def test_data_are_measured_as_far_as_metrics_go(case):
    plan, suite, wanted, refused = CASES[case]
    assert suite_for(plan).__name__ == suite
    metrics = default_suite(plan)
    assert ALWAYS | wanted <= metrics.keys()
    reasons = left_out(plan)
    assert not metrics.keys() & reasons.keys(), "either measured or refused"
    for name, reason in refused.items():
        assert name not in metrics
        assert (name in reasons) == (reason is not None)
        assert reason is None or reason in reasons[name], reasons[name]
    block = random_block(plan)
    for name, metric in metrics.items():
        metric.update(block)
        outputs = metric.compute()
        assert outputs.keys() == metric.variables.keys(), name
        assert any(values.isfinite().any() for values in outputs.values()), name


def test_bodies_at_which_the_flow_is_not_at_rest_are_told():
    plan = flow_plan("xy", masked=True)
    block = random_block(plan)
    metric = default_suite(plan)["no_slip"]
    metric.update(block)
    found = metric.compute()
    assert all((values > 0).all() for name, values in found.items() if name.endswith("prediction"))


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.__name__)
def test_any_suite_takes_any_data(suite):
    for plan, *_ in CASES.values():
        metrics = suite(plan)
        assert metrics.keys() >= ALWAYS
        assert not metrics.keys() & left_out(plan).keys()


def test_errors_are_never_left_out():
    def refuse(plan):
        raise ValueError("Expected other data.")

    with patch.object(suites, "ErrorMetric", refuse), pytest.raises(ValueError, match="other data"):
        default_suite(flow_plan("xy"))


def test_only_a_refusal_is_a_reason_to_leave_a_metric_out():
    def broken(plan):
        raise TypeError("a mistake in the code")

    with patch.dict(suites._METRICS, moments=broken), pytest.raises(TypeError, match="a mistake"):
        default_suite(flow_plan("xy"))


def test_calibration_is_a_matter_of_the_model():
    plan = flow_plan("xy")
    assert not {"variance", "uncertainty"} & default_suite(plan).keys()
    sure = default_suite(replace(plan, members=3, has_variance=True))
    assert {"variance", "uncertainty"} <= sure.keys()
    assert len(sure) == len(default_suite(plan)) + 2
