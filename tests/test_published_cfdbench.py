"""Rows of the paper's tables recomputed from a tree, and the configurations that the published networks have."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from cfdbench_cases import write_tree

from pdesurrogate.cli.train import ForecastCLI, SafeCLI
from pdesurrogate.data.adapters.cfdbench.problems import PROBLEMS
from pdesurrogate.data.adapters.cfdbench.splits import reference_rounding
from pdesurrogate.data.catalog import config_path, configs_directory
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.data.frame_data import FrameData
from pdesurrogate.models.specification import build
from pdesurrogate.training.case_regression import CaseRegressionModule
from pdesurrogate.training.forecast import ForecastModule

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
FAKE = Path(__file__).parents[2] / "shared" / "golden" / "cfdbench_fake"
OTHERS = ("tube", "dam", "cylinder")
# Real numbers of the published networks on the cavity; of CNN and ResNet without what they hold and never use.
PARAMETERS = {
    "fno": 2_368_354, "unet": 1_095_038, "resnet": 533_764, "auto_ffn": 1_102_401, "auto_deeponet": 551_901,
    "auto_edeeponet": 622_701, "auto_deeponetcnn": 742_729, "ffn": 71_701, "deeponet": 142_501,
}  # fmt: skip
OF_POINTS = ("ffn", "deeponet")


@pytest.fixture(scope="module")
def published():
    """The script, which is in no package."""
    specification = importlib.util.spec_from_file_location(
        "benchmarks_published_cfdbench", BENCHMARKS / "published_cfdbench.py"
    )
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Tubes of 4 to 7 frames on 24 x 24 cells, 25 x 26 points with the rows of boundary values."""
    return write_tree(tmp_path_factory.mktemp("tree"), "tube", bc=6, prop=3, geo=3, rows=24, columns=24)


TINY = ["--epochs", "2", "--batch-size", "4", "--device", "cpu"]


def rows_of(text):
    """Cells of the two tables by the name of the model."""
    parts = text.split("\n## ")
    tables = []
    for part in parts:
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]
        tables.append({cells[0]: cells[1:] for cells in lines[2:]})
    return tables


@pytest.mark.filterwarnings("ignore")
def test_rows_are_trained_and_stand_beside_the_paper(published, tree, tmp_path, capsys):
    out = ["--tree", str(tree), "--problem", "tube", "--out", str(tmp_path)]
    command = [*out, *TINY, "--models", "FFN", "FNO", "Auto-FFN", "--network", "width=6"]
    assert published.main(command) == 0
    text = capsys.readouterr().out
    steps, rollouts = rows_of(text)
    assert list(steps) == list(rollouts) == ["Identity", "FFN", "FNO", "Auto-FFN"]
    assert steps["FFN"][3:] == ["3.093568", "0.5307588", "0.3303886", "table 8"]
    assert steps["FNO"][3:] == ["0.005", "-", "-", "figure 7"]
    assert rollouts["FNO"][-1] == "50"
    assert rollouts["Identity"][:1] == ["0"]
    assert all(math.isfinite(float(cell)) for cells in steps.values() for cell in cells[:3])
    folder = tmp_path / "tube_prop_bc_geo_seed0"
    for name in ("ffn", "fno", "auto_ffn"):
        assert {path.name for path in (folder / name).iterdir()} == {
            "best.ckpt",
            "last.ckpt",
            "options.json",
            "scores.json",
        }
    stored = json.loads((folder / "fno" / "scores.json").read_text())
    assert f"{stored['single']['nmse']:.7g}" == steps["FNO"][0]
    # What is trained is not trained again, and a checkpoint alone gives the row that it gave.
    assert published.main(command) == 0
    assert rows_of(capsys.readouterr().out) == [steps, rollouts]
    # What was begun with other data is not gone on with.
    with pytest.raises(ValueError, match=r"ffn was begun but epochs differ; give another --out"):
        published.main([*command, "--epochs", "3"])
    with pytest.raises(ValueError, match=r"fno was begun but stored_frames_per_frame, content_hash differ"):
        published.main([*out, *TINY, "--models", "FNO", "--network", "width=6", "--delta-time", "0.2"])
    single = [*out, "--models", "FNO", "--checkpoint", str(folder / "fno" / "best.ckpt")]
    assert published.main(single) == 0
    assert rows_of(capsys.readouterr().out)[0]["FNO"] == steps["FNO"]
    assert published.main([*single, "--alignment", "frames"]) == 0
    assert rows_of(capsys.readouterr().out)[1]["Identity"][0] != "0"


