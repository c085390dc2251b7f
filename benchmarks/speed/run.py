"""Speed side by side with the libraries that do the same thing; prints Markdown tables of ratios.

    python benchmarks/speed/run.py [--quick] [--only fno solver ...] [--output results.md]

Contestants alternate within every round, on one thread, and are measured in CPU time of the process, which other load
on the machine disturbs least. A ratio is taken within a round; the tables give its median and range. Nothing is timed
before both sides have given the same numbers.
"""

from __future__ import annotations

import argparse
import functools
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import torch
from channel_flow import compare_channel_flow
from conditioning import compare_conditioning
from enclosed_flow import compare_enclosed_flow
from ifactformer import compare_ifactformer
from sfno import compare_sfno
from sinenet import compare_sinenet
from timing import Contestants, alternate, ratio, relative_difference
from torch import Tensor, nn

from pdesurrogate.data.archive import Archive, ArchiveWriter
from pdesurrogate.data.windows import Windows
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context, Trajectory
from pdesurrogate.metrics.base import RolloutMetric
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.spectra import energy_spectrum
from pdesurrogate.metrics.suites import default_suite
from pdesurrogate.models.fno import FNO
from pdesurrogate.models.neuralop import NeuralOperator, from_neuralop
from pdesurrogate.physics.spectral import Shells, dealias_mask
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.simulators.random_fields import McWilliams
from pdesurrogate.simulators.time_schemes import ETDRK4, RK2CrankNicolson, RK4CrankNicolson, TimeScheme
from pdesurrogate.steppers.surrogate import Surrogate


def forward(network: nn.Module, fields: Tensor) -> None:
    """The output, without a graph."""
    with torch.no_grad():
        network(fields)


def gradients(network: nn.Module, fields: Tensor) -> None:
    """Forward and backward, on the mean square of the output."""
    torch.autograd.grad(network(fields).square().mean(), list(network.parameters()))


def training_step(network: nn.Module, optimizer: torch.optim.Optimizer, fields: Tensor) -> None:
    """Forward, backward and update."""
    optimizer.zero_grad(set_to_none=True)
    network(fields).square().mean().backward()
    optimizer.step()


