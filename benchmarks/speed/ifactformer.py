"""A training step of our IFactFormer beside that of a plain one with the same weights.

    python benchmarks/speed/ifactformer.py [--quick] [--rounds 5]

Also a section of ``run.py``, which says how it is timed.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any

import torch
from plain_ifactformer import PlainIFactFormer
from timing import Contestants, alternate, print_section, ratio
from torch import Tensor, nn

from pdesurrogate.evaluation.memory import peak_memory
from pdesurrogate.models.ifactformer import CHANNEL_LENGTHS, IFactFormer

PUBLISHED: dict[str, Any] = {"in_dim": 3, "out_dim": 3, "dim": 96, "heads": 5, "dim_head": 96, "n_layer": 10}
# Of `ifactformer_small.yaml`, but with open axes, a random code and plain sums: what the plain one can do.
SMALL: dict[str, Any] = {"in_dim": 4, "out_dim": 4, "dim": 32, "heads": 3, "dim_head": 32, "n_layer": 4}
# Sizes, points along the axes, batch. On the published grid 3 iterations for 10: time and memory grow with them.
CASES = [(PUBLISHED, (16, 17, 8), 1), (SMALL, (16, 24, 16), 8), ({**PUBLISHED, "n_layer": 3}, (32, 33, 16), 1)]
MODELS = {"parallel": "IFactFormer_m", "chained": "IFactFormer_o"}
# Kernels of about one in size. As published they start so small that the chained ones would not be seen in the output.
KERNEL_GAIN = 6.0


class WithPlaces(nn.Module):
    """A plain network and the coordinates of its grid."""

    def __init__(self, network: nn.Module, places: list[Tensor]) -> None:
        super().__init__()
        self.network = network
        self.places = places

    def forward(self, history: Tensor) -> Tensor:
        """The frame after ``history``."""
        result: Tensor = self.network(history, self.places)
        return result


def compare_ifactformer(quick: bool, rounds: int | None = None) -> list[str]:
    """Our IFactFormer and the plain one: time and memory of a training step."""
    lines = [
        "## IFactFormer against a plain one, equal weights",
        "",
        "A training step, one frame to one, depth 1, float32: forward, relative L2 error, backward, Adam. CPU time",
        "of the plain one over ours: median and range over the rounds. Memory: what tensors made in the step take at",
        "most. By iteration: the setting in which ours computes each iteration again in the backward pass.",
        "Differences: relative L2, of the outputs, and of the gradient of the error in the input.",
        "",
        "| attention | width, heads, iterations | grid | batch | parameters | differences | ratio | by iteration "
        "| plain, ms | ours, ms | by iteration, ms | plain, MiB | ours, MiB | by iteration, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    rounds = rounds or (3 if quick else 5)
    cases = CASES[:1] if quick else CASES
    return [*lines, *(_compare_case(attention, *case, rounds) for case in cases for attention in MODELS), ""]


def _compare_case(attention: str, sizes: dict[str, Any], space: tuple[int, ...], batch: int, rounds: int) -> str:
    torch.manual_seed(0)
    config = {**sizes, "depth": 1, "in_time_window": 1, "model": MODELS[attention]}
    plain = PlainIFactFormer(**config)
    for name, weight in plain.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            nn.init.xavier_uniform_(weight, gain=KERNEL_GAIN)
    networks = {name: IFactFormer.from_reference(config, plain.state_dict()) for name in ("ours", "by iteration")}
    networks["by iteration"].checkpointing = "iterations"
    # Phases of the random code reach hundreds of radians: coordinates must agree in the last bit.
    places = [
        torch.linspace(0, length, size, dtype=torch.float64).float()
        for length, size in zip(CHANNEL_LENGTHS, space, strict=True)
    ]
    rivals: dict[str, nn.Module] = {"plain": WithPlaces(plain, places), **networks}
    history, target = (torch.randn(batch, 1, sizes["in_dim"], *space) for _ in range(2))
    differences = _differences(rivals, history, target)
    # In single precision round-off alone is near the limit for gradients.
    if differences[0] > 1e-6 or differences[1] > 1e-5:
        raise RuntimeError(f"Expected equal outputs and gradients at {config} but they differ by {differences}.")

    contestants: Contestants = {
        name: functools.partial(_training_step, network, torch.optim.Adam(_trained(network), lr=1e-5), history, target)
        for name, network in rivals.items()
    }
    memory = [peak_memory(step, "cpu") for step in contestants.values()]
    seconds = alternate(contestants, rounds=rounds, repeats=1)
    cells = [attention, ", ".join(str(sizes[name]) for name in ("dim", "heads", "n_layer"))]
    cells += ["x".join(map(str, space)), str(batch), f"{sum(each.numel() for each in plain.parameters()):,}"]
    cells.append(" / ".join(f"{each:.0e}" for each in differences))
    cells += [ratio(seconds["plain"], seconds[name]) for name in networks]
    cells += [f"{1e3 * statistics.median(each):.0f}" for each in seconds.values()]
    cells += [f"{each / 2**20:.0f}" for each in memory]
    return "| " + " | ".join(cells) + " |"


def _trained(network: nn.Module) -> list[nn.Parameter]:
    """The frequencies of the random code stay as they were drawn."""
    return [each for each in network.parameters() if each.requires_grad]


def _relative_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over samples of ``|prediction - target| / |target|``, norms over the whole field."""
    return ((prediction - target).flatten(1).norm(dim=1) / target.flatten(1).norm(dim=1)).mean()


def _training_step(network: nn.Module, optimizer: torch.optim.Optimizer, history: Tensor, target: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    _relative_error(network(history), target).backward()
    optimizer.step()


def _differences(rivals: dict[str, nn.Module], history: Tensor, target: Tensor) -> tuple[float, float]:
    """Relative L2 of ours to the plain one: of the outputs, and of the gradients of the error in the history."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, network in rivals.items():
        given = history.clone().requires_grad_()
        prediction = network(given)
        (gradient,) = torch.autograd.grad(_relative_error(prediction, target), given)
        found[name] = prediction.detach(), gradient
    expected = found.pop("plain")
    output, gradient = (
        max(float((ours[part] - expected[part]).norm() / expected[part].norm()) for ours in found.values())
        for part in range(2)
    )
    return output, gradient


if __name__ == "__main__":
    print_section(compare_ifactformer, __doc__)
