from __future__ import annotations

import csv
import hashlib
import io
import math
from pathlib import Path
from typing import Any

import pytest
from fake_reports import SWEEP, fake_cost, fake_point, fake_report, fake_score, fake_source
from hypothesis import given
from hypothesis import strategies as st

from pdesurrogate.evaluation.checks import check_coverage
from pdesurrogate.evaluation.cost import SolverSweep
from pdesurrogate.leaderboard import (
    Column,
    Source,
    Table,
    build_tables,
    find_reports,
    format_value,
    sweep_of,
    to_csv,
    to_markdown,
)

SPEED_UP, BREAK_EVEN = "speed_up_at_equal_error", "break_even_rollouts"


def _only(sources: list[Source], **options: Any) -> Table:
    (table,) = build_tables(sources, **options)
    return table


def _column(table: Table, key: str) -> Column:
    return next(column for column in table.columns if column.key == key)


def _text(table: Table, key: str, model: str = "FNO") -> str:
    entry = next(entry for entry in table.entries if entry.model == model)
    return format_value(entry.values[key], _column(table, key))


def _seeds(*costs: dict[str, Any] | None) -> Table:
    return _only([fake_source(f"s{seed}", seed=seed, cost=cost) for seed, cost in enumerate(costs)])


def _ranking(table: Table) -> list[tuple[int | None, str]]:
    return [(entry.rank, entry.model) for entry in table.entries]


@given(order=st.permutations(range(4)))
def test_the_smallest_error_is_first_and_no_error_last_whatever_the_order(order: list[int]) -> None:
    models = [("A", 0.1), ("B", None), ("C", 0.3), ("D", 0.2)]
    table = _only([fake_source(models[i][0], models[i][1], model=models[i][0]) for i in order])
    assert _ranking(table) == [(1, "A"), (2, "D"), (3, "C"), (None, "B")]


def test_a_score_of_which_more_is_better_ranks_the_other_way_round() -> None:
    times = {"A": 1.0, "B": 3.0, "C": math.nan}
    sources = [
        fake_source(m, model=m, scores={"correlation_time": fake_score(t, higher_is_better=True)})
        for m, t in times.items()
    ]
    table = _only(sources, ranked_by="correlation_time")
    assert _ranking(table) == [(1, "B"), (2, "A"), (None, "C")]
    assert [table.is_best(entry, table.ranking_column) for entry in table.entries] == [True, False, False]
    with pytest.raises(ValueError, match=r"\['correlation_time', 'relative_l2'\]"):
        build_tables(sources, ranked_by="beauty")


def test_seeds_are_merged_to_mean_and_sample_deviation() -> None:
    table = _only([fake_source(f"s{seed}", error, seed=seed) for seed, error in enumerate((1.0, 2.0, 6.0))])
    (entry,) = table.entries
    assert entry.values["seeds"].mean == 3
    assert entry.values["relative_l2"].mean == pytest.approx(3.0)
    assert entry.values["relative_l2"].spread == pytest.approx(math.sqrt(7.0))
    assert entry.values["training_time"].mean == pytest.approx(61.0)
    assert entry.values["parameters"].spread is None


def test_one_seed_that_blew_up_leaves_the_model_without_a_mean() -> None:
    table = _only(
        [fake_source("s0", 0.1, seed=0), fake_source("s1", None, seed=1), fake_source("other", 9.0, model="UNet")]
    )
    assert _ranking(table) == [(1, "UNet"), (None, "FNO")]


def test_another_configuration_or_length_of_training_is_another_model() -> None:
    table = _only([fake_source("a", 0.1), fake_source("b", 0.2, config={"modes": 8}), fake_source("c", 0.3, steps=99)])
    assert len(table.entries) == 3


@pytest.mark.parametrize(
    "difference",
    [{"name": "other"}, {"split": "val"}, {"shape": [8, 8]}, {"start_frame": 2}, {"frames": 2}, {"content_hash": "1"}],
)
def test_different_data_are_never_in_one_table(difference: dict[str, Any]) -> None:
    other = fake_source("b", model="UNet")
    other.report.attributes["data"].update(difference)
    tables = build_tables([fake_source("a"), other])
    assert [len(table.entries) for table in tables] == [1, 1]


