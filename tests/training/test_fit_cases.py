"""``pdesurrogate fit`` of networks that know of a case its parameters alone, on single frames."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from cfdbench_cases import write_tree

from pdesurrogate.__main__ import main
from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench
from pdesurrogate.fields.batch import collate
from pdesurrogate.models.deeponet import FFN
from pdesurrogate.steppers.surrogate import load_checkpoint
from pdesurrogate.training.case_regression import CaseRegressionModule, load_case_network, predict_frames
from pdesurrogate.training.regression import RegressionModule

# LightningCLI warns of its own use of jsonargparse and of the empty callbacks' folders of a second run.
lightning_cli = pytest.mark.filterwarnings("ignore")

FIT = """
seed_everything: 4
model:
  class_path: pdesurrogate.training.case_regression.CaseRegressionModule
  init_args:
    network:
      class_path: pdesurrogate.models.deeponet.FFN
      init_args:
        parameter_ranges: [[0.0, 10.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.01], [0.0, 0.01]]
        point_ranges: [[0.0, 1.0], [0.0, 0.01], [0.0, 0.01]]
        width: 8
        depth: 2
    channels: [velocity_x]
    points: 20
data:
  adapter:
    class_path: pdesurrogate.data.adapters.cfdbench.adapter.CfdBench
    init_args: {path: TREE, problem: cavity, cells: [16, 16]}
  batch_size: 4
trainer:
  max_epochs: 2
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
def tree(tmp_path_factory) -> Path:
    """Cases of 4 to 7 frames."""
    return write_tree(tmp_path_factory.mktemp("tree"), "cavity", bc=6, prop=3, geo=3, rows=16, columns=16)


def fit(root, tree, *options, text=FIT):
    root.mkdir(exist_ok=True)
    (root / "given.yaml").write_text(text.replace("ROOT", str(root)).replace("TREE", str(tree)))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", ["pdesurrogate"])
        warnings.simplefilter("ignore")
        return main(["fit", "-c", str(root / "given.yaml"), *options])


@pytest.fixture(scope="module")
def fitted(tree, tmp_path_factory) -> Path:
    """Folder with ``given.yaml`` and what ``fit`` left."""
    root = tmp_path_factory.mktemp("fit")
    assert fit(root, tree) == 0
    return root


def test_it_leaves_checkpoints_that_can_be_asked_and_a_log(fitted, tree):
    assert sorted(path.name for path in (fitted / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    network = load_case_network(fitted / "checkpoints" / "best.ckpt")
    assert isinstance(network, FFN)
    record = load_checkpoint(fitted / "checkpoints" / "last.ckpt")["training"]
    assert (record["seed"], record["epochs"]) == (4, 2)
    assert record["settings"]["channels"] == ["velocity_x"]
    header = (fitted / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/loss", "val/nmse", "val/mse", "val/mae"} <= set(header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (trajectory, *_) = CfdBench(tree, "cavity", cells=(16, 16)).trajectories("test")
    asked = predict_frames(network, trajectory.times.float(), collate([trajectory.context]))
    assert asked.shape == (1, len(trajectory), 1, 16, 16)


def test_the_seed_of_the_model_is_that_of_the_data(fitted, tree, tmp_path):
    assert fit(tmp_path / "again", tree) == 0
    one, other = (
        load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (fitted, tmp_path / "again")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert fit(tmp_path / "other", tree, "--seed_everything", "5") == 0
    third = load_checkpoint(tmp_path / "other" / "checkpoints" / "last.ckpt")["state_dict"]
    assert not all(torch.equal(one[name], third[name]) for name in one)


@lightning_cli
def test_a_checkpoint_is_tested_and_training_goes_on(fitted, tmp_path, capsys):
    checkpoint = str(fitted / "checkpoints" / "last.ckpt")
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.logger", "false", "--ckpt_path", checkpoint]
    assert main(["test", f"--config={fitted / 'given.yaml'}", *root]) == 0
    assert "test/nmse" in capsys.readouterr().out
    assert main(["fit", "-c", str(fitted / "given.yaml"), *root, "--trainer.max_epochs", "3"]) == 0
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["training"]["epochs"] == 3


@lightning_cli
def test_predict_says_how_to_ask_the_network(fitted, capsys):
    assert main(["predict", "-c", str(fitted / "given.yaml")]) == 2
    assert "load_case_network" in capsys.readouterr().err


def test_an_unknown_model_gets_those_that_there_are(tree, tmp_path, capsys):
    text = FIT.replace("CaseRegressionModule", "CaseRegresionModule")
    assert fit(tmp_path, tree, text=text) == 2
    error = capsys.readouterr().err
    for kind in (RegressionModule, CaseRegressionModule):
        assert re.search(rf"{re.escape(kind.__module__)}\.{kind.__qualname__}\b", error)


def test_other_data_than_its_own_are_refused(tree, tmp_path, capsys):
    text = FIT.replace("  adapter:\n    class_path", "  train:\n    class_path")
    assert fit(tmp_path, tree, text=text) == 2
    assert "data.train" in capsys.readouterr().err


def test_channels_that_the_data_lack_are_named(tree, tmp_path, capsys):
    assert fit(tmp_path, tree, text=FIT.replace("velocity_x]", "smoke]")) == 2
    assert "smoke" in capsys.readouterr().err
