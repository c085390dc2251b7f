"""Recomputes rows of CFDBench's tables on the published tree, by its authors' protocol, beside the paper's figures.

    python benchmarks/published_cfdbench.py --tree data/cfdbench --problem cavity --subsets prop
    python benchmarks/published_cfdbench.py --tree data/cfdbench --problem tube --models FNO U-Net FFN --device cuda
    python benchmarks/published_cfdbench.py --tree data/cfdbench --problem cavity --models FNO --checkpoint best.ckpt

Data are what the authors' loaders give: their splits, rows of boundary values, masks and constants. Networks are those
of ``benchmarks/configs/cfdbench`` with ``compat="reference"``, and so are optimizer, batch, loss and epochs. Tested are
the weights with the least error on the authors' dev split, looked at each tenth epoch; without such a split, the last.
A training that is interrupted goes on from its last epoch, with the same options. Networks and scores lie in ``--out``.

Not theirs: frames that do not fill a batch are left out of an epoch, the order of batches and first weights are other
draws, and networks of the first velocity keep the second one of the first frame in a rollout.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint

from pdesurrogate.cli.terminal import quiet_libraries
from pdesurrogate.data.adapters.cfdbench.published import PUBLISHED, SUBSETS
from pdesurrogate.data.adapters.cfdbench.published_scores import published_last_step, published_scores
from pdesurrogate.data.adapters.cfdbench.reference_adapter import ReferenceCfdBench
from pdesurrogate.data.catalog import config_path
from pdesurrogate.metrics.cfdbench import Scores
from pdesurrogate.models.cfdbench import identity_ranges
from pdesurrogate.models.specification import build
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.surrogate import Surrogate
from pdesurrogate.training.callbacks import ReproducibleSteps
from pdesurrogate.training.case_regression import CaseRegressionModule, load_case_network
from pdesurrogate.training.cfdbench_protocol import (
    ReferenceForecastModule,
    ReferenceFrameData,
    ReferencePairData,
    Scored,
    WholeFrame,
    multi_step,
    pair_scores,
    single_frame_scores,
)
from pdesurrogate.training.losses import Loss
from pdesurrogate.training.schedules import Schedule

IDENTITY = "Identity"
SHOWN_STEPS = (0, 1, 4, 9, 19)
Alignments = Literal["frames", "reference"]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network of the paper.

    Attributes:
        config: below ``benchmarks/configs/cfdbench``.
        scored: what the authors score of a step; ``None`` where there are no steps.
        batch_size: in tests.
        starts_with_input: see `multi_step`.
    """

    config: str
    scored: Scored | None
    batch_size: int = 16
    starts_with_input: bool = False


