"""``pdesurrogate fit | validate | test | predict``: training verbs, by LightningCLI."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from pdesurrogate.cli.terminal import quiet_libraries
from pdesurrogate.data.catalog import config_path
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.steppers.surrogate import load_checkpoint
from pdesurrogate.training.callbacks import PredictionArchive, ReproducibleSteps
from pdesurrogate.training.forecast import ForecastModule


class ForecastCLI(LightningCLI):
    """Our module and our data, joined: what a network must know of the data is linked, not typed."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links."""
        parser.link_arguments("data.metadata", "model.metadata", apply_on="instantiate")
        parser.link_arguments("data.history_frames", "model.history_frames", apply_on="parse")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_data_seed, apply_on="parse")
        network = "model.network.init_args"
        parser.link_arguments("data.channels", f"{network}.channels", apply_on="instantiate")
        parser.link_arguments("data.history_frames", f"{network}.history_frames", apply_on="parse")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Refuse a bad checkpoint here, with a cure; Lightning opens it next."""
        super().parse_arguments(parser, args)
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is not None and path not in _KEYWORDS:
            load_checkpoint(path)

    def before_instantiate_classes(self) -> None:
        """Checkpoints are never unpickled, wherever they come from."""
        chosen = self.config[self.subcommand]
        chosen["weights_only"] = True
        if self.subcommand == "predict":
            chosen["return_predictions"] = False  # they go into an archive


# What Lightning takes for a path of its own choice.
_KEYWORDS = ("best", "last", "hpc", "registry")


def _data_seed(seed_everything: bool | int) -> int:
    """One seed for network and order of batches; without a fixed one, any."""
    return seed_everything if not isinstance(seed_everything, bool) else 0


def kept_checkpoints() -> list[ModelCheckpoint]:
    """``best.ckpt`` by validation rollout error and ``last.ckpt`` of every epoch, in ``checkpoints/`` of the logs.

    Two callbacks, since the ``save_last`` of one writes only when there is a new best: an interrupted run would go on
    from there.
    """
    best = ModelCheckpoint(monitor="val/relative_l2", filename="best", auto_insert_metric_name=False, save_top_k=1)
    last = ModelCheckpoint(filename="last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True)
    return [best, last]


def _with_config_files(argv: list[str]) -> list[str]:
    """Names of shipped configurations, ``-c ns2d_decaying/fno``, replaced by their files."""

    def file_of(option: str, value: str) -> str:
        if option not in ("-c", "--config") or Path(value).suffix or Path(value).exists():
            return value
        return str(config_path(value))

    return [file_of(before, value) for before, value in zip(["", *argv], argv, strict=False)]


def main(argv: list[str]) -> int:
    """Run the verb that ``sys.argv`` holds; the exit status."""
    quiet_libraries()
    loggers = ["CSVLogger"] + ["TensorBoardLogger"] * (importlib.util.find_spec("tensorboard") is not None)
    # Processes that DDP relaunches read sys.argv, so it is set rather than passed.
    sys.argv = [sys.argv[0], *_with_config_files(argv)]
    try:
        ForecastCLI(
            ForecastModule,
            ForecastData,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "callbacks": [*kept_checkpoints(), ReproducibleSteps(), PredictionArchive()],
                "logger": [
                    {
                        "class_path": f"lightning.pytorch.loggers.{name}",
                        "init_args": {"save_dir": "runs", "name": "training"},
                    }
                    for name in loggers
                ],
                "use_distributed_sampler": False,
            },
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={verb: {"exit_on_error": False} for verb in ("fit", "validate", "test", "predict")}
            | {"prog": "pdesurrogate", "exit_on_error": False},
        )
    except ArgumentError as error:
        cure = f"`pdesurrogate {argv[0]} --help` lists the options; `-c ns2d_decaying/fno` is a whole configuration"
        raise ValueError(f"{' '.join(str(error).split())}. {cure}.") from error
    return 0