def test_what_cannot_be_trusted_is_listed_apart_with_its_reason() -> None:
    failed = {"name": "gradients", "passed": False, "reason": "3 parameters have none"}
    passed = {"name": "finite", "passed": True, "reason": ""}
    table = _only(
        [
            fake_source("a", 0.5, checks=(passed,)),
            fake_source("b", 0.1, model="UNet", checks=(passed, failed)),
            fake_source("c", 0.2, model="SFNO", trajectories=2),
            fake_source("d", 0.3),
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
    cost = fake_cost(2.0, 10)
    right, far = (hashlib.sha256(content).hexdigest() for content in (b"weights", b"far"))
    sources = [
        fake_source("right", checkpoint={"file": "weights.pt", "sha256": right}, directory=tmp_path, cost=cost),
        fake_source(
            "wrong", model="A", checkpoint={"file": "weights.pt", "sha256": "f" * 64}, directory=tmp_path, cost=cost
        ),
        fake_source("far", model="B", checkpoint={"file": "runs/far.pt", "sha256": far}, directory=tmp_path, cost=cost),
    ]
    table = _only(sources)
    assert {entry.model: len(entry.notes) for entry in table.entries} == {"FNO": 0, "B": 1}
    (left_out,) = table.excluded
    assert f"weights.pt has the hash {right[:12]}, not ffffffffffff" in left_out.reason
    assert not any(entry.notes for entry in _only(sources, checkpoint_root=tmp_path / "elsewhere").entries)
    far_wrong = fake_source(
        "far", model="B", checkpoint={"file": "runs/far.pt", "sha256": right}, directory=tmp_path, cost=cost
    )
    # A file of that name elsewhere belongs to another model: the checkpoint counts as not at hand.
    (entry,) = _only([far_wrong], checkpoint_root=tmp_path / "elsewhere").entries
    assert len(entry.notes) == 1


def test_a_partial_evaluation_is_named_once_however_often_it_was_found() -> None:
    coverage = check_coverage(2, 3)
    table = _only([fake_source("a", trajectories=2, checks=(coverage.to_dict(),))])
    assert [item.reason for item in table.excluded] == [f"{coverage.name}: {coverage.reason}"]


def test_a_correlation_that_outlives_the_rollout_gives_a_lower_bound() -> None:
    times = [
        fake_source(
            f"s{seed}",
            seed=seed,
            scores={"correlation_time": fake_score(4.0), "correlation_time_censored": fake_score(part)},
        )
        for seed, part in enumerate((0.0, 0.5))
    ]
    assert "| ≥ 4.00 |" in to_markdown(build_tables(times))
    assert "| 4.00 |" in to_markdown(build_tables(times[:1]))


def test_markdown_has_one_cell_a_column_and_keeps_names_from_being_markup() -> None:
    text = to_markdown(
        build_tables([fake_source("a", 0.25, model="F|N*O* <b>\nX"), fake_source("b", 0.5, model="UNet")])
    )
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
            fake_source("a", error),
            fake_source("b", None, model="UNet"),
            fake_source("c", model="SFNO", checks=(failed,)),
            fake_source("d", model="SFNO", split="val"),
        ]
    )
    rows = _rows(tables)
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


def _rows(tables: tuple[Table, ...]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(tables))))


@given(value=st.floats(1e-300, 1e300), other=st.floats(1e-300, 1e300))
def test_csv_gives_back_every_score_and_cost_to_the_last_bit(value: float, other: float) -> None:
    sources = [
        fake_source("a", scores={"wasserstein_relative": fake_score(value)}, cost=fake_cost(value, seconds=1.0)),
        fake_source("b", model="UNet", scores={"relative_h1": fake_score(other)}),
    ]
    first, second = sorted(_rows(build_tables(sources)), key=lambda row: row["model"])
    assert float(first["wasserstein_relative"]) == value
    assert float(first[SPEED_UP]) == value
    assert (first["relative_h1"], second["wasserstein_relative"]) == ("", "")
    assert float(second["relative_h1"]) == other
    assert first["relative_h1_spread"] == ""


def test_csv_names_bounds_and_writes_never_as_infinity() -> None:
    bounded = fake_source("a", cost=fake_cost(6.6, 100, bound=True))
    beaten = fake_source("b", model="UNet", cost=fake_cost(0.5))
    first, second = _rows(build_tables([bounded, beaten]))
    assert (first["upper_bounds"], first["lower_bounds"]) == (SPEED_UP, BREAK_EVEN)
    assert (second["upper_bounds"], second["lower_bounds"]) == ("", "")
    assert float(second[BREAK_EVEN]) == math.inf
    without = _rows(build_tables([fake_source("c")]))[0]
    assert (without[SPEED_UP], without[BREAK_EVEN], without["notes"]) == ("", "", "Cost was not measured.")


