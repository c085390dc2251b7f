"""Drag and lift of the bodies in a plane flow, from the balance of momentum around them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pdesurrogate.metrics.base import RolloutMetric, Score, Variable
from pdesurrogate.metrics.block import Block
from pdesurrogate.metrics.conservation import AT_REST, SIDES, ratio, require_velocity
from pdesurrogate.metrics.faces import open_faces
from pdesurrogate.metrics.flow import joint_units
from pdesurrogate.metrics.plan import RolloutPlan
from pdesurrogate.metrics.staggered import is_staggered
from pdesurrogate.physics.finite_difference import derivative

# A side one cell off a body makes errors of a tenth in the drag, where two or more make less than a hundredth.
_LEAST_DISTANCE = 2
# A spectrum of fewer frames has no peak to speak of.
_FEWEST_FOR_A_SPECTRUM = 8
# The spectrum is sampled so many times finer than the record resolves, which leaves the parabola through the three
# highest points less than a thousandth of that resolution off.
_PADDING = 8


class ControlVolume(NamedTuple):
    """A rectangle of cells around the solid cells of each sample.

    Attributes:
        inside: for each axis ``(batch, n)``, one along the rectangle and zero elsewhere.
        outward: for each axis ``(batch, n)``, minus one at the face below the rectangle's first cell, one at the face
            below the first cell beyond its last, zero elsewhere.
        fits: ``(batch,)``, whether there is such a rectangle.
    """

    inside: tuple[Tensor, Tensor]
    outward: tuple[Tensor, Tensor]
    fits: Tensor


def control_volume(mask: Tensor, distance: int, unknown: tuple[int, int] = (0, 0)) -> ControlVolume:
    """The rectangle whose sides are some cells off the bounding box of all solid cells.

    A side comes closer, down to two cells, where the box leaves less room. Three cells of fluid at least must lie
    between a body and the end of the box, the last of them outside of the rectangle.

    Args:
        mask: ``(batch, x, y)``, true where there is fluid.
        distance: cells between the bounding box and each side.
        unknown: last cells of each axis that lack a value; sides stay clear of them.

    Example:
        >>> mask = torch.ones(1, 8, 7, dtype=torch.bool)
        >>> mask[0, 3:5, 3] = False
        >>> volume = control_volume(mask, distance=2)
        >>> volume.inside[0].tolist(), volume.outward[1].tolist()
        ([[0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]], [[0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
    """
    solid = ~mask.bool()
    inside, outward, fits = [], [], solid.any(-1).any(-1)
    for axis, lost in enumerate(unknown):
        taken = solid.any(2 - axis)
        size = taken.shape[-1]
        cells = torch.arange(size, device=mask.device)
        first = torch.where(taken, cells, size).amin(-1)
        beyond = torch.where(taken, cells, -1).amax(-1) + 1
        low = (first - distance).clamp(min=1)
        high = (beyond + distance).clamp(max=size - 1 - lost)
        fits = fits & (first - low >= _LEAST_DISTANCE) & (high - beyond >= _LEAST_DISTANCE)
        low, high = low[:, None], high[:, None]
        inside.append(((cells >= low) & (cells < high)).to(torch.float64))
        outward.append((cells == high).to(torch.float64) - (cells == low).to(torch.float64))
    return ControlVolume((inside[0], inside[1]), (outward[0], outward[1]), fits)


class PlaneFlow(NamedTuple):
    """A plane flow on even cells or nodes, in float64, at rest in bodies.

    Attributes:
        centers: velocity at centers ``(batch, time, 2, x, y)``.
        normals: for each axis the component along it ``(batch, time, x, y)`` on the face below each center.
        pressure: at centers ``(batch, time, x, y)``, zero in bodies.
    """

    centers: Tensor
    normals: tuple[Tensor, Tensor]
    pressure: Tensor

    @classmethod
    def collocated(cls, velocity: Tensor, pressure: Tensor, mask: Tensor) -> PlaneFlow:
        """From values at common points; faces lie half way between these."""
        fluid = mask.bool()[:, None]
        centers = torch.where(fluid.unsqueeze(2), velocity.double(), 0.0)
        u, v = centers.unbind(2)
        return cls(centers, (_on_faces(u, 0), _on_faces(v, 1)), torch.where(fluid, pressure.double(), 0.0))

    @classmethod
    def staggered(cls, velocity: Tensor, pressure: Tensor, mask: Tensor) -> PlaneFlow:
        """From components on the faces that they cross, value ``i`` on the face below cell ``i``."""
        is_open = open_faces(mask, (False, False))[:, None]
        u, v = torch.where(is_open, velocity.double(), 0.0).unbind(2)
        centers = torch.stack([(u + u.roll(-1, -2)) / 2, (v + v.roll(-1, -1)) / 2], 2)
        return cls(centers, (u, v), torch.where(mask.bool()[:, None], pressure.double(), 0.0))


class MomentumBalance(NamedTuple):
    """What a control volume says about the force on the bodies in it, ``inflow - d momentum / dt``, per depth.

    Attributes:
        inflow: momentum that enters by convection, pressure and viscous stress, per time ``(batch, time, 2)``.
        momentum: of the fluid inside ``(batch, time, 2)``.
    """

    inflow: Tensor
    momentum: Tensor


def momentum_balance(
    flow: PlaneFlow, volume: ControlVolume, spacings: tuple[Tensor, Tensor], density: Tensor, viscosity: Tensor
) -> MomentumBalance:
    """Balance of momentum of a control volume, by the midpoint rule over its cells and their faces.

    What enters a side is ``-p n - rho u (u . n) + mu (grad u + grad u^T) n``, with means of two neighbors and central
    differences, all of second order. Body forces such as gravity are not in it.

    Args:
        flow: of the fluid.
        volume: around the bodies; its sides and the cells next to them lie in the fluid.
        spacings: of the points along x and y ``(batch,)``.
        density: ``(batch,)``.
        viscosity: dynamic ``(batch,)``.

    Returns:
        In float64; NaN where the volume does not fit.
    """
    widths = [each.double() for each in spacings]
    rho, mu = (each.double().reshape(-1, 1, 1, 1) for each in (density, viscosity))
    pressure, components = flow.pressure, flow.centers.unbind(2)
    inflow = [torch.zeros((), dtype=torch.float64, device=pressure.device) for _ in components]
    for normal, across in ((0, 1), (1, 0)):
        length = [width.reshape(-1, 1, 1, 1) for width in widths]
        u, along = flow.normals[normal], across - 2
        v = _on_faces(components[across], normal)
        stress = 2 * mu * _over_faces(components[normal], normal) / length[normal]
        shear = (u.roll(-1, along) - u.roll(1, along)) / (2 * length[across])
        shear = mu * (shear + _over_faces(components[across], normal) / length[normal])
        sides = volume.outward[normal], volume.inside[across] * widths[across][:, None]
        inflow[normal] = inflow[normal] + _integral(stress - _on_faces(pressure, normal) - rho * u * u, sides, normal)
        inflow[across] = inflow[across] + _integral(shear - rho * u * v, sides, normal)
    cells = [line * width[:, None] for line, width in zip(volume.inside, widths, strict=True)]
    momentum = [_integral(rho * component, (cells[0], cells[1]), 0) for component in components]
    fits = volume.fits[:, None, None]
    return MomentumBalance(*(torch.where(fits, torch.stack(part, -1), torch.nan) for part in (inflow, momentum)))


def _on_faces(values: Tensor, axis: int) -> Tensor:
    """Mean of each value ``(..., x, y)`` and the one below it; the first is meaningless."""
    return (values + values.roll(1, axis - 2)) / 2


def _over_faces(values: Tensor, axis: int) -> Tensor:
    """Each value ``(..., x, y)`` less the one below it; the first is meaningless."""
    return values - values.roll(1, axis - 2)


def _integral(values: Tensor, weights: tuple[Tensor, Tensor], first: int) -> Tensor:
    """``(batch, time)`` of ``values (batch, time, x, y)`` by weights ``(batch, n)`` of axis ``first`` and the other."""
    along_x, along_y = weights if first == 0 else weights[::-1]
    weight = along_x[:, None, :, None] * along_y[:, None, None, :]
    # Far values are nobody's business, those that are not numbers included.
    return torch.where(weight != 0, weight * values, 0.0).sum((-2, -1))


def dominant_frequency(signal: Tensor, interval: float) -> Tensor:
    """Frequency of the highest peak in the spectrum of a signal ``(..., time)``; ``(...)``, in periods per time.

    The mean is taken out, the rest tapered by a Hann window, and the peak located by the parabola through the logarithm
    of the three highest points. Periods longer than the record do not count. A record should hold three periods: of a
    pure sine it is then right to 1 % (0.01 % of ten). A constant has frequency zero; one that is not finite has none.

    Raises:
        ValueError: if there are fewer than eight frames.

    Example:
        >>> times = 0.1 * torch.arange(100, dtype=torch.float64)
        >>> round(dominant_frequency(1.0 + torch.sin(2 * torch.pi * 0.73 * times), 0.1).item(), 3)
        0.73
    """
    frames = signal.shape[-1]
    if frames < _FEWEST_FOR_A_SPECTRUM:
        raise ValueError(f"Expected at least {_FEWEST_FOR_A_SPECTRUM} frames for a spectrum but got {frames}.")
    window = torch.hann_window(frames + 2, periodic=False, dtype=torch.float64, device=signal.device)[1:-1]
    signal = signal.double()
    deviation = signal - (signal * window).sum(-1, keepdim=True) / window.sum()
    size = _PADDING * frames
    amplitude = torch.fft.rfft(deviation * window, n=size).abs()
    place = amplitude[..., _PADDING:-1].argmax(-1, keepdim=True) + _PADDING
    tiny = torch.finfo(amplitude.dtype).tiny
    below, peak, above = (amplitude.gather(-1, place + shift).squeeze(-1).clamp(min=tiny).log() for shift in (-1, 0, 1))
    # A flank has no peak: its foot is not moved by more than half a step.
    offset = ((above - below) / (2 * (2 * peak - below - above))).clamp(-0.5, 0.5)
    frequency = (place.squeeze(-1) + offset) / (size * interval)
    constant = (signal == signal[..., :1]).all(-1)
    return torch.where(constant, 0.0, frequency)


class ForceMetric(RolloutMetric):
    """Drag and lift of all solid cells together, along the first and the second axis of a plane flow, per depth.

    The force on the bodies is the momentum that enters a control volume around them less what stays in it: convection,
    pressure and viscous stress on its sides (`momentum_balance`), and the rate of change of the momentum inside by
    central differences of frames, one-sided at the first and the last. No field on the surface of a body is needed,
    which a mask of cells does not have. Fields and pressure are in consistent units: pressure is density times length
    squared per time squared. Gravity and buoyancy are not in the balance.

    What differences of frames miss: of an oscillation with ``m`` frames a period, a share of ``(2 pi / m)^2 / 6`` of
    the unsteady part (2 % at 20 frames, 10 % at 8), which grows with the volume inside. With fewer than about six
    frames a period believe means only. The balance is that of second-order differences on the stored grid. Of a vortex
    street at a Reynolds number of 100 and nine cells a diameter it finds the drag to 1 % and the lift to 0.2 % of what
    the solver takes out of the flow at the body.

    The mean drag and the rms of the lift about its mean are over all frames. With eight frames or more comes the
    frequency of the lift (`dominant_frequency`), zero where it oscillates by less than a thousandth of the force; how
    wrong it is is relative to the larger of both. Where the parameters of the data tell a velocity and a radius, drag,
    lift and frequency come as drag coefficient ``D / (rho U^2 R)``, lift coefficient and Strouhal number ``2 f R / U``
    too. Errors of forces are relative to the truth's rms force.

    A trajectory without a solid cell, or whose bodies are not surrounded by three cells of fluid, four at high ends of
    staggered data (a step on a wall), has no control volume: its numbers are NaN.

    Args:
        plan: what is going to be measured.
        distance: of the control volume from the bodies, in cells; see `control_volume`.
        pressure: name of the channel; in cells if the velocity is staggered, else where the velocity is.
        density: name of the parameter.
        viscosity: name of the parameter that holds the dynamic viscosity.
        velocity_scale: name of the parameter that holds a reference velocity; data need not have it.
        radius: name of the parameter that holds half the size of the body; data need not have it.

    Raises:
        ValueError: if the data hold no plane velocity whose components live at the same points or on the faces that
            they cross, no mask, no pressure beside it, or not the parameters; points are not even, or there are fewer
            than three frames; or the distance is less than two cells.
    """

    scales: Tensor

    def __init__(
        self,
        plan: RolloutPlan,
        distance: int = 3,
        pressure: str = "pressure",
        density: str = "density",
        viscosity: str = "dynamic_viscosity",
        velocity_scale: str = "inlet_velocity",
        radius: str = "radius",
    ) -> None:
        super().__init__(plan)
        self.flow = require_velocity(plan, "forces")
        self._staggered = is_staggered(plan)
        self._require_plane_flow(distance)
        self._pressure = self._pressure_channel(pressure)
        names = plan.metadata.parameters
        missing = [name for name in (density, viscosity) if name not in names]
        if missing:
            raise ValueError(
                f"Expected parameters {density!r} and {viscosity!r} for forces but {missing} are not among {names}; "
                "name others, or leave this metric out of the suite."
            )
        self.distance = distance
        self._fluid = (names.index(density), names.index(viscosity))
        self.scaled = velocity_scale in names and radius in names
        self._reference = (names.index(velocity_scale), names.index(radius)) if self.scaled else None
        self.has_frequency = plan.frames >= _FEWEST_FOR_A_SPECTRUM
        for side in SIDES:
            self.add_curve(f"inflow_{side}", 2)
            self.add_curve(f"momentum_{side}", 2)
        if self.scaled:
            # Density, velocity and radius of each trajectory.
            empty = torch.full((plan.trajectories, 3), -torch.inf, dtype=torch.float64)
            self.add_state("scales", default=empty, dist_reduce_fx="max")

    def _require_plane_flow(self, distance: int) -> None:
        plan = self.plan
        if len(plan.shape) != 2:
            raise ValueError(
                f"Expected a plane flow for forces but got {len(plan.shape)} axes; leave this metric out of the suite."
            )
        if not (self.flow.collocated or self._staggered):
            raise ValueError(
                f"Expected velocity components at the same points, or each on the faces that it crosses, for forces "
                f"but they are declared at {self.flow.locations}; correct the location of the channels."
            )
        if not plan.masked:
            raise ValueError(
                "Expected a mask for forces, which says where the bodies are, but the data have none; leave this "
                "metric out of the suite."
            )
        if not all(plan.even):
            raise ValueError(
                f"Expected evenly spaced points for forces but got even: {plan.even}; leave this metric out of the "
                "suite."
            )
        if plan.frames < 3:
            raise ValueError(
                f"Expected at least three frames for forces, which need rates of change, but got {plan.frames}; "
                "predict more, or leave this metric out of the suite."
            )
        if distance < _LEAST_DISTANCE:
            raise ValueError(f"Expected a distance of at least {_LEAST_DISTANCE} cells but got {distance}.")

    def _pressure_channel(self, name: str) -> int:
        channels = {channel.name: place for place, channel in enumerate(self.plan.metadata.channels)}
        if name not in channels:
            raise ValueError(
                f"Expected a channel {name!r} for forces but got {self.plan.metadata.channel_names}; leave this metric "
                "out of the suite."
            )
        found = self.plan.metadata.channels[channels[name]].location
        wanted = "cell" if self._staggered else self.flow.locations[0]
        if found != wanted:
            raise ValueError(
                f"Expected {name!r} at {wanted!r} beside a velocity at {self.flow.locations} for forces but it is "
                f"declared at {found!r}; interpolate it, or correct the location of the channel."
            )
        return channels[name]

    @property
    def variables(self) -> dict[str, Variable]:
        """Label of every output."""
        metadata = self.plan.metadata
        force = joint_units(metadata.channels[self._pressure].units, metadata.grid.axes[0].units, " ")
        curve, single = ("trajectory", "lead_time"), ("trajectory",)
        quantities = {
            "drag": (curve, force, "drag, the force along the first axis on the bodies, per depth"),
            "lift": (curve, force, "lift, the force along the second axis on the bodies, per depth"),
            "mean_drag": (single, force, "drag, mean over frames, per depth"),
            "rms_lift": (single, force, "rms deviation of the lift from its mean over frames, per depth"),
        }
        if self.scaled:
            quantities["drag_coefficient"] = (single, "1", "mean drag over rho U^2 R")
            quantities["lift_coefficient_rms"] = (single, "1", "rms deviation of the lift over rho U^2 R")
        if self.has_frequency:
            frequency = joint_units("1", metadata.time_units, "/")
            quantities["lift_frequency"] = (single, frequency, "dominant frequency of the lift")
        if self.scaled and self.has_frequency:
            quantities["strouhal_number"] = (single, "1", "Strouhal number 2 f R / U of the lift")
        variables = {
            f"{name}_{side}": Variable(dims, units, f"{text}, of the {side}")
            for name, (dims, units, text) in quantities.items()
            for side in SIDES
        }
        relative = "relative to the truth's rms force"
        for name in ("drag", "lift"):
            variables[f"{name}_error"] = Variable(curve, "1", f"magnitude of the error of the {name}, {relative}")
        for name, text in (("mean_drag", "mean drag"), ("rms_lift", "rms deviation of the lift")):
            variables[f"{name}_error"] = Variable(single, "1", f"magnitude of the error of the {text}, {relative}")
        if self.has_frequency:
            text = "magnitude of the error of the lift's frequency, relative to the larger of both"
            variables["lift_frequency_error"] = Variable(single, "1", text)
        return variables

    @property
    def scores(self) -> dict[str, Score]:
        """Errors, those of curves as means over lead times."""
        names = ["drag_error", "lift_error", "mean_drag_error", "rms_lift_error"]
        if self.has_frequency:
            names.append("lift_frequency_error")
        return {name: Score(name, self.variables[name].long_name) for name in names}

    def update(self, block: Block) -> None:
        """Measure one block; see `RolloutMetric`.

        Raises:
            ValueError: if the samples carry no parameters or no mask.
        """
        parameters, mask = block.context.parameters, block.context.mask
        if parameters is None or mask is None:
            raise ValueError("Expected the parameters that the metadata name, and a mask, but the context lacks them.")
        unknown = (1, 1) if self._staggered else (0, 0)
        volume = control_volume(mask, self.distance, unknown)
        x, y = (points.double() for points in block.context.coordinates)
        spacings = tuple((points[:, -1] - points[:, 0]) / (points.shape[-1] - 1) for points in (x, y))
        density, viscosity = (parameters[:, place] for place in self._fluid)
        made = PlaneFlow.staggered if self._staggered else PlaneFlow.collocated
        for side, fields in block.sides:
            flow = made(fields.velocity, fields.values[:, :, self._pressure], mask)
            found = momentum_balance(flow, volume, (spacings[0], spacings[1]), density, viscosity)
            self.write(f"inflow_{side}", found.inflow, block)
            self.write(f"momentum_{side}", found.momentum, block)
        if self._reference is not None:
            scales = torch.stack([density, *(parameters[:, place] for place in self._reference)], -1)
            self.scales[block.trajectories] = scales.to(torch.float64)

    def compute(self) -> dict[str, Tensor]:
        """All outputs by name; see `RolloutMetric`."""
        times = self.plan.metadata.frame_interval * torch.arange(self.plan.frames, dtype=torch.float64)
        outputs: dict[str, Tensor] = {}
        for side in SIDES:
            momentum = self.curve(f"momentum_{side}")
            force = self.curve(f"inflow_{side}") - derivative(momentum, times.to(momentum.device), -2)
            outputs |= {f"{name}_{side}": value for name, value in self._statistics(force).items()}
        drag, lift = outputs["drag_truth"], outputs["lift_truth"]
        scale = (drag.square() + lift.square()).mean(-1).sqrt()
        for name in ("drag", "lift", "mean_drag", "rms_lift"):
            error = (outputs[f"{name}_prediction"] - outputs[f"{name}_truth"]).abs()
            outputs[f"{name}_error"] = ratio(error, scale if error.ndim == 1 else scale[:, None])
        if self.has_frequency:
            own, true = (outputs[f"lift_frequency_{side}"] for side in SIDES)
            outputs["lift_frequency_error"] = ratio((own - true).abs(), torch.maximum(own, true))
        return outputs

    def _statistics(self, force: Tensor) -> dict[str, Tensor]:
        """All about forces ``(trajectory, time, 2)`` of one side."""
        drag, lift = force.unbind(-1)
        rms = (lift - lift.mean(-1, keepdim=True)).square().mean(-1).sqrt()
        found = {"drag": drag, "lift": lift, "mean_drag": drag.mean(-1), "rms_lift": rms}
        if self.scaled:
            density, velocity, radius = self.scales.unbind(-1)
            unit = density * velocity.square() * radius
            found |= {"drag_coefficient": found["mean_drag"] / unit, "lift_coefficient_rms": rms / unit}
        if self.has_frequency:
            frequency = dominant_frequency(lift, self.plan.metadata.frame_interval)
            steady = rms <= AT_REST * force.square().sum(-1).mean(-1).sqrt()
            found["lift_frequency"] = torch.where(steady, 0.0, frequency)
        if self.scaled and self.has_frequency:
            found["strouhal_number"] = 2 * found["lift_frequency"] * radius / velocity
        return found
