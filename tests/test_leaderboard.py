from __future__ import annotations

import csv
import hashlib
import io
import math
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.evaluation.checks import check_coverage
from pdesurrogate.evaluation.report import Report
from pdesurrogate.leaderboard import Source, Table, build_tables, find_reports, to_csv, to_markdown


def _score(value: float | None, *, higher_is_better: bool = False) -> dict[str, Any]:
    about = {"units": "1", "higher_is_better": higher_is_better, "description": "a score"}
    return {"value": value, "spread": None, **about}


def _source(
    name: str,
    error: float | None = 0.5,
    *,
    model: str = "FNO",
    kind: str = "surrogate",
    config: dict[str, Any] | None = None,
    seed: int = 0,
    steps: int = 10,
    checkpoint: dict[str, str] | None = None,
    checks: tuple[dict[str, Any], ...] = (),
    scores: dict[str, Any] | None = None,
    directory: Path = Path("nowhere"),
    **data: Any,
) -> Source:
    training = {"seed": seed, "steps": steps, "epochs": 1, "wall_time_s": 60.0 + seed, "device": "cpu"}
    training["settings"] = {"max_steps": steps}
    attributes = {
        "model": {
            "name": model,
            "kind": kind,
            "class_path": "package.Model",
            "config": config or {},
            "parameters": 1234567,
            "checkpoint": checkpoint,
            "training": training if kind == "surrogate" else None,
        },
        "data": {
            "name": "waves",
            "split": "test",
            "content_hash": "0" * 64,
            "shape": [16, 16],
            "start_frame": 1,
            "frames": 4,
            "trajectories": 3,
            "trajectories_declared": 3,
            **data,
        },
        "run": {"seed": seed, "seconds_per_frame": 0.002},
        "scores": {"relative_l2": _score(error), **(scores or {})},
        "checks": list(checks),
    }
    return Source(name, directory, Report(attributes=attributes, curves=xr.Dataset()))


def _only(sources: list[Source], **options: Any) -> Table:
    (table,) = build_tables(sources, **options)
    return table


def _ranking(table: Table) -> list[tuple[int | None, str]]:
    return [(entry.rank, entry.model) for entry in table.entries]


@given(order=st.permutations(range(4)))
def test_the_smallest_error_is_first_and_no_error_last_whatever_the_order(order: list[int]) -> None:
    models = [("A", 0.1), ("B", None), ("C", 0.3), ("D", 0.2)]
    table = _only([_source(models[i][0], models[i][1], model=models[i][0]) for i in order])
    assert _ranking(table) == [(1, "A"), (2, "D"), (3, "C"), (None, "B")]


def test_a_score_of_which_more_is_better_ranks_the_other_way_round() -> None:
    times = {"A": 1.0, "B": 3.0, "C": math.nan}
    sources = [
        _source(m, model=m, scores={"correlation_time": _score(t, higher_is_better=True)}) for m, t in times.items()
    ]
    table = _only(sources, ranked_by="correlation_time")
    assert _ranking(table) == [(1, "B"), (2, "A"), (None, "C")]
    assert [table.is_best(entry, table.ranking_column) for entry in table.entries] == [True, False, False]
    with pytest.raises(ValueError, match=r"\['correlation_time', 'relative_l2'\]"):
        build_tables(sources, ranked_by="beauty")


def test_seeds_are_merged_to_mean_and_sample_deviation() -> None:
    table = _only([_source(f"s{seed}", error, seed=seed) for seed, error in enumerate((1.0, 2.0, 6.0))])
    (entry,) = table.entries
    assert entry.values["seeds"].mean == 3
    assert entry.values["relative_l2"].mean == pytest.approx(3.0)
    assert entry.values["relative_l2"].spread == pytest.approx(math.sqrt(7.0))
    assert entry.values["training_time"].mean == pytest.approx(61.0)
    assert entry.values["parameters"].spread is None


def test_one_seed_that_blew_up_leaves_the_model_without_a_mean() -> None:
    table = _only([_source("s0", 0.1, seed=0), _source("s1", None, seed=1), _source("other", 9.0, model="UNet")])
    assert _ranking(table) == [(1, "UNet"), (None, "FNO")]


def test_another_configuration_or_length_of_training_is_another_model() -> None:
    table = _only([_source("a", 0.1), _source("b", 0.2, config={"modes": 8}), _source("c", 0.3, steps=99)])
    assert len(table.entries) == 3


@pytest.mark.parametrize(
    "difference",
    [{"name": "other"}, {"split": "val"}, {"shape": [8, 8]}, {"start_frame": 2}, {"frames": 3}, {"content_hash": "1"}],
)
def test_different_data_are_never_in_one_table(difference: dict[str, Any]) -> None:
    other = _source("b", model="UNet")
    other.report.attributes["data"].update(difference)
    tables = build_tables([_source("a"), other])
    assert [len(table.entries) for table in tables] == [1, 1]


