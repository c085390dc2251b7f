"""Long runs: interrupted and continued to the same bytes, watched on the way, and nothing is lost when they fail."""

from __future__ import annotations

import csv
import errno
import json
import math
import warnings
from functools import cache

import pytest
import torch
import yaml
from watched_flow import WatchedFlow, watched_recipe

import pdesurrogate.simulators.generation.restart as restart_module
from pdesurrogate.data.archive import Archive
from pdesurrogate.simulators.generation.restart import FROM_RESTART, FromRestart, RestartFiles
from pdesurrogate.simulators.recipe import content_hash, generate, merge_statistics, parse_recipe


@cache
def parsed(text):
    """To parse a recipe takes longer than to run this one."""
    return parse_recipe(json.loads(text))


def make(folder, progress=None, interval=0.0, watch=None, **changes):
    recipe, plain = parsed(json.dumps(watched_recipe(**changes)))
    return generate(recipe, plain, folder, progress=progress, restart_interval=interval, watch=watch)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class Interrupted(Exception):
    pass


def stop_after(count):
    """A `watch` that stops a run when it is called for the ``count``-th time."""
    calls = 0

    def watch(seen):
        nonlocal calls
        calls += 1
        if calls > count:
            raise Interrupted

    return watch


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    make(folder, interval=math.inf)
    return files(folder)


def test_archive_log_and_statistics_lie_side_by_side_and_no_restart_is_left(whole):
    assert sorted(whole) == ["recipe.yaml", "statistics.nc", "train.log.csv", "train.nc", "val.log.csv", "val.nc"]


@pytest.mark.parametrize("interval", [0.0, math.inf], ids=["after every stop", "after the warm-up only"])
@pytest.mark.parametrize("calls", [2, 7, 12])
def test_an_interrupted_run_continues_to_the_same_bytes(tmp_path, whole, calls, interval):
    for _ in range(60):
        try:
            make(tmp_path, watch=stop_after(calls), interval=interval)
            break
        except Interrupted:
            pass
        if interval == math.inf:  # what is stopped each time at the same place gets nowhere
            calls += 3
    else:
        pytest.fail("the run made no progress")
    assert files(tmp_path) == whole


def test_between_frames_the_state_keeps_the_precision_of_the_solver(tmp_path):
    recipe, plain = parse_recipe(watched_recipe())
    with pytest.raises(Interrupted):
        generate(recipe, plain, tmp_path, watch=stop_after(5), restart_interval=0.0)
    generate(recipe, plain, tmp_path)
    assert recipe.simulator.dtypes == {torch.float64}


def test_what_is_stored_and_where_comes_from_the_reduction(tmp_path):
    make(tmp_path)
    archive = Archive(tmp_path)
    trajectory = archive.trajectories("train")[0]
    assert archive.metadata.channel_names == ("value",)
    assert trajectory.shape == (6, 1, 4, 3)
    assert torch.allclose(trajectory.context.coordinates[1].double() * 36, torch.tensor([1.25, 9.25, 25.25]).double())


def test_without_a_reduction_walls_stand_where_the_simulator_says(tmp_path):
    make(tmp_path, reduction=None, statistics=None, flow={"points": 5})
    trajectory = Archive(tmp_path).trajectories("val")[0]
    assert trajectory.shape == (6, 2, 4, 5)
    assert torch.allclose(trajectory.context.coordinates[1], WatchedFlow(5).coordinates[1].float())


def test_the_log_has_a_row_for_each_trajectory_at_each_look(whole):
    rows = list(csv.DictReader(whole["train.log.csv"].decode().splitlines()))
    assert list(rows[0]) == ["trajectory", "step", "time", "cfl", "energy"]
    steps = [0, 4, 8, 10, 14, 18, 22, 26, 30]
    expected = [(n, step) for block in ((0, 1), (2,)) for step in steps for n in block]
    assert [(int(row["trajectory"]), int(row["step"])) for row in rows] == expected
    assert all(float(row["time"]) == pytest.approx(0.1 * int(row["step"])) for row in rows)
    assert all(float(row["cfl"]) == pytest.approx(0.1 * int(row["step"])) for row in rows)


