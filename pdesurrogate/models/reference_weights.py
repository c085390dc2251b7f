"""Weights that the authors of a network released, under the names that they gave them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Translation(NamedTuple):
    """Where one of our parameters comes from.

    Attributes:
        name: of our parameter.
        sources: the authors' entries, with the shapes that they must have.
        join: from those entries, in that order, to our parameter.
    """

    name: str
    sources: Mapping[str, tuple[int, ...]]
    join: Callable[..., Tensor]


@runtime_checkable
class Translated(Protocol):
    """A network of ours that knows the authors' names."""

    def reference_translations(self) -> list[Translation]:
        """One for each parameter and buffer that a state dict holds."""
        ...


def load_reference_weights(model: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Fill ``model`` with the weights of the authors' state dict, strictly; it takes on their precision.

    Args:
        model: one of our networks with ``reference_translations``, built with the authors' sizes.
        state_dict: under the authors' names.

    Raises:
        ValueError: if the network has no known names, or an entry is missing, left over or misshapen, naming it.

    Example:
        >>> from pdesurrogate.models.sfno import SFNO
        >>> model = SFNO(modes=(2, 2, 2), width=4, layers=1, latent_frames=3, compat="torch-cfd", positional="linear")
        >>> load_reference_weights(model, {})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: Expected the entries of the authors' SFNO but 22 are missing: lifting_operator.mlp.linear1.bias, ...
    """
    kind = type(model).__name__
    if not isinstance(model, Translated):
        raise ValueError(f"Expected a network whose authors' names are known but {kind} gives none.")
    translations = model.reference_translations()
    shapes = {name: shape for translation in translations for name, shape in translation.sources.items()}
    missing, extra = sorted(shapes.keys() - state_dict.keys()), sorted(state_dict.keys() - shapes.keys())
    if missing:
        raise ValueError(f"Expected the entries of the authors' {kind} but {_listed(missing, 'missing')}")
    if extra:
        raise ValueError(
            f"Expected the entries of the authors' {kind} alone but {_listed(extra, 'left over')}; "
            "build the network with the sizes that the weights were made for."
        )
    for name, shape in shapes.items():
        if tuple(state_dict[name].shape) != shape:
            raise ValueError(
                f"Expected {name} of shape {shape} but got {tuple(state_dict[name].shape)}; "
                "build the network with the sizes that the weights were made for."
            )
    ours = {each.name: each.join(*(state_dict[name] for name in each.sources)) for each in translations}
    precision = next(iter(ours.values())).dtype
    model.to(precision)
    model.load_state_dict(ours)


def as_matrix(kernel: Tensor) -> Tensor:
    """The matrix ``(out, in)`` of a convolution kernel of size one, ``(out, in, 1, ...)``."""
    return kernel.flatten(1)


def unchanged(values: Tensor) -> Tensor:
    """The entry as it is."""
    return values


def _listed(names: list[str], what: str) -> str:
    shown = ", ".join(names[:3])
    return f"{len(names)} {'is' if len(names) == 1 else 'are'} {what}: {shown}{', ...' if len(names) > 3 else ''}"
