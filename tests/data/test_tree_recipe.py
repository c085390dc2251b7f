"""Trees that were written from an archive say by which recipe; published ones say nothing."""

from __future__ import annotations

import json

import pytest
from cfdbench_cases import write_tree

from pdesurrogate.data.adapters.cfdbench.adapter import CfdBench

RECIPE = {"name": "boxes", "frames": 5}


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path, "cavity", bc=3, prop=0, geo=0, rows=16, columns=16)


def attributes(tree):
    return CfdBench(tree, "cavity", subsets=["bc"], cells=(16, 16)).metadata.attributes


def test_the_recipe_is_carried_and_changes_no_hash(tree):
    before = attributes(tree)
    assert "recipe" not in before
    (tree / "cavity" / "pdesurrogate.json").write_text(json.dumps({"generator": "pdesurrogate", "recipe": RECIPE}))
    after = attributes(tree)
    assert after == {**before, "recipe": RECIPE}
    # The problem's own folder is as good.
    assert CfdBench(tree / "cavity", "cavity", subsets=["bc"], cells=(16, 16)).metadata.attributes == after


@pytest.mark.parametrize("content", ["{}", '{"recipe": null}', '{"recipe": "text"}'])
def test_a_file_without_a_recipe_is_none(tree, content):
    (tree / "cavity" / "pdesurrogate.json").write_text(content)
    assert "recipe" not in attributes(tree)


def test_a_damaged_file_is_named(tree):
    (tree / "cavity" / "pdesurrogate.json").write_text("{")
    with pytest.raises(ValueError, match=r"JSON file .*pdesurrogate\.json but it cannot be read"):
        attributes(tree)