def test_statistics_are_those_of_all_states_between_frames(whole):
    found = json.loads(whole["statistics.nc"])
    recipe, _ = parse_recipe(watched_recipe())
    assert found["count"] == (3 + 1) * (5 * 4 // 2 + 1)
    assert 0.1 < found["total"] / found["count"] / math.prod(recipe.simulator.shape) < 0.9


def test_shards_have_logs_and_statistics_of_their_own(tmp_path):
    recipe, plain = parsed(json.dumps(watched_recipe()))
    for shard in range(2):
        generate(recipe, plain, tmp_path, shards=2, shard=shard)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"train.0-of-2.log.csv", "train.1-of-2.log.csv", "statistics.0-of-2.nc", "statistics.1-of-2.nc"} < names
    assert {split: len(Archive(tmp_path).trajectories(split)) for split in ("train", "val")} == {"train": 3, "val": 1}


def test_statistics_of_shards_are_brought_together(tmp_path, whole):
    recipe, plain = parsed(json.dumps(watched_recipe()))
    generate(recipe, plain, tmp_path, shards=3, shard=1)
    with pytest.raises(ValueError, match=r"statistics\.0-of-3\.nc.* are missing"):
        merge_statistics(tmp_path)
    for shard in (0, 2):
        generate(recipe, plain, tmp_path, shards=3, shard=shard)
    # The last shard has no block.
    names = [path.name for path in sorted(tmp_path.glob("statistics*"))]
    assert names == ["statistics.0-of-3.nc", "statistics.1-of-3.nc"]
    merged, at_once = json.loads(merge_statistics(tmp_path).read_text()), json.loads(whole["statistics.nc"])
    assert merged == {"count": at_once["count"], "total": pytest.approx(at_once["total"], rel=1e-12)}
    generate(recipe, plain, tmp_path / "none", shards=3, shard=2)
    with pytest.raises(ValueError, match=r"of one number of shards but got those of \[\] shards"):
        merge_statistics(tmp_path / "none")


def test_the_watcher_sees_time_and_diagnostics(tmp_path):
    seen = []
    make(tmp_path, watch=seen.append)
    assert seen[2].startswith("t = 0.8, cfl 0.8, energy 0.")


@pytest.mark.parametrize(
    ("flow", "message"),
    [
        ({"bad_step": 19}, r"trajectory 0 became NaN or infinite by t = 2\.2.*than 0\.1\..*well: t = 1\.8, cfl 1\.8"),
        ({"largest_cfl": 2.0}, r"Block 0 of train stopped at t = 2\.2\. the CFL number is over 2"),
    ],
)
def test_an_unstable_run_says_when_and_why_and_keeps_its_last_good_restart(tmp_path, flow, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, flow=flow)
    restart = torch.load(tmp_path / "train.block-0.restart", weights_only=True)
    # That of step 22 is finite, but the flow cannot go on from it.
    assert restart["contents"]["step"] == 18
    assert torch.isfinite(restart["contents"]["state"]).all()
    assert restart["frames"] == 3


ONE_BLOCK = {"trajectories": {"train": 0, "val": 1, "test": 0}, "reduction": None}


