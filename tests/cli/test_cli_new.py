"""``pdesurrogate new``: skeletons whose tests pass and whose README does what it says, used by class path."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdesurrogate.__main__ import main
from pdesurrogate.cli import new
from pdesurrogate.data.catalog import read_card

NAMES = {"model": "my_net", "dataset": "my_waves", "metric": "my_share"}
TEMPLATES = Path(new.__file__).with_name("templates")
# Added to what a README says, so that it takes a second.
SHORTER = {
    "fit": [
        *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.accelerator", "cpu"),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    ],
    "evaluate": ["--device", "cpu", "--no-figures"],
    "generate": ["--device", "cpu"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a skeleton of each kind."""
    out = tmp_path_factory.mktemp("own")
    for kind, name in NAMES.items():
        assert main(["new", kind, name, "--out", str(out)]) == 0
    return out


@pytest.fixture
def in_folder(folder, monkeypatch) -> Iterator[Path]:
    """In a process that, as the console script, does not look for modules there by itself."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if Path(entry or ".").resolve() != folder])
    yield folder
    for module in [module for module in sys.modules if module.split(".")[0] in NAMES.values()]:
        del sys.modules[module]
    importlib.invalidate_caches()


def commands_of(readme: Path) -> list[list[str]]:
    block = readme.read_text().split("```sh\n")[1].split("```")[0]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def run_shortened(words: list[str]) -> None:
    if words[0] == "python":
        subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
        return
    assert words[0] == "pdesurrogate"
    assert main([*words[1:], *SHORTER[words[1]]]) == 0


def test_their_own_tests_pass(folder):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "--doctest-modules", *NAMES.values()],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert re.search(r"\d\d passed", result.stdout)


@pytest.mark.filterwarnings("ignore")  # LightningCLI warns of its own use of jsonargparse
@pytest.mark.parametrize("kind", NAMES)
def test_the_readme_does_what_it_says(in_folder, kind):
    name = NAMES[kind]
    commands = commands_of(in_folder / name / "README.md")
    assert commands[0] == ["python", "-m", "pytest", name]
    for words in commands[1:]:
        run_shortened(words)
    if kind != "metric":
        checkpoints = in_folder / "runs" / name / "version_0" / "checkpoints"
        assert {file.name for file in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}
    else:
        report = json.loads((in_folder / "runs" / name / "report.json").read_text())
        assert 0 < report["scores"][name]["value"] < 1


@pytest.mark.filterwarnings("ignore")
def test_skeletons_work_together_by_class_path(in_folder):
    """The network on the reader's data, measured by the metric, and the reader's data as an archive."""
    run_shortened(["python", "-m", "my_waves.example", "runs/data/my_waves"])
    data = "my_waves/data.yaml"
    run_shortened(
        [
            "pdesurrogate",
            "fit",
            "-c",
            "my_net/config.yaml",
            "--data.adapter",
            data,
            "--trainer.logger.init_args.name=both",
        ]
    )
    checkpoint = "runs/both/version_0/checkpoints/last.ckpt"
    options = ["--data", data, "--metrics", "my_share/metrics.yaml", "--out", "runs/both/report"]
    run_shortened(["pdesurrogate", "evaluate", "--checkpoint", checkpoint, *options])
    report = json.loads((in_folder / "runs/both/report/report.json").read_text())
    assert report["model"]["class_path"] == "my_net.network.MyNet"
    assert report["data"]["recipe"]["adapter"]["class_path"] == "my_waves.adapter.MyWaves"
    assert "my_share" in report["scores"]
    settings = ["fields={height: '1'}", "lengths=[1.0, 1.0]", "frame_interval=0.1"]
    chosen = [word for setting in settings for word in ("--set", setting)]
    source = ["runs/data/my_waves", "--format", "my_waves.adapter.MyWaves", *chosen]
    assert main(["datasets", "convert", *source, "--out", "runs/data/converted"]) == 0


def test_what_is_installed_comes_before_the_current_folder(in_folder):
    before = list(sys.path)
    main(["evaluate", "--stepper", "my_net.nothing", "--data", "nowhere", "--out", "x"])
    assert sys.path == [*before, str(in_folder)]
    main(["evaluate", "--stepper", "my_net.nothing", "--data", "nowhere", "--out", "x"])
    assert sys.path == [*before, str(in_folder)]


@pytest.mark.parametrize(
    ("stepper", "message"),
    [
        ("no_such_package.stepper.Mine", "No module named 'no_such_package'"),
        ("my_net.no_such_module.Mine", "has no attribute 'no_such_module'"),
        ("my_net.network.NoSuchClass", "has no attribute 'NoSuchClass'"),
    ],
)
def test_a_wrong_class_path_says_what_was_not_found_and_where(in_folder, capsys, stepper, message):
    main(["generate", "ns2d_smoke", "--out", "runs/data/ns2d_smoke", "--device", "cpu"])
    capsys.readouterr()
    assert main(["evaluate", "--stepper", stepper, "--data", "runs/data/ns2d_smoke", "--out", "x"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert (f"class paths are looked for in installed packages and in {in_folder}" in error) == ("No module" in message)


def test_what_is_printed_is_what_was_written_and_what_comes_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "model", "my_net"]) == 0
    files, _, after = capsys.readouterr().out.partition("\nnext:\n")
    assert {Path(line) for line in files.split()} == {
        file.relative_to(tmp_path) for file in (tmp_path / "my_net").iterdir()
    }
    assert after.startswith("python -m pytest my_net")
    assert [shlex.split(line, comments=True) for line in after.splitlines()] == commands_of(Path("my_net/README.md"))
    assert main(["new", "model", "other_net", "--out", "a folder/of mine"]) == 0
    assert "next:\ncd 'a folder/of mine'\npython -m pytest other_net" in capsys.readouterr().out


@pytest.mark.parametrize("kind", NAMES)
def test_nothing_of_the_template_is_left_in_a_copy(folder, kind):
    name = NAMES[kind]
    copied = [file for file in (folder / name).iterdir() if file.is_file()]
    templates = [file for file in (TEMPLATES / kind).iterdir() if file.is_file()]
    assert {file.name for file in copied} == {file.name.replace(f"template_{kind}", name) for file in templates}
    for file in copied:
        assert "template" not in file.read_text().lower(), file
        assert f"class {new.class_name(kind, name)}" in file.read_text() or file.name not in (
            "network.py",
            "adapter.py",
            "metric.py",
        )


def test_a_name_may_contain_that_of_the_template(tmp_path):
    new.write_skeleton("model", "a_template_model_too", tmp_path)
    config = (tmp_path / "a_template_model_too" / "config.yaml").read_text()
    assert "class_path: a_template_model_too.network.ATemplateModelToo\n" in config


def test_the_card_of_a_data_set_is_one(folder):
    card = read_card(folder / "my_waves" / "README.md")
    assert (card.name, card.kind) == ("my_waves", "published")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("model", "my-net", "letters, digits and underscores, but got 'my-net'; 'my_net' is one"),
        ("model", "MyNet", "'my_net' is one"),
        ("model", "../net", "'net' is one"),
        ("model", "2d_net", "'d_net' is one"),
        ("model", "", "'my_net' is one"),
        ("dataset", "class", "'my_class' is one"),
        ("dataset", "json", "'json' can be imported already"),
        ("metric", "torch", "'torch' can be imported already"),
        ("metric", "pdesurrogate", "choose another, such as 'pdesurrogate_metric'"),
        ("model", "tensor", "do not use themselves but 'Tensor' is one"),
        ("metric", "box_mean", "'box_mean' is one"),
        ("dataset", "value_error", "'ValueError' is one"),
    ],
)
def test_names_that_cannot_be_are_refused_with_one_that_can(kind, name, message, tmp_path, capsys):
    assert main(["new", kind, name, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path, capsys):
    (tmp_path / "my_net").mkdir()
    (tmp_path / "my_data").write_text("mine")
    for kind, name in (("model", "my_net"), ("dataset", "my_data")):
        assert main(["new", kind, name, "--out", str(tmp_path)]) == 2
        assert "choose another name, or another folder with --out" in capsys.readouterr().err
    assert not list((tmp_path / "my_net").iterdir())
    assert (tmp_path / "my_data").read_text() == "mine"


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full)
        assert main(["new", "model", "my_net", "--out", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


def test_making_one_imports_nothing_heavy(tmp_path):
    code = (
        "import sys; from pdesurrogate.__main__ import main; status = main(['new', 'model', 'my_net'])\n"
        "assert not status and not {'torch', 'numpy', 'lightning', 'yaml'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
