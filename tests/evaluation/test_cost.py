import json
import math
from dataclasses import replace

import numpy as np
import pytest
import xarray
from hypothesis import assume, given
from hypothesis import strategies as st

from pdesurrogate.evaluation.cost import (
    Conditions,
    Performance,
    SolverPoint,
    SolverSweep,
    SpeedUp,
    break_even,
    cost_of,
    data_generation_seconds,
    speed_up,
)
from pdesurrogate.evaluation.report import Report

CONDITIONS = Conditions("abc", "test", 1, 1, 10, 16, "cpu (x)", 1)
ERRORS = st.floats(1e-6, 1.0)
SECONDS = st.floats(1e-6, 10.0)


def setting(error, seconds, resolution=32, steps=4, **details):
    errors = error if isinstance(error, tuple) else (error,)
    return SolverPoint(resolution, steps, 1.0 / steps, "float32", Performance(errors, seconds), **details)


def sweep_of(*pairs):
    """A sweep from (error, seconds)."""
    return SolverSweep(tuple(setting(error, seconds, 8 * (n + 1)) for n, (error, seconds) in enumerate(pairs)))


def power_law(resolutions, order=2.0, dimension=3.0):
    """Errors fall as n^-order, seconds grow as n^dimension: seconds = error^(-dimension / order)."""
    return sweep_of(*((n**-order, n**dimension) for n in resolutions))


# --- the front ---


def test_the_front_is_the_cheapest_setting_at_each_error():
    sweep = sweep_of((0.5, 1.0), (0.6, 2.0), (0.1, 3.0), (0.1, 4.0), (math.nan, 0.1), (0.01, 9.0))
    assert [(p.performance.relative_l2, p.performance.seconds_per_frame) for p in sweep.front] == [
        (0.5, 1.0),
        (0.1, 3.0),
        (0.01, 9.0),
    ]


@given(st.lists(st.tuples(ERRORS, SECONDS), min_size=1, max_size=12))
def test_nothing_beats_the_front(pairs):
    sweep = sweep_of(*pairs)
    front = [(p.performance.relative_l2, p.performance.seconds_per_frame) for p in sweep.front]
    errors, seconds = zip(*front, strict=True)
    assert list(seconds) == sorted(set(seconds))
    assert list(errors) == sorted(set(errors), reverse=True)
    for error, time in pairs:
        assert any(e <= error and s <= time for e, s in front)


# --- speed-up ---


@given(error=st.floats(1 / 120**2, 1 / 9**2), dimension=st.floats(0.5, 4.0), order=st.floats(0.5, 6.0))
def test_a_power_law_is_met_exactly(error, dimension, order):
    error = error ** (order / 2)
    sweep = power_law((8, 16, 40, 128), order, dimension)
    found = speed_up(Performance((error,), 0.25), sweep)
    seconds = error ** (-dimension / order)
    assert not found.at_most
    assert found.relative_l2 == error
    assert found.solver_seconds_per_frame == pytest.approx(seconds, rel=1e-6)
    assert found.value == pytest.approx(seconds / 0.25, rel=1e-6)
    assert len(found.between) == 2


def test_a_point_of_equal_error_is_taken_as_it_is():
    found = speed_up(Performance((0.1,), 0.5), sweep_of((0.4, 1.0), (0.1, 3.0), (0.02, 8.0)))
    assert (found.value, found.at_most, len(found.between)) == (6.0, False, 1)
    coarsest = speed_up(Performance((0.4,), 0.5), sweep_of((0.4, 1.0), (0.1, 3.0)))
    assert (coarsest.value, coarsest.at_most) == (2.0, False)


def test_what_a_better_setting_does_worse_changes_nothing():
    model, best = Performance((0.2,), 1.0), ((0.4, 1.0), (0.1, 4.0))
    dominated = ((0.45, 1.5), (0.19, 4.5), (0.4, 100.0), (0.1, 4.1))
    assert speed_up(model, sweep_of(*best, *dominated)).value == pytest.approx(speed_up(model, sweep_of(*best)).value)


