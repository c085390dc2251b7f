"""Released weights under the authors' names: loaded strictly, or refused with the name of what does not fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pdesurrogate.models.reference_weights import Translation, as_matrix, load_reference_weights, unchanged
from pdesurrogate.models.sfno import SFNO

VARIANTS: list[dict[str, Any]] = [
    {},
    {"positional": "products"},
    {"lifting_activation": False},
    {"layers": 1, "modes": (3, 2, 1)},
]


class Halves(nn.Module):
    """A matrix that its authors keep as a kernel of upper and one of lower rows, and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 4)

    def reference_translations(self) -> list[Translation]:
        rows = {"upper": (2, 2, 1, 1), "lower": (2, 2, 1, 1)}
        return [
            Translation("linear.weight", rows, lambda upper, lower: as_matrix(torch.cat([upper, lower]))),
            Translation("linear.bias", {"shift": (4,)}, unchanged),
        ]


def halves() -> dict[str, Tensor]:
    values = torch.arange(12, dtype=torch.float64)
    return {
        "shift": values[8:],
        "lower": values[4:8].reshape(2, 2, 1, 1),
        "upper": values[:4].reshape(2, 2, 1, 1),
    }


def sfno(**changes: Any) -> SFNO:
    torch.manual_seed(0)
    sizes = {"modes": (2, 3, 2), "width": 5, "layers": 3, "latent_frames": 3, "history_frames": 3}
    return SFNO(**{**sizes, "compat": "torch-cfd", **changes})


def reference_state(network: SFNO) -> dict[str, Tensor]:
    """Numbers under the authors' names, no two alike."""
    shapes = {name: shape for each in network.reference_translations() for name, shape in each.sources.items()}
    counts = [math.prod(shape) for shape in shapes.values()]
    numbers = torch.arange(sum(counts), dtype=torch.float64).split(counts)
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), numbers, strict=True)}


def test_entries_are_joined_by_name_and_bring_their_precision() -> None:
    model = Halves()
    load_reference_weights(model, halves())
    assert model.linear.weight.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert model.linear.bias.tolist() == [8, 9, 10, 11]
    assert model.linear.weight.dtype == model.linear.bias.dtype == torch.float64
    assert model.linear.weight.requires_grad
    load_reference_weights(model, {name: values.float() for name, values in halves().items()})
    assert model.linear.weight.dtype == torch.float32


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_number_of_theirs_has_one_place_in_ours(variant: dict[str, Any]) -> None:
    network = sfno(**variant)
    translations = network.reference_translations()
    assert sorted(each.name for each in translations) == sorted(network.state_dict())
    theirs = reference_state(network)
    load_reference_weights(network, theirs)
    ours = torch.cat([values.flatten() for values in network.state_dict().values()])
    assert torch.equal(ours.sort().values, torch.arange(len(ours)).double())
    assert sum(values.numel() for values in theirs.values()) == len(ours)


@given(dropped=st.sets(st.integers(0, 33), min_size=1))
@settings(max_examples=15)
def test_names_what_is_missing(dropped: set[int]) -> None:
    network = sfno()
    state = reference_state(network)
    missing = [name for number, name in enumerate(state) if number in dropped]
    kept = {name: values for name, values in state.items() if name not in missing}
    shown = ", ".join(sorted(missing)[:3])
    verb = "is" if len(missing) == 1 else "are"
    with pytest.raises(ValueError, match=rf"authors' SFNO but {len(missing)} {verb} missing: {shown}"):
        load_reference_weights(network, kept)


def test_names_what_is_left_over_and_what_is_misshapen_and_changes_nothing() -> None:
    model = Halves()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"authors' Halves alone but 2 are left over: blocks.0, blocks.1; build"):
        load_reference_weights(model, {**halves(), "blocks.1": torch.zeros(1), "blocks.0": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"Expected lower of shape \(2, 2, 1, 1\) but got \(2, 2\); build"):
        load_reference_weights(model, {**halves(), "lower": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"1 is missing: shift"):
        load_reference_weights(model, {name: values for name, values in halves().items() if name != "shift"})
    after = model.state_dict()
    assert all(torch.equal(values, after[name]) for name, values in before.items())
    assert model.linear.weight.dtype == torch.float32


def test_refuses_a_network_that_knows_no_names() -> None:
    with pytest.raises(ValueError, match="authors' names are known but Linear gives none"):
        load_reference_weights(nn.Linear(1, 1), {})
