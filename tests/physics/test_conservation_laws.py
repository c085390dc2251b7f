"""Laws of rollouts: which channels, which rows, and what they give later."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.conservation.laws import BalancedMeans, ConservationLaw, KeptMeans

STRETCHED = Metadata(
    "stretched",
    Grid((Axis("x", period=2.0), Axis("y", bounds=(0.0, 3.0)))),
    (Channel("velocity_x", units="m/s", location="cell"), Channel("density", units="kg/m3", location="cell")),
    frame_interval=0.25,
)
HEIGHTS = torch.tensor([0.25, 1.0, 2.25])  # centers of cells of heights 0.5, 1, 1.5
CONTEXT = Context((torch.arange(4)[None] / 2, HEIGHTS[None]))


def test_both_are_laws():
    assert isinstance(KeptMeans(), ConservationLaw)
    assert isinstance(BalancedMeans(["density"], [1.0]), ConservationLaw)


def test_means_are_those_of_the_cells():
    law = KeptMeans(of=["density", "velocity_x"])
    assert law.channels(STRETCHED) == (1, 0)
    assert law.names(STRETCHED) == ("mean of density", "mean of velocity_x")
    assert law.units(STRETCHED) == ("kg/m3", "m/s")
    frames = torch.arange(3.0).expand(1, 1, 2, 4, 3) * torch.tensor([1.0, 10.0]).reshape(2, 1, 1)
    found = law.rows(STRETCHED, CONTEXT).apply(frames)
    mean = (0 * 0.5 + 1 * 1.0 + 2 * 1.5) / 3
    torch.testing.assert_close(found, torch.tensor([[[mean, 10 * mean]]], dtype=torch.float64))


def test_solid_points_do_not_count():
    mask = torch.ones(1, 4, 3, dtype=torch.bool)
    mask[0, :, 2] = False
    rows = KeptMeans(of=["density"]).rows(STRETCHED, CONTEXT._replace(mask=mask))
    field = torch.tensor([1.0, 4.0, 1e9]).expand(1, 1, 1, 4, 3)
    torch.testing.assert_close(rows.apply(field).squeeze(), torch.tensor((0.5 * 1 + 4) / 1.5, dtype=torch.float64))


def test_samples_may_differ_in_extent():
    wider = Context((CONTEXT.coordinates[0].repeat(2, 1), torch.tensor([[0.25, 1.0, 2.25], [0.5, 1.5, 2.5]])))
    field = torch.arange(3.0).expand(2, 1, 2, 4, 3)
    found = KeptMeans().rows(STRETCHED, wider).apply(field)[:, 0, 0]
    torch.testing.assert_close(found, torch.tensor([4.0 / 3, 1.0], dtype=torch.float64))


def test_a_stated_value_takes_the_place_of_the_known_frame():
    law = KeptMeans(of=["velocity_x"], values=[2.0], unit="m/s")
    target, variance = law.target(STRETCHED, torch.tensor([[0.5], [0.7]]), torch.arange(1, 4))
    assert target.shape == (2, 1, 1)
    assert target.unique().tolist() == [2.0]
    assert variance is None


@given(source=st.floats(-3, 3), decay=st.floats(0, 4), start=st.floats(-2, 2), deviation=st.floats(0, 2))
def test_a_budget_solves_its_equation(source, decay, start, deviation):
    law = BalancedMeans(["density"], [source], decay, [deviation])
    frames = torch.tensor([1, 3, 8])
    target, variance = law.target(STRETCHED, torch.tensor([[start]], dtype=torch.float64), frames)
    # Mean and variance of an Ornstein-Uhlenbeck process of this noise.
    exact = solve_ivp(
        lambda time, state: [source - decay * state[0], deviation**2 - 2 * decay * state[1]],
        (0, 2.0), [start, 0.0], t_eval=[0.25, 0.75, 2.0], rtol=1e-10, atol=1e-12,
    ).y  # fmt: skip
    torch.testing.assert_close(target.flatten(), torch.from_numpy(exact[0]), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(variance.flatten(), torch.from_numpy(exact[1]), rtol=1e-7, atol=1e-8)


def test_step_by_step_is_all_at_once():
    law = BalancedMeans(["density"], [1.5], decay=0.3)
    state = torch.tensor([[2.0]], dtype=torch.float64)
    for _ in range(5):
        state = law.target(STRETCHED, state, torch.tensor([1]))[0][:, 0]
    together = law.target(STRETCHED, torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([5]))[0][:, 0]
    torch.testing.assert_close(state, together)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (lambda: KeptMeans(of=["pressure"]).channels(STRETCHED), r"'pressure'.*has \['velocity_x', 'density'\]"),
        (lambda: KeptMeans(["density"], [1.0], "g/cm3").channels(STRETCHED), "'density' in 'kg/m3'.*'g/cm3'"),
        (lambda: KeptMeans(values=[1.0]), "values for channels that are named"),
        (lambda: KeptMeans(["density"], [1.0, 2.0]), "one for each"),
        (lambda: BalancedMeans(["density"], [1.0, 2.0]), "for each of"),
        (lambda: BalancedMeans(["density"], [1.0], decay=-1.0), "decay of at least zero"),
        (lambda: BalancedMeans(["density"], [1.0], deviations=[-1.0]), "deviations of at least zero"),
        (lambda: BalancedMeans(["salt"], [1.0]).channels(STRETCHED), "'salt'"),
        (lambda: BalancedMeans(["density"], [1.0], unit="g").channels(STRETCHED), "'density' in 'kg/m3'.*'g'"),
        (lambda: BalancedMeans(["density"], [float("nan")]), "finite sources"),
        (lambda: KeptMeans(of=[]), "list of names of channels, at least one"),
        (lambda: KeptMeans(of="density"), "list of names of channels.*'density'"),
    ],
)
def test_what_does_not_fit_is_refused(law, message):
    with pytest.raises(ValueError, match=message):
        law()
