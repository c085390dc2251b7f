"""Heads on any network: the parts are its frames, the last layer is found, and distributions keep what they state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from pdesurrogate.models.distributions import Gaussian, Members, Moments, Quantiles
from pdesurrogate.models.heads import (
    DiverseHeads,
    GaussianHead,
    ProbabilisticNetwork,
    QuantileHead,
    WithDropout,
)
from pdesurrogate.models.last_layer import last_layer
from pdesurrogate.models.specification import build, recorded, specification_of

NETWORKS = {
    "fno": ("fno.FNO", {"modes": [4, 4], "width": 6, "layers": 2}, (8, 8)),
    "ifno": ("ifno.IFNO", {"modes": [4, 4], "width": 6, "iterations": 2}, (8, 8)),
    "ffno": ("ffno.FactorizedFNO", {"modes": [4, 4], "width": 6, "layers": 2, "margin": 0}, (8, 8)),
    "dilated": ("dilated_resnet.DilatedResNet", {"width": 6, "blocks": 1, "padding": "circular"}, (16, 16)),
    "unet": ("unet.UNet", {"width": 4, "levels": 2, "padding": "circular"}, (16, 16)),
    "modern": ("unet_modern.ModernUNet", {"width": 8, "multipliers": [1, 2], "blocks": 1, "padding": "zeros"}, (16, 8)),
    "sinenet": ("sinenet.SineNet", {"waves": 1, "width": 4, "padding": ["circular", "replicate"]}, (32, 32)),
    "channel": (
        "ifactformer.IFactFormer",
        {"width": 8, "heads": 2, "head_width": 4, "iterations": 2, "lengths": [1.0, 1.0, 1.0]},
        (4, 6, 4),
    ),
    "neuralop": ("neuralop.NeuralOperator", {"architecture": "FNO", "modes": [4, 4], "width": 6, "layers": 2}, (8, 8)),
}
FNO = {"class_path": "pdesurrogate.models.fno.FNO", "init_args": {"modes": [4, 4], "width": 6, "layers": 2}}


def inside(name):
    """The specification of a network, without channels and frames, and the points that it is tried on."""
    path, arguments, space = NETWORKS[name]
    return {"class_path": f"pdesurrogate.models.{path}", "init_args": arguments}, space


def fields(space, frames=2, channels=2, batch=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, frames, channels, *space, generator=generator)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_head_has_rows_of_its_own_in_the_last_layer(name):
    torch.manual_seed(0)
    network, space = inside(name)
    head = DiverseHeads(network, channels=2, history_frames=2, target_frames=3, heads=4)
    history = fields(space)
    with torch.no_grad():
        before = head.distribution(history)
        assert before.values.shape == (4, 3, 3, 2, *space)
        torch.testing.assert_close(head(history), before.mean)
        parameters = dict(head._last.linear.named_parameters())
        rows = parameters.get("gain", parameters.get("weight"))
        rows[12:18] *= 1.5
        after = head.distribution(history)
    changed = [not torch.equal(*pair) for pair in zip(before.values, after.values, strict=True)]
    assert changed == [False, False, True, False]
    # Without bias a head is linear: all of it grows by the factor.
    torch.testing.assert_close(after.values[2], 1.5 * before.values[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_layer_gives_what_the_network_gives(name):
    torch.manual_seed(0)
    specification, space = inside(name)
    sizes = {"channels": 2, "history_frames": 2, "target_frames": 3}
    network = build({**specification, "init_args": {**specification["init_args"], **sizes}})
    found, caught = last_layer(network), []
    found.module.register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    with torch.no_grad():
        output = network(fields(space))
        features = found.features(caught[0]).flatten(2)
        made = found.weight @ features + (0 if found.bias is None else found.bias[:, None])
    torch.testing.assert_close(made.reshape(output.shape), output, rtol=1e-4, atol=1e-5)


def test_a_gaussian_head_is_two_halves_of_the_frames():
    torch.manual_seed(0)
    head = GaussianHead(FNO, channels=2, history_frames=2, target_frames=3, floor=0.01)
    history = fields((8, 8))
    with torch.no_grad():
        mean, raw = head.network(history).split(3, dim=1)
        predicted = head.distribution(history)
    assert torch.equal(predicted.mean, mean)
    assert torch.equal(head(history), mean)
    torch.testing.assert_close(predicted.variance.sqrt(), functional.softplus(raw) + 0.01)
    with torch.no_grad():
        head.network.projection.second.bias[6:] = -100.0
    assert head.distribution(history).variance.sqrt().min().item() == pytest.approx(0.01)


@pytest.mark.parametrize("levels", [(0.16, 0.5, 0.84), (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)])
def test_quantiles_never_cross_whatever_the_weights(levels):
    torch.manual_seed(0)
    head = QuantileHead(FNO, channels=2, history_frames=2, levels=levels)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=2.0)
        predicted = head.distribution(fields((8, 8)))
        assert torch.equal(predicted.mean, head(fields((8, 8))))
    steps = predicted.values.diff(dim=0)
    # A step may vanish beside a large median, in rounding; it is never negative.
    assert bool((steps >= 0).all())
    assert bool((predicted.variance >= 0).all())


@pytest.mark.parametrize("levels", [(0.16, 0.5, 0.84), (0.05, 0.25, 0.5, 0.75, 0.95), (0.4, 0.5, 0.6)])
def test_quantiles_of_a_normal_distribution_have_its_variance(levels):
    normal = torch.distributions.Normal(torch.tensor(3.0), torch.tensor(2.0))
    values = torch.stack([normal.icdf(torch.tensor(level)) for level in levels]).reshape(-1, 1, 1, 1, 1)
    found = Quantiles(values, levels)
    assert found.mean.item() == pytest.approx(3.0)
    assert found.variance.item() == pytest.approx(4.0, rel=1e-5)


def test_members_have_their_mean_and_unbiased_covariance():
    values = fields((2, 2), frames=1, channels=1, batch=5).unsqueeze(1)
    values = values.double()
    found = Members(values).moments()
    torch.testing.assert_close(found.mean, values.mean(0))
    modes = found.modes[0].flatten(1)
    torch.testing.assert_close(modes.T @ modes, torch.cov(values.flatten(1).T))
    torch.testing.assert_close(Members(values).variance, values.var(0))


def test_members_that_agree_have_no_variance_at_all():
    agreeing = torch.full((7, 1, 1, 1, 4), 0.1)
    assert not Members(agreeing).variance.any()


@pytest.mark.parametrize(
    "build_one",
    [
        lambda f: Gaussian(f[0], f[1].square()),
        lambda f: Quantiles(f.sort(0).values, (0.1, 0.5, 0.9)),
        Members,
    ],
    ids=["gaussian", "quantiles", "members"],
)
def test_rescaling_moves_the_mean_and_squares_the_scale(build_one):
    values = fields((4, 4), frames=6, batch=6).reshape(3, 2, 6, 2, 4, 4)
    scale, origin = torch.tensor([2.0, 0.5]).reshape(2, 1, 1), fields((4, 4), frames=1, batch=2)
    before = build_one(values)
    after = before.rescaled(scale, origin)
    torch.testing.assert_close(after.mean, before.mean * scale + origin)
    torch.testing.assert_close(after.variance, before.variance * scale.square())
    first = after.first(2)
    assert first.mean.shape == (2, 2, 2, 4, 4)
    torch.testing.assert_close(first.variance, after.variance[:, :2])
    torch.testing.assert_close(after.moments().marginal_variance, after.variance)


def test_marginal_variance_is_the_diagonal_of_the_covariance():
    modes = torch.tensor([[1.0, 2.0], [0.5, 0.0]]).reshape(1, 2, 1, 1, 2)
    variance = torch.tensor([3.0, 4.0]).reshape(1, 1, 1, 2)
    assert Moments(variance, variance, modes).marginal_variance.flatten().tolist() == [4.25, 8.0]
    assert Moments(variance, variance).marginal_variance is variance


@pytest.mark.parametrize(
    "head",
    [
        GaussianHead(FNO, channels=1, floor=0.02),
        QuantileHead(FNO, channels=1, levels=[0.1, 0.5, 0.9]),
        DiverseHeads(FNO, channels=1, heads=3, last_layer="projection"),
        WithDropout(FNO, channels=1, after=["blocks.0"], probability=0.3),
        GaussianHead(
            {
                "class_path": "pdesurrogate.models.heads.WithDropout",
                "init_args": {"network": FNO, "after": ["blocks.1"]},
            },
            channels=1,
        ),
    ],
    ids=lambda head: type(head).__name__,
)
def test_a_head_is_rebuilt_from_plain_values(head):
    again = build(specification_of(head))
    again.load_state_dict(head.state_dict())
    history = fields((8, 8), frames=1, channels=1)
    assert torch.equal(again.eval()(history), head.eval()(history))
    assert specification_of(again) == specification_of(head)
    assert isinstance(head, ProbabilisticNetwork) == (not isinstance(head, WithDropout))


def test_what_the_network_takes_of_the_context_goes_through_the_head():
    torch.manual_seed(0)
    sinenet = {
        "class_path": "pdesurrogate.models.sinenet.SineNet",
        "init_args": {"waves": 1, "width": 4, "conditioning": "add", "parameter_ranges": [[0.0, 1.0]]},
    }
    head = GaussianHead(sinenet, channels=1)
    assert head.context_inputs == ("parameters",)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    history = fields((32, 32), frames=1, channels=1, batch=1)
    one, other = (head.distribution(history, parameters=torch.tensor([[value]])) for value in (0.1, 0.9))
    assert not torch.allclose(one.variance, other.variance)


def test_heads_that_would_start_at_zero_start_apart():
    modern = {
        "class_path": "pdesurrogate.models.unet_modern.ModernUNet",
        "init_args": {
            "width": 8, "multipliers": [1, 2], "blocks": 1, "conditioning": "add", "parameter_ranges": [[0, 1]],
        },
    }  # fmt: skip
    head = DiverseHeads(modern, channels=1, heads=3)
    assert torch.pdist(head.weights).min() > 0.1
    assert not head._last.bias.any()
    assert not head._last.bias.requires_grad


def test_dropout_drops_whole_channels_in_training_alone():
    torch.manual_seed(0)
    network = WithDropout(FNO, channels=2, after=["blocks.0"], history_frames=2, probability=0.4)
    caught = []
    network.network.blocks[1].register_forward_pre_hook(lambda module, given: caught.append(given[0]))
    history = fields((8, 8), batch=64)
    trained = network.train()(history)
    plain = network.eval()(history)
    assert torch.equal(plain, network.network(history))
    assert not torch.equal(trained, plain)
    dropped, kept = caught[0], caught[1]
    zero = (dropped == 0).flatten(2).all(2)
    torch.testing.assert_close(dropped[~zero], kept[~zero] / 0.6)
    assert 0.3 < zero.float().mean() < 0.5  # 384 channels, four deviations


def test_dropout_along_channels_that_come_last():
    channel, space = inside("channel")
    network = WithDropout(
        channel, channels=2, after=["blocks.0.attention.values"], history_frames=2, probability=0.5, channel_axis=-1
    )
    dropout = network.dropouts[0]
    made = dropout.after(nn.Identity(), (), torch.ones(3, *space, 8))
    assert made.shape == (3, *space, 8)
    assert set(made.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(made, made[:, :1, :1, :1].expand_as(made))


def test_a_copied_network_has_dropout_of_its_own():
    network = WithDropout(FNO, channels=2, after=["blocks.0"], history_frames=2, probability=0.5)
    twin = copy.deepcopy(network).eval()
    network.train()
    assert torch.equal(twin(fields((8, 8))), twin.network(fields((8, 8))))
    plain = copy.deepcopy(network.network)
    plain.eval()
    hook = next(iter(twin.network.blocks[0]._forward_hooks.values()))
    assert hook.__self__ is twin.dropouts[0]


@recorded
class WithoutFrames(nn.Module):
    """A network of one frame alone."""

    def __init__(self, channels: int = 1, history_frames: int = 1) -> None:
        super().__init__()


@recorded
class Nonlinear(nn.Module):
    """A network that does not end in a linear layer."""

    def __init__(self, channels: int = 1, history_frames: int = 1, target_frames: int = 1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


HERE = __name__


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianHead(FNO, 1, floor=0.0), "positive floor of the deviation but got 0.0"),
        (lambda: GaussianHead({"init_args": {}}, 1), "class_path and init_args of the network inside but got"),
        (lambda: GaussianHead({**FNO, "seed": 1}, 1), "class_path and init_args of the network inside but got"),
        (
            lambda: GaussianHead({**FNO, "init_args": {"channels": 1, "history_frames": 1}}, 1),
            "channels, history_frames as arguments of the network around it alone",
        ),
        (lambda: GaussianHead({"class_path": "no.such.Network"}, 1), "'no.such.Network' cannot be imported"),
        (
            lambda: GaussianHead({"class_path": "pdesurrogate.models.sfno.SFNO"}, 1, 10),
            "SFNO cannot: its frames are no channels of their own",
        ),
        (lambda: GaussianHead({"class_path": f"{HERE}.WithoutFrames"}, 1), "has no argument target_frames"),
        (lambda: QuantileHead(FNO, 1, levels=(0.1, 0.5)), "three levels or more"),
        (lambda: QuantileHead(FNO, 1, levels=(0.1, 0.4, 0.6, 0.9)), "three levels or more"),
        (lambda: QuantileHead(FNO, 1, levels=(0.1, 0.5, 0.8)), "symmetric about 0.5"),
        (lambda: QuantileHead(FNO, 1, levels=(0.9, 0.5, 0.1)), "increasing"),
        (lambda: QuantileHead(FNO, 1, levels=(0.0, 0.5, 1.0)), "within"),
        (lambda: DiverseHeads(FNO, 1, heads=1), "at least two heads, which can differ, but got 1"),
        (lambda: DiverseHeads(FNO, 1, last_layer="lifting"), "last layer with 10 rows, .*'lifting' of the FNO has 6"),
        (lambda: DiverseHeads({"class_path": f"{HERE}.Nonlinear"}, 1), "ends in a linear layer but a Nonlinear has no"),
        (lambda: last_layer(build({**FNO, "init_args": {"channels": 1}}), "blocks"), "named 'blocks' but a FNO has"),
        (lambda: WithDropout(FNO, 1, after=["blocks.0"], probability=1.0), r"within \(0, 1\) but got 1.0"),
        (lambda: WithDropout(FNO, 1, after=["blocks.9"]), r"but got \['blocks.9'\]; among its modules are lifting"),
        (lambda: WithDropout(FNO, 1, after=[]), "modules of a FNO, after which channels are dropped, but got none"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