@given(
    pairs=st.lists(st.tuples(ERRORS, SECONDS), min_size=2, max_size=10),
    error=ERRORS,
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_the_settings_does_not_matter(pairs, error, order):
    model = Performance((error,), 1.0)
    one = speed_up(model, sweep_of(*pairs))
    order.shuffle(pairs)
    other = speed_up(model, sweep_of(*pairs))
    assert (one.value, one.at_most, one.interval) == (other.value, other.at_most, other.interval)


@given(pairs=st.lists(st.tuples(ERRORS, SECONDS), min_size=1, max_size=10), error=ERRORS)
def test_the_speed_up_is_never_that_over_a_setting_of_another_error(pairs, error):
    found = speed_up(Performance((error,), 1.0), sweep_of(*pairs))
    as_accurate = [(seconds, other) for other, seconds in pairs if other <= error]
    if not as_accurate:
        assert found.value is None
        assert found.solver_seconds_per_frame is None
        return
    # Never more than what buys the model's error, never less than the best of what is too cheap to buy it.
    enough, best = min(as_accurate)
    assert found.value <= enough * (1 + 1e-9)
    cheaper = [(other, seconds) for other, seconds in pairs if seconds < enough]
    assert found.at_most == (not cheaper and best < error)
    if cheaper:
        assert found.value >= min(cheaper)[1] * (1 - 1e-9)


@given(st.lists(st.tuples(ERRORS, SECONDS), min_size=2, max_size=8), ERRORS, ERRORS)
def test_a_more_accurate_model_of_the_same_speed_gains_at_least_as_much(pairs, one, other):
    fine, coarse = (speed_up(Performance((e,), 1.0), sweep_of(*pairs)) for e in sorted((one, other)))
    assume(fine.value is not None)
    assert coarse.value is not None
    assert fine.value >= coarse.value * (1 - 1e-9)


def test_a_model_worse_than_every_setting_gets_an_upper_bound():
    found = speed_up(Performance((0.9,), 0.5), sweep_of((0.4, 1.0), (0.1, 3.0)))
    assert (found.value, found.at_most, found.interval) == (2.0, True, None)
    assert "larger than that of every setting" in found.reason
    assert "at most the 1 s" in found.reason


def test_a_model_better_than_every_setting_gets_no_number():
    found = speed_up(Performance((0.01,), 0.5), sweep_of((0.4, 1.0), (0.1, 3.0)))
    assert found.value is None
    assert "no setting of the solver is as accurate" in found.reason
    assert "16 points a side" in found.reason


def test_a_model_that_was_stopped_gets_no_number():
    found = speed_up(Performance((math.nan,), 0.5), sweep_of((0.4, 1.0)))
    assert found.value is None
    assert "stopped" in found.reason


def test_settings_that_were_stopped_do_not_count():
    model = Performance((0.2,), 1.0)
    assert "no setting of the solver was stable" in speed_up(model, sweep_of((math.nan, 1.0))).reason
    assert "no setting of the solver was stable" in speed_up(model, SolverSweep(())).reason
    assert speed_up(model, sweep_of((math.nan, 1.0), (0.1, 7.0))).value == 7.0


@pytest.mark.parametrize("own_error", [0.0, 1e-8])
def test_the_setting_that_made_the_data_only_bounds(own_error):
    own = setting(own_error, 50.0, 64, makes_data=True)
    sweep = SolverSweep((setting(0.1, 1.0), own))
    found = speed_up(Performance((0.01,), 0.5), sweep)
    assert (found.value, found.at_most) == (100.0, True)
    assert "made the data" in found.reason
    # With another setting that is as accurate, that one decides.
    decided = speed_up(Performance((0.01,), 0.5), replace(sweep, points=(*sweep.points, setting(0.001, 4.0))))
    assert (decided.value, decided.at_most) == (pytest.approx(4.0), False)
    assert sweep.data_solver is own


def test_a_setting_without_error_bounds_too():
    found = speed_up(Performance((0.01,), 1.0), sweep_of((0.1, 1.0), (0.0, 5.0)))
    assert (found.value, found.at_most) == (5.0, True)


def test_a_perfect_model_is_bounded_by_the_solver_that_made_the_data():
    found = speed_up(Performance((0.0,), 1.0), sweep_of((0.1, 1.0), (0.0, 5.0)))
    assert (found.value, found.at_most) == (5.0, True)
    assert speed_up(Performance((0.0,), 1.0), sweep_of((0.1, 1.0))).value is None


def test_times_that_scatter_are_said():
    def reason(model_scatter, solver_scatter):
        solver = setting(0.1, 2.0)
        solver = replace(solver, performance=replace(solver.performance, time_scatter=solver_scatter))
        unused = setting(0.01, 9.0)
        unused = replace(unused, performance=replace(unused.performance, time_scatter=100.0))
        model = Performance((0.2,), 1.0, time_scatter=model_scatter)
        return speed_up(model, SolverSweep((setting(0.4, 1.0), solver, unused))).reason

    assert "factor 2.5" in reason(1.1, 2.5)
    assert "factor 1.8" in reason(1.8, None)
    assert "scattered" not in reason(1.1, 1.2)


# --- its interval ---


def test_what_is_hard_for_both_is_no_uncertainty():
    difficulty = np.random.default_rng(0).uniform(0.5, 1.5, 12)

    def errors(mean):
        return tuple(mean * difficulty)

    # The mean of the bootstrap moves model and solver alike, so the ratio stays.
    sweep = SolverSweep((setting(errors(0.4), 1.0), setting(errors(0.1), 4.0)))
    found = speed_up(Performance(errors(0.2), 0.5), sweep)
    assert found.interval == pytest.approx((found.value, found.value))


def test_the_interval_of_a_power_law_follows_from_that_of_the_error():
    rng = np.random.default_rng(1)
    errors = 0.2 * rng.lognormal(0.0, 0.2, 400)
    sweep = SolverSweep(tuple(setting((e,) * 400, 1 / e) for e in (1.0, 0.5, 0.1, 0.05)))
    found = speed_up(Performance(tuple(errors), 1.0), sweep)
    spread = errors.std(ddof=1) / math.sqrt(400)
    low, high = found.interval
    assert low < found.value < high
    # Seconds are one over the error; a percentile interval of 1000 draws scatters by about 5 %.
    assert 1 / high == pytest.approx(errors.mean() - 1.96 * spread, abs=0.2 * spread)
    assert 1 / low == pytest.approx(errors.mean() + 1.96 * spread, abs=0.2 * spread)


def test_an_end_beyond_the_sweep_is_open():
    errors = tuple(np.random.default_rng(2).uniform(0.1, 0.3, 10))
    mean = sum(errors) / 10
    near_best = SolverSweep((setting((0.9,) * 10, 1.0), setting((0.99 * mean,) * 10, 2.0)))
    low, high = speed_up(Performance(errors, 1.0), near_best).interval
    assert low is not None
    assert high is None
    near_worst = SolverSweep((setting((1.01 * mean,) * 10, 1.0), setting((0.001,) * 10, 2.0)))
    low, high = speed_up(Performance(errors, 1.0), near_worst).interval
    assert low is None
    assert high is not None


def test_few_trajectories_give_no_interval():
    assert (
        speed_up(
            Performance((0.2,) * 4, 1.0), SolverSweep((setting((0.4,) * 4, 1.0), setting((0.1,) * 4, 2.0)))
        ).interval
        is None
    )


# --- what may be compared ---


@pytest.mark.parametrize("field", ["data", "split", "start_frame", "frames", "batch_size", "device", "threads"])
def test_other_conditions_are_not_compared(field):
    other = replace(CONDITIONS, **{field: "other" if isinstance(getattr(CONDITIONS, field), str) else 99})
    sweep = SolverSweep((replace(setting(0.1, 1.0), performance=Performance((0.1,), 1.0, other)),))
    with pytest.raises(ValueError, match=f"same conditions.*{field}"):
        speed_up(Performance((0.2,), 1.0, CONDITIONS), sweep)


def test_other_trajectories_are_not_compared():
    with pytest.raises(ValueError, match="2 trajectories but a setting was measured on 1"):
        speed_up(Performance((0.2, 0.3), 1.0), sweep_of((0.1, 1.0)))


@pytest.mark.parametrize(("errors", "seconds"), [((), 1.0), ((-0.1,), 1.0), ((0.1,), 0.0), ((0.1,), math.nan)])
def test_impossible_performances_are_refused(errors, seconds):
    with pytest.raises(ValueError, match="Expected"):
        Performance(errors, seconds)


def test_performance_is_the_mean_over_trajectories():
    performance = Performance((0.1, 0.2, 0.6), 1.0)
    assert performance.relative_l2 == pytest.approx(0.3)
    assert performance.relative_l2_spread == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1) / math.sqrt(3))
    assert Performance((0.1, math.nan), 1.0).relative_l2 is None
    assert Performance((0.1, math.nan), 1.0).relative_l2_spread is None
    assert Performance((0.1,), 1.0).relative_l2_spread is None


