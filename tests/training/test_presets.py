"""The shipped configurations: that all can be read, and that those of SineNet's paper have its sizes."""

from __future__ import annotations

import pytest
import torch
import yaml
from jsonargparse import ArgumentError

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
NAMES = sorted(path.relative_to(configs_directory()).as_posix() for path in configs_directory().rglob("*.yaml"))


def network(name, channels=3, history_frames=4, device="meta"):
    """Of the configuration ``ns2d_velocity/NAME``, for these inputs."""
    specification = yaml.safe_load(config_path(f"ns2d_velocity/{name}").read_text())["model"]["network"]
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
    values = yaml.safe_load(config_path(f"ns2d_velocity/{name}").read_text())
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
        values = yaml.safe_load(config_path(f"ns2d_velocity/{name}").read_text())
        del values["model"]["network"]
        return values

    assert all(shared(name) == shared("sinenet_small_k1") for name in SMALL)
    for name in (*(f"sinenet_small_k{waves}" for waves in (1, 2, 4)), "unet_small"):
        assert SMALL[name] == pytest.approx(420_000, rel=5e-3)
