"""Flow rates through the sections of a box, those of what enters it."""

from __future__ import annotations

import pytest
import torch

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.physics.conservation.laws import ConservationLaw
from pdesurrogate.physics.conservation.section_flow import SectionFlowRates
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.probconserv import ProbConserv
from pdesurrogate.steppers.rollout import rollout

POINTS = (6, 4)
LAW = SectionFlowRates(sections=6)
GRID = Grid((Axis("x", units="m"), Axis("y", units="m")))


def data(location: str = "cell", parameters: tuple[str, ...] = ("density", "inlet_velocity"), grid: Grid = GRID):
    channels = (Channel("velocity_y", "m/s", location="cell"), Channel("velocity_x", "m/s", location=location))
    return Metadata("flow", grid, channels, frame_interval=0.1, parameters=parameters)


def boxes(*heights: float, velocities: tuple[float, ...] = (0.5, 2.0), mask: torch.Tensor | None = None) -> Context:
    """A case of each height."""
    x = (torch.arange(6.0) + 0.5).expand(len(heights), -1)
    y = torch.stack([height * (torch.arange(4.0) + 0.5) / 4 for height in heights])
    inlet = torch.tensor(velocities)
    return Context((x, y), parameters=torch.stack([torch.ones_like(inlet), inlet], 1), mask=mask)


def faces(rate: torch.Tensor) -> torch.Tensor:
    """A velocity on seven faces ``(case, 7, 4)``, any profile of that mean."""
    profile = torch.rand(len(rate), 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return profile / profile.mean(-1, keepdim=True) * rate[:, None, None]


def test_is_a_law_of_one_channel():
    assert isinstance(LAW, ConservationLaw)
    assert LAW.channels(data()) == (1,)
    assert LAW.names(data())[::5] == ("flow rate of section 0", "flow rate of section 5")
    assert set(LAW.units(data())) == {"1"}


@pytest.mark.parametrize("location", ["cell", "face_x"])
def test_what_enters_passes_all_sections(location):
    context = boxes(1.0, 1.5)
    u = faces(torch.tensor([0.5, 2.0], dtype=torch.float64))
    u = (u[:, 1:] + u[:, :-1]) / 2 if location == "cell" else u[:, :-1]
    rates = LAW.rows(data(location), context).apply(u[:, None, None])
    torch.testing.assert_close(rates, torch.ones(2, 1, 6, dtype=torch.float64))


def test_a_body_does_not_count_and_speeds_up_what_passes():
    mask = torch.ones(2, *POINTS, dtype=torch.bool)
    mask[:, 2, 1:3] = False
    context = boxes(1.0, 2.0, mask=mask)
    u = torch.tensor([0.5, 2.0])[:, None, None].expand(2, *POINTS).clone()
    u[:, 2] *= 2
    u[~mask] = 1e6
    rates = LAW.rows(data(), context).apply(u[:, None, None])
    torch.testing.assert_close(rates, torch.ones(2, 1, 6, dtype=torch.float64))


def test_the_target_is_known_from_rest():
    target, variance = LAW.target(data(), torch.zeros(2, 6, dtype=torch.float64), torch.tensor([1, 2]))
    assert target.shape == (2, 1, 6)
    assert target.unique().tolist() == [1.0]
    assert variance is None


def test_a_rollout_from_rest_has_it_from_the_first_frame_on():
    metadata, context = data(), boxes(1.0, 1.5)
    stepper = ProbConserv(Persistence(), LAW, metadata=metadata)
    frames = torch.cat(list(rollout(stepper, torch.zeros(2, 1, 2, *POINTS), context, frames=3)), 1)
    means = frames[:, :, 1].mean(-1)
    torch.testing.assert_close(means, torch.tensor([0.5, 2.0])[:, None, None].expand(2, 3, 6))
    assert not bool(frames[:, :, 0].any())


def test_the_least_change_is_the_same_across_a_section():
    metadata, context = data(), boxes(1.0, 1.5)
    before = torch.randn(2, 1, 2, *POINTS, generator=torch.Generator().manual_seed(0))
    after = ProbConserv(Persistence(), LAW, metadata=metadata).step(before, context)
    change = (after - before)[:, 0, 1]
    torch.testing.assert_close(change, change.mean(-1, keepdim=True).expand_as(change))


@pytest.mark.parametrize(
    ("law", "metadata", "context", "message"),
    [
        (SectionFlowRates(5), data(), boxes(1.0, 1.5), "give sections=6"),
        (SectionFlowRates(6, of="u"), data(), boxes(1.0, 1.5), "the channel 'u'"),
        (SectionFlowRates(6, along="z"), data(), boxes(1.0, 1.5), "not periodic"),
        (LAW, data(grid=Grid((Axis("x", period=6.0), Axis("y")))), boxes(1.0, 1.5), "not periodic"),
        (LAW, data(parameters=("density",)), boxes(1.0, 1.5), "the parameter 'inlet_velocity'"),
        (LAW, data(), boxes(1.0, 1.5)._replace(parameters=None), "no parameters"),
        (LAW, data(), boxes(1.0, 1.5, velocities=(1.0, 0.0)), "zero in some"),
        (LAW, data(), boxes(1.0, mask=torch.zeros(1, *POINTS, dtype=torch.bool)), "side to side"),
        (LAW, data("face_x"), boxes(1.0, mask=torch.ones(1, *POINTS, dtype=torch.bool)), "lives at 'face_x'"),
    ],
)
def test_what_does_not_fit_is_refused(law, metadata, context, message):
    with pytest.raises(ValueError, match=message):
        law.rows(metadata, context)


def test_no_section_is_refused():
    with pytest.raises(ValueError, match="at least one section"):
        SectionFlowRates(0)
