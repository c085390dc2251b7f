"""Data sets of cases: split and named, each with its own context, and one that fails costs no other."""

from __future__ import annotations

import copy
import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from torch import Tensor

from pdesurrogate.cli.generate import main
from pdesurrogate.data.archive import Archive
from pdesurrogate.fields.grid import Axis, Channel, Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.simulators.cases import CaseOf, Sweep
from pdesurrogate.simulators.generation.members import Members, NoneLeftError
from pdesurrogate.simulators.generation.protocols import CaseSimulator, Gathering, Simulator, StoredFrames, Varied
from pdesurrogate.simulators.generation.restart import FROM_RESTART
from pdesurrogate.simulators.recipe import build_simulator, content_hash, generate, load_recipe, parse_recipe


class Energy(NamedTuple):
    energy: Tensor


class Decay:
    """``u_t = -rate u`` in a box as wide as the case says, solid where x < hole; exact at every step."""

    def __init__(
        self,
        rate: float = 0.5,
        width: float = 2.0,
        hole: float = 0.0,
        steps_per_frame: int = 4,
        largest: float = 1e300,
        sleepy: float = 0.0,
    ) -> None:
        self.rate, self.width, self.hole = rate, width, hole
        self.largest, self.sleepy = largest, sleepy
        self.steps_per_frame, self.frame_interval = steps_per_frame, 0.4
        self.shape = (6, 4)
        self.grid = Grid((Axis("x", bounds=(0.0, width)), Axis("y", bounds=(0.0, 1.0))))
        self.channels = (Channel("value", location="cell"),)

    @property
    def time_step(self) -> float:
        return self.frame_interval / self.steps_per_frame

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return ("rate", "width", "hole")

    @property
    def parameters_by_name(self) -> dict[str, float]:
        return {"area": self.width, "rate": self.rate, "width": self.width, "hole": self.hole}

    @property
    def coordinates(self) -> tuple[Tensor, ...]:
        x = (torch.arange(6, dtype=torch.float64) + 0.5) / 6
        return self.width * x, (torch.arange(4, dtype=torch.float64) + 0.5) / 4

    def of_cases(self, parameters: Tensor) -> CaseSimulator:
        for case, width in enumerate(parameters[:, 1].tolist()):
            if width <= 0:
                raise ValueError(f"case {case}: expected a positive width but got {width:g}.")
        return DecayCases(self, parameters)

    def advance(self, state: Tensor, steps: int) -> Tensor:
        values = torch.tensor([[self.rate, self.width, self.hole]], dtype=torch.float64).expand(len(state), -1)
        return self.of_cases(values).advance(state, steps)

    def diagnostics(self, state: Tensor) -> Energy:
        return Energy(state.square().mean((1, 2, 3)))


class DecayCases:
    def __init__(self, base: Decay, parameters: Tensor) -> None:
        self.grid, self.channels, self.shape = base.grid, base.channels, base.shape
        self.frame_interval, self.steps_per_frame, self.time_step = (
            base.frame_interval,
            base.steps_per_frame,
            base.time_step,
        )
        self.largest, self.sleepy = base.largest, base.sleepy
        self.parameters_by_name = base.parameters_by_name
        self.rate, self.width, self.hole = parameters.unbind(1)

    @property
    def context(self) -> Context:
        x, y = Decay(width=1.0).coordinates
        x = self.width[:, None] * x
        mask = (x > self.hole[:, None])[:, :, None].expand(-1, -1, 4)
        parameters = torch.stack([self.width, self.rate, self.width, self.hole], 1)
        return Context((x, y.expand(len(x), -1)), parameters, mask if bool((self.hole > 0).any()) else None)

    def require_stable(self, state: Tensor) -> None:
        found = state.abs().amax((1, 2, 3))
        if not bool((found <= self.largest).all()):
            raise ValueError(f"case {int(found.argmax())}: the amplitude is over {self.largest:g}.")

    def advance(self, state: Tensor, steps: int) -> Tensor:
        assert len(state) == len(self.rate)
        for _ in range(steps):
            self.require_stable(torch.nan_to_num(state, posinf=0.0, neginf=0.0))
            state = state * torch.exp(-self.rate * self.time_step)[:, None, None, None]
        return state

    def diagnostics(self, state: Tensor) -> Energy:
        return Energy(state.square().mean((1, 2, 3)))

    def doubts(self, diagnostics: Any) -> str:
        return "the flow fell asleep." if float(diagnostics.energy) < self.sleepy else ""


