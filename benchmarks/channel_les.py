"""Large-eddy simulation of a channel against published profiles, and against no model; prints Markdown tables.

    python benchmarks/channel_les.py --output benchmarks/channel_les.md

The flow is that of Moser, Kim and Mansour at a friction Reynolds number of 178, 392 or 587, driven at their bulk
Reynolds number of 2793, 6882 or 10953, on grids that are too coarse for it. All rivals of a case start from the same
turbulent states, one for each seed, made on that grid without a model; each then runs for a while that is not counted,
and for as long again as stated, in blocks. Members of a batch are the seeds.

The mean velocity is that of planes of cells, fluctuations are those of the staggered components where they live, and
the resolved stress is the flux that the scheme itself transports, at the faces between planes. The fluctuation of the
velocity along x is that about the mean over the plane at each moment, not over time too, so that its rms is too small:
see the Markdown file for how much. Both halves of the channel are averaged. Errors of profiles are the integral over
the half height of the absolute difference to the table at the same height in wall units, over the integral of the
table; what is beyond the table's last height is compared with its last value. The tables are of a flow that is not
filtered: a perfect large-eddy simulation has less fluctuation than they show, so of the errors of fluctuations a share
is right.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pdesurrogate.evaluation.channel.reference import ChannelReference, channel_reference
from pdesurrogate.evaluation.provenance import git_commit
from pdesurrogate.physics.velocity_gradient import velocity_gradient
from pdesurrogate.simulators.channel.flow import ChannelFlow, SubgridModel
from pdesurrogate.simulators.channel.plane_filters import CutoffFilter, ThreePointFilter
from pdesurrogate.simulators.channel.start import TrippedChannel
from pdesurrogate.simulators.channel.subgrid import DynamicSmagorinsky, Smagorinsky, Wale, strain_components

Array = NDArray[np.float64]
# Time steps between states that are measured.
EVERY = 10


class Case(NamedTuple):
    """A published flow, a box and its grid; bulk velocity and half height are one."""

    name: str
    reynolds: int
    shape: tuple[int, int, int]
    lengths: tuple[float, float]
    time_step: float


CASES = (
    Case("small box, coarse", 180, (16, 32, 16), (math.pi, math.pi / 3), 0.08),
    Case("large box, as coarse as the surrogate", 180, (32, 33, 16), (4 * math.pi, 4 * math.pi / 3), 0.1),
    Case("half of it, twice as fine along the walls", 180, (32, 33, 16), (2 * math.pi, 2 * math.pi / 3), 0.08),
    Case("higher Reynolds number", 395, (16, 40, 16), (math.pi, math.pi / 2), 0.06),
    Case("highest Reynolds number", 590, (16, 48, 16), (math.pi, math.pi / 2), 0.05),
)


def rivals(viscosity: float) -> dict[str, SubgridModel | None]:
    """Every closure by its name."""
    return {
        "none": None,
        "DSM": DynamicSmagorinsky(),
        "WALE": Wale(),
        "van Driest": Smagorinsky(viscosity),
        "DSM, ratio sqrt 6": DynamicSmagorinsky(ThreePointFilter(width_ratio=math.sqrt(6))),
        "DSM, Simpson": DynamicSmagorinsky(ThreePointFilter(side_weight=1 / 6)),
        "DSM, cutoff": DynamicSmagorinsky(CutoffFilter()),
        "DSM, backscatter": DynamicSmagorinsky(least_viscosity=-viscosity),
        "WALE, half": Wale(constant=0.325 / 2),
        "WALE, 0.5": Wale(constant=0.5),
        "van Driest, half": Smagorinsky(viscosity, constant=0.05),
    }


class Profiles(NamedTuple):
    """Over the lower half of the channel, in units of bulk velocity and half height; sums or means of samples.

    Attributes:
        velocity: along x, at centers.
        along: mean square of its fluctuation, at centers.
        through: mean square of the component along y, at faces.
        across: mean square of that along z, at centers.
        resolved: ``-<u'v'>`` at faces.
        modeled: ``2 <nu_t S_xy>`` at centers.
        eddy: ``<nu_t>`` over the molecular viscosity, at centers.
    """

    velocity: Array
    along: Array
    through: Array
    across: Array
    resolved: Array
    modeled: Array
    eddy: Array


def folded(values: Tensor, sign: float = 1.0) -> Array:
    """Profiles ``(..., ny)`` of both halves of the channel, averaged from the wall to the middle."""
    half = -(-values.shape[-1] // 2)
    return ((values + sign * values.flip(-1)) / 2)[..., :half].numpy().copy()


def profiles(flow: ChannelFlow, states: Tensor) -> list[Profiles]:
    """Of each member of a batch, at one moment."""
    grid = flow.channel_grid
    velocity = states[:, :3].double()
    u, v, w = velocity.unbind(1)
    mean = u.mean((-3, -1))
    fluctuation = u - mean[:, None, :, None]
    on_edges = (v[..., 1:, :] + v.roll(1, -3)[..., 1:, :]) / 2
    # As the scheme carries it: the plain mean of both neighbors.
    stress = -((fluctuation[..., 1:, :] + fluctuation[..., :-1, :]) / 2 * on_edges).mean((-3, -1))
    eddy = torch.zeros_like(u) if flow.subgrid is None else flow.subgrid.viscosity(velocity, grid)
    modeled = 2 * (eddy * strain_components(velocity_gradient(velocity, grid)).select(-4, 3)).mean((-3, -1))
    columns = (
        folded(mean),
        folded(fluctuation.square().mean((-3, -1))),
        folded(v[..., 1:, :].square().mean((-3, -1))),
        folded(w.square().mean((-3, -1))),
        folded(stress, -1.0),
        folded(modeled, -1.0),
        folded(eddy.mean((-3, -1))) / flow.viscosity,
    )
    return [Profiles(*(column[member] for column in columns)) for member in range(len(states))]


def mean_of(parts: Sequence[Profiles]) -> Profiles:
    """Their average."""
    return Profiles(*(np.mean(each, axis=0) for each in zip(*parts, strict=True)))


class Heights(NamedTuple):
    """In the lower half, in units of the half height: of centers, and of faces between cells."""

    centers: Array
    faces: Array


def scores(found: Profiles, wall: Heights, viscosity: float, reference: ChannelReference) -> dict[str, float]:
    """Numbers of the tables; velocities in wall units of this run."""
    friction = math.sqrt(viscosity * found.velocity[0] / wall.centers[0])
    plus = friction / viscosity
    table = reference.curves
    heights = table["wall_distance_plus"].values

    def error(values: Array, places: Array, curve: Array) -> float:
        expected = np.interp(places * plus, heights, curve)
        widths = np.gradient(places)
        return float((np.abs(values - expected) * widths).sum() / (np.abs(expected) * widths).sum())

    along, through, across = (np.sqrt(each) / friction for each in (found.along, found.through, found.across))
    of_table = table["rms_velocity_plus"].values
    modeled = np.interp(wall.faces, wall.centers, found.modeled)
    total = found.resolved + modeled
    # Where there is a center on both sides of the face; in the middle the stress vanishes by symmetry.
    inner = len(wall.centers) - 1
    viscous = viscosity * np.diff(found.velocity) / np.diff(wall.centers)
    balance = (total[:inner] + viscous) / friction**2 - (1 - wall.faces[:inner])
    widths = np.gradient(wall.faces)
    return {
        "Re_tau": plus,
        "U_cl+": float(found.velocity[-1]) / friction,
        "u'max": float(along.max()),
        "v'max": float(through.max()),
        "w'max": float(across.max()),
        "-uv max": float(total.max()) / friction**2,
        "error U+": error(found.velocity / friction, wall.centers, table["mean_velocity_plus"].values),
        "error u'": error(along, wall.centers, of_table[0]),
        "error v'": error(through, wall.faces, of_table[1]),
        "error w'": error(across, wall.centers, of_table[2]),
        "error -uv": error(total / friction**2, wall.faces, table["shear_stress_plus"].values),
        "nu_t/nu max": float(found.eddy.max()),
        "modeled share": float((modeled * widths).sum() / (total * widths).sum()),
        "imbalance": float(np.abs(balance).max()),
    }


class Result(NamedTuple):
    """Scores with their standard errors, the mean profiles, and microseconds of each cell and step."""

    value: dict[str, float]
    error: dict[str, float]
    profiles: Profiles
    cost: float


def jackknife(blocks: Sequence[Profiles], score: Callable[[Profiles], dict[str, float]]) -> dict[str, float]:
    """Standard errors of scores of the average over blocks that count as independent."""
    count = len(blocks)
    without = [score(mean_of([*blocks[:left], *blocks[left + 1 :]])) for left in range(count)]
    return {
        name: float(np.std([each[name] for each in without]) * math.sqrt(count - 1)) for name in score(mean_of(blocks))
    }


class Plan(NamedTuple):
    """Times in units of half height over bulk velocity."""

    spin_up: float
    settle: float
    block: float
    blocks: int


def build(case: Case, viscosity: float, model: SubgridModel | None, steps: int) -> ChannelFlow:
    """The solver whose frames are so many steps apart."""
    return ChannelFlow(
        case.shape, case.lengths, viscosity, steps * case.time_step, steps, subgrid=model, precision="float32"
    )


def measure(
    case: Case, model: SubgridModel | None, states: Tensor, plan: Plan, reference: ChannelReference
) -> Result | str:
    """Run one closure from given states; a sentence where it does not come to its end."""
    viscosity = 1 / reference.bulk_reynolds_number
    flow = build(case, viscosity, model, EVERY)
    wall = heights_of(flow)
    blocks: list[list[Profiles]] = [[] for _ in states]
    spent, steps = 0.0, 0
    samples = max(1, round(plan.block / (EVERY * case.time_step)))
    for number in range(round(plan.settle / (EVERY * case.time_step)) + plan.blocks * samples):
        begun = time.process_time()
        states, _ = flow.march(states, EVERY)
        spent, steps = spent + time.process_time() - begun, steps + EVERY
        if not bool(torch.isfinite(states).all()):
            return f"not finite after {steps * case.time_step:.1f} h/U_b"
        if number * EVERY * case.time_step >= plan.settle:
            for kept, found in zip(blocks, profiles(flow, states), strict=True):
                kept.append(found)
    averaged = [mean_of(kept[i : i + samples]) for kept in blocks for i in range(0, len(kept) - samples + 1, samples)]

    def score(found: Profiles) -> dict[str, float]:
        return scores(found, wall, viscosity, reference)

    total = mean_of(averaged)
    cost = 1e6 * spent / (steps * math.prod(case.shape) * len(states))
    return Result(score(total), jackknife(averaged, score), total, cost)


def heights_of(flow: ChannelFlow) -> Heights:
    """Where `profiles` are."""
    grid, cells = flow.channel_grid, flow.shape[1]
    return Heights(grid.centers[: -(-cells // 2)].numpy(), grid.faces[1 : cells // 2 + 1].numpy())


SHOWN = ("Re_tau", "U_cl+", "u'max", "v'max", "w'max", "-uv max")
ERRORS = ("error U+", "error u'", "error v'", "error w'", "error -uv", "nu_t/nu max", "modeled share", "imbalance")


def of_table(reference: ChannelReference) -> dict[str, float]:
    """The published numbers."""
    curves = reference.curves
    largest = curves["rms_velocity_plus"].max("wall_distance_plus").values
    return {
        "Re_tau": reference.friction_reynolds_number,
        "U_cl+": float(curves["centerline_velocity_plus"]),
        "u'max": float(largest[0]),
        "v'max": float(largest[1]),
        "w'max": float(largest[2]),
        "-uv max": float(curves["shear_stress_plus"].max()),
    }


def tables(results: dict[str, Result | str], reference: ChannelReference) -> list[str]:
    """Markdown: numbers, then errors; a standard error behind each."""
    published = of_table(reference)
    lines = []
    for names, more in ((SHOWN, ("us a cell-step",)), (ERRORS, ())):
        lines += [f"| model | {' | '.join((*names, *more))} |", "|---" * (1 + len(names) + len(more)) + "|"]
        for model, result in results.items():
            if isinstance(result, str):
                cells = [result, *[""] * (len(names) + len(more) - 1)]
            else:
                cells = [f"{result.value[name]:.3g} ± {result.error[name]:.1g}" for name in names]
                cells += [f"{result.cost:.2f}"] * len(more)
            lines.append(f"| {model} | {' | '.join(cells)} |")
        if more:
            lines.append(f"| {reference.name} | {' | '.join(f'{published[name]:.4g}' for name in names)} | |")
        lines.append("")
    return lines


def curves(results: dict[str, Result | str], case: Case, reference: ChannelReference) -> list[str]:
    """Markdown: mean velocity and eddy viscosity at some heights, all in wall units of each run."""
    flow = build(case, 1 / reference.bulk_reynolds_number, None, EVERY)
    centers = heights_of(flow).centers
    heights = (5, 15, 30, 60, 100, 150)
    table = reference.curves
    known = table["wall_distance_plus"].values
    lines = [f"| model: U+ (nu_t/nu) at y+ | {' | '.join(map(str, heights))} |", "|---" * (1 + len(heights)) + "|"]
    for model, result in results.items():
        if not isinstance(result, str):
            plus = result.value["Re_tau"]
            friction = plus / reference.bulk_reynolds_number
            mean = np.interp(heights, centers * plus, result.profiles.velocity / friction)
            eddy = np.interp(heights, centers * plus, result.profiles.eddy)
            cells = [f"{one:.2f} ({other:.2f})" for one, other in zip(mean, eddy, strict=True)]
            lines.append(f"| {model} | {' | '.join(cells)} |")
    expected = np.interp(heights, known, table["mean_velocity_plus"].values)
    return [*lines, f"| {reference.name} | {' | '.join(f'{each:.2f}' for each in expected)} |", ""]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))), help="numbers from 0")
    parser.add_argument("--models", nargs="+", help="names; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--spin-up", type=float, default=150.0)
    parser.add_argument("--settle", type=float, default=60.0)
    parser.add_argument("--block", type=float, default=32.0, help="about 2 h / u_tau")
    parser.add_argument("--blocks", type=int, default=6, help="of each seed")
    parser.add_argument("--machine", default="unnamed", help="for the record")
    parser.add_argument("--output", type=Path, help="Markdown file; also printed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan(arguments.spin_up, arguments.settle, arguments.block, arguments.blocks)
    lines = [
        "# Large-eddy simulation of a channel",
        "",
        f"Machine: {arguments.machine}, one thread; torch {torch.__version__}; commit {git_commit()}; float32; seeds "
        f"{arguments.seeds}. Spin-up {plan.spin_up:g} h/U_b without a model, then {plan.settle:g} not counted and "
        f"{plan.blocks} blocks of {plan.block:g} a seed (2 h/u_tau is 31); behind ± one standard error by the "
        "jackknife over blocks. What is measured stands at the top of `benchmarks/channel_les.py`.",
        "",
    ]
    for number in arguments.cases:
        case = CASES[number]
        reference = channel_reference(case.reynolds)
        viscosity = 1 / reference.bulk_reynolds_number
        models = rivals(viscosity)
        flow = build(case, viscosity, None, round(plan.spin_up / case.time_step))
        begun = time.perf_counter()
        generators = [torch.Generator().manual_seed(seed) for seed in arguments.seeds]
        drawn = [TrippedChannel().sample(1, flow.channel_grid, generator) for generator in generators]
        states = flow.march(torch.cat(drawn).float(), flow.steps_per_frame)[0]
        results: dict[str, Result | str] = {}
        for name in arguments.models or models:
            results[name] = measure(case, models[name], states, plan, reference)
            part = tables({name: results[name]}, reference)
            print(f"{case.name}, {time.perf_counter() - begun:.0f} s", *part, sep="\n", flush=True)
        spacing = [
            reference.friction_reynolds_number * length / cells
            for length, cells in zip(case.lengths, case.shape[::2], strict=True)
        ]
        lines += [
            f"## {case.name[0].upper()}{case.name[1:]}",
            "",
            f"{' x '.join(map(str, case.shape))} cells on {case.lengths[0]:.3f} x 2 x {case.lengths[1]:.3f}: spacing "
            f"{spacing[0]:.0f} along x and {spacing[1]:.0f} along z in wall units; time step {case.time_step:g}.",
            "",
            *tables(results, reference),
            *curves(results, case, reference),
        ]
        if arguments.output is not None:
            arguments.output.write_text("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
