"""The shipped configurations: that all can be read, and that those of published networks have their sizes."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
import yaml
from jsonargparse import ArgumentError
from torch.utils.flop_counter import FlopCounterMode

from pdesurrogate.cli.train import ForecastCLI
from pdesurrogate.data.catalog import config_path, configs_directory
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.models.specification import build
from pdesurrogate.training.forecast import ForecastModule

# Parameters with the inputs of the paper's incompressible, compressible and shallow-water data.
INPUTS = ((3, 4), (4, 10), (3, 2))
PUBLISHED = {
    "sinenet2": (35_499_989, 35_516_694, 35_496_533),
    "sinenet4": (35_493_699, 35_510_404, 35_490_243),
    "sinenet6": (35_475_499, 35_492_204, 35_472_043),
    "sinenet8": (35_490_219, 35_506_924, 35_486_763),
    "sinenet8_tangled": (32_831_403, 32_848_108, 32_827_947),
    "deeper_unet8": (28_628_084, 28_644_789, 28_624_628),
    "sinenet1_128": (135_094_659, 135_128_068, 135_087_747),
    "unet_modern": (144_263_683, 144_280_388, 144_260_227),
    "dilated_resnet": (4_174_595, 4_178_308, 4_173_827),
    "ffno": (30_118_534, 30_121_352, 30_117_958),
    "ffno_shared": (2_986_630, 2_989_448, 2_986_054),
}
SMALL = {
    "sinenet_small_k1": 420_381,
    "sinenet_small_k2": 420_479,
    "sinenet_small_k4": 419_755,
    "sinenet_small_k1_wide": 418_679,
    "sinenet_small_k2_wide": 418_783,
    "unet_small": 420_931,
    "unet_modern_small": 411_947,
    "ffno_small": 425_738,
    "fno_small": 424_438,
    "dilated_resnet_small": 132_995,
}
# At the friction Reynolds number of 180.
CHANNEL = {"ifactformer_m": 1_163_331, "ifactformer_m_feb2025": 1_181_763, "ifactformer_o": 1_071_171}
CHANNEL_RIVALS = {
    "fno_parameters": 1_163_391,
    "ifno_parameters": 1_164_675,
    "fno_compute": 264_615_363,
    "ifno_compute": 32_368_899,
}
# Of one forward in the authors' order of operations, grid 32 x 33 x 16, batch 1.
CHANNEL_FLOPS = 92.2e9
SHIPPED = sorted(configs_directory().rglob("*.yaml"))
# Those of models of points give them by class path; tests/cli/test_fit_points.py has them.
NAMES = [
    path.relative_to(configs_directory()).as_posix()
    for path in SHIPPED
    if "class_path" not in yaml.safe_load(path.read_text())["model"]
]


def values_of(name, folder="ns2d_velocity"):
    """Of the configuration ``FOLDER/NAME``."""
    return yaml.safe_load(config_path(f"{folder}/{name}").read_text())


def network(name, channels=3, history_frames=4, device="meta", folder="ns2d_velocity"):
    """Of the configuration ``FOLDER/NAME``, for these inputs."""
    specification = values_of(name, folder)["model"]["network"]
    inputs = {"channels": channels, "history_frames": history_frames}
    with torch.device(device):
        return build({**specification, "init_args": {**specification["init_args"], **inputs}})


def count(built):
    return sum(parameter.numel() for parameter in built.parameters())


class Read(ForecastCLI):
    """Stops once a configuration is parsed: no data, no training."""

    def instantiate_classes(self):
        """Nothing."""

    def _run_subcommand(self, subcommand):
        """Nothing."""


@pytest.fixture(scope="module")
def parser():
    """Of the verb `fit`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["pdesurrogate"])
        cli = Read(
            ForecastModule,
            ForecastData,
            args=["fit", "-c", str(configs_directory() / NAMES[0])],
            auto_configure_optimizers=False,
            parser_kwargs={"exit_on_error": False},
        )
    return cli.parser


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_configuration_is_one_that_fit_reads(name, parser):
    path = configs_directory() / name
    parsed = parser.parse_args(["fit", "-c", str(path)])
    assert parsed.fit.model.network.class_path == yaml.safe_load(path.read_text())["model"]["network"]["class_path"]
    text = path.read_text()
    assert f"pdesurrogate fit -c benchmarks/configs/{name}\n" in text
    assert "tier `paper`" in text or "tier `small`" in text or "neuralop" in name