def test_what_cannot_be_trusted_is_listed_apart_with_its_reason() -> None:
    failed = {"name": "gradients", "passed": False, "reason": "3 parameters have none"}
    passed = {"name": "finite", "passed": True, "reason": ""}
    table = _only(
        [
            _source("a", 0.5, checks=(passed,)),
            _source("b", 0.1, model="UNet", checks=(passed, failed)),
            _source("c", 0.2, model="SFNO", trajectories=2),
            _source("d", 0.3),
        ]
    )
    coverage = check_coverage(2, 3)
    assert _ranking(table) == [(1, "FNO")]
    assert [(item.source.name, item.reason) for item in table.excluded] == [
        ("b", "gradients: 3 parameters have none"),
        ("c", f"{coverage.name}: {coverage.reason}"),
        ("d", "repeats a: same model, configuration and seed"),
    ]


def test_checkpoints_at_hand_are_hashed_again(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"weights")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.pt").write_bytes(b"far")
    right, far = (hashlib.sha256(content).hexdigest() for content in (b"weights", b"far"))
    sources = [
        _source("right", checkpoint={"file": "weights.pt", "sha256": right}, directory=tmp_path),
        _source("wrong", model="A", checkpoint={"file": "weights.pt", "sha256": "f" * 64}, directory=tmp_path),
        _source("far", model="B", checkpoint={"file": "runs/far.pt", "sha256": far}, directory=tmp_path),
    ]
    table = _only(sources)
    assert {entry.model: len(entry.notes) for entry in table.entries} == {"FNO": 0, "B": 1}
    (left_out,) = table.excluded
    assert f"weights.pt has the hash {right[:12]}, not ffffffffffff" in left_out.reason
    assert not any(entry.notes for entry in _only(sources, checkpoint_root=tmp_path / "elsewhere").entries)
    far_wrong = _source("far", model="B", checkpoint={"file": "runs/far.pt", "sha256": right}, directory=tmp_path)
    # A file of that name elsewhere belongs to another model: the checkpoint counts as not at hand.
    (entry,) = _only([far_wrong], checkpoint_root=tmp_path / "elsewhere").entries
    assert len(entry.notes) == 1


def test_a_partial_evaluation_is_named_once_however_often_it_was_found() -> None:
    coverage = check_coverage(2, 3)
    table = _only([_source("a", trajectories=2, checks=(coverage.to_dict(),))])
    assert [item.reason for item in table.excluded] == [f"{coverage.name}: {coverage.reason}"]


def test_a_correlation_that_outlives_the_rollout_gives_a_lower_bound() -> None:
    times = [
        _source(
            f"s{seed}", seed=seed, scores={"correlation_time": _score(4.0), "correlation_time_censored": _score(part)}
        )
        for seed, part in enumerate((0.0, 0.5))
    ]
    assert "| ≥ 4.00 |" in to_markdown(build_tables(times))
    assert "| 4.00 |" in to_markdown(build_tables(times[:1]))


def test_markdown_has_one_cell_a_column_and_keeps_names_from_being_markup() -> None:
    text = to_markdown(build_tables([_source("a", 0.25, model="F|N*O* <b>\nX"), _source("b", 0.5, model="UNet")]))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [line.replace("\\|", "").count("|") for line in lines]
    assert len(lines) == 4
    assert len(set(cells)) == 1
    assert r"F\|N\*O\* &lt;b&gt; X" in lines[2]
    assert "**0.250**" in lines[2]
    assert "1.23 M" in lines[2]
    assert "2.00 ms" in lines[2]


def test_csv_keeps_full_precision_and_every_report() -> None:
    error = 0.1 + 0.2
    failed = {"name": "finite", "passed": False, "reason": "one, or two"}
    tables = build_tables(
        [
            _source("a", error),
            _source("b", None, model="UNet"),
            _source("c", model="SFNO", checks=(failed,)),
            _source("d", model="SFNO", split="val"),
        ]
    )
    rows = list(csv.DictReader(io.StringIO(to_csv(tables))))
    assert [(row["split"], row["status"], row["rank"], row["model"]) for row in rows] == [
        ("test", "ranked", "1", "FNO"),
        ("test", "ranked", "", "UNet"),
        ("test", "excluded", "", "SFNO"),
        ("val", "ranked", "1", "SFNO"),
    ]
    assert float(rows[0]["relative_l2"]) == error
    assert rows[1]["relative_l2"] == ""
    assert rows[0]["parameters"] == "1234567"
    assert rows[2]["reason"] == "finite: one, or two"


def test_output_depends_on_the_reports_alone() -> None:
    sources = [_source(f"s{i}", 0.1 * i, model=f"m{i}", split=f"split{i % 2}") for i in range(6)]
    first, again = build_tables(sources), build_tables(sources)
    assert to_markdown(first) == to_markdown(again)
    assert to_csv(first) == to_csv(again)


def test_folders_without_reports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none"):
        find_reports([tmp_path])
    with pytest.raises(ValueError, match="Expected a folder"):
        find_reports([tmp_path / "missing"])
