"""Sets of PDEArena, SineNet and PDEBench: from their files to our archive, and on to The Well's layout, unchanged."""

from __future__ import annotations

import pytest
import torch
from layouts_pdearena import (
    compressible_fields,
    speedy_fields,
    staggered_flow,
    write_compressible,
    write_converted,
    write_navier_stokes,
    write_speedy_tree,
)
from layouts_pdebench import GROUPS, LINES, write_flow, write_groups, write_line
from layouts_pdebench import write_compressible as write_pdebench_compressible

from pdesurrogate.data.adapters.pdearena import PdeArenaNavierStokes, PdeArenaShallowWater
from pdesurrogate.data.adapters.pdebench import (
    PdeBench1d,
    PdeBenchCompressible,
    PdeBenchGroups,
    PdeBenchIncompressible,
)
from pdesurrogate.data.adapters.sinenet_compressible import SineNetCompressible
from pdesurrogate.data.adapters.the_well import TheWell
from pdesurrogate.data.archive import Archive
from pdesurrogate.data.convert import convert
from pdesurrogate.data.well_writer import write_well


def smoke(folder):
    for seed, mode in enumerate(("train", "valid", "test")):
        write_navier_stokes(folder, mode, seed, staggered_flow(seed, 1 + seed, 3, 4, 6), 0.3 + 0.1 * seed)
    return PdeArenaNavierStokes(folder, velocity="centers")


def sphere(folder):
    write_speedy_tree(folder, {"train": 2, "valid": 1})
    return PdeArenaShallowWater(folder)


def converted_sphere(folder):
    write_converted(folder, "train", [[speedy_fields(0, 3, 4, 6)], [speedy_fields(1, 3, 4, 6)]])
    return PdeArenaShallowWater(folder, latitude="degrees", frame_interval=5.46)


def gas(folder):
    write_compressible(
        folder, "train", {"9": compressible_fields(0, 2, 3, 4, 4), "10": compressible_fields(1, 1, 3, 4, 4)}
    )
    return SineNetCompressible(folder)


def flow_with_particles(folder):
    for number in (0, 2, 10):
        write_flow(folder, number)
    return PdeBenchIncompressible(folder, train=2, test=1, forcing="none")


def compressible(dimension):
    return lambda folder: PdeBenchCompressible(write_pdebench_compressible(folder, dimension=dimension, points=4))


def line(equation):
    return lambda folder: PdeBench1d(write_line(folder, equation))


def groups(problem):
    return lambda folder: PdeBenchGroups(write_groups(folder, problem, points=4))


@pytest.mark.parametrize(
    ("opened", "end"),
    [
        pytest.param(smoke, "wall", id="PDEArena's smoke"),
        pytest.param(sphere, "open", id="PDEArena's sphere"),
        pytest.param(converted_sphere, "open", id="PDEArena's sphere, converted"),
        pytest.param(gas, None, id="SineNet's gas"),
        pytest.param(flow_with_particles, "wall", id="PDEBench's incompressible flow"),
        *(pytest.param(compressible(n), None, id=f"PDEBench's compressible flow, {n}-D") for n in (1, 2, 3)),
        *(pytest.param(line(equation), None, id=f"PDEBench's {equation}") for equation in LINES),
        *(pytest.param(groups(problem), "open", id=f"PDEBench's {problem}") for problem in GROUPS),
    ],
)
def test_published_files_come_to_the_wells_layout_by_way_of_our_archive(tmp_path, opened, end):
    (tmp_path / "set").mkdir()
    source = opened(tmp_path / "set")
    convert(source, tmp_path / "archive")
    archive = Archive(tmp_path / "archive")
    ends = {axis.name: end for axis in archive.metadata.grid.axes if axis.period is None}
    write_well(archive, tmp_path / "well", boundaries=ends)
    well = TheWell(tmp_path / "well")
    assert well.splits == source.splits
    assert well.metadata.channels == source.metadata.channels
    assert well.metadata.grid == source.metadata.grid
    assert well.metadata.parameters == source.metadata.parameters
    assert well.metadata.frame_interval == source.metadata.frame_interval
    for split in source.splits:
        for ours, theirs in zip(well.trajectories(split), source.trajectories(split), strict=True):
            assert torch.equal(ours.read(), theirs.read())
            assert torch.allclose(ours.times, theirs.times, rtol=1e-6)
            assert all(map(torch.equal, ours.context.coordinates, theirs.context.coordinates))
            if theirs.context.parameters is not None:
                assert torch.equal(ours.context.parameters, theirs.context.parameters)


def test_what_stays_in_its_files_says_why(tmp_path):
    """Faces between walls and forcings have no place in The Well's layout, or in an archive."""
    write_navier_stokes(tmp_path / "smoke", "train", 1, staggered_flow(1, 1, 3, 4, 4))
    walls = {"x": "wall", "y": "wall"}
    with pytest.raises(ValueError, match=r"the layout knows no faces, but \['velocity_x', 'velocity_y'\] are on faces"):
        write_well(PdeArenaNavierStokes(tmp_path / "smoke"), tmp_path / "well", boundaries=walls)
    (tmp_path / "flow").mkdir()
    write_flow(tmp_path / "flow")
    with pytest.raises(ValueError, match="no forcing, as archives do not store others"):
        convert(PdeBenchIncompressible(tmp_path / "flow", train=1), tmp_path / "archive")
