"""Tables of generalization from reports, and the configurations of problems other than the cavity."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml
from fake_reports import fake_report, fake_score

from pdesurrogate.data.adapters.cfdbench.problems import PROBLEMS
from pdesurrogate.data.catalog import config_path, configs_directory
from pdesurrogate.models.specification import build

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
OTHERS = ("tube", "step", "cylinder")
# Networks of points, whose task has no time steps, are trained otherwise; tests/test_published_cfdbench.py has them.
NETWORKS = sorted(
    path.stem
    for path in (configs_directory() / "cfdbench_cavity").glob("*.yaml")
    if "class_path" not in yaml.safe_load(path.read_text())["model"]
)


def script(name):
    """A module of the folder, which is no package."""
    specification = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


cfdbench = script("cfdbench")


def save(folder, name, nmse, *, model, seed=0, **scores):
    found = {score: fake_score(value) for score, value in {"nmse": nmse, **scores}.items()}
    fake_report(model=model, seed=seed, scores=found).save(folder / name)


@pytest.fixture
def reports(tmp_path):
    for subset, factor in (("bc", 1.0), ("prop", 2.0), ("geo", 4.0)):
        folder = tmp_path / f"cfdbench_tube_{subset}"
        for seed in range(3):
            save(folder, f"fno_seed{seed}", factor * 0.1 * (seed + 1), model="FNO", seed=seed, mae=0.5)
        save(folder, "persistence", factor, model="persistence", section_imbalance=0.25)
    save(tmp_path / "cfdbench_tube_bc", "unet_seed0", None, model="U-Net")
    return tmp_path


def test_a_page_has_a_row_for_each_subset_and_network(reports, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    assert cfdbench.main(reports, out) == 0
    text = (out / "cfdbench.md").read_text()
    assert text in capsys.readouterr().out
    assert (out / "cfdbench.png").stat().st_size > 0
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert [tuple(cell.strip() for cell in row.split("|")[1:4]) for row in rows] == [
        ("boundary conditions", "FNO", "3"), ("boundary conditions", "persistence", "1"),
        ("boundary conditions", "U-Net", "1"),
        ("fluid properties", "FNO", "3"), ("fluid properties", "persistence", "1"),
        ("geometries", "FNO", "3"), ("geometries", "persistence", "1"),
        ("mean of subsets", "FNO", "3"), ("mean of subsets", "persistence", "1"),
    ]  # fmt: skip
    assert "| 0.2 ± 0.1 |" in rows[0]
    assert "| 0.25 |" in rows[1]
    assert "| 0.467 |" in rows[-2]
    assert "| - |" in rows[2]


def test_all_cells_of_a_row_have_a_title(reports):
    lines = cfdbench.table(cfdbench.rows_of_problem(reports, "tube"))
    assert len({line.count("|") for line in lines}) == 1


def test_without_reports_it_says_so(tmp_path, capsys):
    assert cfdbench.main(tmp_path, tmp_path) == 2
    assert "run benchmarks/small.py first" in capsys.readouterr().err


@pytest.mark.parametrize("problem", OTHERS)
def test_another_problem_has_a_range_for_each_of_its_parameters(problem):
    path = BENCHMARKS / "problems" / f"cfdbench_{problem}.yaml"
    values = yaml.safe_load(path.read_text())
    ranges = values["model"]["network"]["init_args"]["parameter_ranges"]
    assert len(ranges) == len(PROBLEMS[problem].parameters)
    assert f"# {', '.join(PROBLEMS[problem].parameters)}\n" in path.read_text()
    adapter = yaml.safe_load((path.parent / values["data"]["adapter"]).resolve().read_text())
    assert adapter["init_args"]["problem"] == problem


def test_networks_of_the_cavity_are_trained_alike():
    def shared(name):
        values = yaml.safe_load(config_path(f"cfdbench_cavity/{name}").read_text())
        ranges = values["model"].pop("network")["init_args"]["parameter_ranges"]
        del values["trainer"]["max_steps"]
        return values, ranges

    assert len(NETWORKS) == 6
    assert all(shared(name) == shared("fno") for name in NETWORKS)
    assert len(shared("fno")[1]) == len(PROBLEMS["cavity"].parameters)


@pytest.mark.parametrize(
    "name",
    [
        *(f"cfdbench_cavity/{name}" for name in NETWORKS),
        *(f"cfdbench/{name}" for name in ("fno", "unet", "resnet", "auto_deeponet")),
        *(f"smoke_plume/{name}" for name in ("fno", "unet", "sinenet")),
    ],
)
def test_a_configuration_states_its_number_of_parameters(name):
    text = config_path(name).read_text()
    network = yaml.safe_load(text)["model"]["network"]
    channels = 4 if "plume" in name else 2
    built = build({**network, "init_args": {**network["init_args"], "channels": channels}})
    assert f"{sum(each.numel() for each in built.parameters()):,} parameters" in text
