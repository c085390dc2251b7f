import math
import re

import pytest
import yaml

from pdesurrogate.data.catalog import card, cards, config_path, configs_directory, datasets_directory, recipe_path
from pdesurrogate.simulators.recipe import load_recipe

FRONT = "---\nname: {name}\ntitle: A title\nkind: {kind}\nsize: 1 MB\n---\n# Text\n"


def make_card(directory, name="flow", kind="generated", text=None):
    folder = directory / name
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(FRONT.format(name=name, kind=kind) if text is None else text)
    return folder


def test_a_wheel_is_preferred_to_the_checkout_beside_it(tmp_path):
    package = tmp_path / "site" / "pdesurrogate"
    (tmp_path / "site" / "datasets").mkdir(parents=True)
    assert datasets_directory(package) == tmp_path / "site" / "datasets"
    (package / "_resources" / "datasets").mkdir(parents=True)
    assert datasets_directory(package) == package / "_resources" / "datasets"
    with pytest.raises(ValueError, match="reinstall"):
        configs_directory(package)


def test_cards_are_read_and_sorted(tmp_path):
    make_card(tmp_path, "second", kind="published")
    (make_card(tmp_path, "first") / "recipe.yaml").write_text("name: first\n")
    found = cards(tmp_path)
    assert [entry.name for entry in found] == ["first", "second"]
    assert found[0].text == "# Text\n"
    assert found[0].recipe == recipe_path("first", tmp_path)
    assert found[1].recipe is None


@pytest.mark.parametrize(
    "text",
    [
        "# No front matter\n",
        "---\nname: flow\ntitle: A title\n---\n",
        FRONT.format(name="other", kind="generated"),
        FRONT.format(name="flow", kind="borrowed"),
    ],
)
def test_incomplete_front_matter_is_refused(tmp_path, text):
    make_card(tmp_path, text=text)
    with pytest.raises(ValueError, match="Expected"):
        cards(tmp_path)


def test_unknown_names_list_close_ones(tmp_path):
    make_card(tmp_path, "decaying")
    make_card(tmp_path, "forced")
    with pytest.raises(ValueError, match=r"Did you mean decaying\?"):
        card("decayin", tmp_path)
    with pytest.raises(ValueError, match="There are: decaying, forced"):
        card("zzz", tmp_path)
    with pytest.raises(ValueError, match="name of a recipe"):
        recipe_path("decaying", tmp_path)


def test_configurations_are_found_by_problem_and_model(tmp_path):
    (tmp_path / "ns2d").mkdir()
    (tmp_path / "ns2d" / "fno.yaml").touch()
    assert config_path("ns2d/fno", tmp_path) == tmp_path / "ns2d" / "fno.yaml"
    with pytest.raises(ValueError, match="Did you mean ns2d/fno"):
        config_path("ns2d/fnoo", tmp_path)


def described(found):
    """Numbers of our card's table: splits, frames, interval, first and last time, points, bytes in words."""
    splits = tuple(map(int, re.search(r"trajectories \| (\d+) train, (\d+) val, (\d+) test", found.text).groups()))
    frames, interval, start, stop = re.search(
        r"frames \| (\d+), ([\d.]+) apart, t = ([\d.]+) to ([\d.]+)", found.text
    ).groups()
    points = tuple(map(int, re.search(r"grid \| (\d+(?: x \d+)+)", found.text).group(1).split(" x ")))
    return splits, int(frames), float(interval), float(start), float(stop), points