class Random:
    def start(self, simulator: Simulator, count: int, generator: torch.Generator) -> Tensor:
        return 0.5 + torch.rand(count, 1, *simulator.shape, dtype=torch.float64, generator=generator)


class Halves:
    """Means over pairs of cells along x."""

    def on(self, simulator: Simulator) -> StoredFrames:
        return _Halves(simulator) if not isinstance(simulator, DecayCases) else _HalvesOfCases(simulator)


class _Halves:
    def __init__(self, simulator: Any) -> None:
        self.channels, self.attributes = simulator.channels, {"halved": True}
        x, y = simulator.coordinates if isinstance(simulator, Decay) else (p[0] for p in simulator.context.coordinates)
        self.coordinates = (x.unflatten(-1, (-1, 2)).mean(-1), y)

    def apply(self, state: Tensor) -> Tensor:
        return state.unflatten(2, (-1, 2)).mean(3)


class _HalvesOfCases(_Halves):
    def __init__(self, simulator: DecayCases) -> None:
        super().__init__(simulator)
        (x, y), parameters, mask, _ = simulator.context
        halved = None if mask is None else mask.unflatten(1, (-1, 2)).all(2)
        self.context = Context((x.unflatten(-1, (-1, 2)).mean(-1), y), parameters, halved)


class Blind(Halves):
    """A reduction that knows nothing of cases."""

    def on(self, simulator: Simulator) -> StoredFrames:
        return _Halves(simulator)


class Means:
    def __init__(self, every: int = 2) -> None:
        self.every = every

    def on(self, simulator: Simulator) -> Gathering:
        return _Sum()

    def save(self, simulator: Simulator, gathered: list[dict[str, Any]], path: str) -> None:
        Path(path).write_text(json.dumps([each["sums"] for each in gathered]))

    def load(self, simulator: Simulator, path: str) -> dict[str, Any]:
        raise NotImplementedError


