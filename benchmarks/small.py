"""Trains and evaluates the `small` tier on two CPU cores: the commands behind ``benchmarks/reports``.

    python benchmarks/small.py            # what is missing, in the order of the list below
    python benchmarks/small.py --dry-run  # the commands alone

Each step is one ``pdesurrogate`` command; what exists is not made again, and a training that was interrupted goes on
from its last whole epoch. Data and full checkpoints lie in ``runs/`` (not in the repository), reports in
``benchmarks/reports``, weights of at most 4 MB in ``benchmarks/checkpoints``; larger ones are remade from their
configuration and seed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

RUNS = Path("runs/small")
REPORTS = Path("benchmarks/reports")
CHECKPOINTS = Path("benchmarks/checkpoints")
LARGEST_CHECKPOINT = 4_000_000
PROBLEMS = ("ns2d_decaying", "ns2d_forced")
SEEDS = {"fno": (0, 1, 2), "neuralop_fno": (0,)}
SOLVERS = (32, 48, 64)


def commands() -> Iterator[tuple[Path, list[str]]]:
    """(file that shows that a step is done, its command)."""
    for problem in PROBLEMS:
        data = Path("runs/data") / problem
        yield data / "test.nc", ["generate", problem, "--out", str(data)]
    for model, seeds in SEEDS.items():
        for seed in seeds:
            for problem in PROBLEMS:
                yield from _train_and_evaluate(problem, model, seed)
    for problem in PROBLEMS:
        for name, choice in _baselines():
            out = REPORTS / problem / name
            yield out / "report.json", ["evaluate", *choice, *_evaluation(problem, out)]


def _train_and_evaluate(problem: str, model: str, seed: int) -> Iterator[tuple[Path, list[str]]]:
    folder = RUNS / problem / f"{model}_seed{seed}"
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": ""}}
    last = folder / "checkpoints" / "last.ckpt"
    fit = ["fit", "-c", f"{problem}/{model}", "--seed_everything", str(seed), "--trainer.logger", json.dumps([logger])]
    yield folder / "finished", [*fit, "--ckpt_path", str(last)] if last.exists() else fit
    slim = RUNS / problem / f"{model}_seed{seed}.ckpt"
    yield slim, ["slim", str(last), str(slim)]
    out = REPORTS / problem / f"{model}_seed{seed}"
    yield out / "report.json", ["evaluate", "--checkpoint", str(slim), "--solver-sweep", *_evaluation(problem, out)]


def _baselines() -> Iterator[tuple[str, list[str]]]:
    yield "persistence", ["--stepper", "pdesurrogate.steppers.persistence.Persistence"]
    for resolution in SOLVERS:
        yield f"solver_{resolution}", ["--coarse-solver", str(resolution)]


def _evaluation(problem: str, out: Path) -> list[str]:
    return ["--data", f"runs/data/{problem}", "--start-frame", "1", "--residual", "--out", str(out), "--no-figures"]


def _slim(source: str, target: str) -> None:
    """Weights, specification and training record of a checkpoint, without the optimizer's state; kept if small."""
    from pdesurrogate.steppers.surrogate import Surrogate, load_checkpoint

    slim = Surrogate.from_checkpoint(source).save(target, training=load_checkpoint(source)["training"])
    if slim.stat().st_size <= LARGEST_CHECKPOINT:
        kept = CHECKPOINTS / slim.relative_to(RUNS)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(slim, kept)


def main() -> int:
    """Run what is missing; the exit status of the first command that fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="print the commands that would run")
    arguments = parser.parse_args()
    for done, command in commands():
        if done.exists():
            continue
        print("pdesurrogate", shlex.join(command), flush=True)
        if arguments.dry_run:
            continue
        if command[0] == "slim":
            _slim(*command[1:])
            continue
        status = subprocess.run([sys.executable, "-m", "pdesurrogate", *command], check=False).returncode
        if status != 0:
            return status
        if command[0] == "fit":  # last.ckpt is there from the first epoch on
            done.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
