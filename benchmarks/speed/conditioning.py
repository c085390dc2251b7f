"""The update of ProbConserv against the formula written out, and against reading its row once.

    python benchmarks/speed/conditioning.py [--quick] [--rounds 9]

The covariance object and the constraint are made before: what is timed is `condition`, its checks included, and the
variance where a column says so. ``timing.py`` says how it is timed.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import torch
from timing import Contestants, alternate, print_section, ratio, relative_difference
from torch import Tensor

from pdesurrogate.evaluation.memory import peak_memory
from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.fno import FNO
from pdesurrogate.physics.conservation.conditioning import Conditioned, condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Diagonal
from pdesurrogate.physics.conservation.laws import KeptMeans
from pdesurrogate.physics.conservation.rows import DenseRows
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.probconserv import ProbConserv
from pdesurrogate.steppers.surrogate import Surrogate

SMALL, LARGE = 1_000, 100_000
ROWS = (1, 2, 5, 10, 20)
# What takes microseconds is repeated within its turn.
REPEATS = 200


def compare_conditioning(quick: bool, rounds: int | None = None) -> list[str]:
    """One row and a diagonal covariance, then several rows: time and memory."""
    # A process that has held one large array keeps its memory; a fresh one pays the system for each.
    torch.ones(3_500_000, dtype=torch.float64)
    rounds = rounds or (3 if quick else 9)
    lines = ["## ProbConserv updates", ""]
    with torch.no_grad():
        lines += _one_row_small(rounds)
        lines += _one_row_large(rounds)
        lines += _many_rows(ROWS[:2] if quick else ROWS, rounds)
        lines += _in_a_rollout((1,) if quick else (1, 16), rounds)
    return lines


def _one_row_small(rounds: int) -> list[str]:
    constraint, mean, variance = _problem(SMALL)
    prior, matrix = Diagonal(variance), variance.diag()
    weights, target = constraint.rows.dense(), constraint.target
    identity = torch.eye(SMALL, dtype=torch.float64)

    def gain() -> Tensor:
        return matrix @ weights.mT @ torch.linalg.inv(weights @ matrix @ weights.mT)

    def written_out() -> tuple[Tensor, Tensor]:
        found = gain()
        return mean - found @ (weights @ mean - target), (identity - found @ weights) @ matrix

    def reordered() -> tuple[Tensor, Tensor]:
        found = gain()
        return mean - found @ (weights @ mean - target), matrix - found @ (weights @ matrix)

    def ours() -> tuple[Tensor, Tensor]:
        found = condition(mean, prior, constraint)
        return found.mean, found.variance

    known, found = written_out(), ours()
    difference = max(relative_difference(found[0], known[0]), relative_difference(found[1], known[1].diagonal()))
    if difference > 1e-9:
        raise RuntimeError(f"Expected equal updates but they differ by {difference:.1e}.")
    contestants: Contestants = {
        "out": written_out,
        "reordered": reordered,
        "ours": functools.partial(_repeat, ours),
        "mean": functools.partial(_repeat, lambda: condition(mean, prior, constraint).mean),
    }
    seconds = alternate(contestants, rounds, repeats=1)
    for name in ("ours", "mean"):
        seconds[name] = [each / REPEATS for each in seconds[name]]
    return [
        f"One row, diagonal covariance, {SMALL} unknowns, float64: CPU time of the dense formulas, which write the",
        "n x n covariances before and after, over that of mean and variance; median and range over the rounds. Written",
        "out: `(I - K G) S` as a product of n x n matrices. Reordered: `S - K (G S)`, in the order that costs least.",
        "",
        "| unknowns | difference | written out over ours | reordered over ours | ours, us | ours, mean alone, us |",
        "|---|---|---|---|---|---|",
        f"| {SMALL} | {difference:.0e} | {ratio(seconds['out'], seconds['ours'])} "
        f"| {ratio(seconds['reordered'], seconds['ours'])} | {_micro(seconds['ours'])} | {_micro(seconds['mean'])} |",
        "",
    ]


def _one_row_large(rounds: int) -> list[str]:
    constraint, mean, variance = _problem(LARGE)
    prior, weights, single = Diagonal(variance), constraint.rows.dense()[0], mean.float()
    found = condition(mean, prior, constraint)
    both = {
        "pass": lambda: weights @ mean,
        "mean": lambda: condition(mean, prior, constraint).mean,
        "variance": lambda: _mean_and_variance(condition(mean, prior, constraint)),
        "again": lambda: found.shifted(mean),
        "pass of float32": lambda: weights @ single.double(),
        "mean of float32": lambda: condition(single, prior, constraint).mean,
    }
    seconds = alternate(both, rounds, repeats=50)
    memory = peak_memory(both["variance"], "cpu")
    cells = [
        ratio(seconds["mean"], seconds["pass"]),
        ratio(seconds["variance"], seconds["pass"]),
        ratio(seconds["again"], seconds["pass"]),
        ratio(seconds["mean of float32"], seconds["pass of float32"]),
        _micro(seconds["pass"]),
        _micro(seconds["mean"]),
        _arrays(memory),
    ]
    return [
        f"The same with {LARGE} unknowns, where one n x n matrix would take {8 * LARGE**2 / 1e9:.0f} GB: CPU time of",
        "ours over that of a pass, `weights @ mean`, one inner product that reads both arrays and writes nothing; for",
        "a mean in float32 it includes the conversion to the float64 of the row. An update has to read weights, mean",
        "and variance, then all three again, and write the mean. Another mean: the same covariance, its gain known",
        "(`Conditioned.shifted`). Memory: what tensors made for mean and variance take at most, in arrays of n",
        "numbers.",
        "",
        "| unknowns | mean | mean and variance | another mean | mean in float32 | pass, us | mean, us | memory |",
        "|---|---|---|---|---|---|---|---|",
        f"| {LARGE} | " + " | ".join(cells) + " |",
        "",
    ]


def _many_rows(counts: tuple[int, ...], rounds: int) -> list[str]:
    lines = [
        f"Several rows that share unknowns, diagonal covariance, {LARGE} unknowns, float64. Product: `G G^T`, the",
        "`n m^2` of the cost. Memory: as above, in arrays of the rows.",
        "",
        "| rows | mean, ms | mean and variance, ms | mean over product | mean and variance over product | memory |",
        "|---|---|---|---|---|---|",
    ]
    _, mean, variance = _problem(LARGE)
    prior = Diagonal(variance)
    for count in counts:
        weights = torch.randn(count, LARGE, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
        constraint = LinearConstraint(DenseRows(weights, 1), torch.ones(count, dtype=torch.float64))
        left = constraint.residual(condition(mean, prior, constraint).mean).abs().max()
        if float(left / constraint.rows.magnitude(mean).max()) > 1e-12:
            raise RuntimeError(f"Expected rows that are met but one is {float(left):.1e} away.")
        both = {
            "product": lambda weights=weights: weights @ weights.mT,
            "mean": lambda constraint=constraint: condition(mean, prior, constraint).mean,
            "variance": lambda constraint=constraint: _mean_and_variance(condition(mean, prior, constraint)),
        }
        seconds = alternate(both, rounds, repeats=3)
        memory = peak_memory(both["variance"], "cpu")
        cells = [
            f"{1e3 * statistics.median(seconds['mean']):.2f}",
            f"{1e3 * statistics.median(seconds['variance']):.2f}",
            ratio(seconds["mean"], seconds["product"]),
            ratio(seconds["variance"], seconds["product"]),
            _arrays(memory, count),
        ]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _in_a_rollout(batches: tuple[int, ...], rounds: int) -> list[str]:
    grid = Grid((Axis("x", period=1.0), Axis("y", period=1.0)))
    metadata = Metadata("speed", grid, (Channel("vorticity"),), frame_interval=0.1)
    torch.manual_seed(0)
    surrogate = Surrogate(FNO(channels=1, modes=(40, 40), width=24, layers=4), metadata).eval()
    # Persistence costs nothing: what is left is the update.
    update = ProbConserv(Persistence(), KeptMeans(), metadata=metadata)
    lines = [
        "In a rollout: the update of the mean of a frame, in float32, beside a step of the FNO of `ns2d_decaying` (64",
        "x 64, modes 40, width 24, 4 layers).",
        "",
        "| batch | FNO, ms | update, ms | update over FNO |",
        "|---|---|---|---|",
    ]
    for batch in batches:
        history = torch.randn(batch, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        context = Context(tuple(points.expand(batch, -1) for points in grid.uniform_coordinates((64, 64))))
        both = {
            "step": functools.partial(surrogate.step, history, context),
            "update": functools.partial(_repeat, functools.partial(update.step, history, context)),
        }
        seconds = alternate(both, rounds, repeats=3)
        seconds["update"] = [each / REPEATS for each in seconds["update"]]
        cells = [f"{1e3 * statistics.median(seconds[name]):.2f}" for name in ("step", "update")]
        lines.append(f"| {batch} | " + " | ".join(cells) + f" | {ratio(seconds['update'], seconds['step'])} |")
    return [*lines, ""]


def _problem(size: int) -> tuple[LinearConstraint, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(size, generator=generator, dtype=torch.float64)
    variance = torch.rand(size, generator=generator, dtype=torch.float64) + 0.01
    points = torch.linspace(0, 1, size, dtype=torch.float64)
    return LinearConstraint.integral(points, torch.tensor(1.0, dtype=torch.float64)), mean, variance


def _mean_and_variance(found: Conditioned) -> tuple[Tensor, Tensor]:
    return found.mean, found.variance


def _repeat(function: Callable[[], object]) -> None:
    for _ in range(REPEATS):
        function()


def _micro(seconds: list[float]) -> str:
    return f"{1e6 * statistics.median(seconds):.0f}"


def _arrays(memory: int | None, rows: int = 1) -> str:
    return "unknown" if memory is None else f"{memory / (8 * LARGE * rows):.1f}"


if __name__ == "__main__":
    print_section(compare_conditioning, __doc__)