# --- break-even ---


def gained(solver, model, **details):
    return SpeedUp(solver / model, "", solver_seconds_per_frame=solver, model_seconds_per_frame=model, **details)


@given(
    solver=st.floats(1e-3, 10.0),
    share=st.floats(0.01, 0.9),
    frames=st.integers(1, 200),
    training=st.just(0.0) | st.floats(1e-3, 1e6),
    data=st.just(0.0) | st.floats(1e-3, 1e6),
)
def test_training_and_data_are_paid_back_then_and_not_before(solver, share, frames, training, data):
    model = share * solver
    found = break_even(gained(solver, model), frames, training, data)
    saved = frames * (solver - model)
    assert found.rollouts * saved >= (training + data) * (1 - 1e-9)
    assert (found.rollouts - 1) * saved < (training + data) * (1 + 1e-9) or found.rollouts == 0


@pytest.mark.parametrize("training", [100.0, None])
def test_a_slower_model_never_pays(training):
    found = break_even(gained(0.1, 0.4), 10, training, 50.0)
    assert found.rollouts is None
    assert found.reason.startswith("Never: the solver is faster")


def test_a_bound_of_the_speed_up_is_a_bound_of_the_rollouts():
    found = break_even(gained(0.4, 0.1, at_most=True), 10, 100.0, 50.0)
    assert (found.rollouts, found.at_least) == (50, True)
    assert "at least 50 rollouts" in found.reason


