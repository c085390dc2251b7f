"""``pdesurrogate fit`` of a model of points: what the shipped configurations say, and what wrong ones get."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentError

from pdesurrogate.__main__ import main
from pdesurrogate.cli.train import SafeCLI, _model_class, _with_config_files
from pdesurrogate.data.catalog import configs_directory
from pdesurrogate.data.point_data import PointData
from pdesurrogate.models.specification import build
from pdesurrogate.steppers.surrogate import load_checkpoint
from pdesurrogate.training.regression import RegressionModule, load_neural_process

NAMES = sorted(path.relative_to(configs_directory()).as_posix() for path in configs_directory().glob("gpme/anp*.yaml"))

# LightningCLI warns of its own use of jsonargparse and of the empty callbacks' folders of a second run.
lightning_cli = pytest.mark.filterwarnings("ignore")

FIT = """
seed_everything: 4
model:
  class_path: pdesurrogate.training.regression.RegressionModule
  init_args:
    network:
      class_path: pdesurrogate.models.neural_process.AttentiveNeuralProcess
      init_args: {width: 8, heads: 2}
    learning_rate: 1.0e-3
    penalty:
      class_path: pdesurrogate.training.regression.EquationResidual
      init_args: {flux: pdesurrogate.training.regression.PorousMediumFlux, weight: 10.0}
data:
  train:
    class_path: pdesurrogate.simulators.gpme_samples.GpmeSamples
    init_args: {equation: pdesurrogate.physics.gpme.PorousMedium, functions: 8, times: 3, positions: 3}
  val:
    class_path: pdesurrogate.simulators.gpme_samples.GpmeSamples
    init_args: {equation: pdesurrogate.physics.gpme.PorousMedium, functions: 4, split: val, times: 3, positions: 3}
  batch_size: 4
trainer:
  max_epochs: 2
  gradient_clip_val: 100.0
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 1
  default_root_dir: ROOT
  logger:
    class_path: CSVLogger
    init_args: {save_dir: ROOT, name: "", version: ""}
