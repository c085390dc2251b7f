"""What a report says about the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from pdesurrogate.steppers.base import Stepper
from pdesurrogate.steppers.persistence import Persistence
from pdesurrogate.steppers.surrogate import Surrogate

Kind = Literal["surrogate", "solver", "baseline"]


@dataclass(frozen=True)
class ModelCard:
    """What a report says about the model.

    Attributes:
        name: label in tables.
        kind: what sort of stepper it is.
        class_path: import path of the stepper or network.
        config: arguments that build it, plain values.
        parameters: real numbers that training can change; zero for solvers and baselines.
        parameters_without_gradient: names of those that the training never reached.
        checkpoint: ``file`` and ``sha256`` as `provenance.checkpoint_record` gives them.
        checkpoint_path: where that file lies now; not stored. By default at ``checkpoint["file"]``.
        training: ``seed``, ``steps``, ``epochs``, ``wall_time_s`` and ``device``.
    """

    name: str
    kind: Kind
    class_path: str
    config: dict[str, Any] = field(default_factory=dict)
    parameters: int = 0
    parameters_without_gradient: tuple[str, ...] = ()
    checkpoint: dict[str, str] | None = None
    checkpoint_path: str | Path | None = None
    training: dict[str, Any] | None = None

    @classmethod
    def of(cls, stepper: Stepper, name: str | None = None, kind: Kind | None = None, **details: Any) -> ModelCard:
        """A card with class path and parameters read off ``stepper``.

        Args:
            stepper: that is described.
            name: label in tables; by default the name of the class, small letters for a baseline.
            kind: by default what the class says: a `Surrogate`, `Persistence` as a baseline, anything else a solver.
            details: further attributes.

        Example:
            >>> card = ModelCard.of(Persistence())
            >>> card.name, card.kind, card.class_path
            ('persistence', 'baseline', 'pdesurrogate.steppers.persistence.Persistence')
        """
        parameters = stepper.parameters() if isinstance(stepper, nn.Module) else ()
        found = {
            "class_path": f"{type(stepper).__module__}.{type(stepper).__qualname__}",
            "parameters": sum(p.numel() * (2 if p.is_complex() else 1) for p in parameters if p.requires_grad),
        }
        if kind is None:
            kind = "surrogate" if isinstance(stepper, Surrogate) else "solver"
            kind = "baseline" if isinstance(stepper, Persistence) else kind
        if name is None:
            name = type(stepper).__name__ if kind != "baseline" else type(stepper).__name__.lower()
        return cls(name, kind, **{**found, **details})

    def to_dict(self) -> dict[str, Any]:
        """As a report stores it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "class_path": self.class_path,
            "config": self.config,
            "parameters": self.parameters,
            "parameters_without_gradient": list(self.parameters_without_gradient),
            "checkpoint": self.checkpoint,
            "training": self.training,
        }
