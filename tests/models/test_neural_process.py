"""The attentive neural process: the authors' function and published draws, no order, draws on purpose."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from pdesurrogate.data.adapters.gpme import GpmeNpz
from pdesurrogate.layers.point_attention import DropoutMasks
from pdesurrogate.models.neural_process import AttentiveNeuralProcess, Latent, Prediction, mixture_moments
from pdesurrogate.models.specification import build, specification_of

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = Path(__file__).parents[3] / "shared"
# The golden file of each problem.
PUBLISHED = {"pme": "probconserv_pme_m3", "stefan": "probconserv_stefan_u06"}
DRAWS = 128


def small(**options):
    torch.manual_seed(0)
    return AttentiveNeuralProcess(**{"width": 8, "heads": 2, **options}).double()


def functions(contexts=6, targets=9, count=3, dimension=2, fields=1):
    """Contexts, their values, targets and theirs."""
    torch.manual_seed(1)
    sizes = ((contexts, dimension), (contexts, fields), (targets, dimension), (targets, fields))
    return [torch.randn(count, *size, dtype=torch.float64) for size in sizes]


def predicted(network, draws=4, seed=0, data=None, **options):
    return network.predict(*(data or functions())[:3], draws, torch.Generator().manual_seed(seed), **options)


def reference_state(network):
    """Random weights under the authors' names."""
    torch.manual_seed(2)
    shapes = {name: shape for each in network.reference_translations() for name, shape in each.sources.items()}
    return {name: 0.3 * torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def plain(state, contexts, values, targets, noise):
    """The authors' network from the note on their code: mean, deviation, and the distribution of the latent."""

    def linear(name, x):
        name += ".linear_layer"
        return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def attention(name, query, key, value):
        q, k, v = (linear(f"{name}.encoder_{w}", x) for w, x in (("query", query), ("key", key), ("value", value)))
        heads = []
        for head in range(4):
            part = slice(32 * head, 32 * (head + 1))
            weights = torch.softmax(q[..., part] @ k[..., part].mT / math.sqrt(32), dim=-1)
            heads.append(weights @ v[..., part])
        change = linear(f"{name}.final_linear", torch.cat([query, *heads], dim=-1))
        norm = state[f"{name}.layer_norm.weight"], state[f"{name}.layer_norm.bias"]
        return functional.layer_norm(query + change, (128,), *norm)

    def encoded(name, x, y):
        hidden = linear(f"{name}.input_projection", torch.cat([x, y], dim=-1))
        for number in range(2):
            hidden = attention(f"{name}.self_attentions.{number}", hidden, hidden, hidden)
        return hidden

    pooled = torch.relu(linear("latent_encoder.penultimate_layer", encoded("latent_encoder", contexts, values).mean(1)))
    mu, log_variance = linear("latent_encoder.mu", pooled), linear("latent_encoder.log_sigma", pooled)
    z = mu + torch.exp(log_variance / 2) * noise
    seen = encoded("deterministic_encoder", contexts, values)
    keys = linear("deterministic_encoder.context_projection", contexts)
    r = linear("deterministic_encoder.target_projection", targets)
    for number in range(2):
        r = attention(f"deterministic_encoder.cross_attentions.{number}", r, keys, seen)
    place = linear("decoder.target_projection", targets)
    hidden = torch.cat([r, z.unsqueeze(1).expand_as(r), place], dim=-1)
    for number in range(3):
        hidden = torch.relu(linear(f"decoder.linears.{number}", hidden))
    mean, raw = linear("decoder.final_projection", hidden).chunk(2, dim=-1)
    return mean, functional.softplus(raw) + 1e-3, mu, log_variance


# The authors' network.


def test_it_has_the_published_number_of_parameters():
    network = AttentiveNeuralProcess()
    assert sum(each.numel() for each in network.parameters()) == 989_826
    assert len(network.reference_translations()) == len(network.state_dict()) == 66


def test_released_weights_make_the_authors_function():
    state = reference_state(AttentiveNeuralProcess())
    network = AttentiveNeuralProcess.from_reference({}, state)
    contexts, values, targets, _ = functions()
    noise = torch.randn(3, 128, dtype=torch.float64)
    mean, deviation, mu, log_variance = plain(state, contexts, values, targets, noise)
    latent = network.latent(contexts, values)
    torch.testing.assert_close(latent.mean, mu)
    torch.testing.assert_close(latent.log_variance, log_variance)
    given = network.decode(network.attend(network.encode(contexts, values), targets), latent.drawn(noise))
    torch.testing.assert_close(given.mean, mean)
    torch.testing.assert_close(given.variance.sqrt(), deviation)


def test_weights_that_do_not_fit_are_refused():
    state = reference_state(AttentiveNeuralProcess())
    name = "decoder.linears.1.linear_layer.weight"
    without = {key: value for key, value in state.items() if key != name}
    with pytest.raises(ValueError, match=f"1 is missing: {name}"):
        AttentiveNeuralProcess.from_reference({}, without)
    with pytest.raises(ValueError, match=r"1 is left over: decoder\.linears\.3\.linear_layer\.bias"):
        AttentiveNeuralProcess.from_reference({}, {**state, "decoder.linears.3.linear_layer.bias": torch.zeros(384)})
    with pytest.raises(ValueError, match=rf"Expected {name} of shape \(384, 384\) but got \(384, 128\)"):
        AttentiveNeuralProcess.from_reference({}, {**state, name: torch.zeros(384, 128)})
    with pytest.raises(ValueError, match=r"Expected no keywords.* but got \['width'\]"):
        AttentiveNeuralProcess.from_reference({"width": 64}, state)


@pytest.fixture(scope="module", params=PUBLISHED)
def golden(request):
    """What the authors drew at 201 places and one time for one of their test functions."""
    path = GOLDEN / f"{PUBLISHED[request.param]}.npz"
    if not path.is_file():
        pytest.skip(f"{path.name} is not here")
    arrays = np.load(path)
    return request.param, arrays, [torch.from_numpy(arrays[f"prior_sample_{name}"]) for name in ("loc", "scale")]


@pytest.fixture(scope="module")
def published(golden):
    """The authors' network, the function that it is asked for, and their draws."""
    case, arrays, draws = golden
    path = SHARED / "data" / "gpme" / f"anp_{case}.npz"
    if not path.is_file():
        pytest.skip("the authors' weights are not beside the checkout")
    weights = np.load(path)
    network = AttentiveNeuralProcess.from_reference({}, {name: torch.from_numpy(weights[name]) for name in weights})
    points, number = GpmeNpz(f"{case}_test").points(), int(arrays["test_index"])
    x = torch.from_numpy(arrays["x"]).float()
    targets = torch.stack([torch.full_like(x, float(arrays["t"])), x], dim=-1)[None]
    return network, (points.context_points[[number]], points.context_values[[number]], targets), draws


def scores(ours, theirs):
    """Differences of means and of logarithms of variances, in standard errors.

    Of the three principal components of all draws: single places have one error between them.
    """
    together = torch.cat([ours - ours.mean(0), theirs - theirs.mean(0)])
    components = torch.linalg.svd(together, full_matrices=False).Vh[:3].T
    a, b = ours @ components, theirs @ components
    of_means = (a.mean(0) - b.mean(0)) / (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    kurtosis = [((each - each.mean(0)) ** 4).mean(0) / each.var(0) ** 2 - 1 for each in (a, b)]
    of_variances = (a.var(0) / b.var(0)).log() / (kurtosis[0] / len(a) + kurtosis[1] / len(b)).sqrt()
    return torch.cat([of_means, of_variances])


def terms(draws):
    """What the mean and the variance of a mixture are the means of, from means and deviations ``(draw, target)``."""
    mean, deviation = draws
    return mean, deviation.square() + (mean - mean.mean(0)).square() * len(mean) / (len(mean) - 1)


def columns(prediction):
    """Means and deviations ``(draw, target)`` of one function's one field, as golden files have them."""
    return [each[:, 0, :, 0].double() for each in (prediction.mean, prediction.variance.sqrt())]


def test_draws_with_dropout_are_those_of_the_authors(published):
    network, data, theirs = published
    ours = predicted(network, DRAWS, data=data, dropout="each_draw")
    for mine, other in zip(columns(ours), theirs, strict=True):
        # Six numbers, each of them standard normal if both come from one distribution.
        assert float(scores(mine, other).abs().max()) < 4
    for mine, other in zip(terms(columns(ours)), terms(theirs), strict=True):
        errors = (mine.var(0) / len(mine) + other.var(0) / len(other)).sqrt()
        # Places are alike, so that their root mean square is near one, but not as near as that of 201 numbers.
        assert float(((mine.mean(0) - other.mean(0)) / errors).square().mean().sqrt()) < 1.5


def test_their_draws_tell_of_dropout(published):
    network, data, theirs = published
    ours = predicted(network, DRAWS, data=data, dropout="off")
    assert float(scores(columns(ours)[0], theirs[0]).abs().max()) > 6


def test_moments_of_their_draws_are_those_that_are_stored_with_them(golden):
    _, arrays, (mean, deviation) = golden
    mixed = mixture_moments(Prediction(mean, deviation.square()))
    np.testing.assert_allclose(mixed.mean, arrays["prior_mean"], rtol=1e-6)
    np.testing.assert_allclose(mixed.variance.sqrt(), arrays["prior_std"], rtol=1e-6)


# Points.


def test_contexts_have_no_order_and_targets_keep_theirs():
    network, (contexts, values, targets, _) = small(), functions()
    expected = predicted(network)
    order, other = torch.randperm(6), torch.randperm(9)
    shuffled = predicted(network, data=(contexts[:, order], values[:, order], targets))
    moved = predicted(network, data=(contexts, values, targets[:, other]))
    for quantity in range(2):
        torch.testing.assert_close(shuffled[quantity], expected[quantity])
        torch.testing.assert_close(moved[quantity], expected[quantity][:, :, other])


def test_targets_and_functions_know_nothing_of_each_other():
    network, (contexts, values, targets, _) = small(), functions()
    expected = predicted(network)
    changed = targets.clone()
    changed[:, 4:] += 1
    alone = predicted(network, data=(contexts, values, changed)).mean
    torch.testing.assert_close(alone[:, :, :4], expected.mean[:, :, :4])
    assert not torch.allclose(alone[:, :, 4:], expected.mean[:, :, 4:])
    other = values.clone()
    other[1:] += 1
    torch.testing.assert_close(predicted(network, data=(contexts, other, targets)).mean[:, 0], expected.mean[:, 0])


def test_a_prediction_of_training_is_differentiated_by_its_own_point_alone():
    network, (contexts, values, targets, seen) = small(), functions()
    targets.requires_grad_()
    fit = network(contexts, values, targets, seen, torch.zeros(3, 8, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(fit.mean[0, 2].sum(), targets)
    assert bool((gradient[0, 2] != 0).all())
    gradient[0, 2] = 0
    assert not gradient.any()


@pytest.mark.parametrize(("dimension", "fields"), [(1, 1), (2, 3), (3, 2)])
def test_any_dimension_any_fields_any_number_of_points(dimension, fields):
    network = small(dimension=dimension, fields=fields)
    for contexts in (1, 5):
        data = functions(contexts, targets=4, dimension=dimension, fields=fields)
        draws = predicted(network, draws=2, data=data)
        assert draws.mean.shape == draws.variance.shape == (2, 3, 4, fields)
        assert bool((draws.variance >= 1e-6).all())
        assert bool((draws.variance != draws.variance[:, :, :1]).any())


# Draws.


@pytest.mark.parametrize("dropout", ["off", "each_draw"])
def test_draws_follow_from_the_generator_in_whatever_mode_the_network_is(dropout):
    network = small()
    first = predicted(network.train(), dropout=dropout).mean
    torch.manual_seed(7)
    assert torch.equal(predicted(network.eval(), dropout=dropout).mean, first)
    assert not torch.allclose(predicted(network, seed=1, dropout=dropout).mean, first)


def test_dropout_is_a_choice():
    network = small()
    off, on = (predicted(network, dropout=dropout).mean for dropout in ("off", "each_draw"))
    assert not torch.allclose(off, on)
    still = small(attention_dropout=0.0, output_dropout=0.0)
    off, on = (predicted(still, dropout=dropout).mean for dropout in ("off", "each_draw"))
    torch.testing.assert_close(off, on)


def test_each_draw_has_masks_of_its_own():
    network = small()
    # Without chance in z only masks are left.
    torch.nn.init.constant_(network.latent_log_variance.bias, -80)
    torch.nn.init.zeros_(network.latent_log_variance.weight)
    still, moving = (predicted(network, dropout=dropout).mean for dropout in ("off", "each_draw"))
    torch.testing.assert_close(still, still[:1].expand_as(still))
    for first in range(4):
        for second in range(first):
            assert not torch.allclose(moving[first], moving[second])


@pytest.mark.parametrize("dropout", ["off", "each_draw"])
def test_what_is_held_at_once_changes_nothing(dropout):
    network = small(attention_dropout=0.0, output_dropout=0.0)
    expected = predicted(network, dropout=dropout, draws=5)
    for rows in (1, 7, 9, 20, 30, 10_000):
        given = predicted(network, dropout=dropout, draws=5, rows_at_once=rows)
        torch.testing.assert_close(given.mean, expected.mean)
        torch.testing.assert_close(given.variance, expected.variance)


def test_a_draw_is_what_encoder_and_decoder_make_of_the_latent():
    network, (contexts, values, targets, _) = small(), functions()
    noise = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = network.attend(network.encode(contexts, values), targets)
    expected = network.decode(seen, network.latent(contexts, values).drawn(noise))
    torch.testing.assert_close(predicted(network).mean, expected.mean)


def test_a_latent_of_training_comes_from_the_targets():
    network, (contexts, values, targets, seen) = small(), functions()
    noise = torch.randn(3, 8, dtype=torch.float64)
    fit = network(contexts, values, targets, seen, noise)
    posterior, prior = network.latent(targets, seen), network.latent(contexts, values)
    at_targets = network.attend(network.encode(contexts, values), targets)
    torch.testing.assert_close(fit.mean, network.decode(at_targets, posterior.drawn(noise)).mean)
    torch.testing.assert_close(fit.divergence, posterior.divergence_from(prior))
    masked = network(contexts, values, targets, seen, noise, DropoutMasks(torch.Generator().manual_seed(0)))
    assert not torch.allclose(masked.mean, fit.mean)


def test_divergence_is_that_of_normal_distributions():
    torch.manual_seed(0)
    a, b = (Latent(torch.randn(5, 3), torch.randn(5, 3)) for _ in range(2))
    p, q = (torch.distributions.Normal(each.mean, (0.5 * each.log_variance).exp()) for each in (a, b))
    torch.testing.assert_close(a.divergence_from(b), torch.distributions.kl_divergence(p, q).sum(-1))
    assert not a.divergence_from(a).any()


def test_moments_of_a_mixture_obey_the_law_of_total_variance():
    torch.manual_seed(0)
    draws = Prediction(torch.randn(6, 2, 5, 1), torch.rand(6, 2, 5, 1))
    mixed = mixture_moments(draws)
    torch.testing.assert_close(mixed.mean, draws.mean.mean(0))
    torch.testing.assert_close(mixed.variance, draws.variance.mean(0) + draws.mean.var(0))
    torch.testing.assert_close(mixed.epistemic, draws.mean.var(0))
    # One function is as good as several.
    one = mixture_moments(Prediction(draws.mean[:, :1], draws.variance[:, :1]))
    torch.testing.assert_close(one.variance, mixed.variance[:1])
    with pytest.raises(ValueError, match="at least two draws but got 1"):
        mixture_moments(Prediction(draws.mean[:1], draws.variance[:1]))


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimension": 0}, "of at least 1"),
        ({"cross_blocks": 0}, "of at least 1"),
        ({"minimum_deviation": 0.0}, "minimum_deviation > 0"),
        ({"heads": 3}, "divide the width"),
        ({"output_dropout": 1.0}, "dropout rates"),
    ],
)
def test_sizes_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_bad_requests_are_refused():
    network, (contexts, values, targets, seen) = small(), functions()
    with pytest.raises(ValueError, match=r"dropout among \('off', 'each_draw'\) but got 'on'"):
        predicted(network, dropout="on")
    with pytest.raises(ValueError, match="at least 1 but got 0 and 16384"):
        predicted(network, draws=0)
    with pytest.raises(ValueError, match=r"but got values \(3, 6\)"):
        predicted(network, data=(contexts, values.squeeze(-1), targets))
    with pytest.raises(ValueError, match=r"but got targets \(3, 9, 1\)"):
        predicted(network, data=(contexts, values, targets[..., :1]))
    with pytest.raises(ValueError, match=r"but got targets \(2, 9, 2\)"):
        predicted(network, data=(contexts, values, targets[:2]))
    with pytest.raises(ValueError, match="at least one point, but got no points"):
        predicted(network, data=(contexts[:, :0], values[:, :0], targets))
    with pytest.raises(ValueError, match=r"but got values \(3, 8, 1\)"):
        network(contexts, values, targets, seen[:, 1:], torch.zeros(3, 8))


def test_it_is_rebuilt_from_its_specification():
    network = small(fields=2, self_blocks=1)
    again = build(specification_of(network)).double()
    again.load_state_dict(network.state_dict())
    data = functions(fields=2)
    assert torch.equal(predicted(again, data=data).mean, predicted(network, data=data).mean)
