"""How far a law is broken, by the rows that enforce it."""

from __future__ import annotations

import torch
from helpers import measure, plan_of

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.metrics.law import LawMetric
from pdesurrogate.physics.conservation.laws import BalancedMeans, KeptMeans

BOX = Metadata(
    "box",
    Grid((Axis("x", period=1.0), Axis("y", period=1.0))),
    (Channel("density", units="kg/m3"), Channel("scalar")),
    frame_interval=0.5,
)


def fields(drift):
    noise = torch.randn(3, 5, 2, 8, 6, generator=torch.Generator().manual_seed(0))
    noise = noise - noise.mean((-2, -1), keepdim=True)
    return noise + drift * torch.arange(5.0).reshape(5, 1, 1, 1)


def test_residuals_are_the_drift_of_the_means():
    plan = plan_of(BOX, 3, 5, (8, 6))
    truth, prediction = fields(0.0), fields(torch.tensor([1.0, -1.0, 2.0]).reshape(3, 1, 1, 1, 1))
    found = measure(LawMetric(plan, law=KeptMeans(of=["density"])), prediction, truth, batch=2, length=2)
    wanted = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)[:, None] * torch.arange(5)
    torch.testing.assert_close(found["law_residual_prediction"][..., 0], wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["law_violation_prediction"], found["law_residual_prediction"].abs())
    assert found["law_violation_truth"].max() < 1e-6


def test_what_follows_a_budget_breaks_nothing():
    plan = plan_of(BOX, 3, 5, (8, 6))
    truth = fields(0.25)
    law = BalancedMeans(["density", "scalar"], [0.5, 0.5])
    found = measure(LawMetric(plan, law=law), truth, truth, batch=3, length=5)
    assert found["law_violation_prediction"].max() < 1e-6


def test_scores_are_signed_and_absolute_and_name_their_rows():
    metric = LawMetric(plan_of(BOX, 3, 5, (8, 6)), law=KeptMeans())
    assert set(metric.scores) == {
        "law_violation_mean_of_density", "law_residual_mean_of_density",
        "law_violation_mean_of_scalar", "law_residual_mean_of_scalar",
    }  # fmt: skip
    assert metric.scores["law_violation_mean_of_density"].units == "kg/m3"
    assert list(metric.coordinates["row"].values) == ["mean of density", "mean of scalar"]