def test_networks_without_steps_are_asked_for_the_frames_of_the_others(published, tree, tmp_path, monkeypatch):
    """Else a column of the table would hold two times."""
    asked = []
    network = published.network_of(
        yaml.safe_load(config_path("cfdbench/ffn").read_text()), published.ReferenceCfdBench(tree, "tube", "frames"), {}
    )

    def predicted(model, times, context):
        asked.append(times.tolist())
        return torch.zeros(1, len(times), 1, *(line.shape[1] for line in context.coordinates))

    monkeypatch.setattr(published, "load_case_network", lambda path: network)
    monkeypatch.setattr("pdesurrogate.training.cfdbench_protocol.predict_frames", predicted)
    frames = published.ReferenceCfdBench(tree, "tube", "frames")
    published.measure("FFN", tmp_path, frames, "frames", 2)
    assert asked[-1] == [2.0 * step for step in range(1, 21)]


@pytest.mark.skipif(not FAKE.exists(), reason="needs the golden files beside the repository")
@pytest.mark.filterwarnings("ignore")
def test_the_small_published_layout_goes_from_end_to_end(published, tmp_path, capsys):
    command = ["--tree", str(FAKE), "--problem", "cavity", "--out", str(tmp_path), *TINY, "--epochs", "1"]
    assert published.main([*command, "--models", "U-Net", "--network", "width=2"]) == 0
    steps, _ = rows_of(capsys.readouterr().out)
    assert steps["U-Net"][3] == "0.00041"
    # Four cases leave none for validation.
    assert not (tmp_path / "cavity_prop_bc_geo_seed0" / "unet" / "best.ckpt").exists()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_the_networks_are_the_authors_for_these_data(published, tree, name):
    model = next(model for model in published.MODELS.values() if model.config == name)
    adapter = published.ReferenceCfdBench(tree, "tube", "frames" if model.scored is None else "pairs")
    config = yaml.safe_load(config_path(f"cfdbench/{name}").read_text())
    network = published.network_of(config, adapter, {})
    assert getattr(network, "compat", "reference") == "reference"
    if model.scored is not None:
        assert len(network.ranges) == 5
        assert getattr(network, "grid", (25, 26)) == (25, 26)
        assert (getattr(network, "predicted", "all") == "first") == (model.scored == "first")
    else:
        assert (network.dimension, network.fields) == (3, 1)


def test_a_checkpoint_is_that_of_one_model(published, tree, capsys):
    with pytest.raises(SystemExit):
        published.parsed(["--tree", str(tree), "--problem", "tube", "--checkpoint", "best.ckpt"])
    assert "one of --models with --checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        published.parsed(["--tree", str(tree), "--problem", "tube", "--network", "width"])
    assert "Expected name=value but got 'width'" in capsys.readouterr().err
    assert published.parsed(["--tree", ".", "--problem", "tube", "--subsets", "geo", "prop"]).subsets == ["prop", "geo"]


# The configurations.


class Read:
    """Stops once a configuration is parsed."""

    def instantiate_classes(self):
        """Nothing."""

    def _run_subcommand(self, subcommand):
        """Nothing."""


class ReadFields(Read, ForecastCLI):
    """Of a network of fields."""


class ReadPoints(Read, SafeCLI):
    """Of a network of points."""


@pytest.fixture(scope="module")
def parsers():
    """Of the verb ``fit``, for networks of fields and of points."""
    common = {"auto_configure_optimizers": False, "parser_kwargs": {"exit_on_error": False}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["pdesurrogate"])
        fields, points = (["fit", "-c", str(config_path(f"cfdbench/{name}"))] for name in ("fno", "ffn"))
        return (
            ReadFields(ForecastModule, ForecastData, args=fields, **common).parser,
            ReadPoints(CaseRegressionModule, FrameData, subclass_mode_model=True, args=points, **common).parser,
        )


