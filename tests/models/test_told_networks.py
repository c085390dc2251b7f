"""Networks that are told the case: what goes in, what comes out, what is refused, surrogates of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pdesurrogate.fields.grid import Axis, Channel, Grid, Metadata
from pdesurrogate.fields.trajectory import Context
from pdesurrogate.models.case_conditioning import CaseConditioned
from pdesurrogate.models.specification import build, recorded, specification_of
from pdesurrogate.steppers.surrogate import Surrogate

RANGES = [(0.5, 2.0), (10.0, 1000.0), (-3.0, -1.0)]
NETWORKS: dict[str, dict[str, Any]] = {
    "fno.FNO": {"modes": [4, 4], "width": 6, "layers": 2},
    "sinenet.SineNet": {"waves": 1, "width": 4},
    "unet.UNet": {"width": 4},
    "ffno.FactorizedFNO": {"modes": [4, 4], "width": 6, "layers": 2},
    "cfdbench_unet.CFDBenchUNet": {"width": 4},
}


@recorded
class Recorder(nn.Module):
    """Gives the latest frame, and keeps what it was given."""

    context_inputs = ("coordinates", "parameters")

    def __init__(self, channels: int, history_frames: int = 1, target_frames: int = 1) -> None:
        super().__init__()
        self.target_frames = target_frames
        self.given: dict[str, Any] = {}

    def forward(self, history: Tensor, **context: Any) -> Tensor:
        self.given = {"history": history, **context}
        return history[:, -1:].expand(-1, self.target_frames, *history.shape[2:]) + 1


def inner(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"pdesurrogate.models.{name}", "init_args": arguments}


def recorder(**changes: Any) -> CaseConditioned:
    return CaseConditioned(
        {"class_path": f"{__name__}.Recorder"},
        **{"channels": 2, "parameter_ranges": RANGES, "scale": "logarithmic"} | changes,
    )


def case(batch: int = 3, frames: int = 1, space: tuple[int, int] = (16, 32)) -> dict[str, Tensor]:
    """Frames, parameters within their ranges, and volumes with a solid block."""
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(RANGES).T
    volumes = torch.full((batch, *space), 0.01)
    volumes[:, 3:6, :4] = 0
    return {
        "history": torch.randn(batch, frames, 2, *space, generator=generator),
        "parameters": low + torch.rand(batch, 3, generator=generator) * (high - low),
        "volumes": volumes,
    }


@pytest.fixture(params=NETWORKS)
def told(request: pytest.FixtureRequest) -> CaseConditioned:
    torch.manual_seed(0)
    network = CaseConditioned(
        inner(request.param, **NETWORKS[request.param]), channels=2, history_frames=2, target_frames=2,
        parameter_ranges=RANGES,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for each in network.parameters():
            each += 0.05 * torch.randn_like(each)
    return network


def test_any_network_is_told_the_case(told: CaseConditioned) -> None:
    given, widths = case(frames=2), torch.tensor([high - low for low, high in RANGES])
    with torch.no_grad():
        frames = told(**given)
        others = [told(**given | {"parameters": given["parameters"] + change}) for change in torch.diag(widths)]
        elsewhere = told(**given | {"volumes": given["volumes"].flip(2)})
    assert frames.shape == (3, 2, 2, 16, 32)
    fluid = (given["volumes"] > 0) & (given["volumes"].flip(2) > 0)
    for other in (*others, elsewhere):
        change = (other - frames).movedim((1, 2), (-2, -1))[fluid]
        assert float(change.abs().mean()) > 1e-5


def test_solid_cells_keep_the_latest_frame(told: CaseConditioned) -> None:
    given = case(frames=2)
    with torch.no_grad():
        frames = told(**given)
    solid = given["volumes"] == 0
    for frame in frames.unbind(1):
        assert torch.equal(frame.movedim(1, -1)[solid], given["history"][:, -1].movedim(1, -1)[solid])


def test_samples_of_a_batch_know_nothing_of_each_other(told: CaseConditioned) -> None:
    given = case(frames=2)
    with torch.no_grad():
        together, alone = told(**given), told(**{name: values[1:2] for name, values in given.items()})
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_the_case_is_frames_in_front_of_the_history() -> None:
    network, given = recorder(history_frames=2), case(frames=2)
    coordinates = (torch.rand(3, 16), torch.rand(3, 32))
    network(**given, coordinates=coordinates)
    assert isinstance(network.network, Recorder)
    seen = network.network.given
    assert seen["history"].shape == (3, 4, 2, 16, 32)
    assert torch.equal(seen["history"][:, 2:], given["history"])
    assert torch.equal(seen["history"][:, 0, 0], (given["volumes"] > 0).float())
    numbers = seen["history"][:, :2].flatten(1, 2)[:, 1:]
    expected = torch.stack(
        [
            given["parameters"][:, 0].log() / torch.tensor(2.0).log(),
            given["parameters"][:, 1].log10() - 2,
            given["parameters"][:, 2] + 2,
        ],
        dim=1,
    )
    torch.testing.assert_close(numbers, expected[:, :, None, None].expand_as(numbers))
    assert torch.equal(seen["parameters"], given["parameters"])
    assert seen["coordinates"] is coordinates
    assert network.context_inputs == ("parameters", "volumes", "coordinates")


def test_spare_channels_are_zero_and_a_case_without_parameters_is_one_frame() -> None:
    network = recorder(parameter_ranges=RANGES[:2])
    given = case()
    network(**given | {"parameters": given["parameters"][:, :2]})
    assert network.case_frames == 2
    assert not bool(network.network.given["history"][:, 1, 1].any())
    alone = CaseConditioned(inner("fno.FNO", **NETWORKS["fno.FNO"]), channels=2)
    assert (alone.case_frames, alone.context_inputs) == (1, ("volumes",))
    assert torch.equal(alone(given["history"]), alone(given["history"], volumes=torch.ones(16, 32)))


def test_increments_are_zero_in_solid_cells() -> None:
    given = case()
    solid = given["volumes"] == 0
    frames = recorder(gives="increment")(**given)
    assert not bool(frames[:, 0].movedim(1, -1)[solid].any())


def test_a_surrogate_gives_it_the_case_and_a_checkpoint_brings_it_back(tmp_path) -> None:
    grid = Grid((Axis("x"), Axis("y")))
    channels = tuple(Channel(f"velocity_{axis}", "m/s", location="cell", vector="velocity") for axis in "xy")
    metadata = Metadata("cases", grid, channels, frame_interval=0.1, parameters=("a", "b", "c"))
    torch.manual_seed(0)
    network = CaseConditioned(
        inner("fno.FNO", **NETWORKS["fno.FNO"]), channels=2, parameter_ranges=RANGES, scale="logarithmic"
    )
    surrogate, given = Surrogate(network, metadata).eval(), case()
    lines = tuple((torch.arange(float(size)) + 0.5).expand(3, -1) for size in (16, 32))
    context = Context(lines, parameters=given["parameters"], mask=given["volumes"] > 0)
    loaded = Surrogate.from_checkpoint(surrogate.save(tmp_path / "told.ckpt"))
    with torch.no_grad():
        frames = surrogate.step(given["history"], context)
        torch.testing.assert_close(frames, network(**given))
        assert torch.equal(loaded.step(given["history"], context), frames)
    assert specification_of(loaded.network) == specification_of(network)
    assert build(specification_of(network)).state_dict().keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": inner("sfno.SFNO", width=8, modes=[4, 4, 2], latent_frames=2), "channels": 1},
            "takes it as a time axis",
        ),
        ({"network": inner("fno.FNO", channels=2)}, "arguments of the network around it alone"),
        ({"network": {"init_args": {}}}, "class_path and init_args"),
        ({"network": {"class_path": "torch.nn.Identity"}}, "no argument channels"),
        ({"parameter_ranges": [(1.0, 1.0)]}, "pairs"),
        ({"parameter_ranges": [(2.0, 1.0)]}, "pairs"),
        ({"parameter_ranges": [(1.0, -1.0)]}, "pairs"),
        ({"scale": "log"}, "scale"),
        ({"channels": 0}, "channels"),
        ({"gives": "frames"}, "gives"),
    ],
)
def test_bad_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaseConditioned(
            **{"network": inner("fno.FNO", modes=[4, 4], width=4), "channels": 2, "scale": "logarithmic"} | changes
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"history": torch.zeros(3, 2, 2, 16, 32)}, r"Expected history \(batch, 1, 2"),
        ({"parameters": torch.ones(3, 2)}, "one for each of the parameter_ranges"),
        ({"parameters": None}, "one for each of the parameter_ranges"),
        ({"parameters": torch.tensor([1.0, 0.0, -2.0]).expand(3, 3)}, "positive parameters"),
        ({"volumes": torch.ones(3, 16, 16)}, "Expected volumes"),
    ],
)
def test_a_case_that_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recorder()(**case() | changes)
