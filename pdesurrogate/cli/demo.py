"""``pdesurrogate demo``: the whole chain on a small problem, with something to look at in the end."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pdesurrogate.evaluation.report import Report


@dataclass(frozen=True)
class Sizes:
    """What a tier of the demo computes."""

    recipe: str
    modes: tuple[int, int]
    width: int
    epochs: int
    frames: int
    solvers: tuple[int, ...]


TIERS = {
    "smoke": Sizes("ns2d_smoke", modes=(12, 12), width=8, epochs=2, frames=4, solvers=(16,)),
    "small": Sizes("ns2d_demo", modes=(40, 40), width=24, epochs=20, frames=14, solvers=(32, 48, 64)),
}


def build_parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    parser = argparse.ArgumentParser(
        prog="pdesurrogate demo",
        description="Simulate two-dimensional turbulence, train an FNO on it, roll it out, measure it and draw it. "
        "Run again, it goes on where it stopped.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--tier", choices=TIERS, default="small", help="small: minutes (default); smoke: seconds, figures mean nothing"
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, ...; default: a GPU if there is one")
    parser.add_argument("--seed", type=int, default=0, help="of the network and of the order of batches")
    return parser


def main(argv: list[str]) -> int:
    """Run the verb; the exit status."""
    arguments = build_parser().parse_args(argv)
    begun = time.perf_counter()

    from pdesurrogate.cli.evaluate import cost_lines, score_lines
    from pdesurrogate.cli.leaderboard import main as compare
    from pdesurrogate.cli.terminal import choose_device

    out: Path = arguments.out
    device = choose_device(arguments.device)
    sizes = TIERS[arguments.tier]
    print(f"1/4  simulate: decaying turbulence, recipe {sizes.recipe}, on {device}", flush=True)
    _simulate(sizes, out / "data", device)
    print("2/4  train: a Fourier neural operator that steps the vorticity forward", flush=True)
    checkpoint = _train(sizes, out, device, arguments.seed)
    print("3/4  roll out and measure: the FNO, persistence, and the solver itself on coarser grids", flush=True)
    reports = _measure(sizes, out, checkpoint, device)
    print("4/4  compare", flush=True)
    status = compare(["page", str(out), "--out", str(out), "--title", "pdesurrogate demo"])
    print("\n".join(["", score_lines(reports), "", *cost_lines(reports[0]), ""]))
    print(_closing_lines(out, time.perf_counter() - begun))
    return status


def _simulate(sizes: Sizes, directory: Path, device: str) -> None:
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.data.catalog import recipe_path
    from pdesurrogate.simulators.recipe import generate, load_recipe

    recipe, plain = load_recipe(recipe_path(sizes.recipe))
    with progress_bar("simulating", unit="frames") as progress:
        generate(recipe, plain, directory, device=device, progress=progress)


def _train(sizes: Sizes, out: Path, device: str, seed: int) -> Path:
    """The checkpoint of the trained network: made now, continued, or found finished."""
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

    from pdesurrogate.cli.terminal import quiet_libraries
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.data.datamodule import ForecastData
    from pdesurrogate.models.fno import FNO
    from pdesurrogate.training.augmentation import SquareSymmetries
    from pdesurrogate.training.callbacks import ReproducibleSteps
    from pdesurrogate.training.forecast import ForecastModule
    from pdesurrogate.training.schedules import WarmupCosine

    final = out / "fno.ckpt"
    if final.exists():
        print(f"     found {final}; delete it to train again")
        return final
    quiet_libraries()
    lightning.seed_everything(seed, verbose=False)
    data = ForecastData(Archive(out / "data"), batch_size=16, rollout_frames=4, seed=seed)
    network = FNO(channels=data.channels, modes=sizes.modes, width=sizes.width)
    module = ForecastModule(
        network,
        data.metadata,
        learning_rate=2e-3,
        schedule=WarmupCosine(0.1),
        target="increment",
        augmentation=SquareSymmetries(),
    )
    keep = ModelCheckpoint(
        out / "training", filename="unused", save_top_k=0, save_last=True, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        max_epochs=sizes.epochs,
        accelerator="cpu" if device == "cpu" else device.partition(":")[0],
        devices=[int(device.partition(":")[2] or 0)] if device != "cpu" else 1,
        logger=CSVLogger(out / "training", name="", version=""),
        callbacks=[keep, ReproducibleSteps()],
        use_distributed_sampler=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    last = out / "training" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    trainer.save_checkpoint(out / "fno.ckpt.part", weights_only=True)
    (out / "fno.ckpt.part").replace(final)
    return final


def _measure(sizes: Sizes, out: Path, checkpoint: Path, device: str) -> list[Report]:
    """Reports of the FNO, in ``out`` itself, and of the baselines, below it; the figures."""
    from pdesurrogate.cli.evaluate import draw, surrogate_from, with_solver_sweep
    from pdesurrogate.cli.terminal import progress_bar
    from pdesurrogate.data.archive import Archive
    from pdesurrogate.evaluation.baselines import coarse_solver, persistence
    from pdesurrogate.evaluation.evaluator import Evaluator

    archive = Archive(out / "data")
    trajectories, tuning = archive.trajectories("test"), archive.trajectories("val")
    evaluator = Evaluator(device=device)
    models = [surrogate_from(checkpoint), persistence()]
    models += [coarse_solver(tuning, resolution, device) for resolution in sizes.solvers]
    reports = []
    with progress_bar("measuring", unit="models") as progress:
        for done, (stepper, card) in enumerate(models, start=1):
            report = evaluator(
                stepper, trajectories, sizes.frames, model=card, command="pdesurrogate demo", start_frame=1
            )
            if card.kind == "surrogate":
                report = with_solver_sweep(report, evaluator, stepper, trajectories, tuning, sizes.solvers)
            report.save(out if card.kind == "surrogate" else out / "baselines" / card.name.replace(" ", "_"))
            reports.append(report)
            progress(done, len(models))
    shown = {models[0][1].name: models[0][0], models[2][1].name: models[2][0]}
    draw(reports[0], evaluator, shown, trajectories, out, others=reports[1:])
    return reports


def _closing_lines(out: Path, seconds: float) -> str:
    return f"""\
Done in {seconds / 60:.1f} minutes. Look at snapshots.png, errors.png, spectra.png, coherence.png, rollout.gif and
leaderboard.html in {out}.
The solver rows are the same equation on coarser grids, at their largest stable time steps: weigh the error of a row
against its time for a frame.

What to try next ({out}/report.nc and {out}/data/test.nc open in xarray):
  pdesurrogate evaluate --checkpoint {out}/fno.ckpt --data {out}/data --out runs/again
  pdesurrogate generate ns2d_decaying --out runs/data/ns2d_decaying
  pdesurrogate fit -c ns2d_decaying/fno
"""
