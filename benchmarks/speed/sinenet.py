"""A training step of our SineNet beside that of a plain one with the same weights.

    python benchmarks/speed/sinenet.py [--quick] [--rounds 9]

Also a section of ``run.py``, which says how it is timed.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any

import torch
from plain_sinenet import PlainSineNet
from timing import Contestants, alternate, print_section, ratio, relative_difference
from torch import Tensor, nn

from pdesurrogate.evaluation.memory import peak_memory
from pdesurrogate.models.sinenet import SineNet

# Width, waves, points along an axis, batch.
CASES = [(32, 2, 64, 2), (16, 8, 64, 2), (64, 1, 128, 1)]
PADDINGS = ("zeros", "circular")
FRAMES, CHANNELS = 4, 3


def compare_sinenet(quick: bool, rounds: int | None = None) -> list[str]:
    """Our SineNet and the plain one: time and memory of a training step."""
    lines = [
        "## SineNet against a plain one, equal weights",
        "",
        f"A training step, {FRAMES} frames of {CHANNELS} channels to one, multiplier 1.425, float32: forward, relative",
        "L2 error, backward, Adam. CPU time of the plain one over ours: median and range over the rounds. Memory: what",
        "tensors made in the step take at most; the last column with each wave computed again in the backward pass.",
        "Differences: of the outputs, and of the gradient of the error in the input.",
        "",
        "| padding | width | waves | grid | batch | parameters | differences | ratio | plain, ms | ours, ms "
        "| plain, MiB | ours, MiB | by wave, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rounds = rounds or (3 if quick else 9)
    cases = CASES[:1] if quick else CASES
    return [*lines, *(_compare_case(padding, *case, rounds) for case in cases for padding in PADDINGS), ""]


def _compare_case(padding: str, width: int, waves: int, size: int, batch: int, rounds: int) -> str:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "n_input_scalar_components": 1,
        "n_input_vector_components": 1,
        "n_output_scalar_components": 1,
        "n_output_vector_components": 1,
        "time_history": FRAMES,
        "time_future": 1,
        "hidden_channels": width,
        "num_waves": waves,
        "mult": 1.425,
        "padding_mode": padding,
    }
    plain = PlainSineNet(**config)
    networks = {"plain": plain, "ours": SineNet.from_reference(config, plain.state_dict())}
    history = torch.randn(batch, FRAMES, CHANNELS, size, size)
    target = torch.randn(batch, 1, CHANNELS, size, size)
    differences = _differences(networks, history, target)
    if max(differences) > 1e-4:
        raise RuntimeError(f"Expected equal outputs and gradients at {config} but they differ by {differences}.")

    contestants: Contestants = {
        name: functools.partial(
            _training_step, network, torch.optim.Adam(network.parameters(), lr=1e-5), history, target
        )
        for name, network in networks.items()
    }
    memory = [peak_memory(step, "cpu") for step in contestants.values()]
    networks["ours"].checkpointing = "waves"
    memory.append(peak_memory(contestants["ours"], "cpu"))
    networks["ours"].checkpointing = "none"
    seconds = alternate(contestants, rounds=rounds, repeats=1)
    cells = [padding, str(width), str(waves), f"{size}x{size}", str(batch)]
    cells.append(f"{sum(each.numel() for each in plain.parameters()):,}")
    cells.append(" / ".join(f"{each:.0e}" for each in differences))
    cells.append(ratio(seconds["plain"], seconds["ours"]))
    cells += [f"{1e3 * statistics.median(each):.0f}" for each in seconds.values()]
    cells += [f"{each / 2**20:.0f}" for each in memory]
    return "| " + " | ".join(cells) + " |"


def _relative_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over samples, frames and channels of ``|prediction - target| / |target|``."""
    return ((prediction - target).flatten(3).norm(dim=3) / target.flatten(3).norm(dim=3)).mean()


def _training_step(network: nn.Module, optimizer: torch.optim.Optimizer, history: Tensor, target: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    _relative_error(network(history), target).backward()
    optimizer.step()


def _differences(networks: dict[str, nn.Module], history: Tensor, target: Tensor) -> tuple[float, float]:
    """Of the outputs, and of the gradients of the error in the history."""
    outputs, gradients = [], []
    for network in networks.values():
        given = history.clone().requires_grad_()
        prediction = network(given)
        outputs.append(prediction.detach())
        gradients += torch.autograd.grad(_relative_error(prediction, target), given)
    return relative_difference(*outputs), relative_difference(*gradients)


if __name__ == "__main__":
    print_section(compare_sinenet, __doc__)