def test_a_changed_recipe_goes_on_from_the_restart_as_the_message_of_an_unstable_run_says(tmp_path):
    with pytest.raises(ValueError, match=r"The last restart is") as error:
        make(tmp_path / "one", flow={"largest_cfl": 2.0}, **ONE_BLOCK)
    start = yaml.safe_load("{" + str(error.value).split("with initial_condition: {", 1)[1].rstrip("."))
    restart = torch.load(tmp_path / "one" / "val.block-0.restart", weights_only=True)
    smaller = {"flow": {"steps_per_frame": 8, "largest_cfl": 9.0}, "initial_condition": start, **ONE_BLOCK}
    with pytest.raises(ValueError, match=r"steps_per_frame is 4 there and 8 here.*goes on from.*restart\.FromRestart"):
        make(tmp_path / "one", **smaller)
    make(tmp_path / "two", **smaller, warm_up=0.0)
    frames = Archive(tmp_path / "two").trajectories("val")[0].read()
    assert torch.equal(frames[0], restart["contents"]["state"][0].float())
    assert frames[:, 1, 0, 0].tolist() == [18.0 + 8 * frame for frame in range(6)]


def test_without_a_restart_a_message_speaks_of_none(tmp_path):
    with pytest.raises(ValueError, match=r"stopped at t = 0\.4.*finished before is kept\.$"):
        make(tmp_path, interval=math.inf, flow={"largest_cfl": 0.3})


def test_a_restart_starts_only_what_fits_it(tmp_path):
    files = RestartFiles(tmp_path / "run", {})
    flow = WatchedFlow()
    state = torch.rand(2, 2, *flow.shape, dtype=torch.float64)
    files.save({"state": state, "coordinates": list(flow.coordinates)}, torch.empty(2, 0))
    path, digest = str(files.current), files.current.read_bytes()[-32:].hex()
    generator = torch.Generator()
    assert torch.equal(FromRestart(path, digest[:16]).start(flow, 1, generator), state[:1])
    moved = WatchedFlow()
    moved.__class__ = type("Moved", (WatchedFlow,), {"coordinates": (flow.coordinates[0], flow.coordinates[1] / 2)})
    for start, simulator, count, message in [
        (FromRestart(path, digest), WatchedFlow(8), 1, r"\[2, 4, 8\] channels and points but .* \[2, 4, 6\]"),
        (FromRestart(path, digest), moved, 1, "same points along y"),
        (FromRestart(path, digest), flow, 3, "at least 3 trajectories but .* holds 2"),
        (FromRestart(path, "0" * 16), flow, 1, "digest is .* in place of 0000"),
        (FromRestart(str(tmp_path / "none"), digest), flow, 1, "cannot be read"),
    ]:
        with pytest.raises(ValueError, match=message):
            start.start(simulator, count, generator)
    with pytest.raises(ValueError, match="16 digits"):
        FromRestart(path, digest[:8])


def test_a_restart_starts_one_block_alone():
    start = {"class_path": FROM_RESTART, "init_args": {"path": "run.restart", "digest": "f" * 16}}
    with pytest.raises(ValueError, match="one block of trajectories from a restart but got 3"):
        parse_recipe(watched_recipe(initial_condition=start))


def asleep(**changes):
    return {"initial_condition": {"class_path": "watched_flow.RandomStart", "init_args": {"largest": 0.0}}, **changes}


def test_doubts_that_last_are_warned_of_once_and_early(tmp_path):
    seen = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(tmp_path, watch=lambda text: seen.append((text, len(caught))), **asleep())
    expected = [
        "train trajectories 0, 1 at t = 1.4",
        "train trajectories 2 at t = 1.4",
        "val trajectories 0 at t = 1.4",
    ]
    assert [str(each.message) for each in caught] == [f"{text}: the flow fell asleep" for text in expected]
    # At the look after the warm-up and the next one, long before the end at t = 3.
    assert dict(seen)["t = 1.8, cfl 1.8, energy 0"] == 3
    assert seen[5][1] == 1


