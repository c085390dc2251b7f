"""``pdesurrogate fit | validate | test | predict``: training verbs, by LightningCLI."""

from __future__ import annotations

import importlib.util
import itertools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentError
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from pdesurrogate.cli.terminal import quiet_libraries
from pdesurrogate.data.catalog import config_path
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.frame_data import FrameData
from pdesurrogate.data.point_data import PointData
from pdesurrogate.steppers.surrogate import load_checkpoint
from pdesurrogate.training.callbacks import PredictionArchive, ReproducibleSteps
from pdesurrogate.training.case_regression import CaseRegressionModule, load_case_network
from pdesurrogate.training.forecast import ForecastModule
from pdesurrogate.training.regression import RegressionModule, load_neural_process


class SafeCLI(LightningCLI):
    """One seed for model and data; checkpoints that are not ours are refused before they are opened."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the seed."""
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_data_seed, apply_on="parse")

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


class ForecastCLI(SafeCLI):
    """Our module and our data, joined: what a network must know of the data is linked, not typed."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links."""
        super().add_arguments_to_parser(parser)
        parser.link_arguments("data.metadata", "model.metadata", apply_on="instantiate")
        parser.link_arguments("data.history_frames", "model.history_frames", apply_on="parse")
        network = "model.network.init_args"
        parser.link_arguments("data.channels", f"{network}.channels", apply_on="instantiate")
        parser.link_arguments("data.history_frames", f"{network}.history_frames", apply_on="parse")


# What Lightning takes for a path of its own choice.
_KEYWORDS = ("best", "last", "hpc", "registry")

# Behind them stands a configuration.
_CONFIG = ("-c", "--config")


def _data_seed(seed_everything: bool | int) -> int:
    """One seed for network and order of batches; without a fixed one, any."""
    return seed_everything if not isinstance(seed_everything, bool) else 0


def kept_checkpoints(monitor: str = "val/relative_l2") -> list[ModelCheckpoint]:
    """``best.ckpt`` by validation rollout error and ``last.ckpt`` of every epoch, in ``checkpoints/`` of the logs.

    Best is smallest; ``monitor`` says of what, where it is another logged value.

    Two callbacks, since the ``save_last`` of one writes only when there is a new best: an interrupted run would go on
    from there.
    """
    best = ModelCheckpoint(monitor=monitor, filename="best", auto_insert_metric_name=False, save_top_k=1)
    last = ModelCheckpoint(filename="last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True)
    return [best, last]


def _with_config_files(argv: list[str]) -> list[str]:
    """Names of shipped configurations, ``-c ns2d_decaying/fno``, replaced by their files.

    An option and its value are two words in what is given back, also where they were one: ``--config=NAME``.
    """

    def file_of(option: str, value: str) -> str:
        if option not in _CONFIG or Path(value).suffix or Path(value).exists():
            return value
        return str(config_path(value))

    words = [word for given in argv for word in _option_and_value(given)]
    return [file_of(before, value) for before, value in zip(["", *words], words, strict=False)]


def _option_and_value(word: str) -> list[str]:
    """``--config=NAME``, ``-c=NAME`` and ``-cNAME`` as two words; any other stays one."""
    joined = re.fullmatch(r"(--config(?==)|-c)=?(.+)", word)
    return [word] if joined is None else list(joined.groups())


def _model_class(argv: list[str]) -> str | None:
    """``model.class_path`` of the configuration files, which models of points have; the last one counts.

    Args:
        argv: as `_with_config_files` gives it.
    """
    import yaml

    paths = [Path(value) for before, value in itertools.pairwise(argv) if before in _CONFIG]
    found = None
    for path in paths:
        try:
            model = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
            found = model.get("class_path", found)
        except (yaml.YAMLError, OSError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
            continue  # the parser says what is wrong with a file, if anything is
    return found


class _OfPoints(NamedTuple):
    """A kind of model of points.

    Attributes:
        module: that trains it.
        data: that it is trained on.
        load: gives the network of its checkpoint.
    """

    module: type[LightningModule]
    data: type[LightningDataModule]
    load: Callable[..., Any]


# By class path, as configurations name them.
_MODELS_OF_POINTS = {
    f"{kind.module.__module__}.{kind.module.__qualname__}": kind
    for kind in (
        _OfPoints(RegressionModule, PointData, load_neural_process),
        _OfPoints(CaseRegressionModule, FrameData, load_case_network),
    )
}


def _run_points(model: str, verb: str, common: dict[str, Any]) -> None:
    if model not in _MODELS_OF_POINTS:
        raise ValueError(
            f"Expected {' or '.join(_MODELS_OF_POINTS)} as the class path of a model but got {model!r}; a model of "
            "fields has its arguments directly below `model`, without a class path."
        )
    kind = _MODELS_OF_POINTS[model]
    if verb == "predict":
        raise ValueError(
            "Expected a model of fields for `predict` but the configuration is for one of points; "
            f"load its checkpoint with `{kind.load.__name__}` and ask it where you want."
        )
    common["trainer_defaults"]["callbacks"] = kept_checkpoints("val/loss")
    SafeCLI(kind.module, kind.data, subclass_mode_model=True, **common)


def main(argv: list[str]) -> int:
    """Run the verb that ``sys.argv`` holds; the exit status."""
    quiet_libraries()
    loggers = ["CSVLogger"] + ["TensorBoardLogger"] * (importlib.util.find_spec("tensorboard") is not None)
    # Processes that DDP relaunches read sys.argv, so it is set rather than passed.
    sys.argv = [sys.argv[0], *_with_config_files(argv)]
    common: dict[str, Any] = {
        "save_config_kwargs": {"overwrite": True},
        "trainer_defaults": {
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
        "seed_everything_default": 0,
        "auto_configure_optimizers": False,
        "parser_kwargs": {verb: {"exit_on_error": False} for verb in ("fit", "validate", "test", "predict")}
        | {"prog": "pdesurrogate", "exit_on_error": False},
    }
    try:
        model = _model_class(sys.argv[1:])
        if model is None:
            ForecastCLI(ForecastModule, ForecastData, **common)
        else:
            _run_points(model, argv[0], common)
    except ArgumentError as error:
        cure = f"`pdesurrogate {argv[0]} --help` lists the options; `-c ns2d_decaying/fno` is a whole configuration"
        raise ValueError(f"{' '.join(str(error).split())}. {cure}.") from error
    return 0
