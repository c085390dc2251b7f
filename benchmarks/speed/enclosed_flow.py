"""A lid-driven cavity to its steady state: ours, phiflow and OpenFOAM, error over time; and what a batch saves.

    python benchmarks/speed/enclosed_flow.py [--quick] [--rounds 3]

``peers/`` holds the two others. phiflow runs in a process of the interpreter that PHIFLOW_PYTHON names, else this one;
OpenFOAM as a process of its own, counted whole. Imports and compilation are not counted for ours and phiflow.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from peers import openfoam_cavity
from peers.centerlines import deviation
from timing import print_section

from pdesurrogate.simulators.enclosed.flow import EnclosedFlow
from pdesurrogate.simulators.enclosed.problems import Cavity

REYNOLDS_NUMBER = 100
END_TIME = 30.0
CELLS = (32, 64, 128)
# Largest that icoFoam survives of 0.02, 0.03, 0.04, 0.05, 0.1, 0.15, 0.2, 0.5: what fits only a steady flow.
OPENFOAM_LARGEST_STEP = {32: 0.5, 64: 0.1, 128: 0.03}
# phiflow's run is cut here and its steps scaled.
MOST_SECONDS = 120.0
PHIFLOW = "phiflow 3.4"
OURS = "ours"


class Run(NamedTuple):
    """One contestant at one resolution: CPU seconds of each round, deviation from the published values, its steps."""

    seconds: list[float]
    error: float
    time_step: float
    remark: str = ""


def compare_enclosed_flow(quick: bool, rounds: int | None = None) -> list[str]:
    """Error over time of the three, then our time over the size of the batch."""
    lines = [
        f"## Lid-driven cavity, Re = {REYNOLDS_NUMBER}, from rest to t = {END_TIME:g} lid times",
        "",
        "CPU time on one thread: median and range over the rounds, a third as many at 128x128. Error: largest",
        "deviation from the centerlines of Marchi et al. (2009), in lid speeds. Equal error: time of the others, on",
        "the line through their points (logarithmic axes, continued where a number has a star), over ours at our",
        "error. Double precision.",
        "",
    ]
    rounds = rounds or (1 if quick else 3)
    results, missing = _results(CELLS[:1] if quick else CELLS, rounds)
    lines += ["| code | cells | time step | error | CPU seconds | over ours, same cells | over ours, equal error |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, runs in results.items():
        lines += [_row(name, cells, results) for cells in runs]
    lines += ["", *missing]
    return [*lines, *_batches(quick, rounds)]


def _results(sizes: tuple[int, ...], rounds: int) -> tuple[dict[str, dict[int, Run]], list[str]]:
    results: dict[str, dict[int, Run]] = {OURS: {}}
    missing = []
    has_openfoam, phiflow = openfoam_cavity.is_installed(), _interpreter_with_phiflow()
    if not has_openfoam:
        missing += ["Not run: OpenFOAM is not installed (apt-get install openfoam).", ""]
    if phiflow is None:
        missing += [
            "Not run: phiflow is not installed (pip install phiflow==3.4.0; PHIFLOW_PYTHON names its interpreter).",
            "",
        ]
    for cells in sizes:
        found: dict[str, list[Run]] = {}
        # What takes minutes takes its turn less often.
        for _ in range(rounds if cells < 128 else max(1, rounds // 3)):
            found.setdefault(OURS, []).append(_run_ours(cells))
            if has_openfoam:
                for name, step in _openfoam_steps(cells).items():
                    found.setdefault(name, []).append(_run_openfoam(cells, step))
            if phiflow is not None:
                found.setdefault(PHIFLOW, []).append(_run_phiflow(phiflow, cells))
        for name, runs in found.items():
            seconds = [run.seconds[0] for run in runs]
            results.setdefault(name, {})[cells] = runs[0]._replace(seconds=seconds)
    return results, missing


def _openfoam_steps(cells: int) -> dict[str, float]:
    return {"OpenFOAM, Courant number 0.64": 0.64 / cells, "OpenFOAM, largest step": OPENFOAM_LARGEST_STEP[cells]}


def _run_ours(cells: int) -> Run:
    problem = Cavity(dynamic_viscosity=1 / REYNOLDS_NUMBER)
    limit = EnclosedFlow(problem, (cells, cells), 1.0, 100 * cells).largest_time_step()
    steps = math.ceil(1 / limit)
    flow = EnclosedFlow(problem, (cells, cells), 1.0, steps)
    with torch.no_grad():
        flow.advance(flow.at_rest(1), 3)
        start = time.process_time()
        state = flow.advance(flow.at_rest(1), round(END_TIME * steps))
        seconds = time.process_time() - start
    error = deviation(state[0, 0, cells // 2].numpy(), state[0, 1, :, cells // 2].numpy(), REYNOLDS_NUMBER)
    return Run([seconds], error, flow.time_step)


def _run_openfoam(cells: int, time_step: float) -> Run:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        openfoam_cavity.write_case(folder, cells, REYNOLDS_NUMBER, time_step, END_TIME)
        seconds = openfoam_cavity.run_case(folder)
        return Run([seconds], openfoam_cavity.error_of_case(folder, cells, REYNOLDS_NUMBER), time_step)


def _run_phiflow(interpreter: str, cells: int) -> Run:
    script = Path(__file__).parent / "peers" / "phiflow_cavity.py"
    command = [interpreter, str(script), str(cells), str(REYNOLDS_NUMBER), str(END_TIME), str(MOST_SECONDS)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    remark = "" if found["finished"] else "scaled"
    return Run([found["seconds"]], found["error"], found["time_step"], remark)


def _interpreter_with_phiflow() -> str | None:
    interpreter = os.environ.get("PHIFLOW_PYTHON", sys.executable)
    found = subprocess.run([interpreter, "-c", "import phi.torch.flow"], capture_output=True, check=False)
    return interpreter if found.returncode == 0 else None


def _row(name: str, cells: int, results: dict[str, dict[int, Run]]) -> str:
    run, ours = results[name][cells], results[OURS][cells]
    middle = statistics.median(run.seconds)
    ratios = [theirs / own for theirs, own in zip(run.seconds, ours.seconds, strict=True)]
    same = equal = ""
    if name != OURS:
        same = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}–{max(ratios):.2f})"
        equal = _at_equal_error(results[name], ours)
    cost = f"**{middle:.2f}** ({min(run.seconds):.2f}–{max(run.seconds):.2f}) {run.remark}".strip()
    return f"| {name} | {cells}x{cells} | {run.time_step:.4g} | {run.error:.5f} | {cost} | {same} | {equal} |"


def _at_equal_error(runs: dict[int, Run], ours: Run) -> str:
    points = sorted((run.error, statistics.median(run.seconds)) for run in runs.values() if not math.isnan(run.error))
    if len(points) < 2:
        return ""
    errors = [math.log(error) for error, _ in points]
    target = math.log(ours.error)
    after = next((i for i, error in enumerate(errors) if error >= target), len(errors) - 1)
    after = max(after, 1)
    (x0, x1), (y0, y1) = (
        errors[after - 1 : after + 1],
        (math.log(seconds) for _, seconds in points[after - 1 : after + 1]),
    )
    seconds = math.exp(y0 + (y1 - y0) * (target - x0) / (x1 - x0))
    star = "" if errors[0] <= target <= errors[-1] else "*"
    return f"{seconds / statistics.median(ours.seconds):.2f}{star}"


def _batches(quick: bool, rounds: int) -> list[str]:
    """CPU time of one thread; wall time of two, whose gain CPU time cannot tell, so that other users count."""
    lines = [
        "## Cavities side by side in one batch",
        "",
        "Milliseconds for a case and step, shortest of the rounds, double precision: CPU time of one thread, wall",
        "time of two, which the other users of a machine lengthen.",
        "",
    ]
    sizes, batches = (64, 128)[: 1 if quick else 2], (1, 8) if quick else (1, 2, 4, 8, 16, 32)
    lines += [
        "| cells | threads | " + " | ".join(f"{batch} case{'s' * (batch > 1)}" for batch in batches) + " |",
        "|---" * (2 + len(batches)) + "|",
    ]
    before = torch.get_num_threads()
    for cells in sizes:
        flow = EnclosedFlow(Cavity(), (cells, cells), 1.0, 1000)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            clock = time.process_time if threads == 1 else time.perf_counter
            costs = [_milliseconds(flow, batch, rounds, clock) for batch in batches]
            lines.append(f"| {cells}x{cells} | {threads} | " + " | ".join(f"{cost:.2f}" for cost in costs) + " |")
    torch.set_num_threads(before)
    return [*lines, ""]


def _milliseconds(flow: EnclosedFlow, batch: int, rounds: int, clock: Callable[[], float]) -> float:
    steps = max(3, 64 // batch)
    shortest = math.inf
    with torch.no_grad():
        state = flow.advance(flow.at_rest(batch), 2)
        for _ in range(rounds):
            start = clock()
            flow.advance(state, steps)
            shortest = min(shortest, clock() - start)
    return 1e3 * shortest / steps / batch


if __name__ == "__main__":
    print_section(compare_enclosed_flow, __doc__)