def test_doubts_name_their_trajectories_and_pass_unsaid_where_they_pass(tmp_path, monkeypatch):
    def doubts(self, diagnostics):
        (energy,), (cfl,) = diagnostics.energy.tolist(), diagnostics.cfl.tolist()
        return "odd" if energy == weakest or abs(cfl - 1.8) < 0.01 else ""

    weakest = None
    monkeypatch.setattr(WatchedFlow, "doubts", doubts)
    make(tmp_path / "passing")  # at one look alone
    rows = list(csv.DictReader((tmp_path / "passing" / "train.log.csv").read_text().splitlines()))
    last = [row for row in rows if row["step"] == "30" and row["trajectory"] == "1"]
    monkeypatch.setattr(
        WatchedFlow, "doubts", lambda self, seen: "odd" * (f"{seen.energy[0]:.9g}" == last[0]["energy"])
    )
    with pytest.warns(UserWarning, match="^train trajectories 1 at t = 3: odd$"):
        make(tmp_path / "last")


def test_what_is_slow_to_write_is_written_seldom(tmp_path, monkeypatch):
    clock, saved = 0.0, []

    class Slow(RestartFiles):
        def save(self, contents, frames):
            nonlocal clock
            clock += 10.0
            saved.append(contents["step"])

    def advance(self, state, steps):
        nonlocal clock
        clock += 35.0
        return state

    changes = {"frames": 14, "statistics": None, "warm_up": 0.0, **ONE_BLOCK}
    parsed(json.dumps(watched_recipe(**changes)))
    monkeypatch.setattr("pdesurrogate.simulators.recipe.RestartFiles", Slow)
    monkeypatch.setattr(WatchedFlow, "advance", advance)
    monkeypatch.setattr("pdesurrogate.simulators.generation.block_run.time.monotonic", lambda: clock)
    make(tmp_path, interval=60.0, **changes)
    # The first when a minute has passed, the next when twenty times the ten seconds that it took have.
    assert saved == [4, 28]


def interrupted(folder, calls=8, **changes):
    with pytest.raises(Interrupted):
        make(folder, watch=stop_after(calls), **changes)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "frames", "flip frames"])
def test_of_a_damaged_restart_the_one_before_is_taken(tmp_path, whole, damage):
    interrupted(tmp_path)
    path = tmp_path / ("train.block-0.frames" if "frames" in damage else "train.block-0.restart")
    data = bytearray(path.read_bytes())
    if "flip" in damage:
        data[-10 if "frames" in damage else len(data) // 2] ^= 1  # of the last frame alone
    path.write_bytes({"cut": data[:-100], "empty": b"", "frames": data[:-4]}.get(damage, data))
    with pytest.warns(UserWarning, match=r"restart is damaged|is damaged \("):
        make(tmp_path)
    assert files(tmp_path) == whole


def test_a_damaged_restart_never_takes_the_place_of_a_good_one(tmp_path):
    frames = torch.randn(2, 5, 3)
    files = RestartFiles(tmp_path / "run", {})
    files.save({"step": 1}, frames[:, :1])
    files.save({"step": 2}, frames[:, :2])
    files.current.write_bytes(b"nothing")
    again = RestartFiles(tmp_path / "run", {})
    with pytest.warns(UserWarning, match="damaged"):
        again.load(torch.empty(2, 5, 3))
    again.save({"step": 3}, frames[:, :3])
    files.current.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="damaged"):
        assert RestartFiles(tmp_path / "run", {}).load(torch.empty(2, 5, 3)) == ({"step": 1}, 1)


def test_what_a_stop_left_of_a_restart_is_cleared_away(tmp_path, whole, monkeypatch):
    def stop(*arguments):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(restart_module.os, "replace", stop)
        files = RestartFiles(tmp_path / "train.block-0", {})
        with pytest.raises(Interrupted):
            files.save({"step": 1}, torch.ones(2, 1, 3))
    assert [path.name for path in tmp_path.glob("*.part")] == ["train.block-0.restart.part"]
    files.remove()
    assert not list(tmp_path.iterdir())


