"""How far a conservation law is broken: measured by the rows that enforce it."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable, shared_units
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.physics.conservation.laws import ConservationLaw
from pdesurrogate.physics.conservation.rows import Rows

_SIDES = ("prediction", "truth")
# Rows that have scores of their own.
_MOST_NAMED = 8


class LawMetric(RolloutMetric):
    """Residual ``G u - b`` of a `ConservationLaw`, of prediction and truth, counted from the truth's first frame.

    Signed, so that a bias can be told from scatter, and absolute, because signed ones cancel between trajectories. The
    truth's own tells what stored precision and quadrature leave.

    Args:
        plan: what is going to be measured.
        law: rows and targets.

    Raises:
        ValueError: if the law is of channels that are not there, or in other units.
    """

    def __init__(self, plan: RolloutPlan, law: ConservationLaw) -> None:
        super().__init__(plan)
        self.law = law
        self._chosen = list(law.channels(plan.metadata))
        self._names = law.names(plan.metadata)
        self._rows: Rows | None = None
        self._made_for: tuple[Tensor | None, ...] = ()
        for side in _SIDES:
            self.add_curve(f"given_{side}", len(self._names))

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims, units = ("trajectory", "lead_time", "row"), shared_units(self.law.units(self.plan.metadata))
        variables = {}
        for side in _SIDES:
            variables[f"law_residual_{side}"] = Variable(dims, units, f"residual of the law, of the {side}")
            variables[f"law_violation_{side}"] = Variable(dims, units, f"absolute residual of the law, of the {side}")
        return variables

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Names of the rows."""
        return {"row": Coordinate(list(self._names), "1", "row of the conservation law")}

    @property
    def scores(self) -> dict[str, Score]:
        """What is left at the last frame, of each row; of many rows the mean."""
        if len(self._names) > _MOST_NAMED:
            text = f"|G u - b| at the last frame, mean over {len(self._names)} rows"
            return {"law_violation": Score("law_violation_prediction", text, "last")}
        units = dict(zip(self._names, self.law.units(self.plan.metadata), strict=True))
        scores = {}
        for name in self._names:
            label = name.replace(" ", "_")
            for kind, text in (("violation", "|G u - b|"), ("residual", "G u - b, signed,")):
                scores[f"law_{kind}_{label}"] = Score(
                    f"law_{kind}_prediction",
                    f"{text} at the last frame, {name}",
                    "last",
                    select={"row": name},
                    units=units[name],
                )
        return scores

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        leaves = (*block.context.coordinates, block.context.mask, block.context.parameters)
        # Blocks of a batch share their context; rows are made anew for another one.
        if len(leaves) != len(self._made_for) or any(a is not b for a, b in zip(leaves, self._made_for, strict=True)):
            self._rows, self._made_for = self.law.rows(self.plan.metadata, block.context), leaves
        assert self._rows is not None
        for side, fields in block.sides:
            self.write(f"given_{side}", self._rows.apply(fields.values[:, :, self._chosen]), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        outputs = {}
        frames = torch.arange(self.plan.frames)
        given = {side: self.curve(f"given_{side}") for side in _SIDES}
        target, _ = self.law.target(self.plan.metadata, given["truth"][:, 0], frames.to(given["truth"].device))
        for side, values in given.items():
            outputs[f"law_residual_{side}"] = values - target
            outputs[f"law_violation_{side}"] = (values - target).abs()
        return outputs
