"""Networks that remember how they were built, so that a checkpoint needs no pickled class.

A checkpoint stores ``{"class_path": ..., "init_args": ...}`` in plain values and loads with ``weights_only=True``,
whether the network came from a YAML file or from Python.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any, Literal, TypeVar, get_args

from torch import nn

Network = TypeVar("Network", bound=type[nn.Module])

# What a network may take of a sample beside its frames, as keywords of ``forward``: ``parameters (batch, parameters)``
# in physical units, ``volumes (batch, *space)`` of the fluid in each cell, zero in solid, ``coordinates``, a tensor
# ``(batch, n)`` for each axis.
ContextInput = Literal["parameters", "volumes", "coordinates"]


def recorded(cls: Network) -> Network:
    """Class decorator: keep the constructor's arguments, defaults included, for `specification_of`.

    Example:
        >>> @recorded
        ... class Scale(nn.Module):
        ...     def __init__(self, width: int = 4):
        ...         super().__init__()
        >>> specification_of(Scale())["init_args"]
        {'width': 4}
    """
    build = cls.__init__
    signature = inspect.signature(build)

    @functools.wraps(build)
    def remember(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if type(self) is cls:  # a subclass records itself
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            values = {name: _plain(name, value) for name, value in list(bound.arguments.items())[1:]}
            self.__dict__["_specification"] = {
                "class_path": f"{cls.__module__}.{cls.__qualname__}",
                "init_args": values,
            }

    cls.__init__ = remember  # type: ignore[method-assign]
    return cls


def specification_of(network: nn.Module) -> dict[str, Any]:
    """``class_path`` and ``init_args`` of a network.

    Raises:
        ValueError: if its class is not decorated.
    """
    specification = network.__dict__.get("_specification")
    if specification is None:
        raise ValueError(
            f"Expected a network that records its arguments but {type(network).__name__} does not; "
            "put @recorded (pdesurrogate.models.specification) above its class."
        )
    return dict(specification)


def build(specification: dict[str, Any]) -> nn.Module:
    """The network of a specification, with fresh weights.

    Raises:
        ValueError: if the class cannot be imported or is not a recorded network.
    """
    network = imported_module(str(specification["class_path"]))(**specification["init_args"])
    specification_of(network)
    return network


def with_defaults(specification: dict[str, Any]) -> dict[str, Any]:
    """A specification with the defaults of arguments that it lacks, as one that was saved before they had come.

    Example:
        >>> full = with_defaults({"class_path": "torch.nn.Dropout", "init_args": {"p": 0.1}})
        >>> full["init_args"]
        {'p': 0.1, 'inplace': False}
    """
    arguments = inspect.signature(imported_module(str(specification["class_path"]))).parameters
    defaults = {name: _plain(name, each.default) for name, each in arguments.items() if each.default is not each.empty}
    return {**specification, "init_args": {**defaults, **specification["init_args"]}}


def imported_module(class_path: str) -> type[nn.Module]:
    """The class of a network, or of another module, that a checkpoint names.

    Raises:
        ValueError: if it cannot be imported or is no module.
    """
    return imported_class(class_path, nn.Module)


def imported_class(class_path: str, kind: type) -> type[Any]:
    """The class that a checkpoint names, which must be of a kind: a checkpoint is not to call whatever it likes.

    Raises:
        ValueError: if it cannot be imported or is of another kind.
    """
    module_name, _, class_name = class_path.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"Expected an installed class but {class_path!r} cannot be imported ({error}). "
            "Install the package that the checkpoint was trained with."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        what = "torch module" if kind is nn.Module else kind.__name__
        raise ValueError(f"Expected the class of a {what} but {class_path!r} is none.")
    return cls


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(name, item) for key, item in value.items()}
    raise ValueError(f"Expected plain values in a network's arguments but {name} is a {type(value).__name__}.")


def context_inputs_of(network: nn.Module) -> tuple[ContextInput, ...]:
    """What a network takes of a sample beside its frames, as its attribute ``context_inputs`` says; nothing without.

    Raises:
        ValueError: for anything that no sample has.

    Example:
        >>> context_inputs_of(nn.Identity())
        ()
    """
    names = tuple(getattr(network, "context_inputs", ()))
    unknown = sorted(set(names) - set(get_args(ContextInput)))
    if unknown:
        raise ValueError(
            f"Expected context_inputs of {type(network).__name__} among {get_args(ContextInput)} but got {unknown}."
        )
    return names