def test_a_misspelled_argument_of_a_network_is_refused(parser, tmp_path):
    text = config_path("ns2d_velocity/sinenet8").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("multiplier:", "multiplicator:"))
    with pytest.raises(ArgumentError, match="multiplicator"):
        parser.parse_args(["fit", "-c", str(tmp_path / "wrong.yaml")])


def test_the_schedule_of_the_authors_is_one_option_away(parser):
    path, schedule = config_path("ns2d_velocity/sinenet8"), "pdesurrogate.training.schedules.EpochWarmupCosine"
    assert f"--model.schedule {schedule}" in path.read_text()
    parsed = parser.parse_args(["fit", "-c", str(path), "--model.schedule", schedule])
    assert parsed.fit.model.schedule.class_path == schedule
    assert parsed.fit.model.schedule.init_args.epochs == parsed.fit.trainer.max_epochs


def test_no_configuration_of_the_velocity_data_is_without_its_number_of_parameters():
    names = {name.removeprefix("ns2d_velocity/").removesuffix(".yaml") for name in NAMES if "ns2d_velocity/" in name}
    assert names == PUBLISHED.keys() | SMALL.keys()
    for name, expected in {**{name: counts[0] for name, counts in PUBLISHED.items()}, **SMALL}.items():
        assert f"{expected:,} parameters" in config_path(f"ns2d_velocity/{name}").read_text()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_number_of_parameters(name):
    assert tuple(count(network(name, *inputs)) for inputs in INPUTS) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_is_trained_as_published(name):
    values = values_of(name)
    model, data = values["model"], values["data"]
    assert (model["learning_rate"], model["weight_decay"], model["target"]) == (2e-4, 1e-5, "state")
    assert (data["batch_size"], data["history_frames"], values["trainer"]["max_epochs"]) == (32, 4, 50)
    assert model["loss"]["class_path"].endswith(".RelativeL2PerChannel")
    assert model["network"]["init_args"]["padding"] == "circular"


@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_has_its_size_and_runs_on_the_data(name):
    built = network(name, device="cpu").eval()
    assert count(built) == SMALL[name]
    with torch.inference_mode():
        predicted = built(torch.zeros(1, 4, 3, 64, 64))
    assert predicted.shape == (1, 1, 3, 64, 64)
    assert bool(predicted.isfinite().all())


def test_small_networks_are_trained_alike_and_those_of_waves_are_of_one_size():
    def shared(name):
        values = values_of(name)
        del values["model"]["network"]
        return values

    assert all(shared(name) == shared("sinenet_small_k1") for name in SMALL)
    for name in (*(f"sinenet_small_k{waves}" for waves in (1, 2, 4)), "unet_small"):
        assert SMALL[name] == pytest.approx(420_000, rel=5e-3)


# The channel.


def test_no_configuration_of_the_filtered_channel_is_without_its_number_of_parameters():
    folder = "filtered_channel/"
    names = {name.removeprefix(folder).removesuffix(".yaml") for name in NAMES if name.startswith(folder)}
    assert names == CHANNEL.keys() | CHANNEL_RIVALS.keys()
    for name, expected in {**CHANNEL, **CHANNEL_RIVALS}.items():
        assert count(network(name, 3, 1, folder="filtered_channel")) == expected
        assert f"{expected:,} parameters" in config_path(f"filtered_channel/{name}").read_text()


