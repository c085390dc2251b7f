"""What a flow keeps or balances: volume, momentum, energy, enstrophy; and what its walls demand.

All metrics here measure prediction and truth alike and give both as ``<name>_prediction`` and ``<name>_truth``. The
truth's own numbers show what the stencil, the stored precision and the frame interval leave; where a signed quantity is
compared, ``<name>_error`` is the magnitude of the difference of the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pdesurrogate.fields.grid import Grid
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.metrics.base import Coordinate, RolloutMetric, Score, Variable
from pdesurrogate.metrics.block import Block, Fields, at_least_float32, box_mean
from pdesurrogate.metrics.faces import open_faces, rates_through_sections
from pdesurrogate.metrics.flow import Flow, joint_units, require_flow
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.staggered import is_staggered
from pdesurrogate.physics.finite_difference import VelocityGradient, collocated_gradient, staggered_gradient
from pdesurrogate.physics.operators import velocity_symbol
from pdesurrogate.physics.spectral import WaveSums, angular_wavenumbers, derivative_wavenumbers, squared_magnitude

# Below this share of the truth's rms velocity a boundary is at rest: well above what single precision (1e-7) and an
# interpolation onto the stored grid (1e-5) leave on a wall, far below any inflow.
AT_REST = 1e-3

SIDES = ("prediction", "truth")


def cumulative_integral(rates: Tensor, interval: float) -> Tensor:
    """Integral from the first frame up to each frame of ``rates (..., time)``; same shape, zero at the first.

    Each interval is integrated over the cubic through the two frames on either side, or the four outermost frames at
    the ends: weights ``(-1, 13, 13, -1) / 24`` and ``(9, 19, -5, 1) / 24``, of fourth order in ``interval``. With fewer
    than four frames, and next to a frame that is not finite, the trapezoid rule takes its place.

    Raises:
        ValueError: if the interval is not positive.

    Example:
        >>> times = torch.arange(6, dtype=torch.float64)
        >>> torch.allclose(cumulative_integral(4 * times**3, 1.0), times**4)
        True
    """
    if not interval > 0:
        raise ValueError(f"Expected a positive interval but got {interval}.")
    before, after = rates[..., :-1], rates[..., 1:]
    pieces = (before + after) / 2
    if rates.shape[-1] >= 4:
        inner = (13 * (before + after)[..., 1:-1] - rates[..., :-3] - rates[..., 3:]) / 24
        end = rates.new_tensor([9.0, 19.0, -5.0, 1.0]) / 24
        first = (rates[..., :4] * end).sum(-1, keepdim=True)
        last = (rates[..., -4:] * end.flip(0)).sum(-1, keepdim=True)
        cubic = torch.cat([first, inner, last], -1)
        pieces = torch.where(torch.isfinite(cubic), cubic, pieces)
    return interval * torch.cat([torch.zeros_like(rates[..., :1]), pieces.cumsum(-1)], -1)


def boundary_flow_rates(
    velocity: Tensor, grid: Grid, context: Context, *, cells: bool = False
) -> tuple[Tensor, Tensor]:
    """Volume that passes the ends of every axis that is not periodic, per time.

    An end is the plane of the first or last points; solid points of it do not count.

    Args:
        velocity: ``(batch, time, d, *space)``.
        grid: says which axes are periodic.
        context: batched; its coordinates give the areas.
        cells: coordinates are those of centers of cells; see `Grid.quadrature_weights`.

    Returns:
        Integrals of ``u_i`` and of ``|u_i|`` over the ends ``(batch, time, ends)`` in float64; the low and the high end
        of each axis ``i`` in turn. Both are along the axis: what enters at a low end is positive.

    Raises:
        ValueError: if all axes are periodic.

    Example:
        >>> from pdesurrogate.fields.grid import Axis
        >>> grid = Grid((Axis("x"), Axis("y", period=2.0)))
        >>> context = Context((torch.linspace(0, 1, 5)[None], torch.linspace(0, 1.5, 4)[None]))
        >>> velocity = torch.tensor([3.0, 1.0]).reshape(1, 1, 2, 1, 1).expand(1, 1, 2, 5, 4)
        >>> boundary_flow_rates(velocity, grid, context)[0].tolist()
        [[[6.0, 6.0]]]
    """
    if not _ends(grid):
        raise ValueError("Expected an axis that is not periodic but all are; such a box has no boundary.")
    lines = grid.quadrature_weights(context.coordinates, cells=cells)
    passing = [
        rates_through_sections(velocity[:, :, axis], lines, axis, context.mask)
        for axis, each in enumerate(grid.axes)
        if each.period is None
    ]
    net, gross = (torch.cat([rates[..., [0, -1]] for rates in sections], -1) for sections in zip(*passing, strict=True))
    return net, gross


def solid_points(
    velocity: Tensor, grid: Grid, mask: Tensor | None = None, *, cells: bool = False, at_rest: float = AT_REST
) -> Tensor:
    """Where a viscous flow must be at rest: outside the mask, and where its boundary already is.

    A data set does not say which of its boundaries are walls; the flow does, at each boundary point and time: one is a
    wall where the speed is at most ``at_rest`` of its root mean square over the fluid. A moving lid, an inlet and an
    outlet are no walls at rest, and not to copy them would be the violation.

    Args:
        velocity: the truth ``(batch, time, d, *space)``.
        grid: says which axes are periodic.
        mask: ``(batch, *space)``, true where there is fluid.
        cells: points are centers of cells, none of which lies on the boundary: only the mask counts.
        at_rest: share of the rms speed. A stored wall is seldom at rest exactly: interpolation leaves about 1e-5 there.

    Returns:
        ``(batch, time, 1, *space)``, true at solid points.

    Raises:
        ValueError: if ``at_rest`` is negative, or one and more.

    Example:
        >>> from pdesurrogate.fields.grid import Axis
        >>> grid = Grid((Axis("x", period=1.0), Axis("y")))
        >>> velocity = torch.tensor([1e-5, 1.0, 0.0]).expand(1, 1, 2, 4, 3)  # two walls along x
        >>> solid_points(velocity, grid)[0, 0, 0, 0].tolist()
        [True, False, True]
    """
    _check_at_rest(at_rest)
    square = at_least_float32(velocity).square().sum(2, keepdim=True)
    fluid = None if mask is None else mask[:, None, None].bool()
    slow = _slow(square, fluid, at_rest)
    on_boundary = torch.zeros_like(slow[:1, :1])
    for axis, end in [] if cells else _ends(grid):
        on_boundary.select(axis + 3, end).fill_(True)
    walls = slow & on_boundary
    return walls if mask is None else walls | ~mask.bool()[:, None, None]


def solid_faces(velocity: Tensor, grid: Grid, mask: Tensor | None = None, *, at_rest: float = AT_REST) -> Tensor:
    """Which stored faces nothing may pass: the closed ones of a mask, and those on a wall of the box.

    As `solid_points` for a velocity whose components live on the faces that they cross. Only the low faces of an axis
    that is not periodic are stored on the boundary; one is that of a wall where the truth's velocity through it is at
    most ``at_rest`` of its root mean square speed, at an inlet it is larger. What slides along a wall is not stored.

    Args:
        velocity: the truth ``(batch, time, d, *space)``, value ``i`` of a component on the face below cell ``i``.
        grid: says which axes are periodic.
        mask: ``(batch, *space)``, true where the center of a cell is in the fluid; see `open_faces`.
        at_rest: share of the rms speed.

    Returns:
        ``(batch, time, d, *space)``, true at faces that nothing may pass.

    Raises:
        ValueError: if ``at_rest`` is negative, or one and more.

    Example:
        >>> from pdesurrogate.fields.grid import Axis
        >>> velocity = torch.ones(1, 1, 2, 3, 2)
        >>> velocity[..., 1, :, 0] = 0.0  # an inlet at the left, a wall at the bottom
        >>> solid_faces(velocity, Grid((Axis("x"), Axis("y"))))[0, 0].sum((-2, -1)).tolist()
        [0, 3]
    """
    _check_at_rest(at_rest)
    square = at_least_float32(velocity).square()
    fluid = None if mask is None else open_faces(mask, [axis.period is not None for axis in grid.axes])[:, None]
    slow = _slow(square, fluid, at_rest)
    on_boundary = torch.zeros_like(slow[:1, :1])
    for axis, end in _ends(grid):
        if end == 0:  # the highest face is not stored
            on_boundary[:, :, axis].select(axis + 2, end).fill_(True)
    walls = slow & on_boundary
    return walls if fluid is None else walls | ~fluid


def _slow(square: Tensor, fluid: Tensor | None, at_rest: float) -> Tensor:
    """Where squares ``(batch, time, component, *space)`` are small beside their sum's mean over the fluid."""
    weights = None if fluid is None else fluid.to(square.dtype)
    speed_square = box_mean(square, weights).to(square.dtype).sum(-1, keepdim=True)
    return square <= at_rest**2 * speed_square.reshape(*speed_square.shape, *(1,) * (square.ndim - 3))