MODELS = {
    "FFN": Model("ffn", None),
    "DeepONet": Model("deeponet", None),
    "Auto-FFN": Model("auto_ffn", "first", batch_size=1),
    "Auto-DeepONet": Model("auto_deeponet", "first"),
    "Auto-EDeepONet": Model("auto_edeeponet", "first"),
    "Auto-DeepONetCNN": Model("auto_deeponetcnn", "first"),
    "ResNet": Model("resnet", "both", starts_with_input=True),
    "U-Net": Model("unet", "both"),
    "FNO": Model("fno", "both"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Scores of a network on the test cases: single steps or frames, and those of a rollout by step."""

    model: str
    single: Scores
    rollout: Scores


def network_of(config: dict[str, Any], adapter: ReferenceCfdBench, changes: dict[str, Any]) -> Any:
    """The network of a configuration as the authors build it for these data."""
    specification = config["model"].get("init_args", config["model"])["network"]
    arguments = dict(specification["init_args"])
    arguments["parameter_ranges"] = identity_ranges(len(adapter.metadata.parameters))
    if adapter.task == "frames":
        arguments |= {"point_ranges": identity_ranges(3), "field_ranges": identity_ranges(1)}
    module, _, name = specification["class_path"].rpartition(".")
    known = inspect.signature(getattr(__import__(module, fromlist=[name]), name)).parameters
    further = {"compat": "reference", "channels": 2, "grid": list(adapter.cells)}
    arguments |= {key: value for key, value in further.items() if key in known}
    return build({"class_path": specification["class_path"], "init_args": {**arguments, **changes}})


def of_kind(kind: Any, described: dict[str, Any] | None) -> Any:
    """What class path and arguments describe."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--described", type=kind)
    return parser.instantiate(parser.parse_object({"described": described})).described


def train(name: str, adapter: ReferenceCfdBench, out: Path, arguments: argparse.Namespace) -> Path:
    """Train a network, or go on; the checkpoint to test.

    Raises:
        ValueError: if the training in ``out`` was begun with other data or options.
    """
    config = yaml.safe_load(config_path(f"cfdbench/{MODELS[name].config}").read_text(encoding="utf-8"))
    epochs = arguments.epochs or config["trainer"]["max_epochs"]
    model = config["model"].get("init_args", config["model"])
    schedule = of_kind(Schedule, _with_epochs(model["schedule"], epochs))
    batch = arguments.batch_size or config["data"]["batch_size"]
    _require_begun_with(
        out, {**adapter.metadata.attributes, "epochs": epochs, "batch_size": batch, "network": arguments.network}
    )
    lightning.seed_everything(arguments.seed, verbose=False)
    network = network_of(config, adapter, arguments.network)
    callbacks: list[lightning.Callback] = [
        ModelCheckpoint(out, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    ]
    module: lightning.LightningModule
    data: lightning.LightningDataModule
    if adapter.task == "frames":
        data = ReferenceFrameData(adapter, batch, arguments.seed)
        module = CaseRegressionModule(
            network, model["channels"], model["points"], model["loss"], model["learning_rate"], schedule
        )
    else:
        data = ReferencePairData(adapter, batch, arguments.seed)
        loss = of_kind(Loss, model["loss"])
        module = ReferenceForecastModule(
            network,
            adapter.metadata,
            loss=loss if MODELS[name].scored == "both" else WholeFrame(loss),
            learning_rate=model["learning_rate"],
            weight_decay=0.0,
            schedule=schedule,
        )
        callbacks.append(ReproducibleSteps())
    validated = "val" in adapter.splits
    every = min(10, epochs)
    if validated:
        callbacks.append(ModelCheckpoint(out, "best", monitor="val/loss", enable_version_counter=False))
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator=arguments.device,
        devices=1,
        logger=False,
        callbacks=callbacks,
        check_val_every_n_epoch=every,
        num_sanity_val_steps=0,
        limit_val_batches=None if validated else 0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    last = out / "last.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        trainer.fit(module, data, ckpt_path=last if last.exists() else None, weights_only=True)
    return out / ("best.ckpt" if validated else "last.ckpt")


def _require_begun_with(out: Path, options: dict[str, Any]) -> None:
    """Record the options of a training beside its checkpoints, and refuse to go on with others."""
    record = out / "options.json"
    options = json.loads(json.dumps(options))
    if record.exists():
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = [name for name in options if before.get(name) != options[name]]
        if changed:
            raise ValueError(
                f"Expected the data and options with which the network in {out} was begun but {', '.join(changed)} "
                "differ; give another --out, or remove that folder."
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(options, indent=1) + "\n", encoding="utf-8")


def _with_epochs(schedule: dict[str, Any], epochs: int) -> dict[str, Any]:
    return {**schedule, "init_args": {**schedule["init_args"], "epochs": epochs}}


def measure(name: str, checkpoint: Path | None, adapter: ReferenceCfdBench, alignment: Alignments, stride: int) -> Row:
    """Single steps or frames, and rollouts, of the test cases; the identity without a checkpoint.

    Args:
        name: of the model.
        checkpoint: with its weights.
        adapter: of its task.
        alignment: see `multi_step`.
        stride: stored frames in a step of a rollout, also of networks that take none.
    """
    cases, trajectories = adapter.stored("test"), adapter.trajectories("test")
    if checkpoint is not None and MODELS[name].scored is None:
        network = load_case_network(checkpoint)
        return Row(
            name,
            single_frame_scores(network, trajectories),
            multi_step(network, cases, stride, alignment=alignment),
        )
    model = Model("", "first") if checkpoint is None else MODELS[name]
    assert model.scored is not None
    stepper = Persistence() if checkpoint is None else Surrogate.from_checkpoint(checkpoint).eval()
    return Row(
        name,
        pair_scores(stepper, trajectories, model.scored, model.batch_size),
        multi_step(stepper, cases, stride, alignment=alignment, starts_with_input=model.starts_with_input),
    )


def tables(rows: Sequence[Row], problem: str, subsets: Sequence[str], alignment: Alignments) -> str:
    """Two Markdown tables: single steps or frames beside the paper's, and rollouts by step."""
    lines = [
        f"## {problem}, {', '.join(subsets)}: means over the test frames",
        "",
        "| model | NMSE | MSE | MAE | paper: NMSE | MSE | MAE | where |",
        "| --- |" + " --- |" * 7,
    ]
    for row in rows:
        paper = published_scores(problem, subsets, row.model)
        ours = [float(value) for value in (row.single.nmse, row.single.mse, row.single.mae)]
        theirs = (None, None, None, None) if paper is None else paper
        lines.append("| " + " | ".join([row.model, *map(_cell, (*ours, *theirs[:3])), theirs[3] or "-"]) + " |")
    lines += [
        "",
        f"## The first velocity from rest on, by step, alignment {alignment!r}: NMSE, means over cases",
        "",
        "| model | " + " | ".join(f"step {step}" for step in SHOWN_STEPS) + " | paper: step 19, about |",
        "| --- |" + " --- |" * (len(SHOWN_STEPS) + 1),
    ]
    for row in rows:
        cells = [float(row.rollout.nmse[step]) for step in SHOWN_STEPS]
        lines.append(
            "| " + " | ".join([row.model, *map(_cell, (*cells, published_last_step(problem, row.model)))]) + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.7g}"


def _setting(text: str) -> tuple[str, Any]:
    """``name=value``, the value as YAML has it."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"Expected name=value but got {text!r}.")
    return name, yaml.safe_load(value)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, required=True, help="folder above the problems, or the problem's own")
    parser.add_argument("--problem", choices=sorted(PUBLISHED), required=True)
    parser.add_argument("--subsets", nargs="+", choices=SUBSETS, default=list(SUBSETS), help="default: all")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS), help="default: all")
    parser.add_argument("--checkpoint", type=Path, help="test this one of the single model that is named; no training")
    parser.add_argument("--version", choices=("old", "head"), default="old", help="of the authors' loaders")
    parser.add_argument("--delta-time", type=float, default=0.1, help="between input and label in seconds, as theirs")
    parser.add_argument(
        "--alignment",
        choices=("frames", "reference"),
        default="reference",
        help="what a step of a rollout is compared with: the frame that it predicts, or the one before it as in the "
        "authors' code; default: %(default)s",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/published_cfdbench"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="accelerator of the training; tests run on the CPU")
    parser.add_argument("--epochs", type=int, help="default: as published, 100")
    parser.add_argument("--batch-size", type=int, help="default: as published, 128")
    parser.add_argument(
        "--network", nargs="*", type=_setting, default=[], metavar="NAME=VALUE", help="other arguments of the networks"
    )
    arguments = parser.parse_args(argv)
    arguments.network = dict(arguments.network)
    arguments.subsets = [subset for subset in SUBSETS if subset in arguments.subsets]
    if arguments.checkpoint is not None and len(arguments.models) != 1:
        parser.error("Expected one of --models with --checkpoint: the network that it holds.")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, test, print; the exit status."""
    arguments = parsed(argv)
    data: dict[str, Any] = {"subsets": arguments.subsets, "version": arguments.version}
    pairs = ReferenceCfdBench(arguments.tree, arguments.problem, "pairs", delta_time=arguments.delta_time, **data)
    frames = ReferenceCfdBench(arguments.tree, arguments.problem, "frames", **data)
    rows = [measure(IDENTITY, None, pairs, arguments.alignment, pairs.stride)]
    folder = arguments.out / f"{arguments.problem}_{'_'.join(arguments.subsets)}_seed{arguments.seed}"
    for name in arguments.models:
        adapter = frames if MODELS[name].scored is None else pairs
        own = folder / MODELS[name].config
        checkpoint = arguments.checkpoint or train(name, adapter, own, arguments)
        rows.append(measure(name, checkpoint, adapter, arguments.alignment, pairs.stride))
        if arguments.checkpoint is None:
            (own / "scores.json").write_text(json.dumps(_plain(rows[-1]), indent=1) + "\n", encoding="utf-8")
    print(tables(rows, arguments.problem, arguments.subsets, arguments.alignment))
    return 0


def _plain(row: Row) -> dict[str, Any]:
    return {
        part: {name: values.tolist() for name, values in getattr(row, part)._asdict().items()}
        for part in ("single", "rollout")
    }


if __name__ == "__main__":
    quiet_libraries()
    sys.exit(main())