@pytest.mark.parametrize(
    ("cost", "speed_up", "break_even", "memory"),
    [
        pytest.param(fake_cost(0.0613), "0.061×", "never", "29 MB", id="slower"),
        pytest.param(fake_cost(12.34, 1234), "12×", "1.2 k", "29 MB", id="faster"),
        pytest.param(fake_cost(6.6, 100, bound=True), "≤ 6.6×", "≥ 100", "29 MB", id="bounds"),
        pytest.param(fake_cost(0.9, bound=True, memory=2_500), "≤ 0.90×", "never", "2.5 kB", id="slower than a bound"),
        pytest.param(fake_cost(3.0, memory=None), "3.0×", "–", "–", id="costs not stated"),
        pytest.param(fake_cost(sweep=None), "–", "–", "29 MB", id="no sweep"),
        pytest.param(None, "–", "–", "–", id="no cost"),
    ],
)
def test_costs_are_written_with_their_bounds(
    cost: dict[str, Any] | None, speed_up: str, break_even: str, memory: str
) -> None:
    table = _seeds(cost)
    texts = [_text(table, key) for key in (SPEED_UP, BREAK_EVEN, "peak_memory_bytes")]
    assert texts == [speed_up, break_even, memory]


@pytest.mark.parametrize("kind", ["solver", "baseline"])
def test_what_is_no_surrogate_has_no_speed_up_whatever_its_report_says(kind: str) -> None:
    table = _only([fake_source("a", kind=kind, cost=fake_cost(50.0, 7))])
    assert [_text(table, key) for key in (SPEED_UP, BREAK_EVEN)] == ["–", "–"]
    assert table.entries[0].notes == ()


def test_the_time_is_that_beside_the_sweep_where_there_is_one() -> None:
    assert _text(_seeds(fake_cost(seconds=0.5)), "seconds_per_frame") == "500 ms"
    assert _text(_seeds(None), "seconds_per_frame") == "2.00 ms"


def test_speed_ups_of_seeds_have_a_mean_only_if_none_is_a_bound() -> None:
    exact, bound = [fake_cost(value, 100 * value) for value in (1, 3)], fake_cost(2.0, 50, bound=True)
    mean = _seeds(*exact).entries[0].values
    assert (mean[SPEED_UP].mean, mean[SPEED_UP].spread) == (2.0, pytest.approx(math.sqrt(2)))
    assert mean[BREAK_EVEN].mean == 200.0
    mixed = _seeds(*exact, bound)
    assert _text(mixed, SPEED_UP) == "≤ 3.0×"
    assert _text(mixed, BREAK_EVEN) == "≥ 50"
    assert mixed.entries[0].values[SPEED_UP].spread is None


def test_one_seed_without_a_speed_up_leaves_a_dash_and_its_reason() -> None:
    missing = fake_cost(None, reason="There is none.", break_even_reason="Not known.")
    table = _seeds(fake_cost(2.0, 10, reason="At equal error."), missing)
    assert [_text(table, key) for key in (SPEED_UP, BREAK_EVEN)] == ["–", "–"]
    assert table.entries[0].notes == ("s0: At equal error.", "s1: There is none.")
    assert _seeds(missing, missing).entries[0].notes == ("There is none.",)


def test_a_break_even_that_never_comes_is_so_for_all_seeds_or_a_dash() -> None:
    never = fake_cost(0.5, break_even_reason="Never.")
    assert _text(_seeds(never, never), BREAK_EVEN) == "never"
    mixed = _seeds(fake_cost(2.0, 10, break_even_reason="After 10."), never)
    assert _text(mixed, BREAK_EVEN) == "–"
    assert mixed.entries[0].notes == ("s0: break-even: After 10.", "s1: break-even: Never.")


def test_a_faster_model_of_unknown_training_cost_is_not_called_never_paid_back() -> None:
    table = _seeds(fake_cost(3.0, None, break_even_reason="Not known: no training time is stated."))
    assert _text(table, BREAK_EVEN) == "–"
    assert table.entries[0].notes == ("break-even: Not known: no training time is stated.",)


def _best(table: Table, key: str) -> list[str]:
    return [entry.model for entry in table.entries if table.is_best(entry, _column(table, key))]


def _models(costs: dict[str, dict[str, Any] | None], **details: Any) -> Table:
    return _only([fake_source(name, model=name, cost=cost, **details) for name, cost in costs.items()])


