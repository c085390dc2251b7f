"""The attentive neural process: from observations of a function to its distribution at any other points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from pdesurrogate.layers.point_attention import DropoutMasks, PointAttention
from pdesurrogate.models.reference_weights import Translation, load_reference_weights, unchanged
from pdesurrogate.models.specification import recorded

Dropout = Literal["off", "each_draw"]


class Encoding(NamedTuple):
    """What targets look at: keys and values ``(function, context, width)`` of the observations."""

    keys: Tensor
    values: Tensor


class Latent(NamedTuple):
    """A normal distribution with independent entries, each ``(function, width)``."""

    mean: Tensor
    log_variance: Tensor

    def drawn(self, noise: Tensor) -> Tensor:
        """The draw ``(..., function, width)`` that standard normal ``noise`` of that shape makes."""
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence_from(self, other: Latent) -> Tensor:
        """Kullback-Leibler divergence ``KL(self || other)`` of each function, ``(function,)``."""
        ratio = self.log_variance - other.log_variance
        shift = (self.mean - other.mean).square() / other.log_variance.exp()
        return 0.5 * (ratio.exp() + shift - 1 - ratio).sum(-1)


class Prediction(NamedTuple):
    """Independent normal distributions of the values, ``(..., function, target, field)``.

    Those of `AttentiveNeuralProcess.predict` are ``(draw, function, target, field)``.
    """

    mean: Tensor
    variance: Tensor


class Fit(NamedTuple):
    """What training compares: a prediction ``(function, target, field)``, and a divergence of each ``(function,)``."""

    mean: Tensor
    variance: Tensor
    divergence: Tensor


class Mixture(NamedTuple):
    """Moments of a mixture of draws, each ``(function, target, field)``.

    Attributes:
        mean: of the draws' means.
        aleatoric: mean of the draws' variances.
        epistemic: variance of the draws' means, over ``draws - 1``.
    """

    mean: Tensor
    aleatoric: Tensor
    epistemic: Tensor

    @property
    def variance(self) -> Tensor:
        """Of the mixture, by the law of total variance: aleatoric and epistemic part together."""
        return self.aleatoric + self.epistemic


def mixture_moments(prediction: Prediction) -> Mixture:
    """Moments of the mixture of all draws, which stand in front.

    Raises:
        ValueError: for fewer than two draws, whose means have no variance.

    Example:
        >>> mixed = mixture_moments(Prediction(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.5], [0.7]])))
        >>> float(mixed.mean), round(float(mixed.aleatoric), 6), float(mixed.epistemic)
        (2.0, 0.6, 2.0)
    """
    draws = len(prediction.mean)
    if draws < 2:
        raise ValueError(f"Expected at least two draws but got {draws}: how much draws differ is unknown from one.")
    epistemic, mean = torch.var_mean(prediction.mean, dim=0, correction=1)
    return Mixture(mean, prediction.variance.mean(0), epistemic)


@recorded
class AttentiveNeuralProcess(nn.Module):
    """Distribution of functions at target points, given observations of them at context points.

    Each function is known by its contexts: points ``(function, context, dimension)`` and values there, ``(function,
    context, fields)``, in physical units, as many as there are and in any order. Two encoders read them. A latent one
    gives a distribution of a vector ``z``, from the mean over the points of what two blocks of self-attention make of
    them: a draw of it is one global guess of the function. A deterministic one lets every target point look at the
    contexts, in two blocks of cross-attention. A decoder makes of both a mean and a deviation of the fields at each
    target, independent of all other targets: given ``z``, fields have no covariance between points.

    The defaults are the network of Hansen et al., *Learning physical models that can respect conservation laws*, ICML
    2023, arXiv:2302.11002, with 989,826 parameters; the attentive neural process is that of Kim et al., ICLR 2019,
    arXiv:1901.05761. Points are taken as they are: neither they nor values are normalized.

    Where the authors' released code leaves its function to chance, this does not: dropout is on where masks are given,
    or ``dropout="each_draw"``, and off elsewhere, in whatever mode the module is. Their published figures were made
    with dropout on, that is, as an ensemble over dropout masks as well as over draws of ``z``.

    Args:
        dimension: of points.
        fields: of values.
        width: of all encodings; the decoder is three times as wide.
        heads: of attention.
        self_blocks: of self-attention in each encoder.
        cross_blocks: of cross-attention.
        decoder_layers: hidden ones.
        attention_dropout: see `PointAttention`.
        output_dropout: see `PointAttention`.
        minimum_deviation: of the fields, added to what the network gives.

    Raises:
        ValueError: for sizes or rates out of range.

    Example:
        >>> network = AttentiveNeuralProcess(width=8, heads=2)
        >>> contexts, values, targets = torch.rand(3, 10, 2), torch.rand(3, 10, 1), torch.rand(3, 50, 2)
        >>> draws = network.predict(contexts, values, targets, draws=4, generator=torch.Generator().manual_seed(0))
        >>> draws.mean.shape
        torch.Size([4, 3, 50, 1])
        >>> mixture_moments(draws).variance.shape
        torch.Size([3, 50, 1])
    """

    def __init__(
        self,
        dimension: int = 2,
        fields: int = 1,
        width: int = 128,
        heads: int = 4,
        self_blocks: int = 2,
        cross_blocks: int = 2,
        decoder_layers: int = 3,
        attention_dropout: float = 0.1,
        output_dropout: float = 0.1,
        minimum_deviation: float = 1e-3,
    ) -> None:
        super().__init__()
        smallest = min(dimension, fields, self_blocks, cross_blocks, decoder_layers)
        if smallest < 1 or not minimum_deviation > 0:
            raise ValueError(
                "Expected dimension, fields, self_blocks, cross_blocks and decoder_layers of at least 1 and "
                f"minimum_deviation > 0 but got {dimension}, {fields}, {self_blocks}, {cross_blocks}, "
                f"{decoder_layers} and {minimum_deviation}."
            )
        self.dimension = dimension
        self.fields = fields
        self.width = width
        self.minimum_deviation = minimum_deviation

        def blocks(count: int) -> nn.ModuleList:
            return nn.ModuleList(PointAttention(width, heads, attention_dropout, output_dropout) for _ in range(count))

        self.latent_lift = _linear(dimension + fields, width)
        self.latent_blocks = blocks(self_blocks)
        self.latent_hidden = _linear(width, width)
        self.latent_mean = _linear(width, width)
        self.latent_log_variance = _linear(width, width)
        self.value_lift = _linear(dimension + fields, width)
        self.value_blocks = blocks(self_blocks)
        self.key_lift = _linear(dimension, width)
        self.query_lift = _linear(dimension, width)
        self.cross_blocks = blocks(cross_blocks)
        self.target_lift = _linear(dimension, width)
        self.decoder_entry = _linear(3 * width, 3 * width)
        self.decoder = nn.ModuleList(_linear(3 * width, 3 * width) for _ in range(decoder_layers - 1))
        self.head = _linear(3 * width, 2 * fields)

    def forward(
        self,
        context_points: Tensor,
        context_values: Tensor,
        target_points: Tensor,
        target_values: Tensor,
        noise: Tensor,
        masks: DropoutMasks | None = None,
    ) -> Fit:
        """What training compares: targets are seen by the latent encoder, as they are in training alone.

        Args:
            context_points: ``(function, context, dimension)``.
            context_values: ``(function, context, fields)``.
            target_points: ``(function, target, dimension)``.
            target_values: ``(function, target, fields)``.
            noise: standard normal, ``(function, width)``: ``z`` is drawn from the distribution that targets give.
            masks: of dropout, which is off without.

        Raises:
            ValueError: for shapes that do not fit together.
        """
        self._check(context_points, context_values, target_points)
        self._check(target_points, target_values, target_points)
        prior = self.latent(context_points, context_values, masks)
        # What is observed is no place to ask: a derivative by a target's point must not go through this one.
        posterior = self.latent(target_points.detach(), target_values, masks)
        seen = self.attend(self.encode(context_points, context_values, masks), target_points, masks)
        mean, variance = self.decode(seen, posterior.drawn(noise))
        return Fit(mean, variance, posterior.divergence_from(prior))

    def latent(self, points: Tensor, values: Tensor, masks: DropoutMasks | None = None) -> Latent:
        """Distribution of ``z`` given observations; the order of points does not matter."""
        encoded = self.latent_lift(torch.cat([points, values], dim=-1))
        for block in self.latent_blocks:
            encoded = block(encoded, encoded, encoded, masks)
        hidden = torch.relu(self.latent_hidden(encoded.mean(-2)))
        return Latent(self.latent_mean(hidden), self.latent_log_variance(hidden))

    def encode(self, context_points: Tensor, context_values: Tensor, masks: DropoutMasks | None = None) -> Encoding:
        """What targets look at."""
        encoded = self.value_lift(torch.cat([context_points, context_values], dim=-1))
        for block in self.value_blocks:
            encoded = block(encoded, encoded, encoded, masks)
        return Encoding(self.key_lift(context_points), encoded)

    def attend(self, encoding: Encoding, target_points: Tensor, masks: DropoutMasks | None = None) -> Tensor:
        """What targets are to the decoder before ``z`` is known, ``(function, target, 3 * width)``.

        The decoder's first layer, but for its activation and the columns that ``z`` meets.
        """
        queries = self.query_lift(target_points)
        for block in self.cross_blocks:
            queries = block(queries, encoding.keys, encoding.values, masks)
        of_queries, _, of_points = self._first_columns()
        return functional.linear(queries, of_queries, self.decoder_entry.bias) + functional.linear(
            self.target_lift(target_points), of_points
        )

    def decode(self, seen: Tensor, latent: Tensor) -> Prediction:
        """``(..., function, target, fields)`` from what `attend` gave and ``z (..., function, width)``."""
        _, of_latent, _ = self._first_columns()
        hidden = torch.relu(seen + functional.linear(latent, of_latent).unsqueeze(-2))
        for layer in self.decoder:
            hidden = torch.relu(layer(hidden))
        mean, raw = self.head(hidden).chunk(2, dim=-1)
        return Prediction(mean, (functional.softplus(raw) + self.minimum_deviation).square())

    def _first_columns(self) -> tuple[Tensor, ...]:
        """Of the decoder's first layer: those for queries, ``z`` and target points."""
        return self.decoder_entry.weight.split(self.width, dim=1)

    @torch.no_grad()
    def predict(
        self,
        context_points: Tensor,
        context_values: Tensor,
        target_points: Tensor,
        draws: int,
        generator: torch.Generator,
        dropout: Dropout = "off",
        rows_at_once: int = 16_384,
    ) -> Prediction:
        """Predictions at targets, one for each draw of ``z`` from the distribution that contexts give.

        With dropout off all but the decoder is evaluated once for all draws.

        Args:
            context_points: ``(function, context, dimension)``.
            context_values: ``(function, context, fields)``.
            target_points: ``(function, target, dimension)``.
            draws: how many.
            generator: of ``z`` and of the dropout masks.
            dropout: ``"each_draw"`` gives each draw masks of its own, from observations to prediction, as in the
                published figures; they are drawn in an order that depends on ``rows_at_once``.
            rows_at_once: of draws, functions and targets together, that are held in memory.

        Returns:
            ``(draw, function, target, field)``.

        Raises:
            ValueError: for another word, less than one draw or row, and shapes that do not fit together.
        """
        self._check(context_points, context_values, target_points)
        if dropout not in get_args(Dropout):
            raise ValueError(f"Expected dropout among {get_args(Dropout)} but got {dropout!r}.")
        if min(draws, rows_at_once) < 1:
            raise ValueError(f"Expected draws and rows_at_once of at least 1 but got {draws} and {rows_at_once}.")
        generator = _on(generator, target_points.device)
        noise = torch.randn(
            (draws, len(target_points), self.width),
            generator=generator, device=target_points.device, dtype=self.head.weight.dtype,
        )  # fmt: skip
        points = max(1, min(target_points.shape[1], rows_at_once))
        several = max(1, min(draws, rows_at_once // max(points, context_points.shape[1])))
        functions = max(1, rows_at_once // (several * max(points, context_points.shape[1])))
        tensors = (context_points, context_values, target_points)
        parts = zip(*(each.split(functions) for each in tensors), noise.split(functions, dim=1), strict=True)
        predicted = []
        for contexts, values, targets, of_latent in parts:
            if dropout == "off":
                seen = self.encode(contexts, values), self.latent(contexts, values).drawn(of_latent)
                predicted.append(self._from_one_network(*seen, targets.split(points, dim=1), several))
            else:
                masks = DropoutMasks(generator)
                repeated = [
                    self._from_own_networks(contexts, values, targets.split(points, dim=1), each, masks)
                    for each in of_latent.split(several)
                ]
                predicted.append(_joined(repeated, dim=0))
        return _joined(predicted, dim=1)

    def _from_one_network(
        self, encoding: Encoding, latent: Tensor, targets: tuple[Tensor, ...], several: int
    ) -> Prediction:
        parts = []
        for points in targets:
            seen = self.attend(encoding, points)
            parts.append(_joined([self.decode(seen, each) for each in latent.split(several)], dim=0))
        return _joined(parts, dim=2)

    def _from_own_networks(
        self, contexts: Tensor, values: Tensor, targets: tuple[Tensor, ...], noise: Tensor, masks: DropoutMasks
    ) -> Prediction:
        """Draws stand as functions of their own."""

        def repeated(each: Tensor) -> Tensor:
            return each.expand(len(noise), *each.shape).flatten(0, 1)

        contexts, values = repeated(contexts), repeated(values)
        encoding = self.encode(contexts, values, masks)
        latent = self.latent(contexts, values, masks).drawn(noise.flatten(0, 1))
        parts = [self.decode(self.attend(encoding, repeated(points), masks), latent) for points in targets]
        mean, variance = (each.unflatten(0, (len(noise), -1)) for each in _joined(parts, dim=1))
        return Prediction(mean, variance)

    def _check(self, points: Tensor, values: Tensor, targets: Tensor) -> None:
        functions, count = points.shape[0], points.shape[1] if points.ndim == 3 else 0
        expected = {
            "points": (points, (functions, count, self.dimension)),
            "values": (values, (functions, count, self.fields)),
            "targets": (targets, (functions, targets.shape[1] if targets.ndim == 3 else 0, self.dimension)),
        }
        wrong = [f"{name} {tuple(each.shape)}" for name, (each, shape) in expected.items() if each.shape != shape]
        if wrong or count == 0:
            raise ValueError(
                f"Expected points (function, point, {self.dimension}), values (function, point, {self.fields}) and "
                f"targets (function, target, {self.dimension}) of the same functions, with at least one point, but got "
                f"{', '.join(wrong) or 'no points'}."
            )

    @classmethod
    def from_reference(cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> AttentiveNeuralProcess:
        """The authors' network with released weights.

        Args:
            config: none; their code has one size.
            state_dict: under their names.

        Raises:
            ValueError: for keywords, and for weights that do not fit.
        """
        if config:
            raise ValueError(f"Expected no keywords, as the authors' network has one size, but got {[*config]}.")
        model = cls()
        load_reference_weights(model, state_dict)
        return model

    def reference_translations(self) -> list[Translation]:
        """The authors' names; see `pdesurrogate.models.reference_weights`."""
        modules = dict(_REFERENCE_NAMES)
        for ours, theirs in _REFERENCE_BLOCKS.items():
            for number in range(len(self.get_submodule(ours))):  # type: ignore[arg-type]
                modules |= {f"{ours}.{number}.{a}": f"{theirs}.{number}.{b}" for a, b in _REFERENCE_PARTS.items()}
        modules |= {f"decoder.{number}": f"decoder.linears.{number + 1}" for number in range(len(self.decoder))}
        translations = []
        for name, parameter in self.named_parameters():
            module, _, kind = name.rpartition(".")
            inner = "" if module.endswith(".norm") else ".linear_layer"
            sources = {f"{modules[module]}{inner}.{kind}": tuple(parameter.shape)}
            translations.append(Translation(name, sources, unchanged))
        return translations


# Our modules and the authors'.
_REFERENCE_NAMES = {
    "latent_lift": "latent_encoder.input_projection",
    "latent_hidden": "latent_encoder.penultimate_layer",
    "latent_mean": "latent_encoder.mu",
    "latent_log_variance": "latent_encoder.log_sigma",
    "value_lift": "deterministic_encoder.input_projection",
    "key_lift": "deterministic_encoder.context_projection",
    "query_lift": "deterministic_encoder.target_projection",
    "target_lift": "decoder.target_projection",
    "decoder_entry": "decoder.linears.0",
    "head": "decoder.final_projection",
}
_REFERENCE_BLOCKS = {
    "latent_blocks": "latent_encoder.self_attentions",
    "value_blocks": "deterministic_encoder.self_attentions",
    "cross_blocks": "deterministic_encoder.cross_attentions",
}
_REFERENCE_PARTS = {
    "query": "encoder_query",
    "key": "encoder_key",
    "value": "encoder_value",
    "output": "final_linear",
    "norm": "layer_norm",
}


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def _joined(parts: list[Prediction], dim: int) -> Prediction:
    return parts[0] if len(parts) == 1 else Prediction(*(torch.cat(each, dim) for each in zip(*parts, strict=True)))


def _on(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """The generator itself, or one of the device that it seeds."""
    if generator.device.type == device.type:
        return generator
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    return torch.Generator(device).manual_seed(int(seed))
