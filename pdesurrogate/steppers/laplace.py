"""How sure a trained network can be of its last layer: the Laplace approximation, which is exact for a linear one."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pdesurrogate.fields.batch import Batch
from pdesurrogate.fields.grid import Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.distributions import Moments
from pdesurrogate.models.last_layer import LastLayer, last_layer
from pdesurrogate.steppers.surrogate import Question, Surrogate

# How far what the last layer gives may be from what the network gives, relative to its largest value.
_TOLERANCE = 1e-4

# Smallest mean square, in units of the network's output: exact fits and zero weights would leave no scale.
_TINY = 1e-12

_MOST_ITERATIONS = 1000
_CONVERGED = 1e-10


class LastLayerLaplace(nn.Module):
    """A trained surrogate with the Gaussian posterior of its last layer's weights; a `CorrelatedStepper`.

    Everything before the last layer is taken as known features ``phi`` of a point. A channel of a frame is then
    ``theta . phi`` and noise of variance ``s^2``, and the posterior of ``theta`` about the trained weights has the
    covariance ``H^-1`` with ``H = sum phi phi^T / s^2 + a``, exactly and in full, for a prior of precision ``a``. What
    is predicted keeps its mean, bit for bit, and gets the variance ``s^2 + phi^T H^-1 phi``; the second part is what
    points share. Noise and precision of each channel and frame maximize the Laplace evidence at the trained weights, by
    MacKay's iteration (Neural Computation 1992, doi:10.1162/neco.1992.4.3.415; Daxberger et al. 2021,
    arXiv:2106.14806).

    Args:
        surrogate: trained; its network ends in a linear layer (`models.last_layer`).
        temperature: by which the evidence of the data is divided. Errors at neighboring points are alike, and a
            likelihood of independent ones counts them several times: 16 where about 16 points say the same.
        last_layer: name of that layer in the network, if it is not the last one in it.

    Raises:
        ValueError: for a temperature that is not positive, or a network without such a layer.

    Example:
        >>> from pdesurrogate.fields import Axis, Channel, Grid
        >>> from pdesurrogate.models.fno import FNO
        >>> grid = Grid((Axis("x", period=1.0),))
        >>> metadata = Metadata("example", grid, (Channel("height"),), frame_interval=0.1)
        >>> surrogate = Surrogate(FNO(channels=1, modes=(4,), width=4, layers=1), metadata)
        >>> frames, context = torch.randn(20, 2, 1, 16), Context((torch.arange(16).expand(20, -1) / 16,))
        >>> laplace = LastLayerLaplace(surrogate).fit([Batch(frames[:, :1], frames[:, 1:], context)])
        >>> mean, variance = laplace.predict(frames[:, :1], context)
        >>> mean.shape, bool((variance > laplace.noise_variance).all())
        (torch.Size([20, 1, 1, 16]), True)
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    noise_variance: Tensor
    prior_precision: Tensor
    squared_error: Tensor
    observations: Tensor

    def __init__(self, surrogate: Surrogate, temperature: float = 1.0, last_layer: str | None = None) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"Expected a positive temperature but got {temperature}.")
        self.surrogate = surrogate
        self.temperature = temperature
        self.last_layer = last_layer
        rows, size = self._weights.shape
        double = torch.float64
        self.register_buffer("eigenvalues", torch.zeros(size, dtype=double))
        self.register_buffer("eigenvectors", torch.eye(size, dtype=double))
        self.register_buffer("noise_variance", torch.ones(rows, dtype=double))
        self.register_buffer("prior_precision", torch.ones(rows, dtype=double))
        self.register_buffer("squared_error", torch.zeros(rows, dtype=double))
        self.register_buffer("observations", torch.zeros((), dtype=double))

    @property
    def history_frames(self) -> int:
        """As the surrogate has it."""
        return self.surrogate.history_frames

    @property
    def metadata(self) -> Metadata:
        """As the surrogate has it."""
        return self.surrogate.metadata

    @torch.no_grad()
    def fit(self, batches: Iterable[Batch]) -> LastLayerLaplace:
        """Gather features and errors of windows in one pass, in float64, and find noise and precision; gives itself.

        Windows that the network was trained on are what the posterior is about; if it fits them better than others its
        noise is too small, and validation windows state it better. Points outside a mask are left out.

        Raises:
            ValueError: if the network's output is not what its last layer gives, a window has fewer frames than it or
                holds values that are not finite, or there are fewer points than features.
        """
        gram = torch.zeros_like(self.eigenvectors)
        squared_error, count = torch.zeros_like(self.squared_error), 0
        for number, batch in enumerate(batches):
            question = self.surrogate.question(batch.history, batch.context)
            features, output = self._features(question)
            self._require_linear(features, output)
            frames = output.shape[1]
            if batch.target.shape[1] < frames:
                raise ValueError(
                    f"Expected windows with {frames} target frames, as the network gives, but got "
                    f"{batch.target.shape[1]}."
                )
            scale, origin = self.surrogate.units(question, frames)
            error = ((batch.target[:, :frames] - origin) / scale - output).flatten(1, 2)
            seen = torch.ones_like(features[:, 0], dtype=torch.bool)
            if batch.context.mask is not None:
                seen = batch.context.mask.expand_as(seen)
            _require_finite(number, features, error, seen)
            columns = features.movedim(1, 0)[:, seen].to(gram)
            gram += columns @ columns.T
            squared_error += error.movedim(1, 0)[:, seen].to(gram).square().sum(1)
            count += columns.shape[1]
        if count <= self.temperature * len(gram):
            raise ValueError(
                f"Expected more than {self.temperature * len(gram):g} points, one for each feature times the "
                f"temperature, but got {count}; give more windows."
            )
        values, vectors = torch.linalg.eigh(gram)
        self.eigenvalues.copy_(values.clamp_min(0))
        self.eigenvectors.copy_(vectors)
        self.squared_error.copy_(squared_error)
        self.observations.fill_(count)
        self._maximize_evidence()
        return self

    def _maximize_evidence(self) -> None:
        """Noise and prior precision where the derivatives of `log_evidence` vanish."""
        count, heat = float(self.observations), self.temperature
        sizes = self._weights.double().square().sum(1).clamp_min(_TINY)
        noise = (self.squared_error / count).clamp_min(_TINY)
        precision = self._weights.shape[1] / sizes
        for _ in range(_MOST_ITERATIONS):
            known = self.eigenvalues / (heat * noise[:, None])
            # How many weights the data determine, rather than the prior.
            determined = (known / (known + precision[:, None])).sum(1)
            before = precision
            noise = (self.squared_error / (count - heat * determined)).clamp_min(_TINY)
            precision = determined / sizes
            if bool(((precision - before).abs() <= _CONVERGED * precision).all()):
                break
        self.noise_variance.copy_(noise)
        self.prior_precision.copy_(precision)

    def log_evidence(self) -> Tensor:
        """Of each channel of each frame, ``(rows,)``, by Laplace's approximation at the trained weights."""
        self._require_fitted()
        noise, heat = self.noise_variance, self.temperature
        likelihood = self.observations * (2 * math.pi * noise).log() + self.squared_error / noise
        prior = self.prior_precision * self._weights.double().square().sum(1)
        volume = (self._precisions / self.prior_precision[:, None]).log().sum(1)
        return -(likelihood / heat + prior + volume) / 2

    def step(self, history: Tensor, context: Context) -> Tensor:
        """As the surrogate steps."""
        return self.surrogate.step(history, context)

    def predict(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Mean and variance of the next block, the variance in squared physical units.

        Raises:
            ValueError: as `step`, or before `fit`.
        """
        rotated, output, scale, origin = self._rotated(history, context)
        variance = torch.einsum("bf...,rf->br...", rotated.square(), (1 / self._precisions).to(rotated))
        variance = variance + self._as_column(self.noise_variance, variance)
        return output * scale + origin, variance.reshape(output.shape) * scale.square()

    def moments(self, history: Tensor, context: Context) -> Moments:
        """Mean and covariance of the next block: a mode for each feature, and for each channel and frame.

        Raises:
            ValueError: as `step`, or before `fit`.
        """
        rotated, output, scale, origin = self._rotated(history, context)
        weights = self._precisions.rsqrt().to(rotated)
        own = torch.eye(len(weights)).to(rotated)
        modes = torch.einsum("bf...,rf,rs->brfs...", rotated, weights, own).flatten(1, 2)
        modes = modes.reshape(*modes.shape[:2], *output.shape[1:]) * scale
        noise = self._as_column(self.noise_variance, output.flatten(1, 2)).expand(output.flatten(1, 2).shape)
        return Moments(output * scale + origin, noise.reshape(output.shape) * scale.square(), modes)

    def _rotated(self, history: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features along the posterior's axes, the network's output, and its units."""
        self._require_fitted()
        question = self.surrogate.question(history, context)
        features, output = self._features(question)
        rotated = torch.einsum("bf...,fg->bg...", features, self.eigenvectors.to(features))
        return rotated, output, *self.surrogate.units(question, output.shape[1])

    def _features(self, question: Question) -> tuple[Tensor, Tensor]:
        """What the last layer makes the output from, ``(batch, feature, *space)``, and the output."""
        layer, caught = self._layer, []
        handle = layer.module.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
        try:
            output: Tensor = self.surrogate.network(question.frames, **question.about)
        finally:
            handle.remove()
        if len(caught) != 1:
            raise self._refusal(f"is called {len(caught)} times")
        features = layer.features(caught[0])
        features = features.reshape(*features.shape[:2], *question.frames.shape[3:])
        if layer.bias is not None:
            features = torch.cat([features, torch.ones_like(features[:, :1])], 1)
        return features, output

    def _require_linear(self, features: Tensor, output: Tensor) -> None:
        """Refuse a network that does something after its last layer."""
        made, rows = torch.einsum("bf...,rf->br...", features, self._weights.to(features)), output.flatten(1, 2)
        if made.shape != rows.shape or bool((made - rows).abs().max() > _TOLERANCE * rows.abs().max()):
            raise self._refusal("gives something else")

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(
            f"Expected a {type(self.surrogate.network).__name__} whose output is what its layer {self._layer.name!r} "
            f"gives but that {reason}; name its last layer, or use another source of variance if that is not linear."
        )

    @property
    def _layer(self) -> LastLayer:
        return last_layer(self.surrogate.network, self.last_layer)

    @property
    def _weights(self) -> Tensor:
        """Trained weights of each row, the bias behind them: ``(rows, weights)``."""
        layer = self._layer
        weight = layer.weight.detach()
        return weight if layer.bias is None else torch.cat([weight, layer.bias.detach()[:, None]], 1)

    @property
    def _precisions(self) -> Tensor:
        """Of the posterior along its axes, ``(rows, weights)``."""
        return self.eigenvalues / (self.temperature * self.noise_variance[:, None]) + self.prior_precision[:, None]

    def _require_fitted(self) -> None:
        if not self.observations:
            raise ValueError("Expected a posterior but there is none yet; fit it to windows of the training data.")

    @staticmethod
    def _as_column(rows: Tensor, values: Tensor) -> Tensor:
        return rows.to(values).reshape(-1, *(1,) * (values.ndim - 2))

    def extra_repr(self) -> str:
        """The temperature, shown by ``print``."""
        return f"temperature={self.temperature}"


def _require_finite(number: int, features: Tensor, error: Tensor, seen: Tensor) -> None:
    """Refuse a batch with a window that would leave no posterior: one ``nan`` is in every sum."""
    finite = features.isfinite().all(1) & error.isfinite().all(1)
    windows = (seen & ~finite).flatten(1).any(1).nonzero().flatten().tolist()
    if windows:
        raise ValueError(
            f"Expected finite features and errors but those of batch {number}, counted from zero, are not in its "
            f"windows {windows}; leave these windows out, or mask the points that hold no data."
        )
