"""Trains, refines and evaluates the `small` tier on two CPU cores: the commands behind ``benchmarks/reports``.

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
from typing import NamedTuple

RUNS = Path("runs/small")
REPORTS = Path("benchmarks/reports")
CHECKPOINTS = Path("benchmarks/checkpoints")
LARGEST_CHECKPOINT = 4_000_000


class Way(NamedTuple):
    """What else is done with a trained network: a name, options of ``refine`` or ``evaluate``, and for which seeds."""

    name: str
    options: tuple[str, ...]
    seeds: tuple[int, ...]
    verb: str = "refine"


class Trained(NamedTuple):
    """A configuration below ``benchmarks/configs``, the seeds that it is trained with, and what is done with these.

    ``options`` are those of ``pdesurrogate evaluate`` beyond its task's; ``start_from`` is the configuration whose
    network of the same seed the training goes on from.
    """

    config: str
    seeds: tuple[int, ...]
    ways: tuple[Way, ...] = ()
    options: tuple[str, ...] = ("--solver-sweep",)
    start_from: str | None = None


class Task(NamedTuple):
    """Frames of a data set that a table is about; reports lie in ``benchmarks/reports/NAME``.

    ``options`` are those of ``pdesurrogate evaluate`` beyond the frames; ``steppers`` are files in
    ``benchmarks/steppers/PROBLEM``, each with its name in tables.
    """

    name: str
    problem: str
    window: tuple[str, ...]
    trained: tuple[Trained, ...]
    solvers: tuple[int, ...]
    options: tuple[str, ...] = ("--residual",)
    steppers: tuple[tuple[str, str], ...] = ()


LAWS = "benchmarks/laws"
NEWTON, LBFGS, ADAM = (("--method", name) for name in ("newton", "lbfgs", "adam"))
# Over this long a time the first iterations gain little: Newton's method converges quadratically only near the end.
FAR_NEWTON = (*NEWTON, "--iterations", "5", "--window", "10")
# The solver takes minutes here: it is measured beside the networks of most and of least work.
SWEEP = ("--solver-sweep", "32", "48", "64")
FINER_SWEEP = ("--solver-sweep", "32", "48", "64", "80")
TEN_TO_TEN = ("--start-frame", "10", "--frames", "10")


def waves(config: str, name: str, *options: str) -> Trained:
    """A SineNet with three seeds, and how far its features move."""
    return Trained(config, (0, 1, 2), options=("--name", name, "--misalignment", *options))


# Ways to keep a law: a suffix of the report's name, what tables call it, options beside the law.
KeepingWays = dict[str, tuple[str, tuple[str, ...]]]
MEASURED_ALONE = ("--conserve-where", "nowhere")
LOOP: KeepingWays = {"loop": ("ProbConserv", ())}
LOOP_AND_OUTPUT: KeepingWays = LOOP | {
    "output": ("ProbConserv of the output", ("--conserve-where", "output")),
}
SOLENOIDAL: KeepingWays = {
    "solenoidal": ("no divergence", ("--wrap", f"{LAWS}/no_divergence.yaml", *MEASURED_ALONE)),
    "both": ("ProbConserv, no divergence", ("--wrap", f"{LAWS}/no_divergence.yaml")),
}
BY_HEIGHT: KeepingWays = {
    "by_height": ("ProbConserv by height", ("--wrap", f"{LAWS}/flow_rate_by_height.yaml", *MEASURED_ALONE)),
}
STAGGERED: KeepingWays = {
    "both": ("ProbConserv, no divergence", ("--wrap", f"{LAWS}/no_divergence_in_a_channel.yaml")),
}


def conserving(
    config: str,
    seeds: tuple[int, ...],
    name: str,
    law: str,
    ways: KeepingWays | None = None,
    start_from: str | None = None,
    beside: tuple[str, ...] = (),
) -> Trained:
    """A network whose law is measured as it is, and kept in some ways; ``beside`` are options of the former alone."""
    measured = ("--name", name, "--conserve", f"{LAWS}/{law}.yaml")
    kept = tuple(
        Way(suffix, ("--name", f"{name} + {label}", *measured[2:], *options), seeds, "evaluate")
        for suffix, (label, options) in (ways or {}).items()
    )
    return Trained(config, seeds, kept, (*measured, *MEASURED_ALONE, *beside), start_from)


def named(config: str, name: str, *options: str) -> Trained:
    """One seed under a name of its own."""
    return Trained(config, (0,), options=("--name", name, *options))


# Configurations are those of the cavity; a file in benchmarks/problems puts another problem in its place.
CFDBENCH = ("cavity", "tube", "step", "cylinder")
SUBSETS = ("bc", "prop", "geo")
SECTION_FLOW = ("--conserve", f"{LAWS}/section_flow.yaml")


def cfdbench(problem: str, subset: str) -> Task:
    """One network of each kind, trained on all subsets of a problem and measured on one; benchmarks/cfdbench.py."""
    seeds = (0, 1, 2) if problem == "cavity" else (0,)
    fno = Trained("fno", seeds, options=("--name", "FNO"))
    if problem == "tube":
        kept = Way("loop", ("--name", "FNO + ProbConserv", *SECTION_FLOW), seeds, "evaluate")
        fno = Trained("fno", seeds, (kept,), ("--name", "FNO", *SECTION_FLOW, *MEASURED_ALONE))
    direct = (named("ffn", "FFN"), named("deeponet", "DeepONet")) if problem == "cavity" else ()
    return Task(
        f"cfdbench_{problem}_{subset}",
        f"cfdbench_{problem}",
        # Frame 0 is at rest in most: nothing persists from there.
        ("--start-frame", "2", "--subset", subset),
        (
            fno,
            named("cfdbench_fno", "FNO of CFDBench"),
            Trained("unet", seeds, options=("--name", "U-Net")),
            named("resnet", "ResNet"),
            named("auto_deeponet", "Auto-DeepONet"),
            named("sinenet", "SineNet"),
            *direct,
        ),
        # On so few cells the bodies of the others are refused.
        (16,) if problem in ("cavity", "tube") else (),
        options=("--metrics", "benchmarks/cfdbench_metrics.yaml"),
    )


TASKS = (
    Task(
        "ns2d_decaying",
        "ns2d_decaying",
        ("--start-frame", "1"),
        (Trained("fno", (0, 1, 2)), Trained("neuralop_fno", (0,))),
        (32, 48, 64),
    ),
    Task(
        "ns2d_forced",
        "ns2d_forced",
        ("--start-frame", "1"),
        (Trained("fno", (0, 1, 2)), Trained("neuralop_fno", (0,))),
        (32, 48, 64),
    ),
    # The truth is from 128 points a side: what a residual on the stored 64 can see, and on 128.
    Task(
        "ns2d_decaying_to_10",
        "ns2d_decaying",
        ("--start-frame", "1", "--frames", "10"),
        (
            Trained(
                "fno",
                (0,),
                (
                    Way("newton", FAR_NEWTON, (0,)),
                    Way("newton_128", (*FAR_NEWTON, "--resolution", "128", "--name", "FNO + Newton on 128"), (0,)),
                ),
            ),
        ),
        (48, 64),
    ),
    Task(
        "ns2d_decaying_64",
        "ns2d_decaying_64",
        TEN_TO_TEN,
        (
            Trained(
                "sfno",
                (0, 1, 2),
                (
                    Way("newton", NEWTON, (0, 1, 2)),
                    Way("lbfgs", LBFGS, (0,)),
                    Way("adam", ADAM, (0,)),
                    Way("released", ("--method", "released"), (0,)),
                ),
            ),
            Trained("fno", (0,)),
        ),
        (32, 48, 64),
    ),
    Task(
        "ns2d_forced_from_10",
        "ns2d_forced",
        TEN_TO_TEN,
        (
            Trained(
                "sfno_small",
                (0,),
                (
                    Way("newton", NEWTON, (0,)),
                    # Their gradients do not see the difference to the 50 steps of the data.
                    Way("lbfgs", (*LBFGS, "--steps-per-frame", "10"), (0,)),
                    Way("adam", (*ADAM, "--steps-per-frame", "10", "--iterations", "40"), (0,)),
                ),
            ),
            Trained("fno", (0,)),
        ),
        (32, 48, 64),
    ),
    # At one budget; "wide" ones do as much work as four waves. benchmarks/waves.py draws what comes out.
    Task(
        "ns2d_velocity",
        "ns2d_velocity",
        ("--start-frame", "4"),
        (
            waves("sinenet_small_k1", "SineNet-1"),
            waves("sinenet_small_k2", "SineNet-2"),
            waves("sinenet_small_k4", "SineNet-4", *SWEEP),
            waves("sinenet_small_k1_wide", "SineNet-1 wide"),
            waves("sinenet_small_k2_wide", "SineNet-2 wide"),
            named("unet_small", "U-Net"),
            named("unet_modern_small", "modern U-Net"),
            named("dilated_resnet_small", "Dilated ResNet"),
            named("ffno_small", "F-FNO"),
            named("fno_small", "FNO", *SWEEP),
        ),
        (32, 48, 64),
        # The solver is stepped from velocity and scalar, of which no residual is known.
        options=("--one-step",),
    ),
    # What a surrogate of filtered channel flow wants to replace.
    Task(
        "channel_minimal_180",
        "channel_minimal_180",
        ("--start-frame", "1"),
        (
            Trained("ifactformer_small", (0, 1, 2), options=("--name", "IFactFormer-m")),
            named("ifactformer_o_small", "IFactFormer-o"),
            named("ifactformer_o_unit_small", "IFactFormer-o, unit kernels"),
            Trained("fno_small", (0, 1, 2), options=("--name", "FNO")),
            named("fno_light_small", "FNO, light"),
            named("ifno_small", "IFNO"),
            # How far each way to long rollouts gets, at little cost; then the best of them where errors are least.
            named("fno_light_small_noise", "FNO, light, noise"),
            named("fno_light_small_unrolled", "FNO, light, unrolled"),
            named("fno_light_small_unrolled_statistics", "FNO, light, unrolled with statistics"),
            named("fno_light_small_own_rollouts", "FNO, light, own rollouts"),
            named("fno_small_own_rollouts", "FNO, own rollouts"),
            named("ifactformer_small_own_rollouts", "IFactFormer-m, own rollouts"),
        ),
        (),
        # What is three bulk velocities fast is no channel flow any more.
        options=("--one-step", "--free-run", "1000", "--bounds", "-3", "3"),
        steppers=(
            ("les_none", "LES without a model"),
            ("les_dynamic_smagorinsky", "LES, dynamic Smagorinsky"),
            ("les_wale", "LES, WALE"),
        ),
    ),
    # 6,000 h / U_b, some 390 turnovers h / u_tau.
    Task(
        "channel_minimal_180_10000",
        "channel_minimal_180",
        ("--start-frame", "1", "--frames", "10"),
        (
            named("fno_small_own_rollouts", "FNO, own rollouts"),
            named("ifactformer_small_own_rollouts", "IFactFormer-m, own rollouts"),
        ),
        (),
        options=("--free-run", "10000", "--bounds", "-3", "3"),
        steppers=(("les_none", "LES without a model"),),
    ),
    # What conservation gives beyond conservation: benchmarks/conservation.py makes the tables.
    Task(
        "ns2d_decaying_conserved",
        "ns2d_decaying",
        ("--start-frame", "1"),
        (
            conserving("fno", (0, 1, 2), "FNO", "mean_vorticity", LOOP_AND_OUTPUT),
            conserving("fno_more", (0, 1, 2), "FNO, trained on", "mean_vorticity", start_from="fno"),
            conserving("fno_soft", (0, 1, 2), "FNO, trained on with a penalty", "mean_vorticity", start_from="fno"),
            conserving("fno_hard", (0, 1, 2), "FNO, trained on inside the loop", "mean_vorticity", start_from="fno"),
        ),
        (),
        options=(),
    ),
    Task(
        "ns2d_velocity_conserved",
        "ns2d_velocity",
        ("--start-frame", "4"),
        (
            conserving("fno_small", (0,), "FNO", "momentum_and_scalar", LOOP_AND_OUTPUT | SOLENOIDAL),
            conserving("sinenet_small_k4", (0, 1, 2), "SineNet-4", "momentum_and_scalar", LOOP_AND_OUTPUT | SOLENOIDAL),
        ),
        (),
        options=(),
    ),
    Task(
        "channel_minimal_180_conserved",
        "channel_minimal_180",
        ("--start-frame", "1"),
        (
            conserving("fno_small", (0, 1, 2), "FNO", "flow_rate", LOOP_AND_OUTPUT | BY_HEIGHT | STAGGERED),
            conserving("ifactformer_small", (0, 1, 2), "IFactFormer-m", "flow_rate", LOOP),
        ),
        (),
        options=("--free-run", "1000", "--bounds", "-3", "3"),
    ),
    # Each part of the parameters apart: benchmarks/cfdbench.py makes the tables.
    *(cfdbench(problem, subset) for problem in CFDBENCH for subset in SUBSETS),
    Task(
        "smoke_plume",
        "smoke_plume",
        ("--start-frame", "1"),
        (named("fno", "FNO"), named("unet", "U-Net"), named("sinenet", "SineNet")),
        (16, 32),
        options=(),
    ),
    # What is kept, is kept by a plain sum: the laws of both sets are measured, and kept by ProbConserv.
    *(
        Task(
            problem,
            problem,
            ("--start-frame", "1"),
            (
                conserving("fno", (0,), "FNO", law, LOOP_AND_OUTPUT, beside=FINER_SWEEP),
                conserving("sinenet", (0,), "SineNet", law, LOOP_AND_OUTPUT, beside=FINER_SWEEP),
            ),
            (32, 48, 64),
            options=(),
        )
        for problem, law in (
            ("compressible_2d", "mass_momentum_energy"),
            ("shallow_water_2d", "volume_and_momentum"),
        )
    ),
)


# Networks that benchmarks/gpme.py and benchmarks/calibration.py evaluate, with the seeds that they are trained with.
ELSEWHERE = (
    ("gpme", "anp_stefan_small", (0,)),
    ("gpme", "anp_pme_small", (0,)),
    *(("ns2d_decaying", f"fno_{source}_small", (0,)) for source in ("gaussian", "quantile", "diverse", "dropout")),
)


def commands() -> Iterator[tuple[Path | None, list[str]]]:
    """(file that shows that a step is done, its command); one that finds out itself has no file."""
    for problem in dict.fromkeys(task.problem for task in TASKS):
        yield None, ["generate", problem, "--out", f"runs/data/{problem}"]
    for problem in CFDBENCH:
        layout = ["--format", "cfdbench", "--problem", problem, "--out", "runs/data/cfdbench_tree"]
        yield None, ["datasets", "export", f"runs/data/cfdbench_{problem}", *layout]
    for problem, config, seeds in ELSEWHERE:
        for seed in seeds:
            yield from _train(problem, config, seed)
    for task in TASKS:
        for trained in task.trained:
            for seed in trained.seeds:
                yield from _train_and_evaluate(task, trained, seed)
        for name, choice in _baselines(task):
            out = REPORTS / task.name / name
            yield out / "report.json", ["evaluate", *choice, *_evaluation(task, out), *task.options]


def _train(problem: str, config: str, seed: int, start_from: str | None = None) -> Iterator[tuple[Path, list[str]]]:
    name = f"{config}_seed{seed}"
    folder = RUNS / problem / name
    logger = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "", "version": ""}}
    last = folder / "checkpoints" / "last.ckpt"
    slim = RUNS / problem / f"{name}.ckpt"
    fit = [
        "fit",
        *_configuration(problem, config),
        "--seed_everything",
        str(seed),
        "--trainer.logger",
        json.dumps([logger]),
    ]
    if start_from is not None:
        fit += ["--model.start_from", str(RUNS / problem / f"{start_from}_seed{seed}.ckpt")]
    finished = slim if slim.exists() else folder / "finished"
    yield finished, [*fit, "--ckpt_path", str(last)] if last.exists() else fit
    yield slim, ["slim", str(last), str(slim)]


def _configuration(problem: str, config: str) -> list[str]:
    other = Path(f"benchmarks/problems/{problem}.yaml")
    return ["-c", f"cfdbench_cavity/{config}", "-c", str(other)] if other.exists() else ["-c", f"{problem}/{config}"]


def _train_and_evaluate(task: Task, trained: Trained, seed: int) -> Iterator[tuple[Path, list[str]]]:
    problem, name = task.problem, f"{trained.config}_seed{seed}"
    yield from _train(problem, trained.config, seed, trained.start_from)
    slim = RUNS / problem / f"{name}.ckpt"
    of_model = ["--checkpoint", str(slim)]
    out = REPORTS / task.name / name
    options = [*_evaluation(task, out), *task.options, *trained.options]
    yield out / "report.json", ["evaluate", *of_model, *options]
    for way in trained.ways:
        if seed in way.seeds:
            out = REPORTS / task.name / f"{trained.config}_{way.name}_seed{seed}"
            more = task.options if way.verb == "evaluate" else ()
            yield out / "report.json", [way.verb, *of_model, *way.options, *_evaluation(task, out), *more]


def _baselines(task: Task) -> Iterator[tuple[str, list[str]]]:
    yield "persistence", ["--stepper", "pdesurrogate.steppers.persistence.Persistence"]
    for stepper, name in task.steppers:
        yield stepper, ["--stepper", f"benchmarks/steppers/{task.problem}/{stepper}.yaml", "--name", name]
    for resolution in task.solvers:
        yield f"solver_{resolution}", ["--coarse-solver", str(resolution)]


def _evaluation(task: Task, out: Path) -> list[str]:
    adapter = Path(f"benchmarks/data/{task.problem}.yaml")
    data = str(adapter) if adapter.exists() else f"runs/data/{task.problem}"
    return ["--data", data, *task.window, "--out", str(out), "--no-figures"]


def _slim(source: str, target: str) -> None:
    """Weights, specification and training record of a checkpoint, without the optimizer's state; kept if small."""
    from pdesurrogate.steppers.surrogate import CHECKPOINT_KEY, Surrogate, load_checkpoint
    from pdesurrogate.training.case_regression import holds_case_network, save_case_network
    from pdesurrogate.training.regression import load_neural_process, save_neural_process

    stored = load_checkpoint(source)
    if "metadata" in stored[CHECKPOINT_KEY]:
        slim = Surrogate.from_checkpoint(source).save(target, training=stored["training"])
    elif holds_case_network(source):
        slim = save_case_network(source, target)
    else:
        slim = save_neural_process(load_neural_process(source), target, training=stored["training"])
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
        if done is not None and done.exists():
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
        if command[0] == "fit" and done is not None:  # last.ckpt is there from the first epoch on
            done.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