def test_two_damaged_restarts_are_refused_with_the_cure(tmp_path, whole):
    interrupted(tmp_path)
    for name in ("train.block-0.restart", "train.block-0.restart.previous"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(ValueError, match="Delete them to run this block"):
        make(tmp_path)
    for name in ("train.block-0.restart", "train.block-0.restart.previous"):
        (tmp_path / name).unlink()
    make(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flow": {"points": 8}}, r"restart with the grid \[4, 8\] but .* was written with \[4, 6\]"),
        ({"seed": 6}, r"restart with the recipe\.seed 6 but .* was written with 5\..*FromRestart"),
        ({"block": 1}, r"restart with the recipe\.block 1 but .* was written with 2"),
    ],
)
def test_a_restart_of_something_else_is_refused(tmp_path, changes, message):
    interrupted(tmp_path / "one")
    other = tmp_path / "other"
    other.mkdir()
    for path in (tmp_path / "one").glob("train.block-0.*"):
        path.rename(other / path.name)
    with pytest.raises(ValueError, match=message):
        make(other, **changes)


def test_statistics_that_could_not_be_written_are_when_there_is_room(tmp_path, whole, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("watched_flow.MeanOfAll.save", full)
        with pytest.raises(ValueError, match=r"Could not write the statistics .*no space left"):
            make(tmp_path)
    make(tmp_path)
    assert files(tmp_path) == whole


@pytest.mark.parametrize("target", ["save", "fsync", "log"])
def test_a_full_disk_is_named_and_costs_nothing(tmp_path, whole, monkeypatch, target):
    calls = 0

    def full(original):
        def wrapped(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls > 5:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        if target == "save":
            patch.setattr(restart_module.torch, "save", full(torch.save))
        elif target == "fsync":
            patch.setattr(restart_module.os, "fsync", full(restart_module.os.fsync))
        else:
            from pdesurrogate.simulators.generation.run_log import RunLog

            patch.setattr(RunLog, "write", full(RunLog.write))
        with pytest.raises(ValueError, match=r"no space left on the device\. What is finished is kept"):
            make(tmp_path)
    assert not list(tmp_path.glob("*.part")) or [path.name for path in tmp_path.glob("*.part")] == ["train.nc.part"]
    assert (tmp_path / "train.block-0.restart").exists()
    make(tmp_path)
    assert files(tmp_path) == whole


def test_only_new_frames_are_written_and_an_older_restart_still_fits(tmp_path):
    files = RestartFiles(tmp_path / "run", {})
    frames = torch.randn(2, 5, 3)
    files.save({"step": 1}, frames[:, :2])
    files.save({"step": 2}, frames[:, :4])
    assert (tmp_path / "run.frames").stat().st_size == 2 * 4 * 3 * 4
    (tmp_path / "run.restart").unlink()
    again, filled = RestartFiles(tmp_path / "run", {}), torch.zeros(2, 5, 3)
    assert again.load(filled) == ({"step": 1}, 2)
    assert torch.equal(filled[:, :2], frames[:, :2])
    again.save({"step": 3}, frames[:, :3])
    filled.zero_()
    assert RestartFiles(tmp_path / "run", {}).load(filled) == ({"step": 3}, 3)
    assert torch.equal(filled[:, :3], frames[:, :3])
    assert not filled[:, 3:].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolution": 8, "flow": {"points": 8}, "frames": 3}, "stored resolution|resolution or a reduction"),
        ({"statistics": {"class_path": "watched_flow.MeanOfAll", "init_args": {"every": 3}}}, "divisor of the 4 steps"),
        ({"initial_condition": {"class_path": "watched_flow.Pairs"}}, "initial_condition"),
        ({"reduction": {"class_path": "watched_flow.RandomStart"}}, "reduction"),
    ],
)
def test_a_wrong_recipe_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(watched_recipe(**changes))


def test_what_a_recipe_does_not_say_is_not_in_its_plain_form():
    said, silent = (parse_recipe(watched_recipe(**changes))[1] for changes in ({}, {"reduction": None}))
    assert "reduction" in said
    assert "reduction" not in silent
    assert content_hash(said) != content_hash(silent)
