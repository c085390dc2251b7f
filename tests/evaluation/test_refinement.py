"""Measuring a refiner after every iteration: what the numbers are, what times are of, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from refining import BLOCK, HISTORY, tiny_archive, tiny_surrogate

from pdesurrogate.evaluation import refinement
from pdesurrogate.evaluation.evaluator import Evaluator
from pdesurrogate.evaluation.recipes import equation_solver
from pdesurrogate.evaluation.refinement import RefinementTrial
from pdesurrogate.evaluation.refinement_report import add_refinement, add_solver
from pdesurrogate.evaluation.report import Report
from pdesurrogate.evaluation.same_equation import require_same_equation
from pdesurrogate.fields.batch import collate
from pdesurrogate.metrics.errors import ErrorMetric
from pdesurrogate.simulators.forcing import KolmogorovForcing
from pdesurrogate.simulators.navier_stokes import NavierStokes2d
from pdesurrogate.steppers.refinement.descent import LBFGS, Adam
from pdesurrogate.steppers.refinement.newton import Newton
from pdesurrogate.steppers.refinement.residuals import AnalyticResidual, Defect, SelfStartedResidual
from pdesurrogate.steppers.resampled import Resampled
from pdesurrogate.steppers.rollout import rollout
from pdesurrogate.steppers.spectral_refiner import OUTCOMES, SpectralRefiner

# Frames are given and compared in single precision.
ROUND_OFF = float(torch.finfo(torch.float32).eps)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return tiny_archive(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def trajectories(archive):
    return archive.trajectories("test")


@pytest.fixture(scope="module")
def refiner_of(archive):
    """``refiner_of(method, steps_per_frame=..., window=...)``: of the untrained surrogate, with the data's solver."""

    @lru_cache
    def march_of(**changes):
        return equation_solver(archive.metadata, (16, 16), **changes)

    def refiner(method=None, residual=None, window=None, tolerance=1e-9, surrogate=None, **changes):
        march = march_of(**changes)
        return SpectralRefiner(
            tiny_surrogate(archive.metadata) if surrogate is None else surrogate,
            march,
            Newton(iterations=5) if method is None else method,
            Defect(march, archive.metadata) if residual is None else residual,
            tolerance=tolerance,
            window=window,
        )

    return refiner


def measured(refiner, trajectories, **options):
    trial = RefinementTrial(refiner, trajectories, **options)
    trial.measure(timed=1)
    return trial, trial.measured()


def errors_alone(plan):
    """The suite of an evaluator."""
    return {"errors": ErrorMetric(plan)}


def errors_of(stepper, trajectories, frames=BLOCK, start_frame=HISTORY):
    """Mean relative L2 of each trajectory, as any evaluation finds it."""
    evaluator = Evaluator(errors_alone)
    report = evaluator(stepper, trajectories, frames, start_frame=start_frame)
    return report.curves["relative_l2"].values.mean((1, 2))


# --- what the numbers are ---


@pytest.mark.parametrize("start_frame", [HISTORY, 7])
def test_the_first_iteration_is_the_surrogate_and_the_last_the_refiner(refiner_of, trajectories, start_frame):
    trial, found = measured(refiner_of(Newton(iterations=1)), trajectories, start_frame=start_frame)
    alone, refined = (
        errors_of(stepper, trajectories, start_frame=start_frame) for stepper in (trial.surrogate, trial.stepper)
    )
    np.testing.assert_allclose(found.relative_l2[:, 0], alone, rtol=4 * ROUND_OFF)
    np.testing.assert_allclose(found.relative_l2[:, -1], refined, rtol=4 * ROUND_OFF)
    assert found.frames == BLOCK
    assert (refined < 0.5 * alone).all()


def test_newton_with_the_solver_of_the_data_comes_to_the_data(refiner_of, trajectories):
    _, found = measured(refiner_of(), trajectories)
    assert (found.relative_l2[:, 0] > 0.1).all()
    assert (found.relative_l2[:, -1] < ROUND_OFF).all()
    assert found.solver.relative_l2 < ROUND_OFF