def _ends(grid: Grid) -> list[tuple[int, int]]:
    """Axis and index of each end of the axes that are not periodic."""
    return [(axis, end) for axis, each in enumerate(grid.axes) if each.period is None for end in (0, -1)]


class DivergenceMetric(RolloutMetric):
    """Root mean square divergence of a velocity, absolute and relative to its own rms gradient.

    The stencil is that of the declared staggering (`Channel.location`):

    - components at the same points of an evenly spaced periodic box: spectral, by Parseval's identity;
    - components at the same points of any other box: `collocated_gradient`;
    - components on the faces that they cross (``velocity_x`` at ``face_x`` and so on): `staggered_gradient`, which
      leaves out the last cell of each axis that is not periodic, since its upper face is not stored.

    Of components at the same points, cells whose stencil touches solid are left out. On faces every cell of fluid
    counts: a face that is closed by a solid cell (`open_faces`) has the velocity zero, whatever is stored there. So the
    truth of a staggered solver has none but round-off next to bodies too, and what a prediction lets through a closed
    face is told once, by `NoSlipMetric`. Another stencil than the solver's own finds a divergence in a truth
    that has none to its solver: the truth's number is what the stencil leaves. For white noise the relative number is
    about one over the root of the number of axes; where there is no solid it is at most that root. Differences cannot
    be better than their coordinates: in single precision these leave about 1e-7 times the number of points.

    Args:
        plan: what is going to be measured.

    Raises:
        ValueError: if the data hold no velocity, its components are declared at places that do not go together, or
            there are too few points for a stencil.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        self.flow = require_velocity(plan, "the divergence")
        staggered = is_staggered(plan)
        if not staggered and set(self.flow.locations) not in ({"node"}, {"cell"}):
            raise ValueError(
                f"Expected velocity components all at nodes, all in cells, or on "
                f"{tuple(f'face_{axis}' for axis in plan.metadata.grid.axis_names)} but they are declared at "
                f"{self.flow.locations}; correct the location of the channels."
            )
        self.spectral = not staggered and _is_spectral(plan)
        self._staggered = staggered
        if self.spectral:
            # Waves of which the divergence has no derivative must not count in the gradient either.
            squared = _squared(derivative_wavenumbers(plan.wave_shape, plan.wave_periods))
            self.divergence_sum = WaveSums(torch.ones_like(squared)[None], plan.shape)
            # The energy density is half of the squared velocity.
            self.gradient_sum = WaveSums(2 * squared[None], plan.shape)
        elif min(plan.shape) < 3:
            raise ValueError(f"Expected at least three points along each axis for the divergence but got {plan.shape}.")
        for side in SIDES:
            self.add_curve(f"divergence_{side}")
            self.add_curve(f"gradient_{side}")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        dims, text = ("trajectory", "lead_time"), "root mean square divergence of the"
        variables = {}
        for side in SIDES:
            variables[f"divergence_{side}"] = Variable(dims, self.flow.vorticity_units, f"{text} {side}")
            variables[f"relative_divergence_{side}"] = Variable(
                dims, "1", f"{text} {side}, relative to the rms of its velocity gradient"
            )
        return variables

    @property
    def scores(self) -> dict[str, Score]:
        """Relative divergence of both: the truth's is the least that can be asked for."""
        text = "rms divergence relative to the rms velocity gradient, mean over lead times"
        return {
            "relative_divergence": Score("relative_divergence_prediction", text),
            "relative_divergence_truth": Score("relative_divergence_truth", f"{text}, of the truth"),
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        weights = (None, None) if self.spectral else self._weights(block)
        for side, fields in block.sides:
            if self.spectral:
                divergence, gradient = self._squares_of_waves(fields)
            else:
                found = self._gradient(fields.velocity, block.context)
                divergence = box_mean(found.divergence.square().unsqueeze(2), weights[0])[..., 0]
                gradient = box_mean(found.squared_norm.unsqueeze(2), weights[1])[..., 0]
            self.write(f"divergence_{side}", divergence, block)
            self.write(f"gradient_{side}", gradient, block)

    def _squares_of_waves(self, fields: Fields) -> tuple[Tensor, Tensor]:
        spectra = self.flow.select(fields.spectrum).unbind(2)
        divergence = torch.zeros_like(spectra[0])
        for wave, spectrum in zip(fields.waves, spectra, strict=True):
            divergence = divergence + wave * spectrum
        divergence_square = self.divergence_sum(squared_magnitude(divergence))[..., 0]
        return divergence_square, self.gradient_sum(fields.energy_density)[..., 0]

    def _gradient(self, velocity: Tensor, context: Context) -> VelocityGradient:
        axes = self.plan.metadata.grid.axes
        periods = [axis.period for axis in axes]
        if self._staggered:
            if context.mask is not None:
                velocity = torch.where(open_faces(context.mask, self.plan.periodic)[:, None], velocity, 0.0)
            return staggered_gradient(velocity, context.coordinates, periods, [axis.bounds for axis in axes])
        return collocated_gradient(velocity, context.coordinates, periods)

    def _weights(self, block: Block) -> tuple[Tensor | None, Tensor | None]:
        """Weights ``(batch, 1, 1, *space)`` of divergence and squared gradient where the stencil gives them."""
        weights, mask = block.weights, block.context.mask
        if weights is None:
            return None, None
        if self._staggered:
            for axis, periodic in enumerate(self.plan.periodic, start=3):
                weights = weights if periodic else weights.narrow(axis, 0, weights.shape[axis] - 1)
        if mask is None or self._staggered:  # closed faces are known, so that every cell of fluid has its stencil
            return weights, weights
        # A stencil that meets a marked point gives no number: the stencil itself says what it touches.
        marks = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask.bool(), torch.nan)
        dimension = len(self.plan.shape)
        known = self._gradient(marks.unsqueeze(1).expand(-1, dimension, *[-1] * dimension), block.context)
        divergence, gradient = (weights * torch.isfinite(values)[:, None, None] for values in known)
        return divergence, gradient

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        outputs = {}
        for side in SIDES:
            divergence = self.curve(f"divergence_{side}").sqrt()
            outputs[f"divergence_{side}"] = divergence
            outputs[f"relative_divergence_{side}"] = ratio(divergence, self.curve(f"gradient_{side}").sqrt())
        return outputs


