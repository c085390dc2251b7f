"""How well a model of the GPME family predicts, and keeps, the mass: the protocol of the ProbConserv paper, and beyond.

Hansen et al., *Learning Physical Models that Can Respect Conservation Laws*, ICML 2023, arXiv:2302.11002, section 4: at
one time, on 201 points, from 100 draws of a neural process. Their tables state the signed conservation error, in which
functions cancel; the absolute one stands beside it here, and what the quadrature itself gets wrong of the mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from pdesurrogate.fields.point_set import PointSet
from pdesurrogate.metrics.uncertainty import coverage_gaussian, crps_gaussian, log_likelihood_gaussian
from pdesurrogate.models.neural_process import AttentiveNeuralProcess, Dropout, Prediction, mixture_moments
from pdesurrogate.physics.conservation.conditioning import condition
from pdesurrogate.physics.conservation.constraint import LinearConstraint
from pdesurrogate.physics.conservation.covariance import Covariance, Dense, Diagonal
from pdesurrogate.physics.conservation.smoothness import second_differences
from pdesurrogate.physics.gpme import ExactConservationLaw, lattice

Way = Literal["none", "hard", "probconserv", "smoothed", "mixed_first", "quadrature_noise"]

# What the authors' code clips variances at where it has updated them.
_LEAST_VARIANCE = 1e-8

# Functions that are updated together.
_AT_ONCE = 5


class Line(NamedTuple):
    """Predictions of functions along x at one time, and what is known of them.

    Attributes:
        prediction: draws, ``(draw, function, n)`` each.
        x: ``(n,)``.
        truth: ``(function, n)``.
        mass: ``(function,)`` in closed form.
        front: ``(function,)`` true place of the front.
    """

    prediction: Prediction
    x: Tensor
    truth: Tensor
    mass: Tensor
    front: Tensor


class Field(NamedTuple):
    """Moments of the mixture of all draws after an update, ``(function, n)`` in float64, and samples of it.

    ``samples (sample, function, n)``: as many from each draw.
    """

    mean: Tensor
    variance: Tensor
    samples: Tensor


@dataclass(frozen=True)
class GpmeScores:
    """Of each function ``(function,)``; `summary` averages over them.

    Attributes:
        mass_error: quadrature of the mean less the closed-form mass, signed.
        mass_error_of_truth: quadrature of the truth less the closed-form mass: the bias of the quadrature.
        squared_error: mean over x.
        log_likelihood: mean over x, of normal marginals.
        crps: mean over x, of normal marginals.
        coverage: share of x at which the truth lies in the central 95 % interval.
        front_error: distance of the sampled fronts from the true one, mean over samples.
    """

    mass_error: Tensor
    mass_error_of_truth: Tensor
    squared_error: Tensor
    log_likelihood: Tensor
    crps: Tensor
    coverage: Tensor
    front_error: Tensor

    def summary(self) -> dict[str, tuple[float, float]]:
        """Mean over functions and its standard error, of each score and of the absolute mass error."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["absolute_mass_error"] = self.mass_error.abs()
        count = len(self.mass_error)
        return {
            name: (float(value.mean()), float(value.std(correction=1)) / count**0.5) for name, value in values.items()
        }


def predicted_line(
    network: AttentiveNeuralProcess,
    functions: PointSet,
    equation: ExactConservationLaw,
    *,
    draws: int = 100,
    points: int = 201,
    dropout: Dropout = "off",
    seed: int = 42,
) -> Line:
    """Draws of a neural process along x at the time at which the paper scores.

    Args:
        network: in physical units.
        functions: contexts and parameters.
        equation: which they solve.
        draws: of the latent vector.
        points: evenly spaced over the box, ends included.
        dropout: ``"each_draw"`` is what published figures were made with; see `AttentiveNeuralProcess.predict`.
        seed: of the draws.
    """
    low, high = equation.space_range
    x = torch.linspace(low, high, points, dtype=torch.float64)
    time = torch.tensor([equation.scored_time], dtype=torch.float64)
    asked = lattice(time, x).to(functions.context_points)
    made = network.predict(
        functions.context_points,
        functions.context_values,
        asked.expand(len(functions.parameters), -1, -1),
        draws,
        torch.Generator().manual_seed(seed),
        dropout,
    )
    parameters = functions.parameters[:, 0].double()
    return Line(
        Prediction(made.mean[..., 0].double(), made.variance[..., 0].double()),
        x,
        equation.solution(time, x, parameters[:, None]),
        equation.mass(time, parameters),
        equation.front(time, parameters),
    )