def parsed(parser, *paths):
    """What ``fit`` makes of configuration files."""
    return parser.parse_args(["fit", *itertools.chain.from_iterable(("-c", str(path)) for path in paths)]).fit


def network_in(values):
    return values["model"].get("init_args", values["model"])["network"]


def test_every_published_network_has_a_configuration():
    assert {path.stem for path in (configs_directory() / "cfdbench").glob("*.yaml")} == set(PARAMETERS)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_a_configuration_is_as_published(name):
    text = config_path(f"cfdbench/{name}").read_text()
    values = yaml.safe_load(text)
    specification = network_in(values)
    further = {} if name in OF_POINTS else {"channels": 2}
    built = build({**specification, "init_args": {**specification["init_args"], **further}})
    assert sum(each.numel() for each in built.parameters()) == PARAMETERS[name]
    assert f"{PARAMETERS[name]:,} parameters" in text
    assert "tier `paper`" in text
    assert f"pdesurrogate fit -c benchmarks/configs/cfdbench/{name}.yaml\n" in text
    model = values["model"].get("init_args", values["model"])
    assert (model["learning_rate"], values["data"]["batch_size"], values["trainer"]["max_epochs"]) == (1e-3, 128, 100)
    assert model["schedule"]["init_args"] == {"epochs": 100, "step_epochs": 20, "factor": 0.9}
    if name in OF_POINTS:
        assert (model["channels"], model["points"], model["loss"]) == (["velocity_x"], 1000, "nmse")
    else:
        assert (model["loss"]["class_path"].rpartition(".")[2], model["weight_decay"]) == ("NormalizedMSE", 0.0)


@pytest.mark.parametrize("problem", OTHERS)
@pytest.mark.parametrize("points", [False, True], ids=["fields", "points"])
def test_another_published_problem_is_one_more_file(problem, points, parsers):
    path = BENCHMARKS / "problems" / f"published_{problem}{'_points' if points else ''}.yaml"
    names = OF_POINTS if points else sorted(set(PARAMETERS) - set(OF_POINTS))
    assert f"# {', '.join(PROBLEMS[problem].parameters)}\n" in path.read_text()
    assert f"-c benchmarks/problems/{path.name}\n" in path.read_text()
    for name in names:
        config = parsed(parsers[points], config_path(f"cfdbench/{name}"), path)
        arguments = network_in(config)["init_args"]
        assert len(arguments["parameter_ranges"]) == len(PROBLEMS[problem].parameters)
        adapter = config.data.adapter.init_args
        assert adapter.problem == problem
        assert adapter.split.init_args.rounding == reference_rounding(problem, "frames" if points else "pairs")
        assert (adapter.interval, adapter.starts) == (
            (0.1, "all") if problem == "cylinder" and not points else (None, "first")
        )


@pytest.mark.parametrize("name", OF_POINTS)
def test_the_small_tier_of_the_task_without_steps(name, parsers):
    text = config_path(f"cfdbench_cavity/{name}").read_text()
    values = yaml.safe_load(text)
    built = build(network_in(values))
    assert f"{sum(each.numel() for each in built.parameters()):,} parameters" in text
    assert f"pdesurrogate fit -c benchmarks/configs/cfdbench_cavity/{name}.yaml\n" in text
    assert "tier `small`" in text
    config = parsed(parsers[True], config_path(f"cfdbench_cavity/{name}"))
    assert config.data.adapter.init_args.problem == "cavity"
    assert config.model.init_args.channels == ["velocity_x", "velocity_y"]
    # The same cases as those of the networks of fields.
    fno = yaml.safe_load(config_path("cfdbench_cavity/fno").read_text())
    assert values["data"]["adapter"] == fno["data"]["adapter"]
    ranges = network_in(fno)["init_args"]["parameter_ranges"]
    assert network_in(values)["init_args"]["parameter_ranges"] == ranges