@pytest.mark.parametrize(
    ("costs", "fastest", "soonest"),
    [
        pytest.param({"A": fake_cost(2.0, 20), "B": fake_cost(3.0, 10)}, ["B"], ["B"], id="exact"),
        pytest.param(
            {"A": fake_cost(2.0, 20), "B": fake_cost(9.0, 5, bound=True)}, [], [], id="a bound may hide better"
        ),
        pytest.param(
            {"A": fake_cost(2.0, 20), "B": fake_cost(1.5, 30, bound=True)}, ["A"], ["A"], id="a bound is worse"
        ),
        pytest.param({"A": fake_cost(2.0, 20), "B": None}, [], [], id="nothing to beat"),
        pytest.param({"A": fake_cost(2.0, 20), "B": fake_cost(0.5)}, ["A"], ["A"], id="against never"),
        pytest.param({"A": fake_cost(0.2), "B": fake_cost(0.5)}, ["B"], [], id="never twice"),
        pytest.param({"A": fake_cost(2.0, 20, bound=True), "B": fake_cost(3.0, 9, bound=True)}, [], [], id="bounds"),
    ],
)
def test_a_bound_is_never_the_best(
    costs: dict[str, dict[str, Any] | None], fastest: list[str], soonest: list[str]
) -> None:
    table = _models(costs)
    assert (_best(table, SPEED_UP), _best(table, BREAK_EVEN)) == (fastest, soonest)


def test_no_exact_correlation_time_is_best_beside_one_that_outlived_the_rollout() -> None:
    def times(value: float, part: float) -> dict[str, Any]:
        return {
            "correlation_time": fake_score(value, higher_is_better=True),
            "correlation_time_censored": fake_score(part),
        }

    known, outlived = times(3.0, 0.0), times(2.0, 0.5)
    first = fake_source("a", scores=known)
    assert _best(_only([first, fake_source("b", model="UNet", scores=outlived)]), "correlation_time") == []
    other = fake_source("b", model="UNet", scores=times(2.0, 0.0))
    assert _best(_only([first, other]), "correlation_time") == ["FNO"]


def test_speed_ups_from_different_machines_have_no_best() -> None:
    sources = [
        fake_source("a", cost=fake_cost(2.0, 20)),
        fake_source("b", model="UNet", cost=fake_cost(3.0, 10), run={"device": "cuda"}),
        fake_source("c", model="persistence", kind="baseline", run={"batch_size": 1}),
    ]
    assert _best(_only(sources), SPEED_UP) == []
    assert _best(_only([sources[0], fake_source("d", model="D", cost=fake_cost(1.0)), sources[2]]), SPEED_UP) == ["FNO"]


def test_the_sweep_of_a_report_has_the_front_that_was_measured() -> None:
    found = sweep_of(fake_report(cost=fake_cost()))
    assert found == SWEEP
    assert [point.resolution for point in found.front] == [16, 32, 64, 128]
    assert sweep_of(fake_report(cost=fake_cost(sweep=None))) is None
    assert sweep_of(fake_report()) is None


def test_a_sweep_in_which_all_blew_up_has_no_front() -> None:
    found = sweep_of(fake_report(cost=fake_cost(sweep=SolverSweep((fake_point(8, math.nan, 1e-4),)))))
    assert found is not None
    assert found.front == ()


def test_models_are_compared_with_the_first_sweep_only_under_its_conditions() -> None:
    table = _only(
        [
            fake_source("a", 0.1, model="A", cost=fake_cost(sweep=None)),
            fake_source("b", 0.2, model="B", cost=fake_cost(2.0, 10)),
            fake_source("c", 0.3, model="C", cost=fake_cost(3.0, 10), run={"threads": 8}),
            fake_source("d", 0.4, model="D", cost=fake_cost(4.0, 10)),
            fake_source("e", 0.5, model="D", seed=1),
            fake_source("f", 0.6, model="E", cost=fake_cost(1.0)),
        ]
    )
    assert table.reference is not None
    assert table.reference.source.name == "b"
    assert [entry.model for entry in table.entries if table.reference.beside(entry)] == ["B", "E"]
    assert _seeds(None).reference is None


def test_markdown_says_why_there_is_no_speed_up() -> None:
    text = to_markdown(build_tables([fake_source("a", model="F|NO", cost=fake_cost(reason="No *such* | <thing>."))]))
    assert r"- F\|NO: No \*such\* \| &lt;thing&gt;." in text.splitlines()
    assert "| speed-up at equal error | break-even rollouts | time per frame at own error |" in text


def test_output_depends_on_the_reports_alone() -> None:
    sources = [fake_source(f"s{i}", 0.1 * i, model=f"m{i}", split=f"split{i % 2}") for i in range(6)]
    first, again = build_tables(sources), build_tables(sources)
    assert to_markdown(first) == to_markdown(again)
    assert to_csv(first) == to_csv(again)


def test_folders_without_reports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none"):
        find_reports([tmp_path])
    with pytest.raises(ValueError, match="Expected a folder"):
        find_reports([tmp_path / "missing"])
