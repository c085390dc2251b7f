from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pdesurrogate.cli.leaderboard import main
from pdesurrogate.evaluation.report import Report


def _save_report(directory: Path, error: float, *, name: str = "FNO", seed: int = 0, passed: bool = True) -> Path:
    lead_times = np.asarray([0.5, 1.0, 1.5])
    about = {"units": "1", "long_name": "relative L2 error"}
    curves = xr.Dataset(
        {
            "relative_l2": (("trajectory", "lead_time", "channel"), np.full((2, 3, 1), error), about),
            "finite": (("trajectory", "lead_time"), np.ones((2, 3)), {"units": "1", "long_name": "finite"}),
        },
        coords={"lead_time": ("lead_time", lead_times, {"units": "1"}), "channel": ["vorticity"]},
    )
    score: dict[str, Any] = {"value": error, "spread": 0.01, "units": "1", "higher_is_better": False}
    attributes = {
        "schema_version": 1,
        "model": {
            "name": name,
            "kind": "surrogate",
            "class_path": "package.Model",
            "config": {"modes": 8},
            "parameters": 1000,
            "parameters_without_gradient": [],
            "checkpoint": None,
            "training": {"seed": seed, "steps": 10, "epochs": 1, "wall_time_s": 60.0, "device": "cpu"},
        },
        "data": {
            "name": "waves",
            "split": "test",
            "content_hash": "0" * 64,
            "channels": ["vorticity"],
            "shape": [16, 16],
            "periods": [2 * math.pi, 2 * math.pi],
            "frame_interval": 0.5,
            "trajectories": 2,
            "trajectories_declared": 2,
            "start_frame": 1,
            "frames": 3,
            "recipe": None,
        },
        "run": {
            "command": "pdesurrogate evaluate",
            "seed": None,
            "versions": {"torch": "2.13.0"},
            "git_commit": None,
            "device": "cpu",
            "precision": "float32",
            "threads": 1,
            "wall_time_s": 1.0,
            "seconds_per_frame": 0.002,
            "batch_size": 2,
            "created": "2026-01-01T00:00:00+00:00",
        },
        "scores": {"relative_l2": {**score, "description": "mean relative L2 error"}},
        "checks": [{"name": "complete", "passed": passed, "reason": "" if passed else "only half"}],
    }
    Report(attributes=attributes, curves=curves).save(directory)
    return directory


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
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("| 1 ", "| 2 ", "- "))]
    assert lines[0].startswith("| 1 | UNet &lt;i&gt; | surrogate | 1.00 k | 1 | **0.125** |")
    assert lines[1].startswith("| 2 | FNO | surrogate | 1.00 k | 2 | 0.250 ± 0.071 |")
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
    assert "speed-up" not in page.lower()


def test_one_report_can_be_named_and_named_twice(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", str(reports / "unet"), str(reports)]) == 0
    output = capsys.readouterr().out
    assert output.count("UNet") == 1
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
