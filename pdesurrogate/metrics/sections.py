"""How much volume passes each section across a box: as much as enters it, if none is lost on the way."""

from __future__ import annotations

import torch
from torch import Tensor

from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import RolloutMetric, Score, Variable
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.conservation import AT_REST, SIDES, ratio, require_boundary, require_velocity
from pdesurrogate.metrics.faces import open_faces, rates_through_sections
from pdesurrogate.metrics.flow import joint_units
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.staggered import is_staggered


def section_flow_rates(velocity: Tensor, plan: RolloutPlan, context: Context, axis: int) -> tuple[Tensor, Tensor]:
    """Volume that passes each section across an axis, per time.

    A section is what lies at one place along the axis: the faces below a column of cells for staggered components, a
    column of centers or of nodes for others. Closed faces and solid points do not count, whatever is stored there.

    Args:
        velocity: ``(batch, time, d, *space)``.
        plan: says where the components live.
        context: batched; gives areas and mask.
        axis: number of the space axis.

    Returns:
        Integrals of ``u`` and of ``|u|`` over each section ``(batch, time, n)`` in float64.
    """
    mask = context.mask
    if mask is not None and is_staggered(plan):
        mask = open_faces(mask, plan.periodic)[:, axis]
    lines = plan.quadrature_weights(context.coordinates)
    return rates_through_sections(velocity[:, :, axis], lines, axis, mask)


class SectionBalanceMetric(RolloutMetric):
    """Whether what enters a box passes every section of it, for components on faces, in cells or at nodes.

    The flow rate ``Q(x)`` through each section across one axis is that through the first section, where the other ends
    of the box are closed. The imbalance is the largest ``|Q(x) - Q(0)|`` over all sections. On faces the first section
    is the boundary itself and sections are exact: the truth of a staggered solver has an imbalance of round-off. The
    upper boundary is not stored; what passes it follows from continuity. Centers of cells lie half a cell inside, and
    sums over them are no exact integrals: the truth's number is what interpolation and sums leave.

    Both are relative to the truth's own rate through the first section, mean over its frames, or, where next to nothing
    enters (a closed box), to the truth's gross rate: the integral of ``|u|`` over a section, mean over sections and
    frames. Each trajectory has areas and a mask of its own.

    Args:
        plan: what is going to be measured.
        along: name of the axis, not periodic, along which volume enters and leaves; by default the first one. Through
            the ends of others nothing may enter or leave; where it does, the truth's imbalance says so.

    Raises:
        ValueError: if the data hold no velocity, its components live at places that do not go together, all axes are
            periodic, or ``along`` is none of those that are not.
    """

    def __init__(self, plan: RolloutPlan, along: str | None = None) -> None:
        super().__init__(plan)
        self.flow = require_velocity(plan, "the balance of sections")
        require_boundary(plan, "the balance of sections")
        if not (self.flow.collocated or is_staggered(plan)):
            raise ValueError(
                f"Expected velocity components at the same points, or each on the faces that it crosses, for the "
                f"balance of sections but they are declared at {self.flow.locations}; correct the location of the "
                "channels."
            )
        ends = [axis.name for axis in plan.metadata.grid.axes if axis.period is None]
        if along is not None and along not in ends:
            raise ValueError(f"Expected along to be one of the axes that are not periodic, {ends}, but got {along!r}.")
        self.axis = plan.metadata.grid.axis_names.index(along or ends[0])
        for name in (*(f"{kind}_{side}" for kind in ("entering", "deviation") for side in SIDES), "error", "gross"):
            self.add_curve(name)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        axes = self.plan.metadata.grid.axes
        area = axes[0].units if len(axes) == 2 or axes[0].units == "1" else f"{axes[0].units}^{len(axes) - 1}"
        units, dims = joint_units(self.flow.velocity_units, area, " "), ("trajectory", "lead_time")
        along = f"across {axes[self.axis].name}"
        variables = {}
        for side in SIDES:
            variables[f"entering_flow_rate_{side}"] = Variable(
                dims, units, f"flow rate of the {side} through the first section {along}"
            )
            variables[f"section_imbalance_{side}"] = Variable(
                dims, "1", f"largest deviation of a section's flow rate from the first, {along}, of the {side}"
            )
        text = f"largest error of a section's flow rate, {along}, relative to the truth's rate"
        return variables | {"section_flow_rate_error": Variable(dims, "1", text)}

    @property
    def scores(self) -> dict[str, Score]:
        """Means over lead times."""
        text = "largest deviation of a section's flow rate from the first over the truth's rate, mean over lead times"
        return {
            "section_imbalance": Score("section_imbalance_prediction", text),
            "section_imbalance_truth": Score("section_imbalance_truth", f"{text}, of the truth"),
            "section_flow_rate_error": Score(
                "section_flow_rate_error",
                "largest |error of a section's flow rate| over the truth's rate, mean over lead times",
            ),
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        found = {
            side: section_flow_rates(fields.velocity, self.plan, block.context, self.axis)
            for side, fields in block.sides
        }
        for side, (rates, _) in found.items():
            self.write(f"entering_{side}", rates[..., 0], block)
            self.write(f"deviation_{side}", (rates - rates[..., :1]).abs().amax(-1), block)
        (prediction, _), (truth, gross) = found["prediction"], found["truth"]
        self.write("error", (prediction - truth).abs().amax(-1), block)
        self.write("gross", gross.mean(-1), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        gross = self.curve("gross").mean(1, keepdim=True)
        entering = self.curve("entering_truth").abs().mean(1, keepdim=True)
        scale = torch.where(entering > AT_REST * gross, entering, gross)
        outputs = {"section_flow_rate_error": ratio(self.curve("error"), scale)}
        for side in SIDES:
            outputs[f"entering_flow_rate_{side}"] = self.curve(f"entering_{side}")
            outputs[f"section_imbalance_{side}"] = ratio(self.curve(f"deviation_{side}"), scale)
        return outputs