def test_newton_with_a_worse_solver_comes_to_the_error_of_that(refiner_of, trajectories):
    refiner = refiner_of(steps_per_frame=1, scheme="pdesurrogate.simulators.time_schemes.RK2CrankNicolson")
    _, found = measured(refiner, trajectories)
    np.testing.assert_allclose(found.relative_l2[:, -1], found.solver.errors, rtol=0, atol=ROUND_OFF)
    assert min(found.solver.errors) > 100 * ROUND_OFF
    assert "time_step=0.1, scheme=RK2CrankNicolson" in found.solver_description


def test_the_solver_is_the_march_from_the_last_given_frame(refiner_of, trajectories):
    refiner = refiner_of(steps_per_frame=1)
    _, found = measured(refiner, trajectories, start_frame=6)
    np.testing.assert_allclose(
        found.solver.errors, errors_of(refiner.march, trajectories, start_frame=6), rtol=1e-3, atol=ROUND_OFF
    )


@pytest.mark.parametrize("method", ["newton", "lbfgs", "adam", "analytic", "released"])
def test_the_residual_never_grows_whatever_the_method(refiner_of, archive, trajectories, method):
    metadata = archive.metadata
    methods = {
        "newton": (Newton(iterations=3), None),
        "lbfgs": (LBFGS(iterations=4), None),
        # Steps so long that many make it worse.
        "adam": (Adam(iterations=8, bias_rate=0.3), None),
        "analytic": (LBFGS(iterations=4), AnalyticResidual(metadata)),
        "released": (Adam(iterations=4, compat="torch-cfd"), SelfStartedResidual(metadata)),
    }
    _, found = measured(refiner_of(*methods[method], tolerance=0.0), trajectories)
    assert (np.diff(found.residual, axis=1) <= 0).all()
    assert found.residual.shape == (3, methods[method][0].iterations + 1)
    own = method in ("newton", "lbfgs", "adam")
    assert np.array_equal(found.defect, found.residual) == own