"""


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    """The training verbs set ``sys.argv``, which LightningCLI reads."""
    monkeypatch.setattr(sys, "argv", ["pdesurrogate"])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> Path:
    """Folder with ``given.yaml`` and what ``fit`` left."""
    root = tmp_path_factory.mktemp("fit")
    (root / "given.yaml").write_text(FIT.replace("ROOT", str(root)))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", sys.argv)
        warnings.simplefilter("ignore")
        assert main(["fit", "-c", str(root / "given.yaml")]) == 0
    return root


class Read(SafeCLI):
    """Stops once a configuration is parsed: no data, no training."""

    def instantiate_classes(self):
        """Nothing."""

    def _run_subcommand(self, subcommand):
        """Nothing."""


def parsed(path, *options):
    cli = Read(
        RegressionModule,
        PointData,
        subclass_mode_model=True,
        args=["fit", "-c", str(path), *options],
        auto_configure_optimizers=False,
        parser_kwargs={"exit_on_error": False, "fit": {"exit_on_error": False}},
    )
    return cli.config.fit


def test_it_leaves_checkpoints_that_can_be_loaded_and_a_log(fitted):
    folder = fitted / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    network = load_neural_process(folder / "best.ckpt")
    assert (network.width, network.training) == (8, False)
    record = load_checkpoint(folder / "last.ckpt")["training"]
    assert (record["seed"], record["steps"], record["settings"]["gradient_clip"]) == (4, 4, 100.0)
    header = (fitted / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/penalty", "val/loss", "val/nll", "val/mse"} <= set(header)


@lightning_cli
def test_a_checkpoint_is_validated_and_training_goes_on(fitted, tmp_path, capsys):
    checkpoint = str(fitted / "checkpoints" / "last.ckpt")
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.logger", "false", "--ckpt_path", checkpoint]
    assert main(["validate", f"--config={fitted / 'given.yaml'}", *root]) == 0
    assert "val/nll" in capsys.readouterr().out
    assert main(["fit", "-c", str(fitted / "given.yaml"), *root, "--trainer.max_epochs", "3"]) == 0
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["training"]["epochs"] == 3


@lightning_cli
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate", "learning_rat", "learning_rat"),
        ("width: 8", "breadth: 8", "breadth"),
        ("batch_size: 4", "batch: 4", "batch"),
        ("training.regression.RegressionModule", "training.forecast.ForecastModule", "directly below `model`"),
        ("training.regression.RegressionModule", "training.regresion.RegressionModule", "regresion"),
        ("neural_process.AttentiveNeuralProcess", "fno.FNO", "FNO"),
        ("gpme.PorousMedium,", "gpme.PorousMedia,", "PorousMedia"),
    ],
)
def test_wrong_configurations_are_one_line_and_status_two(tmp_path, capsys, old, new, message):
    text = FIT.replace("ROOT", str(tmp_path))
    assert old in text
    (tmp_path / "wrong.yaml").write_text(text.replace(old, new, 1))
    assert main(["fit", "-c", str(tmp_path / "wrong.yaml")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "checkpoints").exists()


@lightning_cli
def test_what_is_for_models_of_fields_alone_is_refused(fitted, capsys):
    assert main(["predict", "-c", str(fitted / "given.yaml")]) == 2
    assert "a model of fields for `predict`" in capsys.readouterr().err


@lightning_cli
def test_a_checkpoint_of_another_network_is_refused(fitted, tmp_path, capsys):
    command = ["validate", "-c", str(fitted / "given.yaml"), "--trainer.logger", "false", "--ckpt_path"]
    assert main([*command, str(tmp_path / "gone.ckpt")]) == 2
    assert "does not exist" in capsys.readouterr().err
    checkpoint = str(fitted / "checkpoints" / "last.ckpt")
    wider = ["--model.init_args.network.init_args.width", "16"]
    assert main([*command, checkpoint, "--trainer.default_root_dir", str(tmp_path), *wider]) == 2
    assert "differ in init_args.width" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[1, 2]", "model: 3", "{", "model: {network: null}"])
def test_what_is_no_configuration_of_points_goes_the_old_way(tmp_path, capsys, text):
    (tmp_path / "odd.yaml").write_text(text)
    assert main(["fit", "-c", str(tmp_path / "odd.yaml")]) == 2
    assert "Expected" not in capsys.readouterr().err.split(":")[1]


# The shipped configurations.


def test_there_are_two_tiers_of_two_problems():
    tiers = ("", "_small")
    assert sorted(f"gpme/anp_{problem}{tier}.yaml" for problem in ("pme", "stefan") for tier in tiers) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_configuration_is_one_that_fit_reads(name):
    path = configs_directory() / name
    config = parsed(path)
    with torch.device("meta"):
        network = build(yaml.safe_load(path.read_text())["model"]["init_args"]["network"] | {"init_args": {}})
    assert sum(each.numel() for each in network.parameters()) == 989_826
    assert config.model.init_args.network.class_path == "pdesurrogate.models.neural_process.AttentiveNeuralProcess"
    assert config.data.train.init_args.functions == 10_000
    assert config.data.seed == config.seed_everything == 0
    text = path.read_text()
    assert f"pdesurrogate fit -c benchmarks/configs/{name}\n" in text
    assert ("tier `small`" if "small" in name else "tier `paper`") in text
    assert "989,826 parameters" in text


@pytest.mark.parametrize("problem", ["pme", "stefan"])
def test_the_paper_s_training_is_as_published_and_softc_is_two_options_away(problem):
    path = configs_directory() / "gpme" / f"anp_{problem}.yaml"
    words = path.read_text().split("  ... ")[1].split("# Not run")[0].replace("#", "").split()
    config = parsed(path, *words)
    model = config.model.init_args
    trainer = config.trainer
    assert (model.learning_rate, model.schedule, config.data.batch_size) == (1e-4, None, 250)
    assert (trainer.max_epochs, trainer.check_val_every_n_epoch, trainer.gradient_clip_val) == (500, 10, None)
    assert model.penalty.init_args.weight == 1.0
    flux = {"pme": "PorousMediumFlux", "stefan": "StefanFlux"}[problem]
    assert model.penalty.init_args.flux.class_path == f"pdesurrogate.training.regression.{flux}"


def test_a_misspelled_option_is_refused():
    with pytest.raises(ArgumentError, match="learning_rat"):
        parsed(configs_directory() / NAMES[0], "--model.init_args.learning_rat", "1")


FORMS = ("-c {}", "--config {}", "--config={}", "-c={}", "-c{}")


@pytest.mark.parametrize("form", FORMS)
def test_a_shipped_configuration_is_known_by_its_name_in_every_form_of_the_option(form):
    name = NAMES[0].removesuffix(".yaml")
    known = f"{RegressionModule.__module__}.{RegressionModule.__qualname__}"
    behind = ["--trainer.max_epochs", "3", "--model.init_args.learning_rate=1e-3"]
    argv = _with_config_files(["fit", *form.format(name).split(), *behind])
    assert argv == ["fit", argv[1], str(configs_directory() / NAMES[0]), *behind]
    assert _model_class(argv) == known
    with pytest.raises(ValueError, match="anp_pmee"):
        _with_config_files(["fit", *form.format("gpme/anp_pmee").split()])


@lightning_cli
@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_read_in_every_form_of_the_option(form, fitted, capsys):
    given = form.format(fitted / "given.yaml").split()
    assert main(["predict", *given]) == 2
    assert "a model of fields for `predict`" in capsys.readouterr().err
