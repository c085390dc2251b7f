"""Averages over blocks of cells, and every so many: what is conserved, where it lies, what is refused."""

from __future__ import annotations

import pytest
import torch

from pdesurrogate.simulators.compressible.flow import Compressible2d
from pdesurrogate.simulators.compressible.start import RandomWaves
from pdesurrogate.simulators.generation.cell_frames import CellAverages, EveryCell
from pdesurrogate.simulators.navier_stokes import NavierStokes2d

REDUCTIONS = [CellAverages, EveryCell]


def solver(resolution=16, **options):
    return Compressible2d(resolution, 0.1, 10, **options)


def state(resolution=16):
    return RandomWaves(0.3).start(solver(resolution), 3, torch.Generator().manual_seed(0))


class Line:
    """The least that a simulator on a line of cells has."""

    def __init__(self, location="cell"):
        whole = solver()
        self.grid = type(whole.grid)(whole.grid.axes[:1])
        self.channels = (type(whole.channels[0])("height", location=location),)
        self.shape = (6,)

    @property
    def coordinates(self):
        return ((torch.arange(6, dtype=torch.float64) + 0.5) / 6,)


def test_averages_are_those_of_blocks_and_their_sum_is_that_of_all_cells():
    fine = state()
    coarse = CellAverages(4).on(solver()).apply(fine)
    assert coarse.shape == (3, 4, 4, 4)
    assert coarse[1, 2, 3, 1] == pytest.approx(float(fine[1, 2, 12:, 4:8].mean()), rel=1e-14)
    assert torch.allclose(coarse.sum((-2, -1)) * 16, fine.sum((-2, -1)), rtol=1e-14, atol=1e-13)


def test_whole_numbers_are_averaged_exactly():
    fine = torch.arange(4 * 16 * 16, dtype=torch.float32).reshape(1, 4, 16, 16)
    coarse = CellAverages(2).on(solver()).apply(fine)
    assert torch.equal(coarse.sum((-2, -1)) * 4, fine.sum((-2, -1)))


def test_coordinates_of_averages_are_the_centers_of_blocks():
    for points in CellAverages(4).on(solver(length=2.0)).coordinates:
        assert points.tolist() == [0.25, 0.75, 1.25, 1.75]
        assert points.dtype == torch.float64


def test_every_so_many_cells_are_kept_where_they_lie():
    fine, simulator = state(), solver()
    frames = EveryCell(4).on(simulator)
    assert torch.equal(frames.apply(fine), fine[..., ::4, ::4])
    for points, all_points in zip(frames.coordinates, simulator.coordinates, strict=True):
        assert torch.equal(points, all_points[::4])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_factor_of_one_keeps_all(reduction):
    frames = reduction(1).on(solver())
    assert torch.equal(frames.apply(state()), state())
    assert frames.channels == solver().channels
    assert frames.attributes == {"simulated_cells": [16, 16]}


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_primitive_fields_are_formed_of_what_was_reduced(reduction):
    simulator = solver()
    conserved, primitive = (reduction(2, fields).on(simulator) for fields in ("conserved", "primitive"))
    assert [channel.name for channel in primitive.channels] == ["density", "velocity_x", "velocity_y", "pressure"]
    assert [channel.vector for channel in primitive.channels] == ["", "velocity", "velocity", ""]
    assert {channel.location for channel in primitive.channels} == {"cell"}
    back = simulator.to_conserved(primitive.apply(state()))
    assert torch.allclose(back, conserved.apply(state()), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_lines_of_cells_are_reduced_too(reduction):
    frames = reduction(3).on(Line())
    found = frames.apply(torch.arange(6.0).reshape(1, 1, 6)).flatten().tolist()
    assert (found, len(frames.coordinates)) == ([1.0, 4.0] if reduction is CellAverages else [0.0, 3.0], 1)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_does_not_fit_is_refused(reduction):
    with pytest.raises(ValueError, match=r"divides the 16 x 16 cells of Compressible2d but got 3\."):
        reduction(3).on(solver())
    with pytest.raises(ValueError, match=r"at least 1 but got 0\."):
        reduction(0)
    with pytest.raises(ValueError, match=r"'conserved' or 'primitive' but got 'both'\."):
        reduction(2, "both")
    with pytest.raises(ValueError, match="Expected a solver with primitive fields but Line has none"):
        reduction(2, "primitive").on(Line())
    with pytest.raises(ValueError, match=r"averages over cells but those of NavierStokes2d are at \['node'\]"):
        reduction(2).on(NavierStokes2d(16, 1e-3, 0.1, 10))