def stored_points(recipe):
    """Points along each axis of what a recipe stores; common points have one plane more than cells across a channel."""
    arguments = recipe["simulator"]["init_args"]
    if "reduction" not in recipe:
        return (
            (recipe.get("resolution", arguments["resolution"]),) * 2
            if "resolution" in arguments
            else tuple(arguments["shape"])
        )
    if "factor" in recipe["reduction"]["init_args"]:
        return (arguments["resolution"] // recipe["reduction"]["init_args"]["factor"],) * 2
    if len(recipe["reduction"]["init_args"]["shape"]) == 2:
        return tuple(recipe["reduction"]["init_args"]["shape"])
    x, y, z = recipe["reduction"]["init_args"]["shape"]
    return x, y + recipe["reduction"]["class_path"].endswith("CollocatedCoarsening"), z


GENERATED = [entry for entry in cards() if entry.recipe]
CHANNELS = [entry for entry in GENERATED if entry.name.startswith("channel_")]
ENCLOSED = [entry for entry in GENERATED if "EnclosedFlow" in entry.recipe.read_text()]
SQUARES = [entry for entry in GENERATED if entry not in CHANNELS + ENCLOSED]


@pytest.mark.parametrize("found", GENERATED, ids=lambda entry: entry.name)
def test_the_numbers_of_a_card_are_those_of_its_recipe(found):
    recipe = yaml.safe_load(found.recipe.read_text())
    simulator = recipe["simulator"]["init_args"]
    splits, frames, interval, start, stop, points = described(found)
    assert splits == tuple(load_recipe(found.recipe)[0].counts.values())
    assert (frames, interval, start) == (recipe["frames"], simulator["frame_interval"], recipe.get("warm_up", 0.0))
    assert stop == pytest.approx(start + interval * (frames - 1))
    assert points == stored_points(recipe)
    channels = len(re.findall(r"^\| `\w+` \|", found.text, re.MULTILINE))
    size = 4 * sum(splits) * frames * channels * math.prod(points)
    number, unit = found.size.split()
    assert float(number) * {"MB": 1e6, "GB": 1e9}[unit] == pytest.approx(size, rel=0.03)
    step = simulator["frame_interval"] / simulator["steps_per_frame"]
    stated = re.search(r"time\s+step\s+([\d.e-]*\d)", found.text).group(1)
    assert float(stated) == pytest.approx(step)
    if "viscosity" in simulator:
        viscosity = re.search(r"\| viscosity \| ([\d.e-]+) \|", found.text).group(1)
        assert float(viscosity) == pytest.approx(simulator["viscosity"], rel=1e-4)
    simulated = simulator.get("shape", [simulator.get("resolution")] * 2)
    assert " x ".join(map(str, simulated)) in found.text
    assert f"pdesurrogate generate {found.name} --out" in found.text


@pytest.mark.parametrize("found", ENCLOSED, ids=lambda entry: entry.name)
def test_the_card_of_an_enclosed_flow_states_its_parameters(found):
    recipe, _ = load_recipe(found.recipe)
    section = found.text.split("## Parameters")[1].split("##")[0]
    table = dict(re.findall(r"^\| ([\w, ]+) \| ([^|]+) \|$", section, re.MULTILINE))
    stated = {name: value for names, value in table.items() for name in names.split(", ")}
    subsets = {}
    for split in ("train", "val", "test"):
        for case in recipe.cases.of(split) if recipe.cases else ():
            for name, value in case.parameters.items():
                subsets.setdefault(name, (case.subset, set()))[1].add(value)
    for name, value in recipe.simulator.parameters_by_name.items():
        names = next(key for key in table if name in key.split(", "))
        base = stated[name].split(";")[0].split(", ")
        place = names.split(", ").index(name) if len(base) > 1 else 0
        assert float(base[place]) == value, name
        if name in subsets:
            subset, values = subsets[name]
            listed = re.search(rf"`{subset}`[^:]*: (.*)$", stated[name].removesuffix(" each")).group(1)
            ends = re.fullmatch(r"([\d.]+) to ([\d.]+) in steps of ([\d.]+)", listed)
            found_values = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", listed)]
            if ends:
                low, high, step = map(float, ends.groups())
                found_values = [low + step * i for i in range(round((high - low) / step) + 1)]
            assert found_values == pytest.approx(sorted(values)), name


@pytest.mark.parametrize("found", SQUARES, ids=lambda entry: entry.name)
def test_the_card_of_a_periodic_square_states_its_side(found):
    side = yaml.safe_load(found.recipe.read_text())["simulator"]["init_args"].get("length", 2 * math.pi)
    assert ("periodic square of side 1 " in found.text) == (side == 1.0)


@pytest.mark.parametrize("found", CHANNELS, ids=lambda entry: entry.name)
def test_the_card_of_a_channel_states_its_flow_and_box(found):
    recipe = yaml.safe_load(found.recipe.read_text())
    simulator = recipe["simulator"]["init_args"]
    assert f"U_b h / viscosity = {1 / simulator['viscosity']:.0f} |" in found.text
    pi = [
        tuple(int(part or 1) for part in re.fullmatch(r"(\d*) ?pi(?:/(\d+))?", side).groups()) for side in sides(found)
    ]
    assert [math.pi * over / under for over, under in pi] == pytest.approx(simulator["lengths"])
    assert f"tanh({simulator['stretching']} s)" in found.text
    assert int(re.search(r"Re_tau = (\d+)", found.title).group(1)) == int(found.name.split("_")[-1])
    # The statistics of a trajectory fall into whole blocks, of two turnovers or more.
    span = (recipe["frames"] - 1) * simulator["frame_interval"]
    block = recipe["statistics"]["init_args"]["block"]
    nominal = recipe["reduction"]["init_args"]["friction_reynolds_number"] * simulator["viscosity"]
    assert span / block == pytest.approx(round(span / block), abs=0.02)
    assert block * nominal > 2
    assert recipe["warm_up"] * nominal > 10


def sides(found):
    """Of the box along x and z, in words."""
    x, y, z = re.search(r"\| box \| (.*) \|", found.text).group(1).split(" x ")
    assert y == "2"
    return x, z


def test_every_recipe_has_a_card_and_generated_cards_have_recipes():
    found = {entry.name: entry for entry in cards()}
    recipes = {path.parent.name for path in datasets_directory().glob("*/recipe.yaml")}
    assert recipes == {name for name, entry in found.items() if entry.kind == "generated"}


@pytest.mark.parametrize("found", cards(), ids=lambda entry: entry.name)
def test_every_card_has_all_sections(found):
    sections = re.findall(r"^## (.*)$", found.text, flags=re.MULTILINE)
    expected = ["Equations", "Parameters", "Fields", "Data"]
    expected += ["How it is made" if found.kind == "generated" else "How to get it"]
    assert sections == [*expected, "Licence and citation", "Known faults", "How to judge a surrogate on it"]
