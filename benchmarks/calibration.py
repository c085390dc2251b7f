"""How honest stated uncertainties are: one step on decaying turbulence, from those sources whose networks are there.

    python benchmarks/calibration.py  # benchmarks/calibration.md and reports/calibration/ns2d_decaying.json

Windows spread over the test split, one step ahead. The ensemble and the last layer are of the networks of
``benchmarks/small.py``; the last layer's posterior is fitted on the validation split. The other sources are trained
from configurations of their own, fewer epochs and one seed, so that their errors are not to be ranked against those of
the ensemble::

    pdesurrogate fit -c ns2d_decaying/fno_gaussian_small

and so on for ``quantile``, ``diverse`` and ``dropout``; ``checkpoints/last.ckpt`` in the folder of each one's logs is
then copied to ``runs/small/ns2d_decaying/fno_gaussian_small_seed0.ckpt``. Those that are missing are named and left
out. Beside each source stands what `ProbConservPredicted` makes of it by the mean vorticity.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from pdesurrogate.data.archive import Archive
from pdesurrogate.data.windows import Windows
from pdesurrogate.fields.batch import Batch
from pdesurrogate.metrics.uncertainty import (
    coverage_gaussian,
    crps_gaussian,
    log_likelihood_gaussian,
    spread_skill_ratio,
)
from pdesurrogate.physics.conservation.laws import KeptMeans
from pdesurrogate.steppers.base import ProbabilisticStepper
from pdesurrogate.steppers.ensemble import Ensemble
from pdesurrogate.steppers.laplace import LastLayerLaplace
from pdesurrogate.steppers.probconserv import ProbConservPredicted
from pdesurrogate.steppers.surrogate import ProbabilisticSurrogate, Surrogate
from pdesurrogate.steppers.uncertain import EnsembleMoments, MonteCarloDropout

HERE = Path(__file__).parent
RUNS = Path("runs/small/ns2d_decaying")
LEVELS = (0.5, 0.8, 0.95)
# Sources that need a training of their own, and its configuration.
TRAINED = {
    "Gaussian head": "fno_gaussian_small",
    "quantile head": "fno_quantile_small",
    "ten diverse heads": "fno_diverse_small",
    "dropout, ten members": "fno_dropout_small",
}
TITLES = {
    "rmse": "rmse",
    "crps": "CRPS",
    "log_likelihood": "log likelihood",
    "spread_skill": "spread over skill",
    "coverage_50": "in 50 %",
    "coverage_80": "in 80 %",
    "coverage_95": "in 95 %",
    "mean_drift": "absolute mean, median",
}


def batches(archive: Archive, split: str, most: int) -> Iterator[Batch]:
    """Windows of one step, spread over the split."""
    windows = Windows(archive.trajectories(split), 1, 1)
    chosen = list(range(0, len(windows), max(1, len(windows) // (16 * most))))[: 16 * most]
    for first in range(0, len(chosen), 16):
        yield windows.__getitems__(chosen[first : first + 16])


def sources(archive: Archive) -> Iterator[tuple[str, ProbabilisticStepper]]:
    """Each source by name, as far as its checkpoint is there; prints which are not."""
    networks = [Surrogate.from_checkpoint(RUNS / f"fno_seed{seed}.ckpt") for seed in range(3)]
    yield "deep ensemble of three", EnsembleMoments(Ensemble(networks), floor=0.1)
    yield "last-layer Laplace", LastLayerLaplace(networks[0]).fit(batches(archive, "val", 4))
    for name, config in TRAINED.items():
        checkpoint = RUNS / f"{config}_seed0.ckpt"
        if not checkpoint.exists():
            print(f"{name} left out: {checkpoint} is missing; train benchmarks/configs/ns2d_decaying/{config}.yaml")
            continue
        found = Surrogate.from_checkpoint(checkpoint)
        if isinstance(found, ProbabilisticSurrogate):
            yield name, found
        else:
            yield name, EnsembleMoments(MonteCarloDropout(found, members=10), floor=0.1)


def measured(stepper: ProbabilisticStepper, archive: Archive, most: int) -> dict[str, float]:
    """Means over windows and space."""
    sums: dict[str, list[torch.Tensor]] = {name: [] for name in ("square", "variance", "crps", "likelihood", "drift")}
    inside: list[torch.Tensor] = []
    with torch.no_grad():
        for batch in batches(archive, "test", most):
            mean, variance = stepper.predict(batch.history, batch.context)
            sums["square"].append((mean - batch.target).square().mean())
            sums["variance"].append(variance.mean())
            sums["crps"].append(crps_gaussian(mean, variance, batch.target).mean())
            sums["likelihood"].append(log_likelihood_gaussian(mean, variance, batch.target).mean())
            sums["drift"].append(mean.double().mean((-2, -1)).abs().median())
            inside.append(coverage_gaussian(mean, variance, batch.target, LEVELS).flatten(1).mean(1))
    means = {name: torch.stack(values).mean() for name, values in sums.items()}
    coverage = torch.stack(inside).mean(0).tolist()
    return {
        "rmse": float(means["square"].sqrt()),
        "crps": float(means["crps"]),
        "log_likelihood": float(means["likelihood"]),
        "spread_skill": float(spread_skill_ratio(means["variance"], means["square"])),
        **{f"coverage_{round(100 * level)}": value for level, value in zip(LEVELS, coverage, strict=True)},
        "mean_drift": float(means["drift"]),
    }


def main() -> int:
    """Measure and write; the exit status."""
    torch.set_num_threads(1)
    archive, most = Archive("runs/data/ns2d_decaying"), 6
    found = {}
    for name, stepper in sources(archive):
        print(name, flush=True)
        found[name] = measured(stepper, archive, most)
        found[f"{name} + ProbConserv"] = measured(ProbConservPredicted(stepper, KeptMeans()), archive, most)
    report = HERE / "reports" / "calibration" / "ns2d_decaying.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps({"windows": 16 * most, "scores": found}, indent=1) + "\n")
    lines = [
        "# How honest stated uncertainties are",
        "",
        f"Made by `python benchmarks/calibration.py`: one step on `ns2d_decaying`, {16 * most} windows of the test "
        "split, one seed of each. An honest source has a spread over skill of one and covers as much as its levels "
        "say. Three members are too few for their correlations: the update follows them, and errs by more.",
        "",
        "| source | " + " | ".join(TITLES.values()) + " |",
        "| --- |" + " --- |" * len(TITLES),
    ]
    lines += [
        f"| {name} | " + " | ".join(f"{scores[key]:.3g}" for key in TITLES) + " |" for name, scores in found.items()
    ]
    text = "\n".join(lines) + "\n"
    (HERE / "calibration.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