def updated(line: Line, way: Way, samples: int = 500, seed: int = 0) -> Field:
    """The mixture of draws, each updated by the mass.

    Args:
        line: predictions.
        way: ``"none"``; ``"hard"``, the orthogonal projection, which leaves the variance as it is; ``"probconserv"``,
            each draw before they are mixed, as the authors do; ``"smoothed"``, second differences first
            (`conservation.smoothness`); ``"mixed_first"``, the moments of the mixture once; ``"quadrature_noise"``,
            each draw with the squared error of the quadrature as the variance of the mass.
        samples: of the mixture, by Matheron's rule; a multiple of the number of draws.
        seed: of these.

    Raises:
        ValueError: for another word.
    """
    if way not in get_args(Way):
        raise ValueError(f"Expected a way among {get_args(Way)} but got {way!r}.")
    generator = torch.Generator().manual_seed(seed)
    functions = line.truth.shape[0]
    parts = [
        _updated(_functions(line, slice(first, first + _AT_ONCE)), way, samples, generator)
        for first in range(0, functions, _AT_ONCE)
    ]
    mean, variance = (torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "variance"))
    return Field(mean, variance, torch.cat([part.samples for part in parts], 1))


def _functions(line: Line, chosen: slice) -> Line:
    prediction = Prediction(*(moment[:, chosen] for moment in line.prediction))
    return Line(prediction, line.x, line.truth[chosen], line.mass[chosen], line.front[chosen])


def _updated(line: Line, way: Way, samples: int, generator: torch.Generator) -> Field:
    """Of a few functions, as covariances that are written out take memory."""
    mean, variance = line.prediction
    constraint = LinearConstraint.integral(line.x, line.mass, name="mass")
    if way == "quadrature_noise":
        constraint = constraint.with_target(constraint.target, constraint.residual(line.truth).square())
    if way == "mixed_first":
        mixture = mixture_moments(line.prediction)
        mean, variance = mixture.mean.unsqueeze(0), mixture.variance.unsqueeze(0)
    drawn = mean + variance.sqrt() * torch.randn(
        (max(1, samples // len(mean)), *mean.shape), generator=generator, dtype=torch.float64
    )
    if way == "hard":
        # Samples scatter about the projected mean as they did about the mean.
        made = condition(mean, Diagonal(1.0), constraint)
        drawn, mean = drawn + (made.mean - mean), made.mean
    elif way != "none":
        prior: Covariance = Diagonal(variance)
        if way == "smoothed":
            smooth = condition(mean, Diagonal(variance), second_differences(variance))
            drawn, mean, prior = smooth.moved(drawn, generator), smooth.mean, Dense(smooth.covariance())
        made = condition(mean, prior, constraint)
        mean, variance = made.mean, made.variance.clamp_min(_LEAST_VARIANCE)
        drawn = made.moved(drawn, generator)
    drawn = drawn.flatten(0, 1)
    if way == "mixed_first":
        return Field(mean[0], variance[0], drawn)
    mixture = mixture_moments(Prediction(mean, variance))
    return Field(mixture.mean, mixture.variance, drawn)


def score(line: Line, field: Field) -> GpmeScores:
    """All scores of an updated mixture, for truth and mass of a line.

    The front is the first point at which a sample is not positive, or the end of the box.
    """
    constraint = LinearConstraint.integral(line.x, line.mass)
    mean, variance, truth = field.mean, field.variance, line.truth
    return GpmeScores(
        constraint.residual(mean)[:, 0],
        constraint.residual(truth)[:, 0],
        (mean - truth).square().mean(-1),
        log_likelihood_gaussian(mean, variance, truth).mean(-1),
        crps_gaussian(mean, variance, truth).mean(-1),
        coverage_gaussian(mean, variance, truth, (0.95,))[0].mean(-1),
        (front_of(field.samples, line.x) - line.front).abs().mean(0),
    )


def front_of(values: Tensor, x: Tensor) -> Tensor:
    """The first of the points ``x (n,)`` at which ``values (..., n)`` are not positive, or the last point; ``(...)``.

    Example:
        >>> front_of(torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]]), torch.tensor([0.0, 0.5, 1.0])).tolist()
        [1.0, 1.0]
    """
    gone = values <= 0
    first = torch.where(gone.any(-1), gone.to(torch.int8).argmax(-1), len(x) - 1)
    return x[first]