def test_the_defect_is_that_of_the_frames_that_are_kept(refiner_of, archive, trajectories):
    refiner = refiner_of(LBFGS(iterations=3), AnalyticResidual(archive.metadata))
    _, found = measured(refiner, trajectories, start_frame=6)
    history = torch.stack([one.read(6 - HISTORY, 6) for one in trajectories])
    context = collate([one.context for one in trajectories])
    *_, last = refiner.iterates(history, context)
    frames = torch.cat([history[:, -1:].double(), last.frames], 1)
    defect = Defect(refiner.march, archive.metadata)
    stepped = torch.cat([refiner.march.step(frames[:, [j]], context) for j in range(BLOCK)], 1)
    size = defect.size((frames[:, 1:] - stepped) / archive.metadata.frame_interval)
    np.testing.assert_allclose(found.defect[:, -1], size, rtol=1e-9)
    np.testing.assert_allclose(found.residual[:, -1], last.size, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_batches_of_any_size_give_the_same(refiner_of, trajectories, batch_size):
    trial, found = measured(refiner_of(Newton(iterations=2)), trajectories, batch_size=batch_size)
    _, whole = measured(refiner_of(Newton(iterations=2)), trajectories)
    # The surrogate's single precision may round otherwise in another batch.
    for name in ("relative_l2", "residual"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.solver.errors, whole.solver.errors, rtol=0, atol=ROUND_OFF)
    np.testing.assert_array_equal(found.outcome, whole.outcome)
    assert trial.batch_size == batch_size


def test_on_a_finer_grid_everything_is_measured_on_that_of_the_data(archive, trajectories):
    march = equation_solver(archive.metadata, (24, 24))
    refiner = SpectralRefiner(Resampled(tiny_surrogate(archive.metadata), 16), march, Newton(iterations=5))
    trial, found = measured(refiner, trajectories, resolution=24)
    np.testing.assert_allclose(found.relative_l2[:, 0], errors_of(trial.surrogate, trajectories), rtol=4 * ROUND_OFF)
    np.testing.assert_allclose(found.relative_l2[:, -1], errors_of(Resampled(march, 24), trajectories), rtol=1e-3)
    # The solver to compare with keeps the waves that the grid of the data lacks, as the refinement does.
    np.testing.assert_allclose(found.solver.errors, found.relative_l2[:, -1], rtol=1e-4)
    # That grid has waves that the solver of the data has not.
    assert (found.relative_l2[:, -1] > 10 * ROUND_OFF).all()


def test_on_a_finer_grid_the_swept_solver_stays_there_until_the_end(tmp_path):
    data = tiny_archive(tmp_path, stored=8)
    trajectories, march = data.trajectories("test"), equation_solver(data.metadata, (16, 16))
    refiner = SpectralRefiner(Resampled(tiny_surrogate(data.metadata), 8), march, Newton(iterations=1))
    trial, found = measured(refiner, trajectories, resolution=16)
    report = add_refinement(Evaluator(errors_alone)(trial.replayed, trajectories, BLOCK), trial, {})
    beside = add_solver(report, trial, data.trajectories("val"), (16,), rounds=1)
    points = beside.attributes["refinement"]["sweep"]["points"]
    assert min(point["relative_l2"] for point in points) == pytest.approx(found.solver.relative_l2, rel=1e-3)
    # Cut to the grid of the data after every frame it would do worse.
    assert errors_of(Resampled(march, 16), trajectories).mean() > 1.05 * found.solver.relative_l2


def test_a_window_may_be_another_than_the_networks(refiner_of, trajectories):
    _, found = measured(refiner_of(window=7), trajectories)
    assert found.frames == 7
    assert (found.relative_l2[:, -1] < ROUND_OFF).all()


# --- trajectories that end early ---


class Shrinking:
    """Divides the defect of each sample by its own factor, an iteration after the other."""

    patience = 1

    def __init__(self, factors, iterations=4):
        self.factors = torch.tensor(factors, dtype=torch.float64)[:, None, None, None, None]
        self.iterations = iterations

    def begin(self, problem):
        state = Newton().begin(problem)
        return _Shrunk(state.frames, state.residual, self.factors)

    def advance(self, problem, state):
        return _Shrunk(state.frames, state.residual / state.factor, state.factor)


class _Shrunk(tuple):
    _fields = ("frames", "residual", "factor")

    def __new__(cls, *parts):
        return super().__new__(cls, parts)

    frames, residual, factor = (property(lambda self, place=place: self[place]) for place in range(3))


def test_each_trajectory_ends_in_its_own_way(refiner_of, trajectories):
    # The second grows at once, but counts as lost only when it is ten times the first.
    method = Shrinking([1e12, 1e-2, 2.0])
    trial, found = measured(refiner_of(method), trajectories)
    assert found.outcomes == [
        {"trajectory": 0, "outcome": "converged", "iteration": 1},
        {"trajectory": 1, "outcome": "diverged", "iteration": 1},
        {"trajectory": 2, "outcome": "exhausted", "iteration": 4},
    ]
    # After its end, and where nothing better came, the last values stand.
    assert (found.residual[1] == found.residual[1, 0]).all()
    assert (found.residual[0, 1:] == found.residual[0, 1]).all()
    np.testing.assert_allclose(found.residual[2], found.residual[2, 0] / 2.0 ** np.arange(5))
    assert [OUTCOMES[code] for code in found.outcome[2]] == ["refining"] * 4 + ["exhausted"]
    assert len(found.performances) == 5
    refined = add_refinement(Evaluator(errors_alone)(trial.stepper, trajectories, BLOCK), trial, {})
    assert refined.attributes["refinement"]["outcomes"] == found.outcomes


def test_what_is_all_done_early_keeps_its_time(refiner_of, trajectories):
    _, found = measured(refiner_of(Shrinking([1e12] * 3)), trajectories)
    seconds = [each.seconds_per_frame for each in found.performances]
    assert seconds[1] == seconds[2] == seconds[4]


# --- times ---


class Ticking:
    """A clock that only the work of solver and surrogate moves, and that of the first call a lot."""

    def __init__(self):
        self.now, self.first = 0.0, 100.0

    def perf_counter(self):
        return 1e-3 * self.now

    def work(self, amount):
        self.now += amount + self.first
        self.first = 0.0

    def solver(self, march):
        clock = self

        class Solver(torch.nn.Module):
            def step(self, history, context):
                clock.work(1.0)
                return march.step(history, context)

            def step_tangent(self, history, direction, context):
                clock.work(2.0)
                return march.step_tangent(history, direction, context)

        return Solver()

    def surrogate(self, surrogate):
        clock = self

        class Predicting(torch.nn.Module):
            history_frames = surrogate.history_frames
            metadata = surrogate.metadata

            def step(self, history, context):
                clock.work(5.0)
                return surrogate.step(history, context)

        return Predicting()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_times_are_of_the_refining_alone_and_not_of_the_very_first_batch(
    archive, trajectories, monkeypatch, batch_size
):
    clock = Ticking()
    monkeypatch.setattr(refinement, "time", clock)
    march = clock.solver(equation_solver(archive.metadata, (16, 16)))
    surrogate = clock.surrogate(tiny_surrogate(archive.metadata))
    # The block is known, so that nothing is done before the first batch.
    refiner = SpectralRefiner(surrogate, march, Newton(iterations=2), tolerance=0.0, window=BLOCK)
    trial = RefinementTrial(refiner, trajectories, batch_size=batch_size)
    trial.measure()
    found = trial.measured()
    share = 1e-3 / (batch_size * BLOCK)
    # The first defect is a step of all frames side by side; an iteration is three tangents and another defect.
    expected = [5.0, 5 + 1 + 7, 5 + 1 + 14]
    np.testing.assert_allclose([each.seconds_per_frame for each in found.performances], np.multiply(expected, share))
    np.testing.assert_allclose(found.solver.seconds_per_frame, BLOCK * share)


def test_a_defect_that_is_only_measured_costs_nothing(archive, trajectories, monkeypatch):
    clock = Ticking()
    monkeypatch.setattr(refinement, "time", clock)
    march = clock.solver(equation_solver(archive.metadata, (16, 16)))
    refiner = SpectralRefiner(
        tiny_surrogate(archive.metadata), march, LBFGS(iterations=2), AnalyticResidual(archive.metadata)
    )
    clock.first = 0.0
    trial = RefinementTrial(refiner, trajectories)
    trial.again()
    # A time must be positive: a moment each is not of the march.
    batch = trial._refined(range(3), lambda iterations: None)
    np.testing.assert_allclose(batch.seconds, [0.0, 0.0, 0.0, 1e-3 * BLOCK], rtol=1e-12)


def test_progress_counts_all_iterations_to_the_end(refiner_of, trajectories):
    told = []
    trial = RefinementTrial(refiner_of(Newton(iterations=3), tolerance=0.5), trajectories, batch_size=2)
    trial.measure(progress=lambda done, parts: told.append((done, parts)))
    done, parts = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert set(parts) == {18}  # three iterations of two batches, three times
    assert done[-1] == 18


def test_what_takes_long_is_measured_once(refiner_of, trajectories, monkeypatch):
    monkeypatch.setattr(refinement, "_LONG", 0.0)
    trial = RefinementTrial(refiner_of(Newton(iterations=1)), trajectories)
    told = []
    trial.measure(progress=lambda done, parts: told.append((done, parts)))
    assert trial.measured().performances[-1].time_scatter is None
    assert told[-1] == (3, 3)


# --- a replay for the evaluation ---


class Counting(Newton):
    """Counts its iterations."""

    done = 0

    def advance(self, problem, state):
        self.done += len(state.frames)
        return super().advance(problem, state)


def test_a_replay_gives_what_the_refiner_gives_and_works_for_the_memory_alone(refiner_of, trajectories):
    method = Counting(iterations=1)
    trial, _ = measured(refiner_of(method), trajectories, batch_size=2)
    evaluator = Evaluator(errors_alone, batch_size=2)
    before = method.done
    replayed = evaluator(trial.replayed, trajectories, BLOCK)
    assert method.done - before == 2
    again = evaluator(trial.stepper, trajectories, BLOCK)
    assert replayed.attributes["scores"] == again.attributes["scores"]
    assert replayed.curves.equals(again.curves)
    for key in ("peak_memory_bytes", "module_bytes"):
        assert replayed.attributes["cost"][key] == again.attributes["cost"][key]


@pytest.mark.parametrize(("batch_size", "start_frame"), [(3, HISTORY), (2, 6)])
def test_what_was_not_made_is_not_replayed(refiner_of, trajectories, batch_size, start_frame):
    trial, _ = measured(refiner_of(Newton(iterations=1)), trajectories, batch_size=2)
    evaluator = Evaluator(errors_alone, batch_size=batch_size)
    replayed, again = (
        evaluator(stepper, trajectories, BLOCK, start_frame=start_frame) for stepper in (trial.replayed, trial.stepper)
    )
    assert replayed.curves.equals(again.curves)


# --- the report ---


@pytest.fixture(scope="module")
def reported(archive, tmp_path_factory):
    """Trial and report, with the solver beside it."""
    march = equation_solver(archive.metadata, (16, 16))
    refiner = SpectralRefiner(tiny_surrogate(archive.metadata), march, Newton(iterations=3))
    trial = RefinementTrial(refiner, archive.trajectories("test"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trial.measure()
    plain = Evaluator(errors_alone)(trial.replayed, archive.trajectories("test"), BLOCK)
    settings = {"method": {"name": "newton"}, "residual": {"name": "defect"}, "march": {"class_path": "a.b"}}
    report = add_refinement(plain, trial, settings)
    told = []
    beside = add_solver(
        report, trial, archive.trajectories("val"), (8, 16), rounds=2, progress=lambda *part: told.append(part)
    )
    torch.set_num_threads(threads)
    return trial, plain, report, beside, told


def test_the_entry_says_everything_and_fits_the_schema(reported, tmp_path):
    trial, _, report, beside, _ = reported
    for one in (report, beside):
        loaded = Report.load(one.save(tmp_path))
        entry = loaded.attributes["refinement"]
        assert entry["frames"] == BLOCK
        assert entry["method"] == {"name": "newton"}
        assert [row["iteration"] for row in entry["iterations"]] == [0, 1, 2, 3]
        found = trial.measured()
        np.testing.assert_allclose([row["relative_l2"] for row in entry["iterations"]], found.relative_l2.mean(0))
        np.testing.assert_allclose([row["residual"] for row in entry["iterations"]], found.residual.mean(0))
        np.testing.assert_allclose(loaded.curves["refined_relative_l2"], found.relative_l2)
        np.testing.assert_allclose(loaded.curves["refined_residual"], found.residual)
        assert loaded.curves["refined_outcome"].attrs["flag_meanings"] == " ".join(OUTCOMES)
        assert loaded.curves["refined_residual"].attrs["units"] == "1/time"
    assert report.attributes["refinement"]["sweep"] is None
    assert all(row["speed_up"] is None and row["reason"] for row in report.attributes["refinement"]["iterations"])


def test_the_times_of_a_replay_are_those_of_the_trial(reported):
    trial, plain, report, _, _ = reported
    seconds = report.attributes["refinement"]["iterations"][-1]["seconds_per_frame"]
    assert report.attributes["run"]["seconds_per_frame"] == seconds
    assert report.attributes["cost"]["seconds_per_frame"] == seconds
    assert report.attributes["run"]["wall_time_s"] == plain.attributes["run"]["wall_time_s"] + trial.seconds
    assert seconds > 10 * plain.attributes["run"]["seconds_per_frame"]
    assert report.attributes["cost"]["peak_memory_bytes"] == plain.attributes["cost"]["peak_memory_bytes"]


def test_a_report_of_more_frames_keeps_its_own_times(reported, archive):
    trial = reported[0]
    longer = Evaluator(errors_alone)(trial.surrogate, archive.trajectories("test"), 2 * BLOCK)
    report = add_refinement(longer, trial, {})
    assert report.attributes["run"] == longer.attributes["run"]
    assert report.attributes["cost"] == longer.attributes["cost"]


def test_every_iteration_stands_beside_the_solver_at_its_error(reported):
    trial, _, _, beside, told = reported
    entry = beside.attributes["refinement"]
    points = entry["sweep"]["points"]
    assert {point["resolution"] for point in points} == {8, 16}
    for row in entry["iterations"]:
        assert row["reason"]
        if row["speed_up"] is not None:
            assert row["speed_up"] == pytest.approx(row["solver_seconds_per_frame"] / row["seconds_per_frame"])
    # At the end only the solver of the data is as accurate: that of the sweep, or the residual's own, which is it too.
    last = entry["iterations"][-1]
    (made,) = (point["seconds_per_frame"] for point in points if point["makes_data"])
    assert last["at_most"]
    assert last["solver_seconds_per_frame"] == min(made, entry["solver"]["seconds_per_frame"])
    assert beside.attributes["cost"]["speed_up"]["value"] == last["speed_up"]
    assert beside.attributes["cost"]["sweep"]["points"]
    assert told[-1][0] == told[-1][1]
    assert trial.measured().performances[-1].time_scatter >= 1


def test_a_solver_of_ones_own_is_one_more_setting(refiner_of, archive, trajectories):
    refiner = refiner_of(steps_per_frame=2)
    trial, found = measured(refiner, trajectories)
    report = add_refinement(Evaluator(errors_alone)(trial.replayed, trajectories, BLOCK), trial, {})
    beside = add_solver(report, trial, archive.trajectories("val"), (8,), rounds=1)
    entry = beside.attributes["refinement"]
    # The refinement ends at its error, but for what the last iteration left, and is measured against its time.
    last = entry["iterations"][-1]
    assert last["relative_l2"] == pytest.approx(found.solver.relative_l2, rel=1e-3)
    assert "16 points a side, 2 steps a frame" in last["reason"]
    assert last["solver_seconds_per_frame"] <= entry["solver"]["seconds_per_frame"]


def test_a_solver_of_another_scheme_is_not_the_one_that_made_the_data(refiner_of, archive, trajectories):
    trial, _ = measured(refiner_of(scheme="pdesurrogate.simulators.time_schemes.RK2CrankNicolson"), trajectories)
    report = add_refinement(Evaluator(errors_alone)(trial.replayed, trajectories, BLOCK), trial, {})
    beside = add_solver(report, trial, archive.trajectories("val"), (8,), rounds=1)
    last = beside.attributes["refinement"]["iterations"][-1]
    assert last["relative_l2"] > 10 * ROUND_OFF
    assert "measured at 16 points a side, 4 steps a frame" in last["reason"]


def test_without_finite_numbers_there_are_none(refiner_of, archive, trajectories):
    surrogate = tiny_surrogate(archive.metadata)
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.fill_(math.nan)
    trial, found = measured(refiner_of(Newton(iterations=2), surrogate=surrogate), trajectories)
    assert found.outcomes == [{"trajectory": n, "outcome": "diverged", "iteration": 0} for n in range(3)]
    report = add_refinement(Evaluator(errors_alone)(trial.replayed, trajectories, BLOCK), trial, {})
    assert all(row["relative_l2"] is None for row in report.attributes["refinement"]["iterations"])


# --- what is refused ---


def changed(trajectories, number=1, times=None, **context):
    """The trajectories with another time or context in one of them."""
    listed = [trajectories[place] for place in range(len(trajectories))]
    one = listed[number]
    listed[number] = replace(one, times=one.times if times is None else times, context=one.context._replace(**context))
    return listed


def source(size, wavenumber=2, amplitude=1.0):
    points = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    return KolmogorovForcing(wavenumber, amplitude).vorticity_source(
        *torch.meshgrid(points, points, indexing="ij"), (2 * math.pi, 2 * math.pi)
    )[None]


def test_a_solver_of_the_data_is_taken(archive, trajectories):
    march = equation_solver(archive.metadata, (16, 16))
    require_same_equation(march, trajectories)
    require_same_equation(Resampled(march, 16), trajectories)
    forced = NavierStokes2d(16, 1e-2, 0.1, 4, forcing=KolmogorovForcing(2))
    for size in (16, 32):
        require_same_equation(forced, [changed(trajectories, number=0, forcing=source(size))[0]])
    # Times in single precision are off by their round-off.
    single = trajectories[1].times.float().double()
    require_same_equation(march, changed(trajectories, times=single + 100.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"viscosity": 2e-2}, "Expected the viscosity 0.02 of the solver but trajectory 0 states 0.01"),
        ({"drag": 0.1}, "Expected the drag 0.1 of the solver but trajectory 0 states 0"),
        ({"frame_interval": 0.2}, "Expected frames 0.2 apart but data set 'tiny' has 0.1"),
        ({"length": 1.0}, "Expected periods"),
    ],
)
def test_a_solver_of_another_equation_is_refused(archive, trajectories, changes, message):
    with pytest.raises(ValueError, match=message):
        require_same_equation(equation_solver(archive.metadata, (16, 16), **changes), trajectories)


@pytest.mark.parametrize(
    ("ours", "given", "message"),
    [
        (None, source(16), "Expected no forcing, as the solver has none, but trajectory 0 has one"),
        (KolmogorovForcing(2), source(16, 3), "that of trajectory 0 is another"),
        (KolmogorovForcing(2), source(16, 2, 1.1), "that of trajectory 0 is another"),
        (KolmogorovForcing(2), 0 * source(16), "that of trajectory 0 is another"),
        # The recipe of the data states none.
        (KolmogorovForcing(2), None, "that of trajectory 0 is another"),
        (KolmogorovForcing(2), source(16)[0], r"forcing \(1, 16, 16\) but that of trajectory 0 is \(16, 16\)"),
    ],
)
def test_another_forcing_is_refused(trajectories, ours, given, message):
    march = NavierStokes2d(16, 1e-2, 0.1, 4, forcing=ours)
    with pytest.raises(ValueError, match=message):
        require_same_equation(march, changed(trajectories, number=0, forcing=given))


def test_frames_at_uneven_times_are_refused(archive, trajectories):
    march = equation_solver(archive.metadata, (16, 16))
    times = trajectories[1].times.clone()
    times[5:] += 0.05
    with pytest.raises(ValueError, match=r"Expected frames 0.1 apart but frames 4 and 5 of trajectory 1 are 0.15"):
        require_same_equation(march, changed(trajectories, times=times))
    with pytest.raises(ValueError, match=r"frames 0 and 1 of trajectory 1 are 0.2 apart"):
        require_same_equation(march, changed(trajectories, times=2 * trajectories[1].times))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch size of at least one but got 0"),
        ({"start_frame": HISTORY - 1}, "start_frame of at least 4, the frames of history"),
        ({"start_frame": 11}, "Expected 4 frames to refine from frame 11 on but a trajectory has 14"),
        ({"start_frame": 14}, "Expected some frames to refine from frame 14 on"),
    ],
)
def test_a_trial_that_cannot_be_made_is_refused(refiner_of, trajectories, options, message):
    with pytest.raises(ValueError, match=message):
        RefinementTrial(refiner_of(), trajectories, **options)


def test_nothing_to_refine_is_refused(refiner_of, trajectories):
    with pytest.raises(ValueError, match="split is empty"):
        RefinementTrial(refiner_of(), [])
    with pytest.raises(ValueError, match="Expected 11 frames to refine"):
        RefinementTrial(refiner_of(window=11), trajectories)
    with pytest.raises(ValueError, match="at least one batch"):
        RefinementTrial(refiner_of(), trajectories).measure(timed=0)


def test_a_march_as_long_as_the_window_is_timed_frame_by_frame(refiner_of, trajectories):
    # The solver's frames are those of a rollout, one after the other.
    refiner = refiner_of(window=2)
    history = torch.stack([one.read(3, 4) for one in trajectories]).double()
    context = collate([one.context for one in trajectories])
    frames = torch.cat(list(rollout(refiner.march, history, context, 2)), 1)
    truth = torch.stack([one.read(4, 6) for one in trajectories]).double()
    _, found = measured(refiner, trajectories)
    errors = ((frames - truth).flatten(2).norm(dim=2) / truth.flatten(2).norm(dim=2)).mean(1)
    np.testing.assert_allclose(found.solver.errors, errors, rtol=0, atol=ROUND_OFF)
