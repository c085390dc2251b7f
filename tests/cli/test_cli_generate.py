"""The verb ``generate``: what a simulator says of itself stands beside the bar, and its log beside the archive."""

import io

import pytest
import rich.console
import yaml
from watched_flow import watched_recipe

from pdesurrogate.__main__ import main


def test_a_run_that_is_looked_at_shows_and_logs_it(tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(watched_recipe()))
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=True, width=200)
    monkeypatch.setattr(rich.console, "Console", lambda file: console)
    assert main(["generate", str(recipe), "--out", str(tmp_path / "data"), "--device", "cpu"]) == 0
    assert "t = 3, cfl 3, energy 0." in screen.getvalue()
    assert "24/24" in screen.getvalue()
    assert [line.rsplit("/", 1)[-1] for line in capsys.readouterr().out.split()] == ["train.nc", "val.nc"]
    assert {"train.log.csv", "val.log.csv", "statistics.nc"} < {path.name for path in (tmp_path / "data").iterdir()}


@pytest.mark.parametrize(
    ("flow", "message"), [({"bad_step": 3}, "became NaN or infinite"), ({"largest_cfl": 0.5}, "the CFL number is over")]
)
def test_an_unstable_run_ends_with_one_sentence(tmp_path, capsys, flow, message):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(watched_recipe(flow=flow)))
    assert main(["generate", str(recipe), "--out", str(tmp_path / "data"), "--device", "cpu"]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