class IntegralMetric(RolloutMetric):
    """Drift of the box mean of every channel, whatever the data: of mass, of momentum, of circulation.

    Drifts are counted from the truth's first predicted frame, for prediction and truth alike, and relative to the root
    mean square of the truth's channel over space and all frames. Only a channel whose integral the equation keeps
    should have none; of others the error tells how far the prediction's integral is from the truth's.

    Args:
        plan: what is going to be measured.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        channels = len(plan.metadata.channels)
        for side in SIDES:
            self.add_curve(f"mean_{side}", channels)
        self.add_curve("square", channels)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        meaning = "drift of the box mean, relative to the truth's rms"
        return _compared_variables("drift_integral", meaning, ("trajectory", "lead_time", "channel"))

    @property
    def scores(self) -> dict[str, Score]:
        """Error at the end."""
        text = "|drift of the box mean less the truth's| over the truth's rms at the last frame, mean over channels"
        return {"integral_drift": Score("drift_integral_error", text, "last")}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        for side, fields in block.sides:
            self.write(f"mean_{side}", block.mean(fields.values), block)
        self.write("square", block.mean(block.target.values.square()), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        prediction, truth = (self.curve(f"mean_{side}") for side in SIDES)
        scale = self.curve("square").mean(1, keepdim=True).sqrt()
        start = truth[:, :1]
        return _compared("drift_integral", ratio(prediction - start, scale), ratio(truth - start, scale))


class EnergyDriftMetric(RolloutMetric):
    """Drift of kinetic energy and enstrophy (box means of ``|u|^2 / 2`` and ``|curl u|^2 / 2``) of any flow.

    Both are counted from, and relative to, the truth's own value at its first predicted frame. The energy of data with
    walls, masks or uneven points is taken by quadrature. The enstrophy needs derivatives; it is measured in evenly
    spaced periodic boxes, of components that live at the same points.

    Args:
        plan: what is going to be measured.

    Raises:
        ValueError: if the data hold no flow, or a vorticity at points that are not evenly spaced.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        self.flow = require_flow(plan.metadata, "drifts of energy and enstrophy")
        self.spectral = _is_spectral(plan)
        if not self.spectral and self.flow.given == "vorticity":
            raise ValueError(
                f"Expected evenly spaced points and no mask for the energy of a vorticity but got even: {plan.even}, "
                f"mask: {plan.masked}; leave this metric out of the suite."
            )
        self.quantities = ("energy", "enstrophy") if self.spectral and self.flow.collocated else ("energy",)
        if self.spectral:
            self.total = WaveSums(torch.ones(1, *plan.shape[:-1], plan.shape[-1] // 2 + 1), plan.shape)
        for side in SIDES:
            self.add_curve(side, len(self.quantities))

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        names = {"energy": "kinetic energy", "enstrophy": "enstrophy"}
        variables: dict[str, Variable] = {}
        for name in self.quantities:
            meaning = f"drift of the {names[name]}, relative to the truth's first"
            variables |= _compared_variables(f"drift_{name}", meaning)
        return variables

    @property
    def scores(self) -> dict[str, Score]:
        """Errors at the end."""
        return {
            f"{name}_drift": Score(
                f"drift_{name}_error", f"|relative drift of the {name} less the truth's| at the last frame", "last"
            )
            for name in self.quantities
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        for side, fields in block.sides:
            if self.spectral:
                values = [self.total(fields.energy_density)]
                if "enstrophy" in self.quantities:
                    values.append(self.total(fields.enstrophy_density))
            else:
                values = [block.mean(fields.velocity.square()).sum(-1, keepdim=True) / 2]
            self.write(side, torch.cat(values, -1), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        prediction, truth = self.curve("prediction"), self.curve("truth")
        start = truth[:, :1]
        drifts = (ratio(side - start, start).unbind(-1) for side in (prediction, truth))
        outputs: dict[str, Tensor] = {}
        for name, of_prediction, of_truth in zip(self.quantities, *drifts, strict=True):
            outputs |= _compared(f"drift_{name}", of_prediction, of_truth)
        return outputs


class BudgetMetric(RolloutMetric):
    """What energy, enstrophy and momentum or circulation do that the plane Navier–Stokes equation does not account for.

    With viscosity ``nu``, linear drag ``a`` and a steady body force ``f`` of curl ``g``, box means obey::

        d/dt <|u|^2> / 2 = <u . f> - nu <(w - <w>)^2> - a <|u|^2>
        d/dt <w^2> / 2   = <w g>   - nu <|grad w|^2>  - a <w^2>
        d/dt <u>         = <f> - a <u>                d/dt <w> = <g> - a <w>

    A periodic velocity has no mean vorticity. Where vorticity data carry one, no velocity goes with it: it counts in
    the enstrophy and the circulation, not in the energy.

    The residual at a frame is the change since the first predicted frame less the integral of the right-hand side along
    the *same* trajectory (`cumulative_integral`): no truth is needed, and a rollout that drifts away but obeys the
    equation has none. It is relative to the truth's energy or enstrophy at that frame, or to its rms velocity or
    vorticity there. A positive residual is a source that the equation does not have.

    The truth's residual shows the error of the integral over stored frames and what fell through the stored grid. Where
    the flow is forced and neither the context nor the data set's recipe tells the forcing, prediction and truth both
    miss what it puts in: nothing is assumed in its place. Momentum is measured of velocity
    data, circulation (the mean vorticity, per area) of vorticity data; the other one is fixed by the periodic box.

    Args:
        plan: what is going to be measured; a plane periodic flow at evenly spaced points and two frames at least. The
            force comes from ``Context.forcing``, in the channels of the data.
        viscosity: name of the parameter that holds the kinematic viscosity.
        drag: name of the parameter that holds the linear drag; data without it have none.

    Raises:
        ValueError: if the data are no such flow, or do not state their viscosity.
    """

    def __init__(self, plan: RolloutPlan, viscosity: str = "viscosity", drag: str = "drag") -> None:
        super().__init__(plan)
        self.flow = require_flow(plan.metadata, "budgets")
        if len(plan.shape) != 2 or not _is_spectral(plan) or not self.flow.collocated:
            raise ValueError(
                f"Expected a plane periodic flow at evenly spaced points, all components at the same ones, for budgets "
                f"but got {len(plan.shape)} axes, periodic: {plan.periodic}, even: {plan.even}, mask: {plan.masked}, "
                f"locations: {self.flow.locations}; leave this metric out of the suite."
            )
        if plan.frames < 2:
            raise ValueError(f"Expected at least two frames for budgets but got {plan.frames}; roll out further.")
        names = plan.metadata.parameters
        if viscosity not in names:
            raise ValueError(
                f"Expected a parameter {viscosity!r} for budgets but the data have {names}; without a viscosity no "
                "budget can be claimed, leave this metric out of the suite."
            )
        self._viscosity = names.index(viscosity)
        self._drag = names.index(drag) if drag in names else None
        squared = _squared(angular_wavenumbers(plan.wave_shape, plan.wave_periods))
        ones = torch.ones_like(squared)
        self.total = WaveSums(ones[None], plan.shape)
        self.sums = WaveSums(torch.stack([(squared > 0).to(ones), ones, squared]), plan.shape)
        if self.flow.given == "vorticity":
            # With vorticities w and g for velocity and force: <u . f> is the sum of their products over k^2.
            over_squared = squared_magnitude(velocity_symbol(plan.shape, plan.wave_periods)).sum(0)
            powers = WaveSums(torch.stack([over_squared, ones]), plan.shape).table
            self.quantities: tuple[str, ...] = ("energy", "enstrophy", "circulation")
        else:
            powers = WaveSums(torch.stack([ones, squared]), plan.shape).table
            self.quantities = ("energy", "enstrophy", *(f"momentum_{axis}" for axis in plan.metadata.grid.axis_names))
        # Once for the real and once for the imaginary part of each wave.
        self.register_buffer("power_table", powers.repeat_interleave(2, 0), persistent=False)
        # Drag takes from squares at twice the rate at which it takes from means.
        degrees = torch.ones(len(self.quantities), dtype=torch.float64)
        degrees[:2] = 2.0
        self.register_buffer("degrees", degrees, persistent=False)
        for side in SIDES:
            self.add_curve(f"values_{side}", len(self.quantities))
            self.add_curve(f"rates_{side}", len(self.quantities))

    degrees: Tensor
    power_table: Tensor

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        scales = {"energy": "energy", "enstrophy": "enstrophy", "circulation": "rms vorticity"}
        variables: dict[str, Variable] = {}
        for name in self.quantities:
            missed = f"change of the {name.replace('_', ' in ')} that its budget misses"
            meaning = f"{missed}, relative to the truth's first {scales.get(name, 'rms velocity')}"
            variables |= _compared_variables(f"budget_{name}", meaning)
        return variables

    @property
    def scores(self) -> dict[str, Score]:
        """Errors at the end."""
        return {
            f"{name}_budget": Score(
                f"budget_{name}_error",
                f"|relative change of the {name} that its budget misses, less the truth's| at the last frame",
                "last",
            )
            for name in ("energy", "enstrophy")
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`.

        Raises:
            ValueError: if the context holds no parameters, or a forcing of another shape than the frames.
        """
        viscosity, drag = self._coefficients(block.context)
        force = self._force(block)
        for side, fields in block.sides:
            fluctuation, enstrophy, palinstrophy = self.sums(fields.enstrophy_density).unbind(-1)
            energy = self.total(fields.energy_density)[..., 0]
            spectrum = self.flow.select(fields.spectrum)
            means = spectrum[..., 0, 0].real.to(torch.float64)
            values = torch.cat([torch.stack([energy, enstrophy], -1), means], -1)
            viscous = torch.cat([torch.stack([fluctuation, palinstrophy], -1), torch.zeros_like(means)], -1)
            rates = -2 * viscosity * viscous - drag * self.degrees * values
            if force is not None:
                pushes = force[..., 0, 0].real.to(torch.float64).expand_as(means)
                rates = rates + torch.cat([self._power(spectrum, force), pushes], -1)
            self.write(f"values_{side}", values, block)
            self.write(f"rates_{side}", rates, block)

    def _coefficients(self, context: Context) -> tuple[Tensor, Tensor]:
        """Viscosity and drag ``(batch, 1, 1)``."""
        if context.parameters is None:
            raise ValueError(
                f"Expected parameters {self.plan.metadata.parameters} in the context but it has none; "
                "read the trajectories with their parameters."
            )
        parameters = context.parameters.to(torch.float64)[:, :, None, None]
        viscosity = parameters[:, self._viscosity]
        return viscosity, torch.zeros_like(viscosity) if self._drag is None else parameters[:, self._drag]

    def _power(self, spectrum: Tensor, force: Tensor) -> Tensor:
        """What the force puts into energy and enstrophy ``(batch, time, 2)``."""
        # Real and imaginary parts side by side: strided halves of complex numbers are slow to read.
        products = (torch.view_as_real(spectrum) * torch.view_as_real(force)).flatten(3).sum(2)
        return (products @ self.power_table.to(products.dtype)).to(torch.float64)

    def _force(self, block: Block) -> Tensor | None:
        """Spectrum of the force ``(batch, 1, component, *waves)``, without the part that the pressure takes up."""
        forcing = block.context.forcing
        if forcing is None:
            return None
        expected = block.target.values[:, 0].shape
        if forcing.shape != expected:
            raise ValueError(
                f"Expected a forcing {tuple(expected)}, one source for each channel, but got {tuple(forcing.shape)}."
            )
        fields = Fields(forcing.unsqueeze(1), self.plan)
        force = self.flow.select(fields.spectrum)
        if self.flow.given == "vorticity":
            return force
        wave = torch.stack(torch.broadcast_tensors(*fields.waves))
        squared = wave.square().sum(0)
        along = (force * wave).sum(2, keepdim=True) / torch.where(squared > 0, squared, 1.0)
        return force - along * wave

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        start = self.curve("values_truth")[:, :1]
        energy, enstrophy = start[..., :1], start[..., 1:2]
        speed = (2 * (enstrophy if self.flow.given == "vorticity" else energy)).sqrt()
        scale = torch.cat([energy, enstrophy, speed.expand_as(start[..., 2:])], -1)
        residuals = []
        for side in SIDES:
            values, rates = self.curve(f"values_{side}"), self.curve(f"rates_{side}")
            expected = cumulative_integral(rates.transpose(1, 2), self.plan.metadata.frame_interval).transpose(1, 2)
            residuals.append(ratio(values - values[:, :1] - expected, scale).unbind(-1))
        outputs: dict[str, Tensor] = {}
        for name, of_prediction, of_truth in zip(self.quantities, *residuals, strict=True):
            outputs |= _compared(f"budget_{name}", of_prediction, of_truth)
        return outputs


class FluxBalanceMetric(RolloutMetric):
    """Whether as much volume leaves the box as enters it, and the flow rate through each of its ends.

    The net flux is relative to the truth's throughput, half of the integral of ``|u . n|`` over all ends of axes that
    are not periodic, mean over its frames. Where the truth's throughput vanishes (a closed box, a channel between
    walls), what a flow of the truth's rms velocity would carry through ends without walls takes its place. An end is
    the plane of first or last nodes. Of staggered components the high end is not stored, and no center of a cell lies
    on an end: `SectionBalanceMetric` measures such data.

    Args:
        plan: what is going to be measured.

    Raises:
        ValueError: if the data hold no velocity at nodes, or all axes are periodic.
    """

    def __init__(self, plan: RolloutPlan) -> None:
        super().__init__(plan)
        self.flow = require_velocity(plan, "the flux balance")
        require_boundary(plan, "the flux balance")
        if set(self.flow.locations) != {"node"}:
            raise ValueError(
                f"Expected velocity components at nodes for the flux balance but they are declared at "
                f"{self.flow.locations}, of which no end of the box is stored; SectionBalanceMetric measures them."
            )
        ends = 2 * plan.periodic.count(False)
        for side in SIDES:
            self.add_curve(f"rates_{side}", ends)
        self.add_curve("scale")

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        axes = self.plan.metadata.grid.axes
        area = axes[0].units if len(axes) == 2 or axes[0].units == "1" else f"{axes[0].units}^{len(axes) - 1}"
        units = joint_units(self.flow.velocity_units, area, " ")
        ends = ("trajectory", "lead_time", "boundary")
        variables = {
            f"flow_rate_{side}": Variable(ends, units, f"flow rate of the {side} along the axis through an end of it")
            for side in SIDES
        }
        variables["flow_rate_error"] = Variable(
            ends, "1", "magnitude of the flow rate's error, relative to the truth's throughput"
        )
        variables |= {
            f"flux_imbalance_{side}": Variable(
                ends[:2], "1", f"magnitude of the net volume flux of the {side}, relative to the truth's throughput"
            )
            for side in SIDES
        }
        return variables

    @property
    def coordinates(self) -> dict[str, Coordinate]:
        """Names of the ends."""
        axes = self.plan.metadata.grid.axes
        names = [f"{axis.name}_{end}" for axis in axes if axis.period is None for end in ("low", "high")]
        return {"boundary": Coordinate(names, "1", "end of an axis that is not periodic")}

    @property
    def scores(self) -> dict[str, Score]:
        """Means over lead times."""
        text = "|net volume flux through the boundary| over the truth's throughput, mean over lead times"
        return {
            "flux_imbalance": Score("flux_imbalance_prediction", text),
            "flux_imbalance_truth": Score("flux_imbalance_truth", f"{text}, of the truth"),
            "flow_rate_error": Score(
                "flow_rate_error", "|error of the flow rate| over the truth's throughput, mean over lead times and ends"
            ),
        }

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        grid, context, cells = self.plan.metadata.grid, block.context, self.plan.cell_centered
        for side, fields in block.sides:
            rates, gross = boundary_flow_rates(fields.velocity, grid, context, cells=cells)
            self.write(f"rates_{side}", rates, block)
        velocity = block.target.velocity
        _, areas = boundary_flow_rates(torch.ones_like(velocity[:, :1]), grid, context, cells=cells)
        # The truth comes last: this is its throughput.
        throughput = gross.sum(-1) / 2
        open_box = block.mean(velocity.square()).sum(-1).sqrt() * areas.sum(-1) / 2
        self.write("scale", torch.where(throughput > AT_REST * open_box, throughput, open_box), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        scale = self.curve("scale").mean(1, keepdim=True)
        rates = {side: self.curve(f"rates_{side}") for side in SIDES}
        outputs = {f"flow_rate_{side}": values for side, values in rates.items()}
        error = (rates["prediction"] - rates["truth"]).abs()
        outputs["flow_rate_error"] = ratio(error, scale.unsqueeze(-1))
        for side, values in rates.items():
            net = values[..., 1::2].sum(-1) - values[..., ::2].sum(-1)
            outputs[f"flux_imbalance_{side}"] = ratio(net.abs(), scale)
        return outputs


class NoSlipMetric(RolloutMetric):
    """Root mean square velocity at `solid_points`, or through `solid_faces`, relative to the truth's over the fluid.

    Solid is what lies outside the mask, and boundary points at which the truth is at rest in the same frame: data do
    not say which boundaries are walls, and a moving lid, an inlet or an outlet is no violation. In a frame without such
    a point nothing was measured, and the number is NaN. A number below ``at_rest`` is no finding: as much is allowed to
    the truth's own walls. Centers of cells lie on no wall; of data there only the outside of a mask is measured.

    Of components on the faces that they cross it is the velocity through closed faces: all those of solid cells, and
    the stored ones of walls, which are at the low ends of axes. A staggered velocity along a wall is not stored.

    Args:
        plan: what is going to be measured.
        at_rest: a boundary point is at rest up to this share of the truth's rms speed. By default a thousandth: a
            stored wall holds what interpolation left there, about 1e-5, and a lid or an inlet is far above.

    Raises:
        ValueError: if the components of the velocity live neither at the same points nor each on the faces that it
            crosses, the data have neither mask nor boundary, or live in cells without a mask; or ``at_rest`` is
            negative, or one and more.
    """

    def __init__(self, plan: RolloutPlan, at_rest: float = AT_REST) -> None:
        super().__init__(plan)
        self.flow = require_velocity(plan, "the no-slip condition")
        if not plan.masked:
            require_boundary(plan, "the no-slip condition")
        self._staggered = is_staggered(plan)
        if not (self.flow.collocated or self._staggered):
            raise ValueError(
                f"Expected velocity components at the same points, or each on the faces that it crosses, for the "
                f"no-slip condition but they are declared at {self.flow.locations}; leave this metric out of the suite."
            )
        self._cells = not self._staggered and self.flow.locations[0] != "node"
        if self._cells and not plan.masked:
            raise ValueError(
                f"Expected velocity components at nodes, or a mask, for the no-slip condition but they are declared at "
                f"{self.flow.locations}, where no point lies on a wall; leave this metric out of the suite."
            )
        _check_at_rest(at_rest)
        self.at_rest = at_rest
        for name in (*SIDES, "speed"):
            self.add_curve(name)

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        text = "rms velocity through closed faces" if self._staggered else "rms velocity at solid points"
        text = f"{text}, relative to the truth's in the fluid"
        return {
            f"no_slip_violation_{side}": Variable(("trajectory", "lead_time"), "1", f"{text}, of the {side}")
            for side in SIDES
        }

    @property
    def scores(self) -> dict[str, Score]:
        """Mean over lead times."""
        text = "rms velocity at solid points or faces over the truth's rms velocity, mean over lead times"
        return {"no_slip_violation": Score("no_slip_violation_prediction", text)}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`."""
        grid, mask, truth = self.plan.metadata.grid, block.context.mask, block.target.velocity
        if self._staggered:
            solid = solid_faces(truth, grid, mask, at_rest=self.at_rest)
            speed = block.mean(torch.where(solid, 0.0, truth.square()))
        else:
            solid = solid_points(truth, grid, mask, cells=self._cells, at_rest=self.at_rest)
            speed = block.mean(truth.square())
        # Faces are counted one by one, points with all components of their velocity.
        everything = tuple(range(2, solid.ndim))
        count = solid.sum(everything)
        for side, fields in block.sides:
            total = torch.where(solid, fields.velocity.square(), 0.0).sum(everything)
            # Nothing over nothing is NaN: where no point is solid, nothing was measured.
            self.write(side, total / count, block)
        self.write("speed", speed.sum(-1), block)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        speed = self.curve("speed")
        return {f"no_slip_violation_{side}": ratio(self.curve(side), speed).sqrt() for side in SIDES}


def require_velocity(plan: RolloutPlan, what: str) -> Flow:
    """The flow of data that hold a velocity.

    Raises:
        ValueError: if they hold none, naming ``what`` needs it.
    """
    flow = require_flow(plan.metadata, what)
    if flow.given != "velocity":
        raise ValueError(
            f"Expected velocity data for {what} but got a vorticity, whose flow fulfils it whatever a model does; "
            "leave this metric out of the suite."
        )
    return flow


def _check_at_rest(at_rest: float) -> None:
    if not 0 <= at_rest < 1:
        raise ValueError(f"Expected at_rest from zero up to one, a share of the rms speed, but got {at_rest}.")


def require_boundary(plan: RolloutPlan, what: str) -> None:
    """Refuse data without an end.

    Raises:
        ValueError: if all axes are periodic, naming ``what`` needs another.
    """
    if all(plan.periodic):
        raise ValueError(f"Expected an axis that is not periodic for {what}; leave this metric out of the suite.")


def _is_spectral(plan: RolloutPlan) -> bool:
    """Whether the flow has a Fourier series: a periodic box, evenly spaced, no mask."""
    return plan.has_spectra and all(plan.periodic)


def _squared(waves: Sequence[Tensor]) -> Tensor:
    """``|k|^2`` of each wave of a half spectrum."""
    return sum((wave.square() for wave in waves), start=torch.zeros((), dtype=torch.float64))


def ratio(value: Tensor, scale: Tensor) -> Tensor:
    """Zero where the value is, also relative to nothing."""
    return torch.where(value == 0, 0.0, value / scale)


def _compared(name: str, prediction: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """A signed number of both and the magnitude of the difference."""
    return {f"{name}_prediction": prediction, f"{name}_truth": truth, f"{name}_error": (prediction - truth).abs()}


def _compared_variables(
    name: str, meaning: str, dims: tuple[str, ...] = ("trajectory", "lead_time")
) -> dict[str, Variable]:
    """Labels of what `_compared` gives."""
    variables = {f"{name}_{side}": Variable(dims, "1", f"{meaning}, of the {side}") for side in SIDES}
    return variables | {f"{name}_error": Variable(dims, "1", f"{meaning}, of the prediction less that of the truth")}