def test_the_interval_goes_with_that_of_the_speed_up():
    found = break_even(gained(0.4, 0.1, interval=(2.0, 6.0)), 10, 100.0, 50.0)
    assert (found.interval, found.rollouts) == ((30, 150), 50)
    assert break_even(gained(0.4, 0.1, interval=(0.5, 6.0)), 10, 100.0, 50.0).interval == (30, None)
    assert break_even(gained(0.4, 0.1, interval=(2.0, None)), 10, 100.0, 50.0).interval == (None, 150)


@pytest.mark.parametrize(
    ("speed", "training", "data", "reason"),
    [
        (SpeedUp(None, "nothing"), 1.0, 1.0, "no speed-up at equal error"),
        (gained(0.4, 0.1), None, 1.0, "no training time"),
        (gained(0.4, 0.1), 1.0, None, "making the data"),
    ],
)
def test_what_is_not_known_is_said(speed, training, data, reason):
    found = break_even(speed, 10, training, data, "Note.")
    assert found.rollouts is None
    assert reason in found.reason
    assert found.reason.endswith("Note.")


@pytest.mark.parametrize(("frames", "training"), [(0, 1.0), (10, -1.0)])
def test_impossible_times_are_refused(frames, training):
    with pytest.raises(ValueError, match="times >= 0"):
        break_even(gained(0.4, 0.1), frames, training, 1.0)


def test_data_cost_what_the_recipe_says():
    recipe = {
        "frames": 20,
        "warm_up": 4.5,
        "trajectories": {"train": 128, "val": 16, "test": 16},
        "simulator": {"init_args": {"frame_interval": 0.25}},
    }
    assert data_generation_seconds(recipe, 2.0) == pytest.approx(144 * (18 + 19) * 2.0)


# --- all together ---


def report_of(kind="surrogate", training=None, recipe=None, errors=(0.2,), seconds=0.5, device="cpu (x)"):
    curve = np.tile(np.array(errors)[:, None, None], (1, 10, 2)) * np.linspace(0.5, 1.5, 10)[:, None]
    attributes = {
        "model": {"kind": kind, "training": training},
        "data": {
            "name": "n",
            "content_hash": "abc",
            "split": "test",
            "trajectories": len(errors),
            "start_frame": 1,
            "frames": 10,
            "recipe": recipe,
        },
        "run": {"batch_size": 16, "device": device, "threads": 1, "processes": 1, "seconds_per_frame": seconds},
    }
    curves = xarray.Dataset({"relative_l2": (("trajectory", "lead_time", "channel"), curve)})
    return Report(attributes, curves)