class _Sum:
    def __init__(self) -> None:
        self.sums: list[float] = []

    def update(self, state: Tensor) -> None:
        assert len(state) == 1
        self.sums.append(float(state.sum()))

    def state_dict(self) -> dict[str, Any]:
        return {"sums": list(self.sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = list(state["sums"])


class Listed:
    """Cases as they are told."""

    def __init__(self, cases: dict[str, list[dict[str, float]]]) -> None:
        self._cases = cases

    def of(self, split: str) -> Sequence[CaseOf]:
        rows = self._cases.get(split, [])
        return [CaseOf(f"{split}{number}", "told", row) for number, row in enumerate(rows)]


class AllTheSame(Listed):
    def of(self, split: str) -> Sequence[CaseOf]:
        return [CaseOf("same", "told", {}) for _ in self._cases.get(split, [])]


def of_class(kind, **arguments):
    return {"class_path": f"{__name__}.{kind}", **({"init_args": arguments} if arguments else {})}


def listed(kind="Listed", **splits):
    return of_class(kind, cases=splits)


# By a factor e^400 in each step: infinite after the first one but that of the start.
GROWS = {"rate": -4000.0}
CASES = listed(
    train=[{"rate": 0.1}, {"width": 3.0}, {"rate": 0.3, "hole": 0.8}, {"rate": 0.4, "width": 0.5}, {"rate": 0.5}],
    val=[{"rate": 0.6}, {"width": 1.0}],
    test=[{"rate": 0.7}],
)


def with_case(split, number, case):
    """The cases with one of them in the place of another."""
    cases = copy.deepcopy(CASES)
    cases["init_args"]["cases"][split][number] = case
    return cases


def plain_of(flow=None, **changes):
    values = {
        "name": "decaying",
        "simulator": of_class("Decay", **(flow or {})),
        "initial_condition": of_class("Random"),
        "frames": 4,
        "cases": CASES,
        "seed": 3,
        "warm_up": 0.2,
        "block": 3,
        **changes,
    }
    return {key: value for key, value in values.items() if value is not None}


def make(folder, interval=0.0, flow=None, changes=None, **options):
    recipe, plain = parse_recipe(plain_of(flow, **(changes or {})))
    return generate(recipe, plain, folder, restart_interval=interval, **options)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def frames_of(folder, split="train"):
    archive = Archive(folder)
    return dict(zip(archive.numbers(split), (t.read() for t in archive.trajectories(split)), strict=True))


def warned(function):
    """What was warned of while the function ran."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function()
    return [str(each.message) for each in caught]


class Interrupted(Exception):
    pass


def stop_after(count):
    calls = 0

    def watch(seen):
        nonlocal calls
        calls += 1
        if calls > count:
            raise Interrupted

    return watch


# Cases and splits.


def names(cases):
    return [case.name for case in cases]


def test_a_subset_is_the_product_of_its_lists_numbered_on_over_the_subsets():
    sweep = Sweep(
        {"bc": {"speed": [1.0, 2.0]}, "geo": {"width": [1.0, 2.0], "height": {"from": 0, "to": 1, "count": 3}}}
    )
    assert [(case.name, case.subset) for case in sweep.cases] == [
        *((f"case000{number}", "bc") for number in range(2)),
        *((f"case000{number}", "geo") for number in range(2, 8)),
    ]
    found = [tuple(case.parameters.values()) for case in sweep.cases[2:]]
    assert found == [(width, height) for width in (1.0, 2.0) for height in (0.0, 0.5, 1.0)]


def test_even_values_are_those_that_one_would_write():
    sweep = Sweep({"bc": {"speed": {"from": 0.1, "to": 1.0, "count": 10}}})
    assert [case.parameters["speed"] for case in sweep.cases] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@pytest.mark.parametrize(
    ("cases", "validation", "test"),
    [(1, 0, 0), (2, 0, 0), (3, 1, 1), (9, 1, 1), (10, 1, 1), (15, 2, 2), (25, 3, 3), (84, 8, 8)],
)
def test_each_subset_is_split_on_its_own(cases, validation, test):
    sweep = Sweep({"bc": {"speed": {"from": 1, "to": 9, "count": 20}}, "x": {"y": [float(i) for i in range(cases)]}})
    own = {split: [case for case in sweep.of(split) if case.subset == "x"] for split in ("train", "val", "test")}
    assert [len(own[split]) for split in own] == [cases - validation - test, validation, test]
    assert sorted(name for some in own.values() for name in names(some)) == names(sweep.cases[20:])
    assert all(names(sweep.of(split)) == sorted(names(sweep.of(split))) for split in own)


def test_a_share_of_nothing_leaves_a_split_empty():
    sweep = Sweep({"bc": {"speed": [1.0, 2.0, 3.0, 4.0]}}, validation_share=0.0, test_share=0.5)
    assert [len(sweep.of(split)) for split in ("train", "val", "test")] == [2, 0, 2]


def test_the_shuffle_is_the_same_everywhere_and_knows_no_other_subset():
    speeds = {"speed": {"from": 1, "to": 20, "count": 20}}
    alone, other = Sweep({"bc": speeds}), Sweep({"bc": speeds}, split_seed=1)
    beside = Sweep({"geo": {"width": [1.0, 2.0, 3.0]}, "bc": speeds})
    of = {split: [case.parameters for case in alone.of(split)] for split in ("val", "test")}
    assert {split: [row["speed"] for row in rows] for split, rows in of.items()} == {
        "val": [14.0, 17.0],
        "test": [2.0, 8.0],
    }
    assert all([case.parameters for case in beside.of(split) if case.subset == "bc"] == of[split] for split in of)
    assert [case.parameters for case in other.of("val")] != of["val"]
    assert Sweep({"prop": speeds}).of("val")[0].parameters != of["val"][0]


def test_the_same_values_may_be_in_two_subsets():
    sweep = Sweep({"bc": {"speed": [1.0]}, "prop": {"speed": [1.0]}})
    assert [(case.name, case.subset) for case in sweep.of("train")] == [("case0000", "bc"), ("case0001", "prop")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subsets": {}}, "at least one subset"),
        ({"subsets": {"bc": {}}}, "at least one parameter to vary in the subset 'bc'"),
        ({"subsets": {"bc": {"speed": []}}}, "at least one value, all of them finite, of 'speed' in the subset 'bc'"),
        ({"subsets": {"bc": {"speed": [1.0, float("nan")]}}}, "all of them finite"),
        ({"subsets": {"bc": {"speed": [1.0, 2.0, 1.0]}}}, r"every value of 'speed' .* once but \[1\.0\] occur again"),
        ({"subsets": {"bc": {"speed": {"from": 1, "to": 1, "count": 2}}}}, r"\[1\.0\] occur again"),
        ({"subsets": {"bc": {"speed": {"from": 1, "to": 2}}}}, r"\{from: \.\.\., to: \.\.\., count: \.\.\.\}"),
        ({"subsets": {"bc": {"speed": {"from": 1, "to": 2, "count": 1}}}}, "whole count of at least 2"),
        ({"subsets": {"bc": {"speed": {"from": 1, "to": 2, "count": 2.5}}}}, "whole count"),
        ({"subsets": {"bc": {"speed": [1.0]}}, "validation_share": 0.5, "test_share": 0.5}, "leave some for training"),
        ({"subsets": {"bc": {"speed": [1.0]}}, "test_share": -0.1}, "shares >= 0"),
        ({"subsets": {"bc": {"speed": [1.0]}}, "split_seed": -1}, "split_seed >= 0"),
    ],
)
def test_a_sweep_that_cannot_be_meant_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sweep(**arguments)


# Recipes.

SWEEP = """
name: decaying
simulator:
  class_path: SIMULATOR
initial_condition:
  class_path: START
frames: 2
cases:
  class_path: pdesurrogate.simulators.cases.Sweep
  init_args:
    subsets:
      prop: {rate: {from: 0.5, to: 2, count: 4}}
      geo: {width: [1, 2.5], hole: [0, 0.75]}
    split_seed: 4
seed: 1
"""


def test_a_recipe_file_says_which_cases(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(SWEEP.replace("SIMULATOR", f"{__name__}.Decay").replace("START", f"{__name__}.Random"))
    recipe, plain = load_recipe(path)
    assert recipe.counts == {"train": 4, "val": 2, "test": 2}
    assert "trajectories" not in plain
    assert plain["cases"]["init_args"]["subsets"]["geo"] == {"width": [1.0, 2.5], "hole": [0.0, 0.75]}
    generate(recipe, plain, tmp_path / "out")
    again, same = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert same == plain
    assert content_hash(same) == content_hash(plain) == Archive(tmp_path / "out").metadata.attributes["content_hash"]
    assert [again.cases.of(split) for split in recipe.counts] == [recipe.cases.of(split) for split in recipe.counts]
    cases = Archive(tmp_path / "out").cases("val")
    assert [case.subset for case in cases.values()] == ["prop", "geo"]


def test_recipes_of_plain_trajectories_hash_as_before():
    _, plain = parse_recipe(plain_of(cases=None, trajectories={"train": 2, "val": 1, "test": 0}))
    assert set(plain) == {
        "name", "simulator", "initial_condition", "frames", "trajectories", "seed", "warm_up", "block"
    }  # fmt: skip


def test_the_solver_of_a_recipe_of_cases_is_that_of_the_base_case():
    _, plain = parse_recipe(plain_of())
    solver = build_simulator(plain, steps_per_frame=8, width=1.0)
    assert isinstance(solver, Varied)
    assert (solver.time_step, solver.width) == (0.05, 1.0)


FEW = {"train": 1, "val": 0, "test": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trajectories": FEW}, "either trajectories or cases but got both"),
        ({"cases": None}, "either trajectories or cases but got none"),
        ({"simulator": {"class_path": "watched_flow.WatchedFlow"}}, "WatchedFlow has no of_cases"),
        ({"resolution": 8}, "stored resolution|no resolution with cases"),
        (
            {"cases": listed(train=[{"rate": 1.0}, {"speed": 2.0}])},
            r"among \('rate', .*train1 .*'told' names \['speed'\]",
        ),
        ({"cases": listed(train=[])}, "at least one case"),
        ({"cases": listed("AllTheSame", train=[{}, {}])}, r"each name once, but got 2; again: \['same'\]"),
        ({"cases": {"class_path": "builtins.dict"}}, "cases"),
    ],
)
def test_a_wrong_recipe_of_cases_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(plain_of(**changes))


def test_a_reduction_that_knows_no_cases_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="_Halves has no context"):
        make(tmp_path / "out", changes={"reduction": of_class("Blind")})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("steps_per_frame", 5, "steps_per_frame 4 of all cases but train0 has 5"),
        ("frame_interval", 0.5, r"frame_interval 0\.4 of all"),
        ("shape", (3, 3), r"shape \(6, 4\) of all"),
        ("context", Context(()), r"parameters \('area', 'rate', 'width', 'hole'\) of a case, \(1, 4\), but got None"),
    ],
)
def test_cases_must_fit_into_one_set(monkeypatch, tmp_path, attribute, value, message):
    other = type("Other", (DecayCases,), {attribute: property(lambda self: value, lambda self, given: None)})
    monkeypatch.setattr(Decay, "of_cases", lambda self, parameters: other(self, parameters))
    with pytest.raises(ValueError, match=message):
        make(tmp_path)


# Files.


def test_every_trajectory_has_its_own_context(tmp_path):
    make(tmp_path)
    archive = Archive(tmp_path)
    assert archive.metadata.parameters == ("area", "rate", "width", "hole")
    assert [axis.bounds for axis in archive.metadata.grid.axes] == [None, (0.0, 1.0)]
    contexts = [trajectory.context for trajectory in archive.trajectories("train")]
    expected = [[2, 0.1, 2, 0], [3, 0.5, 3, 0], [2, 0.3, 2, 0.8], [0.5, 0.4, 0.5, 0], [2, 0.5, 2, 0]]
    assert torch.equal(torch.stack([context.parameters for context in contexts]), torch.tensor(expected))
    for context, (area, _, _, hole) in zip(contexts, expected, strict=True):
        x = Decay(width=area).coordinates[0]
        assert torch.allclose(context.coordinates[0].double(), x)
        assert torch.equal(context.mask, (x > hole)[:, None].expand(6, 4))
    assert [tuple(case) for case in archive.cases("val").values()] == [("val0", "told"), ("val1", "told")]


def test_where_cases_agree_the_file_says_so_once(tmp_path):
    make(tmp_path, changes={"cases": listed(train=[{"rate": 0.1}, {"rate": 0.2}])})
    archive = Archive(tmp_path)
    assert [axis.bounds for axis in archive.metadata.grid.axes] == [(0.0, 2.0), (0.0, 1.0)]
    context = archive.trajectories("train")[1].context
    assert context.mask is None
    assert torch.allclose(context.coordinates[0].double(), Decay().coordinates[0])


def test_frames_are_the_exact_solution_of_each_case(tmp_path):
    make(tmp_path)
    for trajectory in Archive(tmp_path).trajectories("train"):
        frames, rate = trajectory.read().double(), trajectory.context.parameters[1].double()
        elapsed = trajectory.times - trajectory.times[0]
        assert trajectory.times.tolist() == pytest.approx([0.2, 0.6, 1.0, 1.4])
        assert torch.allclose(frames, frames[:1] * torch.exp(-rate * elapsed)[:, None, None, None], rtol=1e-6, atol=0)


def test_what_is_stored_of_a_case_comes_from_the_reduction(tmp_path):
    make(tmp_path / "halves", changes={"reduction": of_class("Halves")})
    make(tmp_path / "whole")
    assert Archive(tmp_path / "halves").metadata.attributes["halved"]
    for half, whole in zip(
        Archive(tmp_path / "halves").trajectories("train"),
        Archive(tmp_path / "whole").trajectories("train"),
        strict=True,
    ):
        x, mask = whole.context.coordinates[0], whole.context.mask
        assert torch.allclose(half.context.coordinates[0], x.unflatten(0, (3, 2)).mean(1))
        assert torch.equal(half.context.mask, mask.unflatten(0, (3, 2)).all(1))
        assert torch.allclose(half.read(), whole.read().unflatten(2, (3, 2)).mean(3))


@pytest.mark.parametrize("grows", [False, True], ids=["all well", "one grows"])
def test_an_interrupted_run_continues_to_the_same_bytes(tmp_path, grows):
    changes = {"statistics": of_class("Means"), "cases": CASES}
    if grows:
        changes["cases"] = with_case("train", 2, GROWS)
        changes["cases"]["init_args"]["cases"]["train"][3] = {"rate": -100.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        make(tmp_path / "whole", changes=changes)
        for calls in range(2, 40, 3):
            try:
                make(tmp_path / "cut", changes=changes, watch=stop_after(calls))
                break
            except Interrupted:
                pass
    assert calls > 5
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob("*.restart*"))


def test_shards_together_are_the_same_set(tmp_path):
    changes = {"cases": with_case("train", 4, GROWS)}
    assert len(warned(lambda: make(tmp_path / "whole", changes=changes))) == 1
    warned(lambda: [make(tmp_path / "shards", changes=changes, shards=2, shard=shard) for shard in range(2)])
    whole, shards = Archive(tmp_path / "whole"), Archive(tmp_path / "shards")
    for split in ("train", "val", "test"):
        assert whole.dropped(split) == shards.dropped(split)
        assert whole.cases(split) == shards.cases(split)
        for one, other in zip(whole.trajectories(split), shards.trajectories(split), strict=True):
            assert torch.equal(one.read(), other.read())
            assert torch.equal(one.context.coordinates[0], other.context.coordinates[0])


def test_other_cases_in_the_folder_are_not_mixed_with_these(tmp_path):
    make(tmp_path)
    with pytest.raises(ValueError, match=r"recipe\.yaml differs: cases\.init_args\.cases\.val is .*0\.6.* there"):
        make(tmp_path, changes={"cases": with_case("val", 0, {"rate": 0.9})})


# Cases that fail.


def test_a_case_that_grows_to_infinity_is_dropped_and_the_others_do_not_change(tmp_path):
    make(tmp_path / "well")
    (message,) = warned(lambda: make(tmp_path / "one", changes={"cases": with_case("train", 1, GROWS)}))
    assert message.startswith(
        "train train1 (number 1, told) is dropped: NaN or infinite by t = 0.2. Last seen well: t = 0, energy 1."
    )
    archive = Archive(tmp_path / "one")
    assert archive.numbers("train") == [0, 2, 3, 4]
    assert archive.dropped("train") == {1: message.split("dropped: ")[1]}
    well, one = frames_of(tmp_path / "well"), frames_of(tmp_path / "one")
    assert all(torch.equal(frames, well[number]) for number, frames in one.items())


def test_the_first_case_of_a_block_may_fail_too_and_then_the_next(tmp_path):
    make(tmp_path / "well")
    cases = with_case("train", 0, GROWS)
    cases["init_args"]["cases"]["train"][1] = {"rate": -500.0}
    assert len(warned(lambda: make(tmp_path / "two", changes={"cases": cases}))) == 2
    assert torch.equal(frames_of(tmp_path / "two")[2], frames_of(tmp_path / "well")[2])


def test_a_whole_block_may_fail(tmp_path):
    cases = with_case("train", 3, GROWS)
    cases["init_args"]["cases"]["train"][4] = {"rate": -900.0}
    done = []
    warned(lambda: make(tmp_path, changes={"cases": cases}, progress=lambda done_, total: done.append((done_, total))))
    assert Archive(tmp_path).numbers("train") == [0, 1, 2]
    assert done[-1] == (8 * 4, 8 * 4)


def test_a_case_that_overflows_only_in_what_is_stored_is_dropped(tmp_path):
    cases = with_case("val", 1, {"rate": -100.0})  # e^140 is over what single precision holds
    (message,) = warned(lambda: make(tmp_path, changes={"cases": cases}))
    assert "val1 (number 1, told) is dropped: over the range of single precision at t = 1. Last seen well" in message
    assert Archive(tmp_path).numbers("val") == [0]


def test_a_case_that_the_simulator_refuses_on_the_way_is_dropped_with_its_words(tmp_path):
    flow = {"largest": 100.0}
    make(tmp_path / "well", flow=flow)
    changes = {"cases": with_case("train", 2, {"rate": -5.0})}
    (message,) = warned(lambda: make(tmp_path / "one", flow=flow, changes=changes))
    # What it says counts cases within its own batch, of one.
    assert (
        "is dropped: refused at t = 0.6: case 0: the amplitude is over 100. Last seen well: t = 0.6, energy" in message
    )
    well, one = frames_of(tmp_path / "well"), frames_of(tmp_path / "one")
    assert list(one) == [0, 1, 3, 4]
    assert all(torch.equal(frames, well[number]) for number, frames in one.items())
    warned(lambda: make(tmp_path / "rarely", float("inf"), flow=flow, changes=changes))
    assert files(tmp_path / "rarely") == files(tmp_path / "one")


def test_what_no_single_case_is_to_blame_for_ends_the_run(monkeypatch, tmp_path):
    def advance(self, state, steps):
        if len(state) > 1:
            raise ValueError("the moon is full.")
        return state

    monkeypatch.setattr(DecayCases, "advance", advance)
    with pytest.raises(ValueError, match=r"Block 0 of train stopped at t = 0\. the moon is full\."):
        make(tmp_path)


def test_the_log_leaves_out_what_was_dropped(tmp_path):
    warned(lambda: make(tmp_path, changes={"cases": with_case("train", 1, GROWS)}))
    rows = list(csv.DictReader((tmp_path / "train.log.csv").read_text().splitlines()))
    steps = {number: [int(row["step"]) for row in rows if row["trajectory"] == str(number)] for number in range(5)}
    assert steps == {0: [0, 2, 6, 10, 14], 1: [0], 2: [0, 2, 6, 10, 14], 3: steps[0], 4: steps[0]}


def test_statistics_are_those_of_cases_that_are_kept(tmp_path):
    changes = {"statistics": of_class("Means")}
    make(tmp_path / "well", changes=changes)
    warned(lambda: make(tmp_path / "one", changes={**changes, "cases": with_case("train", 1, GROWS)}))
    well, one = (json.loads((tmp_path / name / "statistics.nc").read_text()) for name in ("well", "one"))
    assert len(well) == 8
    assert one == well[:1] + well[2:]


def test_doubts_name_the_case(tmp_path):
    changes = {"cases": with_case("train", 3, {"rate": 3.0})}
    (message,) = warned(lambda: make(tmp_path, flow={"sleepy": 0.01}, changes=changes))
    assert message == "train trajectories train3 (number 3, told) at t = 1.4: the flow fell asleep."


@pytest.mark.parametrize("shards", [1, 2])
def test_a_split_of_which_no_case_is_left_is_an_error_and_no_file(tmp_path, shards):
    cases = listed(train=[{"rate": 0.1}], val=[{"rate": -800.0 - number} for number in range(5)])

    def both():
        for shard in range(shards - 1):
            make(tmp_path, changes={"cases": cases}, shards=shards, shard=shard)
        for _ in range(2):  # again and again
            with pytest.raises(ValueError, match="at least one case of val but every one was dropped"):
                make(tmp_path, changes={"cases": cases}, shards=shards, shard=shards - 1)

    assert len(warned(both)) == 5
    with pytest.raises(ValueError, match=r"are missing|one of the splits \('train',\)"):
        Archive(tmp_path).trajectories("val")


def test_a_refused_case_is_known_before_anything_is_written(tmp_path):
    cases = with_case("val", 1, {"width": -1.0})
    cases["init_args"]["cases"]["train"][4] = {"width": 0.0}
    with pytest.raises(ValueError, match="but 2 cannot") as error:
        make(tmp_path / "out", changes={"cases": cases})
    assert "train train4 (number 4, told): refused when it was built: case 0: expected a positive" in str(error.value)
    assert "val val1 (number 1, told)" in str(error.value)
    assert "--skip-bad-cases" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_refused_cases_can_be_left_out_and_the_others_do_not_change(tmp_path):
    make(tmp_path / "well")
    cases = with_case("train", 0, {"width": -1.0})
    make(tmp_path / "one", changes={"cases": cases}, refused_cases="drop")
    archive = Archive(tmp_path / "one")
    assert archive.dropped("train") == {0: "refused when it was built: case 0: expected a positive width but got -1."}
    well, one = frames_of(tmp_path / "well"), frames_of(tmp_path / "one")
    assert list(one) == [1, 2, 3, 4]
    assert all(torch.equal(frames, well[number]) for number, frames in one.items())


def test_a_whole_block_may_be_refused(tmp_path):
    cases = with_case("train", 3, {"width": -1.0})
    cases["init_args"]["cases"]["train"][4] = {"width": -2.0}
    make(tmp_path, changes={"cases": cases, "statistics": of_class("Means")}, refused_cases="drop")
    assert Archive(tmp_path).numbers("train") == [0, 1, 2]
    assert len(json.loads((tmp_path / "statistics.nc").read_text())) == 6


def test_the_verb_lists_what_was_dropped(tmp_path, capsys):
    cases = with_case("train", 1, GROWS)
    cases["init_args"]["cases"]["val"][0] = {"width": -1.0}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(plain_of(cases=cases)))
    arguments = [str(recipe), "--out", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(ValueError, match="val0"):
        main(arguments)
    warned(lambda: main([*arguments, "--skip-bad-cases"]))
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line).name for line in lines[:3]] == ["train.nc", "val.nc", "test.nc"]
    assert lines[3].startswith("dropped from train.nc: train1 (told), number 1: NaN or infinite by t = 0.2.")
    assert lines[4].startswith("dropped from val.nc: val0 (told), number 0: refused when it was built")
    assert len(lines) == 5


def test_a_restart_is_of_all_cases_of_its_block_and_starts_them_with_another_step(tmp_path):
    cases = listed(train=[{"rate": 0.1}, {"width": 3.0}])
    with pytest.raises(Interrupted):
        make(tmp_path / "one", changes={"cases": cases}, watch=stop_after(3))
    path = tmp_path / "one" / "train.block-0.restart"
    saved = torch.load(path, weights_only=True)["contents"]
    assert [tuple(points.shape) for points in saved["coordinates"]] == [(2, 6), (2, 4)]
    start = {"class_path": FROM_RESTART, "init_args": {"path": str(path), "digest": path.read_bytes()[-32:].hex()}}
    changes = {"initial_condition": start, "warm_up": 0.0}
    make(tmp_path / "two", flow={"steps_per_frame": 8}, changes={**changes, "cases": cases})
    assert all(
        torch.equal(frames[0], saved["state"][number].float()) for number, frames in frames_of(tmp_path / "two").items()
    )
    with pytest.raises(ValueError, match="same points along x"):
        make(tmp_path / "three", changes={**changes, "cases": listed(train=[{"rate": 0.1}, {"width": 4.0}])})


def test_the_place_of_a_case_that_dropped_out_is_taken_by_the_first_that_is_left():
    parameters = torch.tensor([[0.1, 1, 0], [0.2, 2, 0], [0.3, 3, 0]], dtype=torch.float64)
    cases = [CaseOf(str(number), "told", {}) for number in range(3)]
    members = Members(Decay(), cases, parameters, Halves().on, dropped={0: "bad"})
    assert members.simulator.context.parameters[:, 2].tolist() == [2.0, 2.0, 3.0]
    assert members.drop({1: "worse"}).tolist() == [2, 2, 2]
    assert (members.kept, members.dropped) == ([2], {0: "bad", 1: "worse"})
    assert members.alone(0).context.parameters[:, 2].tolist() == [3.0]
    with pytest.raises(NoneLeftError):
        members.drop({2: "worst"})
