from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_reports import fake_cost, fake_point, fake_report, fake_score

from pdesurrogate.cli.leaderboard import main, to_page
from pdesurrogate.evaluation.cost import SolverSweep
from pdesurrogate.leaderboard import build_tables, find_reports


def _save_report(
    directory: Path, error: float | None, *, name: str = "FNO", passed: bool = True, **details: Any
) -> Path:
    checks = ({"name": "complete", "passed": passed, "reason": "" if passed else "only half"},)
    return fake_report(error, model=name, checks=checks, **details).save(directory)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    root = tmp_path / "reports"
    for seed in range(2):
        _save_report(root / "fno" / f"seed{seed}", 0.2 + 0.1 * seed, seed=seed)
    _save_report(root / "unet", 0.125, name="UNet <i>")
    _save_report(root / "half", 0.001, name="Half", passed=False)
    return root


def test_a_table_is_printed_best_first(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(reports)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| 1 ", "| 2 ", "- H"))]
    assert lines[0].startswith("| 1 | UNet &lt;i&gt; | surrogate | 1.23 M | 1 | **0.125** |")
    assert lines[1].startswith("| 2 | FNO | surrogate | 1.23 M | 2 | 0.250 ± 0.071 |")
    assert lines[2] == "- Half (`reports/half`): complete: only half"


def test_a_page_is_three_files_the_same_every_time(reports: Path, tmp_path: Path) -> None:
    written = []
    for folder in ("first", "second"):
        assert main(["page", str(reports), "--out", str(tmp_path / folder)]) == 0
        written.append({file.name: file.read_bytes() for file in (tmp_path / folder).iterdir()})
    assert set(written[0]) == {"leaderboard.html", "leaderboard.md", "leaderboard.csv"}
    assert written[0] == written[1]
    page = written[0]["leaderboard.html"].decode()
    assert "UNet &lt;i&gt;" in page
    assert "UNet <i>" not in page
    assert page.count("<figure>") == 2
    assert "reports/fno/seed1" in page
    assert "only half" in page
    assert "×" not in page  # nothing was compared at equal error


def _page(folder: Path) -> str:
    return to_page("T", build_tables(find_reports([folder])))


def _hints(page: str) -> list[str]:
    return re.findall(r'data-tip="(.*?)"', page, re.DOTALL)


def test_the_page_tells_speed_ups_with_bounds_intervals_and_reasons(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\"'&"
    _save_report(tmp_path / "exact", 0.3, cost=fake_cost(4.0, 90, reason="At an error of 0.3.", interval=(3.5, None)))
    _save_report(tmp_path / "bound", 0.9, name="UNet", cost=fake_cost(6.6, 100, bound=True, reason=hostile))
    _save_report(tmp_path / "none", 0.1, name="SFNO", scores={"energy_drift": fake_score(0.1, interval=[0.05, 0.2])})
    page = _page(tmp_path)
    assert ">4.0×</a>" in page
    assert ">≤ 6.6×</a>" in page
    assert ">≥ 100</a>" in page
    assert "alert(1)" in page
    assert "<script>alert" not in page
    hints = _hints(page)
    assert "At an error of 0.3. 95 % interval over trajectories: from 3.5×, high end not known." in hints
    assert "95 % interval over trajectories: 0.0500 to 0.200." in hints
    # In the row's details too, where no pointer is needed.
    assert "<dt>speed-up at equal error</dt><dd>4.0×\nAt an error of 0.3. 95 % interval" in page
    assert (
        "<dt>solver settings</dt><dd>6 measured: the largest stable time step\n12 points a side left out: needs" in page
    )
    assert page.count('<p class="note">Cost was not measured.</p>') == 1


def test_each_seed_states_its_own_speed_up(tmp_path: Path) -> None:
    for seed in range(2):
        cost = fake_cost(1.5 + seed, 90, reason=f"Reason {seed}.")
        _save_report(tmp_path / f"s{seed}", 0.3, seed=seed, cost=cost)
    name = tmp_path.name
    assert f"{name}/s0: 1.5×. Reason 0.\n{name}/s1: 2.5×. Reason 1." in _hints(_page(tmp_path))


def test_every_multiplication_sign_is_part_of_a_speed_up_at_equal_error(tmp_path: Path) -> None:
    for place, cost in enumerate([fake_cost(4.0, 90), fake_cost(0.25), fake_cost(6.6, 100, bound=True), None]):
        _save_report(tmp_path / str(place), 0.1 + place, name=f"m{place}", cost=cost, scores={"rmse": fake_score(0.1)})
    page = _page(tmp_path)
    assert set(re.findall(r"\S*\s?×", re.sub(r"[<>\"]", " ", page))) == {"4.0×", "0.25×", "6.6×"}


def test_the_chart_of_cost_has_the_front_the_other_settings_and_the_data_s_own(tmp_path: Path) -> None:
    _save_report(tmp_path / "a", 0.3, cost=fake_cost(4.0, 90, seconds=0.004))
    _save_report(tmp_path / "b", 0.2, name="apart")
    page = _page(tmp_path)
    points = re.findall(r'<g class="(point[^"]*)"[^>]*aria-label="(.*?)"', page, re.DOTALL)
    settings = [(kind, hint) for kind, hint in points if hint.startswith("solver, ")]
    # 16, 32, 64 and 128 points a side on the front, 48 beside it; the one that blew up has no place.
    assert [kind for kind, _ in settings] == ["point faint", *["point"] * 4]
    assert settings[0][1].startswith(
        "solver, 48 points a side, 4 steps a frame (error 0.5)\n0.0004 s per frame, float32"
    )
    assert settings[-1][1].endswith("made the data")
    assert page.count('class="front"') == 2 + 1  # and in the key
    assert page.count('class="front bound"') == 1
    assert page.count('class="ring"') == 1 + 1
    models = {hint.split("\n")[0]: hint for kind, hint in points if kind.startswith("point s")}
    assert "speed-up at equal error: 4.0×" in models["FNO"]
    assert "time per frame at own error: 4.00 ms" in models["FNO"]
    assert page.count('class="dot open"') == 1 + 1
    assert page.count('class="reach"') == 1
    assert f"The line was measured in {tmp_path.name}/a" in page
    assert "Dashed, it is a bound: the setting that made the data is compared with itself." in page
    assert "The horizontal distance from a dot to it is the speed-up at equal error" in page


def test_without_a_sweep_the_chart_says_that_nothing_can_be_read_off(tmp_path: Path) -> None:
    _save_report(tmp_path / "a", 0.3, cost=fake_cost(sweep=None))
    _save_report(tmp_path / "b", 0.2, name="UNet")
    _save_report(tmp_path / "c", None, name="SFNO")
    page = _page(tmp_path)
    assert "nothing to read a speed-up off" in page
    assert 'class="front"' not in page
    assert "Without a finite error: SFNO." in page
    assert 'class="key"' not in page


def test_a_data_setting_without_error_is_named_and_not_drawn(tmp_path: Path) -> None:
    sweep = SolverSweep((fake_point(16, 0.5, 1e-4), fake_point(32, 0.0, 1e-3, makes_data=True)))
    _save_report(tmp_path / "a", 0.3, cost=fake_cost(4.0, bound=True, sweep=sweep))
    page = _page(tmp_path)
    assert "compared with itself, its error is zero" in page
    assert "32 points a side" not in "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))


def test_one_report_can_be_named_and_named_twice(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(reports / "unet"), str(reports)]) == 0
    output = capsys.readouterr().out
    assert output.count("| UNet") == 1
    assert "repeats" not in output


def test_missing_reports_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "found none" in captured.err


def test_a_broken_report_leaves_the_old_page_alone(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["page", str(reports), "--out", str(out)]) == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    (reports / "unet" / "report.json").write_text('{"schema_version": 1')
    capsys.readouterr()
    assert main(["page", str(reports), "--out", str(out)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_score_that_no_report_has_cannot_rank(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(reports), "--rank-by", "beauty"]) == 2
    assert "['relative_l2']" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pdesurrogate.cli.leaderboard import build_parser\nbuild_parser().format_help()\n"
        "print(sorted({'torch', 'numpy', 'xarray', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