def compare_fno(quick: bool) -> list[str]:
    """Our FNO and neuraloperator's with the same weights."""
    lines = [
        "## FNO against neuraloperator 2.0, equal weights",
        "",
        "CPU time of neuraloperator over ours: median and range over the rounds. Update: AdamW, the same for both;",
        "the last column gives ours the fused one, which complex parameters rule out for neuraloperator.",
        "",
        "| grid | modes | width | batch | difference | forward | forward, backward | with update | ours fused |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cases: list[tuple[tuple[int, ...], tuple[int, ...], int, int]] = [
        ((64, 64), (24, 24), 32, 8),
        ((64, 64), (40, 40), 32, 16),
        ((128, 128), (32, 32), 32, 4),
        ((256, 256), (64, 64), 24, 1),
        ((32, 32, 16), (16, 16, 16), 32, 1),
    ]
    for grid, modes, width, batch in cases[:1] if quick else cases:
        torch.manual_seed(0)
        try:
            theirs = NeuralOperator("FNO", channels=1, modes=modes, width=width)
        except ImportError:
            return [*lines[:2], "Not run: neuraloperator is not installed.", ""]
        networks: dict[str, nn.Module] = {"theirs": theirs, "ours": from_neuralop(theirs.network)}
        fields = torch.randn(batch, 1, 1, *grid)
        with torch.no_grad():
            difference = relative_difference(networks["ours"](fields), theirs(fields))
        if difference > 1e-5:
            raise RuntimeError(f"Expected equal outputs at {grid} but they differ by {difference:.1e}.")
        cells = []
        for kind in ("forward", "gradients", "update", "fused"):
            contestants: Contestants = {}
            for name, network in networks.items():
                optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=(kind, name) == ("fused", "ours"))
                if kind in ("forward", "gradients"):
                    contestants[name] = functools.partial(forward if kind == "forward" else gradients, network, fields)
                else:
                    contestants[name] = functools.partial(training_step, network, optimizer, fields)
            seconds = alternate(contestants, rounds=3 if quick else 9, repeats=2)
            cells.append(ratio(seconds["theirs"], seconds["ours"]))
        shape, kept = ("x".join(map(str, sizes)) for sizes in (grid, modes))
        lines.append(f"| {shape} | {kept} | {width} | {batch} | {difference:.0e} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def compare_solver(quick: bool) -> list[str]:
    """Our Navier-Stokes solver and torch-cfd's: same equation, scheme, step, mask and initial field.

    torch-cfd is given our mask: its own keeps wave -43 but not 43 at 128 points, where the two forms of the advection
    differ by what they alias.
    """
    lines = ["## Navier–Stokes 2-D against torch-cfd 0.2.6, one RK4-CN step", ""]
    try:
        from torch_cfd.grids import Grid
        from torch_cfd.spectral import NavierStokes2DSpectral, RK4CrankNicolsonStepper
    except ImportError:
        return [*lines, "Not run: torch-cfd is not installed (pip install torch-cfd==0.2.6).", ""]
    lines += [
        "CPU time of torch-cfd over ours, and ours in milliseconds. No forcing, float32, field in and field out every",
        "20 steps. Difference after these 20 steps.",
        "",
        "| grid | batch | difference | ratio | ours, ms a step |",
        "|---|---|---|---|---|",
    ]
    steps, time_step = 20, 1e-3
    for resolution, batch in [(64, 8)] if quick else [(64, 8), (128, 8), (256, 1)]:
        grid = Grid(shape=(resolution, resolution), domain=((0, 2 * math.pi), (0, 2 * math.pi)))
        theirs = NavierStokes2DSpectral(viscosity=1e-3, grid=grid, step_fn=RK4CrankNicolsonStepper())
        mask = dealias_mask(grid.shape, dtype=torch.float32)
        theirs.filter = mask
        ours = NavierStokes2d(
            resolution,
            1e-3,
            frame_interval=steps * time_step,
            steps_per_frame=steps,
            scheme=RK4CrankNicolson(),
        )
        generator = torch.Generator().manual_seed(0)
        drawn = McWilliams().sample(batch, (resolution, resolution), ours.grid.periods, generator)[:, 0]
        state = torch.fft.irfft2(torch.fft.rfft2(drawn) * mask).float()

        def step_theirs(state: Tensor = state, solver: nn.Module = theirs) -> Tensor:
            return torch.fft.irfft2(solver(torch.fft.rfft2(state), time_step, steps=steps)[0])

        def step_ours(state: Tensor = state, solver: NavierStokes2d = ours) -> Tensor:
            return solver.advance(state.unsqueeze(1), steps)[:, 0]

        with torch.no_grad():
            difference = relative_difference(step_ours(), step_theirs())
            if difference > 2e-5:
                raise RuntimeError(f"Expected equal fields at {resolution} but they differ by {difference:.1e}.")
            seconds = alternate({"theirs": step_theirs, "ours": step_ours}, rounds=3 if quick else 9, repeats=1)
        own = statistics.median(seconds["ours"]) / steps * 1e3
        factor = ratio(seconds["theirs"], seconds["ours"])
        lines.append(f"| {resolution}x{resolution} | {batch} | {difference:.0e} | {factor} | {own:.2f} |")
    return [*lines, ""]


def compare_schemes(quick: bool) -> list[str]:
    """Error against work of our time schemes on decaying turbulence."""
    lines = [
        "## Time schemes at equal work",
        "",
        "Decaying turbulence (McWilliams) at 64x64, four fields in float64, from time 1 to time 2: relative L2 error",
        "against ETDRK4 with four times the most steps, and CPU seconds. Error at equal work: the largest work of the",
        "cheapest scheme, with the others' errors interpolated to it on logarithmic axes.",
        "",
    ]
    counts = (25, 50) if quick else (25, 50, 100, 200, 400)
    for viscosity in (1e-3,) if quick else (1e-3, 1e-2):
        errors, seconds = work_and_precision(viscosity, counts, rounds=1 if quick else 5)
        names = list(errors)
        lines += [
            f"Viscosity {viscosity:g}:",
            "",
            "| steps | " + " | ".join(f"{name}: error | seconds" for name in names) + " |",
            "|---" * (1 + 2 * len(names)) + "|",
        ]
        for row, steps in enumerate(counts):
            cells = (f"{errors[name][row]:.1e} | {seconds[name][row]:.3f}" for name in names)
            lines.append(f"| {steps} | " + " | ".join(cells) + " |")
        work = min(seconds[name][-1] for name in names)
        equal = (f"{name} {at_work(work, seconds[name], errors[name]):.1e}" for name in names)
        lines += ["", f"Error at {work:.3f} s of work: " + ", ".join(equal) + ".", ""]
    return lines


def work_and_precision(
    viscosity: float, counts: tuple[int, ...], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Error and median CPU seconds of each scheme for each number of steps."""
    schemes: dict[str, TimeScheme] = {
        "RK2CrankNicolson": RK2CrankNicolson(),
        "RK4CrankNicolson": RK4CrankNicolson(),
        "ETDRK4": ETDRK4(),
    }

    def solver(scheme: TimeScheme, steps: int) -> NavierStokes2d:
        return NavierStokes2d(
            64, viscosity, frame_interval=1.0, steps_per_frame=steps, scheme=scheme, precision="float64"
        )

    errors: dict[str, list[float]] = {name: [] for name in schemes}
    seconds: dict[str, list[float]] = {name: [] for name in schemes}
    finest = 4 * counts[-1]
    with torch.no_grad():
        reference = solver(ETDRK4(), finest)
        drawn = McWilliams().sample(4, reference.shape, reference.grid.periods, torch.Generator().manual_seed(0))
        start = reference.advance(drawn, finest)
        truth = reference.advance(start, finest)
        for steps in counts:
            runs = {name: functools.partial(solver(s, steps).advance, start, steps) for name, s in schemes.items()}
            timed = alternate({**runs}, rounds=rounds, repeats=1)
            for name, run in runs.items():
                errors[name].append(float((run() - truth).norm() / truth.norm()))
                seconds[name].append(statistics.median(timed[name]))
    return errors, seconds


def at_work(work: float, seconds: list[float], errors: list[float]) -> float:
    """The error that a scheme reaches in ``work`` seconds, on the line through the two nearest points, log-log."""
    after = next((i for i, t in enumerate(seconds) if t >= work), len(seconds) - 1)
    after = max(after, 1)
    x0, x1 = math.log(seconds[after - 1]), math.log(seconds[after])
    y0, y1 = math.log(errors[after - 1]), math.log(errors[after])
    return math.exp(y0 + (y1 - y0) * (math.log(work) - x0) / (x1 - x0))


def compare_windows(quick: bool) -> list[str]:
    """Batches of training windows from our archive, against copying the same bytes and against h5py kept open."""
    lines = [
        "## Windows of the archive, warm page cache",
        "",
        "CPU time over that of copying the same bytes from memory into a fresh batch, window by window, and that of",
        "h5py with the file kept open over ours. 16 windows of 2 frames a batch, one channel, float32.",
        "",
        "| grid | a window, kB | ours over copy | h5py over ours | ours, us a window |",
        "|---|---|---|---|---|",
    ]
    for size in (64,) if quick else (64, 128, 256):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(_time_windows(Path(folder), size, rounds=5 if quick else 9))
    return [*lines, ""]


def _time_windows(folder: Path, size: int, rounds: int) -> str:
    trajectories, frames, batch = 16, 20, 16
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    metadata = Metadata("noise", grid, (Channel("vorticity"),), frame_interval=1.0)
    values = torch.randn(trajectories, frames, 1, size, size, generator=torch.Generator().manual_seed(0))
    times, path = torch.arange(float(frames)), folder / "train.nc"
    with ArchiveWriter(path, metadata, grid.uniform_coordinates((size, size)), times, trajectories) as writer:
        writer.write(0, values)
        writer.finish()
    windows = Windows(Archive(folder).trajectories("train"), history_frames=1, target_frames=1)
    indices = torch.randperm(len(windows), generator=torch.Generator().manual_seed(1))[:batch].tolist()
    places = [divmod(index, frames - 1) for index in indices]

    def copied() -> Tensor:
        out = torch.empty(batch, 2, 1, size, size)
        for row, (trajectory, start) in enumerate(places):
            out[row] = values[trajectory, start : start + 2]
        return out

    with h5py.File(path, "r") as file:
        field = file["vorticity"]

        def read() -> Tensor:
            out = torch.empty(batch, 2, 1, size, size)
            for row, (trajectory, start) in enumerate(places):
                out[row, :, 0] = torch.from_numpy(field[trajectory, start : start + 2])
            return out

        def ours() -> Tensor:
            given = windows.__getitems__(indices)
            return torch.cat([given.history, given.target], dim=1)

        assert torch.equal(copied(), read())
        assert torch.equal(copied(), ours())
        contestants: Contestants = {
            "copy": copied, "h5py": read, "ours": lambda: windows.__getitems__(indices),
        }  # fmt: skip
        seconds = alternate(contestants, rounds=rounds, repeats=40)
    per_window = 1e6 * statistics.median(seconds["ours"]) / batch
    cells = [ratio(seconds["ours"], seconds["copy"]), ratio(seconds["h5py"], seconds["ours"]), f"{per_window:.1f}"]
    return f"| {size}x{size} | {2 * 4 * size * size / 1e3:.0f} | " + " | ".join(cells) + " |"


def compare_spectra(quick: bool) -> list[str]:
    """Energy spectra of a batch of velocity fields against what is usually written in NumPy."""
    lines = [
        "## Energy spectra against NumPy",
        "",
        "CPU time over ours of a loop over shells with a mask for each, and of one `numpy.bincount` a field. Single",
        "precision.",
        "",
        "| fields | difference | shell loop over ours | bincount over ours | ours, ms |",
        "|---|---|---|---|---|",
    ]
    for count, components, size in [(8, 2, 64)] if quick else [(8, 2, 64), (8, 3, 128), (4, 2, 256)]:
        fields = torch.randn(count, components, size, size, generator=torch.Generator().manual_seed(0))
        array = fields.numpy()
        shells = Shells((size, size), (2 * math.pi, 2 * math.pi))
        waves = np.fft.fftfreq(size, 1 / size)
        members = np.rint(np.hypot(waves[:, None], waves[None])).astype(np.int64)
        masks = [members == shell for shell in range(members.max() + 1)]

        def density(array: np.ndarray = array, size: int = size) -> np.ndarray:
            return (np.abs(np.fft.fft2(array) / size**2) ** 2).sum(1) / 2

        def loop(density: Callable[[], np.ndarray] = density, masks: list[np.ndarray] = masks) -> np.ndarray:
            energy = density()
            return np.stack([energy[:, mask].sum(1) for mask in masks], 1)

        def bincount(density: Callable[[], np.ndarray] = density, members: np.ndarray = members) -> np.ndarray:
            return np.stack([np.bincount(members.ravel(), weights=energy.ravel()) for energy in density()])

        def ours(fields: Tensor = fields, shells: Shells = shells) -> Tensor:
            return energy_spectrum(fields, shells)

        difference = max(relative_difference(torch.from_numpy(peer()), ours()) for peer in (loop, bincount))
        if difference > 1e-5:
            raise RuntimeError(f"Expected equal spectra at {size} but they differ by {difference:.1e}.")
        seconds = alternate({"loop": loop, "bincount": bincount, "ours": ours}, rounds=3 if quick else 9, repeats=20)
        factors = " | ".join(ratio(seconds[peer], seconds["ours"]) for peer in ("loop", "bincount"))
        own = 1e3 * statistics.median(seconds["ours"])
        lines.append(f"| {count}x{components}x{size}x{size} | {difference:.0e} | {factors} | {own:.2f} |")
    return [*lines, ""]


def compare_evaluator(quick: bool) -> list[str]:
    """How much of an evaluation is measuring: the default suite beside the rollout of an FNO."""
    lines = [
        "## Share of an evaluation that is measuring",
        "",
        "CPU time of all metrics of the default suite over that of an FNO rollout: four layers, width 24, data with a",
        "vorticity and a viscosity, 16 trajectories. Median and range over rollouts of ten frames.",
        "",
        "| grid | modes | metrics | metrics over rollout | FNO, ms a frame | metrics, ms a frame |",
        "|---|---|---|---|---|---|",
    ]
    for size, modes in [(64, 24)] if quick else [(64, 24), (128, 40), (128, 64)]:
        trajectories = _noise_trajectories(16, frames=11, size=size)
        torch.manual_seed(0)
        surrogate = Surrogate(FNO(channels=1, modes=(modes, modes), width=24), trajectories[0].metadata).eval()
        names: list[str] = []
        seconds: dict[str, list[float]] = {"metrics": [], "rollout": []}

        def suite(plan: RolloutPlan, names: list[str] = names) -> dict[str, RolloutMetric]:
            metrics = default_suite(plan)
            names[:] = metrics
            return metrics

        with patch("pdesurrogate.evaluation.clock.time.perf_counter", time.process_time):
            for round_number in range(3 if quick else 9):
                run = Evaluator(suite)(surrogate, trajectories, 10).attributes["run"]
                if round_number:
                    seconds["metrics"].append(run["metric_seconds_per_frame"])
                    seconds["rollout"].append(run["seconds_per_frame"])
        own = " | ".join(f"{1e3 * statistics.median(seconds[name]):.2f}" for name in ("rollout", "metrics"))
        share = ratio(seconds["metrics"], seconds["rollout"])
        lines.append(f"| {size}x{size} | {modes} | {len(names)} | {share} | {own} |")
    return [*lines, ""]


def _noise_trajectories(count: int, frames: int, size: int) -> list[Trajectory]:
    """Trajectories of any length that are made when read, so that nothing but the evaluation takes memory."""
    grid = Grid((Axis("x", period=2 * math.pi), Axis("y", period=2 * math.pi)))
    metadata = Metadata("noise", grid, (Channel("vorticity"),), frame_interval=0.1, parameters=("viscosity",))
    context = Context(grid.uniform_coordinates((size, size), dtype=torch.float32), torch.tensor([1e-3]))
    field = torch.randn(size, size, generator=torch.Generator().manual_seed(0))

    def read_into(start: int, out: Tensor) -> None:
        for frame in range(len(out)):
            out[frame, 0] = field.roll(start + frame, 0)

    times = torch.arange(float(frames))
    return [Trajectory(metadata, context, times, read_into, (frames, 1, size, size)) for _ in range(count)]


def compare_memory(quick: bool) -> list[str]:
    """Largest resident memory of a whole process that evaluates rollouts of more and more frames."""
    lines = [
        "## Memory of an evaluation against the number of steps",
        "",
        "Largest resident set of a process that evaluates 16 rollouts of an FNO (width 8, modes 16) at 128x128 with",
        "the default suite, and what holding prediction and truth would take.",
        "",
        "| frames | resident, MiB | prediction and truth, MiB |",
        "|---|---|---|",
    ]
    for frames in (2, 20) if quick else (2, 20, 200, 1000):
        script = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import run; run.evaluate_once({frames})"
        )
        output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        held = 2 * 16 * frames * 128 * 128 * 4 / 2**20
        lines.append(f"| {frames} | {int(output) / 1024:.0f} | {held:.0f} |")
    return [*lines, ""]


def evaluate_once(frames: int) -> None:
    """Print the largest resident set of this process, in KiB, after one evaluation."""
    torch.set_num_threads(1)
    trajectories = _noise_trajectories(16, frames=frames + 1, size=128)
    surrogate = Surrogate(FNO(channels=1, modes=(16, 16), width=8), trajectories[0].metadata).eval()
    Evaluator()(surrogate, trajectories, frames)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


SECTIONS = {
    "fno": compare_fno,
    "sfno": compare_sfno,
    "sinenet": compare_sinenet,
    "ifactformer": compare_ifactformer,
    "solver": compare_solver,
    "schemes": compare_schemes,
    "channel": compare_channel_flow,
    "enclosed": compare_enclosed_flow,
    "windows": compare_windows,
    "spectra": compare_spectra,
    "evaluator": compare_evaluator,
    "memory": compare_memory,
    "conditioning": compare_conditioning,
}


def main() -> None:
    """Run the comparisons that were asked for and print or write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="first case of each table, few rounds: under a minute")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--output", type=Path, help="file to write as well")
    parser.add_argument("--machine", default="", help="a few words about the machine, for the head of the tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where = f"{arguments.machine}, " if arguments.machine else ""
    lines = ["# Speed", "", f"{where}one thread, torch {torch.__version__}, CPU time, contestants alternating.", ""]
    print("\n".join(lines), flush=True)
    for name in arguments.only:
        table = SECTIONS[name](arguments.quick)
        print("\n".join(table), flush=True)
        lines += table
    if arguments.output is not None:
        arguments.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