@pytest.mark.parametrize("name", [*CHANNEL, *CHANNEL_RIVALS])
def test_networks_of_the_channel_are_trained_as_published(name):
    values = values_of(name, "filtered_channel")
    model, data = values["model"], values["data"]
    assert (model["learning_rate"], model["weight_decay"], model["target"]) == (5e-4, 0.01, "state")
    assert model["loss"]["class_path"].endswith(".RelativeL2Joint")
    assert model["schedule"]["class_path"].endswith(".StepDecay")
    assert model["schedule"]["init_args"] == {"epochs": 30, "step_epochs": 5, "factor": 0.7}
    assert (data["batch_size"], data.get("history_frames", 1), data.get("target_frames", 1)) == (5, 1, 1)
    assert data["adapter"]["class_path"].endswith(".ChannelNumpy")
    assert data["adapter"]["init_args"]["compat"] == "reference"
    assert values["trainer"] == {"max_epochs": 30, "accelerator": "auto"}
    assert values["seed_everything"] == 1234


def test_our_own_channel_is_one_option_away(parser):
    path = config_path("filtered_channel/ifactformer_m")
    changes = ["--data.adapter", "pdesurrogate.data.archive.Archive", "--data.adapter.path", "runs/data/channel_180"]
    assert " ".join(changes) in path.read_text()
    parsed = parser.parse_args(["fit", "-c", str(path), *changes])
    assert parsed.fit.data.adapter.init_args.as_dict() == {"path": "runs/data/channel_180"}


def test_rivals_of_ifactformer_have_its_parameters_or_its_cost(monkeypatch):
    # Autocast knows nothing of the device on which nothing is computed.
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    own = flops(network("ifactformer_m", 3, 1, folder="filtered_channel"))
    for kind in ("fno", "ifno"):
        assert CHANNEL_RIVALS[f"{kind}_parameters"] == pytest.approx(CHANNEL["ifactformer_m"], rel=0.01)
    cost = {name: flops(network(name, 3, 1, folder="filtered_channel")) for name in CHANNEL_RIVALS}
    for kind in ("fno", "ifno"):
        assert cost[f"{kind}_compute"] == pytest.approx(own, rel=0.1)
        assert cost[f"{kind}_compute"] == pytest.approx(CHANNEL_FLOPS, rel=0.1)
    for name, operations in cost.items():
        text = config_path(f"filtered_channel/{name}").read_text()
        assert f"{operations / 1e9:.3g} GFLOP, " in text
        assert f"{own / 1e9:.3g} GFLOP" in text


def flops(built):
    """Of one forward on the published grid, products and FFTs."""
    aten = torch.ops.aten
    transforms = dict.fromkeys((aten._fft_r2c, aten._fft_c2c, aten._fft_c2r), transform_flops)
    counter = FlopCounterMode(
        display=False, custom_mapping={aten.bmm: product_flops, aten.baddbmm_: added_product_flops, **transforms}
    )
    with torch.no_grad(), counter:
        built(torch.empty(1, 1, 3, 32, 33, 16, device="meta"))
    return counter.get_total_flops()


def product_flops(left, right, *others, out_val=None):
    """Of a batch of matrices; torch itself counts complex numbers as real ones."""
    return (8 if left.is_complex() else 2) * left.numel() * right.shape[-1]


def added_product_flops(added, left, right, *others, out_val=None, **options):
    """As `product_flops`; torch itself leaves out those that are added in place."""
    return product_flops(left, right)


def transform_flops(values, axes, *others, out_val=None):
    """The usual ``5 n log2(n)`` for each complex transform, half of it for a real one."""
    lengths = math.prod(max(values.shape[axis], out_val.shape[axis]) for axis in axes)
    both_complex = values.is_complex() and out_val.is_complex()
    return round((5 if both_complex else 2.5) * max(values.numel(), out_val.numel()) * math.log2(lengths))


for _count in (product_flops, added_product_flops, transform_flops):
    _count._get_raw = True  # given tensors rather than shapes