RECIPE = {
    "frames": 11,
    "warm_up": 0.0,
    "trajectories": {"train": 4, "val": 1, "test": 1},
    "simulator": {"init_args": {"frame_interval": 0.25}},
}
TRAINING = {"wall_time_s": 100.0, "device": "cpu"}


def test_performance_from_reports_is_the_shortest_time_of_equal_conditions():
    performance = Performance.of_reports([report_of(seconds=s, errors=(0.1, 0.3)) for s in (0.7, 0.4, 0.9)])
    assert performance.errors == pytest.approx((0.1, 0.3))
    assert performance.seconds_per_frame == 0.4
    assert performance.time_scatter == pytest.approx(0.9 / 0.4)
    assert Performance.of_reports([report_of()]).time_scatter is None
    assert performance.conditions == replace(CONDITIONS, trajectories=2)
    with pytest.raises(ValueError, match=r"same conditions.*device"):
        Performance.of_reports([report_of(), report_of(device="cuda")])
    with pytest.raises(ValueError, match="at least one report"):
        Performance.of_reports([])


def full_sweep():
    points = (setting(0.4, 1.0, 16), setting(0.1, 4.0, 32), setting(1e-7, 8.0, 64, makes_data=True))
    points = tuple(replace(p, performance=replace(p.performance, conditions=CONDITIONS)) for p in points)
    return SolverSweep(points, ((8, "unstable"),), "as it is")


def test_the_cost_of_a_surrogate_in_a_report():
    report = report_of(training=TRAINING, recipe=RECIPE)
    cost = cost_of(report, Performance.of_reports([report]), full_sweep(), peak_memory_bytes=10, module_bytes=4)
    values = cost.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["speed_up"]["value"] == pytest.approx(4.0)
    # 5 trajectories of 10 frame intervals at 8 s; (100 + 400) / (10 (2 - 0.5)).
    assert values["break_even"]["data_seconds"] == pytest.approx(400.0)
    assert values["break_even"]["rollouts"] == 34
    assert values["break_even"]["reason"].endswith("Times at batch size 16 on cpu (x).")
    assert [point["resolution"] for point in values["sweep"]["points"]] == [16, 32, 64]
    assert values["sweep"]["skipped"] == [{"resolution": 8, "reason": "unstable"}]
    assert (values["peak_memory_bytes"], values["module_bytes"], values["seconds_per_frame"]) == (10, 4, 0.5)


def test_training_on_another_device_is_said():
    report = report_of(training={"wall_time_s": 100.0, "device": "cuda"}, recipe=RECIPE)
    cost = cost_of(report, Performance.of_reports([report]), full_sweep())
    assert cost.break_even.reason.endswith("on cpu (x), but the training on cuda.")


def test_without_a_sweep_there_are_reasons_and_no_numbers():
    report = report_of(training=TRAINING)
    cost = cost_of(report, Performance.of_reports([report]), None, without_sweep="the data carry no recipe")
    values = cost.to_dict()
    assert values["sweep"] is None
    assert values["speed_up"]["value"] is None
    assert "carry no recipe" in values["speed_up"]["reason"]
    assert values["break_even"]["rollouts"] is None
    assert values["break_even"]["reason"]


def test_a_solver_has_nothing_to_pay_back():
    report = report_of(kind="solver", recipe=RECIPE)
    cost = cost_of(report, Performance.of_reports([report]), full_sweep())
    assert cost.speed_up.value == pytest.approx(4.0)
    assert cost.break_even.rollouts is None
    assert "Nothing was trained" in cost.break_even.reason


def test_report_and_performance_belong_together():
    report = report_of(training=TRAINING)
    with pytest.raises(ValueError, match="same conditions"):
        cost_of(report, Performance((0.2,), 1.0, replace(CONDITIONS, frames=3)), None)
