import math

import pytest
import torch

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.conservation import (
    ConservationMetric,
    DivergenceMetric,
    divergence_rms,
    enstrophy,
    kinetic_energy,
    mean_vorticity,
    momentum,
)
from pdesurrogate.metrics.suites import default_suite

LENGTH = 2 * math.pi
SQUARE = Grid((Axis("x", period=LENGTH, units="m"), Axis("y", period=LENGTH, units="m")))
VORTICITY = Metadata("vortices", SQUARE, (Channel("vorticity", "1/s"),), 0.1)
VELOCITY = Metadata("flow", SQUARE, (Channel("velocity_x", "m/s"), Channel("velocity_y", "m/s")), 0.1)
X, Y = torch.meshgrid(*SQUARE.uniform_coordinates((16, 16)), indexing="ij")


def context_of(batch):
    return Context(tuple(c.expand(batch, -1) for c in SQUARE.uniform_coordinates((16, 16))))


def vortices(amplitude=1.0, mean=0.0):
    """Vorticity (1, 1, 1, x, y) of the Taylor-Green vortices with kinetic energy amplitude^2 / 4."""
    return (2 * amplitude * torch.cos(X) * torch.cos(Y) + mean)[None, None, None]


def taylor_green(amplitude=1.0, mean=(0.0, 0.0)):
    """The velocity (1, 1, 2, x, y) of `vortices`, carried along by a mean flow."""
    u = -amplitude * torch.cos(X) * torch.sin(Y) + mean[0]
    v = amplitude * torch.sin(X) * torch.cos(Y) + mean[1]
    return torch.stack([u, v])[None, None]


def test_integrals_of_taylor_green_vortices():
    velocity = taylor_green(3.0, mean=(0.5, -2.0))
    assert momentum(velocity).flatten().tolist() == pytest.approx([0.5, -2.0])
    assert kinetic_energy(velocity).item() == pytest.approx(9 / 4 + (0.25 + 4.0) / 2)
    assert enstrophy(vortices(3.0)).item() == pytest.approx(9 / 2)
    assert mean_vorticity(vortices(3.0, mean=0.7)).item() == pytest.approx(0.7)


def test_divergence_of_known_velocities():
    assert divergence_rms(taylor_green(), SQUARE.periods).item() < 1e-14
    sources = torch.stack([torch.sin(2 * X), torch.zeros_like(X)])[None, None]  # divergence 2 cos 2x
    assert divergence_rms(sources, SQUARE.periods).item() == pytest.approx(math.sqrt(2.0))


def test_drifts_of_vorticity_data():
    truth = torch.cat([vortices(2.0), vortices(1.0)], dim=1)
    prediction = torch.cat([vortices(1.0), vortices(2.0, mean=0.5)], dim=1)
    metric = ConservationMetric(VORTICITY, trajectories=1, frames=2)
    metric.update(prediction, truth, 0, torch.tensor([0]), context_of(1))
    outputs = metric.compute()
    assert set(outputs) == set(metric.variables)
    # Energy and enstrophy go with the square of the amplitude; the reference is the truth's first frame.
    assert outputs["drift_energy_truth"].flatten().tolist() == pytest.approx([0.0, -0.75])
    assert outputs["drift_energy"].flatten().tolist() == pytest.approx([-0.75, 0.0])
    assert outputs["drift_enstrophy"].flatten().tolist() == pytest.approx([-0.75, 0.125 / 2])
    assert outputs["drift_mean_vorticity"].flatten().tolist() == pytest.approx([0.0, 0.5 / 2.0], abs=1e-12)
    assert "drift_momentum" not in outputs


def test_drifts_of_velocity_data():
    truth = torch.cat([taylor_green(2.0, mean=(1.0, 1.0))] * 2, dim=1)
    prediction = torch.cat([taylor_green(2.0, mean=(1.0, 1.0)), taylor_green(2.0, mean=(4.0, 5.0))], dim=1)
    metric = ConservationMetric(VELOCITY, trajectories=1, frames=2)
    metric.update(prediction, truth, 0, torch.tensor([0]), context_of(1))
    outputs = metric.compute()
    energy = 2.0**2 / 4 + 1.0
    assert outputs["drift_momentum"].flatten().tolist() == pytest.approx([0.0, 5 / math.sqrt(2 * energy)], abs=1e-12)
    assert outputs["drift_momentum_truth"].abs().max() < 1e-12
    assert outputs["drift_energy"][0, 1].item() == pytest.approx((1.0 + 41 / 2) / energy - 1)
    assert outputs["drift_enstrophy"].abs().max() < 1e-12
    assert "drift_mean_vorticity" not in outputs


def test_divergence_metric():
    sources = torch.stack([torch.sin(2 * X), torch.zeros_like(X)])[None, None]
    metric = DivergenceMetric(VELOCITY, trajectories=2, frames=1)
    metric.update(
        torch.cat([sources, taylor_green()]), torch.cat([taylor_green()] * 2), 0, torch.tensor([1, 0]), context_of(2)
    )
    outputs = metric.compute()
    assert outputs["divergence"].flatten().tolist() == pytest.approx([0.0, math.sqrt(2.0)], abs=1e-12)
    assert outputs["divergence_truth"].abs().max() < 1e-12
    assert metric.variables["divergence"].units == "(m/s)/m"


def test_suites_follow_the_metadata():
    walls = Metadata("walls", Grid((Axis("x", period=1.0), Axis("y"))), (Channel("vorticity"),), 0.1)
    line = Metadata("line", Grid((Axis("x", period=1.0),)), (Channel("velocity_x"),), 0.1)
    concentration = Metadata("dye", SQUARE, (Channel("concentration"),), 0.1)
    assert list(default_suite(VORTICITY, 2, 3, (16, 16))) == ["errors", "spectra", "conservation"]
    assert list(default_suite(VELOCITY, 2, 3, (16, 16))) == ["errors", "spectra", "conservation", "divergence"]
    for metadata, shape in ((walls, (16, 16)), (line, (16,)), (concentration, (16, 16))):
        assert list(default_suite(metadata, 2, 3, shape)) == ["errors"]
    with pytest.raises(ValueError, match="Expected velocity data"):
        DivergenceMetric(VORTICITY, 1, 1)


def test_no_two_metrics_of_a_suite_give_the_same_variable_and_all_are_labelled():
    for metadata in (VORTICITY, VELOCITY):
        suite = default_suite(metadata, 2, 3, (16, 16))
        names = [name for metric in suite.values() for name in metric.variables]
        assert len(names) == len(set(names))
        for metric in suite.values():
            known = {"trajectory", "lead_time", "channel", *metric.coordinates}
            for variable in metric.variables.values():
                assert set(variable.dims) <= known
                assert variable.units
                assert variable.long_name
